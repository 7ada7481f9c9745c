"""A run is one training, described by a frozen ``RunSpec`` and stored in one folder.

The folder's name follows from the spec, the data and the code that decides the numbers. This module describes runs and
reads them; ``train`` makes them.
"""

import ast
import contextlib
import inspect
import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from inspect import ismodule
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.splits import assign_splits, choose_protocol, make_folds, run_folds
from lusbio.cohorts.table import Cohort, fingerprint
from lusbio.cohorts.targets import classes_of, encode_task
from lusbio.errors import LusbioError
from lusbio.files import PACKAGE, build_folder, code_fingerprint, text_sha256
from lusbio.network import OTHER_BACKBONE, UNET, USUAL_BACKBONE, VIT
from lusbio.profiles import Profile, TrainingSettings
from lusbio.videos import CachedVideo, FrameCache, decoding_of
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, TASKS

Say = Callable[[str], None]
"""Takes lines of progress for a person, e.g. ``print``."""

DECIDING = (
    *("network/clips.py", "network/resnet.py", "network/training.py", "network/weights.py"),
    *("cohorts/splits.py", "cohorts/targets.py", "runs/assembly.py"),
)
"""The files that decide the numbers of every training, besides that of its own backbone; each says so on top."""

BACKBONE_FILES = {USUAL_BACKBONE: "network/tsm.py", OTHER_BACKBONE: "network/i3d.py", UNET: "network/unet.py"}
BACKBONE_FILES[VIT] = "network/vit.py"
"""The file of each backbone, which decides the numbers of its own trainings only."""


def training_code(backbone: str) -> str:
    """A hash of the code that decides the numbers of a training of a backbone; see ``files.code_fingerprint``."""
    return code_fingerprint(*DECIDING, BACKBONE_FILES[backbone])


@dataclass(frozen=True)
class Own:
    """Parts of a training that somebody puts in place of the package's.

    Attributes:
        network: From the number of outputs K and of frames T to a network that maps float clips (B, T, 1, H, W) in
            [0, 1] to logits (B, K), and has ``features_and_logits`` besides, as ``TSMResNet18`` has.
        loss: From logits (B, K) and targets, (B, 38) with NaN or (B,) classes, to a scalar.
        augment: From float clips (B, T, 1, H, W) in [0, 1] and a generator on the CPU to clips of that shape.
        assemble: A pretraining, which learns something other than labels of videos: from the spec and the prepared
            cohort to a ``PretrainingModule``, its Lightning data module, and the rows of ``train`` and ``val`` videos.
    """

    network: Callable | None = None
    loss: Callable | None = None
    augment: Callable | None = None
    assemble: Callable | None = None

    @cached_property
    def name(self) -> str:
        """Which parts, and a hash of their source, e.g. ``"loss-3f2a91c4"``; empty when there is none.

        The source is that of the function or class itself, with the values and functions that a function names; what
        those name in turn is not looked at. Of a part that stands in the package it is that of its file and of those
        that the file names in ``DECIDING``. It travels to worker processes, which do not have the source of what stands
        in a notebook.
        """
        return "+".join(f"{name}-{_source_hash(name, part)}" for name, part in vars(self).items() if part is not None)


def _source_hash(name: str, part: Callable) -> str:
    try:
        source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(part))))
    except (OSError, TypeError, SyntaxError) as error:
        raise LusbioError(f"{name}: its source cannot be read, write it as a function or class in a cell") from error
    seen = inspect.getclosurevars(part) if inspect.isfunction(part) else inspect.ClosureVars({}, {}, {}, set())
    closed = {key: repr(value) for key, value in seen.nonlocals.items()}
    if (file := Path(inspect.getfile(part))).is_relative_to(PACKAGE):
        source = code_fingerprint(str(file.relative_to(PACKAGE)), *getattr(inspect.getmodule(part), "DECIDING", ()))
    else:
        closed |= {key: _describe_named(value, part) for key, value in seen.globals.items() if not ismodule(value)}
    return text_sha256(source, closed)[:8]


