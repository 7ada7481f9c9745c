"""What is measured in a video as something to learn from, without labels: a pretraining of the usual network."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from lusbio.network import clips, training
from lusbio.network.pretraining import PretrainingModule, make_clips
from lusbio.network.tsm import TSMResNet18

DECIDING = ("network/pretraining.py", "network/tsm.py", "signs/lines.py", "signs/measure.py")
"""What decides the numbers of these trainings besides this file, and besides what decides those of all."""


def keep_depth(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Augmentation that leaves depth alone: A-lines keep their distances, B-lines stay upright.

    Args:
        batch: float (B, T, 1, H, W), range [0, 1].
        generator: On the CPU.

    Returns:
        The same shape: mirrored, shifted sideways by up to 5 %, brightened as in the paper, and brightened
        or darkened by up to 20 % along a line or a bow in depth, each with probability 0.5.
    """
    maps, brightness = clips.draw_augmentation(len(batch), generator)
    flip, shift = torch.sign(maps[:, 0, 0]), maps[:, 0, 2]
    kept = torch.zeros_like(maps)
    kept[:, 0, 0], kept[:, 0, 2], kept[:, 1, 1] = flip, shift, 1
    moved = clips.apply_augmentation(batch, kept.to(batch.device), brightness.to(batch.device))
    slope, bow = 0.2 * (torch.rand(2, len(batch), 1, generator=generator) * 2 - 1)
    happens = torch.rand(len(batch), 1, generator=generator) < 0.5
    depth = torch.linspace(-1, 1, batch.shape[-2])
    gain = torch.where(happens, 1 + slope * depth + bow * (depth**2 - 0.5), 1.0)
    return (moved * gain[:, None, None, :, None].to(batch.device)).clamp(0, 1)


def standardise_signs(values: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    """Signs (V, S) with mean 0 and SD 1 in some rows, float32; NaN where unknown, or where those rows are all alike."""
    signs = pd.DataFrame(values)
    mean, sd = signs.iloc[rows].mean(), signs.iloc[rows].std()
    return torch.tensor(((signs - mean) / sd.where(sd > 0)).to_numpy(np.float32))


def miss_signs(said: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the signs (B, S) that are known, those that are NaN left out; 0 when none is."""
    known = ~signs.isnan()
    return ((said - signs.nan_to_num()).square() * known).sum() / known.sum().clamp(min=1)


class SignsModule(PretrainingModule):
    """A network that says what was measured in a video. Clips are augmented with ``keep_depth``: signs are depths."""

    def compute_loss(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """The error of augmented clips."""
        shown = keep_depth(training.to_unit_range(batch["clips"]), generator)
        return miss_signs(self.network(shown).float(), batch["targets"])

    def validate(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """The error, and minus it, which is the score."""
        error = miss_signs(self(batch["clips"]).float(), batch["targets"])
        return error, -error


def learn_signs(values: np.ndarray) -> Callable:
    """What ``study.train(..., assemble=...)`` takes: learn the signs of all training videos, labelled or not.

    Args:
        values: The signs of all videos, (V, S), NaN where unknown; as many as the run has outputs.
    """

    def assemble(spec, prepared) -> tuple[SignsModule, clips.ClipDataModule, dict[str, np.ndarray]]:
        torch.manual_seed(spec.entropy)
        settings, splits = spec.training, prepared.splits(spec.fold).to_numpy()
        rows = {split: np.flatnonzero(splits == split) for split in ("train", "val")}
        targets = standardise_signs(values, rows["train"])
        data = make_clips(clips.ClipDataset(prepared.videos, targets, settings.frames), rows, spec)
        network = TSMResNet18(len(spec.outputs), settings.frames, width=settings.width, pool=settings.pool)
        steps = {"steps_per_epoch": len(data.train_dataloader()), "seed": spec.entropy, "settings": settings}
        return SignsModule(network, **steps), data, rows

    return assemble
