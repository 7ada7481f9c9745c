"""Each finding as a map of how much of it there is, 0 to 1, on the grid of one moment.

The scanner turns these maps into echoes; above one half, each is the mask of its finding.
"""

from dataclasses import dataclass

import numpy as np

from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import Scene, fluid_mm, lobe, lung_depth, pleura_depth


@dataclass(frozen=True)
class View:
    """The geometry of one moment on the grid of beams; float32 throughout.

    Attributes:
        seconds: Time.
        x: Lateral place of every beam, (1, X), in millimetres.
        z: Depth of every row, (Z, 1), in millimetres.
        on_lung: Lateral place on the lung, which slides, (1, X).
        pleura: Upper edge of the parietal line, (1, X).
        lung: Upper edge of the visceral line, (1, X).
    """

    seconds: float
    x: np.ndarray
    z: np.ndarray
    on_lung: np.ndarray
    pleura: np.ndarray
    lung: np.ndarray


def view_scene(scene: Scene, x: np.ndarray, z: np.ndarray, seconds: float) -> View:
    """The geometry of a scene at one time.

    Args:
        scene: The scene.
        x: Lateral places, (1, X), in millimetres.
        z: Depths, (Z, 1), in millimetres.
        seconds: Time.

    Returns:
        The view.
    """
    on_lung = x - np.float32(scene.motion.slide(seconds))
    pleura = pleura_depth(scene, x, seconds).astype(np.float32)
    return View(seconds, x, z, on_lung, pleura, lung_depth(scene, x, seconds).astype(np.float32))


def ramp(distance: np.ndarray, softness: float) -> np.ndarray:
    """A soft step: 0 well below zero, 1 well above, straight in between.

    Args:
        distance: In millimetres, any shape.
        softness: Width of the step, in millimetres.

    Returns:
        Values in [0, 1], shape of ``distance``.
    """
    return np.clip(distance * np.float32(1 / softness) + np.float32(0.5), 0, 1)


def _band(view: View, top: np.ndarray, thickness: float) -> np.ndarray:
    """A bright line whose upper and lower half-maximum edges are ``thickness`` apart, (Z, X)."""
    middle = top + np.float32(thickness / 2)
    rows = np.flatnonzero((view.z[:, 0] > middle.min() - 2 * thickness) & (view.z[:, 0] < middle.max() + 2 * thickness))
    out = np.zeros((view.z.shape[0], view.x.shape[1]), np.float32)
    if len(rows):
        part = slice(rows[0], rows[-1] + 1)
        out[part] = np.exp2(-(((view.z[part] - middle) * np.float32(2 / thickness)) ** 2))
    return out


def pleural_line(scene: Scene, view: View) -> np.ndarray:
    """The visceral line, of the labelled thickness, with its breaks.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        float32 (Z, X), 0 to 1; full width at half maximum is the thickness.
    """
    return _band(view, view.lung, scene.findings.thickness_mm) * (1 - breaks(scene, view))


def parietal_line(scene: Scene, view: View) -> np.ndarray:
    """The thin outer line, apart from the visceral one only where there is fluid.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        float32 (Z, X), 0 to 1.
    """
    return _band(view, view.pleura, c.PARIETAL_MM)


def breaks(scene: Scene, view: View) -> np.ndarray:
    """Gaps of the pleural line.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        float32 (1, X), 1 in a gap.
    """
    gap = np.zeros_like(view.x)
    for spot in scene.breaks:
        gap = np.maximum(gap, ramp(spot.width_mm / 2 - np.abs(view.on_lung - spot.x_mm), 0.3))
    return gap


def indents(scene: Scene, view: View) -> np.ndarray:
    """Where the pleural line is indented.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        float32 (1, X), 1 in the middle of an indent.
    """
    out = np.zeros_like(view.x)
    for spot in scene.indents:
        out = np.maximum(out, lobe(view.on_lung - spot.x_mm, spot.width_mm))
    return out


def effusion(scene: Scene, view: View) -> np.ndarray:
    """Fluid between parietal and visceral line.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        float32 (Z, X), 1 in the fluid.
    """
    if not fluid_mm(scene, view.seconds):
        return np.zeros((view.z.shape[0], view.x.shape[1]), np.float32)
    return ramp(view.z - view.pleura - np.float32(c.PARIETAL_MM), 0.2) * ramp(view.lung - view.z, 0.2)


