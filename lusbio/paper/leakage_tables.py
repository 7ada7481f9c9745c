"""Numbers of the ladder: how much each rung loses, why, and what an interval over the wrong unit hides."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from lusbio.experts.inputs import END_TO_END, MAJORITY
from lusbio.paper.generalization import SOURCE_ONLY, measure_severity
from lusbio.paper.leakage import (
    DIAGNOSIS,
    FILES,
    FRAMES,
    PIXELS,
    PROBE,
    RUNGS,
    SOURCE,
    Decided,
    Material,
    deal_folds,
    find_units,
)
from lusbio.report.tables import FEATURE_TITLES
from lusbio.runs.origin import find_commit
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.statistics.bootstrap import Measure, Tested, estimate, paired_difference
from lusbio.statistics.weighted_metrics import weighted_task_metrics

DIAGNOSIS_METRICS = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "auc": "AUC, one against one"}
SEVERITY_METRICS = {"zero_auc": "AUC, all pairs of videos", "zero_auc_within_sources": "AUC, pairs of one source"}
"""Metrics of diagnosis, and of severity none against some, in words."""

NOTE = (
    "Percent. Cells: mean ± SD over deals of the folds [95 % interval over conservative groups, on every rung]. Every "
    "video was decided while it was held out. The source alone is read off the labels that it is judged by."
)
"""Below the ladder."""

_ORDER = (PIXELS, END_TO_END, FILES, SOURCE, SOURCE_ONLY, MAJORITY)


def measure_diagnosis(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """A measure for ``statistics``: ``DIAGNOSIS_METRICS`` for many weightings at once.

    Args:
        labels: Shape (V,), class indices.
        probabilities: Shape (V, K), rows that sum to 1.
        weights: Shape (D, V).

    Returns:
        Each of shape (D,). Balanced accuracy is the mean over the classes that have weight of the share that
        is right; AUC is that of ``task_metrics``.
    """
    found = weighted_task_metrics(labels, probabilities, weights)
    of_class = labels[:, None] == np.arange(probabilities.shape[1])
    right = of_class & (probabilities.argmax(axis=1) == labels)[:, None]
    support = weights @ of_class  # (D, K)
    recall = np.divide(weights @ right, support, out=np.zeros_like(support), where=support > 0)
    balanced = recall.sum(axis=1) / (support > 0).sum(axis=1)
    return {"accuracy": found["accuracy"], "balanced_accuracy": balanced, "auc": found["auc"]}


def make_ladder(decided: Decided, material: Material, draws: int, seed: int = 0) -> pd.DataFrame:
    """The ladder as a table: every way to decide on every rung.

    Args:
        decided: About the material.
        material: The videos.
        draws: Draws of conservative groups behind an interval.
        seed: Of the draws.

    Returns:
        Columns ``features, rung, task, n_videos, n_units, metric, mean, sd, ci_low, ci_high``, in percent; mean and
        SD are over deals of the folds, ``n_units`` is how many there are to hold out. Metrics are
        ``DIAGNOSIS_METRICS``, or those of severity.
    """
    names, measure = _metrics_of(material)
    whole, rows = np.ones((1, len(material.labels))), []
    for (features, rung), tested in sorted(decided.items(), key=lambda item: _ORDER.index(item[0][0])):
        by_deal = pd.DataFrame([{k: v[0] for k, v in measure(y, p, whole).items()} for y, p, _ in tested])
        found = estimate(tested, draws, seed, measure)
        n_units = len(np.unique(find_units(material, rung))) if rung in (*RUNGS, *material.units) else None
        for name in names:
            spread = by_deal[name].std(ddof=0)
            numbers = (100 * value for value in (found[name].value, spread, found[name].low, found[name].high))
            rows.append((features, rung, material.task, len(material.labels), n_units, name, *numbers))
    table = pd.DataFrame(
        rows, columns=["features", "rung", "task", "n_videos", "n_units", "metric", "mean", "sd", "ci_low", "ci_high"]
    )
    return table.astype({"n_units": "Int64"})


def _metrics_of(material: Material) -> tuple[dict[str, str], Measure]:
    if material.task == DIAGNOSIS:
        return DIAGNOSIS_METRICS, measure_diagnosis
    return SEVERITY_METRICS, measure_severity(material.units["source"].to_numpy())


def measure_falls(decided: Decided, draws: int, seed: int = 0) -> pd.DataFrame:
    """What is lost from each rung to the next, on the same videos and the same draws.

    Args:
        decided: About diagnosis.
        draws: Draws of conservative groups behind an interval.
        seed: Of the draws.

    Returns:
        Columns ``features, rung, next_rung, metric, difference, ci_low, ci_high``: points, below 0 for a fall.
    """
    rows = []
    for features in dict.fromkeys(features for features, _ in decided):
        rungs = [rung for rung in RUNGS if (features, rung) in decided]
        for rung, following in zip(rungs, rungs[1:], strict=False):
            pair = decided[features, following], decided[features, rung]
            deals = max(map(len, pair))  # where there is one deal only, it meets each of the others
            after, before = (list(tested) * (deals // len(tested)) for tested in pair)
            for name, found in paired_difference(after, before, draws, seed, measure_diagnosis).items():
                rows.append((features, rung, following, name, *(100 * value for value in found[:3])))
    columns = ["features", "rung", "next_rung", "metric", "difference", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def compare_intervals(tested: Sequence[Tested], material: Material, draws: int, seed: int = 0) -> pd.DataFrame:
    """The interval of one and the same accuracy, drawn over videos, ids, groups and sources.

    Args:
        tested: One way to decide on one rung.
        material: The videos.
        draws: Draws.
        seed: Of the draws.

    Returns:
        One row per unit: ``drawn, units, accuracy, ci_low, ci_high, width``, in percent.
    """
    rows = []
    for unit in material.units:
        owners = material.units[unit].to_numpy()
        runs = [(labels, probabilities, owners) for labels, probabilities, _ in tested]
        found = [100 * value for value in estimate(runs, draws, seed, measure_diagnosis)["accuracy"]]
        rows.append((RUNGS.get(unit, unit).split(",")[0], len(np.unique(owners)), *found, found[2] - found[1]))
    return pd.DataFrame(rows, columns=["drawn", "units", "accuracy", "ci_low", "ci_high", "width"])


def find_lookalikes(material: Material) -> pd.DataFrame:
    """Whom a held-out frame resembles most among the frames left to train on, rung by rung.

    Args:
        material: The videos.

    Returns:
        Percent of frames. Index: titles of rungs. Columns: the closest tie to the training frame that is nearest
        in pixels: the same video, patient, group or source, or none of these (elsewhere).
    """
    frames = material.pixels.reshape(-1, material.pixels.shape[-1])  # (V * F, 196)
    video_of = np.repeat(np.arange(len(material.labels)), FRAMES)
    ties, shares = list(material.units), {}
    for rung, title in RUNGS.items():
        (folds,) = deal_folds(rung, repeats=1)
        closest = np.full(len(frames), "elsewhere", dtype=object)
        for train, test in folds.split(frames, groups=find_units(material, rung)):
            nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(frames[train])
            twins = video_of[train[nearest.kneighbors(frames[test], return_distance=False)[:, 0]]]
            for tie in reversed(ties):
                owners = material.units[tie].to_numpy()
                closest[test[owners[twins] == owners[video_of[test]]]] = f"same {tie}"
        shares[title] = 100 * pd.Series(closest).value_counts(normalize=True)
    columns = [*(f"same {tie}" for tie in ties), "elsewhere"]
    return pd.DataFrame(shares).T.reindex(columns=columns).fillna(0.0)


def name_features(name: str) -> str:
    """What is decided from, in words."""
    return FEATURE_TITLES.get(name, name.replace("_", " "))


def widen_ladder(table: pd.DataFrame) -> pd.DataFrame:
    """The ladder as people read it: a row per way to decide and rung, a column per metric.

    Args:
        table: From ``make_ladder``.

    Returns:
        Text cells ``mean ± sd [low, high]``, an em dash where the metric is not defined.
    """
    cells = [
        "—" if np.isnan(row.mean) else f"{row.mean:.1f} ± {row.sd:.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}]"
        for row in table.itertuples()
    ]
    units = table["n_units"].astype(object).where(table["n_units"].notna(), "—")
    table = table.assign(cell=cells, n_units=units)
    order = ["features", "rung", "n_units"]
    wide = table.pivot(index=order, columns="metric", values="cell")
    wide = wide.reindex(pd.MultiIndex.from_frame(table[order].drop_duplicates()))
    wide = wide[list(dict.fromkeys(table["metric"]))].rename_axis(columns=None).reset_index()
    wide = wide.assign(features=wide["features"].map(name_features), rung=wide["rung"].replace(RUNGS))
    names = {"features": "decided from", "rung": "split by", "n_units": "of these"}
    return wide.rename(columns=names | DIAGNOSIS_METRICS | SEVERITY_METRICS)


def show_down_to(shown: pd.DataFrame, rung: str) -> pd.DataFrame:
    """The rungs of a ladder down to one of them.

    Args:
        shown: From ``widen_ladder``.
        rung: A key of ``RUNGS``.

    Returns:
        Its rows.
    """
    seen = list(RUNGS.values())[: list(RUNGS).index(rung) + 1]
    return shown[shown["split by"].isin(seen)]


def arrange_for_figure(table: pd.DataFrame) -> pd.DataFrame:
    """The ladder as ``result_figures.plot_results`` takes it: rungs where classifiers stand."""
    return table.assign(classifier=table["rung"].replace(RUNGS), published_mean=np.nan)


def describe_material(material: Material, prepared: PreparedCohort, runs: Sequence[Run] = ()) -> str:
    """The line above a table: how many videos were used, of how many, and what decided.

    Args:
        material: The videos.
        prepared: Their cohort.
        runs: Networks behind the table.

    Returns:
        One line.
    """
    cohort, units = prepared.cohort, material.units
    owners = [units["group"][material.labels == k] for k in range(len(material.classes))]
    classes = ", ".join(
        f"{name}: {len(of)} in {of.nunique()}" for of, name in zip(owners, material.classes, strict=True)
    )
    return " · ".join(
        [
            f"**Real** patients, cohort `{cohort.name}`: {len(units)} {PROBE} videos of {units['group'].nunique()} "
            f"conservative groups ({classes}) and {units['source'].nunique()} sources",
            *(note for note in cohort.notes if note.endswith("videos present")),
            f"profile `{prepared.profile.name}`",
            *sorted({f"initial weights: {run.spec.initial_weights}" for run in runs}),
            *sorted({f"{run.info['device']} ({run.info['precision']})" for run in runs}),
            f"commit `{find_commit()}`",
        ]
    )


def describe_ladder(table: pd.DataFrame, falls: pd.DataFrame) -> list[str]:
    """What the ladder says, in sentences, whichever way it goes.

    Args:
        table: From ``make_ladder``, of diagnosis, with class frequencies.
        falls: From ``measure_falls``.

    Returns:
        A sentence for the whole ladder, one per step of pixels and of the network, one for what needs no picture.
    """
    cells = {(row.features, row.rung): row for row in table[table["metric"] == "accuracy"].itertuples()}
    climbed = [rung for rung in RUNGS if (PIXELS, rung) in cells]
    first, last = cells[PIXELS, climbed[0]], cells[PIXELS, climbed[-1]]
    sentences = [
        f"One model, {first.n_videos} videos, accuracy: {say_value(first)} split by {RUNGS[climbed[0]]}, "
        f"{say_value(last)} split by {RUNGS[climbed[-1]]}; always the most frequent class: "
        f"{cells[MAJORITY, '—'].mean:.0f}."
    ]
    for row in falls[falls["metric"] == "balanced_accuracy"].itertuples():
        if row.features in (PIXELS, END_TO_END):
            sentences.append(
                f"{name_features(row.features).capitalize()}, from {RUNGS[row.rung]} to {RUNGS[row.next_rung]}: "
                f"balanced accuracy {row.difference:+.0f} points [{row.ci_low:+.0f}, {row.ci_high:+.0f}], "
                f"{_verdict(row)}."
            )
    blind = [f"{name_features(k)} {say_value(cells[k, 'video'])}" for k in (SOURCE, FILES) if (k, "video") in cells]
    return [*sentences, f"Without a picture, split by video, accuracy: {', '.join(blind)}."] if blind else sentences


def describe_severity(table: pd.DataFrame, material: Material) -> list[str]:
    """What severity looks like across and within sources, in sentences.

    Args:
        table: From ``make_ladder``, of severity, with the known source.
        material: The videos.

    Returns:
        A sentence on the source, and one per rung.
    """
    cells = {(row.features, row.rung, row.metric): row for row in table.itertuples()}
    counts = pd.crosstab(material.units["source"], material.labels)
    pairs = counts.prod(axis=1)
    floor = cells[SOURCE_ONLY, "—", "zero_auc"]
    sentences = [
        f"Severity {' against '.join(material.classes)}, {floor.n_videos} videos: {(pairs > 0).sum()} of {len(counts)} "
        f"sources have both, with {pairs.sum()} pairs of videos. The source alone is worth an AUC of {floor.mean:.0f} "
        "over all pairs; within sources it is worth 50, by definition."
    ]
    for (features, rung, metric), row in cells.items():
        if features == PIXELS and metric == "zero_auc":
            within = cells[PIXELS, rung, "zero_auc_within_sources"]
            found = "not defined" if np.isnan(within.mean) else say_value(within)
            sentences.append(
                f"{name_features(PIXELS).capitalize()}, split by {RUNGS[rung]}: {say_value(row)} over all pairs, "
                f"{found} within sources."
            )
    return sentences


def say_value(row: tuple) -> str:
    """A mean with its interval, without decimals, e.g. ``"77 [63, 87]"``."""
    return f"{row.mean:.0f} [{row.ci_low:.0f}, {row.ci_high:.0f}]"


def _verdict(row: tuple) -> str:
    if row.ci_high < 0:
        return "a fall, and the interval excludes 0"
    return "a rise, and the interval excludes 0" if row.ci_low > 0 else "no difference that these videos could show"
