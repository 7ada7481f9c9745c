"""Notebook 12: worse, the same or better, from what is different between two videos."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, execute_notebook, make_small_cohort
from scipy.stats import spearmanr
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from lusbio.errors import LusbioError, NothingToDo
from lusbio.experts.changes import count_units, decide_by_frequency, decide_by_score, decide_change
from lusbio.files import Table, write_csv
from lusbio.paper import change
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.statistics.change import change_metrics, classify_change, weighted_spearman

PROFILE = replace(TINY, bootstrap_draws=400)
"""Enough draws for a corrected p below .05."""

# --- measures ---


def test_ranks_under_whole_weights_are_those_of_repeated_pairs():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 9, 80).astype(float)
    second = first + rng.normal(0, 4, 80).round()
    weights = rng.integers(0, 3, (5, 80))
    expected = [spearmanr(np.repeat(first, w), np.repeat(second, w))[0] for w in weights]
    np.testing.assert_allclose(weighted_spearman(first, second, weights.astype(float)), expected, atol=1e-12)
    assert np.isnan(weighted_spearman(first, np.zeros(80), weights.astype(float))).all()


def test_measures_equal_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    moved = rng.normal(0, 20, 200)
    score = moved + rng.normal(0, 20, 200)
    true, said = (np.column_stack([classify_change(values, 10), values]) for values in (moved, score))
    found, moving = change_metrics(true, said), true[:, 0] != 1
    assert found["accuracy"] == pytest.approx((true[:, 0] == said[:, 0]).mean())
    assert found["macro_f1"] == pytest.approx(f1_score(true[:, 0], said[:, 0], average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true[:, 0], said[:, 0]))
    assert found["auc"] == pytest.approx(roc_auc_score(true[moving, 0] == 2, score[moving]))
    assert found["spearman"] == pytest.approx(spearmanr(moved, score)[0])
    weighted = change_metrics(true, said, np.vstack([np.ones(200), np.arange(200) % 2]))
    half = change_metrics(true[1::2], said[1::2])
    assert {name: values[1] for name, values in weighted.items()} == pytest.approx(half)


# --- decisions ---


def make_units(n: int = 300, seed: int = 0):
    rng = np.random.default_rng(seed)
    moved = rng.normal(0, 30, n)
    groups = np.repeat(np.arange(n // 3), 3).astype(str)
    splits = np.array(["train", "train", "val", "test"])[np.arange(n) // 3 % 4]
    return moved, count_units(moved, groups, splits, by_patient=False)


def test_planted_features_are_found():
    moved, units = make_units()
    noise = np.random.default_rng(1).normal(size=(len(moved), 8))
    found = change_metrics(*decide_change(np.column_stack([moved, noise]), units, 10)[:2])
    assert found["accuracy"] > 0.9 and found["spearman"] > 0.9
    itself = change_metrics(*decide_by_score(moved[:, None], units, 10)[:2])
    assert itself["accuracy"] == itself["spearman"] == 1


def test_shuffled_changes_teach_nothing():
    found = []
    for seed in range(8):
        moved, units = make_units(seed=seed)
        found.append(change_metrics(*decide_change(moved[:, None], units, 10, shuffled=True)[:2])["balanced_accuracy"])
    assert 0.2 < np.mean(found) < 0.47
    moved, units = make_units()
    frequent = change_metrics(*decide_by_frequency(units, 10)[:2])
    assert frequent["balanced_accuracy"] == pytest.approx(1 / 3) and np.isnan(frequent["spearman"])


def test_pairs_of_a_patient_are_averaged_and_unknown_ones_left_out():
    moved = np.array([10.0, np.nan, 30.0, -5.0, np.nan])
    splits, groups = np.array(["train"] * 3 + ["test"] * 2), np.array(list("aaabc"))
    patients = count_units(moved, groups, splits, by_patient=True)
    assert patients.change.tolist() == [20, -5] and patients.groups.tolist() == ["a", "b"]
    assert patients.splits.tolist() == ["train", "test"]
    assert patients.average(np.array([1.0, 100, 2, 3, 100]))[:, 0].tolist() == [1.5, 3]
    pairs = count_units(moved, groups, splits, by_patient=False)
    assert pairs.change.tolist() == [10, 30, -5] and pairs.groups.tolist() == ["a", "a", "b"]


def test_training_pairs_of_one_class_are_named():
    units = count_units(np.zeros(9), np.arange(9).astype(str), np.array(["train", "val", "test"] * 3), by_patient=False)
    with pytest.raises(LusbioError, match="3 training pairs are all of one class at a threshold of 10"):
        decide_change(np.zeros((9, 2)), units, 10)


def test_the_threshold_itself_is_the_same():
    assert classify_change(np.array([-10.0, -10.1, 10.1, 10.0]), 10).tolist() == [1, 0, 2, 1]


# --- a cohort that is compared with itself ---


def study_with(folder, **columns):
    cohort = make_small_cohort(folder)
    exam = [1, 2] * 20
    table = cohort.table.assign(**{"exam": exam, "zone": "L1"} | columns)
    return as_study(prepare_cohort(replace(cohort, table=table, name="small"), PROFILE, protocol="cross"))


def changes_of(study, pair=change.pair_exams):
    return change.Changes(study, study, pair(study.table), mirrored=False)


def test_exams_the_other_way_round_turn_differences_and_classes(tmp_path):
    values = np.tile([400.0, 300.0], 20) + np.repeat(np.arange(20), 2)
    there = changes_of(study_with(tmp_path, sf_value=values))
    back = changes_of(study_with(tmp_path, sf_value=values, exam=[2, 1] * 20))
    features = np.random.default_rng(0).normal(size=(40, 5))
    np.testing.assert_array_equal(there.subtract(features), -back.subtract(features))
    assert there.count("sf_value").tolist() == [20, 0, 0] and back.count("sf_value").tolist() == [0, 0, 20]


def test_more_severity_is_worse_and_less_is_better(tmp_path):
    grades = [str((k // 4 + k % 2 * (k % 3)) % 4) for k in range(40)]
    changes = changes_of(study_with(tmp_path, lung_severity=grades))
    steps = changes.subtract(changes.study.table["lung_severity"].astype(int).to_numpy())
    assert changes.count("lung_severity").tolist() == [(steps > 0).sum(), (steps == 0).sum(), (steps < 0).sum()]
    assert changes.columns == ["lung_severity"], "S/F is the same in both exams of these patients"


def test_a_side_without_a_value_is_left_out_and_counted(tmp_path):
    values = np.tile([400.0, 300.0, 300.0, 400.0], 10)
    values[[0, 5]] = np.nan
    changes = changes_of(study_with(tmp_path, sf_value=values))  # of ten pairs that are worse, two lack a side
    assert changes.count("sf_value").tolist() == [8, 0, 10]
    assert "S/F: worse 8, same 0, better 10; 2 unknown on a side, left out" in changes.describe()
    sizes = [len(changes.units("sf_value", fold, "pair").change) for fold in range(5)]
    assert sizes == [18] * 5


def test_exams_of_a_patient_stand_on_one_side_and_everybody_is_tested_once(tmp_path):
    changes = changes_of(study_with(tmp_path, sf_value=np.tile([400.0, 300.0, 300.0, 400.0], 10)))
    tested = []
    for fold in range(5):
        splits = changes.study.splits(fold).to_numpy()
        assert (splits[changes.pairs["earlier"]] == splits[changes.pairs["later"]]).all()
        units = changes.units("sf_value", fold, "patient")
        tested += units.groups[units.splits == "test"].tolist()
    assert sorted(tested) == sorted(set(changes.study.table["group_id"]))


@pytest.mark.parametrize("columns", [{}, {"exam": [1, 2] * 20}])
def test_where_nothing_changes_there_is_nothing_to_compare(tmp_path, monkeypatch, columns):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    cohort = make_small_cohort(tmp_path / "mine")
    write_csv(cohort.table.assign(**columns), tmp_path / "mine" / "cohort.csv")
    with pytest.raises(NothingToDo, match=r"Nothing to compare in cohort .*: \d+ pairs of exams, and neither sf_value"):
        change.open_changes("smoke", str(tmp_path / "mine"))


def test_a_folder_with_exams_and_sf_can_be_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    cohort = make_small_cohort(tmp_path / "mine", simulated=False)
    values = np.tile([400.0, 300.0, 300.0, 400.0], 10)
    write_csv(cohort.table.assign(exam=[1, 2] * 20, sf_value=values), tmp_path / "mine" / "cohort.csv")
    changes = change.open_changes("smoke", str(tmp_path / "mine"))
    assert changes.columns == ["sf_value"] and changes.study is changes.home and len(changes.pairs) == 20
    with pytest.raises(NothingToDo, match="simulated patients only"):
        change.draw_patient(changes)


@pytest.mark.slow
def test_a_folder_of_ones_own_goes_through_the_whole_notebook(tmp_path, monkeypatch):
    cohort = make_small_cohort(tmp_path / "mine", simulated=False)
    values = np.tile([400.0, 300.0, 300.0, 400.0], 10) + np.arange(40)
    write_csv(cohort.table.assign(exam=[1, 2] * 20, sf_value=values), tmp_path / "mine" / "cohort.csv")
    tables = execute_notebook("12_change", tmp_path / "mine", tmp_path, monkeypatch)
    cells = pd.read_csv(tables / "change.csv")
    assert set(cells["health"]) == {"sf_value"} and {"mse", "weighted", "signs", "pixels", "majority"} <= set(
        cells["row"]
    )
    assert not {"true_severity", "true_biomarkers"} & set(cells["row"])
    assert "**Real** patients, cohort `mine` (40 videos, 20 patients)" in (tables / "change.md").read_text()
    assert (tables / "change_verdict.csv").is_file() and not (tables / "change_patient.png").exists()


def test_the_published_size_also_learns_from_pairs_end_to_end(tmp_path, monkeypatch):
    sizes = {"training": {}, "folds": {"sf_value": 1, "lung_severity": 1}, "real_folds": 1, "pairs": True}
    monkeypatch.setitem(change.SIZES, "tiny", sizes)
    rng = np.random.default_rng(3)
    changes = changes_of(study_with(tmp_path, sf_value=rng.uniform(220, 470, 40).round(1)))
    (run,) = change.train_on_pairs(changes)
    values = np.arange(40)[:, None]
    known = {("sf_value", 0): dict.fromkeys((*change.METHODS, "pixels"), values)}
    known["sf_value", 0]["pairs_score"] = run.probabilities
    rows = {row.row for row in change.decide_all(changes, known)}
    assert run.spec.task == "sf_value_pairs" and "pairs_score" in rows
    monkeypatch.setitem(change.SIZES, "tiny", sizes | {"pairs": False})
    assert change.train_on_pairs(changes) == []
    assert [size["pairs"] for size in (change.SIZES[name] for name in ("smoke", "laptop", "paper"))] == [0, 0, 1]


# --- distances and verdicts ---


def planted(changes, sign: float = 1.0, seed: int = 0) -> change.Known:
    """Features that turn by an angle that is the larger the larger the change; biomarkers and pixels that know less."""
    rng = np.random.default_rng(seed)
    health = changes.health("sf_value")
    angle = np.pi * (health - 200) / 600
    turned = np.column_stack([np.cos(angle), np.sin(angle)])
    values = {"mse": turned[::-1], "contrastive": turned, "weighted": turned, "pixels": rng.normal(size=(40, 3))}
    values |= {f"{name}_score": sign * health[:, None] for name in change.METHODS}
    values["biomarkers"] = health[:, None] / 100
    return {("sf_value", fold): values for fold in range(5)}


@pytest.fixture
def compared(tmp_path):
    rng = np.random.default_rng(3)
    return changes_of(study_with(tmp_path, sf_value=rng.uniform(220, 470, 40).round(1)))


def test_a_distance_that_follows_the_change_has_spearman_one(compared):
    distances = change.measure_distances(compared, planted(compared))
    table = change.make_distance(distances, compared, [])
    of = table.cells.set_index(["row", "unit"])
    assert of.loc[("weighted", "pair"), "mean"] == pytest.approx(100)
    assert of.loc[("mse", "pair"), "mean"] < 100 and (distances["distance"] >= 0).all()
    assert table.cells["claim"].tolist().count("L3") == 1


def test_tables_and_verdicts_follow_what_was_planted(compared, monkeypatch):
    monkeypatch.setitem(
        change.SIZES, "tiny", {"training": {}, "folds": {"sf_value": 5, "lung_severity": 5}, "real_folds": 5}
    )
    known = planted(compared)
    rows = change.decide_all(compared, known)
    table = change.make_change(rows, compared, [])
    cells = table.cells.query("unit == 'patient' and threshold == 10 and metric == 'spearman'").set_index("row")["mean"]
    assert cells["weighted"] > 90 and cells["weighted_score"] == pytest.approx(100) and cells["biomarkers"] > 90
    assert np.isnan(cells["majority"]) and set(table.cells["threshold"]) == {10, 20, 30}
    differences = change.make_differences(rows, compared, [])
    distance = change.make_distance(change.measure_distances(compared, known), compared, [])
    verdicts = change.give_verdicts(differences, distance, set()).cells.set_index("claim")
    assert verdicts["verdict"].to_dict() == {"L1": "confirmed", "L2": "undecided", "L3": "confirmed"}
    told = change.give_verdicts(differences, distance, {("sf_value", "mse")}).cells.set_index("claim")
    assert told["verdict"].to_dict() == {"L1": "chance", "L2": "undecided", "L3": "confirmed"}
    assert "not told apart from weighted" in change.describe_biomarkers(differences.cells)[0]


def test_the_other_side_of_a_claim_refutes_it():
    cells = {"claim": "L2", "health": "sf_value", "unit": "patient", "metric": "macro_f1", "first": "weighted"}
    cells |= {"second": "contrastive", "mean": -9.0, "ci_low": -12.0, "ci_high": -6.0, "p_value": 0.002}
    nothing = Table(pd.DataFrame(columns=["claim", "row"]))
    (verdict,) = change.give_verdicts(Table(pd.DataFrame([cells]), origin=""), nothing, set()).cells.itertuples()
    assert verdict.verdict == "refuted" and "-9.0 [-12.0, -6.0]" in verdict.sentence


def test_what_changed_is_said_group_by_group():
    names = [b.name for b in change.BIOMARKERS]
    before, after = (pd.Series(0.0, names) for _ in range(2))
    before["effusion_large"] = after["effusion_none"] = before["b_lines_few"] = after["b_lines_few"] = 1
    assert change.describe_findings(before, after) == ["effusion: > 5 mm → none"]
