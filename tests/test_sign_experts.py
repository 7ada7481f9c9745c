"""Experts on measured signs: chosen on inner folds, held back, and together with what a network found."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import random_runs, small_study

from lusbio.errors import LusbioError
from lusbio.experts import signs
from lusbio.experts.inputs import take_input
from lusbio.experts.rows import CHOSEN, accuracy, decide_with_experts
from lusbio.signs.measure import SIGN_NAMES, SIGNS
from lusbio.statistics.metrics import task_metrics
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY, Kind


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("small"))


@pytest.fixture
def runs(study, tmp_path):
    return random_runs(study, tmp_path / "runs", BIOMARKER_TASK)


@pytest.fixture
def planted(study, monkeypatch) -> np.ndarray:
    """Signs of chance but for two of the pleura, which tell severity; some cannot be measured."""
    values = np.random.default_rng(0).random((len(study.table), len(SIGNS)))
    severity = study.table[SEVERITY].astype(int).to_numpy()
    values[:, SIGN_NAMES.index("pleura_depth")] += severity
    values[:, SIGN_NAMES.index("pleura_grey")] -= severity
    values[::7, SIGN_NAMES.index("repetition_2")] = np.nan
    monkeypatch.setattr(signs, "take_signs", lambda study, jobs=1: values)
    return values


def test_signs_are_measured_once_for_a_cohort(study, monkeypatch):
    first = signs.take_signs(study)
    assert first.shape == (len(study.table), len(SIGNS)) and np.isfinite(first).mean() > 0.9
    monkeypatch.setattr(signs, "measure_video", None)
    assert np.array_equal(signs.take_signs(study), first, equal_nan=True)


def test_what_signs_tell_is_found_and_kept_with_the_run(study, runs, planted):
    row = signs.decide_with_signs(runs, SEVERITY, study)
    assert (row.features, row.classifier, len(row.held_out)) == (Kind.SIGNS, CHOSEN, len(runs))
    assert np.mean([task_metrics(*fold[:2])["auc"] for fold in row.held_out]) > 0.9
    assert np.mean([accuracy(fold) for fold in row.validated]) > 0.35
    again = signs.decide_with_signs(runs, SEVERITY, study)
    assert all(
        np.allclose(a.probabilities, b.probabilities, atol=1e-8)
        for a, b in zip(row.held_out, again.held_out, strict=True)
    )
    assert len(list((runs[0].folder / "experts").glob("measured_signs-lung_severity-validated_best-*.csv"))) == 1


def test_labels_of_test_patients_decide_nothing(study, runs, planted, tmp_path):
    row = signs.decide_with_signs(runs, SEVERITY, study)
    tested = runs[0].splits == "test"
    table = study.table.copy()
    table.loc[tested, SEVERITY] = np.random.default_rng(1).permutation(table.loc[tested, SEVERITY])
    other = replace(study, cohort=replace(study.cohort, table=table))
    moved = [replace(run, folder=tmp_path / f"moved{k}") for k, run in enumerate(runs)]
    again = signs.decide_with_signs(moved, SEVERITY, other)
    assert np.allclose(again.held_out[0].probabilities, row.held_out[0].probabilities, atol=1e-8)


def test_inner_folds_choose_the_signs_that_tell(study, planted):
    labels = study.table[SEVERITY].astype(int).to_numpy()
    assert signs.choose_signs(planted, labels, np.arange(len(labels)) % 4, 4) in ("pleura", "all signs")
    lines = np.random.default_rng(0).random(planted.shape)
    lines[:, SIGN_NAMES.index("streaks")] += labels
    assert signs.choose_signs(lines, labels, np.arange(len(labels)) % 4, 4) == "lines and texture"


def test_what_is_missing_is_the_median_of_the_videos_that_were_learnt_from(study, planted):
    labels = study.table[SEVERITY].astype(int).to_numpy()
    expert = signs.fit_signs(planted, labels, "all signs", 4)
    column = SIGN_NAMES.index("pleura_depth")
    missing, median = planted[:3].copy(), planted[:3].copy()
    missing[:, column], median[:, column] = np.nan, np.median(planted[:, column])
    assert np.allclose(signs.predict_signs(expert, missing), signs.predict_signs(expert, median))


def test_ranks_count_and_not_the_scale(study, planted):
    labels = study.table[SEVERITY].astype(int).to_numpy()
    said = [
        signs.predict_signs(signs.fit_signs(v, labels, "pleura", 4, trees=False), v) for v in (planted, planted * 1000)
    ]
    assert np.allclose(*said, atol=1e-6)


def test_one_class_is_nothing_to_learn(planted):
    with pytest.raises(LusbioError, match="fewer than two classes"):
        signs.fit_signs(planted, np.zeros(len(planted), int), "pleura", 4)


def test_signs_and_biomarkers_together_are_a_mean_whose_weight_validation_chose(study, runs, planted):
    alone = signs.decide_with_signs(runs, SEVERITY, study)
    (expert,) = decide_with_experts(take_input(runs, SEVERITY), SEVERITY, study, experts=["DT"])
    both = signs.fuse_with_signs(alone, expert)
    assert both.features == Kind.SIGNS_BIOMARKERS and both.classifier == "DT"
    for fused, first, second in zip(both.held_out, alone.held_out, expert.held_out, strict=True):
        assert np.allclose(fused.probabilities.sum(1), 1)
        means = [w * first.probabilities + (1 - w) * second.probabilities for w in signs.WEIGHTS]
        assert any(np.allclose(fused.probabilities, mean) for mean in means)
    assert both.minutes == pytest.approx(alone.minutes + expert.minutes)


def test_sets_name_groups_that_are_there():
    groups = {sign.group for sign in SIGNS}
    assert set(signs.SETS["all signs"]) == groups
    assert pd.Series(list(signs.SETS)).is_unique and all(set(names) <= groups for names in signs.SETS.values())