def consolidations(scene: Scene, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Airless lung below the pleural line: half-ellipses with a ragged ("shredded") bright deep border.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        Four float32 maps (Z, X), 0 to 1: tissue, its border, the enhancement below it, and air in its
        bronchi (large ones only).
    """
    shape = (view.z.shape[0], view.x.shape[1])
    inside, border, below, air = (np.zeros(shape, np.float32) for _ in range(4))
    rng = np.random.default_rng(scene.seed[0])
    under = view.z - view.lung - np.float32(scene.findings.thickness_mm)
    for spot in scene.consolidations:
        offset = view.on_lung - np.float32(spot.x_mm)
        waves = rng.uniform(0, 2 * np.pi, 2)
        shred = 1 + 0.10 * np.sin(1.0 * offset + waves[0]) + 0.06 * np.sin(2.3 * offset + waves[1])
        height = np.float32(spot.height_mm) * shred.astype(np.float32)
        radius = np.sqrt((offset * np.float32(2 / spot.width_mm)) ** 2 + (np.clip(under, 0, None) / height) ** 2)
        outside = (radius - 1) * np.float32(min(spot.height_mm, spot.width_mm / 2))
        inside = np.maximum(inside, ramp(-outside, 0.4) * ramp(under, 0.3))
        border = np.maximum(border, np.exp2(-(((outside - 0.3) / 0.45) ** 2)) * ramp(under - 0.6, 0.8))
        lateral = ramp(spot.width_mm / 2 - np.abs(offset), 1.0)
        tail = np.exp(-np.clip(under - height, 0, None) / 8) * ramp(under - height, 0.5)
        below = np.maximum(below, tail * lateral)
        for _ in range(int(rng.integers(3, 6)) if spot.width_mm > 10 else 0):
            x, depth, lean = (
                rng.uniform(-0.3, 0.3) * spot.width_mm,
                rng.uniform(0.25, 0.7) * spot.height_mm,
                rng.normal(0, 0.6),
            )
            along, across = offset - x + lean * (under - depth), under - depth - lean * (offset - x)
            air = np.maximum(air, np.exp2(-((along / 1.2) ** 2) - (across / 0.35) ** 2).astype(np.float32))
    return inside, border, below, air * inside


def a_lines(scene: Scene, view: View) -> list[np.ndarray]:
    """Repetitions of the pleural line at twice, three times, ... its depth, before B-lines erase them.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        One float32 map (Z, X) per visible repetition, each blurrier than the one before.
    """
    if scene.a_window is None:
        return []
    window = lobe(view.x - np.float32(scene.a_window.x_mm), scene.a_window.width_mm).astype(np.float32)
    thickness = min(scene.findings.thickness_mm + (0.2 if scene.device.probe == "linear" else 0.8), 2.0)
    return [
        _band(view, view.pleura * np.float32(copy + 1), thickness * (1 + 0.25 * (copy - 1))) * window
        for copy in range(1, scene.findings.a_line_copies + 1)
    ]


def _skirted(offset: np.ndarray, width: float) -> np.ndarray:
    """A peak of full width at half height ``width`` with the soft skirts of a beam."""
    near = (2 * offset / np.float32(width)) ** 2
    return np.float32(0.75) * np.exp2(-near * np.float32(1.25)) + np.float32(0.25) / (1 + near * np.float32(0.55)) ** 2


def b_lines(scene: Scene, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Separate and merged B-lines, or white lung, from their origin to the bottom.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        Two float32 maps: how much of a pixel is B-line, (Z, X), 0 to 1; and the level of the B-line at each beam in
        decibels about the usual, (1, X): striations of merged lines, differences between separate ones.
    """
    start = np.float32(scene.findings.b_origin_mm + 0.5 * scene.findings.thickness_mm)
    depth = ramp(view.z - view.lung - start, 0.6 if not scene.findings.b_origin_mm else 1.8)
    if scene.findings.white:
        return depth * np.ones_like(view.x), np.zeros_like(view.x)
    beams, level = np.zeros_like(view.x), np.zeros_like(view.x)
    for spot in scene.b_lines:
        line = _skirted(view.on_lung - np.float32(spot.x_mm), spot.width_mm)
        level = np.where(line > beams, np.float32(spot.level_db), level)
        beams = np.maximum(beams, line)
    for spot in scene.bands:
        offset = view.on_lung - np.float32(spot.x_mm)
        line = ramp(spot.width_mm / 2 - np.abs(offset), 1.4)
        stripes = 2.5 * np.sin(offset * np.float32(2 * np.pi / 1.5)) + 1.5 * np.sin(
            offset * np.float32(2 * np.pi / 0.93) + 1
        )
        level = np.where(line > beams, np.float32(spot.level_db) + stripes, level)
        beams = np.maximum(beams, line)
    return depth * beams, level


def comet_tails(scene: Scene, view: View) -> np.ndarray:
    """Short tails that fade, below small irregularities and below breaks: not B-lines.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        float32 (Z, X), 0 to 1.
    """
    out = np.zeros((view.z.shape[0], view.x.shape[1]), np.float32)
    under = view.z - view.lung
    for spot in scene.comets:
        line = np.exp2(-((2 * (view.on_lung - np.float32(spot.x_mm)) / np.float32(spot.width_mm)) ** 2))
        out = np.maximum(out, line * np.clip(1 - under / np.float32(spot.height_mm), 0, 1) * (under > 0))
    for spot in scene.breaks:
        line = lobe(view.on_lung - np.float32(spot.x_mm), 0.8 * spot.width_mm).astype(np.float32)
        out = np.maximum(out, np.float32(0.5) * line * np.clip(1 - under / np.float32(14), 0, 1) * (under > 0))
    return out


def ribs(scene: Scene, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Bone at the edges of the image: its bright surface, and the shadow below.

    Args:
        scene: The scene.
        view: The moment.

    Returns:
        Two float32 maps (Z, X), 0 to 1.
    """
    shape = (view.z.shape[0], view.x.shape[1])
    surface, shadow = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for spot in scene.ribs:
        offset = (view.x - np.float32(spot.x_mm)) * np.float32(2 / spot.width_mm)
        top = view.pleura - np.float32(c.RIB_ABOVE_PLEURA_MM) + np.float32(3.0) * offset**2
        beside = ramp((1 - np.abs(offset)) * np.float32(spot.width_mm / 2), 2.5)
        surface = np.maximum(surface, _band(view, top, 1.0) * beside)
        shadow = np.maximum(shadow, ramp(view.z - top - 1, 0.5) * beside)
    return surface, shadow
