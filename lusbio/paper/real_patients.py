"""The claim on real patients: biomarkers learnt from simulated videos, for decisions about patients of COVID-BLUES.

Networks of the synthetic convex cohort never saw a real video. They are used as they are (frozen), after they
were adapted to the two findings that COVID-BLUES labels, and after they went on with real and simulated videos
together (mixed). Five folds take turns; every patient is tested once, by
models that knew nothing of that patient. This module is about what is decided from; ``real_patients_decisions``
decides, ``real_patients_tables`` makes numbers of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lusbio.cohorts import covid_blues
from lusbio.cohorts.load import load_cohort
from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.targets import BIOMARKER_TASK, encode_task
from lusbio.errors import LusbioError
from lusbio.experts.inputs import Evidence, take_rated_biomarkers
from lusbio.experts.other_cohort import predict_cohort
from lusbio.files import build_folder
from lusbio.paper.leakage import FRAMES, PIXELS, SIZE
from lusbio.profiles import Profile
from lusbio.runs.mixed_cohort import MIXED, MixedCohort, keep_real, start_from
from lusbio.runs.plan import PRETRAINED_TASK, find_tasks
from lusbio.runs.spec import PreparedCohort, Run, RunSpec, prepare_cohort
from lusbio.videos import FrameCache
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS, group_names

FROZEN, ADAPTED = "frozen_biomarkers", "adapted_biomarkers"
"""Biomarkers of networks that never saw a real video, and after they learnt A-lines and B-lines of real ones."""

FUSED = "fused_biomarkers"
"""Frozen and adapted biomarkers side by side."""

FROM_SIMULATED = "pretrained_on_simulated"
"""A network trained for severity that started from a biomarker network of simulated videos."""

ALL_PLACES = "_all_places"
"""Ends the name of what also heeds the patient's other places, see ``real_patients_decisions.share_places``."""

RATED_BITS = "raters_two_bits"
"""What the human raters said: A-lines or none, B-lines or none."""

METADATA = "metadata"
"""What is known without pixels: where the probe stood, depth, frames per second, how many frames."""

FLOORS = (PIXELS, METADATA)
"""What needs no network; the first is what differences are taken to."""

NO_YES = ("no", "yes")


@dataclass(frozen=True)
class Question:
    """A question with two answers that the cohort's table can be asked.

    Attributes:
        title: In words.
        column: Of the table.
        yes: Its values that mean yes; all other known ones mean no.
    """

    title: str
    column: str
    yes: tuple[str | float, ...]


QUESTIONS = {
    "sf_at_most_430": Question("S/F at most 430", "sf_ratio", TASKS["sf_ratio"].classes[1:]),
    "covid": Question("COVID pneumonia", "disease", (TASKS["disease"].classes[1],)),
}
"""Yes-or-no tasks about patients, by name: four classes of S/F are too many for so few patients."""

FINDINGS = {name: Question(name, group_names(name)[0], (0.0,)) for name in ("A-lines", "B-lines")}
"""Yes-or-no tasks about videos: present is everything but "none"."""


def find_real_patients(name: str, profile: Profile, jobs: int = 1) -> tuple[PreparedCohort | None, tuple[str, ...]]:
    """COVID-BLUES, decoded, with ``QUESTIONS`` and ``FINDINGS`` as tasks; or why there is nothing to do.

    Args:
        name: Of the cohort, or its folder.
        profile: Decides the size of the frames.
        jobs: Videos that are decoded at a time.

    Returns:
        The cohort, and a line for each task that it cannot be asked; or None and one line.
    """
    if name != covid_blues.NAME:
        line = f"Nothing to do: this is about real patients, cohort `{covid_blues.NAME}`; here it is `{name}`."
        return None, (line,)
    try:
        prepared = prepare_cohort(load_cohort(name, profile, jobs), profile, jobs)
    except LusbioError as error:
        return None, (f"Nothing to do: it needs COVID-BLUES. {error}",)
    learnable, reasons = find_tasks(prepared)
    if not {BIOMARKER_TASK, PRETRAINED_TASK} <= set(learnable):
        return None, (f"Nothing to do: {'; '.join(f'{task}: {why}' for task, why in reasons.items())}",)
    return ask_questions(prepared)


def ask_questions(prepared: PreparedCohort) -> tuple[PreparedCohort, tuple[str, ...]]:
    """Add ``QUESTIONS`` and ``FINDINGS`` to a cohort's tasks.

    Args:
        prepared: The cohort.

    Returns:
        The cohort with those tasks that every fold can learn and test; and a line for each other one.
    """
    reasons = []
    for name, question in (QUESTIONS | FINDINGS).items():
        values = prepared.cohort.table[question.column]
        answers = values.isin(question.yes).map(dict(zip((False, True), NO_YES, strict=True)))
        try:
            asked = prepared.with_task(name, NO_YES, answers.where(values.notna(), np.nan))
            _check_answers(asked, name)
            prepared = asked
        except LusbioError as error:
            reasons.append(f"{question.title}: {error}")
    return prepared, tuple(reasons)


def _check_answers(prepared: PreparedCohort, task: str) -> None:
    """Raise unless every fold has both answers to learn from, and some to test on."""
    labels = encode_task(prepared.cohort.table, task)
    for fold in run_folds(prepared.protocol):
        splits = prepared.splits(fold).to_numpy()
        if len(np.unique(labels[(splits == "train") & (labels >= 0)])) < 2:
            raise LusbioError(f"the training videos of fold {fold} have one answer")
        if not (labels[splits == "val"] >= 0).any() or not (labels[splits == "test"] >= 0).any():
            raise LusbioError(f"nobody to validate or test on in fold {fold}")


