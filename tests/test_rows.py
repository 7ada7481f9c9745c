from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_cohort import TINY, make_small_cohort

from lusbio.cohorts.targets import BIOMARKER_TASK, keep_fraction
from lusbio.errors import LusbioError
from lusbio.experts.classifiers import EXPERT_NAMES
from lusbio.experts.inputs import (
    BIOMARKERS,
    END_TO_END,
    crossfit_biomarkers,
    handed_over,
    take_evidence,
    take_rated_biomarkers,
)
from lusbio.experts.rows import (
    NETWORK,
    choose_by_validation,
    decide_by_majority,
    decide_end_to_end,
    decide_with_experts,
)
from lusbio.runs import plan as grid
from lusbio.runs.spec import PreparedCohort, Run, prepare_cohort
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> PreparedCohort:
    return prepare_cohort(make_small_cohort(tmp_path_factory.mktemp("cohort")), TINY)


def made_up_run(prepared: PreparedCohort, folder, task: str = BIOMARKER_TASK, fold: int = 0, masked=()) -> Run:
    """A run whose biomarker 0 tells severity 0 and 1 from 2 and 3, and 1 tells odd from even; no training."""
    folder.mkdir(exist_ok=True)
    severity = prepared.cohort.table["lung_severity"].astype(int).to_numpy()
    n_outputs = len(BIOMARKER_NAMES) if task == BIOMARKER_TASK else 4
    p = np.full((len(severity), n_outputs), 0.5 if task == BIOMARKER_TASK else 0.0)
    if task == BIOMARKER_TASK:
        p[:, 0], p[:, 1] = severity < 2, severity % 2
    else:
        p[np.arange(len(severity)), severity] = 1
    predictions = pd.DataFrame({"video_id": prepared.cohort.table["video_id"], "split": prepared.splits(fold)})
    predictions[[f"p_{k}" for k in range(n_outputs)]] = p
    spec = prepared.specs(task)[fold]
    info = {
        "masked": list(masked),
        "initial_weights": "scratch",
        "device": "CPU",
        "precision": "32-true",
        "versions": {},
        "best_epoch": 1,
        "trained_on": 1,
    }
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
    assert [row.classifier for row in rows] == list(EXPERT_NAMES) and {row.features for row in rows} == {BIOMARKERS}
    accuracy = {row.classifier: (row.folds[0].probabilities.argmax(1) == row.folds[0].labels).mean() for row in rows}
    assert accuracy["DT"] == accuracy["RF"] == 1.0


def test_decisions_do_not_depend_on_test_labels(prepared, tmp_path):
    table = prepared.cohort.table.copy()
    tested = prepared.splits(0) == "test"
    table.loc[tested, "lung_severity"] = table.loc[tested, "lung_severity"].sample(frac=1, random_state=0).to_numpy()
    shuffled = replace(prepared, cohort=replace(prepared.cohort, table=table))
    honest = decide_with_experts([made_up_run(prepared, tmp_path / "a")], "lung_severity", prepared)
    blind = decide_with_experts([made_up_run(prepared, tmp_path / "b")], "lung_severity", shuffled)
    for one, other in zip(honest, blind, strict=True):
        np.testing.assert_array_equal(one.folds[0].probabilities, other.folds[0].probabilities)


