"""Real and simulated patients in one training: a cohort in which only the real ones are validated and tested.

A mixed network starts from a biomarker network of the simulated patients, as an adapted one does, and goes on
for as many epochs; but half of the videos it then sees are simulated. So the two differ in one thing: whether
all the other biomarkers go on being learnt, or may be forgotten.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lusbio.cohorts import covid_blues
from lusbio.cohorts.load import load_cohort
from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.table import COLUMNS, Cohort
from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.errors import LusbioError
from lusbio.runs.spec import PreparedCohort, Run, RunSpec, find_runs, is_finished, prepare_cohort, runs_folder
from lusbio.vocabulary import BIOMARKER_NAMES, SPLITS

MIXED = "mixed_biomarkers"
"""Biomarkers of networks that learn from real and simulated videos together."""

SIMULATED = "synthetic_convex"
"""The simulated patients that are mixed with real ones: their probe is that of public data."""

NEVER_TESTED = -1
"""Fold of the simulated patients: no run validates or tests it."""

_OWNERS = ["video_id", "patient_id", "group_id"]


@dataclass(frozen=True)
class MixedCohort(PreparedCohort):
    """Real patients in their own folds, and simulated ones that are trained on or not used.

    Attributes:
        real: The real patients; the first rows of the table are theirs, in the same order.
        chosen: By run fold, the simulated groups that are trained on.
    """

    real: PreparedCohort
    chosen: tuple[tuple[str, ...], ...]

    def splits(self, fold: int) -> pd.Series:
        """As in the real cohort; of the simulated rows ``train`` for the chosen, NaN for the others."""
        of_real = super().splits(fold)  # NaN for the fold NEVER_TESTED
        return of_real.mask(self.cohort.table["group_id"].isin(self.chosen[fold]), SPLITS[0])


def mix_cohorts(real: PreparedCohort, simulated: PreparedCohort) -> MixedCohort:
    """Join real patients with simulated ones, so that about half of the training videos of each run are real.

    The balancing by severity repeats rare grades only: with all simulated videos, which are many more, the real
    ones would be a small part of what it sees. So each run takes some simulated patients, others in each
    fold, until they have as many videos as the real training patients. The variety of the rest is not lost, for
    the network starts from one that learnt it.

    A biomarker of which the real videos, all together, have one value only counts as unknown there. (The labels of
    COVID-BLUES say of some biomarkers that they are absent, never that they are present: a network would learn that
    real videos do not show them.)

    Args:
        real: Real patients; columns outside the schema, such as questions, are left out.
        simulated: Simulated patients, decoded for the same profile.

    Returns:
        A cohort for biomarker runs; names of videos and patients begin with that of their cohort.

    Raises:
        LusbioError: If the frames differ in size, or both cohorts have one name.

    Source: engineering choice.
    """
    sizes = [one.profile.training.image_size for one in (real, simulated)]
    if sizes[0] != sizes[1]:
        raise LusbioError(f"real and simulated videos differ in frame size: {sizes[0]} and {sizes[1]}")
    if real.cohort.name == simulated.cohort.name:
        raise LusbioError(f"both cohorts are called {real.cohort.name!r}: their patients could not be told apart")
    table = pd.concat([_forget_one_sided(_take_table(real)), _take_table(simulated)], ignore_index=True)
    chosen = tuple(_choose_groups(real, simulated, fold) for fold in run_folds(real.protocol))
    name = f"{real.cohort.name}_with_{simulated.cohort.name}"
    notes = (*real.cohort.notes, *simulated.cohort.notes)
    mixed = MixedCohort(
        cohort=Cohort(name, table, real.cohort.folder, notes=notes),
        profile=real.profile,
        videos=[*real.videos, *simulated.videos],
        data="",
        protocol=real.protocol,
        folds=pd.concat([_take_folds(real), _take_folds(simulated, NEVER_TESTED)], ignore_index=True),
        real=real,
        chosen=chosen,
    )
    return replace(mixed, data=_fingerprint(mixed, simulated))


def count_videos(mixed: MixedCohort) -> pd.DataFrame:
    """Who is used for what in each run of a mixed cohort.

    Args:
        mixed: From ``mix_cohorts``.

    Returns:
        Videos by run fold (index ``fold``) and split, columns ``train, val, test`` (real) and ``train, simulated``.
    """
    n_real, rows = len(mixed.real.cohort.table), []
    for fold in run_folds(mixed.protocol):
        splits = mixed.splits(fold)
        of_real = {split: int((splits[:n_real] == split).sum()) for split in SPLITS}
        rows.append({**of_real, f"{SPLITS[0]}, simulated": int((splits[n_real:] == SPLITS[0]).sum())})
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="fold"))


def list_mixed_runs(mixed: MixedCohort, simulated: PreparedCohort, initial_weights: str) -> list[RunSpec]:
    """The biomarker runs of a mixed cohort; fold k starts from run k of the simulated one, counted round.

    Args:
        mixed: From ``mix_cohorts``.
        simulated: The simulated patients, whose biomarker runs are to be finished before.
        initial_weights: Of those runs, see ``RunSpec``.

    Returns:
        One spec per fold of the real patients.
    """
    return start_from(simulated.specs(BIOMARKER_TASK, initial_weights), mixed.specs(BIOMARKER_TASK))


def start_from(first: Sequence[RunSpec], then: Sequence[RunSpec]) -> list[RunSpec]:
    """Let runs start from the networks of other runs: fold k from run k of those, counted round.

    Args:
        first: The runs to start from.
        then: The runs that start.

    Returns:
        ``then``, each with its ``initial_weights``.
    """
    return [replace(spec, initial_weights=f"run:{first[spec.fold % len(first)].run_id}") for spec in then]


def find_mixed_runs(real: PreparedCohort, initial_weights: str, jobs: int = 1) -> tuple[list[Run], str]:
    """The finished mixed runs of COVID-BLUES, as runs of its patients; or why there are none.

    Args:
        real: A cohort.
        initial_weights: Of the simulated runs that they start from.
        jobs: Videos that are decoded at a time.

    Returns:
        One run per fold and an empty text; or none and a line. Other cohorts have none, and nothing to be said.
    """
    if real.cohort.name != covid_blues.NAME:
        return [], ""
    simulated = prepare_cohort(load_cohort(SIMULATED, real.profile, jobs), real.profile, jobs)
    mixed = mix_cohorts(real, simulated)
    specs = list_mixed_runs(mixed, simulated, initial_weights)
    if not all(is_finished(runs_folder() / spec.run_id) for spec in specs):
        return [], "Without mixed networks: notebook 07 trains them."
    return [keep_real(run, mixed) for run in find_runs(specs)], ""


def keep_real(run: Run, mixed: MixedCohort) -> Run:
    """A mixed run as one of the real patients: only their rows, under their own names.

    Args:
        run: A finished run of the mixed cohort.
        mixed: The cohort.

    Returns:
        A run that is read like any other of ``mixed.real``; its folder and weights are the same.

    Raises:
        LusbioError: If its videos or splits are not those of the real cohort.
    """
    of_real, n_real = mixed.real.cohort, len(mixed.real.cohort.table)
    predictions = run.predictions.iloc[:n_real].copy()
    names = f"{of_real.name}:" + of_real.table["video_id"]
    if run.predictions["video_id"].tolist() != mixed.cohort.table["video_id"].tolist() or (
        predictions["video_id"].tolist() != names.tolist()
    ):
        raise LusbioError(f"run {run.folder.name} predicted other videos than those of {mixed.cohort.name!r}")
    if predictions["split"].tolist() != mixed.real.splits(run.spec.fold).tolist():
        raise LusbioError(f"run {run.folder.name} used the patients of {of_real.name!r} in another way")
    predictions["video_id"] = of_real.table["video_id"].to_numpy()
    return replace(run, predictions=predictions, features=run.features[:n_real])


def find_one_sided(table: pd.DataFrame) -> list[str]:
    """Biomarkers that a cohort's labels cannot teach: nowhere present, or nowhere absent.

    Args:
        table: A cohort's table.

    Returns:
        Biomarker names, in their usual order.
    """
    labels = table[list(BIOMARKER_NAMES)]
    both = (labels == 1).any() & (labels == 0).any()
    return list(both.index[~both])


def _take_table(prepared: PreparedCohort) -> pd.DataFrame:
    """The columns of the schema, with names that no other cohort has and paths that need no folder."""
    table = prepared.cohort.table[list(COLUMNS)].copy()
    for column in _OWNERS:
        table[column] = f"{prepared.cohort.name}:" + table[column]
    return table.assign(path=[str(path) for path in prepared.cohort.video_paths()])


def _forget_one_sided(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which biomarkers that are nowhere present, or nowhere absent, are unknown."""
    return table.assign(**dict.fromkeys(find_one_sided(table), np.nan))


