"""What experts decide from: what a network hands over, its features or its 38 biomarkers, or what raters saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.errors import LusbioError
from lusbio.runs.plan import PRETRAINED_TASK
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.vocabulary import BIOMARKER_NAMES

END_TO_END = "end_to_end"
"""Features of a network trained for the task itself (Table 1's name for the rows)."""

BIOMARKERS = "biomarkers"
"""The 38 probabilities of a biomarker network."""

PRETRAINED = "pretrained_on_biomarkers"
"""A network trained for the task, but started from a biomarker network, and its features."""

SEVERITY_FEATURES = "lung_severity_features"
"""Features of a network trained for lung severity, where another task is decided."""

CROSSFITTED = "crossfitted_biomarkers"
"""Biomarkers of every training patient from a network that was not trained on that patient."""

TRUE_BIOMARKERS, TRAINEE_BIOMARKERS = "true_biomarkers", "trainee_biomarkers"
"""Anchors: what the simulator drew, and what the trainee ticked."""

SHUFFLED, MAJORITY = "shuffled_labels", "majority"
"""Anchors: experts fitted to labels that were dealt anew, and the training patients' class frequencies."""

ANCHORS = (TRUE_BIOMARKERS, TRAINEE_BIOMARKERS, SHUFFLED, MAJORITY)
"""Rows that no network stands behind: what the others are measured by."""


@dataclass(frozen=True)
class Evidence:
    """What experts decide from.

    Attributes:
        features: Its name in tables.
        runs: The runs whose splits are followed, one per fold.
        values: One array per run, float64 (V, F), finite, rows as in the cohort's table.
    """

    features: str
    runs: tuple[Run, ...]
    values: tuple[np.ndarray, ...]


def take_evidence(runs: Sequence[Run], task: str) -> Evidence:
    """What finished runs hand over to experts, under the name that Table 1 gives it.

    Args:
        runs: Runs of one kind, one per fold.
        task: What is to be decided.

    Returns:
        The evidence.
    """
    spec = runs[0].spec
    if spec.task == BIOMARKER_TASK:
        features = BIOMARKERS
    elif spec.starts_from:
        features = PRETRAINED
    else:
        features = SEVERITY_FEATURES if spec.task == PRETRAINED_TASK != task else END_TO_END
    return Evidence(features, tuple(runs), tuple(map(handed_over, runs)))


def crossfit_biomarkers(runs: Sequence[Run], prepared: PreparedCohort) -> Evidence:
    """Biomarkers as a network gives them to patients it was not trained on, for training patients as well.

    Experts usually learn from what a network says of its own training patients, where it is surer than
    it will be of new ones. Here the patients that run k trains on are described by the run that
    validated on them. That is possible where all runs share their test patients: those of the other
    protocol trained on the test patients of this fold.

    Args:
        runs: All biomarker runs of the protocol.
        prepared: The cohort they are about.

    Returns:
        The evidence.

    Raises:
        LusbioError: If the runs have different test patients.
    """
    if prepared.protocol != "paper":
        raise LusbioError(f"protocol {prepared.protocol!r}: its runs train on each other's test patients")
    given = [handed_over(run) for run in runs]
    values = []
    for run, own in zip(runs, given, strict=True):
        mixed = own.copy()
        for other, found in zip(runs, given, strict=True):
            rows = (run.splits == "train") & (other.splits == "val")
            mixed[rows] = found[rows]
        values.append(mixed)
    return Evidence(CROSSFITTED, tuple(runs), tuple(values))


def take_rated_biomarkers(runs: Sequence[Run], prepared: PreparedCohort, *, true: bool) -> Evidence:
    """Biomarkers as they were drawn (truth) or ticked (trainee): what perfect networks would hand over.

    Args:
        runs: Runs whose splits are followed.
        prepared: The cohort they are about.
        true: The simulator's truth instead of the trainee's labels.

    Returns:
        The evidence; 0.5 where unknown, and throughout for biomarkers that are unknown in some of the videos with
        any label: *that* they are unknown follows from other labels (of COVID-BLUES, from severity) and would give
        those away.

    Raises:
        LusbioError: If the truth is asked for and the cohort has none.
    """
    table, names = prepared.cohort.table, list(BIOMARKER_NAMES)
    if true:
        if prepared.cohort.truth is None:
            raise LusbioError(f"cohort {prepared.cohort.name!r} has no truth: its patients are not simulated")
        table = prepared.cohort.truth.set_index("video_id").loc[table["video_id"]]
    values = table[names].to_numpy(np.float64, copy=True)
    unknown = np.isnan(values)
    values[:, unknown[~unknown.all(1)].any(0)] = np.nan
    values = fill_masked(values)
    return Evidence(TRUE_BIOMARKERS if true else TRAINEE_BIOMARKERS, tuple(runs), (values,) * len(runs))


def handed_over(run: Run) -> np.ndarray:
    """What experts see of a run: biomarkers float64 (V, 38), or features float64 (V, 512 or 2048)."""
    if run.spec.task == BIOMARKER_TASK:
        return fill_masked(run.biomarkers)
    return run.features.astype(np.float64)


def fill_masked(biomarkers: np.ndarray) -> np.ndarray:
    """Biomarkers (V, 38) with 0.5 in place of NaN: what was never learnt must not tell videos apart."""
    return np.nan_to_num(biomarkers, nan=0.5)
