"""The metrics under many weightings of the videos at once, as resampling of patients needs them.

A weighting is a row of weights, how often each video counts; every function takes D of them, shape (D, V).
"""

import numpy as np

from lusbio.errors import LusbioError
from lusbio.statistics.metrics import (
    BIOMARKER_METRICS,
    PRESENT_ABOVE,
    TASK_METRICS,
    brier_scores,
    check_biomarker_predictions,
    check_predictions,
    restrict_probabilities,
)


def weighted_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for many weightings at once, by cumulative sums over sorted scores.

    Args:
        scores: Shape (V,).
        positive: Which videos are positive, shape (V,), bool.
        weights: Shape (D, V), not negative.

    Returns:
        Shape (D,), in [0, 1]; ties count half; NaN where one side has no weight.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each run of equal scores
    up = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    down = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    won = (up * (np.cumsum(down, axis=1) - down / 2)).sum(axis=1)
    return _ratio(won, up.sum(axis=1) * down.sum(axis=1))


def weighted_task_auc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The AUC of ``task_metrics`` for many weightings at once.

    Args:
        labels: Shape (V,), class indices.
        probabilities: Shape (V, K), rows that sum to 1.
        weights: Shape (D, V).

    Returns:
        Shape (D,). A class that a draw left out is an absent class in that draw.
    """
    support = weights @ (labels[:, None] == np.arange(probabilities.shape[1]))  # (D, K)
    patterns, pattern_of = np.unique(support > 0, axis=0, return_inverse=True)
    aucs = np.full(len(weights), np.nan)
    for number, present in enumerate(patterns):
        if present.sum() < 2:
            continue
        draws = np.flatnonzero(pattern_of.ravel() == number)
        kept = np.zeros_like(probabilities)
        kept[:, present] = restrict_probabilities(probabilities, present)
        total = pairs = 0.0
        classes = np.flatnonzero(present)
        for a, b in ((a, b) for a in classes for b in classes if a != b):
            videos = np.flatnonzero((labels == a) | (labels == b))
            prevalence = support[draws, a] + support[draws, b]
            auc = weighted_auc(kept[videos, a], labels[videos] == a, weights[np.ix_(draws, videos)])
            total, pairs = total + prevalence * auc, pairs + prevalence
        aucs[draws] = total / pairs
    return aucs


def weighted_task_metrics(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``task_metrics`` for many weightings at once.

    Args:
        labels: Shape (V,), class indices.
        probabilities: Shape (V, K), rows that sum to 1.
        weights: Shape (D, V).

    Returns:
        The metrics of ``TASK_METRICS``, each of shape (D,).

    Raises:
        LusbioError: If labels and probabilities do not belong together.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    check_predictions(labels, probabilities)
    confusion = _confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1], weights)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    precision, recall, f1 = _weighted_scores(right, confusion.sum(axis=2), confusion.sum(axis=1))
    auc = weighted_task_auc(labels, probabilities, weights)
    accuracy = recall  # weighted by support they are the same
    return dict(zip(TASK_METRICS, (accuracy, precision, recall, f1, auc), strict=True))


def weighted_biomarker_metrics(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """``biomarker_metrics`` for many weightings at once.

    Args:
        labels: Shape (V, 38): 1, 0 or NaN.
        probabilities: Shape (V, 38), in [0, 1].
        weights: Shape (D, V).

    Returns:
        The metrics of ``BIOMARKER_METRICS``, each of shape (D,).

    Raises:
        LusbioError: If labels and probabilities do not belong together.
    """
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    check_biomarker_predictions(labels, probabilities)
    known, present, predicted = ~np.isnan(labels), labels == 1, probabilities > PRESENT_ABOVE
    wrong, any_known = known & (present != predicted), known.any(axis=1)
    precision, recall, f1 = _weighted_scores(
        weights @ (present & predicted), weights @ present, weights @ (predicted & known)
    )
    aucs = [
        weighted_auc(probabilities[rows, k], present[rows, k], weights[:, rows])
        for k, rows in enumerate(map(np.flatnonzero, known.T))
        if len(rows)
    ]
    element_accuracy = 1 - _ratio((weights @ wrong).sum(axis=1), (weights @ known).sum(axis=1))
    exact_match = _ratio(weights @ (any_known & ~wrong.any(axis=1)), weights @ any_known)
    mean_auc = defined_mean(np.array(aucs).reshape(len(aucs), len(weights)))
    values = (element_accuracy, exact_match, precision, recall, f1, mean_auc)
    return dict(zip(BIOMARKER_METRICS, values, strict=True))


def weighted_agreement(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Agreement of two raters for many weightings at once; see ``agreement``.

    Args:
        first: Class indices by one rater, shape (V,), integer.
        second: By the other, of the same videos.
        weights: Shape (D, V).

    Returns:
        ``agreement``, ``within_one``, ``kappa``, ``quadratic_kappa``, each of shape (D,).

    Raises:
        LusbioError: If the ratings are not class indices of the same videos.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or {first.dtype.kind, second.dtype.kind} != {"i"}:
        found = f"{first.shape} {first.dtype} and {second.shape} {second.dtype}"
        raise LusbioError(f"ratings are {found}, expected class indices of the same videos")
    if min(first.min(), second.min()) < 0:
        raise LusbioError("ratings hold numbers below 0; leave out videos that one of the raters did not rate")
    n_classes = max(first.max(), second.max()) + 1
    seen = _confusion(first, second, n_classes, weights)
    seen = seen / seen.sum(axis=(1, 2), keepdims=True)
    chance = seen.sum(axis=2)[:, :, None] * seen.sum(axis=1)[:, None, :]
    distance = np.subtract.outer(np.arange(n_classes), np.arange(n_classes))

    def kappa(cost: np.ndarray) -> np.ndarray:
        return 1 - _ratio((cost * seen).sum(axis=(1, 2)), (cost * chance).sum(axis=(1, 2)))

    shares = {
        "agreement": np.trace(seen, axis1=1, axis2=2),
        "within_one": (seen * (np.abs(distance) <= 1)).sum(axis=(1, 2)),
    }
    return shares | {"kappa": kappa(distance != 0), "quadratic_kappa": kappa(distance**2)}


def weighted_calibration(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """How good probabilities are as probabilities, for many weightings at once.

    Args:
        labels: Shape (V,), class indices.
        probabilities: Shape (V, K), rows that sum to 1.
        weights: Shape (D, V).

    Returns:
        ``brier``: the mean of ``metrics.brier_scores``, 0 to 2; ``overconfidence``: mean confidence in the
        decided class minus the share that is right, -1 to 1. Each of shape (D,).

    Raises:
        LusbioError: If labels and probabilities do not belong together.
    """
    check_predictions(labels, probabilities)
    surplus = probabilities.max(axis=1) - (probabilities.argmax(axis=1) == labels)
    by_video = {"brier": brier_scores(labels, probabilities), "overconfidence": surplus}
    return {name: _ratio(weights @ values, weights.sum(axis=1)) for name, values in by_video.items()}


def weighted_detection(positive: np.ndarray, said_yes: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Sensitivity and specificity for many weightings at once.

    Args:
        positive: What is true, shape (V,), bool.
        said_yes: What was decided, shape (V,), bool.
        weights: Shape (D, V).

    Returns:
        ``sensitivity`` and ``specificity``, each of shape (D,); NaN where there is nobody to detect, or
        nobody to spare.
    """
    return {
        "sensitivity": _ratio(weights @ (positive & said_yes), weights @ positive),
        "specificity": _ratio(weights @ ~(positive | said_yes), weights @ ~positive),
    }


def _weighted_scores(right: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> tuple[np.ndarray, ...]:
    """Precision, recall and F1 of each class (last axis), 0 where undefined, averaged by support: shape (D,)."""
    by_class = (_ratio(right, claimed), _ratio(right, support), _ratio(2 * right, support + claimed))
    total = support.sum(axis=1)
    return tuple(_ratio((support * np.nan_to_num(score)).sum(axis=1), total) for score in by_class)


def _confusion(labels: np.ndarray, predictions: np.ndarray, n_classes: int, weights: np.ndarray) -> np.ndarray:
    """Weight of each pair (label, prediction): shape (D, K, K)."""
    cells = (labels * n_classes + predictions)[:, None] == np.arange(n_classes**2)
    return (weights @ cells).reshape(len(weights), n_classes, n_classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the divisor is 0, without a warning."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)


def defined_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where all is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))
