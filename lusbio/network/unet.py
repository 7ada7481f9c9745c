# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""A U-Net that labels pixels, and what becomes of it when it has to judge videos."""

from collections.abc import Callable

import torch
from torch import nn

from lusbio.errors import LusbioError

STEPS = (1, 2, 4, 8, 16)
"""Channels from the first stage to the centre, in units of those of the first."""

DROPOUT = 0.5
"""Before the classifier's last layer. (Engineering choice, as in ``TSMResNet18``.)"""


def _down(channels_in: int, channels: int) -> nn.Sequential:
    """Two convolutions with batch norm, as on the way down and in the centre."""
    layers = []
    for start in (channels_in, channels):
        layers += [nn.Conv2d(start, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """The way down: frames (N, 1, H, W) to maps of five stages, the last the centre, (N, 16 base, H / 16, W / 16)."""

    def __init__(self, base: int):
        super().__init__()
        channels = [1, *(base * step for step in STEPS)]
        pairs = zip(channels[:-1], channels[1:], strict=True)
        self.stages = nn.ModuleList(_down(before, after) for before, after in pairs)

    def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """The maps of all stages, the largest first."""
        maps = [self.stages[0](frames)]
        for stage in self.stages[1:]:
            maps.append(stage(nn.functional.max_pool2d(maps[-1], 2)))
        return maps


class Up(nn.Module):
    """A step up: twice the size, half the channels, joined with the map of that size from the way down."""

    def __init__(self, channels: int):
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.convs = nn.Sequential(
            *(nn.Conv2d(2 * channels, channels, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)),
        )

    def forward(self, small: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
        """Maps of half the size, (N, 2 channels, ...), and those to join, (N, channels, ...), to (N, channels, ...)."""
        return self.convs(torch.cat([skipped, self.enlarge(small)], dim=1))


class UNet(nn.Module):
    """From float frames (N, 1, H, W) in [0, 1] to logits of every pixel (N, K, H, W).

    Args:
        n_classes: K.
        base: Channels of the first stage; 64 has 31,038,919 parameters for seven classes.

    Source:
        The group's later descriptions of its U-Net: stages, batch norm on the way down only. (arXiv 2201.10166 says
        that it is a U-Net.)
    """

    memory_format = torch.channels_last  # a third faster on CPUs

    def __init__(self, n_classes: int, base: int):
        super().__init__()
        self.encoder = Encoder(base)
        self.decoder = nn.ModuleList(Up(base * step) for step in reversed(STEPS[:-1]))
        self.classes = nn.Conv2d(base, n_classes, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits of every pixel."""
        return self.centre_and_logits(frames)[1]

    def centre_and_logits(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps of the centre, (N, 16 base, H / 16, W / 16), and logits of every pixel."""
        *skipped, centre = self.encoder(check_side(frames))
        maps = centre
        for up, skip in zip(self.decoder, reversed(skipped), strict=True):
            maps = up(maps, skip)
        return centre, self.classes(maps)


def check_side(frames: torch.Tensor) -> torch.Tensor:
    """The frames (N, 1, H, W) as they are; a ``LusbioError`` unless H and W can be halved four times."""
    if any(side % 2 ** (len(STEPS) - 1) for side in frames.shape[-2:]):
        height, width = frames.shape[-2:]
        raise LusbioError(f"frames are {height} x {width}, expected sides that are multiples of 16: choose image_size")
    return frames


class UNetClassifier(nn.Module):
    """Encoder and centre of a U-Net with a head for videos: clips (B, T, 1, H, W) to logits (B, K).

    The features are the centre's, averaged over the frame and over the T frames, (B, 16 base).

    Args:
        n_outputs: K.
        base: As in ``UNet``, whose tensors of the same names fit.
    """

    memory_format = torch.channels_last

    def __init__(self, n_outputs: int, base: int):
        super().__init__()
        self.encoder = Encoder(base)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(STEPS[-1] * base, n_outputs)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        return self.features_and_logits(clips)[1]

    def features_and_logits(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, 16 base) and logits (B, K)."""
        centre = self.encoder(check_side(clips.flatten(0, 1)))[-1]  # (B * T, 16 base, H / 16, W / 16)
        features = centre.mean((2, 3)).unflatten(0, clips.shape[:2]).mean(1)
        return features, self.head(self.dropout(features))


class MapsClassifier(UNet):
    """A whole U-Net with a head for videos, which sees what the U-Net says of pixels: clips (B, T, 1, H, W) to (B, K).

    The features are those of ``UNetClassifier`` and, of every class of pixels, mean and most of its probability in a
    frame, averaged over the T frames, (B, 16 base + 2 n_classes).

    Args:
        n_outputs: K.
        base: As in ``UNet``, all of whose tensors fit.
        n_classes: Of pixels.
    """

    def __init__(self, n_outputs: int, base: int, n_classes: int):
        super().__init__(n_classes, base)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(STEPS[-1] * base + 2 * n_classes, n_outputs)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        return self.features_and_logits(clips)[1]

    def features_and_logits(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, 16 base + 2 n_classes) and logits (B, K)."""
        centre, logits = self.centre_and_logits(clips.flatten(0, 1))
        maps = logits.softmax(1)
        of_frames = torch.cat([centre.mean((2, 3)), maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
        features = of_frames.unflatten(0, clips.shape[:2]).mean(1)
        return features, self.head(self.dropout(features))


def unet_classifier(base: int, n_classes: int = 0) -> Callable[[int, int], nn.Module]:
    """What makes a classifier of a base width, as ``study.train(..., network=...)`` takes it.

    With a number of classes of pixels it is a ``MapsClassifier``, else a ``UNetClassifier``.
    """

    def network(n_outputs: int, frames: int) -> nn.Module:
        return MapsClassifier(n_outputs, base, n_classes) if n_classes else UNetClassifier(n_outputs, base)

    return network
