"""How splits lie: one throw-away model on POCOVID, split five ways, from frames to whole sources.

Nothing changes from rung to rung but which pictures are held out together. A wrong split is written down as
what it claims: a cohort whose table says that every video is a person of its own. No check of the package is
weakened for it. ``leakage_tables`` makes numbers of what is decided here.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import BaseCrossValidator, GroupKFold, LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from lusbio.cohorts import pocovid
from lusbio.cohorts.load import load_cohort
from lusbio.cohorts.targets import classes_of
from lusbio.errors import LusbioError
from lusbio.experts.inputs import END_TO_END, MAJORITY
from lusbio.files import build_folder
from lusbio.paper.generalization import SOURCE_ONLY, find_sources
from lusbio.profiles import Profile
from lusbio.runs.spec import PreparedCohort, Run, check_same_videos, prepare_cohort
from lusbio.statistics.bootstrap import Tested
from lusbio.statistics.metrics import restrict_probabilities
from lusbio.videos import FrameCache
from lusbio.vocabulary import TASKS

PROBE = "convex"
"""Only videos of one probe: the other would be one more thing to recognise a diagnosis by."""

DIAGNOSIS, SEVERITY = "disease", "lung_severity"
"""What is asked."""

RUNGS = {
    "frame": "frame",
    "video": "video",
    "patient": "metadata patient",
    "group": "conservative group",
    "source": "source, one at a time",
}
"""What is held out together, in words; every rung is stricter than the one before."""

PIXELS, FILES, SOURCE = "pooled_pixels", "file_metadata", "source_id"
"""What the throw-away model decides from; the last two are no pictures."""

RUNGS_OF = {PIXELS: tuple(RUNGS), FILES: tuple(RUNGS)[1:], SOURCE: tuple(RUNGS)[1:-1]}
"""Where each is tried: all frames of a video have one file, and the name of a new source tells nothing."""

SIZE, FRAMES = 14, 8
"""Height and width that a frame is pooled to; evenly spaced frames of a video. (Engineering choice.)"""

N_FOLDS, REPEATS = 5, 10
"""Folds of every rung but the last, and how often they are dealt anew: one deal may be lucky."""

Decided = dict[tuple[str, str], list[Tested]]
"""By (features, rung): labels, probabilities and groups of all videos, each decided while it was held out; one
entry per deal of the folds. Groups are the conservative ones on every rung: intervals are over them."""


@dataclass(frozen=True)
class Material:
    """What the ladder is climbed with: videos with a known answer, made small, and what ties them together.

    Attributes:
        task: ``DIAGNOSIS`` or ``SEVERITY``.
        rows: Rows of the cohort's table, int64 (V,).
        labels: Class indices, int64 (V,).
        classes: Names of the K classes that occur.
        pixels: float64 (V, F, 196), in [0, 1]: F frames of each video, pooled to 14 x 14.
        files: One row per video: ``width, height, fps, frames, container``.
        units: One row per video: ``video, patient, group, source``, text, from the finest to the coarsest.
    """

    task: str
    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    pixels: np.ndarray
    files: pd.DataFrame
    units: pd.DataFrame


def find_videos(profile: Profile, jobs: int = 1) -> tuple[PreparedCohort | None, str]:
    """The convex videos of POCOVID, decoded and dealt into folds by conservative group; or why there are none.

    Args:
        profile: Decides the size of the frames that networks see.
        jobs: Videos that are decoded at a time.

    Returns:
        The cohort and an empty text; or None and the reason, with how to mend it.
    """
    try:
        cohort = load_cohort(pocovid.NAME, profile, jobs)
        table = cohort.table[(cohort.table["probe"] == PROBE) & cohort.table[DIAGNOSIS].notna()]
        prepared = prepare_cohort(replace(cohort, table=table), profile, jobs, protocol="cross")
    except LusbioError as error:
        return None, f"No ladder: it needs POCOVID. {error}"
    if table[DIAGNOSIS].nunique() < 2:
        return None, f"No ladder: the {len(table)} {PROBE} videos of POCOVID have one diagnosis here."
    return prepared, ""


def pretend_videos_are_patients(prepared: PreparedCohort, jobs: int = 1) -> PreparedCohort:
    """The same videos, dealt into folds one by one: what a split by video claims, written into the table.

    Args:
        prepared: A cohort.
        jobs: Videos that are read at a time.

    Returns:
        A cohort of another name, so that nobody takes its runs for honest ones; its rows are in the same order.
    """
    table = prepared.cohort.table
    claimed = table.assign(patient_id=table["video_id"], group_id=table["video_id"])
    cohort = replace(prepared.cohort, name=f"{prepared.cohort.name}_split_by_video", table=claimed)
    return prepare_cohort(cohort, prepared.profile, jobs, protocol=prepared.protocol)


def ask_diagnosis(prepared: PreparedCohort, jobs: int = 1) -> Material:
    """What the ladder is about: healthy, COVID, or another disease of the lung.

    Args:
        prepared: From ``find_videos``.
        jobs: Videos that are decoded at a time.

    Returns:
        All videos with a diagnosis.
    """
    table = prepared.cohort.table
    return _gather(DIAGNOSIS, table[DIAGNOSIS], classes_of(table, DIAGNOSIS), prepared, jobs)


def ask_severity(prepared: PreparedCohort, jobs: int = 1) -> Material | None:
    """The same for severity, none (0) against some (1-3).

    Args:
        prepared: From ``find_videos``.
        jobs: Videos that are decoded at a time.

    Returns:
        All videos with a severity; None unless there are both.
    """
    severity = prepared.cohort.table[SEVERITY]
    none, *more = TASKS[SEVERITY].classes
    classes = none, f"{more[0]}-{more[-1]}"
    answers = severity.where((severity == none) | severity.isna(), classes[1])
    return _gather(SEVERITY, answers, classes, prepared, jobs) if answers.nunique() == 2 else None


def _gather(task: str, answers: pd.Series, classes: Sequence[str], prepared: PreparedCohort, jobs: int) -> Material:
    """The rows with an answer; frames are pooled from the files themselves, so no profile changes them."""
    rows = np.flatnonzero(answers.notna())
    known, table = answers.iloc[rows], prepared.cohort.table.iloc[rows]
    classes = tuple(name for name in classes if name in set(known))
    paths = [prepared.cohort.folder / path for path in table["path"]]
    small = FrameCache(build_folder("cache"), SIZE).prepare(paths, jobs)
    pixels = [v.load()[np.linspace(0, v.n_frames - 1, FRAMES).round().astype(int)] / 255 for v in small]
    facts = [(v.info.width, v.info.height, v.info.fps, v.info.frames) for v in small]
    files = pd.DataFrame(facts, columns=["width", "height", "fps", "frames"]).astype(np.float64)
    units = table[["video_id", "patient_id", "group_id"]].set_axis(["video", "patient", "group"], axis=1)
    return Material(
        task=task,
        rows=rows,
        labels=pd.Categorical(known, categories=list(classes)).codes.astype(np.int64),
        classes=classes,
        pixels=np.array(pixels).reshape(len(rows), FRAMES, -1),
        files=files.assign(container=[path.suffix.lower() for path in paths]),
        units=units.assign(source=find_sources(units["group"].to_numpy())).reset_index(drop=True),
    )


def make_throwaway_model(features: str) -> Pipeline:
    """An unfitted logistic regression with scikit-learn's defaults; rare classes count as much as frequent ones.

    Args:
        features: ``PIXELS``, ``FILES`` or ``SOURCE``.

    Returns:
        A classifier.

    Raises:
        ValueError: If there are no such features.
    """
    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore")
    files = make_column_transformer((numbers, ["width", "height", "fps", "frames"]), (words, ["container"]))
    prepare = {PIXELS: StandardScaler(), FILES: files, SOURCE: words}
    if features not in prepare:
        raise ValueError(f"features {features!r} are not one of {', '.join(prepare)}")
    return make_pipeline(prepare[features], LogisticRegression(class_weight="balanced", max_iter=5000))


def deal_folds(rung: str, repeats: int = REPEATS) -> list[BaseCrossValidator]:
    """How a rung holds out: scikit-learn's splitters, one per deal.

    Args:
        rung: A key of ``RUNGS``.
        repeats: Deals; one source at a time can be left out in one way only.

    Returns:
        Splitters that take ``find_units`` as ``groups``.
    """
    if rung == "source":
        return [LeaveOneGroupOut()]
    return [GroupKFold(N_FOLDS, shuffle=True, random_state=deal) for deal in range(repeats)]


def find_units(material: Material, rung: str, frames: int = FRAMES) -> np.ndarray:
    """What is not torn apart on a rung.

    Args:
        material: The videos.
        rung: A key of ``RUNGS``.
        frames: Frames per video; 1 where a video is described as a whole.

    Returns:
        The unit of every frame, shape (V * frames,), video after video.
    """
    if rung == "frame":
        return np.arange(len(material.labels) * frames)
    return np.repeat(material.units[rung].to_numpy(), frames)


def cross_validate(material: Material, features: str, rung: str, repeats: int = REPEATS) -> list[np.ndarray]:
    """Decide every frame of every video by a model that has not seen its unit.

    Args:
        material: The videos.
        features: What is decided from; see ``make_throwaway_model``.
        rung: A key of ``RUNGS``.
        repeats: Deals of the folds.

    Returns:
        One array per deal, float64 (V, F, K); F is 1 unless it decides from pixels.

    Raises:
        LusbioError: If there are too few units, or nothing to learn from those that are left.
    """
    pixels = material.pixels.reshape(-1, material.pixels.shape[-1])  # (V * F, 196)
    inputs = {PIXELS: pixels, FILES: material.files, SOURCE: material.units[["source"]]}[features]
    frames = len(inputs) // len(material.labels)
    labels, units = np.repeat(material.labels, frames), find_units(material, rung, frames)
    model, found = make_throwaway_model(features), []
    for folds in deal_folds(rung, repeats):
        check_learnable(labels, units, folds, rung)
        with warnings.catch_warnings(), threadpool_limits(1):
            # A class that lives in one unit is unknown to the model that decides on it: probability 0.
            warnings.filterwarnings("ignore", message="Number of classes in .*fold")
            decided = cross_val_predict(model, inputs, labels, groups=units, cv=folds, method="predict_proba")
        found.append(decided.reshape(len(material.labels), frames, -1))
    return found


def check_learnable(labels: np.ndarray, units: np.ndarray, folds: BaseCrossValidator, rung: str) -> None:
    """Raise unless every training part has two classes.

    Args:
        labels: Class indices, (N,).
        units: What is held out together, (N,).
        folds: One of ``deal_folds``.
        rung: Its rung, for the message.

    Raises:
        LusbioError: If there are fewer units than folds, or a training part has one class.
    """
    count, least = len(np.unique(units)), 2 if rung == "source" else N_FOLDS
    if count < least:
        raise LusbioError(f"split by {RUNGS.get(rung, rung)}: there are {count}, at least {least} are needed")
    if any(len(np.unique(labels[train])) < 2 for train, _ in folds.split(labels, groups=units)):
        raise LusbioError(f"split by {RUNGS.get(rung, rung)}: without one part a single class is left to learn")


def climb(
    material: Material, features: str, rungs: Sequence[str] = (), repeats: int = REPEATS
) -> tuple[Decided, list[str]]:
    """One throw-away model, rung by rung.

    Args:
        material: The videos.
        features: What is decided from.
        rungs: Which rungs; none means all of ``RUNGS_OF``.
        repeats: Deals of the folds.

    Returns:
        Decisions on videos, the mean of those on their frames; and a line for each rung that these videos are
        too few for.
    """
    decided, reasons = {}, []
    for rung in rungs or RUNGS_OF[features]:
        try:
            found = cross_validate(material, features, rung, repeats)
            decided[features, rung] = [_tested(p.mean(axis=1), material) for p in found]
        except LusbioError as error:
            reasons.append(f"{features.replace('_', ' ')}, {error}")
    return decided, reasons


def _tested(probabilities: np.ndarray, material: Material) -> Tested:
    return material.labels, probabilities, material.units["group"].to_numpy()


def decide_by_frequency(material: Material) -> Decided:
    """Everybody gets the class frequencies: what a number is worth that nothing was learnt for."""
    shares = np.bincount(material.labels) / len(material.labels)
    return {(MAJORITY, "—"): [_tested(np.tile(shares, (len(material.labels), 1)), material)]}


def decide_by_known_source(material: Material) -> Decided:
    """Class frequencies of a video's source, read off the very videos that are judged: a floor, not a rival."""
    of_class = pd.DataFrame(np.eye(len(material.classes))[material.labels])
    shares = of_class.groupby(material.units["source"]).transform("mean").to_numpy()
    return {(SOURCE_ONLY, "—"): [_tested(shares, material)]}


