from dataclasses import replace

import numpy as np
import pytest
from helpers import made_up_row, made_up_run, small_study

from lusbio.cohorts.targets import keep_fraction
from lusbio.errors import LusbioError, NothingToDo
from lusbio.experts.baselines import decide_by_majority
from lusbio.experts.classifiers import EXPERT_NAMES
from lusbio.experts.inputs import crossfit_biomarkers, expert_input, take_input, take_rated_biomarkers
from lusbio.experts.rows import NETWORK, Row, accuracy, choose_by_validation, decide_end_to_end, decide_with_experts
from lusbio.runs.plan import find_tasks, list_specs
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, DISEASE, SEVERITY, SF_RATIO, Kind


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"))


def test_end_to_end_decisions_are_the_test_videos_with_a_label(study, tmp_path):
    run = made_up_run(study, tmp_path / "run", SEVERITY)
    row = decide_end_to_end([run], study)
    (fold,) = row.held_out
    assert (row.features, row.classifier, row.task) == (Kind.END_TO_END, NETWORK, SEVERITY)
    assert len(fold.labels) == (study.splits(0) == "test").sum()
    assert (fold.probabilities.argmax(1) == fold.labels).all() and accuracy(row.validated[0]) == 1


def test_experts_find_a_rule_that_the_biomarkers_hold(study, tmp_path):
    rows = decide_with_experts([made_up_run(study, tmp_path / "run")], SEVERITY, study)
    assert [row.classifier for row in rows] == list(EXPERT_NAMES)
    assert {row.features for row in rows} == {Kind.BIOMARKERS}
    found = {row.classifier: accuracy(row.held_out[0]) for row in rows}
    assert found["DT"] == found["RF"] == 1.0


def test_decisions_do_not_depend_on_test_labels(study, tmp_path):
    table = study.table.copy()
    tested = study.splits(0) == "test"
    table.loc[tested, SEVERITY] = table.loc[tested, SEVERITY].sample(frac=1, random_state=0).to_numpy()
    shuffled = replace(study, cohort=replace(study.cohort, table=table))
    honest = decide_with_experts([made_up_run(study, tmp_path / "a")], SEVERITY, study)
    blind = decide_with_experts([made_up_run(study, tmp_path / "b")], SEVERITY, shuffled)
    for one, other in zip(honest, blind, strict=True):
        np.testing.assert_array_equal(one.held_out[0].probabilities, other.held_out[0].probabilities)


def test_fitted_experts_are_read_back(study, tmp_path):
    run = made_up_run(study, tmp_path / "run")
    decide_with_experts([run], DISEASE, study)
    kept = sorted((run.folder / "experts").iterdir())
    written = [path.stat().st_mtime_ns for path in kept]
    decide_with_experts([run], DISEASE, study)
    assert len(kept) == 2 * len(EXPERT_NAMES)  # predictions, and the time they took
    assert [path.stat().st_mtime_ns for path in sorted((run.folder / "experts").iterdir())] == written


def test_masked_biomarkers_tell_experts_nothing(study, tmp_path):
    run = made_up_run(study, tmp_path / "run", masked=[BIOMARKER_NAMES[0]])
    assert np.isnan(run.biomarkers[:, 0]).all() and (expert_input(run)[:, 0] == 0.5).all()
    assert (expert_input(run)[:, 1] == run.probabilities[:, 1]).all()


def test_tasks_without_two_classes_are_not_available(study):
    table = study.table.assign(disease=np.nan)
    fewer = replace(study, cohort=replace(study.cohort, table=table))
    learnable, reasons = find_tasks(fewer)
    assert learnable == [BIOMARKER_TASK, SEVERITY, SF_RATIO]
    assert list(reasons) == [DISEASE] and "fewer than two classes" in reasons[DISEASE]


def test_a_cohort_without_biomarkers_or_without_tasks_is_refused_with_the_reason(study):
    for columns in (list(BIOMARKER_NAMES), [SEVERITY, SF_RATIO, DISEASE]):
        bare = study.table.assign(**dict.fromkeys(columns, np.nan))
        with pytest.raises(NothingToDo, match="needs labels of some biomarkers and of one task"):
            list_specs(replace(study, cohort=replace(study.cohort, table=bare)))


def test_the_expert_of_each_run_is_the_one_that_validated_best_there(study, tmp_path):
    run = made_up_run(study, tmp_path / "run")
    knowing = decide_with_experts([run], SEVERITY, study, experts=["DT"])[0]
    guessing = decide_with_experts([run], SEVERITY, study, experts=["RF"], shuffled=True)[0]
    chosen = choose_by_validation([guessing, knowing])
    assert (knowing.words, guessing.words) == ("DT on biomarkers", "RF on baseline: shuffled labels")
    assert chosen.classifier == "DT" and chosen.held_out == knowing.held_out and chosen.validated == knowing.validated


def test_experts_are_chosen_by_what_is_judged_and_where_there_is_one_class_by_accuracy():
    def validated(yes: list[float], *labels: int) -> Row:
        p = np.array([[1 - one, one] for one in yes])
        return replace(biased, validated=(HeldOut(np.array(labels), p, np.arange(4)),) * 3)

    biased = made_up_row(Kind.BIOMARKERS, "DT", 0)
    for labels, metric, best in (((0, 0, 1, 1), "auc", 1), ((0, 0, 1, 1), "accuracy", 0), ((1, 1, 1, 1), "auc", 0)):
        rows = [validated([0.1, 0.1, 0.9, 0.05], *labels), validated([0.1, 0.2, 0.3, 0.4], *labels)]
        rows[1] = replace(rows[1], classifier="RF")
        assert choose_by_validation(rows, metric).classifier == " / ".join([rows[best].classifier] * 3)
        assert choose_by_validation([rows[best]] * 2, metric).held_out[0] is rows[best].held_out[0]
    same = [replace(rows[0], classifier=name) for name in ("first", "second")]
    assert choose_by_validation(same).classifier == "first / first / first"


