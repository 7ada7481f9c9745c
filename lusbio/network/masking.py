# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""Pretraining without labels: groups of patches are hidden, and a network says what was there.

What is hidden is noise or a piece of another image, block by block, so that whatever a block covers has to be told from
its surroundings. What is said is judged on hidden pixels only.

Source: Anwar et al. 2022, "SPCXR" (arXiv 2211.12944), group-masked learning, after the method's description; what is
said of a number is in its place, all others are engineering choices.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lusbio.errors import LusbioError
from lusbio.network import clips as of_clips
from lusbio.network.tsm import TSMResNet18
from lusbio.network.vit import Pixels, ViTClassifier

NOISE_SHARES, ALIEN_SHARE = (0.5, 0.75), 0.3
"""How much of an image is hidden: lowest and highest share under noise, and the share under another image."""

LARGEST_BLOCK = 0.3
"""Height and width of a block are below this share of the side."""

SMALLEST_CROP = 0.25
"""Area of a crop, as a share of the frame; the largest is all of it."""


# --- what is seen ---


def draw_views(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A crop of each clip at full size, mirrored or not, darkened or brightened: what is to be reconstructed.

    Args:
        clips: float (B, T, C, H, W), range [0, 1].
        generator: On the CPU; the only source of randomness.

    Returns:
        The same shape and range; all frames of a clip alike.
    """
    drawn = torch.rand(5, len(clips), generator=generator)
    side = (SMALLEST_CROP + (1 - SMALLEST_CROP) * drawn[0]).sqrt()
    x, y = (2 * drawn[1:3] - 1) * (1 - side)
    mirror, none = torch.where(drawn[3] < 0.5, -1.0, 1.0), torch.zeros_like(side)
    maps = torch.stack([torch.stack([mirror * side, none, x]), torch.stack([none, side, y])]).permute(2, 0, 1)
    brightness = 0.8 + 0.3 * drawn[4]
    folded = clips.flatten(1, 2).unsqueeze(2)  # channels, too, move together
    moved = of_clips.apply_augmentation(folded, maps.contiguous().to(clips.device), brightness.to(clips.device))
    return moved.reshape(clips.shape)


# --- what is hidden ---


def draw_mask(size: int, share: float, align: int, rng: np.random.Generator) -> np.ndarray:
    """Blocks at random places, one after the other, until together they cover a share of an image.

    A block's corner is anywhere, its height and width are below ``LARGEST_BLOCK`` of the side, what sticks out is cut
    off; all are multiples of ``align``.

    Args:
        size: Height and width of the image in pixels, a multiple of ``align``.
        share: Least share of the area.
        align: In pixels; with that of a patch, patches are hidden whole or not at all.
        rng: Where the draws come from.

    Returns:
        bool (size, size), True where hidden.

    Raises:
        LusbioError: If the share is not between 0 and 1, or the size is no multiple of ``align``.
    """
    if not 0 < share < 1:
        raise LusbioError(f"the hidden share of an image is {share:g}, expected more than 0 and less than 1")
    if size % align:
        raise LusbioError(f"an image of {size} pixels is no multiple of blocks of {align} pixels")
    n_cells = size // align
    largest = max(1, int(np.ceil(LARGEST_BLOCK * n_cells)) - 1)
    hidden = np.zeros((n_cells, n_cells), bool)
    while hidden.mean() < share:
        (top, left), (height, width) = rng.integers(n_cells, size=2), rng.integers(1, largest + 1, size=2)
        hidden[top : top + height, left : left + width] = True
    return hidden.repeat(align, 0).repeat(align, 1)


def corrupt(
    views: torch.Tensor, generator: torch.Generator, align: int, pixels: Pixels
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide a part of each image under noise, or under the same place of another image of the batch; as likely either.

    Args:
        views: float (B, T, C, H, W), B at least 2.
        generator: On the CPU; the only source of randomness.
        align: See ``draw_mask``.
        pixels: What pixels are like; noise has their mean and SD.

    Returns:
        What is left to see, of the shape of ``views``, equal to them where nothing is hidden; and what is hidden, bool
        (B, 1, 1, H, W), the same for all frames of a clip.

    Raises:
        LusbioError: If the batch has one image: there is none to take a piece from.
    """
    n_views, device = len(views), views.device
    if n_views < 2:
        raise LusbioError("a batch of one image has no other image to take a piece from, expected at least 2")
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    noisy = rng.random(n_views) < 0.5
    shares = np.where(noisy, rng.uniform(*NOISE_SHARES, n_views), ALIEN_SHARE)
    masks = np.stack([draw_mask(views.shape[-1], share, align, rng) for share in shares])
    hidden = torch.from_numpy(masks)[:, None, None].to(device)
    donors = (np.arange(n_views) + rng.integers(1, n_views, n_views)) % n_views
    noise = pixels.mean + pixels.sd * torch.randn(views.shape, generator=generator).to(views)
    is_noisy = torch.from_numpy(noisy).to(device)[:, None, None, None, None]
    instead = torch.where(is_noisy, noise, views[torch.from_numpy(donors).to(device)])
    return torch.where(hidden, instead, views), hidden


# --- what is said to have been there ---


def make_head(width: int, channels: int, patch: int) -> nn.Sequential:
    """From what is known of each place to its pixels: three layers place by place, then a patch from each place.

    (B, width, H / patch, W / patch) -> (B, channels, H, W). A convolution of 1 x 1 is a linear layer of each place.
    """
    layers = [layer for _ in range(3) for layer in (nn.Conv2d(width, width, 1), nn.GELU())]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, patch, patch))


