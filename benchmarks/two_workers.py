"""Two independent runs at the same time, one thread each, against one after the other."""

import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from _measure import Finding, median_ratio, report, time_in_turn
from _training import DEVICE, make_cohort, make_training, prepare

from lusbio.network import training
from lusbio.runs.spec import PreparedCohort

FRAMES, SIZE, BATCH, STEPS, ROUNDS = 8, 64, 8, 16, 2


def train(prepared: PreparedCohort, seed: int) -> float:
    """One short run: network, an epoch, validation, checkpoints.

    Args:
        prepared: What to train on.
        seed: Of the run.

    Returns:
        Seconds that the process computed.
    """
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, training.one_thread():
        module, data = make_training(prepared, seed)
        training.fit(module, data, Path(folder), device=DEVICE)
    return time.process_time() - start


def main() -> None:
    """Measure, print and write."""
    clips = STEPS * BATCH
    prepared = prepare(make_cohort(), FRAMES, SIZE, batch_size=BATCH, clips_per_epoch=clips, epochs=1)
    # Started afresh, not forked: a fork would inherit torch's threads.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        computed: dict[str, list[float]] = {"alone": [], "together": []}

        def one_after_the_other() -> None:
            computed["alone"] += [pool.submit(train, prepared, seed).result() for seed in (0, 1)]

        def at_the_same_time() -> None:
            computed["together"] += pool.map(train, (prepared,) * 2, (0, 1))

        blocks = {"one after the other": one_after_the_other, "at the same time": at_the_same_time}
        at_the_same_time()  # both workers import what they need
        computed["together"].clear()
        seconds = time_in_turn(blocks, ROUNDS)
    findings = [Finding(f"two runs, {name}", statistics.median(seconds[name]), "s") for name in blocks]
    findings += [
        Finding("speed of two workers", median_ratio(*seconds.values()), "x", 1.7),
        Finding(
            "the same by seconds computed, which others' load spoils less", 2 * median_ratio(*computed.values()), "x"
        ),
    ]
    report("two_workers", findings, seconds=seconds, seconds_computed=computed)


if __name__ == "__main__":
    main()
