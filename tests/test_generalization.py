from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import random_runs, small_study

from lusbio.errors import NothingToDo
from lusbio.experts.baselines import decide_by_majority, share_by_source
from lusbio.experts.classifiers import EXPERT_NAMES
from lusbio.experts.other_cohort import OtherCohortResult, judge_other_cohort
from lusbio.experts.rows import CHOSEN, NETWORK
from lusbio.files import Table
from lusbio.paper import generalization
from lusbio.paper.generalization import METRICS, NO_FINDING, check_comparable, describe_generalization, make_table3
from lusbio.report.cells import METRIC_TITLES
from lusbio.runs.study import Study
from lusbio.statistics.metrics import task_metrics
from lusbio.statistics.within_sources import find_exact_interval
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SEVERITY, Kind

EXPERTS = (*EXPERT_NAMES, CHOSEN)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Study:
    """Two sources, which have all severities; two patients' are unknown; every seventh patient was seen another way."""
    study = small_study(tmp_path_factory.mktemp("other"), simulated=False)
    patient = study.table["patient_id"].str[1:].astype(int)
    groups = np.where(patient < 10, "1-", "22-") + study.table["patient_id"]
    table = study.table.assign(group_id=groups, probe=np.where(patient % 7, "convex", "linear"))
    table.loc[patient < 2, SEVERITY] = np.nan
    notes = ("36 of 40 videos present",)
    return replace(study, cohort=replace(study.cohort, table=table, name="elsewhere", notes=notes))


def decide_by_chance(home: Study, other: Study, folder, *, mixed: bool) -> OtherCohortResult:
    """Rows as they are in earnest, in which every video gets whatever comes to mind; chance is the same every time."""
    runs, rng = random_runs(home, folder, BIOMARKER_TASK), np.random.default_rng(0)
    majority = decide_by_majority(runs, SEVERITY, home)
    ways = [(Kind.END_TO_END, NETWORK), *((Kind.BIOMARKERS, name) for name in EXPERTS)]
    ways += [(Kind.SIGNS, CHOSEN), (Kind.SIGNS_BIOMARKERS, CHOSEN)]
    ways += [(Kind.MIXED, name) for name in EXPERTS] if mixed else []
    rows = []
    for features, classifier in ways:
        decided = [rng.dirichlet(np.ones(4), len(other.videos)) for _ in runs]
        rows.append(judge_other_cohort(replace(majority, features=features, classifier=classifier), decided, other))
    everybody = [np.tile(fold.probabilities[0], (len(other.videos), 1)) for fold in majority.validated]
    return OtherCohortResult(
        home, other, tuple(runs), (*rows, judge_other_cohort(majority, everybody, other)), "RF / DT / RF"
    )


@pytest.fixture(scope="module")
def result(home, other, tmp_path_factory) -> OtherCohortResult:
    return decide_by_chance(home, other, tmp_path_factory.mktemp("runs"), mixed=False)


@pytest.fixture(scope="module")
def with_mixed(home, other, tmp_path_factory) -> OtherCohortResult:
    return decide_by_chance(home, other, tmp_path_factory.mktemp("runs"), mixed=True)


@pytest.fixture(scope="module")
def table3(result) -> Table:
    return make_table3(result, 50)


@pytest.fixture(scope="module")
def cells(table3) -> pd.DataFrame:
    return table3.cells


# --- the table ---


def test_the_source_alone_says_nothing_within_sources(cells):
    rows = cells[(cells["features"] == Kind.SOURCE_ONLY) & (cells["videos"] == "all")].set_index("metric")
    assert rows.loc["zero_auc_within_sources", "mean"] == 50 and rows.loc["zero_auc", "mean"] > 50
    assert (rows["sd"] == 0).all()


def test_the_source_alone_is_the_class_frequencies_of_each_source(result, other):
    shares, source = share_by_source(SEVERITY, other), other.table["group_id"].str.split("-").str[0]
    for video in np.flatnonzero(other.table[SEVERITY].notna()):
        same = other.table.loc[source == source[video], SEVERITY].value_counts(normalize=True)
        np.testing.assert_allclose(shares[video], same.reindex(list("0123"), fill_value=0))


