"""Table 1 on real patients: biomarkers learnt from simulated videos, for decisions about patients of COVID-BLUES.

Networks of the synthetic convex cohort never saw a real video. They are used as they are (frozen), after they were
adapted to the two findings that COVID-BLUES labels, and after they went on with real and simulated videos together
(mixed). Every row is of the same test patients in the same folds, so that rows can be compared in pairs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import NamedTuple

import numpy as np
import pandas as pd

from lusbio.cohorts import covid_blues
from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.targets import classes_of, select_rows
from lusbio.errors import CohortError, LusbioError, NothingToDo
from lusbio.experts import baselines, inputs
from lusbio.experts.classifiers import EXPERT_NAMES
from lusbio.experts.patients import aggregate_patients, leave_out, share_places
from lusbio.experts.rows import (
    CHOSEN,
    NETWORK,
    Row,
    choose_by_validation,
    decide_end_to_end,
    decide_with_experts,
    make_row,
)
from lusbio.experts.signs import decide_with_signs, fuse_with_signs, take_signs
from lusbio.files import Table, read_words
from lusbio.report.cells import METRIC_TITLES, NAMES, format_value, make_task_cells, name_row, subtract_cells, widen
from lusbio.report.compare import SIGNIFICANT
from lusbio.report.tables import TABLE1_METRICS, describe_absent
from lusbio.runs.origin import describe_origin
from lusbio.runs.plan import start_from
from lusbio.runs.spec import Run, RunSpec
from lusbio.runs.study import Study, open_study
from lusbio.signs.measure import SIGN_NAMES
from lusbio.statistics.bootstrap import holm
from lusbio.vocabulary import (
    BIOMARKER_NAMES,
    BIOMARKER_TASK,
    DISEASE,
    SEVERITY,
    SF_RATIO,
    TASKS,
    WITH_SIGNS,
    Kind,
    title_of,
)

# --- what is asked ---


class Question(NamedTuple):
    """A question with two answers, no and yes, that the cohort's table can be asked.

    Attributes:
        title: In words.
        column: Of the table.
        yes: Its values that mean yes; all other known ones mean no.
        level: What an answer is about, ``"video"`` or ``"patient"``.
    """

    title: str
    column: str
    yes: tuple[str | float, ...]
    level: str


ASKED = {name: Question(**words) for name, words in read_words("questions.toml").items()}
QUESTIONS = {name: question for name, question in ASKED.items() if question.level == "patient"}
FINDINGS = {name: question for name, question in ASKED.items() if question.level == "video"}
"""Yes-or-no tasks, all of them, about patients, and about videos; they stand in ``words/questions.toml``."""

ALL_TASKS = TASKS | ASKED
"""What is decided: all of these have a ``title`` and a ``level``."""


def open_real_patients(profile: str, cohort: str, jobs: int = 1) -> tuple[Study, list[str]]:
    """COVID-BLUES with ``ASKED`` as tasks, and a line for each that it cannot be asked; or the end of the notebook."""
    if cohort != covid_blues.NAME:
        raise NothingToDo(f"Nothing to do: this is about the real patients of {covid_blues.NAME}; here it is {cohort}.")
    try:
        study = open_study(profile, cohort, jobs)
    except CohortError as error:
        raise NothingToDo(f"Nothing to do: this needs COVID-BLUES. {error}") from error
    if not {BIOMARKER_TASK, SEVERITY}.isdisjoint(study.unlearnable):
        study.end_here(f"Nothing to do: {'; '.join(f'{task}: {why}' for task, why in study.unlearnable.items())}")
    return ask_questions(study)


def ask_questions(study: Study) -> tuple[Study, list[str]]:
    """Add those of ``ASKED`` that every fold can learn and test to a study's tasks; and a line for each other one."""
    reasons = []
    for name, question in ASKED.items():
        values = study.table[question.column]
        answers = values.isin(question.yes).map({False: "no", True: "yes"})
        try:
            asked = study.with_task(name, ("no", "yes"), answers.where(values.notna(), np.nan))
            for fold in run_folds(study.protocol):  # each validates once and is tested once
                select_rows(asked.table, asked.splits(fold), name)
            study = asked
        except LusbioError as error:
            reasons.append(f"{question.title}: {error}")
    return study, reasons


