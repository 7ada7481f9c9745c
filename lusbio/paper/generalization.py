"""Table 3: how well severity is decided in POCOVID's patients by what was learnt from others.

POCOVID's severities are confounded with the source of a video: a network that recognises the scanner scores well. So
severity is also judged within sources, and what the source alone is worth stands beside it.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from lusbio.cohorts.pocovid import find_sources
from lusbio.experts.baselines import share_by_source
from lusbio.experts.other_cohort import OtherCohortResult, judge_other_cohort
from lusbio.experts.rows import CHOSEN, NETWORK, Row
from lusbio.experts.signs import decide_elsewhere_with_signs
from lusbio.files import Table
from lusbio.report.cells import METRIC_TITLES, measure_cells, name_row, say_cell, say_side, subtract_cells, widen
from lusbio.runs.origin import describe_origin
from lusbio.runs.predict import CLIPS, predict_each
from lusbio.runs.spec import PreparedCohort
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import finding_auc
from lusbio.statistics.within_sources import find_exact_interval, measure_severity
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SEVERITY, Kind, group_names

PAPER_VIDEOS = 21
"""Linear videos of POCOVID with a severity, duplicates not counted: what the paper tested on."""

FEWEST_GROUPS = 10
"""With fewer groups nothing is drawn anew: an interval over a handful would be too narrow, or a point. Accuracy then
has its exact interval over videos, the AUC none. (Engineering choice.)"""

MADE = ("table3", "findings_elsewhere")
"""What the notebook publishes."""

METRICS = ("auc", "accuracy", "zero_auc", "zero_auc_within_sources")

NO_FINDING = "no finding, as neither is above chance"
"""Said whatever the difference is: less wrong than another is not generalizing. (Engineering choice.)"""

WAYS = {
    "experts on biomarkers": (Kind.BIOMARKERS, CHOSEN),
    "the end-to-end network": (Kind.END_TO_END, NETWORK),
    "experts on mixed biomarkers": (Kind.MIXED, CHOSEN),
    "experts on measured signs": (Kind.SIGNS, CHOSEN),
    "experts on signs and biomarkers": (Kind.SIGNS_BIOMARKERS, CHOSEN),
}
"""Ways to decide that are compared."""

PAIRS = {
    f"{CHOSEN} minus {NETWORK}": ("experts on biomarkers", "the end-to-end network"),
    f"{CHOSEN}, mixed minus own": ("experts on mixed biomarkers", "experts on biomarkers"),
    f"{CHOSEN}, signs minus own": ("experts on measured signs", "experts on biomarkers"),
    f"{CHOSEN}, signs and own minus own": ("experts on signs and biomarkers", "experts on biomarkers"),
}
"""Differences by classifier: first minus second of ``WAYS``."""


def check_comparable(study: Study, other: Study) -> None:
    """End the notebook where a study's networks have nothing to show on another cohort, or nothing to be judged by."""
    if study.cohort.name == other.cohort.name:
        study.end_here(f"No Table 3: a test of {study.cohort.name} on itself is no generalization.", *MADE)
    for task in (SEVERITY, BIOMARKER_TASK):
        study.check_learnable(task, *MADE)
    if other.table[SEVERITY].isna().all():
        study.end_here(f"No Table 3: none of the {len(other.videos)} videos has a severity.", *MADE)


