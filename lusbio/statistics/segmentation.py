"""How well pixels are labelled: counts of every video, and the usual measures of their sums."""

import numpy as np

from lusbio.statistics.metrics import defined_mean, divide, measure

COUNTS = ("true_positive", "false_positive", "false_negative", "frames", "frames_without", "false_alarms")
"""What is counted of a class in a video: pixels, then frames."""


def count_pixels(true: np.ndarray, claimed: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Count a class in the frames of videos.

    Args:
        true: Where it is, bool (V, n, H, W).
        claimed: Where it is said to be, bool (V, n, H, W).
        least: Claimed pixels of a frame without the class from which on that is a false alarm, (V,).

    Returns:
        float64 (V, 6), in the order of ``COUNTS``.
    """
    pixels = [(one & other).sum((1, 2, 3)) for one, other in ((true, claimed), (~true, claimed), (true, ~claimed))]
    without = ~true.any((2, 3))  # (V, n)
    alarms = without & (claimed.sum((2, 3)) >= np.asarray(least)[:, None])
    frames = np.full(len(true), true.shape[1])
    return np.stack([*pixels, frames, without.sum(1), alarms.sum(1)], axis=1).astype(np.float64)


@measure
def segmentation_metrics(labels: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Measures of the pixels and frames of all videos together, averaged over classes where they are defined.

    Args:
        labels: Not used: what is true stands in the counts.
        counts: float64 (V, C, 6), of C classes, from ``count_pixels``.
        weights: Shape (D, V); may be left out.

    Returns:
        ``dice, iou, precision, recall`` as fractions; ``false_positives``, pixels per frame over 100, so that tables
        show pixels; ``false_alarms``, the share of frames without the class in which it is claimed.
    """
    summed = np.tensordot(weights, counts, 1)  # (D, C, 6)
    right, wrong, missed, frames, without, alarms = np.moveaxis(summed, 2, 0)
    by_class = {
        "dice": divide(2 * right, 2 * right + wrong + missed),
        "iou": divide(right, right + wrong + missed),
        "precision": divide(right, right + wrong),
        "recall": divide(right, right + missed),
        "false_positives": divide(wrong, 100 * frames),
        "false_alarms": divide(alarms, without),
    }
    return {name: defined_mean(values.T) for name, values in by_class.items()}
