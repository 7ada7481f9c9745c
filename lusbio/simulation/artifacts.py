"""Each finding as a map of how much of it there is, 0 to 1, on the grid of one moment.

The scanner turns these maps into echoes; above one half, each is the mask of its finding. Functions that take a scene
and a view return float32 maps of the moment: (Z, X), or (1, X) where every depth is the same.
"""

from collections import namedtuple
from functools import reduce

import numpy as np

from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import ScanConverter, Scene, fluid_mm, lobe, lung_depth, make_grid, pleura_depth

SUB_PLEURAL_MM = 8.0
"""Depth of the region below the pleural line that counts as sub-pleural (engineering choice)."""


View = namedtuple("View", "seconds x z on_lung pleura lung")
"""The geometry of one moment on the grid of beams; float32 throughout.

Attributes:
    seconds: Time.
    x: Lateral place of every beam, (1, X), in millimetres.
    z: Depth of every row, (Z, 1), in millimetres.
    on_lung: Lateral place on the lung, which slides, (1, X).
    pleura: Upper edge of the parietal line, (1, X).
    lung: Upper edge of the visceral line, (1, X).
"""


def view_scene(scene: Scene, x: np.ndarray, z: np.ndarray, seconds: float) -> View:
    """The geometry of a scene at one time, at beams ``x`` (1, X) and depths ``z`` (Z, 1), both in millimetres."""
    on_lung = x - np.float32(scene.motion.slide(seconds))
    pleura = pleura_depth(scene, x, seconds).astype(np.float32)
    return View(seconds, x, z, on_lung, pleura, lung_depth(scene, x, seconds).astype(np.float32))


def empty_map(view: View) -> np.ndarray:
    """Nothing anywhere: zeros, float32 (Z, X)."""
    return np.zeros((view.z.shape[0], view.x.shape[1]), np.float32)


def ramp(distance: np.ndarray, softness: float) -> np.ndarray:
    """A soft step ``softness`` millimetres wide: 0 well below zero, 1 well above, straight in between."""
    return np.clip(distance * (1 / softness) + 0.5, 0, 1)


def _band(view: View, top: np.ndarray, thickness: float) -> np.ndarray:
    """A bright line whose upper and lower half-maximum edges are ``thickness`` apart, (Z, X)."""
    middle, out = top + thickness / 2, empty_map(view)
    rows = (view.z[:, 0] > middle.min() - 2 * thickness) & (view.z[:, 0] < middle.max() + 2 * thickness)
    out[rows] = np.exp2(-(((view.z[rows] - middle) * (2 / thickness)) ** 2))
    return out


def pleural_line(scene: Scene, view: View) -> np.ndarray:
    """The visceral line with its breaks; its full width at half maximum is the labelled thickness."""
    return _band(view, view.lung, scene.findings.thickness_mm) * (1 - breaks(scene, view))


def parietal_line(scene: Scene, view: View) -> np.ndarray:
    """The thin outer line, apart from the visceral one only where there is fluid."""
    return _band(view, view.pleura, c.PARIETAL_MM)


def breaks(scene: Scene, view: View) -> np.ndarray:
    """Gaps of the pleural line, (1, X)."""
    gaps = (ramp(spot.width_mm / 2 - np.abs(view.on_lung - spot.x_mm), 0.3) for spot in scene.breaks)
    return reduce(np.maximum, gaps, np.zeros_like(view.x))


def indents(scene: Scene, view: View) -> np.ndarray:
    """Where the pleural line is indented, (1, X): 1 in the middle of an indent."""
    lobes = (lobe(view.on_lung - spot.x_mm, spot.width_mm) for spot in scene.indents)
    return reduce(np.maximum, lobes, np.zeros_like(view.x))


def effusion(scene: Scene, view: View) -> np.ndarray:
    """Fluid between parietal and visceral line."""
    if not fluid_mm(scene, view.seconds):
        return empty_map(view)
    return ramp(view.z - view.pleura - c.PARIETAL_MM, 0.2) * ramp(view.lung - view.z, 0.2)


