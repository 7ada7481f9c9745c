"""Numbers about real patients: every way to decide beside the floors, with paired differences. Data frames only."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lusbio.cohorts.covid_blues import DEVELOPMENT_PATIENTS, SEEN_PATIENTS
from lusbio.experts.inputs import BIOMARKERS, END_TO_END, MAJORITY
from lusbio.experts.other_cohort import CHOSEN
from lusbio.experts.rows import ANCHOR_EXPERT, NETWORK, Decisions
from lusbio.paper.closer_look import format_interval
from lusbio.paper.generalization import DIFFERENCE
from lusbio.paper.leakage import PIXELS
from lusbio.paper.real_patients import (
    ADAPTED,
    ALL_PLACES,
    FINDINGS,
    FROM_SIMULATED,
    FROZEN,
    FUSED,
    METADATA,
    QUESTIONS,
    RATED_BITS,
)
from lusbio.paper.real_patients_rows import LINEAR, SHARED, Material, aggregate_patients, leave_out
from lusbio.report.compare import SIGNIFICANT
from lusbio.report.tables import METRIC_TITLES, TABLE1_METRICS, describe_absent, make_task_table, read_published
from lusbio.runs.mixed_cohort import MIXED
from lusbio.runs.origin import describe_origin
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.statistics.bootstrap import Difference, Tested, holm, paired_difference
from lusbio.vocabulary import TASKS, title_of

FLOOR = ((PIXELS, LINEAR), (PIXELS, ANCHOR_EXPERT))
"""What differences are taken to: two throw-away models on pooled pixels. Being above means being above both."""

ROUTES = (
    *(END_TO_END, BIOMARKERS, FROM_SIMULATED, FROZEN, ADAPTED, FUSED, MIXED),
    *(features + ALL_PLACES for features, _ in SHARED),
)
"""What is compared with the floor, and corrected for being so many."""

PAIRS = ((FROZEN, END_TO_END), (ADAPTED, END_TO_END), (MIXED, END_TO_END), (MIXED, ADAPTED))
"""What is compared with each other, first minus second: the paper's question, and what mixed training adds."""

DESCRIBED = ("sf_ratio",)
"""Tasks with too many classes for these patients: numbers, but no verdict."""

WORDS = {
    FROZEN: "biomarkers, simulated network, frozen",
    ADAPTED: "biomarkers, simulated network, adapted",
    FUSED: "biomarkers, frozen and adapted together",
    MIXED: "biomarkers, mixed training",
    BIOMARKERS: "biomarkers, own network",
    FROM_SIMULATED: "pretrained on simulated biomarkers",
    ADAPTED + ALL_PLACES: "biomarkers, simulated network, adapted; other places heeded",
    FROM_SIMULATED + ALL_PLACES: "pretrained on simulated biomarkers; other places heeded",
    RATED_BITS: "anchor: raters' A-lines and B-lines",
    END_TO_END: "end-to-end",
    PIXELS: "floor: pooled pixels",
    METADATA: "floor: metadata",
    MAJORITY: "anchor: class frequencies",
    DIFFERENCE: "difference, paired",
}
"""What rows decide from, in words."""

LOOKED_AT = (*DEVELOPMENT_PATIENTS, *SEEN_PATIENTS)
"""Patients of whom somebody who made the simulator saw a frame. Its networks are measured without them too."""

EVERYBODY, UNSEEN = "all", "not looked at"

NOTE = (
    "Percent. Cells: mean over folds [95 % interval over patients], then in brackets the paired difference to the "
    "better of the two models on pixels. Validated best: of each fold the expert, or the model of the floor, that did "
    "best on validation patients. Decisions about a patient are the mean over the patient's videos. Nothing but the "
    "better floor, which is to the routes' disadvantage, was chosen on test patients. The last rows are differences "
    "between ways to decide, by pairs on the same patients. Other places heeded: half of a video's probabilities are "
    "the mean over the patient's videos, the one lever that paid for severity on validation patients of two folds, who "
    "are test patients of two others. S/F rests on an oxygen fraction "
    "that was estimated from litres per minute."
)
"""Below the table."""

FINDINGS_NOTE = (
    "AUC, percent. Cells as in the table of tasks. The simulator was made with frames of some patients at hand; the "
    f"rows *{UNSEEN}* leave all of them out."
)
"""Below the table of findings."""


def title_of_task(task: str) -> str:
    """The heading of a task of ``TASKS``, ``QUESTIONS`` or ``FINDINGS``."""
    return (QUESTIONS | FINDINGS)[task].title if task in QUESTIONS | FINDINGS else title_of(task)