def decide_by_network(runs: Sequence[Run], prepared: PreparedCohort, rung: str, material: Material) -> Decided:
    """What end-to-end networks say of the videos that they held out.

    Args:
        runs: All run folds, for the task of the material.
        prepared: The cohort they were trained on.
        rung: What that cohort's folds hold out together.
        material: The same videos, with their conservative groups.

    Returns:
        Decisions among the classes that occur.

    Raises:
        LusbioError: If the videos differ, or one was held out by none of the runs, or by several.
    """
    for run in runs:
        check_same_videos(run, prepared)
    if prepared.cohort.table["video_id"].iloc[material.rows].tolist() != material.units["video"].tolist():
        raise LusbioError(f"cohort {prepared.cohort.name!r} and the material are about other videos")
    held_out = np.array([run.splits == "test" for run in runs])[:, material.rows]  # (runs, V)
    if (held_out.sum(axis=0) != 1).any():
        raise LusbioError(f"these {len(runs)} runs do not hold out every video once")
    decided = np.array([run.probabilities[material.rows] for run in runs])[
        held_out.argmax(0), range(len(material.rows))
    ]
    occurs = np.isin(classes_of(prepared.cohort.table, material.task), material.classes)
    return {(END_TO_END, rung): [_tested(restrict_probabilities(decided, occurs), material)]}
