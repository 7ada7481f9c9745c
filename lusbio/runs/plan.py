"""Which runs the paper consists of: the networks of Table 1, those with fewer labels, and those of Table 6."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.targets import keep_fraction, select_rows
from lusbio.errors import LeakageError, LusbioError, NothingToDo
from lusbio.network import OTHER_BACKBONE
from lusbio.runs.spec import PreparedCohort, RunSpec
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY, TASKS

PRETRAINING, FEWER_LABELS, TABLE6 = "pretraining", "label_efficiency", "table6"

EXTRAS = {
    PRETRAINING: "severity networks pretrained on the cohort's own biomarkers (Table 1)",
    FEWER_LABELS: "networks with fewer labels",
    TABLE6: "another backbone (Table 6)",
}
"""Questions about the method, not about the patients; two are named after the table that answers them."""

HALF = 0.5
"""Share of the epochs with which both routes are trained a second time: does the verdict change with the budget?"""

COMPLETE_PROFILE = "paper"
"""The profile that asks them of every cohort."""


def find_left_out(prepared: PreparedCohort) -> dict[str, str]:
    """Which of ``EXTRAS`` a cohort does without, and why, as a line for people: the one place where that is decided.

    Simulated patients have labels of all biomarkers and of every task, so any profile asks them. Real ones have labels
    of few findings, and their trainings take time that goes to questions about them; of these patients only
    ``COMPLETE_PROFILE`` asks everything. (Engineering choice.) Whose labels teach no biomarker is asked none of them.
    """
    why = "It is a question about the method, which simulated patients answer; "
    why += f"with `PROFILE={COMPLETE_PROFILE}` these patients are asked too."
    if BIOMARKER_TASK not in find_tasks(prepared)[0]:
        why = "It is about biomarkers, and the labels of these patients teach none."
    elif prepared.cohort.simulated or prepared.profile.name == COMPLETE_PROFILE:
        return {}
    return {name: f"Left out here: {what}. {why}" for name, what in EXTRAS.items()}


def find_tasks(prepared: PreparedCohort) -> tuple[list[str], dict[str, str]]:
    """What a cohort has labels to learn: in every run two classes, and labels to validate and test on.

    Returns:
        ``BIOMARKER_TASK`` and keys of ``TASKS`` that can be learnt, in this order; and for those that cannot, the
        reason.
    """
    learnable, reasons = [], {}
    for task in (BIOMARKER_TASK, *TASKS):
        try:
            for fold in run_folds(prepared.protocol):
                splits = prepared.splits(fold)
                _, targets, _ = select_rows(prepared.table, splits, task)
                _check_tested(targets, splits, task)
            learnable.append(task)
        except LeakageError:
            raise
        except LusbioError as error:
            reasons[task] = str(error)
    return learnable, reasons


def _check_tested(targets: np.ndarray, splits: pd.Series, task: str) -> None:
    known = ~np.isnan(targets).all(1) if targets.ndim == 2 else targets >= 0
    tested = (splits == "test").to_numpy()
    if tested.any() and not known[tested].any():
        raise LusbioError(f"no test video has a label for {task}")


def list_specs(prepared: PreparedCohort) -> list[RunSpec]:
    """The runs of Table 1: the biomarker network, one network per task, and those pretrained on biomarkers.

    What the cohort has too few labels for is left out; where that is biomarkers or all tasks, there is nothing to
    compare: ``NothingToDo`` names the reasons, and the notebook ends.
    """
    learnable, reasons = find_tasks(prepared)
    if BIOMARKER_TASK not in learnable or len(learnable) < 2:
        name, listed = prepared.cohort.name, "; ".join(f"{task}: {reason}" for task, reason in reasons.items())
        raise NothingToDo(f"cohort {name!r}: the paper needs labels of some biomarkers and of one task. {listed}")
    return [spec for task in learnable for spec in prepared.specs(task)] + list_pretrained(prepared, learnable)


def list_grid(prepared: PreparedCohort) -> list[RunSpec]:
    """All runs behind the tables, each once: Table 1, with half the epochs, with fewer labels, Table 6.

    But for what ``find_left_out`` names.
    """
    specs = list_specs(prepared)
    for task in find_tasks(prepared)[0]:
        specs += prepared.specs(task, budget=HALF)
    for of_share in list_with_fewer_labels(prepared, choose_efficiency_task(prepared)).values():
        specs += of_share
    return list(dict.fromkeys([*specs, *list_other_backbone(prepared)]))


def choose_efficiency_task(prepared: PreparedCohort) -> str:
    """The task whose labels are made fewer: lung severity where it can be learnt, else the first that can."""
    tasks = [task for task in find_tasks(prepared)[0] if task != BIOMARKER_TASK]
    return SEVERITY if SEVERITY in tasks else tasks[0]


def list_pretrained(prepared: PreparedCohort, learnable: Sequence[str]) -> list[RunSpec]:
    """Severity networks that start from the biomarker network of the same fold (Table 1).

    Returns:
        One spec per fold; none where severity is not learnable or the question is left out.
    """
    if SEVERITY not in learnable or PRETRAINING in find_left_out(prepared):
        return []
    return start_from(prepared.specs(BIOMARKER_TASK), prepared.specs(SEVERITY))


def start_from(first: Sequence[RunSpec], then: Sequence[RunSpec]) -> list[RunSpec]:
    """``then``, each starting from the network of another run: spec k from run k of ``first``, counted round."""
    return [replace(spec, initial_weights=f"run:{first[k % len(first)].run_id}") for k, spec in enumerate(then)]


def list_with_fewer_labels(prepared: PreparedCohort, task: str) -> dict[float, list[RunSpec]]:
    """End-to-end networks that see the labels of a share of the training patients, in as many steps.

    Returns:
        Specs by share, from small to large, all labels last; a share that leaves fewer than two classes to train on in
        one of the folds is left out. None where the question is left out.
    """
    found = {}
    if FEWER_LABELS in find_left_out(prepared):
        return found
    folds = run_folds(prepared.protocol)[: prepared.profile.label_folds]
    for share in (*prepared.profile.label_fractions, 1.0):
        specs = [spec for spec in prepared.specs(task, label_fraction=share, seed=0) if spec.fold in folds]
        if all(_has_two_classes(prepared, spec) for spec in specs):
            found[share] = specs
    return found


def _has_two_classes(prepared: PreparedCohort, spec: RunSpec) -> bool:
    rows, targets, _ = select_rows(prepared.table, prepared.splits(spec.fold), spec.task)
    kept = keep_fraction(prepared.table, rows["train"], spec.label_fraction, spec.seed)
    return len(set(targets[kept])) >= 2


def list_other_backbone(prepared: PreparedCohort) -> list[RunSpec]:
    """The runs of Table 6: the same tasks with another network, as far as the profile goes.

    Returns:
        Specs, task by task; what the cohort has too few labels for is left out, and where that is all tasks of the
        profile, one that can be learnt takes their place. None where the question is left out.
    """
    if TABLE6 in find_left_out(prepared):
        return []
    profile, (learnable, _) = prepared.profile, find_tasks(prepared)
    tasks = [task for task in profile.backbone_tasks if task in learnable]
    if not set(tasks) - {BIOMARKER_TASK}:
        tasks.append(choose_efficiency_task(prepared))
    folds = run_folds(prepared.protocol)[: profile.backbone_folds]
    changes = {"backbone": OTHER_BACKBONE, "training": profile.backbone_training, "seed": 0}
    return [spec for task in tasks for spec in prepared.specs(task, **changes) if spec.fold in folds]