def unit_of(task: str) -> str:
    """What a task is about, ``"video"`` or ``"patient"``."""
    if task in FINDINGS:
        return "video"
    return TASKS[QUESTIONS[task].column if task in QUESTIONS else task].level


def count_answers(prepared: PreparedCohort) -> pd.DataFrame:
    """Videos and patients by answer to each of ``QUESTIONS`` and ``FINDINGS``.

    Args:
        prepared: From ``find_real_patients``.

    Returns:
        Columns ``videos, patients``; index ``question, answer``. A patient may have videos with either answer.
    """
    table = prepared.cohort.table
    asked = {name: question.title for name, question in (QUESTIONS | FINDINGS).items() if name in table}
    counts = [table.groupby(name, observed=False)["patient_id"].agg(["count", "nunique"]) for name in asked]
    together = pd.concat(counts, keys=asked.values(), names=["question", "answer"])
    return together.set_axis(["videos", "patients"], axis=1)


def make_real_table(rows: Sequence[Decisions], draws: int, seed: int = 0) -> pd.DataFrame:
    """Table 1 on real patients.

    Args:
        rows: Of all tasks, from ``decide_task``.
        draws: Draws of patients behind an interval.
        seed: Of the draws.

    Returns:
        As ``tables.make_task_table``, in percent, with the columns ``unit`` (``"video"``; for tasks about patients
        ``"patient"`` too), ``over_floor, over_low, over_high`` (paired difference to the better of the ``FLOOR``
        models; NaN for pixels and single experts), ``p_value`` (the larger of both), and ``p_holm``, corrected over
        the ``ROUTES`` that a table for people shows, within a task, unit and metric. Rows of ``DIFFERENCE`` are the
        ``PAIRS``, named in ``classifier``, with a p-value of their own that is corrected over them.
    """
    parts = []
    for task in dict.fromkeys(row.task for row in rows):
        of_task = [row for row in rows if row.task == task]
        parts.append(_measure(of_task, "video", TABLE1_METRICS, draws, seed))
        if unit_of(task) == "patient":
            patients = [aggregate_patients(row) for row in of_task]
            parts.append(_measure(patients, "patient", TABLE1_METRICS, draws, seed))
    return pd.concat(parts, ignore_index=True)


def make_findings_table(rows: Sequence[Decisions], draws: int, seed: int = 0) -> pd.DataFrame:
    """How well A-lines and B-lines are found, by networks and floors in the same folds.

    Args:
        rows: Of all findings, from ``decide_finding``.
        draws: Draws of patients behind an interval.
        seed: Of the draws.

    Returns:
        As ``make_real_table``, AUC only, with the columns ``patients``: ``EVERYBODY``, or ``UNSEEN``, all but those of
        ``LOOKED_AT``, where there are such; and ``n_patients``.
    """
    parts = []
    for finding in dict.fromkeys(row.task for row in rows):
        of_finding = [row for row in rows if row.task == finding]
        unseen = [leave_out(row, LOOKED_AT) for row in of_finding]
        for patients, some in ((EVERYBODY, of_finding), (UNSEEN, unseen)):
            if some[0].folds:
                n_patients = sum(len(np.unique(fold.groups)) for fold in some[0].folds)
                part = _measure(some, "video", ("auc",), draws, seed)
                parts.append(part.assign(patients=patients, n_patients=n_patients))
    return pd.concat(parts, ignore_index=True)


def _measure(rows: Sequence[Decisions], unit: str, metrics: Sequence[str], draws: int, seed: int) -> pd.DataFrame:
    """Cells of one task, with differences to the floor. Published numbers are about videos."""
    published = read_published("table1")
    table = make_task_table(rows, published if unit == "video" else published.iloc[:0], metrics, draws, seed)
    table.insert(3, "unit", unit)
    floors = [row for row in rows if (row.features, row.classifier) in FLOOR]
    found = {(row.features, row.classifier): _compare(row, floors, draws, seed) for row in rows}
    cells = zip(table["features"], table["classifier"], table["metric"], strict=True)
    over = pd.DataFrame([found[features, classifier][metric] for features, classifier, metric in cells])
    names = ["over_floor", "over_low", "over_high"]
    table[names] = 100 * over[["value", "low", "high"]].to_numpy()
    table["p_value"] = over["p_value"].to_numpy()
    tested = table["features"].isin(ROUTES) & table["classifier"].isin((NETWORK, CHOSEN))
    corrected = table[tested].groupby("metric")["p_value"].transform(holm)
    table = table.assign(p_holm=corrected.reindex(table.index))
    return pd.concat([table, _subtract(rows, unit, metrics, draws, seed)], ignore_index=True)


