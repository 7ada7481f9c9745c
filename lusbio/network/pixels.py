"""Training a network to label pixels: frames with their maps, a loss, and what is found on frames nobody trained on."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lusbio.network.clips import ClipDataset
from lusbio.network.pretraining import PretrainingModule
from lusbio.network.training import choose_precision, to_unit_range
from lusbio.profiles import TrainingSettings
from lusbio.videos import DecodedVideo

RAREST = 0.001
"""Share of the pixels below which a class weighs no more. (Engineering choice.)"""

BRIGHTNESS = (0.8, 1.1)
"""Factors of intensity in training, as for clips; besides these and a flip nothing is augmented. (Engineering choice:
whatever resamples a frame would have to resample its map.)"""

PREDICTED = 64
"""Frames of a batch that is only predicted."""


class PixelDataset(ClipDataset):
    """Labelled frames as clips of one frame, which ``ClipDataModule`` deals out.

    Args:
        frames: uint8 (V, n, H, W), n frames of each video.
        maps: uint8 (V, n, H, W), the class of each pixel.
    """

    def __init__(self, frames: np.ndarray, maps: np.ndarray):
        super().__init__([DecodedVideo(of_video) for of_video in frames], torch.zeros(len(frames)), 1)
        self.maps = maps

    def __getitems__(self, items: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """A batch: ``clips`` uint8 (B, 1, 1, H, W), ``maps`` int64 (B, H, W), and ``rows``."""
        maps = np.stack([self.maps[row][start] for row, start in items])
        return super().__getitems__(items) | {"maps": torch.from_numpy(maps).long()}


def balance_classes(maps: np.ndarray, merged: Sequence[int]) -> torch.Tensor:
    """Weights of classes for the loss: the rarer, the more.

    An A-line has to weigh the same whether labels are dense or sparse, or the two could not be compared. So what is
    counted are the merged (sparse) classes, and each class inherits the weight of the one it is part of.

    Args:
        maps: uint8, positions in K classes.
        merged: Of each of the K classes, what it becomes when classes are merged.

    Returns:
        float32 (K,): share of the pixels to the power -1/2, with a mean of 1 over the merged classes.
    """
    counts = np.bincount(np.asarray(maps).ravel(), minlength=len(merged))
    shares = np.bincount(merged, counts) / counts.sum()
    weights = np.maximum(shares, RAREST) ** -0.5
    return torch.tensor((weights / weights.mean())[list(merged)], dtype=torch.float32)


def pixel_loss(logits: torch.Tensor, maps: torch.Tensor, weights: torch.Tensor, foreground: int) -> torch.Tensor:
    """Weighted cross-entropy, and 1 - soft Dice summed over all classes but the first.

    Args:
        logits: float (B, K, H, W).
        maps: int64 (B, H, W).
        weights: float (K,), see ``balance_classes``.
        foreground: By how many classes the sum of Dice losses is divided: the merged ones without the first.
    """
    probabilities, true = logits.softmax(1), F.one_hot(maps, logits.shape[1]).movedim(-1, 1)
    both, either = (probabilities * true).sum((0, 2, 3)), (probabilities + true).sum((0, 2, 3))
    dice = (2 * both + 1) / (either + 1)
    return F.cross_entropy(logits, maps, weights) + (1 - dice[1:]).sum() / foreground


class PixelModule(PretrainingModule):
    """A network that learns to label pixels.

    Args:
        network: From float frames (N, 1, H, W) to logits (N, K, H, W).
        weights: float (K,), see ``balance_classes``.
        merged: Of each of the K classes, the merged class that it is validated as.
        settings: Learning rate, schedule and epochs.
        steps_per_epoch: Batches of a training epoch.
        seed: What all randomness follows from.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: torch.Tensor,
        merged: Sequence[int],
        *,
        settings: TrainingSettings,
        steps_per_epoch: int = 1,
        seed: int = 0,
    ):
        super().__init__(network, settings=settings, steps_per_epoch=steps_per_epoch, seed=seed)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("merged", torch.tensor(merged), persistent=False)

    def compute_loss(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """The loss of frames that are flipped, half of them, and made darker or brighter."""
        frames, maps = to_unit_range(batch["clips"])[:, 0], batch["maps"]
        flipped = (torch.rand(len(maps), generator=generator) < 0.5).to(maps.device)
        factor = torch.empty(len(maps)).uniform_(*BRIGHTNESS, generator=generator).to(maps.device)
        frames = torch.where(flipped[:, None, None, None], frames.flip(-1), frames) * factor[:, None, None, None]
        maps = torch.where(flipped[:, None, None], maps.flip(-1), maps)
        return self._loss(self.network(frames.clamp(0, 1)), maps)

    def validate(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """The loss, and of each merged class the pixels that are it, are claimed, and both: (3, classes)."""
        maps, logits = batch["maps"], self.network(to_unit_range(batch["clips"])[:, 0])
        n_classes = int(self.merged.max()) + 1
        true, claimed = (F.one_hot(self.merged[labels], n_classes).bool() for labels in (maps, logits.argmax(1)))
        counts = torch.stack([part.sum((0, 1, 2)) for part in (true, claimed, true & claimed)])
        return self._loss(logits, maps), counts

    def judge(self, losses: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean Dice of the merged classes but the first."""
        true, claimed, both = counts.sum(0)
        return losses.mean(), (2 * both / (true + claimed).clamp(min=1))[1:].mean()

    def predict_all(self, data, spec, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """What every video shows, see ``describe_maps``: mean shares (V, K), and features (V, 2 K)."""
        frames = np.stack([video.load() for video in data.dataset.videos])
        features = describe_maps(label_frames(self.network, frames, device), len(self.weights))
        return features[:, : len(self.weights)], features

    def _loss(self, logits: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        return pixel_loss(logits.float(), maps, self.weights, int(self.merged.max()))


@torch.inference_mode()
def label_frames(network: nn.Module, frames: np.ndarray, device: torch.device) -> np.ndarray:
    """The most probable class of every pixel of frames, uint8 (..., H, W), in the same shape."""
    network, flat = network.to(device).eval(), torch.tensor(frames).reshape(-1, 1, *frames.shape[-2:])
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=choose_precision(device) == "bf16-mixed")
    found = []
    for batch in flat.split(PREDICTED):
        with autocast:
            logits = network(to_unit_range(batch.to(device)))
        found.append(logits.float().argmax(1).to(torch.uint8).cpu())
    return torch.cat(found).numpy().reshape(frames.shape)


def describe_maps(maps: np.ndarray, n_classes: int) -> np.ndarray:
    """How much of a video each class covers.

    Args:
        maps: uint8 (V, n, H, W), of n frames of each video.
        n_classes: K.

    Returns:
        float32 (V, 2 K): share of the pixels, mean over the frames, and that of the frame with most.
    """
    shares = np.stack([(maps == k).mean((2, 3)) for k in range(n_classes)], axis=2)  # (V, n, K)
    return np.hstack([shares.mean(1), shares.max(1)]).astype(np.float32)
