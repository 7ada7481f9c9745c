from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from small_cohort import TINY, make_small_cohort

from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.errors import LusbioError
from lusbio.experts.classifiers import EXPERT_NAMES
from lusbio.experts.inputs import BIOMARKERS, END_TO_END, MAJORITY
from lusbio.experts.other_cohort import CHOSEN, TASK, decide_elsewhere, find_other_cohort, predict_cohort
from lusbio.experts.rows import NETWORK, choose_by_validation, decide_with_experts
from lusbio.paper.generalization import (
    DIFFERENCE,
    METRICS,
    NO_FINDING,
    SOURCE_ONLY,
    describe_cells,
    describe_generalization,
    describe_tested,
    find_exact_interval,
    find_sources,
    make_table3,
    measure_severity,
    widen_table3,
)
from lusbio.runs.mixed_cohort import MIXED, find_mixed_runs, keep_real, list_mixed_runs, mix_cohorts
from lusbio.runs.spec import find_runs, prepare_cohort
from lusbio.runs.train import execute_many
from lusbio.statistics.metrics import task_metrics
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    prepared = prepare_cohort(make_small_cohort(tmp_path_factory.mktemp("home")), TINY)
    execute_many([*prepared.specs(TASK), *prepared.specs(BIOMARKER_TASK)], prepared)
    return prepared


def in_sources(cohort):
    """The cohort in two sources, which have all severities; every seventh patient was seen with the other probe."""
    patient = cohort.table["patient_id"].str[1:].astype(int)
    sources = np.where(patient < 10, "1-", "22-")
    table = cohort.table.assign(
        group_id=sources + cohort.table["patient_id"], probe=np.where(patient % 7, "convex", "linear")
    )
    return replace(cohort, table=table, name="elsewhere", notes=("36 of 40 videos present",), simulated=False)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    cohort = in_sources(make_small_cohort(tmp_path_factory.mktemp("other"), simulated=False))
    cohort.table.loc[:3, "lung_severity"] = np.nan
    return prepare_cohort(cohort, TINY)


@pytest.fixture(scope="module")
def found(home, other):
    return decide_elsewhere(home, other, "scratch")


@pytest.fixture(scope="module")
def with_mixed(home, other, tmp_path_factory):
    """Decisions that mixed networks take part in; the other half of their patients is called simulated."""
    simulated = make_small_cohort(tmp_path_factory.mktemp("simulated"), patients=16)
    simulated = prepare_cohort(replace(simulated, name="simulated"), TINY)
    execute_many(simulated.specs(BIOMARKER_TASK), simulated)
    mixed = mix_cohorts(home, simulated)
    runs = execute_many(list_mixed_runs(mixed, simulated, "scratch"), mixed)
    return decide_elsewhere(home, other, "scratch", mixed=[keep_real(run, mixed) for run in runs])


@pytest.fixture(scope="module")
def table3(found):
    return make_table3(found, 50)


@pytest.mark.parametrize("task", [TASK, BIOMARKER_TASK])
def test_on_its_own_cohort_a_run_predicts_what_it_predicted(home, task):
    run = find_runs(home.specs(task))[0]
    expected = run.biomarkers if task == BIOMARKER_TASK else run.probabilities
    again = predict_cohort(run, home, n_clips=run.spec.training.evaluation_clips)
    np.testing.assert_allclose(again, expected, atol=1e-6)


def test_predictions_are_kept_by_cohort_and_number_of_clips(home, other):
    run = find_runs(home.specs(TASK))[0]
    two, one = predict_cohort(run, other), predict_cohort(run, other, n_clips=1)
    kept = {path: path.stat().st_mtime_ns for path in (run.folder / "elsewhere").glob("elsewhere-*")}
    assert [path.name for path in sorted(kept)] == [f"elsewhere-{other.data}-{n}clips.csv" for n in (1, 2)]
    np.testing.assert_array_equal(predict_cohort(run, other), two)
    np.testing.assert_array_equal(predict_cohort(run, other, n_clips=1), one)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_decisions_of_experts_are_read_back(home, other, found):
    folders = [run.folder / "elsewhere" for run in found.runs]
    written = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    again = decide_elsewhere(home, other, "scratch")
    now = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    assert now == written and again.chosen == found.chosen
    for one, two in zip(found.rows, again.rows, strict=True):
        np.testing.assert_array_equal(one.folds[0].probabilities, two.folds[0].probabilities)


