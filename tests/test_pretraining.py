"""A pretraining is a run like any other, and trainings start from it."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import THREE_EPOCHS, silent, small_study
from torch import nn

from lusbio.errors import LusbioError
from lusbio.network.clips import ClipDataModule, ClipDataset
from lusbio.network.pretraining import PretrainingModule
from lusbio.network.training import to_unit_range
from lusbio.network.unet import unet_classifier
from lusbio.network.weights import read_weights
from lusbio.runs.plan import start_from
from lusbio.runs.spec import find_runs
from lusbio.runs.study import Study
from lusbio.runs.train import take_tensors
from lusbio.vocabulary import SEVERITY

OF_UNET = {"backbone": "unet", "initial_weights": "scratch", "seed": 0}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"), profile=THREE_EPOCHS)


class Brightness(PretrainingModule):
    """Learns the mean brightness of clips: a network with the classifier's encoder and one output."""

    def compute_loss(self, batch, generator):
        clips = to_unit_range(batch["clips"]) * (0.9 + 0.1 * torch.rand((), generator=generator))
        return (self.network(clips)[:, 0] - clips.mean(dim=(1, 2, 3, 4))).square().mean()

    def validate(self, batch, generator):
        loss = self.compute_loss(batch, generator)
        return loss, -loss

    def predict_all(self, data, spec, device):
        return np.zeros((len(data.dataset), 1), np.float32), np.ones((len(data.dataset), 3), np.float32)


def pretrain_brightness(base: int):
    def assemble(spec, prepared):
        torch.manual_seed(spec.entropy)
        splits = prepared.splits(spec.fold)
        rows = {split: np.flatnonzero(splits == split) for split in ("train", "val")}
        settings = spec.training
        data = ClipDataModule(
            ClipDataset(prepared.videos, torch.zeros(len(prepared.videos)), settings.frames),
            rows["train"],
            rows["val"],
            clips_per_epoch=settings.clips_per_epoch,
            batch_size=settings.batch_size,
            validation_clips=1,
            seed=spec.entropy,
        )
        steps = len(data.train_dataloader())
        network = unet_classifier(base)(1, settings.frames)
        return Brightness(network, settings=settings, steps_per_epoch=steps, seed=spec.entropy), data, rows

    return assemble


def pretrain(study, base=4, **changes):
    specs = study.specs("brightness", outputs=("mean",), **OF_UNET | changes)[:1]
    return study.train(specs, say=silent, assemble=pretrain_brightness(base))[0]


def test_it_leaves_what_any_run_leaves_and_is_found_again(study):
    run = pretrain(study)
    assert run.folder.name.startswith("brightness-fold0-") and run.spec.words == "brightness fold 0, pretraining"
    assert run.probabilities.shape == (40, 1) and run.features.shape == (40, 3)
    assert (run.splits == study.splits(0)).all() and len(pd.read_csv(run.folder / "log.csv")) == 3
    assert run.info["trained_on"] + run.info["validated_on"] < 40 and run.info["masked"] == []
    assert find_runs([run.spec])[0].spec == run.spec
    written = (run.folder / "weights.safetensors").stat().st_mtime_ns
    assert (pretrain(study).folder / "weights.safetensors").stat().st_mtime_ns == written
    assert pretrain(study, base=8).folder != run.folder, "what a function closes over is part of the name"


def test_it_says_nothing_of_how_long_it_takes(study):
    said = []
    specs = study.specs("brightness", outputs=("mean",), **OF_UNET | {"seed": 3})[:1]
    study.train(specs, say=said.append, assemble=pretrain_brightness(4))
    assert said[0].startswith("1 runs, 1 to train") and "steps timed" not in "".join(said)
    assert any("brightness fold 0, pretraining: epoch 3/3" in line for line in said)


def test_two_trainings_are_the_same_and_an_interrupted_one_goes_on(study, tmp_path, monkeypatch):
    whole = pretrain(study, seed=1)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    validate, calls = Brightness.validate, []

    def interrupted(self, batch, generator):
        calls.append(self.current_epoch)
        if self.current_epoch == 1 and calls.count(1) == 1:
            raise KeyboardInterrupt
        return validate(self, batch, generator)

    monkeypatch.setattr(Brightness, "validate", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        pretrain(study, seed=1)
    again = pretrain(study, seed=1)
    assert calls.count(0) == calls.count(2), "the first epoch is not repeated"
    assert (again.folder / "weights.safetensors").read_bytes() == (whole.folder / "weights.safetensors").read_bytes()


def test_a_training_starts_from_what_fits_and_keeps_its_own_head(study):
    first, base = pretrain(study), 4
    (spec,) = start_from([first.spec], study.specs(SEVERITY, **OF_UNET)[:1])
    still = replace(spec, training=replace(spec.training, learning_rate=1e-12))
    (run,) = study.train([still], say=silent, network=unet_classifier(base))
    assert run.spec.words == "lung_severity fold 0, from brightness" and run.spec.starts_from == first.folder.name
    found, given = (read_weights(one.folder / "weights.safetensors") for one in (run, first))
    shared = [name for name in found if name.startswith("encoder") and "running" not in name and "num_b" not in name]
    assert shared and all(torch.allclose(found[name], given[name], atol=1e-9) for name in shared)
    assert found["head.weight"].shape == (4, 64) and given["head.weight"].shape == (1, 64)
    assert f"of {len(given)} tensors" in run.info["initial_weights"]
    assert run.probabilities.shape == (40, 4)


def test_statistics_of_batches_come_along(study):
    first = pretrain(study)
    network = unet_classifier(4)(4, 2)
    take_tensors(network, first.folder.name)
    given, statistics = read_weights(first.folder / "weights.safetensors"), "encoder.stages.0.1.running_mean"
    assert given[statistics].abs().sum() > 0 and torch.equal(network.state_dict()[statistics], given[statistics])


def test_a_run_that_does_not_fit_or_is_not_there_is_named(study):
    first = pretrain(study)
    with pytest.raises(LusbioError, match=rf"nothing of run {first.folder.name} fits"):
        take_tensors(nn.Linear(2, 2), first.folder.name)
    with pytest.raises(LusbioError, match="run brightness-fold0-0 is not finished, and a network shall start from it"):
        take_tensors(nn.Linear(2, 2), "brightness-fold0-0")


@pytest.mark.slow
def test_a_pretraining_travels_to_other_processes(study):
    specs = study.specs("brightness", outputs=("mean",), **OF_UNET | {"seed": 9})[:2]
    runs = replace(study, jobs=2).train(specs, say=silent, assemble=pretrain_brightness(4))
    assert [json.loads((run.folder / "run.json").read_text())["spec"]["fold"] for run in runs] == [0, 1]