def count_answers(study: Study) -> pd.DataFrame:
    """Columns ``videos, patients`` by ``question, answer``; a patient may have videos with either answer."""
    names = [name for name in ASKED if name in study.table]
    counts = [study.table.groupby(name, observed=False)["patient_id"].agg(["count", "nunique"]) for name in names]
    together = pd.concat(counts, keys=[ASKED[name].title for name in names], names=["question", "answer"])
    return together.set_axis(["videos", "patients"], axis=1)


# --- what is decided from ---

Runs = Sequence[Run]


@dataclass(frozen=True)
class RealPatientInputs:
    """Everything that decisions about real patients are made from.

    Attributes:
        study: The patients, with ``ASKED`` as tasks.
        networks: By task of ``TASKS``, the networks trained for it, one per fold.
        own: Biomarker networks that learnt from these patients alone.
        from_simulated: Severity networks that started from biomarker networks of simulated patients.
        signs_first: The same, with measured signs learnt in between; from ``train_signs_first``.
        frozen: Biomarkers of those as they are.
        adapted: After they went on with the real patients.
        mixed: After they went on with both.
    """

    study: Study
    networks: dict[str, Runs]
    own: Runs
    from_simulated: Runs
    signs_first: Runs
    frozen: inputs.ExpertInput
    adapted: inputs.ExpertInput
    mixed: inputs.ExpertInput

    @cached_property
    def without(self) -> tuple[inputs.ExpertInput, ...]:
        """Pooled pixels, and metadata, which need no network."""
        return baselines.take_pooled_pixels(self.own, self.study), baselines.take_metadata(self.own, self.study)

    @property
    def tasks(self) -> list[str]:
        """What is decided: severity and S/F, then questions; of diseases, three of seven, only the question."""
        asked = [name for name in QUESTIONS if name in self.study.table and QUESTIONS[name].column in self.networks]
        return [*(task for task in self.networks if task != DISEASE), *asked]

    @property
    def findings(self) -> list[str]:
        """Which of ``FINDINGS`` the cohort can be asked."""
        return [name for name in FINDINGS if name in self.study.table]

    @property
    def generic(self) -> tuple[inputs.ExpertInput, ...]:
        """Biomarkers that were learnt from simulated patients first."""
        return self.frozen, self.adapted, inputs.fuse_biomarkers(self.frozen, self.adapted), self.mixed

    @property
    def origin(self) -> str:
        """The line above the tables: who was tested, by what, and how many of the videos are here."""
        own = [*self.own, *self.adapted.runs, *self.mixed.runs, *self.from_simulated, *self.signs_first]
        runs = own + [run for of_task in self.networks.values() for run in of_task]
        return describe_origin(self.study, runs)


SIGNS_RATE = 3e-4
"""Learning rate while signs are learnt. (Engineering choice, that of the ladder; so are half the epochs.)"""


def train_signs_first(study: Study, first: Sequence[RunSpec]) -> list[Run]:
    """Severity networks that went on from others with what is measured in training videos, labelled or not.

    Of what was tried for severity on validation patients of two folds, that paid; see ``experiments/lever_ladder.py``.

    Args:
        study: The patients.
        first: Biomarker networks to start from, counted round.
    """
    from lusbio.network.sign_targets import learn_signs

    usual = study.profile.training
    settings = replace(usual, epochs=ceil(usual.epochs / 2), batch_size=2 * usual.batch_size, learning_rate=SIGNS_RATE)
    specs = start_from(first, study.specs("measured_signs", outputs=SIGN_NAMES, training=settings))
    measured = study.train(specs, assemble=learn_signs(take_signs(study, study.jobs)))
    return study.train(start_from([run.spec for run in measured], study.specs(SEVERITY)))


# --- rows ---

