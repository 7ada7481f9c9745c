"""Beams and depths on which a scene is computed, and the way from there to the square image."""

from dataclasses import dataclass

import numpy as np

from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import Scene, image_top_mm


@dataclass(frozen=True)
class Grid:
    """Beams and depths on which a scene is computed.

    Attributes:
        x: Lateral places at the pleura, float32 (1, X), in millimetres.
        z: Depths, float32 (Z, 1), in millimetres.
        size: Height and width of the square image at this resolution.
    """

    x: np.ndarray
    z: np.ndarray
    size: int

    @property
    def dx(self) -> float:
        """Millimetres between beams."""
        return float(self.x[0, 1] - self.x[0, 0])

    @property
    def dz(self) -> float:
        """Millimetres between rows."""
        return float(self.z[1, 0] - self.z[0, 0])


def make_grid(scene: Scene, size: int) -> Grid:
    """The grid for an image size.

    Args:
        scene: The scene; its width and depth are covered.
        size: Height and width of the image in pixels.

    Returns:
        A grid whose ``size`` is a whole multiple of the image's, and at least ``constants.INTERNAL_SIZE``.
    """
    internal = size * -(-c.INTERNAL_SIZE // size)
    device = scene.device
    columns = internal
    if device.probe == "linear":
        columns = min(internal, round(internal * scene.width_mm / device.depth_mm))
    x = (np.arange(columns, dtype=np.float32) + 0.5) / columns - 0.5
    z = (np.arange(internal, dtype=np.float32) + 0.5) / internal
    return Grid(
        (x * scene.width_mm)[None].astype(np.float32), (z * device.depth_mm)[:, None].astype(np.float32), internal
    )


class ScanConverter:
    """Beams to the square image: padded for a linear probe, a sector for a convex one.

    Args:
        scene: The scene.
        grid: Its grid.
        size: Height and width of the image.
    """

    def __init__(self, scene: Scene, grid: Grid, size: int):
        self.size, self.internal, self.columns = size, grid.size, grid.x.shape[1]
        self.index = None if scene.device.probe == "linear" else self._sector(scene, grid)

    def _sector(self, scene: Scene, grid: Grid) -> tuple[np.ndarray, ...]:
        device, n = scene.device, grid.size
        half = device.width_mm / device.radius_mm / 2
        top = image_top_mm(device)
        pixel = (device.radius_mm + device.depth_mm - top) / n
        y = top + (np.arange(n) + 0.5)[:, None] * pixel
        x = ((np.arange(n) + 0.5) - n / 2)[None] * pixel
        row = (np.hypot(x, y) - device.radius_mm) / device.depth_mm * n - 0.5
        column = (np.arctan2(x, y) / (2 * half) + 0.5) * self.columns - 0.5
        inside = (row >= 0) & (row <= n - 1) & (column >= 0) & (column <= self.columns - 1)
        row, column = np.clip(row, 0, n - 1.001), np.clip(column, 0, self.columns - 1.001)
        first = (row.astype(int) * self.columns + column.astype(int)).astype(np.int32)
        return first, (row % 1).astype(np.float32), (column % 1).astype(np.float32), inside.astype(np.float32)

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        """Convert one frame.

        Args:
            grey: float32 (Z, X).

        Returns:
            uint8 (size, size).
        """
        if self.index is None:
            left = (self.internal - self.columns) // 2
            square = np.zeros((self.internal, self.internal), np.float32)
            square[:, left : left + self.columns] = grey
        else:
            first, down, right, inside = self.index
            flat = grey.ravel()
            upper = flat[first] * (1 - right) + flat[first + 1] * right
            lower = flat[first + self.columns] * (1 - right) + flat[first + self.columns + 1] * right
            square = (upper * (1 - down) + lower * down) * inside
        factor = self.internal // self.size
        if factor > 1:
            square = square.reshape(self.size, factor, self.size, factor).mean((1, 3))
        return (square + np.float32(0.5)).astype(np.uint8)
