"""Making runs: train what is not trained yet, several at a time, and take up what was interrupted.

A finished run is never repeated; a run that was killed goes on from its last epoch; any number of workers, on any
number of machines, may work on the same list of runs in the same folder.
"""

import contextlib
import os
import platform
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.errors import LusbioError
from lusbio.files import atomic_path, named_in_errors, write_csv, write_json
from lusbio.network import OTHER_BACKBONE, USUAL_BACKBONE
from lusbio.runs.parallel import side_by_side
from lusbio.runs.spec import Own, PreparedCohort, Run, RunSpec, Say, find_runs, is_finished, runs_folder, training_code


def execute_many(
    specs: Sequence[RunSpec], prepared: PreparedCohort, jobs: int = 1, say: Say = print, own: Own | None = None
) -> list[Run]:
    """Train what is not trained yet, several runs at a time, one thread each.

    With ``$LUSBIO_SCHEDULER`` set, e.g. to ``tcp://127.0.0.1:8786``, the workers of that dask cluster train.

    Args:
        specs: The runs.
        prepared: The cohort they are about.
        jobs: Runs at a time; a cluster trains as many as it has workers.
        say: Takes lines of progress.
        own: What stands in place of the package's network, loss or augmentation; its name is part of the specs.

    Returns:
        One finished run per spec, in order.

    Raises:
        LusbioError: If a run cannot be trained, or the cluster cannot be used.
    """
    waves = in_waves([spec for spec in specs if not is_finished(runs_folder(spec.run_id))])
    todo = [spec for wave in waves for spec in wave]
    scheduler = os.environ.get("LUSBIO_SCHEDULER") if todo else None
    seconds = _time_epochs(todo, prepared)
    untold = [spec for spec in todo if not _can_be_timed(spec)]
    at_a_time = "" if scheduler else f", {min(jobs, max(1, len(todo)))} at a time"
    say(f"{len(specs)} runs, {len(todo)} to train{at_a_time}, one thread each")
    if todo and not scheduler and not untold:
        minutes = sum(seconds[spec.run_id] * _epochs_to_go(spec) for spec in todo) / min(jobs, len(todo)) / 60
        say(f"{_describe_computing()}: {_in_words(minutes)}, by steps timed just now")
    with _follow_logs(todo, seconds, say):
        if scheduler:
            _execute_on_cluster(waves, prepared, scheduler, say, own)
        else:
            for wave in waves:
                side_by_side(execute, [(spec, prepared, own) for spec in wave], jobs)
    return find_runs(specs)


def _execute_on_cluster(
    waves: list[list[RunSpec]], prepared: PreparedCohort, scheduler: str, say: Say, own: Own | None
) -> None:
    from lusbio.runs.cluster import connect_cluster

    with connect_cluster(scheduler, say) as client:
        for wave in waves:
            # Not pure: dask shall not answer from a run of the same name that someone removed since.
            arguments = [(spec, prepared, own, runs_folder(spec.run_id)) for spec in wave]
            client.gather([client.submit(_execute_on_worker, *one, pure=False) for one in arguments])


def _execute_on_worker(spec: RunSpec, prepared: PreparedCohort, own: Own | None, folder: Path) -> None:
    """Train one run in a worker of a cluster, into the folder where whoever asked for it will look."""
    from lusbio.runs.cluster import check_worker

    check_worker()
    if (here := runs_folder(spec.run_id)) != folder:
        raise LusbioError(f"a worker trains into {here}, expected {folder}: it needs the same checkout, LUSBIO_BUILD")
    execute(spec, prepared, own)


@contextlib.contextmanager
def _follow_logs(specs: Sequence[RunSpec], seconds: dict[str, float], say: Say) -> Iterator[None]:
    """Say what the runs write to their logs while the block lasts, wherever they are computed."""
    logs = [runs_folder(spec.run_id, "log.txt") for spec in specs]
    positions = [log.stat().st_size if log.exists() else 0 for log in logs]
    clock = GridClock(sum(seconds[spec.run_id] * _epochs_to_go(spec) for spec in specs))
    finished = threading.Event()

    def say_news() -> None:
        for number, (spec, log) in enumerate(zip(specs, logs, strict=True)):
            if log.exists() and log.stat().st_size > positions[number]:
                with log.open("rb") as file:
                    file.seek(positions[number])
                    news = file.read()
                news = news[: news.rfind(b"\n") + 1]  # the last line may still be being written
                positions[number] += len(news)
                for line in news.decode().splitlines():
                    left = clock.after(seconds[spec.run_id]) if line.startswith("epoch ") else ""
                    say(f"[run {number + 1}/{len(logs)}] {spec.words}: {line}{left}")

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


