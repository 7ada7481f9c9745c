"""Pretraining without labels: groups of patches are hidden, and a network says what was there.

What is hidden is noise or a piece of another image, block by block, so that whatever a block covers has to be told from
its surroundings. What is said is judged on hidden pixels only.

Source: Anwar et al. 2022, "SPCXR" (arXiv 2211.12944), group-masked learning, after the method's description; what is
said of a number is in its place, all others are engineering choices.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lusbio.errors import LusbioError
from lusbio.network import clips as of_clips
from lusbio.network import training
from lusbio.network.pretraining import PretrainingModule
from lusbio.network.tsm import TSMResNet18
from lusbio.network.vit import SIZES, Pixels, ViTClassifier
from lusbio.profiles import TrainingSettings

NOISE_SHARES, ALIEN_SHARE = (0.5, 0.75), 0.3
"""How much of an image is hidden: lowest and highest share under noise, and the share under another image."""

LARGEST_BLOCK = 0.3
"""Height and width of a block are below this share of the side."""

SMALLEST_CROP = 0.25
"""Area of a crop, as a share of the frame; the largest is all of it."""

WARM_UP, LAST_RATE = 10 / 800, 1e-6
"""Share of the steps in which the rate of a cosine schedule rises, and what it falls to at the end. (As published.)"""

LONGEST_GRADIENT = 3.0
"""Longer ones are cut to it, tensor by tensor. (As published.)"""


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


def make_reconstructor(backbone: str, settings: TrainingSettings) -> ViTReconstructor | TSMReconstructor:
    """A reconstructor with random weights, of a key of ``vit.SIZES`` or else of ``TSMResNet18``."""
    if backbone in SIZES:
        return ViTReconstructor(settings.frames, size=settings.image_size, name=backbone)
    return TSMReconstructor(settings.frames, width=settings.width)


# --- how it learns ---


class MaskedModule(PretrainingModule):
    """A reconstructor with its loss, optimiser and schedule; its score is the share of the mean pixel's error saved.

    Args:
        network: A reconstructor that has been told what pixels are like.
        align: See ``draw_mask``.
        decay: Weight decay at the beginning and at the end, by a cosine; none on biases and other vectors.
        **usual: As for ``PretrainingModule``.
    """

    def __init__(self, network: nn.Module, *, align: int, decay: tuple[float, float], **usual):
        super().__init__(network, **usual)
        self.align = align
        self.decay = decay

    def compute_loss(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """How far the reconstruction of hidden pixels is off."""
        views = draw_views(training.to_unit_range(batch["clips"]), generator)
        seen, hidden = corrupt(views, generator, self.align, self.network.pixels)
        return masked_l1(self.network(seen).float(), self.network.pixels(views), hidden)

    def validate(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """The same of whole frames, of the mean pixel in place of a reconstruction, and how much was hidden."""
        views = training.to_unit_range(batch["clips"])
        seen, hidden = corrupt(views, generator, self.align, self.network.pixels)
        was, said = self.network.pixels(views), self.network(seen).float()
        return masked_l1(said, was, hidden), masked_l1(torch.zeros_like(was), was, hidden), hidden.sum()

    def judge(self, missed: torch.Tensor, by_mean: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both over all hidden pixels."""
        missed, by_mean = (missed * n).sum() / n.sum(), (by_mean * n).sum() / n.sum()
        return missed, 1 - missed / by_mean.clamp(min=1e-9)

    def predict_all(self, data, spec, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """Of every video its features, as a network for a task would begin with; nothing is decided."""
        every_row = np.arange(len(data.dataset))
        loader = of_clips.evaluation_loader(data.dataset, every_row, spec.training.evaluation_clips)
        features = training.predict(self, loader, device=device)[1]
        return np.zeros((len(features), 0), np.float32), features

    def configure_optimizers(self) -> dict:
        """AdamW; one cycle, or a warm-up and then a cosine."""
        matrices = [p for p in self.parameters() if p.ndim > 1]
        vectors = [p for p in self.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.decay[0]}, {"params": vectors, "weight_decay": 0.0}]
        rate, steps = self.settings.learning_rate, self.steps_per_epoch * self.settings.epochs
        optimizer = torch.optim.AdamW(groups, lr=rate)
        if self.settings.schedule == "one_cycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
        else:
            share = LAST_RATE / rate
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step / steps, share))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Cut gradients that are too long, and set the weight decay of the step."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                nn.utils.clip_grad_norm_(parameter, LONGEST_GRADIENT)
        done, (first, last) = self.global_step / (self.steps_per_epoch * self.settings.epochs), self.decay
        optimizer.param_groups[0]["weight_decay"] = last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def _warm_cosine(done: float, last: float) -> float:
    """The rate as a share of its peak, after a share of the steps; at the end ``last``."""
    if done < WARM_UP:
        return done / WARM_UP
    return last + (1 - last) * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
