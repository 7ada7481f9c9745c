"""A run is one training, described by a frozen ``RunSpec`` and stored in one folder.

The folder's name follows from the spec, the data and the code that decides the numbers. A finished
run is never repeated; a run that was killed goes on from its last epoch; any number of workers, on
any number of machines, may work on the same list of runs in the same folder.
"""

import contextlib
import hashlib
import json
import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.table import Cohort, fingerprint
from lusbio.errors import LeakageError, LusbioError
from lusbio.files import atomic_path, code_fingerprint, write_csv, write_json
from lusbio.labels import BIOMARKER_TASK, repeat_rare, select_rows
from lusbio.paths import build_folder
from lusbio.profiles import Profile, TrainingSettings
from lusbio.splits import assign_splits, choose_protocol, make_folds, run_folds
from lusbio.videos import CachedVideo, FrameCache
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

TRAINING_CODE = ("labels.py", "clips.py", "training.py", "splits.py", "models")
"""What decides the numbers of a training; see ``files.code_fingerprint``."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of one training.

    Attributes:
        task: ``"biomarkers"``, or a key of ``TASKS`` for an end-to-end network.
        fold: Run fold of the protocol.
        profile: Name of the profile.
        training: Its settings.
        cohort: Name of the cohort.
        data: Fingerprint of the cohort's table and videos.
        protocol: ``"paper"``, ``"cross"`` or ``"final"``, see ``lusbio.splits``.
        initial_weights: ``"scratch"``, or what ``models.weights`` says of the file it found.
        backbone: The network; there is one so far.
        seed: Seed of initial weights, order, clips, augmentation and dropout.
    """

    task: str
    fold: int
    profile: str
    training: TrainingSettings
    cohort: str
    data: str
    protocol: str
    initial_weights: str = "scratch"
    backbone: str = "tsm_resnet18"
    seed: int = 0

    @property
    def run_id(self) -> str:
        """The name of the run's folder, e.g. ``"biomarkers-fold0-3f2a..."``."""
        outputs = BIOMARKER_NAMES if self.task == BIOMARKER_TASK else TASKS[self.task].classes
        decisive = {"spec": asdict(self), "code": code_fingerprint(*TRAINING_CODE), "outputs": outputs}
        content = json.dumps(decisive, sort_keys=True)
        return f"{self.task}-fold{self.fold}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @classmethod
    def from_json(cls, content: dict) -> "RunSpec":
        """The spec that ``run.json`` or a model's card holds."""
        return cls(**content | {"training": TrainingSettings(**content["training"])})


@dataclass(frozen=True)
class PreparedCohort:
    """A cohort that is ready to train on: decoded and dealt into folds.

    Attributes:
        cohort: The cohort.
        profile: The profile whose frame size the videos have.
        videos: Decoded videos, one per row of the table.
        data: Fingerprint of table and videos.
        protocol: ``"paper"`` or ``"cross"``.
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

    def specs(self, task: str, initial_weights: str = "scratch") -> list[RunSpec]:
        """One spec per run fold of the protocol.

        Args:
            task: ``"biomarkers"`` or a key of ``TASKS``.
            initial_weights: See ``RunSpec``.

        Returns:
            Specs with this cohort and profile.
        """
        profile = self.profile
        known = (profile.name, profile.training, self.cohort.name, self.data, self.protocol, initial_weights)
        return [RunSpec(task, fold, *known) for fold in run_folds(self.protocol)]


def prepare_cohort(
    cohort: Cohort, profile: Profile, jobs: int = 1, protocol: str | None = None
) -> PreparedCohort:
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
        video_id: video.sha256 for video_id, video in zip(cohort.table["video_id"], videos, strict=True)
    }
    protocol = protocol or choose_protocol(cohort.table["group_id"].nunique(), cohort.simulated)
    folds = make_folds(cohort.table, protocol)
    return PreparedCohort(cohort, profile, videos, fingerprint(cohort, content), protocol, folds)


def find_tasks(prepared: PreparedCohort) -> tuple[list[str], dict[str, str]]:
    """What a cohort has labels to learn: at least two classes to train on and a label to validate on, in every run.

    Args:
        prepared: The cohort.

    Returns:
        ``BIOMARKER_TASK`` and keys of ``TASKS`` that can be learnt, in this order; and for those that
        cannot, the reason.
    """
    learnable, reasons = [], {}
    for task in (BIOMARKER_TASK, *TASKS):
        try:
            for fold in run_folds(prepared.protocol):
                select_rows(prepared.cohort.table, prepared.splits(fold), task)
            learnable.append(task)
        except LeakageError:
            raise
        except LusbioError as error:
            reasons[task] = str(error)
    return learnable, reasons


def list_specs(prepared: PreparedCohort, initial_weights: str) -> list[RunSpec]:
    """The grid of runs behind the tables: the biomarker network and one network per task, every fold.

    Args:
        prepared: The cohort.
        initial_weights: See ``RunSpec``.

    Returns:
        Specs, biomarkers first; what the cohort has too few labels for is left out.

    Raises:
        LusbioError: If biomarkers, or all tasks, are among what is left out: there is nothing to compare
            then. Names the reasons.
    """
    learnable, reasons = find_tasks(prepared)
    if BIOMARKER_TASK not in learnable or len(learnable) < 2:
        listed = "; ".join(f"{task}: {reason}" for task, reason in reasons.items())
        raise LusbioError(
            f"cohort {prepared.cohort.name!r}: the paper needs labels of some biomarkers and of one task. {listed}"
        )
    return [spec for task in learnable for spec in prepared.specs(task, initial_weights)]


@dataclass(frozen=True)
class Run:
    """A finished run, as read from its folder.

    Attributes:
        folder: Where it lies.
        spec: What it was.
        info: The content of ``run.json``.
        predictions: One row per video: ``video_id, split, p_0 ... p_K-1``.
        features: float32 (V, 512), rows as in ``predictions``.
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


