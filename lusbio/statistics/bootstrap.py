"""How sure a number is: resampling of patients and runs, and differences between methods on the same draws.

Videos of a patient resemble each other, so whole patients are drawn. A draw is a row of weights, how often each video
counts, and every measure takes all draws at once.

What is compared are *runs*, a ``HeldOut`` each. Another training would have given another number too, so runs are drawn
as well wherever several test the same patients, see ``draw_runs``. Within each draw a metric is averaged over the runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lusbio.errors import LusbioError
from lusbio.statistics.metrics import Measure, defined_mean, task_metrics

COVERAGE = 0.95
"""Of every interval."""


class HeldOut(NamedTuple):
    """What one run decided on videos that it did not learn from.

    Attributes:
        labels: Class indices, int64 (V,); of biomarkers float64 (V, 38); where raters are compared, those of the first.
        probabilities: float64 (V, K), or whatever else the measure puts beside the labels.
        groups: Group of each video, (V,).
        rows: Rows of the cohort's table, int64 (V,); None where nobody asks.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray
    rows: np.ndarray | None = None

    def keep(self, chosen: np.ndarray) -> "HeldOut":
        """Some of the videos, by a mask (V,) or positions."""
        return HeldOut(*(None if values is None else values[chosen] for values in self))


Runs = Sequence[HeldOut]


class Estimate(NamedTuple):
    """A value on the videos as they are, its population SD over runs, 95 % interval over patients and runs.

    NaN is undefined, as the SD of a single run. Of a difference, first method minus second, also the two-sided p-value.
    """

    value: float
    sd: float
    low: float
    high: float
    p_value: float = np.nan


def draw_group_counts(groups: Sequence, n_draws: int, seed: int | list, strata: Sequence | None = None) -> np.ndarray:
    """How often every video counts in each of many resamples of the groups.

    From each stratum as many groups are drawn, with repetition, as it has; all videos of a group count as often as the
    group was drawn.

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


def estimate(runs: Runs, draws: int, measure: Measure = task_metrics, seed: int = 0) -> dict[str, Estimate]:
    """Each metric, averaged over runs, with its interval over patients and runs.

    Args:
        runs: Of one way to decide.
        draws: Draws of patients and runs, see ``draw_runs``.
        measure: One of the measures of ``statistics.metrics``, or one like them.
        seed: Same seed, same intervals.

    Returns:
        Estimate by name of the metric. The interval goes from the 2.5th to the 97.5th percentile of the draws in which
        the metric is defined.

    Raises:
        LusbioError: If arrays of a run do not belong together.

    Source:
        Efron and Tibshirani 1993, percentile intervals; the patient and the run are the units that are drawn.
    """
    drawn, by_run = draw_means(runs, draws, measure, seed), _measure_each(runs, measure)
    return {name: Estimate(*_summarise(by_run[name]), *percentile_interval(drawn[name])) for name in by_run}


def paired_difference(
    first: Runs, second: Runs, draws: int, measure: Measure = task_metrics, seed: int = 0
) -> dict[str, Estimate]:
    """How much better one method is than another on the same patients.

    Both are measured on the same draws, of patients and of runs, so what makes patients hard for both cancels.

    Args:
        first: Runs of one method.
        second: Runs of the other, on the same test videos, in the same order.
        draws: As for ``estimate``; no p-value is below ``2 / (draws + 1)``.
        measure: As for ``estimate``.
        seed: Same seed, same result.

    Returns:
        The difference by name of the metric; its p-value is twice the share of draws on the other side of zero. Correct
        several p-values with ``holm``.

    Raises:
        LusbioError: If the runs differ in number, labels or groups.
    """
    same = len(first) == len(second) and all(
        np.array_equal(a.groups, b.groups) and np.array_equal(a.labels, b.labels, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )
    if not same:
        raise LusbioError("the runs differ in number, labels or groups; pair them by run and video")
    drawn = [draw_means(runs, draws, measure, seed) for runs in (first, second)]
    differences = {}
    for name, by_run in subtract_by_run(first, second, measure).items():
        differences[name] = Estimate(*_summarise(by_run), *describe_draws(drawn[0][name] - drawn[1][name]))
    return differences


def describe_draws(values: np.ndarray) -> tuple[float, float, float]:
    """The interval of what was drawn, (D,), and its p-value: twice the share of draws on the other side of zero.

    Draws that are NaN are left out.
    """
    values = values[~np.isnan(values)]
    beyond = min((values <= 0).sum(), (values >= 0).sum())
    p_value = min(1.0, 2 * (beyond + 1) / (len(values) + 1)) if len(values) else np.nan
    return *percentile_interval(values), float(p_value)


def subtract_by_run(first: Runs, second: Runs, measure: Measure = task_metrics) -> dict[str, np.ndarray]:
    """Each metric of one method minus that of another on the videos as they are, run by run: shape (R,)."""
    own, other = (_measure_each(runs, measure) for runs in (first, second))
    return {name: own[name] - other[name] for name in own}


def draw_means(runs: Runs, draws: int, measure: Measure = task_metrics, seed: int = 0) -> dict[str, np.ndarray]:
    """Each metric in each draw, averaged over the runs that were drawn and where it is defined: shape (D,)."""
    for run in runs:
        if len(run.labels) != len(run.groups):
            raise LusbioError(f"{len(run.labels)} labels for {len(run.groups)} groups in a run")
    weights, times = draw_runs(runs, draws, seed)
    parts = np.split(weights, np.cumsum([len(run.groups) for run in runs])[:-1], axis=1)
    by_run = [measure(run.labels, run.probabilities, part) for run, part in zip(runs, parts, strict=True)]
    return {name: defined_mean(np.array([values[name] for values in by_run]), times.T) for name in by_run[0]}


def draw_runs(runs: Runs, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often every test video, (D, V of all runs), and every run, (D, R), counts in each draw.

    Patients are drawn among those that are tested in the same runs. Of the runs that test the same groups (all of the
    paper's protocol, or several seeds of a fold) as many are drawn, with repetition, as there are. A run that is alone
    with its groups, as each fold of the cross protocol, cannot be drawn anew and counts once: its interval does not
    hold what another training would change.
    """
    videos = np.concatenate([np.asarray(run.groups, dtype=str) for run in runs])
    names, group_of = np.unique(videos, return_inverse=True)
    tests = np.array([np.isin(names, np.asarray(run.groups, dtype=str)) for run in runs])  # (R, groups)
    of_run, of_group = (np.unique(tests, axis=axis, return_inverse=True)[1].ravel() for axis in (0, 1))
    weights = draw_group_counts(videos, draws, seed, of_group[group_of])
    return weights, draw_group_counts(np.arange(len(runs)), draws, [seed, 1], of_run)


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """2.5th and 97.5th percentile of draws (D,) that are not NaN; both NaN where all are."""
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


def _measure_each(runs: Runs, measure: Measure) -> dict[str, np.ndarray]:
    """Each metric on the videos as they are, run by run: shape (R,)."""
    whole = [measure(run.labels, run.probabilities, np.ones((1, len(run.labels)))) for run in runs]
    return {name: np.array([values[name][0] for values in whole]) for name in whole[0]}


def _summarise(by_run: np.ndarray) -> tuple[float, float]:
    """Mean and population SD of what is not NaN; a single value has no SD."""
    mean, known = defined_mean(by_run), np.count_nonzero(~np.isnan(by_run))
    return float(mean), float(np.sqrt(defined_mean((by_run - mean) ** 2))) if known > 1 else np.nan
