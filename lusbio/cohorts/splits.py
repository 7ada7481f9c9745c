# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""Who is trained on, who is validated on, who is tested on: folds of groups, never of videos.

Three protocols. ``"paper"``: four folds, the last one is the test fold of every run, and the other
three take turns as validation. ``"cross"``: five folds take turns as test fold, for cohorts so
small that a single test fold would say little. ``"final"``: nobody is tested on; one run for use on
other people's patients, with a fifth of the groups for validation.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.errors import LeakageError, LusbioError
from lusbio.vocabulary import SPLITS

FOLDS = {"paper": 4, "cross": 5, "final": 5}
"""Number of folds of each protocol."""

PAPER_MIN_GROUPS = 150
"""Real cohorts with fewer groups are cross-tested: a quarter of them would be too few to test on."""

_TRAIN, _VAL, _TEST = SPLITS


def choose_protocol(n_groups: int, simulated: bool) -> str:
    """The protocol that fits a cohort: ``"paper"`` if simulated or with ``PAPER_MIN_GROUPS`` groups, else ``"cross"``.

    Source:
        Engineering choice; the paper has 189 patients.

    Example:
        >>> choose_protocol(63, simulated=False), choose_protocol(24, simulated=True)
        ('cross', 'paper')
    """
    return "paper" if simulated or n_groups >= PAPER_MIN_GROUPS else "cross"


def run_folds(protocol: str) -> range:
    """The values that ``run_fold`` takes: one training each; the fourth fold of the paper is never validated on.

    Example:
        >>> list(run_folds("paper"))
        [0, 1, 2]
    """
    return range({"paper": 3, "final": 1}.get(protocol, _n_folds(protocol)))