def test_crossfitted_biomarkers_come_from_a_run_that_did_not_train_on_the_patient(study, tmp_path):
    runs = [made_up_run(study, tmp_path / f"run{k}", fold=k) for k in range(3)]
    for k, run in enumerate(runs):
        run.predictions["p_2"] = k / 10  # so that it can be told who said what
    given = crossfit_biomarkers(runs, study)
    for k, (run, values) in enumerate(zip(runs, given.values, strict=True)):
        said_by = np.rint(values[:, 2] * 10).astype(int)
        assert (said_by[run.splits != "train"] == k).all()
        training = run.splits == "train"
        assert (said_by[training] != k).all()
        for other, of_other in enumerate(runs):
            assert (of_other.splits[training & (said_by == other)] == "val").all()


def test_crossfitting_is_refused_where_runs_train_on_each_others_test_patients(study, tmp_path):
    crossed = replace(study, protocol="cross")
    with pytest.raises(LusbioError, match="train on each other's test patients"):
        crossfit_biomarkers([made_up_run(study, tmp_path / "run")], crossed)


def test_baselines_know_nothing_of_the_network(study, tmp_path):
    run = made_up_run(study, tmp_path / "run")
    trainee = take_rated_biomarkers([run], study, true=False).values[0]
    labels = study.table[list(BIOMARKER_NAMES)].to_numpy(float)
    for name in (BIOMARKER_NAMES[0], BIOMARKER_NAMES[5], BIOMARKER_NAMES[20]):
        k = BIOMARKER_NAMES.index(name)
        np.testing.assert_array_equal(trainee[:, k], labels[:, k])
    assert (trainee[:, 1] == 0.5).all()
    with pytest.raises(LusbioError, match="has no truth"):
        take_rated_biomarkers([run], study, true=True)
    (majority,) = decide_by_majority([run], DISEASE, study).held_out
    assert (majority.probabilities == majority.probabilities[0]).all()


def test_fewer_labels_change_what_is_learnt_and_are_nested(study, tmp_path):
    run = made_up_run(study, tmp_path / "run")
    table = study.table
    rows = np.flatnonzero(run.splits == "train")
    kept = [set(table["group_id"].iloc[keep_fraction(table, rows, share, 0)]) for share in (0.25, 0.5, 1.0)]
    assert kept[0] < kept[1] < kept[2] == set(table["group_id"].iloc[rows])
    whole, fewer = (
        decide_with_experts([run], DISEASE, study, experts=["DT"], label_fraction=share)[0] for share in (1.0, 0.5)
    )
    assert not np.array_equal(whole.held_out[0].probabilities, fewer.held_out[0].probabilities)


def test_a_task_of_ones_own_is_decided_like_the_papers(study, tmp_path):
    severe = study.table[SEVERITY].astype(int) >= 2
    answers = severe.map({True: "yes", False: "no"})
    mine = study.with_task("severe", ("no", "yes"), answers)
    run = made_up_run(study, tmp_path / "run")
    (row,) = decide_with_experts([run], "severe", mine, experts=["DT"])
    assert row.classes == ("no", "yes") and accuracy(row.held_out[0]) == 1
    assert mine.data_of(BIOMARKER_TASK) == study.data != mine.data_of("severe")
    assert mine.specs("severe")[0].outputs == ("no", "yes")
    with pytest.raises(LusbioError, match="'maybe' is not one of no, yes"):
        study.with_task("severe", ("no", "yes"), severe.map({True: "maybe", False: "no"}))
    with pytest.raises(LusbioError, match="has that column already"):
        study.with_task(DISEASE, ("no", "yes"), answers)
    with pytest.raises(LusbioError, match="0 of 40 videos have a label"):
        study.with_task("severe", ("no", "yes"), answers.where(answers == "none"))


def test_features_of_a_severity_network_have_another_name_where_they_decide_another_task(study, tmp_path):
    run = made_up_run(study, tmp_path / "run", SEVERITY)
    assert take_input([run], DISEASE).features == "lung_severity_features"
    assert take_input([run], SEVERITY).features == Kind.END_TO_END
    pretrained = replace(run, spec=replace(run.spec, initial_weights="run:biomarkers-fold0-0"))
    assert take_input([pretrained], SEVERITY).features == "pretrained_on_biomarkers"


@pytest.mark.parametrize("hidden", ["b_lines_white", "b_line_origin"])
def test_what_is_unknown_gives_no_other_label_away(study, tmp_path, hidden):
    severe = study.table[SEVERITY].astype(int).to_numpy() >= 2
    names = [name for name in BIOMARKER_NAMES if name.startswith(hidden)]
    assert names  # one option of a group, or a whole group
    table = study.table.assign(**dict.fromkeys(names, np.where(severe, np.nan, 0.0)))
    hinted = replace(study, cohort=replace(study.cohort, table=table))
    (values,) = take_rated_biomarkers([made_up_run(study, tmp_path / "run")], hinted, true=False).values
    assert (values[:, np.isin(BIOMARKER_NAMES, names)] == 0.5).all()
    assert set(values[:, BIOMARKER_NAMES.index("b_lines_none")]) == {0.0, 1.0}
