from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, make_small_cohort, random_runs
from sklearn.metrics import roc_auc_score

from lusbio.cohorts import covid_blues
from lusbio.cohorts.targets import encode_task
from lusbio.errors import CohortError, NothingToDo
from lusbio.experts.inputs import ExpertInput, take_adapted_biomarkers, take_rated_bits
from lusbio.experts.patients import leave_out
from lusbio.experts.rows import CHOSEN, NETWORK, Row, accuracy, choose_by_validation
from lusbio.files import Table
from lusbio.paper.real_patients import (
    ASKED,
    EVERYBODY,
    FINDINGS,
    LOOKED_AT,
    ON_PLACES,
    PAIRS,
    PIXEL_MODELS,
    ROUTES,
    UNSEEN,
    RealPatientInputs,
    ask_questions,
    count_answers,
    decide_finding,
    decide_task,
    decide_without_network,
    describe_differences,
    describe_pairs,
    make_real_findings,
    make_real_patients,
    open_real_patients,
    pick_shown,
)
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import Study, as_study
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, DISEASE, SEVERITY, SF_RATIO, Kind

pytestmark = pytest.mark.usefixtures("one_fit")

QUESTION = "sf_at_most_430"
NONES = [BIOMARKER_NAMES.index(question.column) for question in FINDINGS.values()]
UNTAUGHT = [name for k, name in enumerate(BIOMARKER_NAMES) if k not in NONES]
"""What these patients have no labels for."""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Real patients: five folds, two zones; patients are numbered, so that some have been looked at."""
    cohort = make_small_cohort(tmp_path_factory.mktemp("real"), simulated=False)
    table = cohort.table.assign(
        patient_id=cohort.table["patient_id"].str[1:],
        group_id=cohort.table["group_id"].str[1:],
        zone=np.where(cohort.table["video_id"].str.endswith("0"), "L1", "R1"),
    )
    notes = ("40 of 41 videos present", "and more")
    return ask_questions(as_study(prepare_cohort(replace(cohort, table=table, name="real", notes=notes), TINY)))[0]


@pytest.fixture(scope="module")
def inputs(study, tmp_path_factory) -> RealPatientInputs:
    """Nothing was trained: networks say whatever comes to their mind."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    own = random_runs(study, folder, masked=UNTAUGHT)
    frozen = ExpertInput(Kind.FROZEN, tuple(own), (rng.random((40, 38)),) * 5)
    taught = [random_runs(study, folder, seed=seed, masked=UNTAUGHT) for seed in (1, 2)]
    return RealPatientInputs(
        study=study,
        networks={task: random_runs(study, folder, task) for task in (SEVERITY, SF_RATIO)},
        own=own,
        from_simulated=random_runs(study, folder, SEVERITY, seed=1),
        signs_first=random_runs(study, folder, SEVERITY, seed=2),
        frozen=frozen,
        adapted=take_adapted_biomarkers(taught[0], frozen),
        mixed=replace(take_adapted_biomarkers(taught[1], frozen), features=Kind.MIXED),
    )


@pytest.fixture(scope="module")
def decided(inputs) -> list[Row]:
    return [row for task in (SEVERITY, QUESTION) for row in decide_task(inputs, task, experts=["DT", "NN"])]


@pytest.fixture(scope="module")
def table(decided) -> Table:
    return make_real_patients(decided, 20)


@pytest.fixture(scope="module")
def cells(table) -> pd.DataFrame:
    """Of all patients."""
    return table.cells[table.cells["patients"] == EVERYBODY].reset_index(drop=True)


@pytest.fixture(scope="module")
def seen(inputs) -> list[Row]:
    return [row for finding in inputs.findings for row in decide_finding(inputs, finding)]


@pytest.fixture(scope="module")
def findings(seen) -> Table:
    return make_real_findings(seen, 20)


def row_of(rows, task, features, classifier) -> Row:
    (row,) = [row for row in rows if (row.task, row.features, row.classifier) == (task, features, classifier)]
    return row


