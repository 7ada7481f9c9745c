"""Real and simulated patients in one training: a cohort in which only the real ones are validated and tested.

A mixed network starts from a biomarker network of the simulated patients, as an adapted one does, and goes on for as
many epochs; but half of the videos it then sees are simulated. So the two differ in one thing: whether all the other
biomarkers go on being learnt, or may be forgotten.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lusbio.cohorts import covid_blues
from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.table import COLUMNS, Cohort
from lusbio.errors import LusbioError
from lusbio.files import text_sha256
from lusbio.runs.plan import start_from
from lusbio.runs.spec import Run, RunSpec, check_same_videos, find_runs, is_finished, runs_folder
from lusbio.runs.study import Study, open_study
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SPLITS

SIMULATED = "synthetic_convex"
"""The simulated patients that are mixed with real ones: their probe is that of public data."""

NEVER_TESTED = -1
"""Fold of the simulated patients: no run validates or tests it."""


@dataclass(frozen=True, kw_only=True)
class MixedCohort(Study):
    """Real patients in their own folds, and simulated ones that are trained on or not used.

    Attributes:
        real: The real patients; the first rows of the table are theirs, in the same order.
        simulated: The simulated patients, whose biomarker runs are to be finished before the mixed ones.
        chosen: By run fold, the simulated groups that are trained on.
    """

    real: Study
    simulated: Study
    chosen: tuple[tuple[str, ...], ...]

    def splits(self, fold: int) -> pd.Series:
        """As in the real cohort; of the simulated rows ``train`` for the chosen, NaN for the others."""
        of_real = super().splits(fold)  # NaN for the fold NEVER_TESTED
        return of_real.mask(self.table["group_id"].isin(self.chosen[fold]), SPLITS[0])


def mix_cohorts(real: Study, simulated: Study) -> MixedCohort:
    """Join real patients with simulated ones, so that about half of the training videos of each run are real.

    The balancing by severity repeats rare grades only: with all simulated videos, which are many more, the real ones
    would be a small part of what it sees. So each run takes some simulated patients, others in each fold, until they
    have as many videos as the real training patients. The variety of the rest is not lost, for the network starts from
    one that learnt it.

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
    of_real = _take_table(real)
    of_real = of_real.assign(**dict.fromkeys(find_one_sided(of_real), np.nan))
    table = pd.concat([of_real, _take_table(simulated)], ignore_index=True)
    name = f"{real.cohort.name}_with_{simulated.cohort.name}"
    mixed = MixedCohort(
        cohort=Cohort(name, table, real.cohort.folder, notes=(*real.cohort.notes, *simulated.cohort.notes)),
        profile=real.profile,
        videos=[*real.videos, *simulated.videos],
        data="",
        protocol=real.protocol,
        folds=pd.concat([_take_folds(real), _take_folds(simulated).assign(fold=NEVER_TESTED)], ignore_index=True),
        jobs=real.jobs,
        real=real,
        simulated=simulated,
        chosen=tuple(_choose_groups(real, simulated, fold) for fold in run_folds(real.protocol)),
    )
    splits = [mixed.splits(fold).fillna("").tolist() for fold in run_folds(mixed.protocol)]
    known = table[list(BIOMARKER_NAMES)].notna().sum().tolist()
    return replace(mixed, data=text_sha256(real.data, simulated.data, splits, known)[:16])


def count_videos(mixed: MixedCohort) -> pd.DataFrame:
    """Who is used for what in each run of a mixed cohort.

    Returns:
        Videos by run fold (index ``fold``) and split, columns ``train, val, test`` (real) and ``train, simulated``.
    """
    n_real, rows = len(mixed.real.table), []
    for fold in run_folds(mixed.protocol):
        splits = mixed.splits(fold)
        of_real = {split: int((splits[:n_real] == split).sum()) for split in SPLITS}
        rows.append({**of_real, f"{SPLITS[0]}, simulated": int((splits[n_real:] == SPLITS[0]).sum())})
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="fold"))


def list_mixed_runs(mixed: MixedCohort) -> list[RunSpec]:
    """The biomarker runs of a mixed cohort: spec k starts from run k of the simulated one, counted round."""
    return start_from(mixed.simulated.specs(BIOMARKER_TASK), mixed.specs(BIOMARKER_TASK, initial_weights="scratch"))


def find_mixed_runs(real: Study) -> tuple[list[Run], str]:
    """The finished mixed runs of COVID-BLUES, as runs of its patients, one per fold; or none, and a line that says why.

    Other cohorts have none, and nothing to be said.
    """
    if real.cohort.name != covid_blues.NAME:
        return [], ""
    mixed = mix_cohorts(real, open_study(real.profile.name, SIMULATED, real.jobs))
    specs = list_mixed_runs(mixed)
    if not all(is_finished(runs_folder(spec.run_id)) for spec in specs):
        return [], "Without mixed networks: notebook 07 trains them."
    return [keep_real(run, mixed) for run in find_runs(specs)], ""


def keep_real(run: Run, mixed: MixedCohort) -> Run:
    """A finished mixed run as one of the real patients: only their rows, under their own names.

    Its folder and weights are the same. A ``LusbioError`` if its videos or splits are not those of the real cohort.
    """
    of_real, n_real = mixed.real.cohort, len(mixed.real.table)
    check_same_videos(run, mixed)
    predictions = run.predictions.iloc[:n_real]
    if predictions["split"].tolist() != mixed.real.splits(run.spec.fold).tolist():
        raise LusbioError(f"run {run.folder.name} used the patients of {of_real.name!r} in another way")
    predictions = predictions.assign(video_id=of_real.table["video_id"].to_numpy())
    return replace(run, predictions=predictions, features=run.features[:n_real])


def find_one_sided(table: pd.DataFrame) -> list[str]:
    """Biomarkers that a cohort's labels cannot teach: nowhere present, or nowhere absent."""
    labels = table[list(BIOMARKER_NAMES)]
    both = (labels == 1).any() & (labels == 0).any()
    return list(both.index[~both])


def _take_table(study: Study) -> pd.DataFrame:
    """The columns of the schema, with names that no other cohort has and paths that need no folder."""
    table, paths = study.table[list(COLUMNS)], [str(path) for path in study.cohort.video_paths()]
    names = {name: f"{study.cohort.name}:" + table[name] for name in ("video_id", "patient_id", "group_id")}
    return table.assign(**names, path=paths)


def _take_folds(study: Study) -> pd.DataFrame:
    """Folds under the names of ``_take_table``."""
    return study.folds.assign(group_id=f"{study.cohort.name}:" + study.folds["group_id"])


def _choose_groups(real: Study, simulated: Study, fold: int) -> tuple[str, ...]:
    """Simulated groups, in an order of the fold's own, until they have as many videos as are trained on of the real."""
    wanted = int((real.splits(fold) == "train").sum())
    videos = simulated.table["group_id"].value_counts().sort_index()
    videos = videos.iloc[np.random.default_rng([fold, len(videos)]).permutation(len(videos))]
    before = videos.cumsum() - videos
    return tuple(f"{simulated.cohort.name}:" + videos.index[before < wanted])