ON_PLACES = ((Kind.FROM_SIMULATED, NETWORK), (Kind.ADAPTED, CHOSEN))
"""Ways to decide severity that are also shown with the patient's other places heeded: a network, and experts."""


def decide_task(real: RealPatientInputs, task: str, *, experts: Sequence[str] = EXPERT_NAMES) -> list[Row]:
    """All ways to decide a task: networks, experts on features and biomarkers, measured signs, baselines.

    After the experts on one input stands the one that validated best (classifier ``CHOSEN``).

    Args:
        real: What to decide from.
        task: A task of ``TASKS`` that has networks, or one of ``QUESTIONS``, which their networks answer: the
            probabilities of the classes that mean yes are added up.
        experts: Which of ``EXPERT_NAMES``.
    """
    study = real.study
    networks = real.networks[ASKED[task].column if task in ASKED else task]
    rows = [_answer(networks, task, study) if task in ASKED else decide_end_to_end(networks, study)]
    for given in (inputs.take_input(networks, task), inputs.take_input(real.own, task), *real.generic):
        rows += _with_chosen(decide_with_experts(given, task, study, experts=experts))
    if task == SEVERITY:
        for kind, runs in ((Kind.FROM_SIMULATED, real.from_simulated), (Kind.SIGNS_FIRST, real.signs_first)):
            rows.append(replace(decide_end_to_end(runs, study), features=kind))
        rows += [share_places(row) for row in rows if (row.features, row.classifier) in ON_PLACES]
    bits = inputs.take_rated_bits(real.own, study, [question.column for question in FINDINGS.values()])
    rows += decide_with_experts(bits, task, study, experts=[baselines.BASELINE_EXPERT])
    rows += _add_signs(real, task, rows, CHOSEN)
    return [*rows, *decide_without_network(real, task), baselines.decide_by_majority(real.own, task, study)]


def decide_finding(real: RealPatientInputs, finding: str) -> list[Row]:
    """All ways to see one of ``FINDINGS``: each kind of biomarkers (the mean of fused ones), signs, and baselines."""
    none = BIOMARKER_NAMES.index(FINDINGS[finding].column)
    rows = []
    for given in (inputs.take_input(real.own, finding), *real.generic):
        seen = [1 - values[:, none :: len(BIOMARKER_NAMES)].mean(axis=1) for values in given.values]
        rows.append(make_row(given.features, NETWORK, finding, given.runs, list(map(_no_or_yes, seen)), real.study))
    return [*rows, *_add_signs(real, finding, rows, NETWORK), *decide_without_network(real, finding)]


def _add_signs(real: RealPatientInputs, task: str, rows: Sequence[Row], classifier: str) -> list[Row]:
    """Measured signs, alone and together with each kind of biomarkers that decided by a classifier."""
    signs = decide_with_signs(real.own, task, real.study)
    beside = [row for row in rows if row.features in WITH_SIGNS and row.classifier == classifier]
    return [signs, *(fuse_with_signs(signs, row) for row in beside)]


def decide_without_network(real: RealPatientInputs, task: str) -> list[Row]:
    """Logistic regression, random forest, and the one that validated best: on pixels, then on metadata."""
    rows = []
    for given in real.without:
        forest = decide_with_experts(given, task, real.study, experts=[baselines.BASELINE_EXPERT])
        rows += _with_chosen([baselines.decide_linearly(given, task, real.study), *forest])
    return rows


def _with_chosen(rows: Sequence[Row]) -> list[Row]:
    return [*rows, replace(choose_by_validation(rows), classifier=CHOSEN)]


def _answer(networks: Runs, task: str, study: Study) -> Row:
    """A question, answered by networks for the task behind it."""
    yes = np.isin(classes_of(study.table, ASKED[task].column), ASKED[task].yes)
    answers = [_no_or_yes(run.probabilities[:, yes].sum(axis=1).clip(0, 1)) for run in networks]
    return make_row(Kind.END_TO_END, NETWORK, task, networks, answers, study)