def test_fitted_experts_are_read_back(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run")
    decide_with_experts([run], "disease", prepared)
    kept = sorted((run.folder / "experts").iterdir())
    written = [path.stat().st_mtime_ns for path in kept]
    decide_with_experts([run], "disease", prepared)
    assert len(kept) == 2 * len(EXPERT_NAMES)  # predictions, and the time they took
    assert [path.stat().st_mtime_ns for path in sorted((run.folder / "experts").iterdir())] == written


def test_masked_biomarkers_tell_experts_nothing(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run", masked=[BIOMARKER_NAMES[0]])
    assert np.isnan(run.biomarkers[:, 0]).all() and (handed_over(run)[:, 0] == 0.5).all()
    assert (handed_over(run)[:, 1] == run.probabilities[:, 1]).all()


def test_tasks_without_two_classes_are_not_available(prepared):
    table = prepared.cohort.table.assign(disease=np.nan)
    fewer = replace(prepared, cohort=replace(prepared.cohort, table=table))
    learnable, reasons = grid.find_tasks(fewer)
    assert learnable == [BIOMARKER_TASK, "lung_severity", "sf_ratio"]
    assert list(reasons) == ["disease"] and "fewer than two classes" in reasons["disease"]


def test_a_cohort_without_biomarkers_or_without_tasks_is_refused_with_the_reason(prepared):
    for columns in (list(BIOMARKER_NAMES), ["lung_severity", "sf_ratio", "disease"]):
        bare = prepared.cohort.table.assign(**dict.fromkeys(columns, np.nan))
        with pytest.raises(LusbioError, match="needs labels of some biomarkers and of one task"):
            grid.list_specs(replace(prepared, cohort=replace(prepared.cohort, table=bare)), "scratch")


def test_the_expert_of_each_run_is_the_one_that_validated_best_there(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run")
    knowing = decide_with_experts([run], "lung_severity", prepared, experts=["DT"])[0]
    guessing = decide_with_experts([run], "lung_severity", prepared, experts=["RF"], shuffled=True)[0]
    chosen = choose_by_validation([guessing, knowing])
    assert chosen.classifier == "DT" and chosen.folds == knowing.folds and chosen.validated == knowing.validated


def test_crossfitted_biomarkers_come_from_a_run_that_did_not_train_on_the_patient(prepared, tmp_path):
    runs = [made_up_run(prepared, tmp_path / f"run{k}", fold=k) for k in range(3)]
    for k, run in enumerate(runs):
        run.predictions["p_2"] = k / 10  # so that it can be told who said what
    evidence = crossfit_biomarkers(runs, prepared)
    for k, (run, values) in enumerate(zip(runs, evidence.values, strict=True)):
        said_by = np.rint(values[:, 2] * 10).astype(int)
        assert (said_by[run.splits != "train"] == k).all()
        training = run.splits == "train"
        assert (said_by[training] != k).all()
        for other, of_other in enumerate(runs):
            assert (of_other.splits[training & (said_by == other)] == "val").all()


def test_crossfitting_is_refused_where_runs_train_on_each_others_test_patients(prepared, tmp_path):
    crossed = replace(prepared, protocol="cross")
    with pytest.raises(LusbioError, match="train on each other's test patients"):
        crossfit_biomarkers([made_up_run(prepared, tmp_path / "run")], crossed)


def test_anchors_know_nothing_of_the_network(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run")
    trainee = take_rated_biomarkers([run], prepared, true=False).values[0]
    labels = prepared.cohort.table[list(BIOMARKER_NAMES)].to_numpy(float)
    for name in (BIOMARKER_NAMES[0], BIOMARKER_NAMES[5], BIOMARKER_NAMES[7]):
        k = BIOMARKER_NAMES.index(name)
        np.testing.assert_array_equal(trainee[:, k], labels[:, k])
    assert (trainee[:, 1] == 0.5).all()
    with pytest.raises(LusbioError, match="has no truth"):
        take_rated_biomarkers([run], prepared, true=True)
    (majority,) = decide_by_majority([run], "disease", prepared).folds
    assert (majority.probabilities == majority.probabilities[0]).all()


def test_fewer_labels_change_what_is_learnt_and_are_nested(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run")
    table = prepared.cohort.table
    rows = np.flatnonzero(run.splits == "train")
    kept = [set(table["group_id"].iloc[keep_fraction(table, rows, share, 0)]) for share in (0.25, 0.5, 1.0)]
    assert kept[0] < kept[1] < kept[2] == set(table["group_id"].iloc[rows])
    whole, fewer = (
        decide_with_experts([run], "disease", prepared, experts=["DT"], label_fraction=share)[0] for share in (1.0, 0.5)
    )
    assert not np.array_equal(whole.folds[0].probabilities, fewer.folds[0].probabilities)


def test_a_task_of_ones_own_is_decided_like_the_papers(prepared, tmp_path):
    severe = prepared.cohort.table["lung_severity"].astype(int) >= 2
    answers = severe.map({True: "yes", False: "no"})
    mine = prepared.with_task("severe", ("no", "yes"), answers)
    run = made_up_run(prepared, tmp_path / "run")
    (row,) = decide_with_experts([run], "severe", mine, experts=["DT"])
    assert row.classes == ("no", "yes") and row.folds[0].accuracy == 1
    assert mine.data_of(BIOMARKER_TASK) == prepared.data != mine.data_of("severe")
    assert mine.specs("severe")[0].outputs == ("no", "yes")
    with pytest.raises(LusbioError, match="'maybe' is not one of no, yes"):
        prepared.with_task("severe", ("no", "yes"), severe.map({True: "maybe", False: "no"}))
    with pytest.raises(LusbioError, match="has that column already"):
        prepared.with_task("disease", ("no", "yes"), answers)
    with pytest.raises(LusbioError, match="0 of 40 videos have a label"):
        prepared.with_task("severe", ("no", "yes"), answers.where(answers == "none"))


def test_features_of_a_severity_network_have_another_name_where_they_decide_another_task(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run", "lung_severity")
    assert take_evidence([run], "disease").features == "lung_severity_features"
    assert take_evidence([run], "lung_severity").features == END_TO_END
    pretrained = replace(run, spec=replace(run.spec, initial_weights="run:biomarkers-fold0-0"))
    assert take_evidence([pretrained], "lung_severity").features == "pretrained_on_biomarkers"


@pytest.mark.parametrize("hidden", ["b_lines_white", "b_line_origin"])
def test_what_is_unknown_gives_no_other_label_away(prepared, tmp_path, hidden):
    severe = prepared.cohort.table["lung_severity"].astype(int).to_numpy() >= 2
    names = [name for name in BIOMARKER_NAMES if name.startswith(hidden)]
    assert names  # one option of a group, or a whole group
    table = prepared.cohort.table.assign(**dict.fromkeys(names, np.where(severe, np.nan, 0.0)))
    hinted = replace(prepared, cohort=replace(prepared.cohort, table=table))
    (values,) = take_rated_biomarkers([made_up_run(prepared, tmp_path / "run")], hinted, true=False).values
    assert (values[:, np.isin(BIOMARKER_NAMES, names)] == 0.5).all()
    assert set(values[:, BIOMARKER_NAMES.index("b_lines_none")]) == {0.0, 1.0}
