"""What is decided about real patients, and how: networks, experts on biomarkers, floors that need no network.

Every row is of the same test patients in the same folds, so that rows can be compared in pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from lusbio.cohorts.targets import BIOMARKER_TASK, classes_of, encode_task
from lusbio.errors import LusbioError
from lusbio.experts.classifiers import EXPERT_NAMES
from lusbio.experts.inputs import END_TO_END, Evidence, take_evidence
from lusbio.experts.other_cohort import CHOSEN
from lusbio.experts.rows import (
    ANCHOR_EXPERT,
    NETWORK,
    Decisions,
    FoldResult,
    choose_by_validation,
    decide_by_majority,
    decide_end_to_end,
    decide_with_experts,
    judge,
)
from lusbio.paper.leakage import PIXELS, make_throwaway_model
from lusbio.paper.real_patients import (
    ADAPTED,
    ALL_PLACES,
    FINDINGS,
    FROM_SIMULATED,
    QUESTIONS,
    fuse_biomarkers,
    list_real_patient_runs,
    take_adapted_biomarkers,
    take_frozen_biomarkers,
    take_metadata,
    take_mixed_biomarkers,
    take_pooled_pixels,
    take_rated_bits,
)
from lusbio.runs.mixed_cohort import MixedCohort, list_mixed_runs
from lusbio.runs.plan import PRETRAINED_TASK, find_tasks
from lusbio.runs.spec import PreparedCohort, Run, find_runs
from lusbio.vocabulary import BIOMARKER_NAMES

SHARED = ((FROM_SIMULATED, NETWORK), (ADAPTED, CHOSEN))
"""Ways to decide severity that are also shown with the patient's other places heeded: a network, and experts."""

LINEAR = "LR"
"""Classifier name of the logistic regression of ``leakage``."""


@dataclass(frozen=True)
class Material:
    """Everything that decisions about real patients are made from.

    Attributes:
        prepared: The patients, with ``QUESTIONS`` and ``FINDINGS`` as tasks.
        networks: By task of ``TASKS``, the networks trained for it, one per fold.
        own: Biomarker networks that learnt from these patients alone.
        from_simulated: Severity networks that started from simulated biomarkers.
        frozen: From ``take_frozen_biomarkers``.
        adapted: From ``take_adapted_biomarkers``.
        mixed: From ``take_mixed_biomarkers``.
        bits: From ``take_rated_bits``.
        floors: One piece of evidence for each of ``FLOORS``.
    """

    prepared: PreparedCohort
    networks: dict[str, tuple[Run, ...]]
    own: tuple[Run, ...]
    from_simulated: tuple[Run, ...]
    frozen: Evidence
    adapted: Evidence
    mixed: Evidence
    bits: Evidence
    floors: tuple[Evidence, ...]

    @property
    def tasks(self) -> list[str]:
        """What is decided: severity and S/F, then questions; of diseases, three of seven, only the question."""
        asked = [
            name
            for name, question in QUESTIONS.items()
            if name in self.prepared.cohort.table and question.column in self.networks
        ]
        return [*(task for task in self.networks if task != "disease"), *asked]

    @property
    def findings(self) -> list[str]:
        """Which of ``FINDINGS`` the cohort can be asked."""
        return [name for name in FINDINGS if name in self.prepared.cohort.table]

    @property
    def generic(self) -> tuple[Evidence, ...]:
        """Biomarkers that were learnt from simulated patients first."""
        return self.frozen, self.adapted, fuse_biomarkers(self.frozen, self.adapted), self.mixed

    @property
    def runs(self) -> list[Run]:
        """All networks that learnt from these patients."""
        own = (*self.own, *self.adapted.runs, *self.mixed.runs, *self.from_simulated)
        return [*(run for runs in self.networks.values() for run in runs), *own]


