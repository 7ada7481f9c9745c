"""What frames on the GPU and the compiler bring at the paper's size; several runs at once; the minutes of Table 1."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from _measure import Finding, median_ratio, report
from _training import DEVICE, InTurn, make_cohort, make_steps, make_training, prepare, wait
from pytorch_lightning.callbacks import Callback

from lusbio.cohorts.splits import choose_protocol, make_folds
from lusbio.cohorts.table import Cohort, check_table
from lusbio.cohorts.targets import repeat_rare
from lusbio.network import training
from lusbio.profiles import PROFILES
from lusbio.runs import assembly
from lusbio.runs.gpu import prepare_gpu
from lusbio.runs.plan import list_specs
from lusbio.runs.spec import PreparedCohort
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import trainee_table
from lusbio.videos import can_encode

PAPER = PROFILES["paper"]
AT_ONCE = (1, 3, 5)
"""Runs at the same time."""

STEPS, EPOCHS, ROUNDS = 100, 4, 2
"""Steps of an epoch; epochs of a training, of which the first, which compiles, does not count; trainings of a kind."""

VALIDATION_CLIPS = 32
"""Per video, of which there are few: enough for several whole batches."""

PATIENCE_S = 300
"""How long runs wait for each other until one of them counts as broken."""


@dataclass(frozen=True)
class Pace:
    """How fast a training went.

    Attributes:
        step: Seconds per training step, epoch by epoch.
        clip: Seconds per validation clip, epoch by epoch.
        start: Seconds of the first epoch beyond a usual one: compiling, mostly.
        gigabytes: Most memory of the GPU that the process held.
    """

    step: list[float]
    clip: list[float]
    start: float
    gigabytes: float


class Clock(Callback):
    """Seconds of training and of validation, epoch by epoch.

    Args:
        meet: Called before the second epoch, when everything is compiled: waits for other runs.
    """

    def __init__(self, meet: Callable[[], object]):
        self.meet = meet
        self.training: list[float] = []
        self.validation: list[float] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """The clock of the steps starts."""
        if trainer.current_epoch == 1:
            self.meet()
        self.start = time.perf_counter()

    def on_validation_start(self, trainer, pl_module) -> None:
        """It stops after the last step; that of validation starts."""
        wait()
        self.training.append(time.perf_counter() - self.start)
        self.start = time.perf_counter()

    def on_validation_end(self, trainer, pl_module) -> None:
        """It stops."""
        wait()
        self.validation.append(time.perf_counter() - self.start)


def prepare_paper(frames: int = PAPER.training.frames, size: int = PAPER.training.image_size) -> PreparedCohort:
    """A few simulated patients at the paper's size, with short epochs."""
    settings = {"batch_size": PAPER.training.batch_size, "clips_per_epoch": STEPS * PAPER.training.batch_size}
    return prepare(
        make_cohort(patients=12, size=size), frames, size, epochs=EPOCHS, validation_clips=VALIDATION_CLIPS, **settings
    )


def train(prepared: PreparedCohort, *, settled: bool, seed: int = 0, meet: Callable[[], object] = lambda: None) -> Pace:
    """One short run, timed.

    Args:
        prepared: What to train on.
        settled: Whether the frames lie on the GPU and the network is compiled; else memory maps, and kernel by kernel.
        seed: Of the run.
        meet: See ``Clock``.

    Returns:
        Its pace without the first epoch.
    """
    clock = Clock(meet)
    with tempfile.TemporaryDirectory() as folder, training.one_thread():
        module, data = make_training(prepared, seed)
        if settled:
            prepare_gpu(module, data, DEVICE)
        training.fit(module, data, Path(folder), device=DEVICE, callbacks=[clock])
        clips = len(data.validation_rows) * data.validation_clips
    held = torch.cuda.max_memory_reserved() / 1e9 if DEVICE.type == "cuda" else 0.0
    return Pace(
        [seconds / module.steps_per_epoch for seconds in clock.training[1:]],
        [seconds / clips for seconds in clock.validation[1:]],
        clock.training[0] + clock.validation[0] - clock.training[-1] - clock.validation[-1],
        held,
    )


def compare_with_cache(prepared: PreparedCohort) -> tuple[list[Finding], dict]:
    """Runs with frames on the GPU and a compiled network against runs without either, in turn."""
    kinds = {"cache, kernel by kernel": False, "resident, compiled": True}
    paces = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, settled in kinds.items():
            paces[name].append(train(prepared, settled=settled))
    steps = {name: [s for pace in found for s in pace.step] for name, found in paces.items()}
    clips = {name: [s for pace in found for s in pace.clip] for name, found in paces.items()}
    findings = [Finding(f"step, {name}", 1000 * statistics.median(steps[name]), "ms") for name in kinds]
    findings += [
        Finding("speed of the step, resident and compiled against cache", median_ratio(*steps.values()), "x"),
        Finding("the same of validation", median_ratio(*clips.values()), "x"),
        Finding("start of the first compiled run", paces["resident, compiled"][0].start, "s"),
    ]
    return findings, {"seconds_per_step": steps, "seconds_per_validation_clip": clips}


