"""What experts decide from: what a network hands over, its features or its 38 biomarkers, or what raters saw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lusbio.errors import LusbioError
from lusbio.runs.mixed_cohort import MixedCohort, keep_real
from lusbio.runs.predict import predict_cohort
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SEVERITY, Kind


@dataclass(frozen=True)
class ExpertInput:
    """What experts decide from.

    Attributes:
        features: Its kind.
        runs: The runs whose splits are followed, one per fold.
        values: One array per run, float64 (V, F), finite, rows as in the cohort's table.
    """

    features: Kind
    runs: tuple[Run, ...]
    values: tuple[np.ndarray, ...]


def take_input(runs: Sequence[Run], task: str) -> ExpertInput:
    """What finished runs of one kind, one per fold, hand over to experts who decide a task."""
    spec = runs[0].spec
    if spec.task == BIOMARKER_TASK:
        features = Kind.BIOMARKERS
    elif spec.starts_from:
        features = Kind.PRETRAINED
    else:
        features = Kind.SEVERITY_FEATURES if spec.task == SEVERITY != task else Kind.END_TO_END
    return ExpertInput(features, tuple(runs), tuple(map(expert_input, runs)))


def expert_input(run: Run) -> np.ndarray:
    """What experts see of a run: biomarkers float64 (V, 38), or features float64 (V, 8 * width or 2048)."""
    return fill_masked(run.biomarkers) if run.spec.task == BIOMARKER_TASK else run.features.astype(np.float64)


def fill_masked(biomarkers: np.ndarray) -> np.ndarray:
    """Biomarkers (V, 38) with 0.5 in place of NaN: what was never learnt must not tell videos apart."""
    return np.nan_to_num(biomarkers, nan=0.5)


def crossfit_biomarkers(runs: Sequence[Run], prepared: PreparedCohort) -> ExpertInput:
    """Biomarkers as a network gives them to patients it was not trained on, for training patients as well.

    Experts usually learn from what a network says of its own training patients, where it is surer than it will be of
    new ones. Here the patients that run k trains on are described by the run that validated on them. That is possible
    where all runs share their test patients: those of the other protocol trained on the test patients of this fold,
    which is a ``LusbioError``.
    """
    if prepared.protocol != "paper":
        raise LusbioError(f"protocol {prepared.protocol!r}: its runs train on each other's test patients")
    given = [expert_input(run) for run in runs]
    values = []
    for run, own in zip(runs, given, strict=True):
        mixed = own.copy()
        for other, found in zip(runs, given, strict=True):
            rows = (run.splits == "train") & (other.splits == "val")
            mixed[rows] = found[rows]
        values.append(mixed)
    return ExpertInput(Kind.CROSSFITTED, tuple(runs), tuple(values))


def take_rated_biomarkers(runs: Sequence[Run], prepared: PreparedCohort, *, true: bool) -> ExpertInput:
    """Biomarkers as they were drawn (truth) or ticked (trainee), in place of what a network says.

    Args:
        runs: Runs whose splits are followed.
        prepared: The cohort they are about.
        true: The simulator's truth instead of the trainee's labels.

    Returns:
        (V, 38); 0.5 where unknown, and throughout for biomarkers that are unknown in some of the videos with any label:
        *that* they are unknown follows from other labels (of COVID-BLUES, from severity) and would give those away.

    Raises:
        LusbioError: If the truth is asked for and the cohort has none.
    """
    table = prepared.table
    if true:
        if prepared.cohort.truth is None:
            raise LusbioError(f"cohort {prepared.cohort.name!r} has no truth: its patients are not simulated")
        table = prepared.cohort.truth.set_index("video_id").loc[table["video_id"]]
    values = table[list(BIOMARKER_NAMES)].to_numpy(np.float64, copy=True)
    unknown = np.isnan(values)
    values[:, unknown[~unknown.all(1)].any(0)] = np.nan
    kind = Kind.TRUE_BIOMARKERS if true else Kind.TRAINEE_BIOMARKERS
    return ExpertInput(kind, tuple(runs), (fill_masked(values),) * len(runs))


def take_rated_bits(runs: Sequence[Run], prepared: PreparedCohort, names: Sequence[str]) -> ExpertInput:
    """Some biomarkers as the human raters ticked them, (V, len(names)), and nothing else of their labels.

    The others are left out because severity can be read off them: which of them are unknown depends on it
    (``covid_blues.biomarkers_of``).
    """
    rated = take_rated_biomarkers(runs, prepared, true=False)
    columns = [BIOMARKER_NAMES.index(name) for name in names]
    return ExpertInput(Kind.RATED_BITS, rated.runs, tuple(values[:, columns] for values in rated.values))


# --- biomarkers that were learnt from simulated patients first ---


def take_frozen_biomarkers(simulated: Sequence[Run], followed: Sequence[Run], prepared: PreparedCohort) -> ExpertInput:
    """Biomarkers of networks that never saw a real video, mean over the networks.

    Args:
        simulated: Biomarker runs of a simulated cohort.
        followed: Runs of the real patients whose splits are followed.
        prepared: The real patients.

    Returns:
        (V, 38), the same for every run; 0.5 for what none of the networks learnt.
    """
    clips = prepared.profile.training.evaluation_clips
    given = np.array([predict_cohort(run, prepared, clips) for run in simulated])  # (runs, V, 38)
    values = np.ma.masked_invalid(given).mean(axis=0).filled(0.5)
    return ExpertInput(Kind.FROZEN, tuple(followed), (values,) * len(followed))


def take_adapted_biomarkers(runs: Sequence[Run], frozen: ExpertInput) -> ExpertInput:
    """Biomarkers of networks adapted to real patients; what these cannot teach stays what the frozen ones say."""
    pairs = zip(runs, frozen.values, strict=True)
    values = tuple(np.where(np.isnan(run.biomarkers), kept, run.biomarkers) for run, kept in pairs)
    return ExpertInput(Kind.ADAPTED, tuple(runs), values)


def take_mixed_biomarkers(runs: Sequence[Run], mixed: MixedCohort, frozen: ExpertInput) -> ExpertInput:
    """Biomarkers of mixed networks for the real patients; what no label decides stays what the frozen ones say."""
    return replace(take_adapted_biomarkers([keep_real(run, mixed) for run in runs], frozen), features=Kind.MIXED)


def fuse_biomarkers(frozen: ExpertInput, adapted: ExpertInput) -> ExpertInput:
    """Both kinds of biomarkers side by side, (V, 76), frozen ones first: experts weigh them by themselves."""
    pairs = zip(frozen.values, adapted.values, strict=True)
    return ExpertInput(Kind.FUSED, adapted.runs, tuple(np.hstack(pair) for pair in pairs))
