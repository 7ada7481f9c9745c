"""A run is one training, described by a frozen ``RunSpec`` and stored in one folder.

The folder's name follows from the spec, the data and the code that decides the numbers. This module
describes runs and reads them; ``execution`` makes them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.splits import assign_splits, choose_protocol, make_folds, run_folds
from lusbio.cohorts.table import Cohort, fingerprint
from lusbio.cohorts.targets import BIOMARKER_TASK, classes_of, encode_task
from lusbio.errors import LusbioError
from lusbio.files import build_folder, code_fingerprint
from lusbio.network import OTHER_BACKBONE, USUAL_BACKBONE
from lusbio.profiles import Profile, TrainingSettings
from lusbio.videos import DECODING, CachedVideo, FrameCache
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

DECIDING = (
    *("network/clips.py", "network/resnet.py", "network/training.py", "network/weights.py"),
    *("cohorts/splits.py", "cohorts/targets.py", "runs/assembly.py"),
)
"""The files that decide the numbers of every training, besides that of its own backbone; each says so on top."""

BACKBONE_FILES = {USUAL_BACKBONE: "network/tsm.py", OTHER_BACKBONE: "network/i3d.py"}
"""The file of each backbone, which decides the numbers of its own trainings only."""


def training_code(backbone: str) -> str:
    """A hash of the code that decides the numbers of a training of a backbone; see ``files.code_fingerprint``."""
    return code_fingerprint(*DECIDING, BACKBONE_FILES[backbone])


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of one training, but for the last digits.

    The device and its precision are recorded in ``run.json`` and are no part of the spec: runs made on a
    GPU can be read anywhere.

    Attributes:
        task: ``"biomarkers"``, or for an end-to-end network a key of ``TASKS`` or a task added with ``with_task``.
        fold: Run fold of the protocol.
        profile: Name of the profile.
        training: Its settings.
        cohort: Name of the cohort.
        data: Fingerprint of the cohort's table and videos.
        protocol: ``"paper"``, ``"cross"`` or ``"final"``, see ``lusbio.cohorts.splits``.
        outputs: Names of the K outputs: biomarkers, or the classes of the task.
        initial_weights: ``"scratch"``, what ``models.weights`` says of the file it found, or ``"run:"`` and
            the ``run_id`` of a run whose network it starts from.
        backbone: ``USUAL_BACKBONE`` or ``OTHER_BACKBONE``.
        label_fraction: Share of the training patients whose labels are used.
        seed: Seed of initial weights, order, clips, augmentation and dropout.
    """

    task: str
    fold: int
    profile: str
    training: TrainingSettings
    cohort: str
    data: str
    protocol: str
    outputs: tuple[str, ...]
    initial_weights: str = "scratch"
    backbone: str = USUAL_BACKBONE
    label_fraction: float = 1.0
    seed: int = 0

    @property
    def run_id(self) -> str:
        """The name of the run's folder, e.g. ``"biomarkers-fold0-3f2a..."``."""
        decisive = {"spec": asdict(self), "code": training_code(self.backbone)}
        content = json.dumps(decisive, sort_keys=True)
        return f"{self.task}-fold{self.fold}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @classmethod
    def from_json(cls, content: dict) -> "RunSpec":
        """The spec that ``run.json`` or a model's card holds."""
        training, outputs = TrainingSettings(**content["training"]), tuple(content["outputs"])
        return cls(**content | {"training": training, "outputs": outputs})

    @property
    def starts_from(self) -> str | None:
        """The ``run_id`` of the run whose network it starts from, if that is what it does."""
        return self.initial_weights.removeprefix("run:") if self.initial_weights.startswith("run:") else None


def describe_spec(spec: RunSpec) -> str:
    """A run in a few words, for a person at the terminal, e.g. ``"lung_severity fold 0, 25 % of the labels"``."""
    parts = [f"{spec.task} fold {spec.fold}"]
    if spec.backbone != USUAL_BACKBONE:
        parts.append(spec.backbone)
    if spec.starts_from:
        parts.append(f"pretrained on {spec.starts_from.split('-')[0]}")
    if spec.label_fraction < 1:
        parts.append(f"{100 * spec.label_fraction:g} % of the labels")
    return ", ".join(parts)