def test_frames_of_another_size_are_refused(home, other):
    larger = replace(other, profile=replace(TINY, training=replace(TINY.training, image_size=64)))
    with pytest.raises(LusbioError, match="32 and 64"):
        predict_cohort(find_runs(home.specs(TASK))[0], larger)


def test_the_rows_are_all_ways_to_decide_on_all_videos_with_a_severity(found, other):
    ways = [(row.features, row.classifier) for row in found.rows]
    experts = [(BIOMARKERS, name) for name in (*EXPERT_NAMES, CHOSEN)]
    assert ways == [(END_TO_END, NETWORK), *experts, (MAJORITY, "—")]
    known = np.flatnonzero(other.cohort.table[TASK].notna())
    for row in found.rows:
        assert len(row.folds) == 3 and all(np.array_equal(fold.rows, known) for fold in row.folds)
    assert len(known) == 36


def test_other_labels_change_no_decision(home, other, found):
    table = other.cohort.table.copy()
    table[TASK] = table[TASK].sample(frac=1, random_state=0).to_numpy()
    table[list(BIOMARKER_NAMES)] = np.nan
    blind = decide_elsewhere(
        home, replace(other, data="other-labels", cohort=replace(other.cohort, table=table)), "scratch"
    )
    assert blind.chosen == found.chosen
    for one, two in zip(found.rows, blind.rows, strict=True):
        for first, second in zip(one.folds, two.folds, strict=True):
            _, mine, theirs = np.intersect1d(first.rows, second.rows, return_indices=True)
            assert len(mine) > 20
            np.testing.assert_array_equal(first.probabilities[mine], second.probabilities[theirs])


def test_the_expert_that_counts_is_chosen_at_home(home, found):
    at_home = decide_with_experts(find_runs(home.specs(BIOMARKER_TASK)), TASK, home)
    assert found.chosen == choose_by_validation(at_home).classifier
    chosen = next(row for row in found.rows if row.classifier == CHOSEN)
    of_expert = {row.classifier: row for row in found.rows}
    for k, name in enumerate(found.chosen.split(" / ")):
        assert chosen.folds[k] is of_expert[name].folds[k]


def test_class_frequencies_are_those_of_the_training_videos(home, found):
    majority = found.rows[-1]
    for k, fold in enumerate(majority.folds):
        training = home.cohort.table[TASK][home.splits(k) == "train"].value_counts(normalize=True, sort=False)
        np.testing.assert_allclose(fold.probabilities[0], training.reindex(list("0123")))


def test_the_exact_interval_is_that_of_the_binomial_test():
    for right in range(10):
        interval = binomtest(right, 9).proportion_ci(0.95, method="exact")
        np.testing.assert_allclose(find_exact_interval(right, 9), interval)
    low, high = find_exact_interval(4.5, 9)
    assert find_exact_interval(4, 9)[0] < low < 0.5 < high < find_exact_interval(5, 9)[1]


def test_severity_within_sources_counts_the_pairs_of_one_source():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 4, 30), rng.dirichlet(np.ones(4), 30).round(1)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    sources = rng.choice(["a", "b", "c"], 30)
    found = measure_severity(sources)(labels, probabilities, np.ones((1, 30)))
    score = 1 - probabilities[:, 0]
    pairs = [
        (score[i] > score[j]) + (score[i] == score[j]) / 2
        for i in range(30)
        for j in range(30)
        if sources[i] == sources[j] and labels[i] > 0 == labels[j]
    ]
    assert found["zero_auc_within_sources"][0] == pytest.approx(np.mean(pairs))
    assert found["zero_auc"][0] == pytest.approx(roc_auc_score(labels > 0, score))
    expected = task_metrics(labels, probabilities)
    assert all(found[name][0] == pytest.approx(expected[name]) for name in ("auc", "accuracy"))


