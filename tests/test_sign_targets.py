"""Measured signs as something to learn before anything that needs labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import TINY, make_small_cohort, silent

from lusbio.network.sign_targets import learn_signs, miss_signs, standardise_signs
from lusbio.network.weights import read_weights
from lusbio.runs.plan import start_from
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.vocabulary import SEVERITY


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    training = replace(TINY.training, epochs=12, clips_per_epoch=64, batch_size=16, learning_rate=3e-3)
    cohort = make_small_cohort(tmp_path_factory.mktemp("cohort"))
    return as_study(prepare_cohort(cohort, replace(TINY, training=training), protocol="cross"))


def signs_of(study) -> np.ndarray:
    """How bright a video is, something that nobody knows of some, and something that is the same everywhere."""
    bright = np.array([video.load().mean() for video in study.videos])
    return np.column_stack([bright, np.where(np.arange(len(bright)) % 3, -bright, np.nan), np.ones(len(bright))])


def learn(study, values, names=("bright", "dark", "same")):
    specs = study.specs("measured_signs", outputs=names, initial_weights="scratch")[:1]
    return study.train(specs, say=silent, assemble=learn_signs(values))[0]


def test_signs_are_learnt_from_all_training_videos_and_unknown_ones_left_out(study):
    run = learn(study, signs_of(study))
    assert run.info["trained_on"] == 24 and run.spec.kind == "pretraining"
    assert run.info["val_accuracy"] > -0.7, "the mean of the training videos has an error of about 1"
    assert learn(study, np.random.default_rng(0).normal(size=(40, 3))).info["val_accuracy"] < -0.7


def test_severity_goes_on_from_there_with_a_last_layer_of_its_own(study):
    first = learn(study, signs_of(study))
    (spec,) = start_from([first.spec], study.specs(SEVERITY)[:1])
    (run,) = study.train([replace(spec, training=replace(spec.training, learning_rate=1e-12))], say=silent)
    given, found = (read_weights(one.folder / "weights.safetensors") for one in (first, run))
    assert run.spec.words == "lung_severity fold 0, from measured_signs"
    assert sorted(name for name in found if found[name].shape != given[name].shape) == ["fc.bias", "fc.weight"]
    torch.testing.assert_close(found["conv1.weight"], given["conv1.weight"], atol=1e-9, rtol=0)


def test_signs_that_are_unknown_give_no_gradient():
    said = torch.randn(3, 5, requires_grad=True)
    signs = torch.zeros(3, 5)
    signs[0], signs[1, 2] = torch.nan, torch.nan
    loss = miss_signs(said, signs)
    loss.backward()
    known = ~signs.isnan()
    assert loss.item() == pytest.approx(said.detach()[known].square().mean().item())
    assert (said.grad[~known] == 0).all() and (said.grad[known] != 0).all()
    assert miss_signs(said, torch.full((3, 5), torch.nan)) == 0


def test_signs_are_standardised_by_the_given_rows_and_constant_ones_are_left_out():
    values = np.array([[1.0, 2.0, np.nan], [3.0, 2.0, 1.0], [5.0, 2.0, 3.0], [99.0, 7.0, 5.0]])
    signs = standardise_signs(values, np.arange(3)).numpy()
    assert signs[:3, 0] == pytest.approx([-1, 0, 1]) and signs[3, 0] == pytest.approx(48)
    assert np.isnan(signs[:, 1]).all() and np.isnan(signs[0, 2]) and np.isfinite(signs[1:, 2]).all()