def test_table3_holds_means_over_runs_and_the_paired_difference(result, cells):
    cells = cells[cells["videos"] == "all"].set_index(["features", "classifier", "metric"]).sort_index()
    for row in result.rows:
        values = pd.DataFrame([task_metrics(fold.labels, fold.probabilities) for fold in row.held_out])
        for metric in ("auc", "accuracy"):
            cell = cells.loc[(row.features, row.classifier, metric)]
            assert cell["mean"] == pytest.approx(100 * values[metric].mean())
            assert cell["sd"] == pytest.approx(100 * values[metric].std(ddof=0))
            assert cell["ci_low"] <= cell["mean"] <= cell["ci_high"] and cell["interval"] == "groups"
    mean = cells["mean"]
    difference = mean[Kind.BIOMARKERS, CHOSEN] - mean[Kind.END_TO_END, NETWORK]
    pd.testing.assert_series_equal(mean[Kind.DIFFERENCE, f"{CHOSEN} minus {NETWORK}"], difference, check_names=False)
    added = mean[Kind.SIGNS_BIOMARKERS, CHOSEN] - mean[Kind.BIOMARKERS, CHOSEN]
    pd.testing.assert_series_equal(
        mean[Kind.DIFFERENCE, f"{CHOSEN}, signs and own minus own"], added, check_names=False
    )


def test_few_groups_have_the_exact_interval_of_accuracy_and_no_other(cells):
    linear = cells[cells["videos"] == "linear"]
    assert set(linear["n_groups"]) == {2} and set(linear["n_videos"]) == {4}
    is_accuracy = (linear["metric"] == "accuracy") & (linear["features"] != Kind.DIFFERENCE)
    assert (linear.loc[is_accuracy, "interval"] == "videos, exact").all()
    assert (linear.loc[~is_accuracy, "interval"] == "none").all()
    assert linear.loc[~is_accuracy, ["ci_low", "ci_high"]].isna().all(axis=None)
    for cell in linear[is_accuracy].itertuples():
        exact = find_exact_interval(cell.mean / 100 * 4, 4)
        assert (cell.ci_low, cell.ci_high) == pytest.approx((100 * exact[0], 100 * exact[1]))


def test_table3_is_readable_and_says_what_it_rests_on(result, table3):
    shown = table3.shown
    assert list(shown.columns) == ["videos", "features", "classifier", *(METRIC_TITLES[name] for name in METRICS)]
    assert list(dict.fromkeys(shown["videos"])) == ["all (36)", "convex (32)", "linear (4)"]
    assert len(shown) == 3 * (len(result.rows) + 4) and not shown.isna().any(axis=None)
    assert result.chosen in table3.note
    assert "36 videos with a severity (4 linear" in table3.origin and "36 of 40 videos present" in table3.origin
    assert table3.origin.index("**real**") < table3.origin.index("**Simulated**")


def test_table3_holds_what_mixed_training_adds_by_pairs(with_mixed, table3):
    table = make_table3(with_mixed, 50)
    mean = table.cells[table.cells["videos"] == "all"].set_index(["features", "classifier", "metric"])["mean"]
    mean = mean.sort_index()
    expected = mean[Kind.MIXED, CHOSEN] - mean[Kind.BIOMARKERS, CHOSEN]
    pair = mean[Kind.DIFFERENCE, f"{CHOSEN}, mixed minus own"]
    pd.testing.assert_series_equal(pair, expected, check_names=False)
    of_mixed = table.cells["features"].isin([Kind.MIXED, Kind.SIGNS_MIXED]) | table.cells["classifier"].str.contains(
        "mixed"
    )
    pd.testing.assert_frame_equal(table.cells[~of_mixed].reset_index(drop=True), table3.cells)
    sentences, before = describe_generalization(table.cells), describe_generalization(table3.cells)
    assert sentences[:3] == before[:3]
    assert all("mixed biomarkers" in sentence for sentence in (*sentences[3:6], sentences[-1]))
    assert len(sentences) == len(before) + 3 == 13
    assert "Mixed:" in table.note and "Mixed:" not in table3.note


