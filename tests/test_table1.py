"""Skill and chance, told apart where they can be: oracle features of the paper's 189 patients, no videos needed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_cohort import TINY

from lusbio.cohorts.splits import make_folds
from lusbio.cohorts.table import Cohort
from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.experts.inputs import TRUE_BIOMARKERS, take_rated_biomarkers
from lusbio.experts.rows import decide_with_experts
from lusbio.experts.table1 import decide_anchors
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import trainee_table, truth_table
from lusbio.statistics.bootstrap import draw_group_counts
from lusbio.statistics.weighted_metrics import weighted_task_metrics
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture(scope="module")
def prepared() -> PreparedCohort:
    recordings = simulate_recordings(189, seed=0, probe="linear")
    table = trainee_table(recordings, ".mp4").assign(group_id=lambda t: t["patient_id"])
    table = table.sort_values("video_id", ignore_index=True)
    truth = truth_table(recordings)
    cohort = Cohort("oracle", table, "", simulated=True, truth=truth)
    return PreparedCohort(cohort, TINY, [], "data", "paper", make_folds(table, "paper"))


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory) -> list[Run]:
    """Biomarker runs that found nothing: only their splits are used."""
    found = []
    for spec in prepared.specs(BIOMARKER_TASK):
        predictions = pd.DataFrame({"video_id": prepared.cohort.table["video_id"], "split": prepared.splits(spec.fold)})
        predictions[[f"p_{k}" for k in range(len(BIOMARKER_NAMES))]] = 0.5
        folder = tmp_path_factory.mktemp(f"run{spec.fold}")
        found.append(Run(folder, spec, {"masked": []}, predictions, np.zeros((len(predictions), 512)), 1.0))
    return found


def auc_and_error(row) -> tuple[float, float]:
    """Mean AUC over runs, and its standard error over patients."""
    values, draws = [], []
    for fold in row.folds:
        values.append(weighted_task_metrics(fold.labels, fold.probabilities, np.ones((1, len(fold.labels))))["auc"])
        weights = draw_group_counts(fold.groups, 300, seed=0)
        draws.append(weighted_task_metrics(fold.labels, fold.probabilities, weights)["auc"])
    return float(np.mean(values)), float(np.mean(draws, axis=0).std())


def test_shuffled_labels_give_chance_where_true_ones_give_skill(prepared, runs):
    evidence = take_rated_biomarkers(runs, prepared, true=True)
    (skilled,) = decide_with_experts(evidence, "lung_severity", prepared, experts=["RF"])
    auc, error = auc_and_error(skilled)
    assert auc > 0.8 and auc - 3 * error > 0.6
    (shuffled,) = decide_with_experts(evidence, "lung_severity", prepared, experts=["RF"], shuffled=True)
    auc, error = auc_and_error(shuffled)
    assert error < 0.05 and abs(auc - 0.5) < 3 * error
    for fold, other in zip(skilled.folds, shuffled.folds, strict=True):
        np.testing.assert_array_equal(fold.labels, other.labels)  # what is judged is the true label


def test_anchors_stand_in_the_order_of_what_they_know(prepared, runs):
    rows = decide_anchors(runs, "lung_severity", prepared)
    assert [row.features for row in rows] == [TRUE_BIOMARKERS, "trainee_biomarkers", "shuffled_labels", "majority"]
    true, trainee, _, majority = (auc_and_error(row)[0] for row in rows)
    assert true > 0.75 and trainee > 0.7 and majority == 0.5
    real = replace(prepared, cohort=replace(prepared.cohort, truth=None))
    assert [row.features for row in decide_anchors(runs, "lung_severity", real)][0] == "trainee_biomarkers"