# --- who is asked what ---


def test_questions_are_answered_like_a_plain_loop(study):
    for answers in study.table.to_dict("records"):
        assert answers[QUESTION] == ("yes" if answers["sf_value"] <= 430 else "no")
        assert answers["covid"] == ("yes" if answers["disease"] == "COVID pneumonia" else "no")
        assert answers["A-lines"] == ("no" if answers["a_lines_none"] == 1 else "yes")
        assert answers["B-lines"] == ("no" if answers["b_lines_none"] == 1 else "yes")


def test_unknown_stays_unknown_and_what_cannot_be_asked_is_said(tmp_path):
    cohort = make_small_cohort(tmp_path, simulated=False)
    cohort.table["disease"] = np.nan
    cohort.table.loc[:1, ["sf_value", "sf_ratio"]] = np.nan
    asked, reasons = ask_questions(as_study(prepare_cohort(cohort, TINY)))
    assert "covid" not in asked.table and len(reasons) == 1 and "COVID pneumonia" in reasons[0]
    assert asked.table[QUESTION].isna().sum() == 2


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_question_that_some_fold_cannot_learn_or_judge_is_not_asked(study, split):
    table = study.table.drop(columns=list(ASKED))
    of_fold = (study.splits(1) == split) & ((table["disease"] == "COVID pneumonia") | (split != "train"))
    table = table.assign(disease=table["disease"].mask(of_fold))
    asked, reasons = ask_questions(replace(study, cohort=replace(study.cohort, table=table)))
    assert "covid" not in asked.table and len(reasons) == 1 and reasons[0].startswith("COVID pneumonia: ")


def test_finished_runs_stay_valid_when_questions_are_asked(study):
    before = replace(study, cohort=replace(study.cohort, table=study.table.drop(columns=list(ASKED))))
    for task in (BIOMARKER_TASK, SEVERITY, DISEASE):
        assert before.specs(task) == study.specs(task)


def test_answers_are_counted_by_video_and_patient(study):
    counts = count_answers(study)
    assert counts.loc[("COVID pneumonia", "yes")].tolist() == [14, 7]
    assert (counts.groupby("question")["videos"].sum() == 40).all()