def compare_with_plain_loader(prepared: PreparedCohort) -> Finding:
    """Resident and compiled steps against a loader that decodes each item when asked for, in float32."""
    from naive_loader import PLAIN_STEPS, PlainDataset

    module, data = make_training(prepared)
    rows = data.sampler.rows[: PLAIN_STEPS * data.batch_size]
    paths = [prepared.cohort.video_paths()[row] for row in rows]
    settings = module.settings
    dataset = PlainDataset(paths, data.dataset.targets[rows], settings.frames, settings.image_size)
    loader = torch.utils.data.DataLoader(dataset, data.batch_size, shuffle=True)
    turns = InTurn(make_steps(module, loader, plain=True), STEPS)  # copies the network before it is compiled
    prepare_gpu(module, data, DEVICE)
    with tempfile.TemporaryDirectory() as folder, training.one_thread():
        training.fit(module, data, Path(folder), device=DEVICE, callbacks=[turns])
    plain, whole = ([s / n for s in turns.seconds[name][1:]] for name, n in (("other", PLAIN_STEPS), ("whole", STEPS)))
    return Finding("speed of the step against a plain loader on one core", median_ratio(plain, whole), "x")


def _train_and_tell(prepared: PreparedCohort, seed: int, barrier, found) -> None:
    found.put(train(prepared, settled=True, seed=seed, meet=lambda: barrier.wait(PATIENCE_S)))


def train_at_once(prepared: PreparedCohort, runs: int) -> list[Pace]:
    """Several runs on the one GPU, each a process; they begin their second epoch together.

    Args:
        prepared: What to train on.
        runs: How many.

    Returns:
        Their paces.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit CUDA's state, which does not work
    barrier, found = context.Barrier(runs), context.Queue()
    processes = [context.Process(target=_train_and_tell, args=(prepared, seed, barrier, found)) for seed in range(runs)]
    for process in processes:
        process.start()
    paces = [found.get(timeout=2 * PATIENCE_S) for _ in processes]
    for process in processes:
        process.join()
    return paces


def count_clips() -> tuple[int, int, int]:
    """What all networks of Table 1 are at the paper's size, from labels alone.

    Returns:
        Runs; clips that they train on; clips that they are validated on and predict.
    """
    table = check_table(trainee_table(simulate_recordings(PAPER.patients, 0, "linear")), "the simulator")
    table = table.sort_values("video_id", ignore_index=True)
    protocol = choose_protocol(table["group_id"].nunique(), simulated=True)
    cohort = Cohort("synthetic", table, Path(), simulated=True)
    prepared = PreparedCohort(cohort, PAPER, [], "", protocol, make_folds(table, protocol))
    specs, trained, shown = list_specs(prepared), 0, 0
    for spec in specs:
        rows, _, _ = assembly.choose_rows(spec, prepared)
        settings = spec.training
        trained += settings.epochs * len(repeat_rare(table, rows["train"], spec.task, spec.seed))
        shown += settings.epochs * settings.validation_clips * len(rows["val"])
        shown += settings.evaluation_clips * len(table)
    return len(specs), trained, shown


def estimate_minutes(paces: list[Pace]) -> float:
    """Minutes for all networks of Table 1 at the pace of runs that go on at the same time."""
    runs, trained, shown = count_clips()
    seconds = [
        runs * pace.start
        + trained / PAPER.training.batch_size * statistics.median(pace.step)
        + shown * statistics.median(pace.clip)
        for pace in paces
    ]
    return statistics.mean(seconds) / len(paces) / 60


def measure_at_once(prepared: PreparedCohort) -> tuple[list[Finding], dict]:
    """Throughput, memory and the minutes of Table 1 for several runs at the same time."""
    findings, details = [], {}
    for runs in AT_ONCE:
        paces = train_at_once(prepared, runs)
        details[str(runs)] = [vars(pace) for pace in paces]
        name = f"{runs} run{'s' * (runs > 1)} at once"
        clips = sum(PAPER.training.batch_size / statistics.median(pace.step) for pace in paces)
        findings += [
            Finding(f"{name}: training, all together", clips, "clips/s"),
            Finding(f"{name}: memory of one", max(pace.gigabytes for pace in paces), "GB"),
            Finding(f"{name}: Table 1, estimated", estimate_minutes(paces), "min", 30, at_least=False),
        ]
    return findings, {"at_once": details}


def main() -> None:
    """Measure, print and write."""
    if DEVICE.type != "cuda":
        print("gpu: no CUDA device here, nothing to measure")
        return
    prepared = prepare_paper()
    findings, details = compare_with_cache(prepared)
    if can_encode():
        findings.append(compare_with_plain_loader(prepared))
    else:
        print("no av here, so no mp4 files for a plain loader to decode")
    more, at_once = measure_at_once(prepared)
    report("gpu", [*findings, *more], device=training.describe_device(DEVICE), **details, **at_once)


if __name__ == "__main__":
    main()