def _describe_named(value: object, part: Callable) -> str:
    """What a part of one's own names: the source of what stands beside it, the name of what is imported, a value."""
    if not callable(value) or not hasattr(value, "__qualname__"):
        return repr(value)
    if value.__module__ != part.__module__:
        return f"{value.__module__}.{value.__qualname__}"
    return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(value))))


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of one training, but for the last digits.

    The device and its precision are recorded in ``run.json`` and are no part of the spec: runs made on a GPU can be
    read anywhere.

    Attributes:
        task: ``"biomarkers"``, or for an end-to-end network a key of ``TASKS`` or a task added with ``with_task``; of a
            pretraining, a name for what it learns.
        fold: Run fold of the protocol.
        profile: Name of the profile.
        training: Its settings.
        cohort: Name of the cohort.
        data: Fingerprint of the cohort's table and videos.
        protocol: ``"paper"``, ``"cross"`` or ``"final"``, see ``cohorts.splits``.
        outputs: Names of the K outputs: biomarkers, or the classes of the task.
        initial_weights: ``"scratch"``, what ``network.weights`` says of the file it found, or ``"run:"`` and the
            ``run_id`` of a run whose network it starts from.
        backbone: A key of ``BACKBONE_FILES``; of those that ``assembly`` does not make, the ``own`` part makes it.
        label_fraction: Share of the training patients whose labels are used.
        budget: Share of the profile's epochs that the training has, with a whole schedule.
        seed: With the fold, what initial weights, order, clips, augmentation and dropout follow from.
        own: The ``name`` of an ``Own``.
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
    budget: float = 1.0
    seed: int = 0
    own: str = ""

    @property
    def run_id(self) -> str:
        """The name of the run's folder, e.g. ``"biomarkers-fold0-3f2a..."``."""
        return f"{self.task}-fold{self.fold}-{text_sha256(asdict(self), training_code(self.backbone))[:12]}"

    @classmethod
    def from_json(cls, content: dict) -> "RunSpec":
        """The spec that ``run.json`` or a model's card holds."""
        training, outputs = TrainingSettings(**content["training"]), tuple(content["outputs"])
        return cls(**content | {"training": training, "outputs": outputs})

    @property
    def entropy(self) -> int:
        """The number that everything random starts from: no two folds, and no two seeds, have it in common."""
        return int(np.random.SeedSequence([self.seed, self.fold]).generate_state(1)[0])

    @property
    def starts_from(self) -> str | None:
        """The ``run_id`` of the run whose network it starts from, if that is what it does."""
        return self.initial_weights.removeprefix("run:") if self.initial_weights.startswith("run:") else None

    @property
    def kind(self) -> str:
        """What a run is in the paper, without its task and fold."""
        if "assemble-" in self.own:
            return "pretraining"
        if self.starts_from and (self.own or not self.starts_from.startswith(BIOMARKER_TASK)):
            return f"from {self.starts_from.rpartition('-fold')[0]}"
        if self.own and self.backbone not in (USUAL_BACKBONE, OTHER_BACKBONE):
            return f"{self.backbone} from scratch"
        if self.own:
            return f"own {self.own}"
        if self.backbone != USUAL_BACKBONE:
            return f"other backbone, {self.backbone}"
        of_biomarkers = self.task == BIOMARKER_TASK
        if self.starts_from:
            return "biomarker network, pretrained" if of_biomarkers else "pretrained on biomarkers"
        if self.label_fraction < 1:
            return f"{100 * self.label_fraction:g} % of the labels"
        if self.budget < 1:
            return f"{100 * self.budget:g} % of the epochs"
        return "biomarker network" if of_biomarkers else "end-to-end"

    @property
    def words(self) -> str:
        """A run for a person at the terminal, e.g. ``"lung_severity fold 0, 25 % of the labels"``."""
        return f"{self.task} fold {self.fold}, {self.kind}"