def consolidations(scene: Scene, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Airless lung below the pleural line: half-ellipses with a ragged ("shredded") bright deep border.

    Returns:
        Four maps: tissue, its border, the enhancement below it, and air in its bronchi (large ones only).
    """
    inside, border, below, air = (empty_map(view) for _ in range(4))
    rng = np.random.default_rng(scene.seed[0])
    under = view.z - view.lung - scene.findings.thickness_mm
    for spot in scene.consolidations:
        width, offset = spot.width_mm, view.on_lung - spot.x_mm
        waves = rng.uniform(0, 2 * np.pi, 2)
        shred = 1 + 0.10 * np.sin(offset + waves[0]) + 0.06 * np.sin(2.3 * offset + waves[1])
        height = spot.height_mm * shred.astype(np.float32)
        radius = np.sqrt((offset * (2 / width)) ** 2 + (np.clip(under, 0, None) / height) ** 2)
        outside = (radius - 1) * min(spot.height_mm, width / 2)
        inside = np.maximum(inside, ramp(-outside, 0.4) * ramp(under, 0.3))
        border = np.maximum(border, np.exp2(-(((outside - 0.3) / 0.45) ** 2)) * ramp(under - 0.6, 0.8))
        tail = np.exp(-np.clip(under - height, 0, None) / 8) * ramp(under - height, 0.5)
        below = np.maximum(below, tail * ramp(width / 2 - np.abs(offset), 1.0))
        for _ in range(rng.integers(3, 6) if width > 10 else 0):
            x, depth, lean = rng.uniform(-0.3, 0.3) * width, rng.uniform(0.25, 0.7) * spot.height_mm, rng.normal(0, 0.6)
            along, across = offset - x + lean * (under - depth), under - depth - lean * (offset - x)
            air = np.maximum(air, np.exp2(-((along / 1.2) ** 2) - (across / 0.35) ** 2))
    return inside, border, below, air * inside


def a_lines(scene: Scene, view: View) -> list[np.ndarray]:
    """Repetitions of the pleural line at twice, three times, ... its depth, before B-lines erase them.

    Returns:
        One map (Z, X) per visible repetition, each blurrier than the one before.
    """
    if scene.a_window is None:
        return []
    window = lobe(view.x - scene.a_window.x_mm, scene.a_window.width_mm)
    thickness = min(scene.findings.thickness_mm + (0.2 if scene.device.probe == "linear" else 0.8), 2.0)
    return [
        _band(view, view.pleura * (copy + 1), thickness * (1 + 0.25 * (copy - 1))) * window
        for copy in range(1, scene.findings.a_line_copies + 1)
    ]


def b_lines(scene: Scene, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Separate and merged B-lines, or white lung, from their origin to the bottom.

    Returns:
        How much of a pixel is B-line, (Z, X); and the level of the B-line at each beam in decibels about the usual,
        (1, X): striations of merged lines, differences between separate ones.
    """
    start = scene.findings.b_origin_mm + 0.5 * scene.findings.thickness_mm
    depth = ramp(view.z - view.lung - start, 1.8 if scene.findings.b_origin_mm else 0.6)
    if scene.findings.white:
        return depth * np.ones_like(view.x), np.zeros_like(view.x)
    lines = []
    for spot in scene.b_lines:  # a peak with the soft skirts of a beam
        near = (2 * (view.on_lung - spot.x_mm) / spot.width_mm) ** 2
        lines.append((0.75 * np.exp2(-near * 1.25) + 0.25 / (1 + near * 0.55) ** 2, spot.level_db))
    for spot in scene.bands:
        offset = view.on_lung - spot.x_mm
        stripes = 2.5 * np.sin(offset * (2 * np.pi / 1.5)) + 1.5 * np.sin(offset * (2 * np.pi / 0.93) + 1)
        lines.append((ramp(spot.width_mm / 2 - np.abs(offset), 1.4), spot.level_db + stripes))
    beams, level = np.zeros_like(view.x), np.zeros_like(view.x)
    for line, db in lines:
        level = np.where(line > beams, db, level)
        beams = np.maximum(beams, line)
    return depth * beams, level


def comet_tails(scene: Scene, view: View) -> np.ndarray:
    """Short tails that fade, below small irregularities and below breaks: not B-lines."""
    under = view.z - view.lung
    tails = [(np.exp2(-((2 * (view.on_lung - s.x_mm) / s.width_mm) ** 2)), s.height_mm) for s in scene.comets]
    tails += [(0.5 * lobe(view.on_lung - s.x_mm, 0.8 * s.width_mm), 14.0) for s in scene.breaks]
    faded = (line * np.clip(1 - under / reach, 0, 1) * (under > 0) for line, reach in tails)
    return reduce(np.maximum, faded, empty_map(view))


def ribs(scene: Scene, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Bone at the edges of the image: its bright surface, and the shadow below."""
    surface, shadow = empty_map(view), empty_map(view)
    for spot in scene.ribs:
        offset = (view.x - spot.x_mm) * (2 / spot.width_mm)
        top = view.pleura - c.RIB_ABOVE_PLEURA_MM + 3.0 * offset**2
        beside = ramp((1 - np.abs(offset)) * (spot.width_mm / 2), 2.5)
        surface = np.maximum(surface, _band(view, top, 1.0) * beside)
        shadow = np.maximum(shadow, ramp(view.z - top - 1, 0.5) * beside)
    return surface, shadow


def render_masks(scene: Scene, size: int, frame: int) -> dict[str, np.ndarray]:
    """Exact masks of one frame of the video that ``scanner.render_video`` draws, at the resolution of the image.

    The pleural line is unhealthy where it is thick (2 mm or more), indented, broken, or above a consolidation; the
    region below it is unhealthy where the line is, or where a B-line starts.

    Returns:
        bool (size, size) by name: one mask for each of eight kinds, empty where there is nothing.
    """
    grid = make_grid(scene, size)
    convert = ScanConverter(scene, grid, size)
    view = view_scene(scene, grid.x, grid.z, frame / scene.device.fps)
    beams, inside, line = b_lines(scene, view)[0], consolidations(scene, view)[0], pleural_line(scene, view)
    under = view.z - view.lung - scene.findings.thickness_mm
    region = (under > 0) & (under < SUB_PLEURAL_MM)
    sick = np.maximum.reduce([breaks(scene, view), indents(scene, view), inside.max(axis=0, keepdims=True)])
    sick_line = (sick >= 0.5) | (scene.findings.thickness_mm >= 2)
    sick_region = sick_line | (beams.max(axis=0, keepdims=True) >= 0.5)
    maps = {
        "a_line": reduce(np.maximum, (a * (1 - beams) for a in a_lines(scene, view)), empty_map(view)),
        "b_line": beams,
        "pleural_line_healthy": line * ~sick_line,
        "pleural_line_unhealthy": line * sick_line,
        "sub_pleural_healthy": region * ~sick_region,
        "sub_pleural_unhealthy": region * sick_region,
        "consolidation": inside,
        "effusion": effusion(scene, view),
    }
    lit = ribs(scene, view)[1] < 0.5
    return {name: convert(np.float32(255) * part * lit) > 127 for name, part in maps.items()}
