"""How good predictions are, as fractions (tables show them times 100); here for many weightings of the videos at once.

A weighting says how often each video counts, as resampling of patients needs it. Functions marked ``@measure`` take D
of them, shape (D, V), and give each metric as an array of shape (D,); without weights every video counts once, and
the metrics are plain numbers.
"""

import functools
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pandas as pd

from lusbio.errors import LusbioError
from lusbio.vocabulary import BIOMARKER_NAMES

TASK_METRICS = ("accuracy", "precision", "recall", "f1", "auc")
"""Metrics of a task with exclusive classes."""

BIOMARKER_METRICS = ("element_accuracy", "exact_match")
BIOMARKER_METRICS += ("weighted_precision", "weighted_recall", "weighted_f1", "mean_auc")
"""Metrics of the 38 biomarkers."""

PRESENT_ABOVE = 0.5
"""A biomarker is predicted present when its probability is above this."""

CALIBRATION_BINS = 5
"""Bins of about as many videos each, behind reliability curves. (Engineering choice.)"""

Measure = Callable[..., dict]
"""Metrics by name, of what is true and what was said, under weights; see the top of this file."""


def measure(function: Measure) -> Measure:
    """Let a function of two arrays and weights (D, V) be called without weights, for plain numbers."""

    @functools.wraps(function)
    def call(first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None) -> dict:
        if weights is not None:
            return function(first, second, weights)
        return {name: float(v[0]) for name, v in function(first, second, np.ones((1, len(first)))).items()}

    return call


# --- tasks with exclusive classes ---


def check_predictions(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise a ``LusbioError`` unless class indices (V,) and probabilities (V, K) of a task belong together."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        found = f"labels {labels.shape} and probabilities {probabilities.shape}"
        raise LusbioError(f"{found}, expected (V,) and (V, K), V > 0")
    if not np.issubdtype(labels.dtype, np.integer):
        raise LusbioError(f"labels are {labels.dtype}, expected class indices; leave out videos without a label")
    n_classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= n_classes:
        raise LusbioError(f"labels go from {labels.min()} to {labels.max()}, expected 0 to {n_classes - 1}")
    sums = probabilities.sum(axis=1)
    if not (probabilities >= 0).all() or not np.allclose(sums, 1, atol=1e-3):
        worst = sums[np.argmax(np.abs(sums - 1))] if np.isfinite(sums).all() else "not finite"
        raise LusbioError(f"probabilities of a video sum to {worst}, expected 1 and none below 0 (logits?)")


@measure
def task_metrics(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The paper's metrics of a task.

    The AUC is one-vs-one, each pair of classes weighted by its number of videos. Where a class has no video, as happens
    in small test folds, the pairs with it do not exist: the AUC is that of the classes that are there, with
    probabilities renormalised over them. The other metrics need no such care: absent classes have no weight in them.

    Args:
        labels: True class index of each video, shape (V,), integer, 0 to K-1.
        probabilities: Shape (V, K), rows that sum to 1. The highest, or the first of equals, is the prediction.
        weights: Shape (D, V); may be left out.

    Returns:
        The ``TASK_METRICS``: precision, recall and F1 are weighted by support, 0 where undefined; the AUC is NaN when
        there is only one class.

    Raises:
        LusbioError: If labels and probabilities do not belong together.

    Source:
        Gare et al. 2022, Section 4; equal to scikit-learn's wherever that is defined.

    Example:
        >>> metrics = task_metrics(np.array([0, 1, 1]), np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.6, 0.4, 0.0]]))
        >>> round(metrics["accuracy"], 3), metrics["auc"]
        (0.667, 1.0)
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    check_predictions(labels, probabilities)
    confusion = _confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1], weights)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    precision, recall, f1 = _average_by_support(right, confusion.sum(axis=2), confusion.sum(axis=1))
    auc = _one_vs_one_auc(labels, probabilities, weights)
    accuracy = recall  # weighted by support they are the same
    return dict(zip(TASK_METRICS, (accuracy, precision, recall, f1, auc), strict=True))


def judge_validation(labels: np.ndarray, probabilities: np.ndarray, metric: str = "auc") -> float:
    """What fits and experts are chosen by, on validation videos (V,), (V, K): one of the ``TASK_METRICS``.

    That is the one which they are judged by later; accuracy where it is undefined, as the AUC of a single class is.
    """
    found = task_metrics(labels, probabilities)
    return found["accuracy" if np.isnan(found[metric]) else metric]


def _one_vs_one_auc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shape (D,). A class that a draw left out is an absent class in that draw."""
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
        for a, b in permutations(np.flatnonzero(present), 2):
            videos = np.flatnonzero((labels == a) | (labels == b))
            prevalence = support[draws, a] + support[draws, b]
            auc = weighted_auc(kept[videos, a], labels[videos] == a, weights[np.ix_(draws, videos)])
            total, pairs = total + prevalence * auc, pairs + prevalence
        aucs[draws] = total / pairs
    return aucs


def restrict_probabilities(probabilities: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Probabilities of some of the classes, given that it is one of them.

    Args:
        probabilities: Shape (V, K), rows that sum to 1.
        present: Which classes to keep, shape (K,), bool.

    Returns:
        Shape (V, number kept), rows that sum to 1; equal ones where all kept classes had 0. Rounded to 12 digits, so
        that ties (of forests and neighbours, say) survive the division. Untouched when all classes are kept.
    """
    if present.all():
        return probabilities
    kept = probabilities[:, present]
    sums = kept.sum(axis=1, keepdims=True)
    return np.where(sums > 0, kept / np.where(sums > 0, sums, 1), 1 / kept.shape[1]).round(12)


