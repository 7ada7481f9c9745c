from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_cohort import TINY, make_small_cohort

from lusbio import runs
from lusbio.decisions import (
    BIOMARKERS,
    END_TO_END,
    NETWORK,
    decide_end_to_end,
    decide_with_experts,
    handed_over,
)
from lusbio.errors import LusbioError
from lusbio.experts import EXPERT_NAMES
from lusbio.labels import BIOMARKER_TASK
from lusbio.runs import PreparedCohort, Run, RunSpec, prepare_cohort
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> PreparedCohort:
    return prepare_cohort(make_small_cohort(tmp_path_factory.mktemp("cohort")), TINY)


def made_up_run(
    prepared: PreparedCohort, folder, task: str = BIOMARKER_TASK, fold: int = 0, masked=()
) -> Run:
    """A run whose biomarker 0 tells severity 0 and 1 from 2 and 3, and 1 tells odd from even; no training."""
    folder.mkdir(exist_ok=True)
    severity = prepared.cohort.table["lung_severity"].astype(int).to_numpy()
    n_outputs = len(BIOMARKER_NAMES) if task == BIOMARKER_TASK else 4
    p = np.full((len(severity), n_outputs), 0.5 if task == BIOMARKER_TASK else 0.0)
    if task == BIOMARKER_TASK:
        p[:, 0], p[:, 1] = severity < 2, severity % 2
    else:
        p[np.arange(len(severity)), severity] = 1
    predictions = pd.DataFrame(
        {"video_id": prepared.cohort.table["video_id"], "split": prepared.splits(fold)}
    )
    predictions[[f"p_{k}" for k in range(n_outputs)]] = p
    spec = RunSpec(task, fold, "tiny", TINY.training, "small", prepared.data, prepared.protocol)
    info = {"masked": list(masked), "initial_weights": "scratch", "device": "CPU", "precision": "32-true",
            "versions": {}, "best_epoch": 1, "trained_on": 1}  # fmt: skip
    return Run(folder, spec, info, predictions, p[:, :1].repeat(512, 1).astype(np.float32), minutes=1.5)


def test_end_to_end_decisions_are_the_test_videos_with_a_label(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run", "lung_severity")
    row = decide_end_to_end([run], prepared)
    (fold,) = row.folds
    assert (row.features, row.classifier, row.task) == (END_TO_END, NETWORK, "lung_severity")
    assert len(fold.labels) == (prepared.splits(0) == "test").sum()
    assert (fold.probabilities.argmax(1) == fold.labels).all() and row.validation_accuracy == 1


def test_experts_find_a_rule_that_the_biomarkers_hold(prepared, tmp_path):
    rows = decide_with_experts([made_up_run(prepared, tmp_path / "run")], "lung_severity", prepared)
    assert [row.classifier for row in rows] == list(EXPERT_NAMES) and {row.features for row in rows} == {
        BIOMARKERS
    }
    accuracy = {
        row.classifier: (row.folds[0].probabilities.argmax(1) == row.folds[0].labels).mean() for row in rows
    }
    assert accuracy["DT"] == accuracy["RF"] == 1.0


def test_decisions_do_not_depend_on_test_labels(prepared, tmp_path):
    table = prepared.cohort.table.copy()
    tested = prepared.splits(0) == "test"
    table.loc[tested, "lung_severity"] = (
        table.loc[tested, "lung_severity"].sample(frac=1, random_state=0).to_numpy()
    )
    shuffled = replace(prepared, cohort=replace(prepared.cohort, table=table))
    honest = decide_with_experts([made_up_run(prepared, tmp_path / "a")], "lung_severity", prepared)
    blind = decide_with_experts([made_up_run(prepared, tmp_path / "b")], "lung_severity", shuffled)
    for one, other in zip(honest, blind, strict=True):
        np.testing.assert_array_equal(one.folds[0].probabilities, other.folds[0].probabilities)


def test_fitted_experts_are_read_back(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run")
    decide_with_experts([run], "disease", prepared)
    (kept,) = (run.folder / "experts").iterdir()
    written = kept.stat().st_mtime_ns
    decide_with_experts([run], "disease", prepared)
    assert kept.stat().st_mtime_ns == written


def test_masked_biomarkers_tell_experts_nothing(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run", masked=[BIOMARKER_NAMES[0]])
    assert np.isnan(run.biomarkers[:, 0]).all() and (handed_over(run)[:, 0] == 0.5).all()
    assert (handed_over(run)[:, 1] == run.probabilities[:, 1]).all()


def test_tasks_without_two_classes_are_not_available(prepared):
    table = prepared.cohort.table.assign(disease=np.nan)
    fewer = replace(prepared, cohort=replace(prepared.cohort, table=table))
    learnable, reasons = runs.find_tasks(fewer)
    assert learnable == [BIOMARKER_TASK, "lung_severity", "sf_ratio"]
    assert list(reasons) == ["disease"] and "fewer than two classes" in reasons["disease"]


def test_a_cohort_without_biomarkers_or_without_tasks_is_refused_with_the_reason(prepared):
    for columns in (list(BIOMARKER_NAMES), ["lung_severity", "sf_ratio", "disease"]):
        bare = prepared.cohort.table.assign(**dict.fromkeys(columns, np.nan))
        with pytest.raises(LusbioError, match="needs labels of some biomarkers and of one task"):
            runs.list_specs(replace(prepared, cohort=replace(prepared.cohort, table=bare)), "scratch")