def execute_many(
    specs: Sequence[RunSpec], prepared: PreparedCohort, jobs: int = 1, say: Callable[[str], None] = print
) -> list[Run]:
    """Train what is not trained yet, several runs at a time, one thread each.

    Args:
        specs: The runs.
        prepared: The cohort they are about.
        jobs: Runs at a time.
        say: Takes lines of progress.

    Returns:
        One finished run per spec, in order.

    Raises:
        LusbioError: If a run cannot be trained.
    """
    import joblib

    todo = [spec for spec in dict.fromkeys(specs) if not is_finished(runs_folder() / spec.run_id)]
    say(f"{len(specs)} runs, {len(todo)} to train, {min(jobs, max(1, len(todo)))} at a time, one thread each")
    with (
        _follow_logs(todo, say),
        joblib.parallel_config("loky", inner_max_num_threads=1),
        warnings.catch_warnings(),
    ):
        # joblib replaces workers whose memory has grown, which is what a training does to them.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        joblib.Parallel(n_jobs=jobs)(joblib.delayed(execute)(spec, prepared) for spec in todo)
    return find_runs(specs)


@contextlib.contextmanager
def _follow_logs(specs: Sequence[RunSpec], say: Callable[[str], None]) -> Iterator[None]:
    """Say what the runs write to their logs while the block lasts, wherever they are computed."""
    logs = {spec: runs_folder() / spec.run_id / "log.txt" for spec in specs}
    position = {spec: log.stat().st_size if log.exists() else 0 for spec, log in logs.items()}
    finished = threading.Event()

    def say_news() -> None:
        for number, (spec, log) in enumerate(logs.items(), 1):
            if log.exists() and log.stat().st_size > position[spec]:
                with log.open("rb") as file:
                    file.seek(position[spec])
                    news = file.read()
                news = news[: news.rfind(b"\n") + 1]  # the last line may still be being written
                position[spec] += len(news)
                for line in news.decode().splitlines():
                    say(f"[run {number}/{len(logs)}] {spec.task} fold {spec.fold}: {line}")

    def follow() -> None:
        while not finished.wait(0.5):
            say_news()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        say_news()