def _no_or_yes(p: np.ndarray) -> np.ndarray:
    """Probabilities of no and yes, (V, 2), from those of yes, (V,)."""
    return np.column_stack([1 - p, p])


# --- tables ---

PIXEL_MODELS = (baselines.LINEAR, baselines.BASELINE_EXPERT)
"""What differences are taken to: two models on pooled pixels. Being above the baseline means above both."""

ROUTES = (
    *(Kind.END_TO_END, Kind.BIOMARKERS, Kind.FROM_SIMULATED, Kind.SIGNS_FIRST),
    *(Kind.FROZEN, Kind.ADAPTED, Kind.FUSED, Kind.MIXED),
    *(Kind.ADAPTED_ALL_PLACES, Kind.FROM_SIMULATED_ALL_PLACES, Kind.SIGNS, *WITH_SIGNS.values()),
)
"""What is compared with the baseline, and corrected for being so many."""

PAIRS = (
    *((kind, Kind.END_TO_END) for kind in (Kind.FROZEN, Kind.ADAPTED, Kind.MIXED)),
    *((Kind.MIXED, Kind.ADAPTED), (Kind.SIGNS, Kind.ADAPTED), (Kind.SIGNS_ADAPTED, Kind.ADAPTED)),
    (Kind.SIGNS_FIRST, Kind.FROM_SIMULATED),
)
"""What is compared with each other, first minus second: the paper's question, what mixed training adds, and signs."""

LOOKED_AT = (*covid_blues.DEVELOPMENT_PATIENTS, *covid_blues.SEEN_PATIENTS)
"""Patients of whom somebody who made the simulator saw a frame. Its networks are measured without them too."""

EVERYBODY, UNSEEN = "all", "not looked at"


def make_real_patients(rows: Sequence[Row], draws: int, origin: str | None = None) -> Table:
    """Table 1 on real patients.

    Args:
        rows: Of all tasks, from ``decide_task``.
        draws: Draws of patients behind an interval.
        origin: Of ``RealPatientInputs``.

    Returns:
        Cells as of ``cells.make_task_cells`` with the columns ``unit`` (``"video"``; for tasks about patients
        ``"patient"`` too), ``over_baseline, over_low, over_high`` (paired difference to the better of the
        ``PIXEL_MODELS``; NaN for pixels and single experts), ``p_value`` (the larger of both), and ``p_holm``,
        corrected over the ``ROUTES`` that people are shown, within a task, unit and metric. Rows of
        ``Kind.DIFFERENCE`` are the ``PAIRS``, named in ``classifier``, with p-values of their own, corrected over them.
        ``patients`` is ``EVERYBODY``, or ``UNSEEN``, all but those of ``LOOKED_AT``, where there are such; there are
        ``n_patients``.
    """
    parts, absent = [], describe_absent(rows)
    for task in dict.fromkeys(row.task for row in rows):
        absent = absent.replace(f"{title_of(task)}: ", f"{ALL_TASKS[task].title}: ")
        for counts, some in _leave_out_seen([row for row in rows if row.task == task]):
            parts.append(_measure(some, "video", draws).assign(**counts))
            if ALL_TASKS[task].level == "patient":
                parts.append(_measure(list(map(aggregate_patients, some)), "patient", draws).assign(**counts))
    cells = pd.concat(parts, ignore_index=True)
    return Table(cells, _widen(cells, ["patients"]), f"{describe_own(rows)}\n\n{absent}", origin)


def describe_own(rows: Sequence[Row]) -> str:
    """How many bits the rows on biomarkers of these patients alone rest on, counted where the networks learnt them."""
    own = [run.info["masked"] for row in rows if row.features == Kind.BIOMARKERS for run in row.runs]
    learnt = [f"`{name}`" for name in BIOMARKER_NAMES if any(name not in masked for masked in own)]
    counted = f"{len(learnt)} bits of {len(BIOMARKER_NAMES)}"
    return f"Biomarkers that these patients alone taught are {counted}: {', '.join(learnt)}."