def list_real_patient_runs(
    prepared: PreparedCohort, convex: PreparedCohort, initial_weights: str
) -> dict[str, list[RunSpec]]:
    """The runs of the real patients alone that only this question needs.

    Each starts from a biomarker network of simulated videos: fold k from run k, counted round. Which of the 38
    biomarkers an adapted network learns is decided by its training patients, as for every run: of COVID-BLUES the
    two "none".

    Args:
        prepared: The real patients.
        convex: The simulated ones, whose biomarker runs are to be finished before.
        initial_weights: Of those runs, see ``RunSpec``.

    Returns:
        Specs by what they are for: ``ADAPTED`` and ``FROM_SIMULATED``.
    """
    simulated = convex.specs(BIOMARKER_TASK, initial_weights)
    tasks = {ADAPTED: BIOMARKER_TASK, FROM_SIMULATED: PRETRAINED_TASK}
    return {name: start_from(simulated, prepared.specs(task)) for name, task in tasks.items()}


# --- what is decided from ---


def take_frozen_biomarkers(simulated: Sequence[Run], followed: Sequence[Run], prepared: PreparedCohort) -> Evidence:
    """Biomarkers of networks that never saw a real video, mean over the networks.

    Args:
        simulated: Biomarker runs of a simulated cohort.
        followed: Runs of the real patients whose splits are followed.
        prepared: The real patients.

    Returns:
        The evidence, the same for every run; 0.5 for what none of the networks learnt.
    """
    clips = prepared.profile.training.evaluation_clips
    given = np.array([predict_cohort(run, prepared, clips) for run in simulated])  # (runs, V, 38)
    known = ~np.isnan(given)
    mean = np.where(known, given, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    values = np.where(known.any(axis=0), mean, 0.5)
    return Evidence(FROZEN, tuple(followed), (values,) * len(followed))


def take_adapted_biomarkers(runs: Sequence[Run], frozen: Evidence) -> Evidence:
    """Biomarkers of adapted networks; what they could not learn here stays what the frozen networks say.

    Args:
        runs: Biomarker runs of the real patients, one per fold.
        frozen: From ``take_frozen_biomarkers``.

    Returns:
        The evidence.
    """
    pairs = zip(runs, frozen.values, strict=True)
    values = tuple(np.where(np.isnan(run.biomarkers), kept, run.biomarkers) for run, kept in pairs)
    return Evidence(ADAPTED, tuple(runs), values)


def take_mixed_biomarkers(runs: Sequence[Run], mixed: MixedCohort, frozen: Evidence) -> Evidence:
    """Biomarkers of mixed networks for the real patients; what no training video decides is what the frozen ones say.

    Args:
        runs: Biomarker runs of the mixed cohort, one per fold.
        mixed: The cohort.
        frozen: From ``take_frozen_biomarkers``.

    Returns:
        The evidence, rows as in the table of the real patients.
    """
    return replace(take_adapted_biomarkers([keep_real(run, mixed) for run in runs], frozen), features=MIXED)


def fuse_biomarkers(frozen: Evidence, adapted: Evidence) -> Evidence:
    """Both kinds of biomarkers side by side: experts are given both, and weigh them by themselves.

    Args:
        frozen: From ``take_frozen_biomarkers``.
        adapted: From ``take_adapted_biomarkers``.

    Returns:
        The evidence, (V, 76): all frozen ones, then all adapted ones. Most are equal; they differ in what could be
        adapted.
    """
    pairs = zip(frozen.values, adapted.values, strict=True)
    return Evidence(FUSED, adapted.runs, tuple(np.hstack(pair) for pair in pairs))


def take_rated_bits(runs: Sequence[Run], prepared: PreparedCohort) -> Evidence:
    """The human raters' two answers, and nothing else of their labels.

    The other biomarkers are left out because severity can be read off them: which of them are unknown depends on
    it (``covid_blues.biomarkers_of``).

    Args:
        runs: Runs whose splits are followed.
        prepared: The real patients.

    Returns:
        The evidence, (V, 2).
    """
    columns = [BIOMARKER_NAMES.index(question.column) for question in FINDINGS.values()]
    rated = take_rated_biomarkers(runs, prepared, true=False)
    return Evidence(RATED_BITS, rated.runs, tuple(values[:, columns] for values in rated.values))


def take_pooled_pixels(runs: Sequence[Run], prepared: PreparedCohort, jobs: int = 1) -> Evidence:
    """The mean frame of each video, pooled to 14 x 14 from the file itself, so that no profile changes it.

    Args:
        runs: Runs whose splits are followed.
        prepared: The real patients.
        jobs: Videos that are decoded at a time.

    Returns:
        The evidence, (V, 196), in [0, 1].
    """
    small = FrameCache(build_folder("cache"), SIZE).prepare(prepared.cohort.video_paths(), jobs)
    taken = [v.load()[np.linspace(0, v.n_frames - 1, FRAMES).round().astype(int)] / 255 for v in small]
    values = np.array([frames.mean(axis=0).ravel() for frames in taken])
    return Evidence(PIXELS, tuple(runs), (values,) * len(runs))


def take_metadata(runs: Sequence[Run], prepared: PreparedCohort) -> Evidence:
    """What is known of a video without its pixels, and without anything that a rater or a doctor said.

    Args:
        runs: Runs whose splits are followed.
        prepared: The real patients.

    Returns:
        The evidence: a column per zone, then ``depth_mm``, ``fps`` and the number of frames; -1 where unknown.
    """
    table = prepared.cohort.table
    zones = pd.get_dummies(table["zone"], dtype=np.float64)
    numbers = table[["depth_mm", "fps"]].assign(frames=[video.n_frames for video in prepared.videos])
    values = np.hstack([zones.to_numpy(), numbers.fillna(-1).to_numpy(np.float64)])
    return Evidence(METADATA, tuple(runs), (values,) * len(runs))
