"""Where videos come from several sources: severity across and within them, and intervals for very few videos."""

import numpy as np

from lusbio.statistics.bootstrap import COVERAGE
from lusbio.statistics.metrics import Measure, divide, measure, task_metrics, weighted_auc


def measure_severity(sources: np.ndarray) -> Measure:
    """``task_metrics``, and severity 0 against 1-3, across and within sources.

    Args:
        sources: Source of each video, (V,).

    Returns:
        A measure. ``zero_auc`` is the share of pairs of a video with severity 0 and one with more that the probability
        of 0 puts in order; ``zero_auc_within_sources`` the same over pairs of one source only, so the mean of the
        sources' AUCs, by pairs. NaN where no source has both.
    """

    @measure
    def severity(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        severe, score = labels > 0, 1 - probabilities[:, 0]
        won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for source in np.unique(sources):
            rows = np.flatnonzero(sources == source)
            part = weights[:, rows]
            of_source = (part @ severe[rows]) * (part @ ~severe[rows])
            won += of_source * np.nan_to_num(weighted_auc(score[rows], severe[rows], part))
            pairs += of_source
        zero = {"zero_auc": weighted_auc(score, severe, weights), "zero_auc_within_sources": divide(won, pairs)}
        return task_metrics(labels, probabilities, weights) | zero

    return severity


def find_exact_interval(right: float, videos: int) -> tuple[float, float]:
    """The exact 95 % interval of a share, for numbers too small for anything else.

    Args:
        right: Videos that were decided rightly; a mean over runs need not be whole.
        videos: How many there are.

    Returns:
        Low and high, in [0, 1].

    Source:
        Clopper and Pearson 1934; for means that are not whole, by the same beta distributions.

    Example:
        >>> [round(end, 3) for end in find_exact_interval(5, 9)]
        [0.212, 0.863]
    """
    from scipy.stats import beta

    tail = (1 - COVERAGE) / 2
    low = beta.ppf(tail, right, videos - right + 1) if right > 0 else 0.0
    high = beta.ppf(1 - tail, right + 1, videos - right) if right < videos else 1.0
    return float(low), float(high)
