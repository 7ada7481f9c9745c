"""Table 3: how well severity is decided in POCOVID's patients by what was learnt from others.

POCOVID's severities are confounded with the source of a video: a network that recognises the scanner scores
well. So severity is also judged within sources, and what the source alone is worth stands beside it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lusbio.cohorts.pocovid import find_sources
from lusbio.cohorts.targets import classes_of, encode_task
from lusbio.experts.inputs import BIOMARKERS, END_TO_END
from lusbio.experts.other_cohort import CHOSEN, CLIPS, TASK, Elsewhere, judge_elsewhere
from lusbio.experts.rows import NETWORK, Decisions
from lusbio.report.tables import FEATURE_TITLES
from lusbio.runs.mixed_cohort import MIXED
from lusbio.runs.origin import describe_origin
from lusbio.runs.spec import PreparedCohort
from lusbio.statistics.bootstrap import COVERAGE, Measure, Tested, estimate, paired_difference
from lusbio.statistics.weighted_metrics import weighted_auc, weighted_task_metrics

PAPER_VIDEOS = 21
"""Linear videos of POCOVID with a severity, duplicates not counted: what the paper tested on."""

FEWEST_GROUPS = 10
"""With fewer groups nothing is drawn anew: an interval over a handful would be too narrow, or a point.
Accuracy then has its exact interval over videos, the AUC none. (Engineering choice.)"""

SOURCE_ONLY = "source_only"
"""Anchor: class frequencies of a video's source, read off the very videos that are tested."""

DIFFERENCE = "difference"
"""Chosen experts minus another way to decide, on the same videos."""

METRICS = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "zero_auc": "AUC, 0 against 1-3",
    "zero_auc_within_sources": "AUC, 0 against 1-3, within sources",
}
"""Metrics of Table 3, in words."""

NO_FINDING = "no finding, as neither is above chance"
"""Said whatever the difference is: less wrong than another is not generalizing. (Engineering choice.)"""

_ROUTES = {"experts on biomarkers": (BIOMARKERS, CHOSEN), "the end-to-end network": (END_TO_END, NETWORK)}
_PAIR = (DIFFERENCE, f"{CHOSEN} minus {NETWORK}")
_MIXED_ROUTES = {"experts on mixed biomarkers": (MIXED, CHOSEN), "experts on biomarkers": (BIOMARKERS, CHOSEN)}
_MIXED_PAIR = (DIFFERENCE, f"{CHOSEN}, mixed minus own")
_PAIRS = {_PAIR: _ROUTES, _MIXED_PAIR: _MIXED_ROUTES}
_SUBJECTS = {_PAIR: "biomarkers", _MIXED_PAIR: "mixed biomarkers"}


def decide_by_source(majority: Decisions, other: PreparedCohort) -> Decisions:
    """What somebody decides who knows how severe the videos of each source are, and looks at none.

    It is read off the labels that it is judged by: not a rival, but a measure of the confounding.

    Args:
        majority: The row of class frequencies, whose runs are followed.
        other: The cohort that is tested on.

    Returns:
        One row's decisions, the same in every fold.
    """
    labels = encode_task(other.cohort.table, TASK)
    sources = find_sources(other.cohort.table["group_id"].to_numpy())
    of_class = (labels[:, None] == np.arange(len(classes_of(other.cohort.table, TASK)))).astype(float)
    counts = pd.DataFrame(of_class).groupby(sources).transform("sum")
    shares = counts.div(counts.sum(axis=1), axis=0).to_numpy()  # NaN where a source has no severity: not tested
    return judge_elsewhere(replace(majority, features=SOURCE_ONLY), [shares] * len(majority.folds), other)


