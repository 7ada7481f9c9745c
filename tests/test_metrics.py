import numpy as np
import pytest
import sklearn.metrics

from lusbio.errors import LusbioError
from lusbio.statistics.metrics import (
    BIOMARKER_METRICS,
    TASK_METRICS,
    bin_equally,
    biomarker_aucs,
    biomarker_metrics,
    brier_scores,
    calibration_error,
    choose_threshold,
    restrict_probabilities,
    task_metrics,
)
from lusbio.vocabulary import BIOMARKER_NAMES


def made_up_predictions(n_videos: int, n_classes: int, seed: int, ties: bool = False):
    """Labels with every class among them, and probabilities that know something."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n_videos - n_classes)])
    scores = rng.gamma(1.0, size=(n_videos, n_classes)) + 0.7 * np.eye(n_classes)[labels]
    if ties:
        scores = np.ceil(scores * 2)
    return labels, scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3, 4, 7])
def test_task_metrics_equal_scikit_learns(n_classes, ties):
    labels, probabilities = made_up_predictions(80, n_classes, seed=n_classes, ties=ties)
    ours = task_metrics(labels, probabilities)
    predictions = probabilities.argmax(axis=1)
    weighted = {"average": "weighted", "zero_division": 0}
    if n_classes == 2:
        auc = sklearn.metrics.roc_auc_score(labels, probabilities[:, 1])
    else:
        auc = sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovo", average="weighted")
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predictions),
        "precision": sklearn.metrics.precision_score(labels, predictions, **weighted),
        "recall": sklearn.metrics.recall_score(labels, predictions, **weighted),
        "f1": sklearn.metrics.f1_score(labels, predictions, **weighted),
        "auc": auc,
    }
    assert ours == pytest.approx(expected)
    assert set(ours) == set(TASK_METRICS)


def test_an_absent_class_changes_the_auc_only_by_renormalising():
    labels, probabilities = made_up_predictions(80, 4, seed=0)
    kept = labels != 2
    ours = task_metrics(labels[kept], probabilities[kept])
    others = probabilities[kept][:, [0, 1, 3]]
    relabelled = np.searchsorted([0, 1, 3], labels[kept])
    expected = sklearn.metrics.roc_auc_score(
        relabelled, others / others.sum(axis=1, keepdims=True), multi_class="ovo", average="weighted"
    )
    assert ours["auc"] == pytest.approx(expected)
    assert ours["accuracy"] == np.mean(probabilities[kept].argmax(axis=1) == labels[kept])


def test_one_class_alone_has_no_auc():
    metrics = task_metrics(np.zeros(3, dtype=int), np.array([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [1.0, 0.0, 0.0]]))
    assert np.isnan(metrics["auc"])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["precision"] == 1.0


def test_perfect_and_ignorant_predictions_have_the_expected_auc():
    labels = np.arange(40) % 4
    assert task_metrics(labels, np.eye(4)[labels])["auc"] == 1.0
    assert task_metrics(labels, np.full((40, 4), 0.25))["auc"] == 0.5


def test_float32_probabilities_are_good_enough():
    labels, probabilities = made_up_predictions(50, 4, seed=1)
    rounded = probabilities.astype(np.float32).astype(np.float64) * (1 + 2e-4)
    assert task_metrics(labels, rounded)["auc"] == pytest.approx(task_metrics(labels, probabilities)["auc"])


def test_restricted_probabilities_sum_to_one_even_where_nothing_is_left():
    present = np.array([True, True, False])
    restricted = restrict_probabilities(np.array([[0.2, 0.6, 0.2], [0.0, 0.0, 1.0]]), present)
    np.testing.assert_allclose(restricted, [[0.25, 0.75], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[1.0, 0.0]], r"labels \(2,\) and probabilities \(1, 2\)"),
        ([], np.zeros((0, 2)), "V > 0"),
        ([0.0, np.nan], [[1.0, 0.0]] * 2, "labels are float64"),
        ([0, 2], [[1.0, 0.0]] * 2, "labels go from 0 to 2, expected 0 to 1"),
        ([0, 1], [[3.0, -2.0]] * 2, "logits"),
        ([0, 1], [[0.2, 0.2]] * 2, "sum to 0.4"),
        ([0, 1], [[np.nan, 0.2]] * 2, "not finite"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(labels, probabilities, message):
    with pytest.raises(LusbioError, match=message):
        task_metrics(np.array(labels), np.array(probabilities))


def made_up_biomarkers(n_videos: int = 60, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_videos, 38)) < rng.uniform(0.1, 0.6, 38)).astype(float)
    return labels, np.clip(0.3 * labels + 0.2 + rng.uniform(-0.3, 0.4, labels.shape), 0, 1)


def test_biomarker_metrics_equal_scikit_learns():
    labels, probabilities = made_up_biomarkers()
    labels[:, 5] = 0  # never present: no weight, no AUC
    ours = biomarker_metrics(labels, probabilities)
    predicted = (probabilities > 0.5).astype(int)
    truth = labels.astype(int)
    weighted = {"average": "weighted", "zero_division": 0}
    others = np.arange(38) != 5
    expected = {
        "element_accuracy": np.mean(truth == predicted),
        "exact_match": sklearn.metrics.accuracy_score(truth, predicted),
        "weighted_precision": sklearn.metrics.precision_score(truth, predicted, **weighted),
        "weighted_recall": sklearn.metrics.recall_score(truth, predicted, **weighted),
        "weighted_f1": sklearn.metrics.f1_score(truth, predicted, **weighted),
        "mean_auc": sklearn.metrics.roc_auc_score(truth[:, others], probabilities[:, others], average="macro"),
    }
    assert ours == pytest.approx(expected)
    assert set(ours) == set(BIOMARKER_METRICS)
    assert biomarker_aucs(labels, probabilities)["auc"].notna().sum() == 37


def test_unknown_biomarkers_count_nowhere():
    labels, probabilities = made_up_biomarkers()
    labels[::3, :20] = np.nan
    probabilities_too = np.where(np.isnan(labels), 1 - probabilities, probabilities)
    assert biomarker_metrics(labels, probabilities) == biomarker_metrics(labels, probabilities_too)
    one = biomarker_metrics(labels[:, :1], probabilities[:, :1])
    known = ~np.isnan(labels[:, 0])
    predicted = probabilities[known, 0] > 0.5
    assert one["weighted_f1"] == pytest.approx(sklearn.metrics.f1_score(labels[known, 0], predicted))
    assert one["exact_match"] == one["element_accuracy"] == pytest.approx(np.mean(labels[known, 0] == predicted))


def test_nothing_known_gives_nan_and_no_warning():
    nothing = np.full((3, 38), np.nan), np.full((3, 38), 0.5)
    assert all(np.isnan(value) for value in biomarker_metrics(*nothing).values())
    assert biomarker_aucs(*nothing)["auc"].isna().all()


def test_biomarker_aucs_have_one_row_each_with_their_support():
    labels, probabilities = made_up_biomarkers()
    labels[:10, 0] = np.nan
    labels[:, 1] = 1
    table = biomarker_aucs(labels, probabilities)
    assert table["name"].tolist() == list(BIOMARKER_NAMES)
    assert table.loc[0, "support_present"] + table.loc[0, "support_absent"] == 50
    assert table.loc[1, "support_absent"] == 0
    assert np.isnan(table.loc[1, "auc"])
    assert table.loc[0, "auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels[10:, 0], probabilities[10:, 0]))


def test_biomarkers_that_do_not_belong_together_are_refused():
    labels, probabilities = made_up_biomarkers()
    with pytest.raises(LusbioError, match=r"expected both \(V, K\)"):
        biomarker_metrics(labels[:5], probabilities)
    with pytest.raises(LusbioError, match="expected 1, 0 or NaN"):
        biomarker_metrics(labels * 2, probabilities)
    with pytest.raises(LusbioError, match=r"logits\?"):
        biomarker_metrics(labels, probabilities * 4 - 2)
    with pytest.raises(LusbioError, match="38 names for 2 columns"):
        biomarker_aucs(labels[:, :2], probabilities[:, :2])


def test_the_threshold_is_the_one_that_a_plain_loop_finds_best():
    rng = np.random.default_rng(0)
    for _ in range(20):
        positive = rng.random(30) < 0.4
        scores = np.round(rng.random(30) + 0.5 * positive, 1) / 1.5

        def youden(threshold: float, positive=positive, scores=scores) -> float:
            return (scores[positive] >= threshold).mean() + (scores[~positive] < threshold).mean() - 1

        best = max(youden(threshold) for threshold in np.linspace(0, 1.01, 500))
        assert youden(choose_threshold(positive, scores)) == pytest.approx(best)


def test_a_threshold_that_nothing_can_choose_is_a_half():
    for positive in (np.ones(3, dtype=bool), np.zeros(3, dtype=bool)):
        assert choose_threshold(positive, np.array([0.1, 0.2, 0.3])) == 0.5


def test_brier_scores_equal_scikit_learns():
    labels, probabilities = made_up_predictions(50, 4, seed=0)
    expected = sklearn.metrics.brier_score_loss(labels, probabilities)
    assert brier_scores(labels, probabilities).mean() == pytest.approx(expected)
    assert brier_scores(np.array([0, 1]), np.eye(2)).tolist() == [0, 0]
    assert brier_scores(np.array([1, 0]), np.eye(2)).tolist() == [2, 2]


def test_bins_hold_about_as_many_each_and_equal_values_share_one():
    values = np.random.default_rng(0).random(200)
    assert (np.bincount(bin_equally(values, 10)) == 20).all()
    bins = bin_equally(np.array([1.0, 1.0, 1.0, 1.0, 0.5]), 4)
    assert bins.tolist() == [1, 1, 1, 1, 0]
    assert bin_equally(np.ones(5)).tolist() == [0] * 5


def test_calibration_error_is_small_for_the_honest_and_known_for_the_vain():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 20000)
    right = rng.random(20000) < confidence
    assert calibration_error(confidence, right) < 0.02
    assert calibration_error(np.ones(4), np.array([True, False, False, False])) == 0.75
    two = calibration_error(np.array([0.5, 0.5, 0.9, 0.9]), np.array([True, True, True, False]), n_bins=2)
    assert two == pytest.approx((2 * 0.5 + 2 * 0.4) / 4)