@dataclass(frozen=True)
class PreparedCohort:
    """A cohort that is ready to train on: decoded and dealt into folds.

    Attributes:
        cohort: The cohort.
        profile: The profile whose frame size the videos have.
        videos: Decoded videos, one per row of the table.
        data: Fingerprint of table and videos.
        protocol: ``"paper"``, ``"cross"`` or ``"final"``.
        folds: One row per group: ``group_id``, ``fold``.
    """

    cohort: Cohort
    profile: Profile
    videos: list[CachedVideo]
    data: str
    protocol: str
    folds: pd.DataFrame

    def splits(self, fold: int) -> pd.Series:
        """``train``, ``val`` or ``test`` per row of the table; see ``splits.assign_splits``."""
        return assign_splits(self.cohort.table, self.folds, fold, self.protocol)

    def specs(self, task: str, initial_weights: str = "scratch", **changes) -> list[RunSpec]:
        """One spec per run fold of the protocol.

        Args:
            task: ``"biomarkers"``, a key of ``TASKS``, or a task added with ``with_task``.
            initial_weights: See ``RunSpec``.
            **changes: Other fields of ``RunSpec``, e.g. ``seed=1``.

        Returns:
            Specs with this cohort and profile.
        """
        profile, data = self.profile, self.data_of(task)
        outputs = BIOMARKER_NAMES if task == BIOMARKER_TASK else classes_of(self.cohort.table, task)
        known = (profile.name, profile.training, self.cohort.name, data, self.protocol, outputs)
        specs = [RunSpec(task, fold, *known, initial_weights) for fold in run_folds(self.protocol)]
        return [replace(spec, **changes) for spec in specs]

    def with_task(self, name: str, classes: Sequence[str], values: pd.Series) -> "PreparedCohort":
        """The cohort with one more task; its finished runs stay valid.

        Args:
            name: Of the task; tables show it with spaces for underscores.
            classes: At least two, in the order in which they are to be shown.
            values: One of the classes per row of the table, NaN where unknown.

        Returns:
            A cohort whose table has the column ``name``.

        Raises:
            LusbioError: If the table has that column already, there are other values than the classes, or
                fewer than two of the classes are there.
        """
        classes, known = tuple(classes), set(values.dropna().astype(str))
        if name in self.cohort.table or name == BIOMARKER_TASK:
            raise LusbioError(f"task {name!r}: the cohort's table has that column already, choose another name")
        if strange := sorted(known - set(classes)):
            raise LusbioError(f"task {name!r}: value {strange[0]!r} is not one of {', '.join(classes)}")
        if len(known) < 2:
            raise LusbioError(
                f"task {name!r}: {values.notna().sum()} of {len(values)} videos have a label, of {len(known)} of "
                f"the {len(classes)} classes; expected at least 2"
            )
        column = pd.Categorical(values.where(values.isna(), values.astype(str)), categories=list(classes))
        table = self.cohort.table.assign(**{name: column})
        return replace(self, cohort=replace(self.cohort, table=table))

    def data_of(self, task: str) -> str:
        """Fingerprint of what a run for a task learns from: ``data``, and the labels of a task that was added."""
        if task == BIOMARKER_TASK or task in TASKS:
            return self.data
        content = json.dumps([classes_of(self.cohort.table, task), encode_task(self.cohort.table, task).tolist()])
        return f"{self.data}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def prepare_cohort(cohort: Cohort, profile: Profile, jobs: int = 1, protocol: str | None = None) -> PreparedCohort:
    """Decode a cohort's videos to the profile's size (once) and deal its groups into folds.

    Args:
        cohort: The cohort.
        profile: Decides the size of the frames.
        jobs: Threads that decode.
        protocol: How patients are used; None chooses by the cohort's size.

    Returns:
        What trainings and tables start from.

    Raises:
        CohortError: With one line for every video that does not decode.
        LusbioError: If there are too few groups for the protocol.
    """
    # One order for everything that is paired by position, whatever the order of the file's rows.
    table = cohort.table.sort_values("video_id", ignore_index=True)
    cohort = replace(cohort, table=table)
    cache = FrameCache(build_folder("cache"), profile.training.image_size)
    videos = cache.prepare(cohort.video_paths(), jobs)
    content = {
        video_id: f"{video.sha256}{DECODING}" for video_id, video in zip(cohort.table["video_id"], videos, strict=True)
    }
    protocol = protocol or choose_protocol(cohort.table["group_id"].nunique(), cohort.simulated)
    folds = make_folds(cohort.table, protocol)
    return PreparedCohort(cohort, profile, videos, fingerprint(cohort, content), protocol, folds)