def make_table3(result: OtherCohortResult, draws: int) -> Table:
    """Table 3: severity of another cohort's videos. The paper's numbers are not available.

    Args:
        result: From ``decide_other_cohort``.
        draws: Draws of groups behind an interval.

    Returns:
        Cells with the columns ``videos`` (``"all"``, ``"convex"``, ``"linear"``), ``n_videos, n_groups`` in front, and
        ``interval``: over what it is, ``"groups"``, ``"videos, exact"``, or ``"none"`` (see ``FEWEST_GROUPS``). Rows of
        ``Kind.DIFFERENCE`` are the ``PAIRS``.
    """
    majority, shares = result.rows[-1], share_by_source(SEVERITY, result.other)
    by_source = judge_other_cohort(
        replace(majority, features=Kind.SOURCE_ONLY), [shares] * len(majority.runs), result.other
    )
    rows = [*result.rows, by_source]
    probes = result.other.table["probe"].to_numpy()[rows[0].held_out[0].rows]
    sets = {"all": np.full(len(probes), True)} | {probe: probes == probe for probe in ("convex", "linear")}
    parts = [_measure(rows, videos, keep, draws) for videos, keep in sets.items() if keep.any()]
    cells = pd.concat(parts, ignore_index=True).assign(published_mean=np.nan, published_sd=np.nan)
    counted = cells.assign(videos=cells["videos"] + " (" + cells["n_videos"].astype(str) + ")")
    by = ["videos", "features", "classifier"]
    shown = widen(counted, by, heading=lambda cell: METRIC_TITLES[cell["metric"]])
    note = f"Experts chosen, run by run: {result.chosen}."
    if any(row.features == Kind.MIXED for row in rows):
        note += " Mixed: networks that learnt from the training cohort and simulated patients together."
    return Table(cells, shown, note, _describe_tested(result))


def make_flags(result: OtherCohortResult, draws: int) -> Table:
    """Whether findings that POCOVID's metadata mention are seen in its convex videos, by biomarkers and by signs.

    Returns:
        Cells ``features, finding, metric, mean, sd, ci_low, ci_high``: AUC of mentioned against not mentioned, which
        does not mean absent. Of each finding the last row is signs minus biomarkers.
    """
    home, other = result.home, result.other
    runs, convex = home.runs(BIOMARKER_TASK), np.flatnonzero(other.table["probe"] == "convex")
    away, groups, named, pairs = predict_each(runs, other, home.jobs), other.table["group_id"].to_numpy(), [], []
    for finding, mentioned in find_flags(other).items():
        none = group_names(finding)[0]
        asked = home.with_task(finding, ("no", "yes"), home.table[none].map({0: "yes", 1: "no"}))
        signs = decide_elsewhere_with_signs(runs, finding, asked, other)
        scores = [1 - p[:, BIOMARKER_NAMES.index(none)] for p in away], [p[:, 1] for p in signs]
        ways = [[HeldOut(mentioned[convex], p[convex], groups[convex], convex) for p in by_run] for by_run in scores]
        kinds = zip((Kind.BIOMARKERS, Kind.SIGNS), ways, strict=True)
        named += [({"finding": finding, "features": kind}, held_out) for kind, held_out in kinds]
        pairs.append(({"finding": finding, "features": Kind.DIFFERENCE}, *reversed(ways)))
    cells = pd.concat([measure_cells(named, draws, finding_auc), subtract_cells(pairs, draws, finding_auc)])
    shown = widen(cells, ["finding", "features"], heading=lambda cell: METRIC_TITLES[cell["metric"]])
    said = ", ".join(f"{finding} in {mentioned[convex].sum()}" for finding, mentioned in find_flags(other).items())
    note = f"Mentioned of {len(convex)} convex videos of {len(np.unique(groups[convex]))} groups: {said}."
    trained_on = describe_origin(home, runs)
    origin = f"Tested on **real** patients, cohort `{other.cohort.name}` · trained on: {trained_on}"
    return Table(cells, shown, note, origin)


def find_flags(other: PreparedCohort) -> dict[str, np.ndarray]:
    """Whether the metadata mention a finding, int (V,): where its "none" is known, it is known not to be so."""
    return {name: other.table[group_names(name)[0]].notna().to_numpy(int) for name in ("A-lines", "B-lines")}


