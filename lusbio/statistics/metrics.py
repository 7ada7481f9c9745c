"""How good predictions are: one number per metric, as fractions (tables show them times 100)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from lusbio.errors import LusbioError
from lusbio.vocabulary import BIOMARKER_NAMES

TASK_METRICS = ("accuracy", "precision", "recall", "f1", "auc")
"""Metrics of a task with exclusive classes."""

BIOMARKER_METRICS = (
    "element_accuracy",
    "exact_match",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
    "mean_auc",
)
"""Metrics of the 38 biomarkers."""

PRESENT_ABOVE = 0.5
"""A biomarker is predicted present when its probability is above this."""


def check_predictions(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise unless labels and probabilities of a task belong together.

    Args:
        labels: Class index of each video, shape (V,), integer.
        probabilities: Shape (V, K), rows that sum to 1.

    Raises:
        LusbioError: Saying what was found and what was expected.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise LusbioError(
            f"labels {labels.shape} and probabilities {probabilities.shape}, expected (V,) and (V, K), V > 0"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise LusbioError(f"labels are {labels.dtype}, expected class indices; leave out videos without a label")
    n_classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= n_classes:
        raise LusbioError(f"labels go from {labels.min()} to {labels.max()}, expected 0 to {n_classes - 1}")
    sums = probabilities.sum(axis=1)
    if not (probabilities >= 0).all() or not np.allclose(sums, 1, atol=1e-3):
        worst = sums[np.argmax(np.abs(sums - 1))] if np.isfinite(sums).all() else "not finite"
        raise LusbioError(f"probabilities of a video sum to {worst}, expected 1 and none below 0 (logits?)")


def restrict_probabilities(probabilities: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Probabilities of some of the classes, given that it is one of them.

    Args:
        probabilities: Shape (V, K), rows that sum to 1.
        present: Which classes to keep, shape (K,), bool.

    Returns:
        Shape (V, number kept), rows that sum to 1; equal ones where all kept classes had 0. Rounded to 12
        digits, so that ties (of forests and neighbours, say) survive the division. Untouched when all
        classes are kept.
    """
    if present.all():
        return probabilities
    kept = probabilities[:, present]
    sums = kept.sum(axis=1, keepdims=True)
    return np.where(sums > 0, kept / np.where(sums > 0, sums, 1), 1 / kept.shape[1]).round(12)