def _subtract(rows: Sequence[Decisions], unit: str, metrics: Sequence[str], draws: int, seed: int) -> pd.DataFrame:
    """The ``PAIRS`` of one task: networks where they decide by themselves, else the experts that validated best."""
    shown = {row.features: row for kind in (CHOSEN, NETWORK) for row in rows if row.classifier == kind}
    cells = []
    for first, second in (pair for pair in PAIRS if set(pair) <= set(shown)):
        found = paired_difference(_tested(shown[first]), _tested(shown[second]), draws, seed)
        for metric in metrics:
            value, low, high, p_value = found[metric]
            cells.append(
                {
                    "features": DIFFERENCE,
                    "classifier": f"{first} minus {second}",
                    "task": rows[0].task,
                    "unit": unit,
                    "metric": metric,
                    "mean": 100 * value,
                    "ci_low": 100 * low,
                    "ci_high": 100 * high,
                    "p_value": p_value,
                }
            )
    pairs = pd.DataFrame(cells)
    return pairs.assign(p_holm=pairs.groupby("metric")["p_value"].transform(holm)) if cells else pairs


def _tested(row: Decisions) -> list[Tested]:
    return [(fold.labels, fold.probabilities, fold.groups) for fold in row.folds]


def _compare(row: Decisions, floors: Sequence[Decisions], draws: int, seed: int) -> Mapping[str, Difference]:
    """The paired difference of each metric to the better floor, with the larger p-value; some rows have none."""
    if row.features == PIXELS or _is_single_expert(row.features, row.classifier):
        return dict.fromkeys(TABLE1_METRICS, Difference(*[np.nan] * 4))
    found = [paired_difference(_tested(row), _tested(floor), draws, seed) for floor in floors]
    return {
        metric: min((one[metric] for one in found), key=lambda difference: difference.value)._replace(
            p_value=max(one[metric].p_value for one in found)
        )
        for metric in TABLE1_METRICS
    }


def _is_single_expert(features: str, classifier: str) -> bool:
    """Whether a row is one expert of several, and not the one that validated best."""
    of_experts = (END_TO_END, BIOMARKERS, FROZEN, ADAPTED, FUSED, MIXED)
    return features in of_experts and classifier not in (NETWORK, CHOSEN)


def pick_shown(table: pd.DataFrame) -> pd.DataFrame:
    """The cells that people are shown: each task in its own unit, of the experts the one that validated best.

    Args:
        table: From ``make_real_table`` or ``make_findings_table``.

    Returns:
        Some of the rows, in order; single experts and, for tasks about patients, videos are left out.
    """
    own_unit = table["unit"] == table["task"].map(unit_of)
    rows = zip(table["features"], table["classifier"], strict=True)
    single_expert = pd.Series([_is_single_expert(*row) for row in rows], table.index)
    return table[own_unit & ~single_expert].reset_index(drop=True)