def _measure(rows: list[Row], videos: str, keep: np.ndarray, draws: int) -> pd.DataFrame:
    """Table 3 on some of the videos, a mask of those that are tested."""
    kept = {(row.features, row.classifier): [fold.keep(keep) for fold in row.held_out] for row in rows}
    groups = rows[0].held_out[0].groups[keep]
    measure, n_groups = measure_severity(find_sources(groups)), len(np.unique(groups))
    counts = {"videos": videos, "n_videos": len(groups), "n_groups": n_groups}
    named = [(counts | name_row(row), kept[row.features, row.classifier]) for row in rows]
    pairs = [
        (counts | {"features": Kind.DIFFERENCE, "classifier": name, "task": SEVERITY}, *(kept[WAYS[w]] for w in ways))
        for name, ways in PAIRS.items()
        if all(WAYS[way] in kept for way in ways)
    ]
    found = [measure_cells(named, draws, measure, METRICS), subtract_cells(pairs, draws, measure, METRICS)]
    cells = pd.concat(found, ignore_index=True).drop(columns="p_value").assign(interval="groups")
    if n_groups < FEWEST_GROUPS:
        cells = cells.assign(ci_low=np.nan, ci_high=np.nan, interval="none")
        exact = (cells["metric"] == "accuracy") & (cells["features"] != Kind.DIFFERENCE)
        right = cells.loc[exact, "mean"] / 100 * len(groups)
        cells.loc[exact, ["ci_low", "ci_high"]] = [np.multiply(100, find_exact_interval(n, len(groups))) for n in right]
        cells.loc[exact, "interval"] = "videos, exact"
    return cells


def _describe_tested(result: OtherCohortResult) -> str:
    """The line above Table 3: who was tested, and who was learnt from."""
    other = result.other.cohort
    tested = other.table.iloc[result.rows[0].held_out[0].rows]
    linear, groups = int((tested["probe"] == "linear").sum()), tested["group_id"].nunique()
    tested_on = (
        f"Tested on **real** patients, cohort `{other.name}`: {len(tested)} videos with a severity "
        f"({linear} linear, of the paper's {PAPER_VIDEOS}), {groups} groups, {CLIPS} clips per video"
    )
    return " · ".join([tested_on, *other.present, f"trained on: {describe_origin(result.home, result.runs)}"])


def describe_generalization(cells: pd.DataFrame) -> list[str]:
    """What Table 3 says, in sentences, whichever way it goes.

    Returns:
        A sentence for each set of videos, also on mixed biomarkers where there are such; and one on what the source is
        worth.
    """
    found = {(row.videos, row.features, row.classifier, row.metric): row for row in cells.itertuples()}
    pairs = [name for name in PAIRS if ("all", Kind.DIFFERENCE, name, "auc") in found]
    ways = dict.fromkeys(way for name in pairs for way in PAIRS[name])
    within = [f"{way} {say_cell(found['all', *WAYS[way], 'zero_auc_within_sources'])}" for way in ways]
    source = found["all", Kind.SOURCE_ONLY, "—", "zero_auc"]
    return [
        *(_tell_pair(found, videos, name) for name in pairs for videos in dict.fromkeys(cells["videos"])),
        f"Severity 0 against 1-3: knowing the source alone is worth an AUC of {source.mean:.0f}, within sources 50. "
        f"There, {', '.join(within)}.",
    ]


def _tell_pair(found: Mapping[tuple, tuple], videos: str, name: str) -> str:
    """Two ways to decide on one set of videos, and whether they differ."""
    pair = found[videos, Kind.DIFFERENCE, name, "auc"]
    metric = "accuracy" if np.isnan(pair.ci_low) else "auc"
    rows = {way: found[videos, *WAYS[way], metric] for way in PAIRS[name]}
    kind = "" if videos == "all" else f"{videos} "
    told = f"{pair.n_videos} {kind}videos of {pair.n_groups} groups, {METRIC_TITLES[metric]}: "
    told += ", ".join(f"{way} {say_cell(row)}" for way, row in rows.items())
    if metric != "auc":
        return f"{told}: too few to compare."
    told += f"; difference {say_cell(pair, '+')}: "
    above = [way for way, row in rows.items() if row.ci_low > 50]
    if not above:
        return f"{told}{NO_FINDING}."
    subject = PAIRS[name][0].removeprefix("experts on ")
    better, worse = (f"{subject} generalize {how}, and the interval excludes 0" for how in ("better", "worse"))
    verdict = say_side(pair.ci_low, pair.ci_high, better, worse, "no difference that these videos could show")
    return f"{told}{verdict}; above chance: {' and '.join(above)}."