def execute(spec: RunSpec, prepared: PreparedCohort) -> Path:
    """Train one run to the end, or take it up where it was left; does nothing when it is finished.

    Args:
        spec: The run.
        prepared: The cohort it is about.

    Returns:
        The run's folder.

    Raises:
        LusbioError: If the data are not those of the spec, or there is nothing to learn from them.
    """
    import filelock

    folder = runs_folder() / spec.run_id
    if spec.data != prepared.data:
        raise LusbioError(
            f"run {spec.run_id} is about data {spec.data}, the cohort at hand is {prepared.data}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):
        if not is_finished(folder):
            _train(spec, prepared, folder)
    return folder


def _train(spec: RunSpec, prepared: PreparedCohort, folder: Path) -> None:
    from lusbio import training  # torch and Lightning take seconds to import; tables need neither
    from lusbio.progress import EpochLog

    def say(line: str) -> None:
        with (folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    with training.one_thread():
        device = training.choose_device()
        rows, targets, masked = select_rows(prepared.cohort.table, prepared.splits(spec.fold), spec.task)
        module, data, origin = _build(spec, prepared, rows, targets)
        say(f"{len(rows['train'])} videos to train on, {len(rows['val'])} to validate on; {origin}")
        log = EpochLog(folder / "log.csv", say)
        best = training.fit(module, data, folder, device=device, callbacks=[log])
        start = time.perf_counter()
        predictions = _predict_all(module, data, prepared, spec, folder, device)
    predicting = round(time.perf_counter() - start, 2)
    timing = {
        "seconds": round(sum(log.seconds) + predicting, 1),
        "epochs": log.seconds,
        "prediction": predicting,
    }
    write_json(timing, folder / "timing.json")
    info = {
        "spec": asdict(spec), "code": code_fingerprint(*TRAINING_CODE), "initial_weights": origin, **best,
        "videos": {split: int(n) for split, n in predictions["split"].value_counts().sort_index().items()},
        "trained_on": len(rows["train"]), "validated_on": len(rows["val"]), "masked": masked,
        "device": training.describe_device(device), "precision": training.choose_precision(device),
        "versions": {"python": platform.python_version(),
                     **{name: version(name) for name in ("torch", "pytorch-lightning", "numpy")}},
    }  # fmt: skip
    write_json(info, folder / "run.json")
    training.remove_checkpoints(folder)


def check_same_videos(run: Run, prepared: PreparedCohort) -> None:
    """Raise unless a run's predictions are about the rows of a cohort, in their order.

    Args:
        run: A finished run.
        prepared: The cohort that its predictions are about to be compared with.

    Raises:
        LusbioError: If the videos differ.
    """
    if run.predictions["video_id"].tolist() != prepared.cohort.table["video_id"].tolist():
        raise LusbioError(
            f"run {run.folder.name} predicted other videos than those of {prepared.cohort.name!r}"
        )


def labels_of(run: Run, prepared: PreparedCohort) -> np.ndarray:
    """The labels that a biomarker run can be judged by: float64 (V, 38), NaN where unknown or masked."""
    check_same_videos(run, prepared)
    labels = prepared.cohort.table[list(BIOMARKER_NAMES)].to_numpy(np.float64)
    return np.where(np.isin(BIOMARKER_NAMES, run.info["masked"]), np.nan, labels)


def _build(spec: RunSpec, prepared: PreparedCohort, rows: dict[str, np.ndarray], targets: np.ndarray):
    """The module with its initial weights, the clips, and a line that says where the weights are from."""
    import torch

    from lusbio import clips, training
    from lusbio.models.tsm import TSMResNet18
    from lusbio.models.weights import load_initial_weights

    settings, table = spec.training, prepared.cohort.table
    multilabel = spec.task == BIOMARKER_TASK
    n_outputs = len(BIOMARKER_NAMES) if multilabel else len(TASKS[spec.task].classes)
    torch.manual_seed(spec.seed)
    network = TSMResNet18(n_outputs, settings.frames)
    origin = load_initial_weights(network, spec.initial_weights)
    repeated = repeat_rare(table, rows["train"], spec.task, spec.seed)
    dataset = clips.ClipDataset(prepared.videos, torch.from_numpy(targets), settings.frames)
    data = clips.ClipDataModule(
        dataset,
        repeated,
        rows["val"],
        clips_per_epoch=settings.clips_per_epoch,
        batch_size=settings.batch_size,
        validation_clips=settings.validation_clips,
        seed=spec.seed,
    )
    steps = len(data.train_dataloader())
    module = training.VideoModule(
        network, multilabel=multilabel, settings=settings, steps_per_epoch=steps, seed=spec.seed
    )
    return module, data, origin


def _predict_all(module, data, prepared: PreparedCohort, spec: RunSpec, folder: Path, device) -> pd.DataFrame:
    """Weights, predictions and features of every video of the cohort, into the run's folder."""
    from lusbio import clips, training
    from lusbio.models.weights import save_weights

    table = prepared.cohort.table
    loader = clips.evaluation_loader(data.dataset, np.arange(len(table)), spec.training.evaluation_clips)
    probabilities, features = training.predict(module, loader, device=device)
    predictions = pd.DataFrame({"video_id": table["video_id"], "split": prepared.splits(spec.fold)})
    predictions[[f"p_{k}" for k in range(probabilities.shape[1])]] = probabilities
    save_weights(module.network, folder / "weights.safetensors")
    write_csv(predictions, folder / "predictions.csv")
    with atomic_path(folder / "features.npy") as temporary:
        np.save(temporary, features)
    return predictions
