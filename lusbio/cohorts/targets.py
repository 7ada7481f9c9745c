# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""A cohort's columns as what networks and experts learn: which rows, which numbers, how often."""

import numpy as np
import pandas as pd

from lusbio.cohorts.splits import check_no_leakage, oversample
from lusbio.errors import LusbioError
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SEVERITY, TASKS


def encode_task(table: pd.DataFrame, task: str) -> np.ndarray:
    """A task's classes as numbers: int64 (V,), the position in ``classes_of(table, task)``, -1 where unknown."""
    return pd.Categorical(table[task], categories=list(classes_of(table, task))).codes.astype(np.int64)


def classes_of(table: pd.DataFrame, task: str) -> tuple[str, ...]:
    """The names of a task's classes, in order: of a key of ``TASKS``, or of a column of type category, one's own task.

    A ``LusbioError`` if it is neither.
    """
    if task in TASKS:
        return TASKS[task].classes
    if task in table and isinstance(table[task].dtype, pd.CategoricalDtype):
        return tuple(map(str, table[task].cat.categories))
    raise LusbioError(f"task {task!r} is not one of {', '.join(TASKS)}, nor was it added with `with_task`")


def keep_fraction(table: pd.DataFrame, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Some of the patients of a training set; a smaller fraction is part of every larger one.

    Args:
        table: A cohort's table.
        rows: Rows to choose from, int64.
        fraction: Of the groups, above 0, at most 1; rounded up.
        seed: Decides the order in which groups are taken.

    Returns:
        The rows of the groups that are kept, int64, in order.
    """
    of_row = table["group_id"].iloc[rows].to_numpy()
    groups = np.unique(of_row)
    order = np.random.default_rng([seed, len(groups)]).permutation(groups)
    return rows[np.isin(of_row, order[: int(np.ceil(fraction * len(groups)))])]


def select_rows(
    table: pd.DataFrame, splits: pd.Series, task: str
) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Which videos a run learns from and validates on, and their targets.

    A biomarker that shows only one value in the training videos is masked everywhere in this run:
    the loss would only drive its output to a constant.

    Args:
        table: A cohort's table.
        splits: ``train``, ``val`` or ``test`` per row.
        task: ``BIOMARKER_TASK``, a key of ``TASKS``, or a task of one's own.

    Returns:
        Row numbers with a known target by split (``train``, ``val``); targets of all videos,
        float32 (V, 38) with NaN or int64 (V,) with -1 for unknown; names of masked biomarkers.

    Raises:
        LeakageError: If a group or patient stands in several splits.
        LusbioError: If training or validation videos have no label, or training ones only one class.
    """
    check_no_leakage(table, splits)
    training = (splits == "train").to_numpy()
    masked: list[str] = []
    if task == BIOMARKER_TASK:
        values = table[list(BIOMARKER_NAMES)].to_numpy(np.float32)
        both = (values[training] == 1).any(0) & (values[training] == 0).any(0)
        targets = np.where(both, values, np.nan).astype(np.float32)
        masked = [name for name, seen in zip(BIOMARKER_NAMES, both, strict=True) if not seen]
        known = ~np.isnan(targets).all(1)
    else:
        targets = encode_task(table, task)
        known = targets >= 0
        if len(np.unique(targets[training & known])) < 2:
            raise LusbioError(f"the training videos have fewer than two classes of {task}: nothing to learn")
    rows = {split: np.flatnonzero((splits == split).to_numpy() & known) for split in ("train", "val")}
    for split, found in rows.items():
        if not len(found):
            raise LusbioError(f"no {split} video has a label for {task}")
    return rows, targets, masked


def repeat_rare(table: pd.DataFrame, rows: np.ndarray, task: str, seed: int) -> np.ndarray:
    """The training rows of a run, those of rare classes several times; see ``splits.oversample``.

    Args:
        table: A cohort's table.
        rows: Training rows, int64.
        task: ``BIOMARKER_TASK``, balanced by lung severity, or a task, balanced by itself.
        seed: Of the draws.

    Returns:
        Rows of the table, int64, each at least once.

    Source:
        Gare et al. 2022, Section 2; that severity balances the biomarker network is an engineering choice.
    """
    classes = encode_task(table, SEVERITY if task == BIOMARKER_TASK else task)[rows]
    labels = [None if label < 0 else int(label) for label in classes]
    return rows[oversample(labels, table["group_id"].iloc[rows].tolist(), seed)]