def _leave_out_seen(rows: Sequence[Row]) -> Iterator[tuple[dict, list[Row]]]:
    """Rows of a task with all patients, then without those of ``LOOKED_AT``: who is left, how many, and the rows."""
    for patients, seen in ((EVERYBODY, ()), (UNSEEN, LOOKED_AT)):
        some = [leave_out(row, seen) for row in rows]
        if some[0].held_out:
            n_patients = sum(len(np.unique(fold.groups)) for fold in some[0].held_out)
            yield {"patients": patients, "n_patients": n_patients}, some


def make_real_findings(rows: Sequence[Row], draws: int, origin: str | None = None) -> Table:
    """How well A-lines and B-lines are found, by networks and baselines in the same folds.

    As ``make_real_patients``, of rows from ``decide_finding``; AUC only.
    """
    parts = []
    for finding in dict.fromkeys(row.task for row in rows):
        for counts, some in _leave_out_seen([row for row in rows if row.task == finding]):
            parts.append(_measure(some, "video", draws, ["auc"]).assign(**counts))
    cells = pd.concat(parts, ignore_index=True)
    shown = cells.replace({"classifier": {NETWORK: "TSM"}})  # as in Table 2
    return Table(cells, _widen(shown, ["patients", "n_patients"]), origin=origin)


def _measure(rows: Sequence[Row], unit: str, draws: int, metrics: Sequence[str] = TABLE1_METRICS) -> pd.DataFrame:
    """Cells of one task, with differences to the baseline, then the ``PAIRS``."""
    cells, key = make_task_cells(rows, draws, metrics), [*NAMES, "metric"]
    cells.insert(3, "unit", unit)
    if unit == "patient":
        cells[["published_mean", "published_sd"]] = np.nan  # those are about videos
    models = [row for row in rows if row.features == Kind.PIXELS and row.classifier in PIXEL_MODELS]
    compared = [row for row in rows if row.features != Kind.PIXELS and _is_shown(row.features, row.classifier)]
    both = [(name_row(row), row.held_out, model.held_out) for row in compared for model in models]
    over = subtract_cells(both, draws, metrics=metrics).drop(columns="sd")
    over["p_value"] = over.groupby(key)["p_value"].transform("max")
    over = over.sort_values("mean", kind="stable").drop_duplicates(key)  # the smaller one is that to the better model
    names = {"mean": "over_baseline", "ci_low": "over_low", "ci_high": "over_high"}
    cells = cells.merge(over.rename(columns=names), "left", key)
    shown = cells[cells["features"].isin(ROUTES) & cells["classifier"].isin((NETWORK, CHOSEN))]
    cells["p_holm"] = shown.groupby("metric")["p_value"].transform(holm)
    return pd.concat([cells, _subtract_pairs(rows, unit, draws, metrics)], ignore_index=True)


def _subtract_pairs(rows: Sequence[Row], unit: str, draws: int, metrics: Sequence[str]) -> pd.DataFrame:
    """The ``PAIRS`` of one task: networks where they decide by themselves, else the experts that validated best."""
    shown = {row.features: row.held_out for kind in (CHOSEN, NETWORK) for row in rows if row.classifier == kind}
    known = {"features": Kind.DIFFERENCE, "task": rows[0].task, "unit": unit}
    named = [
        (known | {"classifier": f"{first} minus {second}"}, shown[first], shown[second])
        for first, second in PAIRS
        if {first, second} <= set(shown)
    ]
    cells = subtract_cells(named, draws, metrics=metrics).drop(columns="sd")
    return cells.assign(p_holm=cells.groupby("metric")["p_value"].transform(holm))


def _is_shown(features: str, classifier: str) -> bool:
    """Whether a row is not one expert of several, or the one that validated best."""
    return features not in ROUTES or classifier not in EXPERT_NAMES