def test_where_no_source_has_both_there_is_nothing_within_sources():
    labels, probabilities = np.array([0, 0, 1, 2]), np.full((4, 4), 0.25)
    found = measure_severity(np.array(list("aabb")))(labels, probabilities, np.ones((2, 4)))
    assert np.isnan(found["zero_auc_within_sources"]).all() and (found["zero_auc"] == 0.5).all()


def test_the_source_alone_says_nothing_within_sources(table3):
    rows = table3[(table3["features"] == SOURCE_ONLY) & (table3["videos"] == "all")].set_index("metric")
    assert rows.loc["zero_auc_within_sources", "mean"] == 50 and rows.loc["zero_auc", "mean"] > 50
    assert (rows["sd"] == 0).all()


def test_table3_holds_means_over_runs_and_the_paired_difference(found, table3):
    cells = table3[table3["videos"] == "all"].set_index(["features", "classifier", "metric"]).sort_index()
    for row in found.rows:
        values = pd.DataFrame([task_metrics(fold.labels, fold.probabilities) for fold in row.folds])
        for metric in ("auc", "accuracy"):
            cell = cells.loc[(row.features, row.classifier, metric)]
            assert cell["mean"] == pytest.approx(100 * values[metric].mean())
            assert cell["sd"] == pytest.approx(100 * values[metric].std(ddof=0))
            assert cell["ci_low"] <= cell["mean"] <= cell["ci_high"] and cell["interval"] == "groups"
    mean = cells["mean"]
    difference = mean[BIOMARKERS, CHOSEN] - mean[END_TO_END, NETWORK]
    pd.testing.assert_series_equal(mean[DIFFERENCE].droplevel(0), difference, check_names=False)


def test_few_groups_have_the_exact_interval_of_accuracy_and_no_other(table3):
    linear = table3[table3["videos"] == "linear"]
    assert set(linear["n_groups"]) == {2} and set(linear["n_videos"]) == {4}
    is_accuracy = (linear["metric"] == "accuracy") & (linear["features"] != DIFFERENCE)
    assert (linear.loc[is_accuracy, "interval"] == "videos, exact").all()
    assert linear.loc[~is_accuracy, ["ci_low", "ci_high"]].isna().all(axis=None)
    for cell in linear[is_accuracy].itertuples():
        exact = find_exact_interval(cell.mean / 100 * 4, 4)
        assert (cell.ci_low, cell.ci_high) == pytest.approx((100 * exact[0], 100 * exact[1]))


def test_table3_is_readable_and_says_what_it_rests_on(found, table3):
    shown = widen_table3(table3)
    assert list(shown.columns) == ["videos", "features", "classifier", *METRICS.values()]
    assert list(dict.fromkeys(shown["videos"])) == ["all (36)", "convex (32)", "linear (4)"]
    assert len(shown) == 3 * (len(found.rows) + 2) and not shown.isna().any(axis=None)
    assert found.chosen in describe_cells(found)
    line = describe_tested(found)
    assert "36 videos with a severity (4 linear" in line and "36 of 40 videos present" in line
    assert line.index("**real**") < line.index("**Simulated**")


def with_interval(table, features, classifier, low, high):
    """The table with another interval of a row's AUC on all videos."""
    row = (table["videos"] == "all") & (table["features"] == features) & (table["classifier"] == classifier)
    table = table.copy()
    table.loc[row & (table["metric"] == "auc"), ["ci_low", "ci_high"]] = low, high
    return table


