"""How sure a number is: resampling of patients, differences between methods, agreement of raters.

Videos of a patient resemble each other, so whole patients are drawn. A draw is a row of weights, how
often each video counts, and every metric here takes all draws at once.

What is compared are *runs*: ``(labels, probabilities, groups)`` of the test videos of one training.
The runs of the paper's protocol share their test patients and so share every draw; those of the cross
protocol have each their own. Either way a metric is averaged over the runs within each draw.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lusbio.errors import LusbioError
from lusbio.statistics.weighted_metrics import defined_mean, weighted_agreement, weighted_task_metrics

Tested = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Labels, probabilities and groups of one run's test videos. For agreement: class indices of one
rater, class indices of the other, groups."""

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""Metrics of labels and probabilities under weights of shape (D, V): name -> shape (D,)."""

COVERAGE = 0.95
"""Of every interval."""


class Estimate(NamedTuple):
    """A value on the videos as they are, and its 95 % interval over patients; NaN where undefined."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """First method minus second, its 95 % interval over patients, and the two-sided p-value."""

    value: float
    low: float
    high: float
    p_value: float


def draw_group_counts(groups: Sequence, n_draws: int, seed: int, strata: Sequence | None = None) -> np.ndarray:
    """How often every video counts in each of many resamples of the groups.

    From each stratum as many groups are drawn, with repetition, as it has; all videos of a group count
    as often as the group was drawn.

    Args:
        groups: Group of each video, shape (V,).
        n_draws: D.
        seed: Same seed and same groups, same draws, whatever the order of the videos.
        strata: Stratum of each video's group, shape (V,); None for a single one.

    Returns:
        float64 whole numbers, shape (D, V).

    Example:
        >>> draw_group_counts(["a", "a", "b"], n_draws=2, seed=1).tolist()
        [[1.0, 1.0, 1.0], [2.0, 2.0, 0.0]]
    """
    rng = np.random.default_rng(seed)
    names, first, codes = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    group_strata = np.zeros(len(names), dtype=int) if strata is None else np.asarray(strata)[first]
    counts = np.zeros((n_draws, len(names)))
    for stratum in np.unique(group_strata):
        members = np.flatnonzero(group_strata == stratum)
        n = len(members)
        counts[:, members] = rng.multinomial(n, np.full(n, 1 / n), size=n_draws)
    return counts[:, codes]


def bootstrap_metrics(
    runs: Sequence[Tested], n_draws: int, seed: int, measure: Measure = weighted_task_metrics
) -> dict[str, tuple[float, float]]:
    """Intervals over patients for the mean of each metric over runs.

    Args:
        runs: Labels, probabilities and groups of each run's test videos.
        n_draws: Draws of patients.
        seed: Same seed, same intervals.
        measure: ``weighted_task_metrics`` or ``weighted_biomarker_metrics``.

    Returns:
        Metric -> (low, high), the 2.5th and 97.5th percentiles of the draws in which it is defined.

    Raises:
        LusbioError: If arrays of a run do not belong together.

    Source:
        Efron and Tibshirani 1993, percentile intervals, with the patient as the unit that is drawn.
    """
    return {name: percentile_interval(draws) for name, draws in draw_means(runs, n_draws, seed, measure).items()}


def paired_difference(
    first: Sequence[Tested], second: Sequence[Tested], n_draws: int, seed: int, measure: Measure = weighted_task_metrics
) -> dict[str, Difference]:
    """How much better one method is than another on the same patients.

    Both are measured on the same draws, so what makes patients hard for both cancels.

    Args:
        first: Runs of one method.
        second: Runs of the other, on the same test videos, in the same order.
        n_draws: Draws of patients; no p-value is below ``2 / (n_draws + 1)``.
        seed: Same seed, same result.
        measure: ``weighted_task_metrics`` or ``weighted_biomarker_metrics``.

    Returns:
        Metric -> difference with interval and p-value, which is twice the share of draws on the other side
        of zero. Correct several p-values with ``holm``.

    Raises:
        LusbioError: If the runs differ in number, labels or groups.
    """
    same = len(first) == len(second) and all(
        np.array_equal(a[2], b[2]) and np.array_equal(a[0], b[0], equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )
    if not same:
        raise LusbioError("the runs differ in number, labels or groups; pair them by run and video")
    values = (_values(first, measure), _values(second, measure))
    draws = (draw_means(first, n_draws, seed, measure), draw_means(second, n_draws, seed, measure))
    differences = {}
    for name in values[0]:
        drawn = draws[0][name] - draws[1][name]
        drawn = drawn[~np.isnan(drawn)]
        beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
        p_value = min(1.0, 2 * (beyond + 1) / (len(drawn) + 1)) if len(drawn) else np.nan
        differences[name] = Difference(values[0][name] - values[1][name], *percentile_interval(drawn), float(p_value))
    return differences


def estimate(runs: Sequence[Tested], n_draws: int, seed: int, measure: Measure) -> dict[str, Estimate]:
    """Values, averaged over runs, with their intervals over patients.

    Args:
        runs: What ``measure`` compares, and groups: of one run, or of several.
        n_draws: Draws of patients.
        seed: Same seed, same intervals.
        measure: E.g. ``weighted_calibration``.

    Returns:
        Estimate by name of the metric.

    Raises:
        LusbioError: If arrays of a run do not belong together.
    """
    values = _values(runs, measure)
    draws = draw_means(runs, n_draws, seed, measure)
    return {name: Estimate(value, *percentile_interval(draws[name])) for name, value in values.items()}


def agreement(runs: Sequence[Tested], n_draws: int, seed: int) -> dict[str, Estimate]:
    """How well two raters agree, with intervals over patients.

    Args:
        runs: Class indices by one rater, by the other, and groups; one run, or several whose
            values are averaged (three networks against one specialist, say).
        n_draws: Draws of patients.
        seed: Same seed, same intervals.

    Returns:
        ``agreement``: the share of equal classes, and ``within_one``: of equal or neighbouring ones, in [0, 1].
        ``kappa``: Cohen's, agreement beyond chance, and ``quadratic_kappa``, where a mistake counts by its
        squared distance; both at most 1, NaN where both raters gave one and the same class to all.

    Raises:
        LusbioError: If the ratings are not class indices of the same videos.

    Source:
        Cohen 1960 and 1968.

    Example:
        >>> raters = np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0])
        >>> agreement([(*raters, np.array(list("aabb")))], n_draws=10, seed=0)["agreement"].value
        0.75
    """
    return estimate(runs, n_draws, seed, weighted_agreement)


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of draws.

    Args:
        draws: Shape (D,); NaN where undefined.

    Returns:
        2.5th and 97.5th percentile of what is not NaN; both NaN where all is.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's correction of several p-values; it needs no independence.

    Args:
        p_values: Shape (M,), NaN where there is none; those stay NaN and do not count.

    Returns:
        Adjusted p-values, shape (M,), none smaller than before and none above 1.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN sorts last
    adjusted = np.full(len(p_values), np.nan)
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def find_strata(groups_of_runs: Sequence[Sequence]) -> list[str]:
    """What groups are drawn within: those that are tested in the same runs.

    Args:
        groups_of_runs: Group of each test video, run by run.

    Returns:
        Stratum of each video, the runs one after the other.

    Example:
        >>> find_strata([["a", "a"], ["a", "b"]])
        ['[0, 1]', '[0, 1]', '[0, 1]', '[1]']
    """
    tested_in: dict = {}
    for number, groups in enumerate(groups_of_runs):
        for group in dict.fromkeys(groups):
            tested_in.setdefault(group, []).append(number)
    return [str(tested_in[group]) for groups in groups_of_runs for group in groups]


def draw_means(runs: Sequence[Tested], n_draws: int, seed: int, measure: Measure) -> dict[str, np.ndarray]:
    """Each metric in each draw of patients, averaged over the runs where it is defined: shape (D,)."""
    for labels, _, groups in runs:
        if len(labels) != len(groups):
            raise LusbioError(f"{len(labels)} labels for {len(groups)} groups in a run")
    groups = np.concatenate([np.asarray(groups, dtype=str) for _, _, groups in runs])
    strata = find_strata([groups for _, _, groups in runs])
    weights = draw_group_counts(groups, n_draws, seed, strata)
    edges = np.cumsum([len(groups) for _, _, groups in runs])[:-1]
    parts = np.split(weights, edges, axis=1)
    by_run = [measure(run[0], run[1], part) for run, part in zip(runs, parts, strict=True)]
    return {name: defined_mean(np.array([values[name] for values in by_run])) for name in by_run[0]}


def _values(runs: Sequence[Tested], measure: Measure) -> dict[str, float]:
    """Each metric on the videos as they are, averaged over the runs where it is defined."""
    by_run = [measure(labels, predictions, np.ones((1, len(labels)))) for labels, predictions, _ in runs]
    return {name: float(defined_mean(np.array([v[name] for v in by_run]))[0]) for name in by_run[0]}