def _epochs_to_go(spec: RunSpec) -> int:
    """Epochs that a run has not finished yet."""
    log = runs_folder(spec.run_id, "log.csv")
    return spec.training.epochs - (len(pd.read_csv(log)) if log.exists() else 0)


def _time_epochs(specs: Sequence[RunSpec], prepared: PreparedCohort) -> dict[str, float]:
    """Seconds of an epoch on this machine by ``run_id``, roughly: only for telling how long it takes.

    Of a pretraining, and of a network that ``assembly`` does not make, nobody knows: one second stands in.
    """
    if not specs:
        return {}
    from lusbio.runs import assembly
    from lusbio.runs.progress import time_clips

    found = {spec.run_id: 1.0 for spec in specs}
    for spec in filter(_can_be_timed, specs):
        settings, held_out = spec.training, prepared.splits(spec.fold) == "val"
        learning, evaluating = time_clips(spec.backbone, replace(settings, epochs=1))
        validated = held_out.sum() * settings.validation_clips
        predicted = len(held_out) * settings.evaluation_clips / settings.epochs  # once, at the end
        found[spec.run_id] = learning * assembly.count_clips(spec, prepared) + evaluating * (validated + predicted)
    return found


def _can_be_timed(spec: RunSpec) -> bool:
    return spec.backbone in (USUAL_BACKBONE, OTHER_BACKBONE) and "assemble-" not in spec.own


def _describe_computing() -> str:
    from lusbio.network import training

    device = training.choose_device()
    return f"{training.describe_device(device)}, {training.choose_precision(device)}"


