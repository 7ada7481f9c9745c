"""The scene of one video in millimetres: what lies where on the pleura, how it moves, and the grid it is computed on.

Lateral positions are measured along the pleural line from the middle of the image; what belongs to the lung slides with
it, what belongs to the chest wall and to the beam does not.
"""

from collections import namedtuple

import numpy as np

from lusbio.simulation import constants as c
from lusbio.simulation.patients import Device, Findings

Spot = namedtuple("Spot", "x_mm width_mm height_mm level_db", defaults=(0.0, 0.0))
"""Something at a place on the pleura.

Attributes:
    x_mm: Its middle, from the middle of the image.
    width_mm: Its full width at half height.
    height_mm: How deep it reaches, where that means something; 0 otherwise.
    level_db: How much brighter than usual it is.
"""


class Motion(namedtuple("Motion", "slide_mm beat_mm drift_mm breaths_hz beats_hz phase")):
    """How lung and chest wall move.

    Attributes:
        slide_mm: Respiratory sliding, peak to peak.
        beat_mm: Sliding by the heart beat, amplitude.
        drift_mm: Up and down of the pleural line with respiration, amplitude.
        breaths_hz: Respiration rate.
        beats_hz: Heart rate.
        phase: Of respiration at the first frame, in radians.
    """

    @property
    def reach_mm(self) -> float:
        """How far the lung slides to either side, at most."""
        return self.slide_mm / 2 + self.beat_mm

    def swell(self, seconds: float, lead: float = 1.2) -> np.float64:
        """Respiration between -1 and 1, ``lead`` radians ahead of sliding; fluid and flicker follow it."""
        return np.sin(2 * np.pi * self.breaths_hz * seconds + self.phase + lead)

    def slide(self, seconds: float) -> np.float64:
        """Where the lung is, in millimetres to the right of its mean place."""
        beat = self.beat_mm * np.sin(2 * np.pi * self.beats_hz * seconds)
        return self.slide_mm / 2 * self.swell(seconds, lead=0.0) + beat

    def drift(self, seconds: float) -> np.float64:
        """How much deeper than in the mean the pleural line is, in millimetres."""
        return self.drift_mm * self.swell(seconds, lead=0.6)


_SCENE = (
    "findings device motion wall_mm tilt bend_mm a_window b_lines bands indents breaks consolidations comets ribs seed"
)


class Scene(namedtuple("Scene", _SCENE)):
    """Everything that a video shows.

    Attributes:
        findings: What it has to show.
        device: How it is recorded.
        motion: How it moves.
        wall_mm: Lower edges of skin, fat and muscle, three numbers; the last is the pleura.
        tilt: Slope of the pleural line.
        bend_mm: How much deeper (or, negative, higher) the pleural line is at the edges of the image.
        a_window: Where A-lines are seen, fixed to the beam; None without.
        b_lines, bands, indents, breaks, consolidations: Places on the lung, tuples of ``Spot``, as the next two.
        comets: Short comet tails on the lung, which are not B-lines.
        ribs: Ribs at the edges of the image, fixed to the chest wall.
        seed: Of everything random in its pixels, four numbers.
    """

    @property
    def width_mm(self) -> float:
        """Width of the image along the pleural line; a convex probe's beams spread until there."""
        if self.device.probe == "linear":
            return self.device.width_mm
        return self.device.width_mm * (self.device.radius_mm + self.findings.pleura_mm) / self.device.radius_mm

    def sag(self, x_mm: np.ndarray) -> np.ndarray:
        """How much deeper than in the middle of the image the pleural line is: millimetres, shape of ``x_mm``."""
        return self.tilt * x_mm + self.bend_mm * (2 * x_mm / self.width_mm) ** 2


def image_top_mm(device: Device) -> float:
    """Where the image of a convex probe starts, from the centre of its curvature; part of the arc may be cut off."""
    sagitta = 1 - np.cos(device.width_mm / device.radius_mm / 2)
    return device.radius_mm * float(1 - (1 - c.SECTOR_CROP) * sagitta)


def visible_width(device: Device, findings: Findings) -> float:
    """Width of the pleural line within the square image, which cuts off the sides of a wide sector."""
    if device.probe == "linear":
        return device.width_mm
    radius = device.radius_mm + findings.pleura_mm
    half_image = (device.radius_mm + device.depth_mm - image_top_mm(device)) / 2
    width = device.width_mm * radius / device.radius_mm
    return min(width, 2 * radius * float(np.arcsin(min(half_image / radius, 1.0))))


def pleura_depth(scene: Scene, x_mm: np.ndarray, seconds: float) -> np.ndarray:
    """Depth of the upper edge of the (parietal) pleural line below the skin, in millimetres, shape of ``x_mm``."""
    return scene.findings.pleura_mm + scene.motion.drift(seconds) + scene.sag(x_mm)


