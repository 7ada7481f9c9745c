# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""I3D ResNet-50, from one block to the whole: a ResNet-50 whose kernels are grown into time.

The names (``blocks.0.conv.weight``, ``blocks.1.res_blocks.0.branch2.conv_a.weight``, ...,
``blocks.6.proj.bias``) are those of PyTorchVideo's ``i3d_r50``, so that its Kinetics file fits; files of
torchvision's 2-D ResNet-50 fit after ``inflate_resnet50``. Neither library is needed.

Source: Carreira and Zisserman 2017, "Quo Vadis, Action Recognition? A New Model and the Kinetics
Dataset", Section 2.4. Which kernels are grown, and the pool over time after the first stage: Wang et
al. 2018, "Non-local Neural Networks", Section 4, with PyTorchVideo's sizes.
"""

import re
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

STEM_TIMES = 5
"""Frames that the kernel of the stem sees."""

STAGE_TIMES = ((3, 3, 3), (3, 1, 3, 1), (3, 1, 3, 1, 3, 1), (1, 3, 1))
"""Frames that the first kernel of each block sees, stage by stage: 3, 4, 6 and 3 blocks, as in ResNet-50."""

STAGE_PLACES = (1, 3, 4, 5)
"""Where the stages stand in ``I3DResNet50.blocks``; 0 is the stem, 2 the pool over time, 6 the head."""


class ClipConv(nn.Conv3d):
    """A 3-D convolution of stride 1 in time, computed by 2-D ones.

    A kernel that sees one frame takes the frames of all clips as one batch; a kernel that sees one
    pixel takes a clip as an image of T rows; for any other, the frames it sees become channels. In
    memory format ``channels_last_3d`` the first two copy nothing. The numbers are those of
    ``nn.Conv3d``, but for torch's 3-D kernels on a CPU, which in bfloat16 return NaN as the gradient of
    short clips (torch 2.13, oneDNN) and in float32 take twice as long.
    """

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T, H / stride, W / stride)."""
        n_clips, _, n_frames, height, width = clips.shape
        kernel, n_times, padding = self.weight, self.kernel_size[0], self.padding
        if n_times > 1 and self.kernel_size[1:] == (1, 1):
            image = clips.flatten(3)  # (B, C_in, T, H * W)
            return F.conv2d(image, kernel[..., 0], padding=(padding[0], 0)).unflatten(3, (height, width))
        if n_times > 1:
            padded = F.pad(clips, (0, 0, 0, 0, padding[0], padding[0]))
            seen = [padded[:, :, time : time + n_frames] for time in range(n_times)]
            clips = torch.stack(seen, dim=2).flatten(1, 2)  # (B, C_in * n_times, T, H, W)
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        frames = clips.transpose(1, 2).flatten(0, 1)  # (B * T, C, H, W)
        found = F.conv2d(frames, kernel.flatten(1, 2), stride=self.stride[1:], padding=padding[1:])
        return found.unflatten(0, (n_clips, n_frames)).transpose(1, 2)


class Bottleneck(nn.Module):
    """What a block adds: 1 x 1 in space and ``n_times`` frames (odd) in time, then 3 x 3 in space, then 1 x 1.

    In between are a quarter of the channels out; stride 2 halves height and width, in the second kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, n_times: int, stride: int):
        super().__init__()
        inner = out_channels // 4
        self.conv_a = ClipConv(in_channels, inner, (n_times, 1, 1), padding=(n_times // 2, 0, 0), bias=False)
        self.norm_a = nn.BatchNorm3d(inner)
        self.conv_b = ClipConv(inner, inner, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False)
        self.norm_b = nn.BatchNorm3d(inner)
        self.conv_c = ClipConv(inner, out_channels, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T, H / stride, W / stride)."""
        hidden = self.relu(self.norm_a(self.conv_a(clips)))
        hidden = self.relu(self.norm_b(self.conv_b(hidden)))
        return self.norm_c(self.conv_c(hidden))


