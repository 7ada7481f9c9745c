"""A network, loss or augmentation of one's own: its source is part of the run's name."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import THREE_EPOCHS, silent, small_study
from torch import nn

from lusbio.errors import LusbioError
from lusbio.runs.predict import Model, load_network
from lusbio.runs.spec import Own, Run, load_run
from lusbio.runs.study import Study
from lusbio.runs.train import execute
from lusbio.vocabulary import SEVERITY


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"), profile=THREE_EPOCHS)


class MeanBrightness(nn.Module):
    """Decides by the mean brightness of a clip: logits (B, K), features (B, 1)."""

    def __init__(self, n_outputs: int, frames: int):
        super().__init__()
        self.fc = nn.Linear(1, n_outputs)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.features_and_logits(clips)[1]

    def features_and_logits(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = clips.mean(dim=(1, 2, 3, 4))[:, None]
        return features, self.fc(features)


def softened_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, targets, label_smoothing=0.3)


def darken(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clips * torch.rand((), generator=generator)


def make_loss(smoothing: float):
    def loss(logits, targets):
        return nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)

    return loss


def train(study: Study, **parts) -> list[Run]:
    """As many folds of a severity network as can be trained at a time, with parts of one's own."""
    return study.train(study.specs(SEVERITY)[: study.jobs], say=silent, **parts)


def test_a_loss_of_ones_own_gives_another_run_and_other_numbers(study):
    (usual,), (own,) = train(study), train(study, loss=softened_loss)
    assert own.folder != usual.folder and own.spec.own == Own(loss=softened_loss).name
    assert own.spec.words == f"lung_severity fold 0, own {own.spec.own}"
    assert np.abs(own.probabilities - usual.probabilities).max() > 1e-4
    assert load_run(own.folder).spec == own.spec


def test_each_part_takes_the_place_of_the_packages(study):
    network = train(study, network=MeanBrightness)[0]
    assert network.features.shape == (40, 1) and network.info["masked"] == []
    darker, usual = train(study, augment=darken)[0], train(study)[0]
    assert np.abs(darker.probabilities - usual.probabilities).max() > 1e-4
    names = [part.split("-")[0] for part in Own(MeanBrightness, softened_loss, darken).name.split("+")]
    assert names == ["network", "loss", "augment"] and Own().name == ""


def test_the_same_source_gives_the_same_run(study):
    def write_loss():
        def loss(logits, targets):
            # What a comment says does not count.
            return nn.functional.cross_entropy(logits, targets, label_smoothing=0.3)

        return loss

    def write_it_again():
        def loss(logits, targets):
            return nn.functional.cross_entropy(logits, targets, label_smoothing=0.3)

        return loss

    (run,) = train(study, loss=write_loss())
    written = (run.folder / "run.json").stat().st_mtime_ns
    (again,) = train(study, loss=write_it_again())
    assert again.folder == run.folder and (run.folder / "run.json").stat().st_mtime_ns == written


def test_a_value_that_a_function_closes_over_changes_the_name(study):
    names = [Own(loss=make_loss(value)).name for value in (0.1, 0.1, 0.2)]
    assert names[0] == names[1] != names[2]


WEIGHT = torch.tensor([1.0, 2.0, 3.0, 4.0])


def weigh(logits, targets):
    return nn.functional.cross_entropy(logits, targets, weight=WEIGHT)


def weighted_loss(logits, targets):
    return weigh(logits, targets) + WEIGHT.sum()


def test_values_and_functions_that_a_function_names_change_its_name(monkeypatch):
    before = Own(loss=weighted_loss).name
    assert Own(loss=weighted_loss).name == before
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "WEIGHT", torch.tensor([9.0, 1.0, 1.0, 1.0]))
        assert Own(loss=weighted_loss).name != before
    monkeypatch.setitem(globals(), "weigh", softened_loss)
    assert Own(loss=weighted_loss).name != before


def endless_loss(logits, targets):
    return logits.sum() * float("nan")


def test_a_loss_that_is_no_number_ends_the_training_and_nothing_is_finished(study):
    for _ in range(2):
        with pytest.raises(LusbioError, match="epoch 1: the loss is nan, expected a finite number"):
            train(study, loss=endless_loss)


def test_a_part_without_a_source_is_refused(study):
    for part in (max, partial(softened_loss), eval("lambda logits, targets: logits.sum()")):
        with pytest.raises(LusbioError, match="loss: its source cannot be read, write it as a function or class"):
            train(study, loss=part)


@pytest.mark.slow
def test_own_parts_travel_to_other_processes(study):
    runs = train(replace(study, jobs=2), network=MeanBrightness, loss=make_loss(0.15))
    assert len({run.folder for run in runs}) == 2 and all(run.features.shape == (40, 1) for run in runs)


def test_the_name_travels_without_the_source(monkeypatch):
    """A worker does not have the source of what stands in a notebook. (A copy is made as one is sent.)"""
    own = Own(loss=softened_loss)
    name = own.name
    monkeypatch.setattr("inspect.getsource", lambda part: (_ for _ in ()).throw(OSError("no source")))
    assert copy.deepcopy(own).name == name
    with pytest.raises(LusbioError, match="its source cannot be read"):
        _ = Own(loss=softened_loss).name


def test_a_run_is_not_trained_with_other_parts_than_its_name_says(study):
    spec = study.specs(SEVERITY, seed=5)[0]
    with pytest.raises(LusbioError, match=r"has nothing of its own, given is loss-\w{8}"):
        execute(spec, study, Own(loss=softened_loss))
    with pytest.raises(LusbioError, match="has loss-00000000 of its own, given is nothing"):
        execute(study.specs(SEVERITY, own="loss-00000000")[0], study)


def test_a_network_of_ones_own_cannot_be_loaded_by_others(study):
    (run,) = train(study, network=MeanBrightness)
    with pytest.raises(LusbioError, match="its network is somebody's own, which only they can make"):
        load_network(Model.of_run(run))
    (with_loss,) = train(study, loss=softened_loss)
    assert load_network(Model.of_run(with_loss)).training is False