def measure_severity(sources: np.ndarray) -> Measure:
    """What Table 3 measures: ``task_metrics``, and severity 0 against 1-3, across and within sources.

    Args:
        sources: Source of each video, (V,).

    Returns:
        A measure for ``statistics``. ``zero_auc`` is the share of pairs of a video with severity 0 and one
        with more that the probability of 0 puts in order; ``zero_auc_within_sources`` the same over pairs
        of one source only, so the mean of the sources' AUCs, by pairs. NaN where no source has both.
    """

    def measure(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        severe, score = labels > 0, 1 - probabilities[:, 0]
        won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for source in np.unique(sources):
            rows = np.flatnonzero(sources == source)
            part = weights[:, rows]
            of_source = (part @ severe[rows]) * (part @ ~severe[rows])
            won += of_source * np.nan_to_num(weighted_auc(score[rows], severe[rows], part))
            pairs += of_source
        within = np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
        zero = {"zero_auc": weighted_auc(score, severe, weights), "zero_auc_within_sources": within}
        return weighted_task_metrics(labels, probabilities, weights) | zero

    return measure


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


def make_table3(found: Elsewhere, draws: int, seed: int = 0) -> pd.DataFrame:
    """Table 3: severity of another cohort's videos. The paper's numbers are not available.

    Args:
        found: From ``decide_elsewhere``.
        draws: Draws of groups behind an interval.
        seed: Of the draws.

    Returns:
        Columns ``videos`` (``"all"``, ``"convex"``, ``"linear"``), ``n_videos, n_groups, features, classifier,
        task, metric, mean, sd, ci_low, ci_high, interval, published_mean, published_sd``, in percent. Mean and SD
        are over runs. ``interval`` says over what the interval is: ``"groups"``, ``"videos, exact"``, or ``"none"``
        (see ``FEWEST_GROUPS``). The rows of ``DIFFERENCE`` are paired.
    """
    rows = [*found.rows, decide_by_source(found.rows[-1], found.other)]
    tested = rows[0].folds[0].rows
    probes = found.other.cohort.table["probe"].to_numpy()[tested]
    sets = {"all": np.full(len(tested), True)} | {probe: probes == probe for probe in ("convex", "linear")}
    parts = []
    for videos, keep in sets.items():
        if keep.any():
            part = _measure_rows(rows, keep, draws, seed)
            part.insert(0, "videos", videos)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _measure_rows(rows: Sequence[Decisions], keep: np.ndarray, draws: int, seed: int) -> pd.DataFrame:
    """Table 3 on some of the videos."""
    routes = {
        (row.features, row.classifier): [
            (fold.labels[keep], fold.probabilities[keep], fold.groups[keep]) for fold in row.folds
        ]
        for row in rows
    }
    groups = rows[0].folds[0].groups[keep]
    n_videos, n_groups = len(groups), len(np.unique(groups))
    measure = measure_severity(find_sources(groups))
    found = {key: (estimate(runs, draws, seed, measure), _spread(runs, measure)) for key, runs in routes.items()}
    for name, keys in _PAIRS.items():
        if set(keys.values()) <= set(routes):
            pair = [routes[key] for key in keys.values()]
            found[name] = (paired_difference(*pair, draws, seed, measure), _spread(pair[0], measure, pair[1]))
    cells = []
    for (features, classifier), (values, spread) in found.items():
        for metric in METRICS:
            value, low, high, *_ = values[metric]
            over = "groups" if n_groups >= FEWEST_GROUPS else "none"
            if over == "none":
                low = high = np.nan
                if metric == "accuracy" and features != DIFFERENCE:
                    over, (low, high) = "videos, exact", find_exact_interval(value * n_videos, n_videos)
            numbers = (100 * number for number in (value, spread[metric], low, high))
            cells.append((n_videos, n_groups, features, classifier, TASK, metric, *numbers, over, np.nan, np.nan))
    return pd.DataFrame(
        cells,
        columns=[
            "n_videos",
            "n_groups",
            "features",
            "classifier",
            "task",
            "metric",
            "mean",
            "sd",
            "ci_low",
            "ci_high",
            "interval",
            "published_mean",
            "published_sd",
        ],
    )


def _spread(runs: Sequence[Tested], measure: Measure, minus: Sequence[Tested] = ()) -> pd.Series:
    """SD over runs of each metric, or of its difference to other runs."""

    def values(of: Sequence[Tested]) -> pd.DataFrame:
        measured = [measure(labels, p, np.ones((1, len(labels)))) for labels, p, _ in of]
        return pd.DataFrame([{name: value[0] for name, value in one.items()} for one in measured])

    return (values(runs) - values(minus) if minus else values(runs)).std(ddof=0)


def widen_table3(table: pd.DataFrame) -> pd.DataFrame:
    """Table 3 as people read it: a row per way to decide, for each set of videos; a column per metric.

    Args:
        table: From ``make_table3``.

    Returns:
        Text cells ``mean ± sd [low, high]``, without brackets where there is no interval, an em dash where the
        metric is not defined.
    """
    words = FEATURE_TITLES | {SOURCE_ONLY: "anchor: source alone", DIFFERENCE: "difference, paired"}
    order = ["videos", "features", "classifier"]
    table = table.assign(cell=list(map(_cell, table.itertuples())))
    table["videos"] += " (" + table["n_videos"].astype(str) + ")"
    wide = table.pivot(index=order, columns="metric", values="cell")
    wide = wide.reindex(pd.MultiIndex.from_frame(table[order].drop_duplicates()))[list(METRICS)]
    wide = wide.rename(columns=METRICS).rename_axis(columns=None).reset_index()
    return wide.assign(features=wide["features"].replace(words))


def _cell(row: tuple) -> str:
    if np.isnan(row.mean):
        return "—"
    interval = "" if np.isnan(row.ci_low) else f" [{row.ci_low:.1f}, {row.ci_high:.1f}]"
    return f"{row.mean:.1f} ± {row.sd:.1f}{interval}"


def describe_tested(found: Elsewhere) -> str:
    """The line above Table 3: who was tested, and who was learnt from.

    Args:
        found: From ``decide_elsewhere``.

    Returns:
        One line.
    """
    other = found.other.cohort
    tested = other.table.iloc[found.rows[0].folds[0].rows]
    linear, groups = int((tested["probe"] == "linear").sum()), tested["group_id"].nunique()
    return " · ".join(
        [
            f"Tested on **real** patients, cohort `{other.name}`: {len(tested)} videos with a severity "
            f"({linear} linear, of the paper's {PAPER_VIDEOS}), {groups} groups, {CLIPS} clips per video",
            *(note for note in other.notes if note.endswith("videos present")),
            f"trained on: {describe_origin(found.home, found.runs)}",
        ]
    )


def describe_cells(found: Elsewhere) -> str:
    """The lines below Table 3: how to read it.

    Args:
        found: From ``decide_elsewhere``.

    Returns:
        A few sentences.
    """
    mixed = "Mixed: networks that learnt from the training cohort and simulated patients together. "
    return (
        "Percent. Cells: mean ± SD over runs [95 % interval]. Intervals are over groups of videos that may show one "
        f"person, and rough with so few groups; below {FEWEST_GROUPS} groups there is only the exact interval of "
        "accuracy, over videos, which is too narrow as far as videos of a group resemble each other. "
        f"{CHOSEN.capitalize()}: the expert of each run that did best on validation patients of the training cohort "
        f"({found.chosen}). {mixed * any(row.features == MIXED for row in found.rows)}Within sources: mean over "
        "sources that have both, by pairs. The source alone is read off the labels that it is judged by. The paper's "
        "numbers are not available."
    )


def describe_generalization(table: pd.DataFrame) -> list[str]:
    """What Table 3 says, in sentences, whichever way it goes.

    Args:
        table: From ``make_table3``.

    Returns:
        A sentence for each set of videos, also on mixed biomarkers where there are such; and one on what the source
        is worth.
    """
    cells = {(row.videos, row.features, row.classifier, row.metric): row for row in table.itertuples()}
    pairs = [name for name in _PAIRS if ("all", *name, "auc") in cells]
    videos = list(dict.fromkeys(table["videos"]))
    source = cells["all", SOURCE_ONLY, "—", "zero_auc"]
    routes = {words: key for name in pairs for words, key in _PAIRS[name].items()}
    within = [f"{words} {_value(cells['all', *key, 'zero_auc_within_sources'])}" for words, key in routes.items()]
    return [
        *(_tell_pair(cells, which, name) for name in pairs for which in videos),
        f"Severity 0 against 1-3: knowing the source alone is worth an AUC of {source.mean:.0f}, within sources 50. "
        f"There, {', '.join(within)}.",
    ]


def _tell_pair(cells: dict[tuple, tuple], videos: str, name: tuple[str, str]) -> str:
    """Two ways to decide on one set of videos, and whether they differ."""
    pair = cells[videos, *name, "auc"]
    metric = "accuracy" if np.isnan(pair.ci_low) else "auc"
    rows = {words: cells[videos, *key, metric] for words, key in _PAIRS[name].items()}
    values = ", ".join(f"{words} {_value(row)}" for words, row in rows.items())
    kind = "" if videos == "all" else f"{videos} "
    opening = f"{pair.n_videos} {kind}videos of {pair.n_groups} groups, {METRICS[metric]}: {values}"
    if metric != "auc":
        return f"{opening}: too few to compare."
    above = " and ".join(words for words, row in rows.items() if row.ci_low > 50)
    verdict = f"{_verdict(pair, _SUBJECTS[name])}; above chance: {above}" if above else NO_FINDING
    return f"{opening}; difference {_value(pair, '+')}: {verdict}."


def _value(row: tuple, sign: str = "") -> str:
    if np.isnan(row.mean):
        return "not defined"
    interval = "" if np.isnan(row.ci_low) else f" [{row.ci_low:{sign}.1f}, {row.ci_high:{sign}.1f}]"
    return f"{row.mean:{sign}.1f}{interval}"


def _verdict(difference: tuple, subject: str) -> str:
    if difference.ci_low > 0:
        return f"{subject} generalize better, and the interval excludes 0"
    if difference.ci_high < 0:
        return f"{subject} generalize worse, and the interval excludes 0"
    return "no difference that these videos could show"