def pick_shown(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that people are shown: each task in its own unit, of several experts the one that validated best."""
    in_own_unit = cells["unit"] == cells["task"].map(lambda task: ALL_TASKS[task].level)
    shown = np.array(list(map(_is_shown, cells["features"], cells["classifier"])), dtype=bool)
    return cells[in_own_unit & shown].reset_index(drop=True)


def _widen(cells: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """A row per way to decide, a column per task and metric: ``mean [low, high] (difference [low, high])``."""

    def heading(cell: pd.Series) -> str:
        of_patients = " (patients)" * (cell["unit"] == "patient")
        return f"{ALL_TASKS[cell['task']].title}{of_patients}, {METRIC_TITLES[cell['metric']]}"

    shown = pick_shown(cells).replace({"classifier": _name_pairs()})
    return widen(shown, [*by, "features", "classifier"], _format, heading)


def _name_pairs() -> dict[str, str]:
    """The ``PAIRS`` in words, by classifier."""
    words = {kind: kind.words.removeprefix("biomarkers, ") for kind in Kind}
    return {f"{first} minus {second}": f"{words[first]} minus {words[second]}" for first, second in PAIRS}


def _format(cell: pd.Series) -> str:
    sign = "+" if cell["features"] == Kind.DIFFERENCE else ""
    text = format_value(cell["mean"], cell["ci_low"], cell["ci_high"], sign=sign)
    return text if np.isnan(cell["over_baseline"]) else f"{text} ({_format_over(cell)})"


def _format_over(cell: pd.Series) -> str:
    return format_value(cell["over_baseline"], cell["over_low"], cell["over_high"], sign="+")


# --- sentences ---


def describe_differences(cells: pd.DataFrame) -> list[str]:
    """What a table says of each route, by AUC, whichever way it goes.

    Returns:
        A sentence per task, but for S/F, which has too many classes: the baseline, then each route with its difference
        to it, and which differences count.
    """
    sentences = []
    for task, rows in _judged(cells):
        best = rows.loc[(rows["features"] == Kind.PIXELS) & rows["classifier"].isin(PIXEL_MODELS), "mean"].max()
        routes = rows[rows["features"].isin(ROUTES)]
        words = routes["features"].map(lambda name: Kind(name).words)
        routes = routes.assign(name=words.where(routes["classifier"] == NETWORK, "experts on " + words))
        told = [f"{cell['name']} {cell['mean']:.1f} ({_format_over(cell)})" for _, cell in routes.iterrows()]
        clear = _list_clear(routes[routes["over_low"] > 0], "above the baseline")
        verdict = clear or "none is clearly above the baseline"
        sentences.append(f"{ALL_TASKS[task].title}, AUC: baseline {best:.1f}; {', '.join(told)}: {verdict}.")
    return sentences


def describe_pairs(cells: pd.DataFrame) -> list[str]:
    """As ``describe_differences``, of routes beside each other: each of the ``PAIRS``, and which differ."""
    sentences = []
    for task, rows in _judged(cells):
        pairs = rows[rows["features"] == Kind.DIFFERENCE]
        pairs = pairs.assign(name=pairs["classifier"].map(_name_pairs()))
        told = [f"{cell['name']} {_format(cell)}" for _, cell in pairs.iterrows()]
        clear = _list_clear(pairs[(pairs["ci_low"] > 0) | (pairs["ci_high"] < 0)], "the interval excludes 0")
        verdict = clear or "no interval excludes 0"
        sentences.append(f"{ALL_TASKS[task].title}, AUC, by pairs: {', '.join(told)}: {verdict}.")
    return sentences


def _judged(cells: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """The AUCs of all patients that people are shown, by task."""
    shown = pick_shown(cells[(cells["metric"] == "auc") & (cells["patients"] == EVERYBODY)])
    return shown[shown["task"] != SF_RATIO].groupby("task", sort=False)


def _list_clear(clear: pd.DataFrame, opening: str) -> str:
    if clear.empty:
        return ""
    corrected = "; ".join(clear["name"][clear["p_holm"] < SIGNIFICANT]) or "none"
    return f"{opening}: {'; '.join(clear['name'])} (after Holm's correction: {corrected})"
