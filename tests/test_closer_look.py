from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, recall_score

from lusbio.errors import LusbioError
from lusbio.experts.rows import Decisions, FoldResult
from lusbio.paper.closer_look import (
    POSITIVE_CLASSES,
    describe_calibration,
    find_positive_classes,
    format_interval,
    list_confusion,
    make_calibration,
    make_confusion,
    make_kappas,
    make_operating_points,
    make_reliability,
    route_title,
    show_intervals,
)
from lusbio.vocabulary import TASKS

SEVERITY = TASKS["lung_severity"].classes


def made_up_fold(rows: np.ndarray, seed: int, skill: float) -> FoldResult:
    """Four videos per patient; labels depend on the row alone, probabilities on the seed too."""
    labels = np.random.default_rng(0).integers(0, 4, 1000)[rows]
    scores = np.random.default_rng([1, seed]).normal(size=(len(rows), 4))
    scores[np.arange(len(rows)), labels] += skill
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return FoldResult(rows, labels, p, (rows // 4).astype(str))


def made_up_decisions(skill: float = 1.0, apart: bool = False, features: str = "biomarkers") -> Decisions:
    """Three runs with the same test videos, or each with its own."""
    tested = [np.arange(100) + 100 * k * apart for k in range(3)]
    folds = tuple(made_up_fold(rows, k, skill) for k, rows in enumerate(tested))
    validated = tuple(made_up_fold(np.arange(500, 600), 10 + k, skill) for k in range(3))
    return Decisions(features, "RF", "lung_severity", folds, validated, 0.1, SEVERITY)


def test_positive_classes_are_the_worse_ones():
    assert [TASKS["sf_ratio"].classes[k] for k in POSITIVE_CLASSES["sf_ratio"]] == ["180-275", "<180"]
    assert [TASKS["disease"].classes[k] for k in POSITIVE_CLASSES["disease"]] == ["COVID pneumonia"]
    assert find_positive_classes("my_task", 2) == (1,)
    with pytest.raises(LusbioError, match="'my_task' has 3 classes"):
        find_positive_classes("my_task", 3)


def test_sensitivity_and_specificity_are_those_at_the_threshold_of_each_run():
    row = made_up_decisions()
    (point,) = make_operating_points([row], draws=100).to_dict("records")
    expected = []
    for fold, validated in zip(row.folds, row.validated, strict=True):
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
    shuffled = replace(row, folds=tuple(replace(f, labels=f.labels[::-1]) for f in row.folds))
    honest, blind = (make_operating_points([r], draws=10) for r in (row, shuffled))
    assert honest["threshold"].tolist() == blind["threshold"].tolist()
    assert honest["sensitivity"].tolist() != blind["sensitivity"].tolist()


def test_a_task_of_ones_own_asks_for_its_second_class():
    folds = tuple(
        replace(f, labels=f.labels // 2, probabilities=f.probabilities.reshape(-1, 2, 2).sum(2))
        for f in made_up_decisions().folds
    )
    own = Decisions("biomarkers", "RF", "needs_more", folds, folds, 0.1, ("no", "yes"))
    assert make_operating_points([own], draws=10)["question"].tolist() == ["Needs more: yes"]


def test_saying_how_common_classes_are_scores_what_a_constant_scores():
    row = made_up_decisions()
    prevalence = [np.bincount(f.labels, minlength=4) / len(f.labels) for f in row.validated]
    same = [np.tile(p, (len(f.labels), 1)) for p, f in zip(prevalence, row.folds, strict=True)]
    folds = tuple(replace(f, probabilities=p) for f, p in zip(row.folds, same, strict=True))
    (found,) = make_calibration([replace(row, folds=folds)], draws=50).to_dict("records")
    assert (found["gain"], found["gain_low"], found["gain_high"]) == (0, 0, 0)
    labels = [np.eye(4)[f.labels] for f in row.folds]
    briers = [((p - true) ** 2).sum(1).mean() for p, true in zip(same, labels, strict=True)]
    assert found["brier"] == pytest.approx(100 * np.mean(briers))
    (skilled,) = make_calibration([made_up_decisions(skill=3)], draws=50).to_dict("records")
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
            folds.append(replace(fold, labels=labels, probabilities=p / p.sum(1, keepdims=True)))
        row = replace(made_up_decisions(), folds=tuple(folds), validated=tuple(folds))
        return make_calibration([row], draws=200).iloc[0].to_dict()

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
    curve = make_reliability([row, made_up_decisions(features="end_to_end")], draws=50)
    assert set(curve["route"]) == {"biomarkers", "end_to_end"}
    one = curve[curve["route"] == "biomarkers"]
    assert one["count"].sum() == 300 and one["bin_mean"].is_monotonic_increasing
    right = np.mean([fold.accuracy for fold in row.folds])
    assert np.average(one["observed"], weights=one["count"]) == pytest.approx(right)
    assert (one["low"] <= one["observed"]).all() and (one["observed"] <= one["high"]).all()
    assert one[["bin_mean", "observed", "low", "high"]].max().max() <= 1


def test_a_confusion_matrix_counts_every_test_video_once():
    together, apart = made_up_decisions(), made_up_decisions(apart=True)
    matrices = [confusion_matrix(f.labels, f.probabilities.argmax(1), labels=range(4)) for f in together.folds]
    np.testing.assert_allclose(make_confusion(together), np.mean(matrices, axis=0))
    matrices = [confusion_matrix(f.labels, f.probabilities.argmax(1), labels=range(4)) for f in apart.folds]
    np.testing.assert_allclose(make_confusion(apart), np.sum(matrices, axis=0))
    counts = make_confusion(together)
    assert counts.index.tolist() == counts.columns.tolist() == list(SEVERITY)
    assert counts.sum(axis=1).tolist() == pytest.approx(np.bincount(together.folds[0].labels).tolist())


def test_listed_cells_make_the_matrix_again():
    row = made_up_decisions()
    cells = list_confusion([row, made_up_decisions(features="end_to_end")])
    assert len(cells) == 32
    one = cells[cells["features"] == "biomarkers"]
    pd.testing.assert_frame_equal(one.pivot(index="true", columns="decided", values="videos"), make_confusion(row))


def test_an_interval_has_no_negative_zero_and_a_dash_where_nothing_is():
    assert format_interval(-0.01, -12.345, 0.0) == "0.0 [-12.3, 0.0]"
    assert format_interval(np.nan, np.nan, np.nan) == "—"


def test_routes_have_names_for_people():
    row = made_up_decisions()
    assert route_title(row) == "RF on biomarkers"
    assert route_title(replace(row, classifier="RF / DT / RF")) == "experts on biomarkers"
    assert route_title(replace(row, features="end_to_end", classifier="E2E")) == "end-to-end network"


def test_kappas_are_scikit_learns_mean_over_runs():
    row = made_up_decisions()
    (found,) = make_kappas([row], draws=50).to_dict("records")
    for name, weights in (("kappa", None), ("quadratic_kappa", "quadratic")):
        expected = [cohen_kappa_score(f.labels, f.probabilities.argmax(1), weights=weights) for f in row.folds]
        assert found[name] == pytest.approx(100 * np.mean(expected))
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_people_read_intervals_in_brackets_and_words_for_names():
    shown = show_intervals(make_kappas([made_up_decisions(features="end_to_end")], draws=50))
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
