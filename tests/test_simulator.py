import runpy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, small_study
from sklearn.metrics import roc_auc_score

from lusbio.errors import LusbioError
from lusbio.files import ROOT
from lusbio.paper import simulator
from lusbio.paper.simulator import make_targets, measure_transfer
from lusbio.runs.predict import predict_cohort
from lusbio.simulation import constants
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK

CLIPS = TINY.training.evaluation_clips


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def run(study):
    (run,) = study.train(study.specs(BIOMARKER_TASK, initial_weights="scratch")[:1])
    return run


def test_on_its_own_cohort_a_run_predicts_what_it_predicted(run, study):
    elsewhere = predict_cohort(run, study, CLIPS)
    kept = run.folder / "elsewhere" / f"small-{study.data}-{CLIPS}clips.csv"
    assert pd.read_csv(kept)["video_id"].tolist() == run.predictions["video_id"].tolist()
    np.testing.assert_allclose(elsewhere[:, 0], run.predictions["p_0"], atol=1e-6)
    written = kept.stat().st_mtime_ns
    predict_cohort(run, study, CLIPS)
    assert kept.stat().st_mtime_ns == written


def test_the_auc_is_that_of_present_against_none_without_the_patients_left_out(run, study):
    left_out = study.table["patient_id"].unique()[:4]
    measured = measure_transfer([run], study, 50, left_out=left_out)
    assert list(measured) == ["finding", "videos", "present", "patients", "auc", "ci_low", "ci_high"]
    counted = ~study.table["patient_id"].isin(left_out)
    expected = roc_auc_score(study.table[BIOMARKER_NAMES[0]][counted] == 0, 1 - run.predictions["p_0"][counted])
    row = measured.set_index("finding").loc["A-lines"]
    assert row["auc"] == pytest.approx(100 * expected) and row["ci_low"] <= row["auc"] <= row["ci_high"]
    assert row["patients"] == 16 and row["videos"] == 32


def test_frames_of_another_size_are_refused(run, study):
    other = replace(study, profile=replace(TINY, training=replace(TINY.training, image_size=64)))
    with pytest.raises(LusbioError, match="32 and 64"):
        measure_transfer([run], other, 50)


def test_a_finding_that_was_never_learnt_is_refused(run, study):
    masked = replace(run, info=run.info | {"masked": [BIOMARKER_NAMES[0]]})
    with pytest.raises(LusbioError, match=f"never learnt '{BIOMARKER_NAMES[0]}'"):
        measure_transfer([masked], study, 50)


def test_targets_that_are_missed_or_only_tolerated_are_named(monkeypatch):
    rates = [("A", "met", 0.1, 0.2, 0.15, 0.0, True), ("A", "missed", 0.1, 0.2, 0.305, 0.0, False)]
    rates.append(("A", "tolerated", 0.7, 0.8, 0.669, 0.0, True))
    rates.append(("A", "number", 0.56, 0.56, 0.602, 0.0, True))
    rates.append(("B", "none", np.nan, np.nan, 0.5, 0.1, np.nan))
    columns = ["group", "quantity", "low", "high", "mean", "sd", "within"]
    monkeypatch.setattr(simulator, "summarise_targets", lambda seeds, jobs: pd.DataFrame(rates, columns=columns))
    table = make_targets(2)
    met = "**3 of 4** targets are met, give or take 0.05. Missed: A, missed: 0.305."
    assert table.note == f"{met} Outside a range, but tolerated: A, tolerated: 0.669."
    words = ["yes", "no: 0.105 above", "tolerated: 0.031 below", "tolerated: 0.042 above", "—"]
    assert table.shown["within"].tolist() == words
    assert table.shown["low"].tolist() == ["0.100", "0.100", "0.700", "0.560", "—"]
    assert "2 cohorts" in table.origin


def test_the_rungs_of_the_ladder_change_constants_that_exist_and_the_last_is_the_package():
    ladder = runpy.run_path(str(ROOT / "experiments" / "transfer_ladder.py"))
    for rung in ladder["RUNGS"]:
        assert all(hasattr(constants, name) for name in ladder["BEFORE"] | rung.constants)
    last = ladder["BEFORE"] | ladder["RUNGS"][-1].constants
    assert {name: getattr(constants, name) for name in last} == last
    assert ladder["RUNGS"][0].constants == {}
