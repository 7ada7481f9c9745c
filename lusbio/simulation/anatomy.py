"""The scene of one video in millimetres: what lies where on the pleura, and how it moves.

Lateral positions are measured along the pleural line from the middle of the image; what belongs to the lung slides with
it, what belongs to the chest wall and to the beam does not.
"""

from dataclasses import dataclass

import numpy as np

from lusbio.simulation import constants as c
from lusbio.simulation.findings import Findings
from lusbio.simulation.patients import Device


@dataclass(frozen=True)
class Spot:
    """Something at a place on the pleura.

    Attributes:
        x_mm: Its middle, from the middle of the image.
        width_mm: Its full width at half height.
        height_mm: How deep it reaches, where that means something; 0 otherwise.
        level_db: How much brighter than usual it is.
    """

    x_mm: float
    width_mm: float
    height_mm: float = 0.0
    level_db: float = 0.0


@dataclass(frozen=True)
class Motion:
    """How lung and chest wall move.

    Attributes:
        slide_mm: Respiratory sliding, peak to peak.
        beat_mm: Sliding by the heart beat, amplitude.
        drift_mm: Up and down of the pleural line with respiration, amplitude.
        breaths_hz: Respiration rate.
        beats_hz: Heart rate.
        phase: Of respiration at the first frame, in radians.
    """

    slide_mm: float
    beat_mm: float
    drift_mm: float
    breaths_hz: float
    beats_hz: float
    phase: float

    def slide(self, seconds: float) -> float:
        """Where the lung is, in millimetres to the right of its mean place."""
        breath = np.sin(2 * np.pi * self.breaths_hz * seconds + self.phase)
        return self.slide_mm / 2 * breath + self.beat_mm * np.sin(2 * np.pi * self.beats_hz * seconds)

    def drift(self, seconds: float) -> float:
        """How much deeper than in the mean the pleural line is, in millimetres."""
        return self.drift_mm * np.sin(2 * np.pi * self.breaths_hz * seconds + self.phase + 0.6)

    def swell(self, seconds: float) -> float:
        """Respiration between -1 and 1: fluid and flicker follow it."""
        return float(np.sin(2 * np.pi * self.breaths_hz * seconds + self.phase + 1.2))


@dataclass(frozen=True)
class Scene:
    """Everything that a video shows.

    Attributes:
        findings: What it has to show.
        device: How it is recorded.
        motion: How it moves.
        wall_mm: Lower edges of skin, fat and muscle; the last is the pleura.
        tilt: Slope of the pleural line.
        bend_mm: How much deeper (or, negative, higher) the pleural line is at the edges of the image.
        a_window: Where A-lines are seen, fixed to the beam; None without.
        b_lines, bands, indents, breaks, consolidations: Places on the lung.
        comets: Short comet tails on the lung, which are not B-lines.
        ribs: Ribs at the edges of the image, fixed to the chest wall.
        seed: Of everything random in its pixels.
    """

    findings: Findings
    device: Device
    motion: Motion
    wall_mm: tuple[float, float, float]
    tilt: float
    bend_mm: float
    a_window: Spot | None
    b_lines: tuple[Spot, ...]
    bands: tuple[Spot, ...]
    indents: tuple[Spot, ...]
    breaks: tuple[Spot, ...]
    consolidations: tuple[Spot, ...]
    comets: tuple[Spot, ...]
    ribs: tuple[Spot, ...]
    seed: tuple[int, ...]

    @property
    def width_mm(self) -> float:
        """Width of the image at the pleura."""
        return width_at_pleura(self.device, self.findings)


def width_at_pleura(device: Device, findings: Findings) -> float:
    """Width of the image along the pleural line; a convex probe's beams spread until there.

    Args:
        device: The scanner.
        findings: The findings, for the depth of the pleura.

    Returns:
        Millimetres.
    """
    if device.probe == "linear":
        return device.width_mm
    return device.width_mm * (device.radius_mm + findings.pleura_mm) / device.radius_mm


def image_top_mm(device: Device) -> float:
    """Where the image of a convex probe starts, from the centre of its curvature; part of the arc may be cut off.

    Args:
        device: A convex scanner.

    Returns:
        Millimetres, at most the radius.
    """
    sagitta = 1 - np.cos(device.width_mm / device.radius_mm / 2)
    return device.radius_mm * float(1 - (1 - c.SECTOR_CROP) * sagitta)


def visible_width(device: Device, findings: Findings) -> float:
    """Width of the pleural line within the square image, which cuts off the sides of a wide sector.

    Args:
        device: The scanner.
        findings: The findings, for the depth of the pleura.

    Returns:
        Millimetres along the line, at most ``width_at_pleura``.
    """
    width = width_at_pleura(device, findings)
    if device.probe == "linear":
        return width
    radius = device.radius_mm + findings.pleura_mm
    half_image = (device.radius_mm + device.depth_mm - image_top_mm(device)) / 2
    return min(width, 2 * radius * float(np.arcsin(min(half_image / radius, 1.0))))


def pleura_depth(scene: Scene, x_mm: np.ndarray, seconds: float) -> np.ndarray:
    """Depth of the upper edge of the (parietal) pleural line.

    Args:
        scene: The scene.
        x_mm: Lateral places, any shape.
        seconds: Time.

    Returns:
        Millimetres below the skin, shape of ``x_mm``.
    """
    shape = scene.tilt * x_mm + scene.bend_mm * (2 * x_mm / scene.width_mm) ** 2
    return scene.findings.pleura_mm + scene.motion.drift(seconds) + shape


def lung_depth(scene: Scene, x_mm: np.ndarray, seconds: float) -> np.ndarray:
    """Depth of the upper edge of the lung's (visceral) line: below any fluid, and with its indents.

    Args:
        scene: The scene.
        x_mm: Lateral places, any shape.
        seconds: Time.

    Returns:
        Millimetres below the skin, shape of ``x_mm``.
    """
    depth = pleura_depth(scene, x_mm, seconds)
    on_lung = x_mm - scene.motion.slide(seconds)
    phases = [(seed % 628) / 100 for seed in scene.seed[:2]]
    depth = depth + c.ROUGHNESS_MM * (np.sin(0.6 * on_lung + phases[0]) + np.sin(1.3 * on_lung + phases[1]))
    for spot in scene.indents:
        depth = depth + spot.height_mm * lobe(on_lung - spot.x_mm, spot.width_mm)
    return depth + fluid_mm(scene, seconds)


def fluid_mm(scene: Scene, seconds: float) -> float:
    """Distance between the upper edges of the parietal and the visceral line: 0 without fluid.

    Args:
        scene: The scene.
        seconds: Time.

    Returns:
        Millimetres, moving with respiration by 10 %, so that it stays on its side of 5 mm.
    """
    if not scene.findings.effusion_mm:
        return 0.0
    return c.PARIETAL_MM + scene.findings.effusion_mm * (1 + 0.1 * scene.motion.swell(seconds))


def lobe(offset_mm: np.ndarray, width_mm: float) -> np.ndarray:
    """A smooth hump of height 1 whose full width at half height is ``width_mm``.

    Args:
        offset_mm: Distance from its middle.
        width_mm: Width.

    Returns:
        Values in [0, 1], shape of ``offset_mm``.
    """
    return np.exp2(-((2 * offset_mm / width_mm) ** 4))
