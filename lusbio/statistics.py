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
from lusbio.metrics import (
    BIOMARKER_METRICS,
    PRESENT_ABOVE,
    TASK_METRICS,
    brier_scores,
    check_biomarker_predictions,
    check_predictions,
    restrict_probabilities,
)

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


def draw_group_counts(
    groups: Sequence, n_draws: int, seed: int, strata: Sequence | None = None
) -> np.ndarray:
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


def weighted_task_metrics(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
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
    mean_auc = _defined_mean(np.array(aucs).reshape(len(aucs), len(weights)))
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
        raise LusbioError(
            "ratings hold numbers below 0; leave out videos that one of the raters did not rate"
        )
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


def weighted_calibration(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
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


def weighted_detection(
    positive: np.ndarray, said_yes: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
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
    return {
        name: percentile_interval(draws) for name, draws in draw_means(runs, n_draws, seed, measure).items()
    }


def paired_difference(
    first: Sequence[Tested],
    second: Sequence[Tested],
    n_draws: int,
    seed: int,
    measure: Measure = weighted_task_metrics,
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
        differences[name] = Difference(
            values[0][name] - values[1][name], *percentile_interval(drawn), float(p_value)
        )
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
    return {name: _defined_mean(np.array([values[name] for values in by_run])) for name in by_run[0]}


def _values(runs: Sequence[Tested], measure: Measure) -> dict[str, float]:
    """Each metric on the videos as they are, averaged over the runs where it is defined."""
    by_run = [measure(labels, predictions, np.ones((1, len(labels)))) for labels, predictions, _ in runs]
    return {name: float(_defined_mean(np.array([v[name] for v in by_run]))[0]) for name in by_run[0]}


def _weighted_scores(right: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> tuple[np.ndarray, ...]:
    """Precision, recall and F1 of each class (last axis), 0 where undefined, averaged by support: shape (D,)."""
    by_class = (_ratio(right, claimed), _ratio(right, support), _ratio(2 * right, support + claimed))
    total = support.sum(axis=1)
    return tuple(_ratio((support * np.nan_to_num(score)).sum(axis=1), total) for score in by_class)


def _confusion(
    labels: np.ndarray, predictions: np.ndarray, n_classes: int, weights: np.ndarray
) -> np.ndarray:
    """Weight of each pair (label, prediction): shape (D, K, K)."""
    cells = (labels * n_classes + predictions)[:, None] == np.arange(n_classes**2)
    return (weights @ cells).reshape(len(weights), n_classes, n_classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the divisor is 0, without a warning."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)


def _defined_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where all is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0))