def test_findings_that_are_mentioned_are_judged_against_those_that_are_not(result, home, other, monkeypatch):
    table = other.table.assign(a_lines_none=other.table["a_lines_none"].where(other.table["a_lines_none"] == 0))
    asked = replace(result, other=replace(other, cohort=replace(other.cohort, table=table)))
    flags = generalization.find_flags(asked.other)
    assert flags["A-lines"].tolist() == (other.table["a_lines_none"] == 0).astype(int).tolist()
    seen = np.stack([1.0 - flags["A-lines"], flags["A-lines"]], axis=1)
    away = np.random.default_rng(0).random((len(other.videos), len(BIOMARKER_NAMES)))
    monkeypatch.setattr(type(home), "runs", lambda self, task: result.runs)
    monkeypatch.setattr(generalization, "predict_each", lambda runs, other, jobs: [away] * len(runs))
    monkeypatch.setattr(generalization, "decide_elsewhere_with_signs", lambda runs, *rest: [seen] * len(runs))
    made = generalization.make_flags(asked, 50)
    auc = made.cells[made.cells["finding"] == "A-lines"].set_index("features")["mean"]
    assert auc[Kind.SIGNS] == 100 and auc[Kind.DIFFERENCE] == pytest.approx(100 - auc[Kind.BIOMARKERS])
    convex = (table["probe"] == "convex").to_numpy()
    assert f"A-lines in {flags['A-lines'][convex].sum()}" in made.note and "32" not in made.note.split("A-lines")[1]
    assert f"Mentioned of {convex.sum()} convex videos" in made.note


# --- sentences ---


def with_interval(cells, features, classifier, low, high):
    """The cells with another interval of a row's AUC on all videos."""
    row = (cells["videos"] == "all") & (cells["features"] == features) & (cells["classifier"] == classifier)
    cells = cells.copy()
    cells.loc[row & (cells["metric"] == "auc"), ["ci_low", "ci_high"]] = low, high
    return cells


@pytest.mark.parametrize(("low", "high", "verdict"), [(1, 9, "better"), (-9, -1, "worse"), (-4, 6, "no difference")])
def test_the_sentence_goes_whichever_way_the_difference_goes(cells, low, high, verdict):
    cells = with_interval(cells, Kind.END_TO_END, NETWORK, 55, 75)
    cells = with_interval(cells, Kind.BIOMARKERS, CHOSEN, 40, 75)
    cells = with_interval(cells, Kind.DIFFERENCE, f"{CHOSEN} minus {NETWORK}", low, high)
    sentences = describe_generalization(cells)
    assert verdict in sentences[0] and sentences[0].endswith("above chance: the end-to-end network.")
    assert "4 linear videos of 2 groups, Accuracy" in sentences[2] and "too few to compare" in sentences[2]
    assert sentences[-1].startswith("Severity 0 against 1-3: knowing the source alone")


def test_where_neither_is_above_chance_nothing_is_claimed(cells):
    cells = with_interval(cells, Kind.END_TO_END, NETWORK, 30, 45)
    cells = with_interval(cells, Kind.BIOMARKERS, CHOSEN, 46, 60)
    cells = with_interval(cells, Kind.DIFFERENCE, f"{CHOSEN} minus {NETWORK}", 5, 9)
    sentences = describe_generalization(cells)
    assert NO_FINDING in sentences[0] and "better" not in sentences[0]


# --- where there is nothing to show ---


def test_without_pocovid_a_line_says_how_to_get_it(home, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    with pytest.raises(NothingToDo, match="`lusbio fetch pocovid`") as ending:
        replace(home, profile=replace(home.profile, name="smoke")).open_other("pocovid", "table3")
    assert "LUSBIO_DATA" in str(ending.value)


def test_a_test_on_itself_is_refused_in_a_line(other):
    with pytest.raises(NothingToDo, match="on itself is no generalization") as ending:
        check_comparable(other, other)
    assert "\n" not in str(ending.value)


def test_a_cohort_without_severities_has_nothing_to_hand_on(home, other):
    bare = replace(home, cohort=replace(home.cohort, table=home.table.assign(**{SEVERITY: np.nan})))
    with pytest.raises(NothingToDo, match="'small' cannot teach lung_severity"):
        check_comparable(bare, other)


def test_a_cohort_that_teaches_no_biomarker_has_nothing_to_compare(home, other):
    table = home.table.assign(**dict.fromkeys(BIOMARKER_NAMES, np.nan))
    with pytest.raises(NothingToDo, match="'small' cannot teach biomarkers"):
        check_comparable(replace(home, cohort=replace(home.cohort, table=table)), other)


def test_videos_without_severities_have_nothing_to_be_judged_by(home, other):
    bare = replace(other, cohort=replace(other.cohort, table=other.table.assign(**{SEVERITY: np.nan})))
    with pytest.raises(NothingToDo, match="none of the 40 videos has a severity"):
        check_comparable(home, bare)


def test_where_there_is_something_to_show_the_notebook_goes_on(home, other):
    check_comparable(home, other)
