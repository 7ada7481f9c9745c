# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""A vision transformer, from one block to a classifier of clips: a frame is cut into patches that look at each other.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", Section 3.1; stochastic depth: Huang et al. 2016,
"Deep Networks with Stochastic Depth", linear decay.
"""

from collections.abc import Callable

import torch
from torch import nn

from lusbio.errors import LusbioError

SIZES = {"vit_micro": (8, 32, 2, 2), "vit_tiny": (8, 128, 6, 4), "vit_small": (16, 384, 12, 6)}
"""Patch in pixels, width, depth and heads by name. ``vit_small`` is ViT-S/16; the others are engineering choices."""

DROPPED = 0.1
"""Share of the images that the last block passes by in training; of the first block it is 0."""


class Pixels(nn.Module):
    """What pixels are like, by which they are standardised; it travels with the weights of a network."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("sd", torch.ones(()))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return (frames - self.mean) / self.sd


class Block(nn.Module):
    """Tokens look at each other, then each is thought over by itself; both are added to what came in.

    Args:
        width: D, numbers per token.
        heads: Of attention; they share D.
        dropped: Probability that an image passes a residual by, in training.
    """

    def __init__(self, width: int, heads: int, dropped: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropped = dropped

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        normed = self.norm1(tokens)
        tokens = tokens + self._drop(self.attention(normed, normed, normed, need_weights=False)[0])
        return tokens + self._drop(self.mlp(self.norm2(tokens)))

    def _drop(self, residual: torch.Tensor) -> torch.Tensor:
        """Zeros for some images of a training batch; the others are the larger, so that the mean stays."""
        if not self.training or not self.dropped:
            return residual
        kept = torch.rand(len(residual), 1, 1, device=residual.device) >= self.dropped
        return residual * kept / (1 - self.dropped)


class ViT(nn.Module):
    """From frames to tokens: the first one, CLS, is about the whole frame, the others are about a patch each.

    Args:
        size: Height and width of a frame in pixels.
        patch: Height and width of a patch.
        width: D.
        depth: Number of blocks.
        heads: Of each block.
        in_channels: Channels of a frame; 1 for grey.

    Raises:
        LusbioError: If the size is not a multiple of the patch.
    """

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int, in_channels: int = 1):
        super().__init__()
        if size % patch:
            raise LusbioError(f"frames of {size} pixels cannot be cut into patches of {patch}, expected a multiple")
        self.grid = size // patch
        self.pixels = Pixels()
        self.patches = nn.Conv2d(in_channels, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid**2, width))
        shares = [DROPPED * k / max(1, depth - 1) for k in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, share) for share in shares)
        self.norm = nn.LayerNorm(width)
        for weight in (self.cls, self.positions, *(m.weight for m in self.modules() if isinstance(m, nn.Linear))):
            nn.init.trunc_normal_(weight, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """What each block hands on.

        Args:
            frames: (B, in_channels, size, size), floating point, not yet standardised.

        Returns:
            Tokens (B, 1 + (size / patch)^2, D), block by block, not normed; patches row by row.
        """
        patches = self.patches(self.pixels(frames)).flatten(2).transpose(1, 2)  # (B, N, D)
        tokens = torch.cat([self.cls.expand(len(frames), -1, -1), patches], dim=1) + self.positions
        found = []
        for block in self.blocks:
            tokens = block(tokens)
            found.append(tokens)
        return found


class ViTClassifier(nn.Module):
    """From a clip to logits: of every frame CLS and the mean of the patches, averaged over time, then a linear layer.

    Args:
        n_outputs: K, numbers per clip.
        n_frames: T, frames of a clip; any number computes the same way.
        size: Height and width of a frame in pixels.
        name: A key of ``SIZES``.

    Raises:
        LusbioError: If the size is not a multiple of the patch.
    """

    def __init__(self, n_outputs: int, n_frames: int, *, size: int, name: str):
        super().__init__()
        self.n_frames = n_frames
        self.encoder = ViT(size, *SIZES[name])
        self.fc = nn.Linear(2 * self.encoder.norm.normalized_shape[0], n_outputs)

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """One vector per clip: (B, T, 1, H, W) in [0, 1] -> (B, 2 D)."""
        tokens = self.encoder.norm(self.encoder(clips.flatten(0, 1))[-1])  # (B * T, N, D)
        by_frame = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
        return by_frame.unflatten(0, clips.shape[:2]).mean(dim=1)

    def features_and_logits(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both from one pass: features (B, 2 D) and logits (B, K)."""
        features = self.features(clips)
        return features, self.fc(features)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits of each clip: (B, T, 1, H, W) -> (B, K)."""
        return self.features_and_logits(clips)[1]


class ViTLabeller(nn.Module):
    """Logits of every pixel from the last tokens: these are places, which double in size until they are pixels.

    Args:
        n_classes: K.
        size: Height and width of a frame in pixels.
        name: A key of ``SIZES``.

    Raises:
        LusbioError: If the size is not a multiple of the patch.

    Source:
        Zheng et al. 2021, "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with
        Transformers" (SETR), progressive upsampling; channels halve at each step. (Engineering choice.)
    """

    def __init__(self, n_classes: int, *, size: int, name: str):
        super().__init__()
        self.encoder = ViT(size, *SIZES[name])
        channels, steps = self.encoder.norm.normalized_shape[0], SIZES[name][0].bit_length() - 1
        layers = []
        for step in range(steps):
            before, after = channels >> step, channels >> (step + 1)
            layers += [nn.ConvTranspose2d(before, after, 2, stride=2), nn.GELU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GELU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(channels >> steps, n_classes, 1))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) in [0, 1] -> (N, K, H, W)."""
        tokens = self.encoder.norm(self.encoder(frames)[-1])[:, 1:]  # (N, places, D)
        return self.decoder(tokens.transpose(1, 2).unflatten(2, (self.encoder.grid, self.encoder.grid)))


def vit_classifier(name: str, size: int) -> Callable[[int, int], ViTClassifier]:
    """What makes a classifier, named by a key of ``SIZES``, for frames of a size; see ``spec.Own``."""

    def network(n_outputs: int, frames: int) -> ViTClassifier:
        return ViTClassifier(n_outputs, frames, size=size, name=name)

    return network