def make_folds(table: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Deal the groups of a cohort into folds.

    Groups are sorted by number of videos, then mean lung severity, then ``group_id``, and dealt
    round-robin; every other round runs backwards, so that no fold always gets the milder of two
    neighbours. A fold that is full is passed over. Nothing is random: the same groups always give
    the same folds, whatever the order of the rows.

    Args:
        table: One row per video with ``group_id`` (text) and ``lung_severity`` (class name or NaN;
            groups without any are dealt among themselves).
        protocol: ``"paper"``: fold 3, the test fold, gets 46 of every 189 groups and the others
            share the rest equally. ``"cross"`` and ``"final"``: five folds as equal as possible.

    Returns:
        One row per group, sorted by it: ``group_id``, ``fold`` (int, 0-based).

    Raises:
        LusbioError: If a column or a ``group_id`` is missing, or there are fewer groups than folds.
        ValueError: If there is no such protocol.

    Source:
        Gare et al. 2022, Section 3, for the sizes. There patients are dealt at random; by size and severity, forwards
        and backwards, is an engineering choice.
    """
    n_folds = _n_folds(protocol)
    _check_columns(table, "group_id", "lung_severity")
    severity = pd.to_numeric(table["lung_severity"], errors="coerce")
    groups = severity.groupby(table["group_id"]).agg(["size", "mean"]).fillna({"mean": -1.0})
    if len(groups) < n_folds:
        raise LusbioError(f"protocol {protocol!r} needs at least {n_folds} groups, the table has {len(groups)}")
    groups = groups.sort_index().sort_values(["size", "mean"], ascending=False, kind="stable")
    folds = pd.DataFrame({"group_id": groups.index, "fold": _deal(_fold_sizes(len(groups), protocol))})
    return folds.sort_values("group_id", ignore_index=True)


def _n_folds(protocol: str) -> int:
    if protocol not in FOLDS:
        raise ValueError(f"protocol {protocol!r} is not one of {', '.join(FOLDS)}")
    return FOLDS[protocol]


def _fold_sizes(n_groups: int, protocol: str) -> list[int]:
    """Number of groups in each fold; the paper's test fold is its share of 46 in 189."""
    tested = [round(n_groups * 46 / 189)] if protocol == "paper" else []
    n_others = FOLDS[protocol] - len(tested)
    rest = n_groups - sum(tested)
    return [rest // n_others + (fold < rest % n_others) for fold in range(n_others)] + tested


def _deal(sizes: Sequence[int]) -> list[int]:
    """Fold of each group in turn: forwards, backwards, forwards, ... passing over full folds."""
    left, dealt, order = list(sizes), [], list(range(len(sizes)))
    while len(dealt) < sum(sizes):
        for fold in order:
            if left[fold]:
                left[fold] -= 1
                dealt.append(fold)
        order.reverse()
    return dealt


def assign_splits(table: pd.DataFrame, folds: pd.DataFrame, run_fold: int, protocol: str) -> pd.Series:
    """What each video is used for in one run.

    Paper, run k of 0, 1, 2: fold k validates, fold 3 tests, the other two train. Cross, run k of
    0 to 4: fold k tests, the next one (cyclically) validates, the other three train. Final: fold 0
    validates, the other four train.

    Args:
        table: One row per video with ``group_id``.
        folds: What ``make_folds`` returned; it may hold groups that have no video in ``table``.
        run_fold: One of ``run_folds(protocol)``.
        protocol: A key of ``FOLDS``.

    Returns:
        ``"train"``, ``"val"`` or ``"test"`` per video, with the index of ``table``.

    Raises:
        LusbioError: If a group of the table has no fold.
        LeakageError: If a group stands in two folds.
        ValueError: If there is no such run or protocol.
    """
    if run_fold not in run_folds(protocol):
        raise ValueError(f"run fold {run_fold} is not one of {list(run_folds(protocol))} (protocol {protocol!r})")
    check_folds(table, folds)
    n_folds = _n_folds(protocol)
    test, val = {
        "paper": (n_folds - 1, run_fold),
        "cross": (run_fold, (run_fold + 1) % n_folds),
        "final": (None, run_fold),
    }[protocol]
    names = {fold: {test: _TEST, val: _VAL}.get(fold, _TRAIN) for fold in range(n_folds)}
    return table["group_id"].map(folds.set_index("group_id")["fold"]).map(names).rename("split")


def check_folds(table: pd.DataFrame, folds: pd.DataFrame) -> None:
    """Raise unless every video of a table has one fold, shared with all videos of its patient.

    Args:
        table: One row per video with ``group_id`` and, where known, ``patient_id``.
        folds: One row per group: ``group_id``, ``fold``.

    Raises:
        LusbioError: If a column is missing or groups have no fold; names up to five of them.
        LeakageError: If a group or a patient stands in several folds; names it and the folds.
    """
    _check_columns(table, "group_id")
    _check_columns(folds, "group_id", "fold")
    _check_one_each(folds["group_id"], folds["fold"], "group", "folds")
    repeated = folds["group_id"][folds["group_id"].duplicated()]
    if len(repeated):
        raise LusbioError(f"group {repeated.iloc[0]!r} has two rows in the folds, expected one")
    missing = sorted(set(table["group_id"]) - set(folds["group_id"]))
    if missing:
        shown = ", ".join(repr(group) for group in missing[:5])
        raise LusbioError(f"{len(missing)} groups of the table have no fold, e.g. {shown}")
    if "patient_id" in table:
        fold = table["group_id"].map(folds.set_index("group_id")["fold"])
        _check_one_each(table["patient_id"], fold, "patient", "folds")


def check_no_leakage(table: pd.DataFrame, splits: pd.Series) -> None:
    """Raise if a group or a patient stands on both sides of a split.

    Args:
        table: One row per video with ``group_id`` and, where known, ``patient_id``.
        splits: ``"train"``, ``"val"`` or ``"test"`` per video, in the order of the table's rows; NaN
            for a video that is not used.

    Raises:
        LeakageError: If a group or patient is in several splits; names it and the splits.
        LusbioError: If the lengths differ or a split has another name.
    """
    _check_columns(table, "group_id")
    if len(splits) != len(table):
        raise LusbioError(f"{len(splits)} splits for {len(table)} videos")
    splits = pd.Series(np.asarray(splits, dtype=object), index=table.index)
    unknown = set(splits.dropna()) - set(SPLITS)
    if unknown:
        raise LusbioError(f"split {sorted(map(str, unknown))[0]!r} is not one of {', '.join(SPLITS)}")
    _check_one_each(table["group_id"], splits, "group", "splits")
    if "patient_id" in table:
        _check_one_each(table["patient_id"], splits, "patient", "splits")


def _check_one_each(owners: pd.Series, places: pd.Series, owner: str, place: str) -> None:
    """Raise if one owner (a group, a patient) is in several places (folds, splits)."""
    found = places.groupby(owners).unique().map(lambda values: sorted(v for v in values if pd.notna(v)))
    for name, values in found.items():
        if len(values) > 1:
            listed = ", ".join(str(value) for value in values)
            raise LeakageError(f"{owner} {name!r} stands in {len(values)} {place} ({listed}), expected one")


def _check_columns(table: pd.DataFrame, *columns: str) -> None:
    for column in columns:
        if column not in table:
            raise LusbioError(f"column {column!r} is missing; there are {', '.join(map(str, table.columns))}")
    if table["group_id"].isna().any():
        raise LusbioError("column 'group_id' is empty in some rows, expected the group of every video")


def oversample(labels: Sequence, groups: Sequence, seed: int) -> np.ndarray:
    """Rows of a training set in which all classes are as frequent as the most frequent one.

    Every video stays, once. What a class lacks is drawn with repetition, patient by patient: first
    a group uniformly, then one of its videos of that class, so that a patient with many videos does
    not fill the class alone. Give it training videos only.

    Args:
        labels: Class of each video, shape (V,), any type; NaN or None where unknown. Those videos
            are kept once and not repeated.
        groups: Group of each video, shape (V,).
        seed: Same seed, same rows.

    Returns:
        int64 row numbers: 0 to V-1, then the repeats, class after class.

    Raises:
        LusbioError: If the lengths differ.

    Source:
        Gare et al. 2022, Section 2 ("oversampled"); drawing by patient is an engineering choice.

    Example:
        >>> oversample([0, 0, 0, 1], ["a", "b", "b", "c"], seed=0).tolist()
        [0, 1, 2, 3, 3, 3]
    """
    if len(labels) != len(groups):
        raise LusbioError(f"{len(labels)} labels for {len(groups)} groups")
    rng = np.random.default_rng(seed)
    codes = pd.factorize(np.asarray(labels, dtype=object), sort=True)[0]  # -1: unknown
    group_codes = pd.factorize(np.asarray(groups, dtype=object), sort=True)[0]
    rows = [np.arange(len(codes))]
    sizes = np.bincount(codes[codes >= 0])
    for code, size in enumerate(sizes):
        videos = np.flatnonzero(codes == code)
        by_group = [videos[group_codes[videos] == group] for group in np.unique(group_codes[videos])]
        drawn = rng.integers(len(by_group), size=sizes.max() - size)
        rows.append(np.array([rng.choice(by_group[group]) for group in drawn], dtype=np.int64))
    return np.concatenate(rows)