@dataclass(frozen=True)
class PreparedCohort:
    """A cohort that is ready to train on: decoded and dealt into folds.

    Attributes:
        cohort: The cohort, its table sorted by ``video_id``.
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

    @property
    def table(self) -> pd.DataFrame:
        """The cohort's table, one row per video."""
        return self.cohort.table

    def splits(self, fold: int) -> pd.Series:
        """``train``, ``val`` or ``test`` per row of the table; see ``cohorts.splits.assign_splits``."""
        return assign_splits(self.table, self.folds, fold, self.protocol)

    def specs(self, task: str, **changes) -> list[RunSpec]:
        """One spec per seed of the profile and run fold, of ``"biomarkers"``, a key of ``TASKS`` or one's own task.

        Args:
            task: What the network is trained for.
            **changes: Other fields of ``RunSpec``, e.g. ``seed=1`` (then there is one per fold) or ``budget=0.5``;
                for a pretraining, ``outputs``.
        """
        known = changes.pop("outputs", BIOMARKER_NAMES if task == BIOMARKER_TASK else None)
        outputs = classes_of(self.table, task) if known is None else known
        training = changes.pop("training", self.profile.training)
        training = replace(training, epochs=ceil(training.epochs * changes.get("budget", 1)))
        known = (self.profile.name, training, self.cohort.name, self.data_of(task), self.protocol, outputs)
        seeds = [changes.pop("seed")] if "seed" in changes else range(self.profile.seeds)
        folds = run_folds(self.protocol)
        return [RunSpec(task, fold, *known, seed=seed, **changes) for seed in seeds for fold in folds]

    def with_task(self, name: str, classes: Sequence[str], values: pd.Series) -> "PreparedCohort":
        """The cohort with one more task; its finished runs stay valid.

        Args:
            name: Of the task; tables show it with spaces for underscores.
            classes: At least two, in the order in which they are to be shown.
            values: One of the classes per row of the table, NaN where unknown.

        Returns:
            A cohort whose table has the column ``name``.

        Raises:
            LusbioError: If the table has that column already, there are other values than the classes, or fewer than
                two of the classes are there.
        """
        classes, known = tuple(classes), set(values.dropna().astype(str))
        if name in self.table or name == BIOMARKER_TASK:
            raise LusbioError(f"task {name!r}: the cohort's table has that column already, choose another name")
        if strange := sorted(known - set(classes)):
            raise LusbioError(f"task {name!r}: value {strange[0]!r} is not one of {', '.join(classes)}")
        if len(known) < 2:
            found = f"{values.notna().sum()} of {len(values)} videos have a label"
            raise LusbioError(f"task {name!r}: {found}, of {len(known)} of {len(classes)} classes; expected at least 2")
        column = pd.Categorical(values.where(values.isna(), values.astype(str)), categories=list(classes))
        return replace(self, cohort=replace(self.cohort, table=self.table.assign(**{name: column})))

    def data_of(self, task: str) -> str:
        """Fingerprint of what a run for a task learns from: ``data``, and the labels of a task that was added."""
        if task == BIOMARKER_TASK or task in TASKS or task not in self.table:
            return self.data
        labels = text_sha256(classes_of(self.table, task), encode_task(self.table, task).tolist())
        return f"{self.data}-{labels[:12]}"


def prepare_cohort(cohort: Cohort, profile: Profile, jobs: int = 1, protocol: str | None = None) -> PreparedCohort:
    """Decode a cohort's videos to the profile's size (once) and deal its groups into folds.

    Args:
        cohort: The cohort.
        profile: Decides the size of the frames.
        jobs: Threads that decode.
        protocol: How patients are used; None chooses by the cohort's size.

    Raises:
        CohortError: With one line for every video that does not decode.
        LusbioError: If there are too few groups for the protocol.
    """
    # One order for everything that is paired by position, whatever the order of the file's rows.
    table = cohort.table.sort_values("video_id", ignore_index=True)
    cohort = replace(cohort, table=table)
    videos = FrameCache(build_folder("cache"), profile.training.image_size).prepare(cohort.video_paths(), jobs)
    rows = zip(table["video_id"], table["path"], videos, strict=True)
    content = {name: f"{video.sha256}{decoding_of(path)}" for name, path, video in rows}
    protocol = protocol or choose_protocol(table["group_id"].nunique(), cohort.simulated)
    return PreparedCohort(cohort, profile, videos, fingerprint(cohort, content), protocol, make_folds(table, protocol))