def weighted_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, by cumulative sums over sorted scores.

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
    return divide(won, up.sum(axis=1) * down.sum(axis=1))


@measure
def finding_auc(present: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``auc`` of one finding: whether it is there (V,), 1 or 0, and a score (V,) that is higher where it is."""
    return {"auc": weighted_auc(scores, present.astype(bool), weights)}


# --- what a decision is worth: thresholds and probabilities ---


def choose_threshold(positive: np.ndarray, scores: np.ndarray) -> float:
    """The score above which to say yes, so that sensitivity + specificity is largest (Youden's J).

    Halfway between two scores, so that neither of the videos that it separates lies on it. Of equally good ones the
    highest.

    Args:
        positive: Which validation videos are positive, shape (V,), bool.
        scores: Their probability of being positive, shape (V,), in [0, 1].

    Returns:
        The threshold; 0.5 where all videos are positive or none is, since nothing can be chosen then.

    Source:
        Youden 1950, "Index for rating diagnostic tests".

    Example:
        >>> choose_threshold(np.array([False, False, True]), np.array([0.1, 0.2, 0.3]))
        0.25
    """
    if positive.all() or not positive.any():
        return 0.5
    levels = np.unique(scores)[::-1]  # highest first
    says_yes = scores >= levels[:, None]
    youden = says_yes[:, positive].mean(axis=1) - says_yes[:, ~positive].mean(axis=1)
    best = int(np.argmax(youden))
    return float(levels[best : best + 2].mean())


@measure
def detection(positive: np.ndarray, said_yes: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``sensitivity`` and ``specificity`` of what is true (V,) and what was said (V,), both bool.

    NaN where there is nobody to detect, or nobody to spare.
    """
    return {
        "sensitivity": divide(weights @ (positive & said_yes), weights @ positive),
        "specificity": divide(weights @ ~(positive | said_yes), weights @ ~positive),
    }


def brier_scores(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Squared distance of probabilities (V, K) from what came true (V,): 0 for the true class alone, 2 for a wrong one.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability", in its multi-class form.
    """
    came_true = labels[:, None] == np.arange(probabilities.shape[1])
    return ((probabilities - came_true) ** 2).sum(axis=1)


@measure
def calibration(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """How good probabilities (V, K) are as probabilities, for class indices (V,).

    ``brier``: the mean of ``brier_scores``, 0 to 2; ``overconfidence``: mean confidence in the decided class minus the
    share that is right, -1 to 1. A ``LusbioError`` if the two do not belong together.
    """
    check_predictions(labels, probabilities)
    surplus = probabilities.max(axis=1) - (probabilities.argmax(axis=1) == labels)
    by_video = {"brier": brier_scores(labels, probabilities), "overconfidence": surplus}
    return {name: divide(weights @ values, weights.sum(axis=1)) for name, values in by_video.items()}


def bin_equally(values: np.ndarray, n_bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Bins of about as many values (V,) each, at most ``n_bins``; equal ones share one. int64 (V,), ascending."""
    edges = np.quantile(values, np.arange(1, n_bins) / n_bins)
    return np.unique(np.digitize(values, edges), return_inverse=True)[1]


def calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int = CALIBRATION_BINS) -> float:
    """How far confidence (V,) is from the share that is right (V,), bool, in bins of equal count, mean over videos.

    In [0, 1], and never 0 in practice, even for a perfect forecaster: bins are small, and chance moves their shares.

    Source: Naeini et al. 2015 ("expected calibration error"), with bins of equal count.
    """
    gaps = np.bincount(bin_equally(confidence, n_bins), weights=confidence - right)
    return float(np.abs(gaps).sum() / len(right))


# --- two raters ---


@measure
def rater_agreement(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """How well two raters of the same videos agree, from their class indices, both (V,), integer.

    Returns:
        ``agreement``: the share of equal classes, and ``within_one``: of equal or neighbouring ones. ``kappa``:
        Cohen's, agreement beyond chance, and ``quadratic_kappa``, where a mistake counts by its squared distance; both
        at most 1, NaN where both raters gave one and the same class to all.

    Raises:
        LusbioError: If the ratings are not class indices of the same videos.

    Source:
        Cohen 1960 and 1968.

    Example:
        >>> rater_agreement(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0]))["agreement"]
        0.75
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
        return 1 - divide((cost * seen).sum(axis=(1, 2)), (cost * chance).sum(axis=(1, 2)))

    return {
        "agreement": np.trace(seen, axis1=1, axis2=2),
        "within_one": (seen * (np.abs(distance) <= 1)).sum(axis=(1, 2)),
        "kappa": kappa(distance != 0),
        "quadratic_kappa": kappa(distance**2),
    }


# --- biomarkers ---


def check_biomarker_predictions(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise a ``LusbioError`` unless labels (1, 0, NaN) and probabilities of biomarkers, both (V, 38), go together."""
    if labels.shape != probabilities.shape or labels.ndim != 2 or not len(labels):
        raise LusbioError(f"labels {labels.shape}, probabilities {probabilities.shape}, expected both (V, K), V > 0")
    if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise LusbioError(f"labels hold {np.unique(labels[~np.isnan(labels)])[:5]}, expected 1, 0 or NaN")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        low, high = probabilities.min(), probabilities.max()
        raise LusbioError(f"probabilities go from {low} to {high}, expected 0 to 1 (logits?)")


@measure
def biomarker_metrics(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """How well the biomarkers of videos are predicted, under names that say how it was counted.

    Args:
        labels: Shape (V, 38): 1 present, 0 absent, NaN unknown; unknown ones count nowhere.
        probabilities: Shape (V, 38), in [0, 1]; above 0.5 means predicted present.
        weights: Shape (D, V); may be left out.

    Returns:
        ``element_accuracy``: share of all known labels that are predicted right. ``exact_match``: share of videos with
        all their known labels right. ``weighted_precision``, ``weighted_recall``, ``weighted_f1``: of "present", for
        each biomarker, then averaged by the number of videos it is present in; 0 where undefined. ``mean_auc``: plain
        mean over the biomarkers that are present in some videos and absent in others. What cannot be computed is NaN.

    Raises:
        LusbioError: If the two do not belong together.

    Source:
        Gare et al. 2022, Table 2, whose "accuracy" is most likely the weighted recall.
    """
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    check_biomarker_predictions(labels, probabilities)
    known, present, predicted = ~np.isnan(labels), labels == 1, probabilities > PRESENT_ABOVE
    wrong, any_known = known & (present != predicted), known.any(axis=1)
    scores = _average_by_support(weights @ (present & predicted), weights @ present, weights @ (predicted & known))
    aucs = _biomarker_aucs(labels, probabilities, weights)
    element_accuracy = 1 - divide((weights @ wrong).sum(axis=1), (weights @ known).sum(axis=1))
    exact_match = divide(weights @ (any_known & ~wrong.any(axis=1)), weights @ any_known)
    return dict(zip(BIOMARKER_METRICS, (element_accuracy, exact_match, *scores, defined_mean(aucs)), strict=True))


def biomarker_aucs(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The AUC of each biomarker, from labels (1, 0, NaN) and probabilities in [0, 1], both (V, 38).

    Returns:
        One row per biomarker: ``name, support_present, support_absent`` (videos), ``auc`` (NaN unless both are there).

    Raises:
        LusbioError: If the arrays do not belong together, or are not about the 38 biomarkers.
    """
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    check_biomarker_predictions(labels, probabilities)
    if len(BIOMARKER_NAMES) != labels.shape[1]:
        raise LusbioError(f"{len(BIOMARKER_NAMES)} names for {labels.shape[1]} columns")
    aucs = _biomarker_aucs(labels, probabilities, np.ones((1, len(labels))))[:, 0]
    support = {"support_present": (labels == 1).sum(0), "support_absent": (labels == 0).sum(0)}
    return pd.DataFrame({"name": BIOMARKER_NAMES, **support, "auc": aucs})


def _biomarker_aucs(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shape (38, D)."""
    aucs = np.full((labels.shape[1], len(weights)), np.nan)
    for k, rows in enumerate(map(np.flatnonzero, ~np.isnan(labels.T))):
        if len(rows):
            aucs[k] = weighted_auc(probabilities[rows, k], labels[rows, k] == 1, weights[:, rows])
    return aucs


# --- shared ---


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the divisor is 0, without a warning."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)


def defined_mean(values: np.ndarray, times: np.ndarray | float = 1.0) -> np.ndarray:
    """Mean over the first axis of what is not NaN, each value as often as it counts; NaN where none does."""
    times = times * ~np.isnan(values)
    return divide((times * np.nan_to_num(values)).sum(axis=0), times.sum(axis=0))


def _average_by_support(right: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> tuple[np.ndarray, ...]:
    """Precision, recall and F1 of each class (last axis), 0 where undefined, averaged by support: shape (D,)."""
    by_class = (divide(right, claimed), divide(right, support), divide(2 * right, support + claimed))
    total = support.sum(axis=1)
    return tuple(divide((support * np.nan_to_num(score)).sum(axis=1), total) for score in by_class)


def _confusion(labels: np.ndarray, predictions: np.ndarray, n_classes: int, weights: np.ndarray) -> np.ndarray:
    """Weight of each pair (label, prediction): shape (D, K, K)."""
    cells = (labels * n_classes + predictions)[:, None] == np.arange(n_classes**2)
    return (weights @ cells).reshape(len(weights), n_classes, n_classes)