def in_waves(specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """Specs in groups that can be trained one after the other: a run comes after the run it starts from.

    Args:
        specs: Any.

    Returns:
        The distinct specs; first those that start from no other run of the list.
    """
    distinct = list(dict.fromkeys(specs))
    ids = {spec.run_id for spec in distinct}
    waves = [[], []]
    for spec in distinct:
        waves[spec.starts_from in ids].append(spec)
    return [wave for wave in waves if wave]


class GridClock:
    """How much of several trainings is done, and how long the rest will take at the pace so far.

    Args:
        total: Work to do, in any unit.
    """

    def __init__(self, total: float):
        self.total = total
        self.done = 0.0
        self.started = time.monotonic()

    def after(self, work: float) -> str:
        """Count some work as done and say, for the end of a line, how far all of it is."""
        self.done += work
        minutes = (time.monotonic() - self.started) / 60 * (self.total - self.done) / self.done
        return f"  · all runs: {self.done / self.total:.0%} done, {_in_words(minutes)} left"


def _in_words(minutes: float) -> str:
    return "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"


def execute(spec: RunSpec, prepared: PreparedCohort, own: Own | None = None) -> Path:
    """Train one run to the end, or take it up where it was left; does nothing when it is finished.

    Returns:
        The run's folder.

    Raises:
        LusbioError: If the data or the parts of one's own are not those of the spec, or there is nothing to learn.
    """
    import filelock

    folder, data, own = runs_folder(spec.run_id), prepared.data_of(spec.task), own or Own()
    if spec.data != data:
        raise LusbioError(f"run {spec.run_id} is about data {spec.data}, the cohort at hand is {data}")
    if spec.own != own.name:
        raise LusbioError(f"run {spec.run_id} has {spec.own or 'nothing'} of its own, given is {own.name or 'nothing'}")
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"), named_in_errors(folder):
        if not is_finished(folder):
            _train(spec, prepared, own, folder)
    return folder


def _train(spec: RunSpec, prepared: PreparedCohort, own: Own, folder: Path) -> None:
    from lusbio.network import training  # torch and Lightning take seconds to import
    from lusbio.runs import gpu
    from lusbio.runs.progress import EpochLog

    def say(line: str) -> None:
        with (folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    with training.one_thread():
        device = training.choose_device()
        if own.assemble:
            (module, data, rows), masked = own.assemble(spec, prepared), []
            origin = "from scratch" if spec.starts_from is None else take_tensors(module.network, spec.starts_from)
        else:
            module, data, origin, rows, masked = _assemble(spec, prepared, own)
            gpu.prepare_gpu(module, data, device, say)
        say(f"{len(rows['train'])} videos to train on, {len(rows['val'])} to validate on; {origin}")
        log = EpochLog(folder / "log.csv", say)
        if (kept := folder / training.RESUME_FILE).exists() and not zipfile.is_zipfile(kept):
            say("what an interruption left is half a file; this run begins again")  # it is copied in, not renamed
            kept.unlink()
        best = training.fit(module, data, folder, device=device, callbacks=[log])
        start = time.perf_counter()
        predictions = _predict_all(module, data, prepared, spec, folder, device)
    predicting = round(time.perf_counter() - start, 2)
    seconds = round(sum(log.seconds) + predicting, 1)
    write_json({"seconds": seconds, "epochs": log.seconds, "prediction": predicting}, folder / "timing.json")
    versions = {name: version(name) for name in ("torch", "pytorch-lightning", "numpy")}
    info = {
        "spec": asdict(spec),
        "code": training_code(spec.backbone),
        "initial_weights": origin,
        **best,
        "videos": {split: int(n) for split, n in predictions["split"].value_counts().sort_index().items()},
        "trained_on": len(rows["train"]),
        "validated_on": len(rows["val"]),
        "masked": masked,
        "device": training.describe_device(device),
        "precision": training.choose_precision(device),
        "versions": {"python": platform.python_version(), **versions},
    }
    write_json(info, folder / "run.json")
    training.remove_checkpoints(folder)


def _assemble(spec: RunSpec, prepared: PreparedCohort, own: Own) -> tuple:
    """What is trained on labels of videos: module, clips, origin, rows by split, masked biomarkers."""
    from lusbio.runs import assembly

    rows, targets, masked = assembly.choose_rows(spec, prepared)
    if own.network is None or spec.starts_from is None:
        return *assembly.assemble(spec, prepared, rows, targets, own), rows, masked
    anew = replace(spec, initial_weights="scratch")
    module, data, _ = assembly.assemble(anew, prepared, rows, targets, own)
    return module, data, take_tensors(module.network, spec.starts_from), rows, masked


def take_tensors(network, run_id: str) -> str:
    """Put into a network what fits of a finished run's network, by name and shape; the rest stays as it was made.

    Statistics of batches fit too. The last layer of a network for something else has another name or shape.

    Returns:
        A line that says from where, and how much.

    Raises:
        LusbioError: If the run is not finished, or nothing of it fits.
    """
    from lusbio.network.weights import read_weights

    folder = runs_folder(run_id)
    if not is_finished(folder):
        raise LusbioError(f"run {run_id} is not finished, and a network shall start from it")
    found, own = read_weights(folder / "weights.safetensors"), network.state_dict()
    fitting = {name: found[name] for name, value in own.items() if name in found and found[name].shape == value.shape}
    if not fitting:
        raise LusbioError(f"nothing of run {run_id} fits: no tensor has the name and shape of one of the network")
    network.load_state_dict(own | fitting)
    return f"from the network of {run_id}, {len(fitting)} of {len(own)} tensors"


def _predict_all(module, data, prepared: PreparedCohort, spec: RunSpec, folder: Path, device) -> pd.DataFrame:
    """Weights, predictions and features of every video of the cohort, into the run's folder."""
    from lusbio.network.weights import save_weights
    from lusbio.runs import assembly

    predict = module.predict_all if "assemble-" in spec.own else partial(assembly.predict_all, module)
    probabilities, features = predict(data, spec, device)
    predictions = pd.DataFrame({"video_id": prepared.table["video_id"], "split": prepared.splits(spec.fold)})
    predictions[[f"p_{k}" for k in range(probabilities.shape[1])]] = probabilities
    save_weights(module.network, folder / "weights.safetensors")
    write_csv(predictions, folder / "predictions.csv")
    with atomic_path(folder / "features.npy") as temporary:
        np.save(temporary, features)
    return predictions
