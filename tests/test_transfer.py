import runpy
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_cohort import TINY, make_small_cohort

from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.errors import LusbioError
from lusbio.files import ROOT
from lusbio.paper.transfer import measure_transfer, predict_elsewhere
from lusbio.runs.spec import load_run, prepare_cohort
from lusbio.runs.train import execute
from lusbio.simulation import constants
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_cohort(make_small_cohort(tmp_path_factory.mktemp("cohort")), TINY)


@pytest.fixture(scope="module")
def run(prepared):
    return load_run(execute(prepared.specs(BIOMARKER_TASK)[0], prepared))


def test_on_its_own_cohort_a_run_predicts_what_it_predicted(run, prepared):
    elsewhere = predict_elsewhere(run, prepared)
    assert elsewhere["video_id"].tolist() == run.predictions["video_id"].tolist()
    np.testing.assert_allclose(elsewhere["p_0"], run.predictions["p_0"], atol=1e-6)
    kept = run.folder / "elsewhere" / f"small-{prepared.data}.csv"
    written = kept.stat().st_mtime_ns
    predict_elsewhere(run, prepared)
    assert kept.stat().st_mtime_ns == written


def test_the_auc_is_that_of_present_against_none_without_the_patients_left_out(run, prepared):
    table = prepared.cohort.table
    left_out = table["patient_id"].unique()[:4]
    measured = measure_transfer([run], prepared, 50, left_out=left_out).set_index("finding")
    counted = ~table["patient_id"].isin(left_out)
    expected = roc_auc_score(table[BIOMARKER_NAMES[0]][counted] == 0, 1 - run.predictions["p_0"][counted])
    row = measured.loc["A-lines"]
    assert row["auc"] == pytest.approx(100 * expected) and row["ci_low"] <= row["auc"] <= row["ci_high"]
    assert row["patients"] == 16 and row["videos"] == 32


def test_frames_of_another_size_are_refused(run, prepared):
    other = replace(prepared, profile=replace(TINY, training=replace(TINY.training, image_size=64)))
    with pytest.raises(LusbioError, match="32 and 64"):
        predict_elsewhere(run, other)


def test_the_rungs_of_the_ladder_change_constants_that_exist_and_the_last_is_the_package():
    ladder = runpy.run_path(str(ROOT / "benchmarks" / "transfer_ladder.py"))
    for rung in ladder["RUNGS"]:
        assert all(hasattr(constants, name) for name in ladder["BEFORE"] | rung.constants)
    last = ladder["BEFORE"] | ladder["RUNGS"][-1].constants
    assert {name: getattr(constants, name) for name in last} == last
    assert ladder["RUNGS"][0].constants == {}