def gather_material(mixed: MixedCohort, convex: PreparedCohort, initial_weights: str, jobs: int = 1) -> Material:
    """Read the finished runs and what they say, as far as the cohort has labels.

    Args:
        mixed: The real patients, from ``find_real_patients``, mixed with the simulated ones.
        convex: The simulated cohort.
        initial_weights: Of all runs that start from no other.
        jobs: Videos that are decoded at a time.

    Returns:
        What ``decide_task`` and ``decide_finding`` take.

    Raises:
        LusbioError: If a run is not finished.
    """
    prepared = mixed.real
    extra = {
        name: tuple(find_runs(specs))
        for name, specs in list_real_patient_runs(prepared, convex, initial_weights).items()
    }
    own = tuple(find_runs(prepared.specs(BIOMARKER_TASK, initial_weights)))
    frozen = take_frozen_biomarkers(find_runs(convex.specs(BIOMARKER_TASK, initial_weights)), own, prepared)
    tasks = [task for task in find_tasks(prepared)[0] if task != BIOMARKER_TASK]
    return Material(
        prepared=prepared,
        networks={task: tuple(find_runs(prepared.specs(task, initial_weights))) for task in tasks},
        own=own,
        from_simulated=extra[FROM_SIMULATED],
        frozen=frozen,
        adapted=take_adapted_biomarkers(extra[ADAPTED], frozen),
        mixed=take_mixed_biomarkers(find_runs(list_mixed_runs(mixed, convex, initial_weights)), mixed, frozen),
        bits=take_rated_bits(own, prepared),
        floors=(take_pooled_pixels(own, prepared, jobs), take_metadata(own, prepared)),
    )


def decide_task(
    material: Material, task: str, jobs: int = 1, *, experts: Sequence[str] = EXPERT_NAMES
) -> list[Decisions]:
    """All ways to decide a task that this is about.

    Args:
        material: From ``gather_material``.
        task: A task of ``TASKS`` that has networks, or one of ``QUESTIONS``, which their networks answer: the
            probabilities of the classes that mean yes are added up.
        jobs: Fits at a time.
        experts: Which of ``EXPERT_NAMES``.

    Returns:
        One row's decisions each: networks; the experts on features and biomarkers, after them the one
        that validated best (classifier ``CHOSEN``); for severity two of these with the patient's other places
        heeded; the raters' two bits; the floors; class frequencies.
    """
    prepared, question = material.prepared, QUESTIONS.get(task)
    networks = material.networks[question.column if question else task]
    rows = [_answer(networks, task, material) if question else decide_end_to_end(networks, prepared)]
    own = [take_evidence(runs, task) for runs in (networks, material.own)]
    for evidence in (*own, *material.generic):
        found = decide_with_experts(evidence, task, prepared, jobs, experts=experts)
        rows += [*found, _choose(found)]
    if task == PRETRAINED_TASK:
        rows.append(replace(decide_end_to_end(material.from_simulated, prepared), features=FROM_SIMULATED))
        heeding = [row for row in rows if (row.features, row.classifier) in SHARED]
        rows += map(share_places, heeding)
    rows += decide_with_experts(material.bits, task, prepared, jobs, experts=[ANCHOR_EXPERT])
    return [*rows, *decide_floors(material, task, jobs), decide_by_majority(material.own, task, prepared)]


def decide_finding(material: Material, finding: str, jobs: int = 1) -> list[Decisions]:
    """All ways to see a finding: each kind of biomarkers, and the floors. Fused ones are the mean of both.

    Args:
        material: From ``gather_material``.
        finding: A key of ``FINDINGS``.
        jobs: Fits at a time.

    Returns:
        One row's decisions each.
    """
    bit = BIOMARKER_NAMES.index(FINDINGS[finding].column)
    own = take_evidence(material.own, finding)
    rows = []
    for evidence in (own, *material.generic):
        answers = [1 - values[:, bit :: len(BIOMARKER_NAMES)].mean(axis=1) for values in evidence.values]
        decided = list(map(_no_or_yes, answers))
        rows.append(judge(evidence.features, NETWORK, finding, evidence.runs, decided, material.prepared, 0.0))
    return [*rows, *decide_floors(material, finding, jobs)]


def decide_floors(material: Material, task: str, jobs: int = 1) -> list[Decisions]:
    """Logistic regression and random forest on what needs no network, and the one that validated best.

    Args:
        material: From ``gather_material``.
        task: A task of its cohort.
        jobs: Fits at a time.

    Returns:
        Three rows for each of ``FLOORS``.
    """
    rows = []
    for evidence in material.floors:
        forest = decide_with_experts(evidence, task, material.prepared, jobs, experts=[ANCHOR_EXPERT])
        both = [_decide_linearly(evidence, task, material.prepared), *forest]
        rows += [*both, _choose(both)]
    return rows


def _choose(rows: Sequence[Decisions]) -> Decisions:
    return replace(choose_by_validation(rows), classifier=CHOSEN)


