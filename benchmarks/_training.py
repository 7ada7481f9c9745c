"""What the scripts train: a few simulated patients, made on the spot, and steps to compare in turn."""

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from lusbio.cohorts.synthetic import simulate_cohort
from lusbio.cohorts.table import Cohort
from lusbio.files import build_folder
from lusbio.network import training
from lusbio.network.clips import ClipDataModule
from lusbio.network.training import VideoModule
from lusbio.profiles import PROFILES
from lusbio.runs import assembly
from lusbio.runs.spec import Own, PreparedCohort, prepare_cohort
from lusbio.vocabulary import BIOMARKER_TASK

DEVICE = training.choose_device()

Batch = tuple[torch.Tensor, torch.Tensor]
"""Clips as the network takes them, float32 (B, T, 1, H, W), and targets (B, 38)."""


def make_cohort(patients: int = 12, size: int = 112) -> Cohort:
    """Simulated patients, made at the first call and kept in the build folder.

    Args:
        patients: How many, with about four videos of 30 to 60 frames each.
        size: Height and width of the videos in pixels.

    Returns:
        The cohort.
    """
    folder = build_folder("benchmarks", f"cohort_{patients}_{size}")
    return simulate_cohort(folder, patients=patients, size=size, frames=(30, 60), jobs=2)


def prepare(cohort: Cohort, frames: int, image_size: int, **changes) -> PreparedCohort:
    """A cohort decoded for clips of a size, nobody held out for testing.

    Args:
        cohort: The cohort.
        frames: Frames of a clip, T.
        image_size: Height and width of a frame in pixels.
        **changes: Other fields of ``TrainingSettings`` that differ from the laptop profile's with the published
            width, 64.

    Returns:
        What a training starts from.
    """
    laptop = PROFILES["laptop"]
    settings = replace(laptop.training, frames=frames, image_size=image_size, **{"width": 64, **changes})
    return prepare_cohort(cohort, replace(laptop, training=settings), jobs=2, protocol="final")


def make_training(prepared: PreparedCohort, seed: int = 0) -> tuple[VideoModule, ClipDataModule]:
    """The biomarker network of a cohort and its clips, as a run has them, from random weights.

    Args:
        prepared: From ``prepare``.
        seed: Of the run.

    Returns:
        What ``training.fit`` takes.
    """
    spec = prepared.specs(BIOMARKER_TASK, seed=seed)[0]
    rows, targets, _ = assembly.choose_rows(spec, prepared)
    return assembly.assemble(spec, prepared, rows, targets, Own())[:2]


def make_steps(module: VideoModule, batches: Iterable[Batch], *, plain: bool = False) -> Callable[[], None]:
    """A function that takes bare steps: forward, loss, backward, optimiser, and nothing else.

    Args:
        module: Whose loss it is, and whose network is copied.
        batches: One per step; iterated anew at each call.
        plain: float32 without channels_last, instead of the precision and layout of a run.

    Returns:
        The function; it returns when the device has finished.
    """
    network = copy.deepcopy(module.network).train().to(DEVICE)
    if plain:
        network.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    bf16 = training.choose_precision(DEVICE) == "bf16-mixed" and not plain

    def take_steps() -> None:
        for clips, targets in batches:
            take_step(module, network, optimizer, (clips.to(DEVICE), targets.to(DEVICE)), bf16)
        wait()

    return take_steps


def take_step(
    module: VideoModule, network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, bf16: bool
) -> None:
    """One bare step.

    Args:
        module: Whose loss it is.
        network: What learns.
        optimizer: Of the network.
        batch: On the device.
        bf16: Whether to compute in bfloat16 where that is safe.
    """
    clips, targets = batch
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
        loss = module.loss(network(clips), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def wait() -> None:
    """Until the device has finished."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class InTurn(Callback):
    """Times the steps of every epoch as Lightning takes them, and in turn something else.

    Args:
        other: What to run before each epoch.
        steps: Steps of an epoch.
    """

    def __init__(self, other: Callable[[], object], steps: int):
        self.other, self.steps = other, steps
        self.seconds: dict[str, list[float]] = {"other": [], "whole": []}

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """The other thing; then the clock of the epoch starts."""
        start = time.perf_counter()
        self.other()
        self.start = time.perf_counter()
        self.seconds["other"].append(self.start - start)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """The clock stops after the last step, before validation."""
        if batch_idx + 1 == self.steps:
            wait()
            self.seconds["whole"].append(time.perf_counter() - self.start)