class ResidualBlock(nn.Module):
    """A bottleneck, added to what came in."""

    def __init__(self, in_channels: int, out_channels: int, n_times: int, stride: int = 1):
        super().__init__()
        self.branch1_conv = None
        if stride != 1 or in_channels != out_channels:
            self.branch1_conv = ClipConv(in_channels, out_channels, 1, (1, stride, stride), bias=False)
            self.branch1_norm = nn.BatchNorm3d(out_channels)
        self.branch2 = Bottleneck(in_channels, out_channels, n_times, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T, H / stride, W / stride), not negative."""
        shortcut = clips if self.branch1_conv is None else self.branch1_norm(self.branch1_conv(clips))
        return self.relu(self.branch2(clips) + shortcut)


def make_stem(in_channels: int) -> nn.Sequential:
    """7 x 7 over 5 frames, then a maximum over 3 x 3: (B, C, T, H, W) -> (B, 64, T, H / 4, W / 4), not negative."""
    padding = (STEM_TIMES // 2, 3, 3)
    conv = ClipConv(in_channels, 64, (STEM_TIMES, 7, 7), (1, 2, 2), padding, bias=False)
    pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1))
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm3d(64), relu=nn.ReLU(inplace=True), pool=pool))


def make_stage(in_channels: int, out_channels: int, times: tuple[int, ...], stride: int) -> nn.Sequential:
    """Blocks of the same number of channels: (B, C_in, T, H, W) -> (B, C_out, T, H / stride, W / stride).

    The first changes channels and size. ``times`` holds the frames that each block sees.
    """
    first = ResidualBlock(in_channels, out_channels, times[0], stride)
    others = (ResidualBlock(out_channels, out_channels, n_times) for n_times in times[1:])
    return nn.Sequential(OrderedDict(res_blocks=nn.Sequential(first, *others)))


def make_head(n_features: int, n_outputs: int, dropout: float) -> nn.Sequential:
    """Dropout and a linear layer: (B, n_features) -> (B, n_outputs)."""
    return nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout), proj=nn.Linear(n_features, n_outputs)))


class I3DResNet50(nn.Module):
    """From a clip to logits: a stem, four stages, an average over space and time and a linear layer.

    Takes clips and gives features and logits as ``TSMResNet18`` does. Convert with
    ``.to(memory_format=I3DResNet50.memory_format)`` for speed.

    Args:
        n_outputs: K, numbers per clip.
        n_frames: T, frames of a clip; at least 2, since half of them are left after the first stage.
        in_channels: Channels of a frame; 1 for grey.
        dropout: Probability that a feature is dropped in training.

    Raises:
        ValueError: If ``n_frames`` is less than 2.

    Source:
        Gare et al. 2022, Table 6: single-stream I3D ResNet-50, final layer 2048 x K.
    """

    n_features = 2048
    memory_format = torch.channels_last_3d

    def __init__(self, n_outputs: int, n_frames: int, *, in_channels: int = 1, dropout: float = 0.5):
        if n_frames < 2:
            raise ValueError(f"n_frames is {n_frames}, expected at least 2: pairs of frames are pooled")
        super().__init__()
        self.n_frames = n_frames
        self.blocks = nn.Sequential(
            make_stem(in_channels),
            make_stage(64, 256, STAGE_TIMES[0], stride=1),
            nn.MaxPool3d((2, 1, 1)),
            make_stage(256, 512, STAGE_TIMES[1], stride=2),
            make_stage(512, 1024, STAGE_TIMES[2], stride=2),
            make_stage(1024, self.n_features, STAGE_TIMES[3], stride=2),
            make_head(self.n_features, n_outputs, dropout),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_maps(self, clips: torch.Tensor) -> torch.Tensor:
        """What the convolutions see, before the average.

        Args:
            clips: (B, T, in_channels, H, W), floating point, in [0, 1].

        Returns:
            (B, 2048, T / 2, H / 32, W / 32), T rounded down, H and W rounded up, not negative.

        Raises:
            ValueError: If the clips have another number of frames than the network was made for.
        """
        if clips.ndim != 5 or clips.shape[1] != self.n_frames:
            expected = f"(B, {self.n_frames}, {self.blocks[0].conv.in_channels}, H, W)"
            raise ValueError(f"clips have shape {tuple(clips.shape)}, expected {expected}")
        return self.blocks[:-1](clips.transpose(1, 2))  # (B, in_channels, T, H, W)

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """One vector per clip, before dropout: (B, T, in_channels, H, W) -> (B, 2048), not negative."""
        return self.feature_maps(clips).mean(dim=(2, 3, 4))

    def features_and_logits(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both from one pass: features (B, 2048) and logits (B, K)."""
        features = self.features(clips)
        return features, self.blocks[-1](features)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits of each clip: (B, T, in_channels, H, W) -> (B, K)."""
        return self.features_and_logits(clips)[1]


def inflate_kernel(kernel: torch.Tensor, n_times: int, *, centre: bool = False) -> torch.Tensor:
    """A kernel for frames as one for clips.

    Args:
        kernel: (O, I, H, W).
        n_times: Frames that the new kernel sees, odd.
        centre: Put the kernel at the middle frame and zeros at the others, instead of a share of
            ``1 / n_times`` at each.

    Returns:
        (O, I, n_times, H, W). Either way a video of one picture gives what the picture gave; with
        ``centre`` every video gives what its frames gave.

    Source:
        Carreira and Zisserman 2017, Section 2.4, "Bootstrapping 3D filters from 2D Filters"; at the
        centre: Girdhar et al. 2018, "Detect-and-Track: Efficient Pose Estimation in Videos".

    Example:
        >>> inflate_kernel(torch.ones(1, 1, 1, 1), 3, centre=True).flatten().tolist()
        [0.0, 1.0, 0.0]
    """
    if centre:
        inflated = kernel.new_zeros(*kernel.shape[:2], n_times, *kernel.shape[2:])
        inflated[:, :, n_times // 2] = kernel
        return inflated
    return kernel.unsqueeze(2).repeat(1, 1, n_times, 1, 1) / n_times


def inflate_resnet50(state: dict[str, torch.Tensor], *, centre: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of a 2-D ResNet-50 as those of ``I3DResNet50``.

    Args:
        state: By torchvision's names: ``conv1.weight``, ``layer1.0.bn3.bias``, ``fc.weight``, ...
        centre: See ``inflate_kernel``.

    Returns:
        Tensors by the names of ``I3DResNet50``; a name that ResNet-50 does not have stays as it is.
    """
    inflated = {}
    for name, tensor in state.items():
        module, _, parameter = name.rpartition(".")
        new_module, n_times = _find_counterpart(module)
        is_kernel = tensor.ndim == 4
        inflated[f"{new_module}.{parameter}"] = inflate_kernel(tensor, n_times, centre=centre) if is_kernel else tensor
    return inflated


def _find_counterpart(module: str) -> tuple[str, int]:
    """The module of ``I3DResNet50`` that stands for one of ResNet-50, and the frames that its kernel sees."""
    ends = {"conv1": "blocks.0.conv", "bn1": "blocks.0.norm", "fc": "blocks.6.proj"}
    if module in ends:
        return ends[module], STEM_TIMES
    found = re.fullmatch(r"layer([1-4])\.(\d+)\.(conv|bn|downsample\.)([0-3])", module)
    if found is None:
        return module, 1
    stage, block, kind, number = int(found[1]) - 1, int(found[2]), found[3], int(found[4])
    prefix = f"blocks.{STAGE_PLACES[stage]}.res_blocks.{block}"
    if kind == "downsample.":
        return f"{prefix}.branch1_{('conv', 'norm')[number]}", 1
    n_times = STAGE_TIMES[stage][block] if number == 1 else 1
    return f"{prefix}.branch2.{'conv' if kind == 'conv' else 'norm'}_{'abc'[number - 1]}", n_times
