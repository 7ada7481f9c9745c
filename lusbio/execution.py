"""Making runs: train what is not trained yet, several at a time, and take up what was interrupted.

A finished run is never repeated; a run that was killed goes on from its last epoch; any number of
workers, on any number of machines, may work on the same list of runs in the same folder.
"""

import contextlib
import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.errors import LusbioError
from lusbio.files import atomic_path, code_fingerprint, write_csv, write_json
from lusbio.labels import BIOMARKER_TASK, repeat_rare, select_rows
from lusbio.runs import TRAINING_CODE, PreparedCohort, Run, RunSpec, find_runs, is_finished, runs_folder
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS


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
