# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""ResNet-18 that sees time: channels shifted between neighbouring frames, then a pool over the clip.

Source: Lin, Gan and Han 2019, "TSM: Temporal Shift Module for Efficient Video Understanding",
Sections 3 and 4; the settings are those of Gare et al. 2022, Section 2.
"""

from functools import partial

import torch
from torch import nn

from lusbio.network.resnet import BasicBlock, ResNet18

POOLS = ("max", "mean")


class _Shift(torch.autograd.Function):
    """Copies instead of ``cat`` and ``pad``: one pass over the memory forwards and one backwards.

    The gradient of a shift is the shift the other way round. Six times as fast on a CPU as slicing
    with autograd, and the memory format stays what it was.
    """

    @staticmethod
    def forward(ctx, frames: torch.Tensor, n_frames: int, n_shifted: int, reverse: bool) -> torch.Tensor:
        ctx.arguments = (n_frames, n_shifted, not reverse)
        shifted = torch.empty_like(frames)
        source, target = (x.unflatten(0, (-1, n_frames)) for x in (frames, shifted))  # (B, T, C, H, W)
        first, second = slice(0, n_shifted), slice(n_shifted, 2 * n_shifted)
        from_next, from_previous = (second, first) if reverse else (first, second)
        target[:, :-1, from_next] = source[:, 1:, from_next]
        target[:, -1, from_next] = 0
        target[:, 1:, from_previous] = source[:, :-1, from_previous]
        target[:, 0, from_previous] = 0
        target[:, :, 2 * n_shifted :] = source[:, :, 2 * n_shifted :]
        return shifted

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple:
        return _Shift.apply(gradient, *ctx.arguments), None, None, None


def shift_frames(frames: torch.Tensor, n_frames: int, fraction: int = 8) -> torch.Tensor:
    """Let every frame see a few channels of its neighbours.

    The first ``C // fraction`` channels come from the next frame, the next as many from the
    previous one, the rest stay. Where there is no neighbour, at the ends of a clip, stand zeros.
    Clips never mix.

    Args:
        frames: (B * T, C, H, W), the T frames of a clip one after the other; any float type.
        n_frames: T.
        fraction: C is divided by this, rounded down; at least 2.

    Returns:
        Same shape, type and memory format.

    Raises:
        ValueError: If the number of frames is not a multiple of ``n_frames`` or ``fraction`` < 2.

    Source:
        Lin et al. 2019, Section 3: bidirectional shift, 1/8 of the channels each way.

    Example:
        >>> clip = torch.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]]).view(2, 3, 1, 1)
        >>> shift_frames(clip, n_frames=2, fraction=3).view(2, 3).tolist()
        [[2.0, 0.0, 100.0], [0.0, 10.0, 200.0]]
    """
    if len(frames) % n_frames:
        raise ValueError(f"{len(frames)} frames are not a whole number of clips of {n_frames}")
    if fraction < 2:
        raise ValueError(f"fraction is {fraction}, expected at least 2: two parts of the channels are shifted")
    return _Shift.apply(frames, n_frames, frames.shape[1] // fraction, False)


class ShiftedBlock(BasicBlock):
    """A block whose first convolution sees the neighbouring frames; its shortcut does not.

    Source:
        Lin et al. 2019, Section 4, "residual shift": information of the frame itself is not lost.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, n_frames: int, fraction: int = 8):
        super().__init__(in_channels, out_channels, stride)
        self.n_frames = n_frames
        self.fraction = fraction

    def residual(self, frames: torch.Tensor) -> torch.Tensor:
        """(B * T, C_in, H, W) -> (B * T, C_out, H / stride, W / stride)."""
        return super().residual(shift_frames(frames, self.n_frames, self.fraction))


class TSMResNet18(ResNet18):
    """From a clip to logits: ResNet-18 with temporal shift in its 8 blocks, pooled over space and time.

    Space is averaged, time is pooled, and only then comes dropout, then the linear layer. Dropout
    per frame before the maximum would be another thing: of T doubled copies nearly always one
    survives, so in training the feature would be close to twice what it is in evaluation. With one
    mask for all frames of a clip both orders are the same, and this is the cheaper one.

    Parameter names are those of ``ResNet18``, so the files of torchvision fit.

    Args:
        n_outputs: K, numbers per clip.
        n_frames: T, frames of a clip.
        in_channels: Channels of a frame; 1 for grey.
        pool: Over time: ``"max"``, or ``"mean"``, which is what Lin et al. do (with logits, which for
            a linear layer is the same as with features).
        dropout: Probability that a feature is dropped in training.
        fraction: See ``shift_frames``.
        width: Channels of the first stage, see ``ResNet18``; a feature vector has 8 times as many.

    Raises:
        ValueError: If ``pool`` is neither.

    Source:
        Gare et al. 2022, Section 2, which says nothing of the head: dropout and the maximum are an engineering choice.
    """

    def __init__(
        self,
        n_outputs: int,
        n_frames: int,
        *,
        in_channels: int = 1,
        pool: str = "max",
        dropout: float = 0.5,
        fraction: int = 8,
        width: int = 64,
    ):
        if pool not in POOLS:
            raise ValueError(f"pool {pool!r} is not one of {', '.join(POOLS)}")
        super().__init__(in_channels, n_outputs, partial(ShiftedBlock, n_frames=n_frames, fraction=fraction), width)
        self.n_frames = n_frames
        self.pool = pool
        self.dropout = nn.Dropout(dropout)

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """One vector per clip, the "ResNet feature" of the paper, before dropout.

        Args:
            clips: (B, T, in_channels, H, W), floating point, in [0, 1].

        Returns:
            (B, 8 * width), not negative.

        Raises:
            ValueError: If the clips have another number of frames than the network was made for.
        """
        if clips.ndim != 5 or clips.shape[1] != self.n_frames:
            expected = f"(B, {self.n_frames}, {self.conv1.in_channels}, H, W)"
            raise ValueError(f"clips have shape {tuple(clips.shape)}, expected {expected}")
        by_frame = super().features(clips.flatten(0, 1))  # (B * T, 8 * width)
        by_frame = by_frame.unflatten(0, (-1, self.n_frames))  # (B, T, 8 * width)
        return by_frame.amax(dim=1) if self.pool == "max" else by_frame.mean(dim=1)

    def features_and_logits(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both from one pass: features (B, 8 * width) and logits (B, K)."""
        features = self.features(clips)
        return features, self.fc(self.dropout(features))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits of each clip: (B, T, in_channels, H, W) -> (B, K)."""
        return self.features_and_logits(clips)[1]