def _decide_linearly(evidence: Evidence, task: str, prepared: PreparedCohort) -> Decisions:
    """The throw-away model of the ladder of splits, fitted on the training videos of each run."""
    labels, n_classes = encode_task(prepared.cohort.table, task), len(classes_of(prepared.cohort.table, task))
    decided = []
    for run, values in zip(evidence.runs, evidence.values, strict=True):
        rows = (run.splits == "train") & (labels >= 0)
        with threadpool_limits(1):
            model = make_throwaway_model(PIXELS).fit(values[rows], labels[rows])
        probabilities = np.zeros((len(values), n_classes))
        probabilities[:, model.classes_] = model.predict_proba(values)
        decided.append(probabilities)
    return judge(evidence.features, LINEAR, task, evidence.runs, decided, prepared, 0.0)


def _answer(networks: Sequence[Run], task: str, material: Material) -> Decisions:
    """A question, answered by networks for the task behind it."""
    classes = classes_of(material.prepared.cohort.table, QUESTIONS[task].column)
    yes = np.isin(classes, QUESTIONS[task].yes)
    answers = [run.probabilities[:, yes].sum(axis=1).clip(0, 1) for run in networks]
    minutes = float(np.mean([run.minutes for run in networks]))
    return judge(END_TO_END, NETWORK, task, networks, list(map(_no_or_yes, answers)), material.prepared, minutes)


def _no_or_yes(p: np.ndarray) -> np.ndarray:
    """Probabilities of no and yes, (V, 2), from those of yes, (V,)."""
    return np.column_stack([1 - p, p])


def share_places(row: Decisions) -> Decisions:
    """Half of a video's probabilities its own, half the mean over all videos of the same patient.

    The places of a chest fall ill together. No label is used, only which videos are of one patient.

    Args:
        row: Decisions about videos, of a task that is about videos.

    Returns:
        The row under a name of its own, with as many entries.

    Source: engineering choice, tried with other levers on inner folds (``benchmarks/lever_ladder.py``).
    """
    folds, validated = (tuple(map(_share_within, results)) for results in (row.folds, row.validated))
    return replace(row, features=row.features + ALL_PLACES, folds=folds, validated=validated)


def _share_within(fold: FoldResult) -> FoldResult:
    _, of_video = np.unique(fold.groups, return_inverse=True)
    sums = np.zeros((of_video.max() + 1, fold.probabilities.shape[1]))
    np.add.at(sums, of_video, fold.probabilities)
    means = (sums / np.bincount(of_video)[:, None])[of_video]
    return replace(fold, probabilities=(fold.probabilities + means) / 2)


def aggregate_patients(row: Decisions) -> Decisions:
    """One decision per patient: the mean of the probabilities of the patient's videos.

    Args:
        row: Decisions about videos, of a task that is about patients.

    Returns:
        The row with one entry per patient and run, from ``average_patients``.

    Raises:
        LusbioError: If videos of a patient have different labels.
    """
    folds, validated = (tuple(map(average_patients, results)) for results in (row.folds, row.validated))
    return replace(row, folds=folds, validated=validated)


def average_patients(fold: FoldResult) -> FoldResult:
    """Mean probabilities over the videos of each patient.

    Args:
        fold: Decisions about videos.

    Returns:
        Decisions about patients (groups); ``rows`` are those of the patients' first videos.

    Raises:
        LusbioError: If videos of a patient have different labels.
    """
    names, first, of_video = np.unique(fold.groups, return_index=True, return_inverse=True)
    if (fold.labels != fold.labels[first][of_video]).any():
        raise LusbioError("videos of a patient have different labels: this task is not about patients")
    sums = np.zeros((len(names), fold.probabilities.shape[1]))
    np.add.at(sums, of_video, fold.probabilities)
    means = (sums / np.bincount(of_video)[:, None]).round(12)  # so that equal ones stay equal
    return FoldResult(fold.rows[first], fold.labels[first], means, names)


def leave_out(row: Decisions, groups: Sequence[str]) -> Decisions:
    """A row without the test videos of some patients; nothing else changes.

    Args:
        row: A way to decide.
        groups: ``group_id`` of the patients.

    Returns:
        The row; runs that no other patient was tested in are gone.
    """
    kept = [(fold, ~np.isin(fold.groups, groups)) for fold in row.folds]
    folds = (FoldResult(f.rows[k], f.labels[k], f.probabilities[k], f.groups[k]) for f, k in kept if k.any())
    return replace(row, folds=tuple(folds))