@pytest.mark.parametrize(("low", "high", "verdict"), [(1, 9, "better"), (-9, -1, "worse"), (-4, 6, "no difference")])
def test_the_sentence_goes_whichever_way_the_difference_goes(table3, low, high, verdict):
    table = with_interval(table3, END_TO_END, NETWORK, 55, 75)
    table = with_interval(table, BIOMARKERS, CHOSEN, 40, 75)
    table = with_interval(table, DIFFERENCE, f"{CHOSEN} minus {NETWORK}", low, high)
    sentences = describe_generalization(table)
    assert verdict in sentences[0] and sentences[0].endswith("above chance: the end-to-end network.")
    assert "4 linear videos of 2 groups, Accuracy" in sentences[2] and "too few to compare" in sentences[2]
    assert sentences[-1].startswith("Severity 0 against 1-3: knowing the source alone")


def test_where_neither_is_above_chance_nothing_is_claimed(table3):
    table = with_interval(table3, END_TO_END, NETWORK, 30, 45)
    table = with_interval(table, BIOMARKERS, CHOSEN, 46, 60)
    table = with_interval(table, DIFFERENCE, f"{CHOSEN} minus {NETWORK}", 5, 9)
    assert NO_FINDING in describe_generalization(table)[0] and "better" not in describe_generalization(table)[0]


def test_mixed_networks_stand_beside_the_others_and_change_nothing_of_them(found, with_mixed):
    ways = [(row.features, row.classifier) for row in with_mixed.rows]
    of_mixed = [(MIXED, name) for name in (*EXPERT_NAMES, CHOSEN)]
    before = [(row.features, row.classifier) for row in found.rows]
    assert ways == [*before[:-1], *of_mixed, before[-1]] and with_mixed.chosen == found.chosen
    rows = {(row.features, row.classifier): row for row in with_mixed.rows}
    for row in found.rows:
        for one, two in zip(row.folds, rows[row.features, row.classifier].folds, strict=True):
            np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert len(with_mixed.runs) == len(found.runs) + 3
    own = rows[BIOMARKERS, CHOSEN].folds[0].probabilities
    assert not np.array_equal(rows[MIXED, CHOSEN].folds[0].probabilities, own)


def test_table3_holds_what_mixed_training_adds_by_pairs(found, with_mixed, table3):
    table = make_table3(with_mixed, 50)
    mean = table[table["videos"] == "all"].set_index(["features", "classifier", "metric"])["mean"].sort_index()
    pair = mean[DIFFERENCE, f"{CHOSEN}, mixed minus own"]
    expected = mean[MIXED, CHOSEN] - mean[BIOMARKERS, CHOSEN]
    pd.testing.assert_series_equal(pair, expected, check_names=False)
    kept = table[(table["features"] != MIXED) & ~table["classifier"].str.contains("mixed")]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), table3)
    sentences = describe_generalization(table)
    assert sentences[:3] == describe_generalization(table3)[:3]
    assert all("mixed biomarkers" in sentence for sentence in sentences[3:]) and len(sentences) == 7
    assert "Mixed:" in describe_cells(with_mixed) and "Mixed:" not in describe_cells(found)


def test_other_cohorts_than_covid_blues_have_no_mixed_networks(home):
    assert find_mixed_runs(home, "scratch") == ([], "")


def test_sources_are_what_groups_begin_with():
    assert find_sources(np.array(["18-clinic-set1", "2-atlas"])).tolist() == ["18", "2"]


def test_without_pocovid_there_is_a_line_that_says_how_to_get_it(home, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    nothing, missing = find_other_cohort(home)
    assert nothing is None and "`lusbio fetch pocovid`" in missing and "LUSBIO_DATA" in missing


def test_a_test_on_itself_is_refused_in_a_line(home):
    nothing, missing = find_other_cohort(replace(home, cohort=replace(home.cohort, name="pocovid")))
    assert nothing is None and "on itself is no generalization" in missing and "\n" not in missing


def test_a_cohort_without_severities_has_nothing_to_hand_on(home):
    table = home.cohort.table.assign(**{TASK: np.nan})
    nothing, missing = find_other_cohort(replace(home, cohort=replace(home.cohort, table=table)))
    assert nothing is None and "too few severities" in missing