@dataclass(frozen=True)
class Run:
    """A finished run, as read from its folder.

    Attributes:
        folder: Where it lies.
        spec: What it was.
        info: The content of ``run.json``.
        predictions: One row per video: ``video_id, split, p_0 ... p_K-1``.
        features: float32 (V, 512), or 2048 for the other backbone; rows as in ``predictions``.
        minutes: Training and prediction, finished epochs before an interruption included.
    """

    folder: Path
    spec: RunSpec
    info: dict
    predictions: pd.DataFrame
    features: np.ndarray
    minutes: float

    @property
    def probabilities(self) -> np.ndarray:
        """float64 (V, K): 38 biomarkers, or the classes of the task."""
        return self.predictions.filter(regex=r"^p_\d+$").to_numpy(np.float64)

    @property
    def biomarkers(self) -> np.ndarray:
        """Of a biomarker run: float64 (V, 38), NaN for those that were masked in training."""
        return np.where(np.isin(BIOMARKER_NAMES, self.info["masked"]), np.nan, self.probabilities)

    @property
    def splits(self) -> np.ndarray:
        """``train``, ``val`` or ``test`` per row of ``predictions``."""
        return self.predictions["split"].to_numpy()


def runs_folder() -> Path:
    """Where all runs lie, whatever their profile and cohort."""
    return build_folder("runs")


def is_finished(folder: Path) -> bool:
    """True when a run's folder is complete: ``run.json`` is written last."""
    return (folder / "run.json").is_file()


def load_run(folder: Path) -> Run:
    """Read a finished run.

    Args:
        folder: The run's folder.

    Returns:
        The run.

    Raises:
        LusbioError: If it is not a finished run.
    """
    if not is_finished(folder):
        raise LusbioError(f"{folder}: no finished run here (run.json is missing)")
    info = json.loads((folder / "run.json").read_text())
    spec = RunSpec.from_json(info["spec"])
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"video_id": str})
    features = np.load(folder / "features.npy", allow_pickle=False)
    seconds = json.loads((folder / "timing.json").read_text())["seconds"]
    return Run(folder, spec, info, predictions, features, seconds / 60)


def find_runs(specs: Sequence[RunSpec]) -> list[Run]:
    """Read the runs of several specs.

    Args:
        specs: What was trained.

    Returns:
        One run per spec, in order.

    Raises:
        LusbioError: Naming the runs that are not finished, and how to make them.
    """
    missing = [spec.run_id for spec in specs if not is_finished(runs_folder() / spec.run_id)]
    if missing:
        raise LusbioError(f"not trained yet: {', '.join(missing)}. `make paper` or notebook 02 trains them")
    return [load_run(runs_folder() / spec.run_id) for spec in specs]


def check_same_videos(run: Run, prepared: PreparedCohort) -> None:
    """Raise unless a run's predictions are about the rows of a cohort, in their order.

    Args:
        run: A finished run.
        prepared: The cohort that its predictions are about to be compared with.

    Raises:
        LusbioError: If the videos differ.
    """
    if run.predictions["video_id"].tolist() != prepared.cohort.table["video_id"].tolist():
        raise LusbioError(f"run {run.folder.name} predicted other videos than those of {prepared.cohort.name!r}")


def labels_of(run: Run, prepared: PreparedCohort) -> np.ndarray:
    """The labels that a biomarker run can be judged by: float64 (V, 38), NaN where unknown or masked."""
    check_same_videos(run, prepared)
    labels = prepared.cohort.table[list(BIOMARKER_NAMES)].to_numpy(np.float64)
    return np.where(np.isin(BIOMARKER_NAMES, run.info["masked"]), np.nan, labels)