class ViTReconstructor(ViTClassifier):
    """A transformer that says what every pixel was, from its last blocks, in units of what pixels are like.

    Parameters have the names that a ``ViTClassifier`` gives them, which can so start from them.

    Args:
        n_frames: T.
        size: Height and width of a frame in pixels.
        name: A key of ``vit.SIZES``.
    """

    def __init__(self, n_frames: int, *, size: int, name: str):
        super().__init__(1, n_frames, size=size, name=name)
        patches = self.encoder.patches
        self.head = make_head(patches.out_channels, patches.in_channels, patches.stride[0])

    @property
    def pixels(self) -> Pixels:
        """What pixels are like."""
        return self.encoder.pixels

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, T, 1, H, W), in [0, 1] or noise -> the same shape, standardised."""
        blocks, encoder = self.encoder(clips.flatten(0, 1)), self.encoder
        tokens = torch.stack([blocks[k] for k in choose_blocks(len(blocks))]).mean(dim=0)
        places = encoder.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, (encoder.grid, encoder.grid))
        return self.head(places).reshape(clips.shape)


class TSMReconstructor(TSMResNet18):
    """The same of a ``TSMResNet18``, from its last maps.

    Args:
        n_frames: T.
        width: Channels of the first stage.
    """

    def __init__(self, n_frames: int, *, width: int):
        super().__init__(1, n_frames, width=width)
        self.pixels = Pixels()
        self.head = make_head(self.n_features, self.conv1.in_channels, 32)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, T, 1, H, W), in [0, 1] or noise -> the same shape, standardised."""
        said = self.head(self.feature_maps(clips.flatten(0, 1)))[..., : clips.shape[-2], : clips.shape[-1]]
        return said.reshape(clips.shape)


def choose_blocks(depth: int) -> list[int]:
    """Which blocks a head hears: every other one from the last back, four of them, or just the last four.

    Example:
        >>> choose_blocks(12), choose_blocks(6), choose_blocks(2)
        ([11, 9, 7, 5], [5, 4, 3, 2], [1, 0])
    """
    return list(range(depth - 1, -1, -2 if depth >= 8 else -1))[:4]


def masked_l1(said: torch.Tensor, views: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """How far a reconstruction is off, as a mean over the pixels that were hidden; a scalar.

    Args:
        said: float (B, T, C, H, W).
        views: The same shape: what was there.
        hidden: bool (B, 1, 1, H, W).
    """
    missed = F.l1_loss(said, views, reduction="none") * hidden
    return missed.sum() / hidden.expand_as(missed).sum().clamp(min=1)