@pytest.mark.parametrize("cohort", ["synthetic", "covid_blues"])
def test_without_real_patients_one_line_says_what_is_missing(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    with pytest.raises(NothingToDo) as ending:
        open_real_patients("smoke", cohort)
    line = str(ending.value)
    assert covid_blues.NAME.upper().replace("_", "-") in line.upper().replace("_", "-") and "\n" not in line
    assert ("lusbio fetch covid_blues" in line) == (cohort == "covid_blues")


def test_real_patients_without_severities_are_not_asked(study, monkeypatch):
    bare = study.table.drop(columns=list(ASKED)).assign(**{SEVERITY: np.nan})
    bare = replace(study, cohort=replace(study.cohort, table=bare, name=covid_blues.NAME))
    monkeypatch.setattr("lusbio.paper.real_patients.open_study", lambda *_: bare)
    with pytest.raises(NothingToDo, match=f"{SEVERITY}: .*fewer than two classes"):
        open_real_patients("smoke", covid_blues.NAME)


def test_an_unusable_cohort_is_not_called_a_missing_one_alone(monkeypatch):
    def fail(*_):
        raise CohortError("cohort.csv", ["a column is missing"])

    monkeypatch.setattr("lusbio.paper.real_patients.open_study", fail)
    with pytest.raises(NothingToDo, match=r"cohort\.csv: a column is missing"):
        open_real_patients("smoke", covid_blues.NAME)


# --- decisions ---


def test_networks_without_a_task_of_their_own_leave_its_question_out(inputs):
    assert inputs.tasks == [SEVERITY, SF_RATIO, QUESTION]
    assert inputs.findings == ["A-lines", "B-lines"]


def test_a_question_is_answered_by_the_classes_that_mean_yes(inputs, decided):
    row = row_of(decided, QUESTION, Kind.END_TO_END, NETWORK)
    for run, fold in zip(inputs.networks[SF_RATIO], row.held_out, strict=True):
        np.testing.assert_allclose(fold.probabilities[:, 1], 1 - run.probabilities[fold.rows, 0])
        np.testing.assert_array_equal(fold.labels, inputs.study.table["sf_value"][fold.rows] <= 430)


def test_every_patient_is_tested_once_in_every_row(decided, seen):
    for row in [*decided, *seen]:
        assert sorted(np.concatenate([fold.rows for fold in row.held_out])) == list(range(40))


def test_test_labels_have_no_say_in_what_needs_no_network(inputs):
    table, study = inputs.study.table.copy(), inputs.study
    before = decide_without_network(inputs, QUESTION)
    tested = (study.splits(0) == "test").to_numpy()
    table.loc[tested, QUESTION] = np.where(table.loc[tested, QUESTION] == "yes", "no", "yes")
    other = replace(inputs, study=replace(study, cohort=replace(study.cohort, table=table)))
    for one, two in zip(before, decide_without_network(other, QUESTION), strict=True):
        np.testing.assert_array_equal(one.held_out[0].probabilities, two.held_out[0].probabilities)
        assert not np.array_equal(one.held_out[0].labels, two.held_out[0].labels)


def test_pixels_find_what_is_brightness(inputs):
    rows = decide_without_network(inputs, QUESTION)
    assert [row.classifier for row in rows] == 2 * ["LR", "RF", CHOSEN]
    for model in PIXEL_MODELS:
        row = row_of(rows, QUESTION, Kind.PIXELS, model)
        assert np.mean([accuracy(fold) for fold in row.held_out]) > 0.9


def test_of_experts_the_one_that_validated_best_is_shown(decided):
    for features in (Kind.END_TO_END, Kind.BIOMARKERS, Kind.FROZEN, Kind.ADAPTED, Kind.FUSED, Kind.MIXED):
        experts = [row for row in decided if (row.task, row.features) == (SEVERITY, features)]
        chosen = row_of(experts, SEVERITY, features, CHOSEN)
        best = choose_by_validation([row for row in experts if row.classifier not in (NETWORK, CHOSEN)])
        for one, two in zip(chosen.held_out, best.held_out, strict=True):
            np.testing.assert_array_equal(one.probabilities, two.probabilities)


def test_a_finding_is_seen_where_it_is_not_none(inputs, seen):
    for given in (inputs.frozen, inputs.adapted, inputs.mixed):
        for finding, none in zip(FINDINGS, NONES, strict=True):
            for values, fold in zip(given.values, row_of(seen, finding, given.features, NETWORK).held_out, strict=True):
                np.testing.assert_allclose(fold.probabilities[:, 1], 1 - values[fold.rows, none])
                labels = inputs.study.table[BIOMARKER_NAMES[none]].to_numpy()[fold.rows]
                np.testing.assert_array_equal(fold.labels, 1 - labels)


def test_fused_biomarkers_see_a_finding_as_the_mean_of_both(inputs, seen):
    row, none = row_of(seen, "B-lines", Kind.FUSED, NETWORK), NONES[1]
    for k, fold in enumerate(row.held_out):
        mean = (inputs.frozen.values[k][:, none] + inputs.adapted.values[k][:, none]) / 2
        np.testing.assert_allclose(fold.probabilities[:, 1], 1 - mean[fold.rows])


def test_places_are_shared_for_severity_alone(decided):
    heeded = [(row.task, row.features) for row in decided if row.features.endswith("_all_places")]
    assert set(heeded) == {(SEVERITY, f"{name}_all_places") for name, _ in ON_PLACES}
    assert len(heeded) == len(ON_PLACES)


def test_patients_can_be_left_out(decided):
    fewer = leave_out(decided[0], ["3", "4"])
    groups = np.concatenate([fold.groups for fold in fewer.held_out])
    assert set(groups) == {str(k) for k in range(20)} - {"3", "4"} and len(groups) == 36
    assert leave_out(decided[0], [str(k) for k in range(20)]).held_out == ()


def test_what_needs_no_network_follows_the_same_runs(inputs):
    bits = take_rated_bits(inputs.own, inputs.study, [question.column for question in FINDINGS.values()])
    for given in (*inputs.without, bits, inputs.frozen):
        assert isinstance(given, ExpertInput) and given.runs == tuple(inputs.own)
    assert encode_task(inputs.study.table, "A-lines").min() == 0


# --- tables ---


def test_the_table_has_every_row_and_patients_where_a_task_is_about_them(decided, cells):
    units = cells.groupby("task", sort=False)["unit"].unique().map(list).to_dict()
    assert units == {SEVERITY: ["video"], QUESTION: ["video", "patient"]}
    of_severity = [row for row in decided if row.task == SEVERITY]
    assert (cells["task"] == SEVERITY).sum() == 2 * (len(of_severity) + len(PAIRS))
    names = {row.features for row in of_severity}
    assert names >= {*ROUTES, Kind.RATED_BITS, Kind.PIXELS, Kind.METADATA, Kind.MAJORITY}


def test_differences_are_to_the_better_baseline_and_pixels_have_none(cells):
    key, pixels = ["task", "unit", "metric"], cells["features"] == Kind.PIXELS
    best = cells[pixels & (cells["classifier"] != CHOSEN)].groupby(key)["mean"].max().rename("best")
    expected = cells["mean"] - cells[key].merge(best, "left", key)["best"]
    single = cells["classifier"].isin(["DT", "NN"])
    none = pixels | single | (cells["features"] == Kind.DIFFERENCE)
    np.testing.assert_allclose(expected[~none], cells["over_baseline"][~none], atol=1e-9)
    assert cells.loc[none, ["over_baseline", "over_low", "over_high"]].isna().all(axis=None)
    assert cells.loc[pixels | single, ["p_value", "p_holm"]].isna().all(axis=None)


def test_published_numbers_are_about_videos(cells):
    known = cells["published_mean"].notna()
    assert known.any() and set(cells.loc[known, "unit"]) == {"video"}


def test_being_above_takes_both_models_on_pixels(decided):
    """A route that equals one of them has no p-value below 1, however far it is above the other."""
    rows = [row for row in decided if row.task == SEVERITY]
    one = row_of(rows, SEVERITY, Kind.PIXELS, "LR")
    worse = replace(row_of(rows, SEVERITY, Kind.MAJORITY, "—"), features=Kind.PIXELS, classifier="RF")
    kept = [row for row in rows if row.features not in (Kind.PIXELS, Kind.END_TO_END)]
    some = [replace(one, features=Kind.END_TO_END, classifier=NETWORK), one, worse, *kept]
    cells = make_real_patients(some, 20).cells
    cells = cells[(cells["patients"] == EVERYBODY) & (cells["features"] == Kind.END_TO_END)]
    assert (cells["over_baseline"] == 0).all() and (cells["p_value"] == 1).all()


def test_only_routes_that_are_shown_are_corrected(cells):
    tested = cells[cells["features"] != Kind.DIFFERENCE].dropna(subset=["p_holm"])
    assert set(tested["features"]) == set(ROUTES) and set(tested["classifier"]) == {NETWORK, CHOSEN}
    assert (tested["p_holm"] >= tested["p_value"]).all()


def test_pairs_are_differences_of_the_rows_that_are_shown(cells):
    means = cells.set_index(["task", "unit", "metric", "features", "classifier"])["mean"].sort_index()
    pairs, of_networks = (
        cells[cells["features"] == Kind.DIFFERENCE],
        {Kind.END_TO_END, Kind.SIGNS_FIRST, Kind.FROM_SIMULATED},
    )
    assert set(pairs["classifier"]) == {f"{first} minus {second}" for first, second in PAIRS}
    for row in pairs.itertuples():
        first, second = row.classifier.split(" minus ")
        kinds = [NETWORK if features in of_networks else CHOSEN for features in (first, second)]
        both = [means[row.task, row.unit, row.metric, f, k] for f, k in zip((first, second), kinds, strict=True)]
        assert row.mean == pytest.approx(both[0] - both[1], abs=1e-9)
        assert row.ci_low <= row.ci_high and row.p_holm >= row.p_value


def test_pairs_of_findings_are_of_networks(findings):
    pairs = findings.cells[findings.cells["features"] == Kind.DIFFERENCE]
    firsts = (Kind.MIXED, Kind.SIGNS, Kind.SIGNS_ADAPTED)
    assert set(pairs["classifier"]) == {f"{first} minus {Kind.ADAPTED}" for first in firsts} and len(pairs) == 12
    mean = findings.cells.set_index(["task", "patients", "features"])["mean"].sort_index()
    for row in pairs.itertuples():
        first, second = row.classifier.split(" minus ")
        (mixed,), (adapted,) = (mean[[(row.task, row.patients, kind)]] for kind in (first, second))
        assert row.mean == pytest.approx(mixed - adapted)


def test_auc_of_patients_is_that_of_mean_probabilities(decided, cells):
    row = row_of(decided, QUESTION, Kind.FROZEN, CHOSEN)
    aucs = []
    for fold in row.held_out:
        patients = pd.DataFrame({"label": fold.labels, "p": fold.probabilities[:, 1]}).groupby(fold.groups).mean()
        if patients["label"].nunique() == 2:
            aucs.append(roc_auc_score(patients["label"], patients["p"]))
    cell = cells[(cells["task"] == QUESTION) & (cells["unit"] == "patient") & (cells["metric"] == "auc")]
    cell = cell[(cell["features"] == Kind.FROZEN) & (cell["classifier"] == CHOSEN)]
    assert cell["mean"].item() == pytest.approx(100 * np.mean(aucs))


def test_findings_are_measured_without_those_who_were_looked_at_too(seen, findings):
    cells = findings.cells
    counts = cells.groupby("patients")["n_patients"].unique().map(list).to_dict()
    looked_at = set(LOOKED_AT) & {str(k) for k in range(20)}
    assert counts == {EVERYBODY: [20], UNSEEN: [20 - len(looked_at)]} and set(cells["metric"]) == {"auc"}
    row = leave_out(row_of(seen, "B-lines", Kind.FROZEN, NETWORK), LOOKED_AT)
    assert 0 < sum(len(fold.rows) for fold in row.held_out) < 40
    some = (cells["patients"] == UNSEEN) & (cells["features"] == Kind.FROZEN) & (cells["task"] == "B-lines")
    aucs = [roc_auc_score(f.labels, f.probabilities[:, 1]) for f in row.held_out if len(set(f.labels.tolist())) == 2]
    assert cells.loc[some, "mean"].item() == pytest.approx(100 * np.mean(aucs))


def test_table1_is_measured_without_those_who_were_looked_at_too(decided, table):
    cells = table.cells
    looked_at = set(LOOKED_AT) & {str(k) for k in range(20)}
    assert cells.groupby("patients")["n_patients"].unique().map(list).to_dict() == {
        EVERYBODY: [20],
        UNSEEN: [20 - len(looked_at)],
    }
    row = leave_out(row_of(decided, SEVERITY, Kind.FROZEN, CHOSEN), LOOKED_AT)
    some = (cells["patients"] == UNSEEN) & (cells["task"] == SEVERITY) & (cells["metric"] == "accuracy")
    some &= (cells["features"] == Kind.FROZEN) & (cells["classifier"] == CHOSEN)
    assert cells.loc[some, "mean"].item() == pytest.approx(100 * np.mean([accuracy(fold) for fold in row.held_out]))
    unseen = cells[cells["patients"] == UNSEEN]
    assert set(unseen["unit"]) == {"video", "patient"} and (unseen["features"] == Kind.DIFFERENCE).any()
    told = describe_differences(cells), describe_pairs(cells)
    everybody = cells[cells["patients"] == EVERYBODY]
    assert told == (describe_differences(everybody), describe_pairs(everybody))


def test_the_note_counts_the_bits_that_own_biomarkers_are(decided, table):
    counted = f"{len(NONES)} bits of 38: {', '.join(f'`{BIOMARKER_NAMES[k]}`' for k in NONES)}."
    assert table.note.startswith(f"Biomarkers that these patients alone taught are {counted}")


def test_tables_are_readable(table, findings):
    wide = table.shown
    assert not wide.isna().any(axis=None) and not wide["features"].str.contains("_").any()
    assert len(wide) == len(wide.drop_duplicates(["patients", "features", "classifier"]))
    assert "S/F at most 430 (patients), AUC" in wide and "Lung severity, Accuracy" in wide
    assert list(findings.shown.columns[:4]) == ["patients", "n_patients", "features", "classifier"]
    assert "TSM" in set(findings.shown["classifier"]) and NETWORK not in set(findings.shown["classifier"])
    assert "mixed training minus adapted" in set(wide["classifier"]) & set(findings.shown["classifier"])
    first = pick_shown(table.cells).iloc[0]
    text = f"{first['mean']:.1f} [{first['ci_low']:.1f}, {first['ci_high']:.1f}] ({first['over_baseline']:+.1f} ["
    assert wide.loc[0, "Lung severity, AUC"].startswith(text)


def test_the_note_names_classes_that_no_test_patient_has_by_the_question(decided):
    rows = [row for row in decided if row.task == QUESTION]
    first = rows[0].held_out[0]
    fewer = [replace(row, held_out=(row.held_out[0].keep(first.labels == 1), *row.held_out[1:])) for row in rows]
    assert "S/F at most 430: no absent in" in make_real_patients(fewer, 20).note


def test_the_origin_says_who_was_tested_and_how_many_of_the_videos_are_here(inputs):
    assert "**Real** patients, cohort `real`" in inputs.origin and inputs.origin.count("40 of 41 videos present") == 1
    assert "initial weights: scratch" in inputs.origin and "and more" not in inputs.origin


# --- sentences ---


def test_sentences_name_the_baseline_and_every_route(cells):
    sentences = describe_differences(cells)
    assert len(sentences) == 2 and all("baseline" in sentence for sentence in sentences)
    assert sentences == describe_differences(pick_shown(cells))
    none = cells.assign(over_low=-1.0)
    assert all(sentence.endswith("none is clearly above the baseline.") for sentence in describe_differences(none))
    one = (cells["features"] == Kind.FROZEN) & (cells["classifier"] == CHOSEN)
    clear = none.assign(over_low=none["over_low"].where(~one, 0.5), p_holm=1.0)
    ending = "above the baseline: experts on biomarkers, frozen (after Holm's correction: none)."
    assert describe_differences(clear)[0].endswith(ending)
    after = describe_differences(clear.assign(p_holm=0.01))[0]
    assert after.endswith("(after Holm's correction: experts on biomarkers, frozen).")


def test_sentences_about_pairs_say_what_excludes_zero_and_what_survives_correction(cells):
    shown = pick_shown(cells)
    pairs = (shown["features"] == Kind.DIFFERENCE) & (shown["task"] == SEVERITY) & (shown["metric"] == "auc")
    none = shown.assign(ci_low=-1.0, ci_high=1.0, p_holm=1.0)
    assert all(sentence.endswith("no interval excludes 0.") for sentence in describe_pairs(none))
    one = pairs & (shown["classifier"] == f"{Kind.MIXED} minus {Kind.ADAPTED}")
    clear = none.assign(ci_low=none["ci_low"].where(~one, 0.5))
    sentence = describe_pairs(clear)[0]
    assert "excludes 0: mixed training minus adapted (after Holm's correction: none)" in sentence
    after = clear.assign(p_holm=clear["p_holm"].where(~one, 0.01))
    assert "correction: mixed training minus adapted)" in describe_pairs(after)[0]
