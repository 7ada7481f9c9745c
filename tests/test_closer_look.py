from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import made_up_run, small_study
from sklearn.metrics import cohen_kappa_score, confusion_matrix, recall_score

from lusbio.errors import LusbioError
from lusbio.experts.rows import Row, accuracy, decide_with_experts
from lusbio.paper.closer_look import (
    describe_calibration,
    explain_one_video,
    list_confusion,
    make_calibration,
    make_kappas,
    make_reliability,
)
from lusbio.report.cells import format_value, show_intervals
from lusbio.report.decisions import find_positive_classes, list_decisions, make_confusion, make_operating_points
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import DISEASE, SEVERITY, SF_RATIO, TASKS, Kind

GRADES = TASKS[SEVERITY].classes


def made_up_fold(rows: np.ndarray, seed: int, skill: float) -> HeldOut:
    """Four videos per patient; labels depend on the row alone, probabilities on the seed too."""
    labels = np.random.default_rng(0).integers(0, 4, 1000)[rows]
    scores = np.random.default_rng([1, seed]).normal(size=(len(rows), 4))
    scores[np.arange(len(rows)), labels] += skill
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return HeldOut(labels, p, (rows // 4).astype(str), rows)


def made_up_decisions(skill: float = 1.0, apart: bool = False, features: Kind = Kind.BIOMARKERS) -> Row:
    """Three runs with the same test videos, or each with its own."""
    tested = [np.arange(100) + 100 * k * apart for k in range(3)]
    held_out = tuple(made_up_fold(rows, k, skill) for k, rows in enumerate(tested))
    validated = tuple(made_up_fold(np.arange(500, 600), 10 + k, skill) for k in range(3))
    return Row(features, "RF", SEVERITY, held_out, validated, GRADES)


def test_positive_classes_are_the_worse_ones():
    assert [TASKS[SF_RATIO].classes[k] for k in find_positive_classes(SF_RATIO, 4)] == ["180-275", "<180"]
    assert [TASKS[DISEASE].classes[k] for k in find_positive_classes(DISEASE, 7)] == ["COVID pneumonia"]
    assert find_positive_classes("my_task", 2) == (1,)
    with pytest.raises(LusbioError, match="'my_task' has 3 classes"):
        find_positive_classes("my_task", 3)


def test_sensitivity_and_specificity_are_those_at_the_threshold_of_each_run():
    row = made_up_decisions()
    (point,) = make_operating_points([row], draws=100).cells.to_dict("records")
    expected = []
    for fold, validated in zip(row.held_out, row.validated, strict=True):
        candidates = np.linspace(0, 1, 2001)
        positive, scores = validated.labels >= 2, validated.probabilities[:, 2:].sum(1)
        j = [(scores[positive] >= t).mean() + (scores[~positive] < t).mean() for t in candidates]
        best = candidates[np.flatnonzero(np.isclose(j, max(j)))[-1]]
        said = fold.probabilities[:, 2:].sum(1) >= best
        expected.append([recall_score(fold.labels >= 2, said, pos_label=side) for side in (True, False)])
    found = [point["sensitivity"], point["specificity"]]
    assert found == pytest.approx(100 * np.mean(expected, axis=0), abs=1.5)
    assert point["sensitivity_low"] < point["sensitivity"] < point["sensitivity_high"]
    assert point["question"] == "Lung severity: 2 or 3"


def test_no_test_label_moves_a_threshold():
    row = made_up_decisions()
    shuffled = replace(row, held_out=tuple(f._replace(labels=f.labels[::-1]) for f in row.held_out))
    honest, blind = (make_operating_points([r], draws=10).cells for r in (row, shuffled))
    assert honest["threshold"].tolist() == blind["threshold"].tolist()
    assert honest["sensitivity"].tolist() != blind["sensitivity"].tolist()


def test_a_task_of_ones_own_asks_for_its_second_class():
    folds = tuple(
        f._replace(labels=f.labels // 2, probabilities=f.probabilities.reshape(-1, 2, 2).sum(2))
        for f in made_up_decisions().held_out
    )
    own = Row(Kind.BIOMARKERS, "RF", "needs_more", folds, folds, ("no", "yes"))
    assert make_operating_points([own], draws=10).cells["question"].tolist() == ["Needs more: yes"]


def test_saying_how_common_classes_are_scores_what_a_constant_scores():
    row = made_up_decisions()
    prevalence = [np.bincount(f.labels, minlength=4) / len(f.labels) for f in row.validated]
    same = [np.tile(p, (len(f.labels), 1)) for p, f in zip(prevalence, row.held_out, strict=True)]
    held_out = tuple(f._replace(probabilities=p) for f, p in zip(row.held_out, same, strict=True))
    (found,) = make_calibration([replace(row, held_out=held_out)], draws=50).cells.to_dict("records")
    assert (found["gain"], found["gain_low"], found["gain_high"]) == (0, 0, 0)
    labels = [np.eye(4)[f.labels] for f in row.held_out]
    briers = [((p - true) ** 2).sum(1).mean() for p, true in zip(same, labels, strict=True)]
    assert found["brier"] == pytest.approx(100 * np.mean(briers))
    (skilled,) = make_calibration([made_up_decisions(skill=3)], draws=50).cells.to_dict("records")
    assert skilled["gain_low"] > 0
    assert skilled["brier"] + skilled["gain"] == pytest.approx(found["brier"])


def test_who_is_too_sure_is_found_out_and_who_is_honest_is_not():
    def calibration(sharpness: float) -> dict:
        """Outcomes are drawn from the probabilities, which are then sharpened."""
        folds = []
        for k in range(3):
            fold = made_up_fold(np.arange(100 * k, 100 * k + 100), k, 1.0)
            rng = np.random.default_rng(k)
            labels = np.array([rng.choice(4, p=p) for p in fold.probabilities])
            p = fold.probabilities**sharpness
            folds.append(fold._replace(labels=labels, probabilities=p / p.sum(1, keepdims=True)))
        row = replace(made_up_decisions(), held_out=tuple(folds), validated=tuple(folds))
        return make_calibration([row], draws=200).cells.iloc[0].to_dict()

    honest, vain = calibration(1), calibration(4)
    assert honest["overconfidence_low"] < 0 < honest["overconfidence_high"]
    assert honest["ece"] == pytest.approx(honest["ece_by_chance"], abs=5)
    assert vain["overconfidence_low"] > 10
    assert vain["ece"] > vain["ece_by_chance"] + 10
    assert vain["brier"] > honest["brier"]
    said = describe_calibration(pd.DataFrame([honest, vain]))
    assert "about as sure as right" in said[0] and "too sure (+" in said[1]


def test_a_reliability_curve_counts_every_decision_once():
    row = made_up_decisions()
    curve = make_reliability([row, made_up_decisions(features=Kind.END_TO_END)], draws=50).cells
    assert set(curve["route"]) == {"biomarkers", "end_to_end"}
    one = curve[curve["route"] == "biomarkers"]
    assert one["count"].sum() == 300 and one["bin_mean"].is_monotonic_increasing
    right = np.mean([accuracy(held_out) for held_out in row.held_out])
    assert np.average(one["observed"], weights=one["count"]) == pytest.approx(right)
    assert (one["low"] <= one["observed"]).all() and (one["observed"] <= one["high"]).all()
    assert one[["bin_mean", "observed", "low", "high"]].max().max() <= 1


def test_a_reliability_curve_is_as_unsure_as_its_runs_differ():
    def width(folds) -> float:
        curve = make_reliability([replace(made_up_decisions(), held_out=tuple(folds))], draws=200).cells
        return (curve["high"] - curve["low"]).mean()

    right = made_up_fold(np.arange(100), 0, 3.0)
    wrong = right._replace(probabilities=right.probabilities[:, [1, 2, 3, 0]])
    alike = right._replace(labels=np.where(np.arange(100) % 3, right.labels, (right.labels + 1) % 4))
    assert width([right, right, wrong]) > 1.5 * width([alike] * 3)


def test_a_confusion_matrix_counts_every_test_video_once():
    together, apart = made_up_decisions(), made_up_decisions(apart=True)
    matrices = [confusion_matrix(f.labels, f.probabilities.argmax(1), labels=range(4)) for f in together.held_out]
    np.testing.assert_allclose(make_confusion(together), np.mean(matrices, axis=0))
    matrices = [confusion_matrix(f.labels, f.probabilities.argmax(1), labels=range(4)) for f in apart.held_out]
    np.testing.assert_allclose(make_confusion(apart), np.sum(matrices, axis=0))
    counts = make_confusion(together)
    assert counts.index.tolist() == counts.columns.tolist() == list(GRADES)
    assert counts.sum(axis=1).tolist() == pytest.approx(np.bincount(together.held_out[0].labels).tolist())


def test_listed_cells_make_the_matrix_again():
    row = made_up_decisions()
    cells = list_confusion([row, made_up_decisions(features=Kind.END_TO_END)]).cells
    assert len(cells) == 32
    one = cells[cells["features"] == "biomarkers"]
    pd.testing.assert_frame_equal(one.pivot(index="true", columns="decided", values="videos"), make_confusion(row))


def test_an_interval_has_no_negative_zero_and_a_dash_where_nothing_is():
    assert format_value(-0.01, -12.345, 0.0) == "0.0 [-12.3, 0.0]"
    assert format_value(np.nan, np.nan, np.nan) == "—"


def test_routes_have_names_for_people():
    row = made_up_decisions()
    assert row.words == "RF on biomarkers"
    assert replace(row, classifier="RF / DT / RF").words == "experts on biomarkers"
    assert replace(row, features=Kind.END_TO_END, classifier="E2E").words == "end-to-end network"


def test_kappas_are_scikit_learns_mean_over_runs():
    row = made_up_decisions()
    (found,) = make_kappas([row], draws=50).cells.to_dict("records")
    for name, weights in (("kappa", None), ("quadratic_kappa", "quadratic")):
        expected = [cohen_kappa_score(f.labels, f.probabilities.argmax(1), weights=weights) for f in row.held_out]
        assert found[name] == pytest.approx(100 * np.mean(expected))
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_people_read_intervals_in_brackets_and_words_for_names():
    table = make_kappas([made_up_decisions(features=Kind.END_TO_END)], draws=50)
    shown = show_intervals(table.cells)
    pd.testing.assert_frame_equal(shown, table.shown)
    assert shown.columns.tolist() == [
        "features",
        "classifier",
        "task",
        "agreement",
        "within one",
        "kappa",
        "quadratic kappa",
    ]
    assert shown["features"].item() == "end-to-end" and shown["task"].item() == "Lung severity"
    assert shown["kappa"].str.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]").all()


def test_a_task_without_an_order_has_no_kappa():
    disease = replace(made_up_decisions(), task=DISEASE)
    assert make_kappas([disease], draws=10).cells.empty
    assert make_kappas([disease, made_up_decisions()], draws=10).cells["task"].tolist() == [SEVERITY]


def test_every_decision_is_listed_and_every_test_video_weighs_one():
    row = made_up_decisions()
    said = list_decisions(row)
    assert len(said) == 300 and (said["weight"] == 1 / 3).all() and said["weight"].sum() == pytest.approx(100)
    assert (list_decisions(made_up_decisions(apart=True))["weight"] == 1).all()
    first = said[:100]
    assert first["true"].tolist() == [GRADES[k] for k in row.held_out[0].labels]
    assert (first["true"] == first["decided"]).mean() == pytest.approx(accuracy(row.held_out[0]))
    np.testing.assert_array_equal(first["confidence"], row.held_out[0].probabilities.max(axis=1))


def test_a_tree_says_why_it_decided_as_it_did(tmp_path):
    study = small_study(tmp_path / "cohort")
    run = made_up_run(study, tmp_path / "run")  # 0 and 1, both of A-lines, tell all severities apart
    (row,) = decide_with_experts([run], SEVERITY, study, experts=["RF"])
    label = row.classes[row.held_out[0].labels[0]]
    text = explain_one_video(row, study)
    assert text.startswith(f"Lung severity: decided **{label}**, labelled {label}, because of\n\n- A-lines, ")