def widen_real_table(table: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """A table as people read it: a row per way to decide, a column per task and metric.

    Args:
        table: From ``pick_shown``.
        by: More columns that rows are told apart by, e.g. ``["patients"]``.

    Returns:
        Text cells ``mean [low, high] (difference [low, high])``; an em dash where there is nothing.
    """
    titles = [
        f"{title_of_task(task)}{' (patients)' * (unit == 'patient')}, {METRIC_TITLES[metric]}"
        for task, unit, metric in zip(table["task"], table["unit"], table["metric"], strict=True)
    ]
    table = table.assign(column=titles, cell=[_cell(row) for row in table.itertuples()])
    index = [*by, "features", "classifier"]
    rows = table[index].drop_duplicates()
    wide = table.pivot(index=index, columns="column", values="cell").reindex(pd.MultiIndex.from_frame(rows))
    wide = wide[list(dict.fromkeys(titles))].fillna("—").reset_index().rename_axis(columns=None)
    if set(table["task"]) <= set(FINDINGS):
        wide["classifier"] = wide["classifier"].replace(NETWORK, "TSM")  # as in Table 2; nothing is end-to-end here
    pairs = {f"{first} minus {second}": _name_pair(first, second) for first, second in PAIRS}
    return wide.assign(features=wide["features"].replace(WORDS), classifier=wide["classifier"].replace(pairs))


def _name_pair(first: str, second: str) -> str:
    return " minus ".join(WORDS[features].rpartition(", ")[2] for features in (first, second))


def _cell(row: tuple) -> str:
    if row.features == DIFFERENCE:
        return _signed(row)
    text = format_interval(row.mean, row.ci_low, row.ci_high)
    if np.isnan(row.over_floor):
        return text
    return f"{text} ({row.over_floor:+.1f} [{row.over_low:+.1f}, {row.over_high:+.1f}])"


def _signed(row: tuple) -> str:
    value, low, high = (round(number, 1) + 0.0 for number in (row.mean, row.ci_low, row.ci_high))  # no -0.0
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def describe_material(material: Material, simulated: Sequence[Run]) -> str:
    """The line above the tables: who was tested, and what the networks rest on.

    Args:
        material: What was decided from.
        simulated: The biomarker runs of the simulated cohort.

    Returns:
        One line.
    """
    present = [note for note in material.prepared.cohort.notes if note.endswith("videos present")]
    rests = f"frozen, adapted and mixed networks start from {len(simulated)} runs of `{simulated[0].spec.cohort}`"
    return " · ".join([describe_origin(material.prepared, material.runs), *present, rests])


def describe_cells(rows: Sequence[Decisions]) -> str:
    """The lines below the table: how to read it, and which classes no test patient of a fold has.

    Args:
        rows: Behind the table.

    Returns:
        Two paragraphs.
    """
    absent = describe_absent(rows).replace("\n", "; ")
    for task in {row.task for row in rows}:
        absent = absent.replace(f"{title_of(task)}: ", f"{title_of_task(task)}: ")
    return f"{NOTE}\n\n{absent}"


def describe_differences(table: pd.DataFrame, metric: str = "auc") -> list[str]:
    """What the tables say of each route, in sentences, whichever way it goes.

    Args:
        table: From ``pick_shown``.
        metric: Which numbers.

    Returns:
        A sentence per task, but for those that are only described: the floor, then each route with its difference
        to it, and which differences count.
    """
    sentences = []
    chosen = table[(table["metric"] == metric) & ~table["task"].isin(DESCRIBED)]
    for task in dict.fromkeys(chosen["task"]):
        rows = chosen[chosen["task"] == task]
        floor = max(row.mean for row in rows.itertuples() if (row.features, row.classifier) in FLOOR)
        routes = rows[rows["features"].isin(ROUTES)]
        told = [
            f"{_name(row)} {row.mean:.1f} ({row.over_floor:+.1f} [{row.over_low:+.1f}, {row.over_high:+.1f}])"
            for row in routes.itertuples()
        ]
        above = [_name(row) for row in routes.itertuples() if row.over_low > 0]
        after = [_name(row) for row in routes.itertuples() if row.over_low > 0 and row.p_holm < SIGNIFICANT]
        verdict = f"above the floor: {'; '.join(above)}" if above else "none is clearly above the floor"
        if above:
            verdict += f" (after Holm's correction: {'; '.join(after) or 'none'})"
        sentences.append(
            f"{title_of_task(task)}, {METRIC_TITLES[metric]}: floor {floor:.1f}; {', '.join(told)}: {verdict}."
        )
    return sentences


def describe_pairs(table: pd.DataFrame, metric: str = "auc") -> list[str]:
    """What the tables say of routes beside each other, in sentences, whichever way it goes.

    Args:
        table: From ``pick_shown``.
        metric: Which numbers.

    Returns:
        A sentence per task, but for those that are only described: each of the ``PAIRS``, and which differ.
    """
    sentences = []
    rows = table[(table["metric"] == metric) & (table["features"] == DIFFERENCE)]
    words = {f"{first} minus {second}": _name_pair(first, second) for first, second in PAIRS}
    for task in (task for task in dict.fromkeys(rows["task"]) if task not in DESCRIBED):
        pairs = list(rows[rows["task"] == task].itertuples())
        told = ", ".join(f"{words[pair.classifier]} {_signed(pair)}" for pair in pairs)
        clear = [words[pair.classifier] for pair in pairs if pair.ci_low > 0 or pair.ci_high < 0]
        after = [words[pair.classifier] for pair in pairs if pair.p_holm < SIGNIFICANT]
        verdict = "no interval excludes 0"
        if clear:
            verdict = f"the interval excludes 0: {'; '.join(clear)}"
            verdict += f" (after Holm's correction: {'; '.join(after) or 'none'})"
        sentences.append(f"{title_of_task(task)}, {METRIC_TITLES[metric]}, by pairs: {told}: {verdict}.")
    return sentences


def _name(row: tuple) -> str:
    words = WORDS[row.features]
    return words if row.classifier == NETWORK else f"experts on {words}"
