"""How much of a training step is the network: against the bare step, float32, the shift's share, evaluation."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from _measure import Finding, median_ratio, report, time_in_turn
from _training import DEVICE, Batch, InTurn, make_cohort, make_steps, make_training, prepare, wait

from lusbio.network import training, tsm
from lusbio.network.clips import ClipDataModule, augment_clips, evaluation_loader
from lusbio.network.training import VideoModule

EVALUATION_CLIPS = 4


@dataclass(frozen=True)
class Shape:
    """One size of clips and how long it is measured.

    Attributes:
        frames: Of a clip.
        size: Of a frame in pixels.
        batch: Clips of a step.
        steps: Of a round.
        rounds: How many are timed.
    """

    frames: int
    size: int
    batch: int
    steps: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.frames} x {self.size} x {self.size}"


SMALL, LARGE = Shape(8, 64, batch=8, steps=6, rounds=6), Shape(15, 112, batch=4, steps=4, rounds=4)
"""Small clips, and some half way to the paper's."""


def measure_shape(shape: Shape) -> tuple[list[Finding], dict[str, list[float]]]:
    """All that is asked about one size of clips.

    Args:
        shape: The size.

    Returns:
        Findings, and seconds per step of every round, whole and bare.
    """
    clips, epochs = shape.steps * shape.batch, shape.rounds + 1
    prepared = prepare(
        make_cohort(), shape.frames, shape.size, batch_size=shape.batch, clips_per_epoch=clips, epochs=epochs
    )
    module, data = make_training(prepared)
    batches = collect_batches(data)
    seconds = compare_whole(module, data, batches)
    bare, whole = (1000 * statistics.median(seconds[name]) for name in ("other", "whole"))
    efficiency = median_ratio(seconds["other"], seconds["whole"])
    findings = [
        Finding(f"{shape}: bare step, batch {shape.batch}", bare, "ms"),
        Finding(f"{shape}: whole step", whole, "ms"),
        Finding(f"{shape}: speed of the whole step against the bare one", efficiency, "x", 0.95),
        Finding(f"{shape}: clips/s of evaluation against training", compare_evaluation(module, data, batches), "x", 3),
        Finding(f"{shape}: temporal shift", measure_shift(module, batches), "% of step", 5, at_least=False),
    ]
    if shape == LARGE:
        speed = compare_precision(module, batches)
        findings.append(Finding(f"{shape}: speed of the bare step against plain float32", speed, "x", 1.8))
    return findings, seconds


def collect_batches(data: ClipDataModule) -> list[Batch]:
    """The batches of an epoch, augmented, on the device."""
    batches = []
    for batch in data.train_dataloader():
        clips = training.to_unit_range(batch["clips"].to(DEVICE))
        augmented = augment_clips(clips, torch.Generator().manual_seed(0))
        batches.append((augmented, batch["targets"].to(DEVICE)))
    return batches


def compare_whole(module: VideoModule, data: ClipDataModule, batches: list[Batch]) -> dict[str, list[float]]:
    """Seconds per step of every round but the first, whole steps in a real training and bare ones in turn."""
    turns = InTurn(make_steps(module, batches), len(batches))
    with tempfile.TemporaryDirectory() as folder:
        training.fit(module, data, Path(folder), device=DEVICE, callbacks=[turns])
    return {name: [s / len(batches) for s in values[1:]] for name, values in turns.seconds.items()}


def compare_evaluation(module: VideoModule, data: ClipDataModule, batches: list[Batch]) -> float:
    """Clips per second when predicting, against bare training steps, which are faster than whole ones."""
    rows = list(range(8))
    loader = evaluation_loader(data.dataset, rows, EVALUATION_CLIPS)
    blocks = {
        "evaluation": lambda: training.predict(module, loader, device=DEVICE),
        "training": make_steps(module, batches[:2]),
    }
    seconds = time_in_turn(blocks, rounds=4)
    trained = sum(len(clips) for clips, _ in batches[:2])
    return median_ratio(seconds["training"], seconds["evaluation"]) * len(rows) * EVALUATION_CLIPS / trained


def compare_precision(module: VideoModule, batches: list[Batch]) -> float:
    """How many times as fast a bare step is as the same in float32 without channels_last."""
    blocks = {"plain": make_steps(module, batches[:2], plain=True), "bare": make_steps(module, batches[:2])}
    seconds = time_in_turn(blocks, rounds=3)
    return median_ratio(seconds["plain"], seconds["bare"])


def measure_shift(module: VideoModule, batches: list[Batch]) -> float:
    """Per cent of a bare step that pass inside the temporal shift, forwards and backwards."""
    check_shift()
    inside, forward = [0.0], tsm._Shift.forward

    def timed(*arguments):  # the backward pass is the same function the other way round
        wait()
        start = time.perf_counter()
        shifted = forward(*arguments)
        wait()
        inside[0] += time.perf_counter() - start
        return shifted

    shares = []
    with mock.patch.object(tsm._Shift, "forward", staticmethod(timed)):
        bare = make_steps(module, batches[:2])
        bare()
        for _ in range(4):
            inside[0], start = 0.0, time.perf_counter()
            bare()
            shares.append(100 * inside[0] / (time.perf_counter() - start))
    return statistics.median(shares)


def check_shift() -> None:
    """Raise unless the shift equals a plain loop over frames.

    Raises:
        AssertionError: If it does not.
    """
    frames = torch.rand(2, 5, 16, 7, 7)  # two clips of five frames; 16 // 8 = 2 channels each way
    looped = frames.clone()
    for t in range(5):
        looped[:, t, :2] = frames[:, t + 1, :2] if t + 1 < 5 else 0
        looped[:, t, 2:4] = frames[:, t - 1, 2:4] if t else 0
    torch.testing.assert_close(tsm.shift_frames(frames.flatten(0, 1), 5).view_as(frames), looped)


def main() -> None:
    """Measure, print and write."""
    findings, details = [], {}
    with training.one_thread():
        for shape in (SMALL, LARGE):
            found, details[str(shape)] = measure_shape(shape)
            findings += found
    report("training_step", findings, seconds_per_step=details)


if __name__ == "__main__":
    main()
