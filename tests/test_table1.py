"""Skill and chance, told apart where they can be: oracle features of the paper's 189 patients, no videos needed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import TINY

from lusbio.cohorts.splits import make_folds
from lusbio.cohorts.table import Cohort
from lusbio.experts.baselines import decide_baselines
from lusbio.experts.classifiers import FOREST, make_expert
from lusbio.experts.inputs import take_rated_biomarkers
from lusbio.experts.rows import Row, decide_with_experts
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.runs.study import Study, as_study
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import trainee_table, truth_table
from lusbio.statistics.bootstrap import draw_group_counts
from lusbio.statistics.metrics import task_metrics
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SEVERITY, Kind


@pytest.fixture(scope="module")
def study() -> Study:
    recordings = simulate_recordings(189, seed=0, probe="linear")
    table = trainee_table(recordings, ".mp4").assign(group_id=lambda t: t["patient_id"])
    table = table.sort_values("video_id", ignore_index=True)
    truth = truth_table(recordings)
    cohort = Cohort("oracle", table, "", simulated=True, truth=truth)
    return as_study(PreparedCohort(cohort, TINY, [], "data", "paper", make_folds(table, "paper")))


@pytest.fixture(scope="module")
def runs(study, tmp_path_factory) -> list[Run]:
    """Biomarker runs that found nothing: only their splits are used."""
    found = []
    for spec in study.specs(BIOMARKER_TASK, initial_weights="scratch"):
        predictions = pd.DataFrame({"video_id": study.table["video_id"], "split": study.splits(spec.fold)})
        predictions[[f"p_{k}" for k in range(len(BIOMARKER_NAMES))]] = 0.5
        folder = tmp_path_factory.mktemp(f"run{spec.fold}")
        found.append(Run(folder, spec, {"masked": []}, predictions, np.zeros((len(predictions), 512)), 1.0))
    return found


def auc_and_error(row: Row) -> tuple[float, float]:
    """Mean AUC over runs, and its standard error over patients."""
    values, draws = [], []
    for fold in row.held_out:
        values.append(task_metrics(fold.labels, fold.probabilities)["auc"])
        weights = draw_group_counts(fold.groups, 300, seed=0)
        draws.append(task_metrics(fold.labels, fold.probabilities, weights)["auc"])
    return float(np.mean(values)), float(np.mean(draws, axis=0).std())


def test_shuffled_labels_give_chance_where_true_ones_give_skill(study, runs):
    given = take_rated_biomarkers(runs, study, true=True)
    (skilled,) = decide_with_experts(given, SEVERITY, study, experts=["RF"])
    auc, error = auc_and_error(skilled)
    assert auc > 0.8 and auc - 3 * error > 0.6
    (shuffled,) = decide_with_experts(given, SEVERITY, study, experts=["RF"], shuffled=True)
    auc, error = auc_and_error(shuffled)
    assert error < 0.05 and abs(auc - 0.5) < 3 * error
    for fold, other in zip(skilled.held_out, shuffled.held_out, strict=True):
        np.testing.assert_array_equal(fold.labels, other.labels)  # what is judged is the true label


def test_baselines_stand_in_the_order_of_what_they_know(study, runs):
    rows = decide_baselines(runs, SEVERITY, study)
    assert [row.features for row in rows] == ["true_biomarkers", "trainee_biomarkers", "shuffled_labels", "majority"]
    assert [row.classifier for row in rows] == [FOREST, FOREST, "RF", "—"]
    assert make_expert(FOREST, 0).min_samples_leaf == 4
    true, trainee, _, majority = (auc_and_error(row)[0] for row in rows)
    assert true > 0.75 and trainee > 0.7 and majority == 0.5
    real = replace(study, cohort=replace(study.cohort, truth=None))
    assert [row.features for row in decide_baselines(runs, SEVERITY, real)][0] == Kind.TRAINEE_BIOMARKERS
