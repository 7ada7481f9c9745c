# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""ResNet-18, from one block to the whole, with torchvision's parameter names.

The names (``conv1.weight``, ``layer1.0.bn2.bias``, ``fc.weight``, ...) are what files of ImageNet
weights and of other projects use; torchvision itself is not needed.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", Table 1, 18 layers.
"""

from collections.abc import Callable

import torch
from torch import nn

BlockMaker = Callable[[int, int, int], nn.Module]
"""Makes a block from its input channels, output channels and stride."""


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size (or divides it by ``stride``); no bias, since batch norm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, added to what came in; stride 2 halves height and width."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def shortcut(self, frames: torch.Tensor) -> torch.Tensor:
        """What came in, in the shape of what goes out: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        return frames if self.downsample is None else self.downsample(frames)

    def residual(self, frames: torch.Tensor) -> torch.Tensor:
        """What the block adds: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        hidden = self.relu(self.bn1(self.conv1(frames)))
        return self.bn2(self.conv2(hidden))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride), not negative."""
        return self.relu(self.residual(frames) + self.shortcut(frames))


def make_stage(block: BlockMaker, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Two blocks, of which the first changes channels and size."""
    return nn.Sequential(block(in_channels, out_channels, stride), block(out_channels, out_channels, 1))


class ResNet18(nn.Module):
    """A stem, four stages of two blocks, an average over space and a linear layer.

    Weights start as torchvision's do: He et al.'s normal distribution by fan-out for convolutions,
    ones and zeros for batch norm. Convert with ``.to(memory_format=ResNet18.memory_format)`` for speed.

    Args:
        in_channels: Channels of a frame; 1 for grey.
        n_outputs: Numbers per frame, e.g. 38 biomarkers.
        block: Makes a block; another network can put its own in.
        width: Channels of the first stage, W below; 64 is He et al.'s, and what files of weights fit.
    """

    memory_format = torch.channels_last

    def __init__(self, in_channels: int = 1, n_outputs: int = 38, block: BlockMaker = BasicBlock, width: int = 64):
        super().__init__()
        self.n_features = 8 * width
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = make_stage(block, width, width, stride=1)
        self.layer2 = make_stage(block, width, 2 * width, stride=2)
        self.layer3 = make_stage(block, 2 * width, 4 * width, stride=2)
        self.layer4 = make_stage(block, 4 * width, self.n_features, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.n_features, n_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_maps(self, frames: torch.Tensor) -> torch.Tensor:
        """What the convolutions see, before any pooling.

        Args:
            frames: (B, in_channels, H, W), floating point.

        Returns:
            (B, 8 W, H / 32, W / 32), rounded up, not negative.
        """
        maps = self.maxpool(self.relu(self.bn1(self.conv1(frames))))  # (B, W, H / 4, W / 4)
        return self.layer4(self.layer3(self.layer2(self.layer1(maps))))

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """One vector per frame: (B, in_channels, H, W) -> (B, 8 W), not negative."""
        return self.avgpool(self.feature_maps(frames)).flatten(1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits of each frame: (B, in_channels, H, W) -> (B, n_outputs)."""
        return self.fc(self.features(frames))