@dataclass(frozen=True)
class Run:
    """A finished run, as read from its folder.

    Attributes:
        folder: Where it lies.
        spec: What it was.
        info: The content of ``run.json``.
        predictions: One row per video: ``video_id, split, p_0 ... p_K-1``.
        features: float32 (V, 8 * width), or 2048 for the other backbone; rows as in ``predictions``.
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


def runs_folder(*parts: str) -> Path:
    """Where all runs lie, whatever their profile and cohort, or a place in there."""
    return build_folder("runs", *parts)


def is_finished(folder: Path) -> bool:
    """True when a run's folder is complete: ``run.json`` is written last."""
    return (folder / "run.json").is_file()


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Whatever is wrong with the files of a finished run, one sentence says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, SafetensorError) as error:
        raise LusbioError(f"{folder}: damaged ({error}); remove this folder, and the run is trained again") from error


def find_finished(task: str) -> list[tuple[Path, dict]]:
    """Folders and ``run.json`` of finished runs of a task, of the code at hand and without parts of one's own."""
    files, code = runs_folder().glob(f"{task}-fold*/run.json"), training_code(USUAL_BACKBONE)
    infos = {}
    for file in files:
        with _damage_named(file.parent):
            infos[file.parent] = json.loads(file.read_text(encoding="utf-8"))
    return [(folder, info) for folder, info in infos.items() if info.get("code") == code and not info["spec"]["own"]]


def load_run(folder: Path) -> Run:
    """Read a finished run; a ``LusbioError`` if it is none, or if one of its files is damaged."""
    from safetensors import safe_open

    if not is_finished(folder):
        raise LusbioError(f"{folder}: no finished run here (run.json is missing)")
    with _damage_named(folder):
        if (folder / "weights.safetensors").exists():
            safe_open(folder / "weights.safetensors", "numpy")  # raises where it is shorter than its head says
        info = json.loads((folder / "run.json").read_text())
        predictions = pd.read_csv(folder / "predictions.csv", dtype={"video_id": str})
        features = np.load(folder / "features.npy", allow_pickle=False)
        seconds = json.loads((folder / "timing.json").read_text())["seconds"]
        found, rows = (len(predictions), predictions["split"].count()), (len(features), sum(info["videos"].values()))
        if found != rows or not (folder / "predictions.csv").read_bytes().endswith(b"\n"):
            raise ValueError(f"predictions.csv is cut off, {found[0]} rows of {rows[0]}")
    return Run(folder, RunSpec.from_json(info["spec"]), info, predictions, features, seconds / 60)


def find_runs(specs: Sequence[RunSpec]) -> list[Run]:
    """Read the runs of several specs, in order; a ``LusbioError`` names those that are not finished."""
    missing = [spec.run_id for spec in specs if not is_finished(runs_folder(spec.run_id))]
    if missing:
        command = f"make paper PROFILE={specs[0].profile} COHORT={specs[0].cohort}"
        raise LusbioError(f"not trained yet: {', '.join(missing)}. `{command}` trains them in notebook 02")
    return [load_run(runs_folder(spec.run_id)) for spec in specs]


def check_same_videos(run: Run, prepared: PreparedCohort) -> None:
    """Raise a ``LusbioError`` unless a run's predictions are about the rows of a cohort, in their order."""
    if run.predictions["video_id"].tolist() != prepared.table["video_id"].tolist():
        raise LusbioError(f"run {run.folder.name} predicted other videos than those of {prepared.cohort.name!r}")


def labels_of(run: Run, prepared: PreparedCohort) -> np.ndarray:
    """The labels that a biomarker run can be judged by: float64 (V, 38), NaN where unknown or masked."""
    check_same_videos(run, prepared)
    labels = prepared.table[list(BIOMARKER_NAMES)].to_numpy(np.float64)
    return np.where(np.isin(BIOMARKER_NAMES, run.info["masked"]), np.nan, labels)