def lung_depth(scene: Scene, x_mm: np.ndarray, seconds: float) -> np.ndarray:
    """Depth of the upper edge of the lung's (visceral) line: below any fluid, and with its indents.

    Returns:
        Millimetres below the skin, shape of ``x_mm``.
    """
    on_lung = x_mm - scene.motion.slide(seconds)
    first, second = ((seed % 628) / 100 for seed in scene.seed[:2])
    rough = c.ROUGHNESS_MM * (np.sin(0.6 * on_lung + first) + np.sin(1.3 * on_lung + second))
    depth = pleura_depth(scene, x_mm, seconds) + rough
    for spot in scene.indents:
        depth = depth + spot.height_mm * lobe(on_lung - spot.x_mm, spot.width_mm)
    return depth + fluid_mm(scene, seconds)


def fluid_mm(scene: Scene, seconds: float) -> float:
    """Distance between the upper edges of the parietal and the visceral line: 0 without fluid.

    It moves with respiration by 10 %, so that it stays on its side of 5 mm.
    """
    if not scene.findings.effusion_mm:
        return 0.0
    return c.PARIETAL_MM + scene.findings.effusion_mm * (1 + 0.1 * scene.motion.swell(seconds))


def lobe(offset_mm: np.ndarray, width_mm: float) -> np.ndarray:
    """A smooth hump of height 1 whose full width at half height is ``width_mm``; shape of ``offset_mm``."""
    return np.exp2(-((2 * offset_mm / width_mm) ** 4))


Grid = namedtuple("Grid", "x z size dx dz")
"""Beams and depths on which a scene is computed.

Attributes:
    x: Lateral places at the pleura, float32 (1, X), in millimetres.
    z: Depths, float32 (Z, 1), in millimetres.
    size: Height and width of the square image at this resolution.
    dx: Millimetres between beams.
    dz: Millimetres between rows.
"""


def make_grid(scene: Scene, size: int) -> Grid:
    """The grid that covers a scene for an image of ``size`` pixels.

    Returns:
        A grid whose ``size`` is a whole multiple of the image's, and at least ``constants.INTERNAL_SIZE``.
    """
    rows = columns = size * -(-c.INTERNAL_SIZE // size)
    if scene.device.probe == "linear":
        columns = min(rows, round(rows * scene.width_mm / scene.device.depth_mm))
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns - 0.5)[None] * scene.width_mm
    z = ((np.arange(rows, dtype=np.float32) + 0.5) / rows)[:, None] * scene.device.depth_mm
    return Grid(x, z, rows, dx=float(x[0, 1] - x[0, 0]), dz=float(z[1, 0] - z[0, 0]))


class ScanConverter:
    """Beams to the square image of ``size`` pixels: padded for a linear probe, a sector for a convex one."""

    def __init__(self, scene: Scene, grid: Grid, size: int):
        self.size, self.internal, self.columns = size, grid.size, grid.x.shape[1]
        self.index = None if scene.device.probe == "linear" else self._sector(scene, grid)

    def _sector(self, scene: Scene, grid: Grid) -> tuple[np.ndarray, ...]:
        device, n = scene.device, grid.size
        top = image_top_mm(device)
        pixel = (device.radius_mm + device.depth_mm - top) / n
        y = top + (np.arange(n) + 0.5)[:, None] * pixel
        x = ((np.arange(n) + 0.5) - n / 2)[None] * pixel
        row = (np.hypot(x, y) - device.radius_mm) / device.depth_mm * n - 0.5
        column = (np.arctan2(x, y) / (device.width_mm / device.radius_mm) + 0.5) * self.columns - 0.5
        inside = (row >= 0) & (row <= n - 1) & (column >= 0) & (column <= self.columns - 1)
        row, column = np.clip(row, 0, n - 1.001), np.clip(column, 0, self.columns - 1.001)
        first = row.astype(int) * self.columns + column.astype(int)
        return first, (row % 1).astype(np.float32), (column % 1).astype(np.float32), inside

    def __call__(self, grey: np.ndarray) -> np.ndarray:
        """Convert one frame, float32 (Z, X), to uint8 (size, size)."""
        if self.index is None:
            left = (self.internal - self.columns) // 2
            square = np.pad(grey, ((0, 0), (left, self.internal - self.columns - left)))
        else:
            first, down, right, inside = self.index
            flat = grey.ravel()
            upper = flat[first] * (1 - right) + flat[first + 1] * right
            lower = flat[first + self.columns] * (1 - right) + flat[first + self.columns + 1] * right
            square = (upper * (1 - down) + lower * down) * inside
        factor = self.internal // self.size
        square = square.reshape(self.size, factor, self.size, factor).mean((1, 3))
        return (square + np.float32(0.5)).astype(np.uint8)
