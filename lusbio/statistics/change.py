"""How well change is detected: two examinations of a patient, worse, the same or better; under weights, as in metrics.

What is true of a pair is its class and its change, what was said its class and a score that is higher where it is
better: arrays (P, 2) each, so that one resampling serves the ranks as well as the classes.
"""

import numpy as np

from lusbio.statistics.metrics import defined_mean, divide, measure, weighted_auc

WORSE, SAME, BETTER = range(3)
"""The classes of a change, in order."""


def classify_change(change: np.ndarray, threshold: float) -> np.ndarray:
    """``WORSE``, ``SAME`` or ``BETTER`` of changes of health (P,); exactly the threshold is the same. float64 (P,).

    Example:
        >>> classify_change(np.array([-30.0, 10.0, 10.5]), threshold=10).tolist()
        [0.0, 1.0, 2.0]
    """
    return 1.0 + (change > threshold) - (change < -threshold)


def weighted_spearman(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spearman's correlation of two arrays (P,) under weights (D, P), ties in the middle: (D,), NaN where one is flat.

    Weights that are whole numbers mean the same as repeating the pairs.
    """
    share = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    ranks = [_weighted_ranks(values, share) for values in (first, second)]
    first, second = (rank - (share * rank).sum(axis=1, keepdims=True) for rank in ranks)
    spread = np.sqrt((share * first**2).sum(axis=1) * (share * second**2).sum(axis=1))
    return divide((share * first * second).sum(axis=1), np.where(spread > 1e-9, spread, 0))


def _weighted_ranks(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Share of the weight below each value, and half of that beside it: (D, P)."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    of_value = np.add.reduceat(share[:, order], starts, axis=1)
    return (np.cumsum(of_value, axis=1) - of_value / 2)[:, place]


@measure
def change_metrics(true: np.ndarray, said: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """How well change was detected.

    Args:
        true: (P, 2): class, and change of health.
        said: (P, 2): class, and score.
        weights: (D, P); may be left out.

    Returns:
        ``accuracy``; ``macro_f1`` and ``balanced_accuracy``, means over the classes that are there; ``auc``, better
        against worse by the score; ``spearman`` of score and change.
    """
    seen, claimed = (values[:, :1] == np.arange(3) for values in (true, said))  # (P, 3)
    right, support, asked = weights @ (seen & claimed), weights @ seen, weights @ claimed
    f1 = np.where(support > 0, np.nan_to_num(divide(2 * right, support + asked)), np.nan)
    moved = true[:, 0] != SAME
    return {
        "accuracy": divide(right.sum(axis=1), weights.sum(axis=1)),
        "macro_f1": defined_mean(f1.T),
        "balanced_accuracy": defined_mean(divide(right, support).T),
        "auc": weighted_auc(said[:, 1], true[:, 0] == BETTER, weights * moved),
        "spearman": weighted_spearman(said[:, 1], true[:, 1], weights),
    }


@measure
def rank_correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``spearman`` of two arrays (P,)."""
    return {"spearman": weighted_spearman(first, second, weights)}