def _take_folds(prepared: PreparedCohort, fold: int | None = None) -> pd.DataFrame:
    """Folds under the names of ``_take_table``; one fold for all where it is given."""
    folds = prepared.folds.assign(group_id=f"{prepared.cohort.name}:" + prepared.folds["group_id"])
    return folds if fold is None else folds.assign(fold=fold)


def _choose_groups(real: PreparedCohort, simulated: PreparedCohort, fold: int) -> tuple[str, ...]:
    """Simulated groups, in an order of the fold's own, until they have as many videos as are trained on of the real."""
    wanted = int((real.splits(fold) == "train").sum())
    videos = simulated.cohort.table["group_id"].value_counts().sort_index()
    videos = videos.iloc[np.random.default_rng([fold, len(videos)]).permutation(len(videos))]
    before = videos.cumsum() - videos
    return tuple(f"{simulated.cohort.name}:" + videos.index[before < wanted])


def _fingerprint(mixed: MixedCohort, simulated: PreparedCohort) -> str:
    """A short name for the data of both cohorts and for who is used for what in every run."""
    splits = [mixed.splits(fold).fillna("").tolist() for fold in run_folds(mixed.protocol)]
    known = mixed.cohort.table[list(BIOMARKER_NAMES)].notna().sum().tolist()
    content = json.dumps([mixed.real.data, simulated.data, splits, known])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