def task_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | tuple[int, ...]]:
    """The paper's metrics of a task.

    The AUC is one-vs-one, each pair of classes weighted by its number of videos. Where a class has
    no video, as happens in small test folds, the pairs with it do not exist: the AUC is that of the
    classes that are there, with probabilities renormalised over them. The other metrics need no such
    care, since absent classes have no weight in them.

    Args:
        labels: True class index of each video, shape (V,), integer, 0 to K-1.
        probabilities: Shape (V, K), rows that sum to 1. The highest, or the first of equals, is the
            prediction.

    Returns:
        ``accuracy``, ``precision``, ``recall``, ``f1`` (the last three weighted by support, 0 where
        undefined) and ``auc``, all in [0, 1], the AUC NaN when there is only one class; and
        ``absent_classes``, the indices of classes without a video.

    Raises:
        LusbioError: If the two do not belong together; see ``check_predictions``.

    Source:
        Gare et al. 2022, Section 4; equal to scikit-learn's wherever that is defined.

    Example:
        >>> metrics = task_metrics(np.array([0, 1, 1]), np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.6, 0.4, 0.0]]))
        >>> round(metrics["accuracy"], 3), metrics["auc"], metrics["absent_classes"]
        (0.667, 1.0, (2,))
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    check_predictions(labels, probabilities)
    predictions = probabilities.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predictions, labels=range(probabilities.shape[1]), average="weighted", zero_division=0
    )
    present = np.isin(np.arange(probabilities.shape[1]), labels)
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "auc": _one_vs_one_auc(labels, probabilities, present),
        "absent_classes": tuple(np.flatnonzero(~present).tolist()),
    }


def _one_vs_one_auc(labels: np.ndarray, probabilities: np.ndarray, present: np.ndarray) -> float:
    if present.sum() < 2:
        return float("nan")
    labels = np.cumsum(present)[labels] - 1  # counted among the classes that are there
    kept = restrict_probabilities(probabilities, present)
    if kept.shape[1] == 2:
        return float(roc_auc_score(labels, kept[:, 1]))
    sums = kept.sum(axis=1, keepdims=True)
    kept = kept if np.allclose(sums, 1) else kept / sums  # scikit-learn is stricter about the sum than we are
    return float(roc_auc_score(labels, kept, multi_class="ovo", average="weighted"))


def choose_threshold(positive: np.ndarray, scores: np.ndarray) -> float:
    """The score above which to say yes, so that sensitivity + specificity is largest (Youden's J).

    Halfway between two scores, so that neither of the videos that it separates lies on it. Of equally
    good ones the highest.

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


def brier_scores(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Squared distance of the probabilities from what came true, video by video.

    Args:
        labels: Shape (V,), integer, 0 to K-1.
        probabilities: Shape (V, K), rows that sum to 1.

    Returns:
        float64 (V,): 0 where the true class had all the probability, 2 where a wrong one had it.

    Source:
        Brier 1950, "Verification of forecasts expressed in terms of probability", in its multi-class form.
    """
    came_true = labels[:, None] == np.arange(probabilities.shape[1])
    return ((probabilities - came_true) ** 2).sum(axis=1)


CALIBRATION_BINS = 5
"""Bins of about as many videos each, behind reliability curves. (Engineering choice.)"""


def bin_equally(values: np.ndarray, n_bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Sort values into bins of about as many each; equal values share a bin.

    Args:
        values: Shape (V,).
        n_bins: Most bins; there are fewer where many values are equal.

    Returns:
        Bin of each value, int64 (V,), 0-based without gaps, ascending with the value.
    """
    edges = np.quantile(values, np.arange(1, n_bins) / n_bins)
    return np.unique(np.digitize(values, edges), return_inverse=True)[1]


def calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int = CALIBRATION_BINS) -> float:
    """How far confidence is from the share that is right, in bins of equal count, on average over videos.

    Args:
        confidence: Probability of the decided class, shape (V,).
        right: Whether it was the true one, shape (V,), bool.
        n_bins: See ``bin_equally``.

    Returns:
        In [0, 1]. Never 0 in practice, even for a perfect forecaster: bins are small, and chance alone
        moves their shares.

    Source:
        Naeini et al. 2015 ("expected calibration error"), with bins of equal count.
    """
    bins = bin_equally(confidence, n_bins)
    gaps = np.bincount(bins, weights=confidence - right)
    return float(np.abs(gaps).sum() / len(right))


def check_biomarker_predictions(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise unless labels and probabilities of biomarkers belong together.

    Args:
        labels: Shape (V, 38): 1, 0, or NaN where unknown.
        probabilities: Same shape, in [0, 1].

    Raises:
        LusbioError: Saying what was found and what was expected.
    """
    if labels.shape != probabilities.shape or labels.ndim != 2 or not len(labels):
        raise LusbioError(f"labels {labels.shape}, probabilities {probabilities.shape}, expected both (V, K), V > 0")
    if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise LusbioError(f"labels hold {np.unique(labels[~np.isnan(labels)])[:5]}, expected 1, 0 or NaN")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        low, high = probabilities.min(), probabilities.max()
        raise LusbioError(f"probabilities go from {low} to {high}, expected 0 to 1 (logits?)")


def biomarker_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """How well the biomarkers of videos are predicted, under names that say how it was counted.

    Args:
        labels: Shape (V, 38): 1 present, 0 absent, NaN unknown; unknown ones count nowhere.
        probabilities: Shape (V, 38), in [0, 1]; above 0.5 means predicted present.

    Returns:
        ``element_accuracy``: share of all known labels that are predicted right.
        ``exact_match``: share of videos with all their known labels right.
        ``weighted_precision``, ``weighted_recall``, ``weighted_f1``: of "present", for each
        biomarker, then averaged by the number of videos it is present in; 0 where undefined.
        ``mean_auc``: plain mean over the biomarkers that are present in some videos and absent in others.
        ``aucs``: how many those are. What cannot be computed (nothing known) is NaN.

    Raises:
        LusbioError: If the two do not belong together.

    Source:
        Gare et al. 2022, Table 2, whose "accuracy" is most likely the weighted recall.
    """
    labels = np.asarray(labels, dtype=np.float64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    check_biomarker_predictions(labels, probabilities)
    known, present, predicted = ~np.isnan(labels), labels == 1, probabilities > PRESENT_ABOVE
    right = (present == predicted) & known
    any_known = known.any(axis=1)
    found = (present & predicted).sum(axis=0)
    support, claimed = present.sum(axis=0), (predicted & known).sum(axis=0)
    aucs = biomarker_aucs(labels, probabilities, range(labels.shape[1]))["auc"].dropna()
    return {
        "element_accuracy": _ratio(right.sum(), known.sum()),
        "exact_match": _ratio(((right | ~known).all(axis=1) & any_known).sum(), any_known.sum()),
        "weighted_precision": _ratio((support * found / np.maximum(claimed, 1)).sum(), support.sum()),
        "weighted_recall": _ratio(found.sum(), support.sum()),
        "weighted_f1": _ratio((support * 2 * found / np.maximum(support + claimed, 1)).sum(), support.sum()),
        "mean_auc": float(aucs.mean()) if len(aucs) else float("nan"),
        "aucs": len(aucs),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def biomarker_aucs(
    labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str] = BIOMARKER_NAMES
) -> pd.DataFrame:
    """The AUC of each biomarker.

    Args:
        labels: Shape (V, 38): 1 present, 0 absent, NaN unknown.
        probabilities: Shape (V, 38), in [0, 1].
        names: One per column.

    Returns:
        One row per biomarker: ``name``, ``support_present``, ``support_absent`` (videos), ``auc`` (NaN
        unless both are above 0).

    Raises:
        LusbioError: If the arrays or the names do not belong together.
    """
    labels = np.asarray(labels, dtype=np.float64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    check_biomarker_predictions(labels, probabilities)
    if len(names) != labels.shape[1]:
        raise LusbioError(f"{len(names)} names for {labels.shape[1]} columns")
    rows = []
    for name, label, probability in zip(names, labels.T, probabilities.T, strict=True):
        known = ~np.isnan(label)
        n_present, n_absent = int((label == 1).sum()), int((label == 0).sum())
        auc = roc_auc_score(label[known], probability[known]) if n_present and n_absent else np.nan
        rows.append((name, n_present, n_absent, auc))
    return pd.DataFrame(rows, columns=["name", "support_present", "support_absent", "auc"])
