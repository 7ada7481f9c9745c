"""Places findings on the pleura so that what is labelled can be seen in every frame.

How the lung slides, where ribs lie, how the pleura slopes and bends: that is drawn first and knows nothing of the
findings, so that it cannot give them away. They are fitted into the room that it leaves.
"""

import numpy as np
from numpy.random import Generator

from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import Motion, Scene, Spot, visible_width
from lusbio.simulation.patients import SIZED, Device, Findings, Patient, narrow_findings, thin_findings


def build_scene(findings: Findings, patient: Patient, zone: str, rng: Generator) -> Scene:
    """Place findings on the pleura so that all of them stay in the image while the lung slides.

    Args:
        findings: What has to be shown; narrower and fewer, within their options, where there is little room.
        patient: Whose body and scanner.
        zone: One of ``constants.ZONES``: basal lungs slide more.
        rng: Source of randomness.
    """
    device = patient.device
    motion, reaches, bend = _draw_motion(patient, zone, rng), _draw_ribs(device, rng), _draw_bend(device, rng)
    tilt = float(np.clip(rng.normal(0, 0.02), -0.05, 0.05))
    width = visible_width(device, findings)
    findings, less = _fit_findings(findings, width - 2 * c.EDGE_MM, motion.reach_mm, reaches.sum())
    motion, reaches = motion._replace(slide_mm=less * motion.slide_mm, beat_mm=less * motion.beat_mm), less * reaches
    half, middle = (width - reaches.sum()) / 2 - c.EDGE_MM, (reaches[0] - reaches[1]) / 2
    spots = _place_blocks(findings, device, half, motion.reach_mm, tilt, rng)
    blocks = [*spots["consolidations"], *spots["bands"]]
    spots["b_lines"] = _place_b_lines(findings.b_lines, half - motion.reach_mm, blocks, device.probe, rng)
    comets = 0 if findings.white else rng.poisson(c.COMETS)
    spots["comets"] = [Spot(rng.uniform(-half, half), rng.uniform(0.4, 0.8), rng.uniform(4, 9)) for _ in range(comets)]
    spots = {kind: tuple(s._replace(x_mm=s.x_mm + middle) for s in placed) for kind, placed in spots.items()}
    spots["a_window"] = next(iter(spots["a_window"]), None)
    beside = (width + c.RIB_WIDTH_MM) / 2 - reaches  # their middles lie outside the image
    spots["ribs"] = tuple(Spot(x, c.RIB_WIDTH_MM) for x in (beside * (-1, 1))[reaches > 0].tolist())
    skin = rng.uniform(1.0, 2.0)
    wall = (skin, findings.pleura_mm - min(rng.uniform(5, 15), findings.pleura_mm - skin - 2), findings.pleura_mm)
    scene = Scene(findings, device, motion, wall, tilt, bend, seed=tuple(rng.integers(0, 2**32, 4).tolist()), **spots)
    return _keep_repetitions(scene) if findings.a_lines else scene


def _fit_findings(findings: Findings, width: float, reach: float, ribs: float) -> tuple[Findings, float]:
    """Findings of the same options that fit side by side, and the share of sliding and ribs that leaves them room.

    They are narrowed first, then also thinned out; where even that does not help (in a few videos) the rest gives.
    """
    for kept in (findings, thin_findings(findings)):
        least = narrow_findings(kept)
        if (spare := width - ribs - _least_room(least, reach)) >= 0:
            break
    share = min(max(spare, 0.0) / max(_least_room(kept, reach) - _least_room(least, reach), 1e-6), 1.0)
    keys = (*SIZED, "coalescent_mm", "a_line_width_mm")
    mean = {key: share * np.array(getattr(kept, key)) + (1 - share) * np.array(getattr(least, key)) for key in keys}
    widths = {key: tuple(value.tolist()) if value.ndim else float(value) for key, value in mean.items()}
    return kept._replace(**widths), float(np.clip(1 + spare / (ribs + 2 * reach), 0, 1))


def _least_room(findings: Findings, reach: float) -> float:
    """Width that findings take up while the lung slides; B-lines may stand where A-lines are, blocks may not."""
    blocks = sum(findings.blocks_mm) + c.GAP_MM * len(findings.blocks_mm)
    window = findings.a_line_width_mm + (2 * reach if blocks else 0.0)
    return blocks + max(window, 2 * reach + 2 * findings.b_lines if blocks or findings.b_lines else 0.0)


def _keep_repetitions(scene: Scene) -> Scene:
    """Fewer repetitions, within their option, where the bend would push them out of the image; then less bend."""
    f, window = scene.findings, scene.a_window
    sag = max(scene.bend_mm * ((2 * abs(window.x_mm) + window.width_mm) / scene.width_mm) ** 2, 1e-6)
    fitting = int(scene.device.depth_mm / (f.pleura_mm + sag + 1.5)) - 1
    copies = int(np.clip(fitting, min(f.a_line_copies, 2), f.a_line_copies))
    slack = scene.device.depth_mm / (copies + 1) - f.pleura_mm - 1.5
    return scene._replace(findings=f._replace(a_line_copies=copies), bend_mm=scene.bend_mm * min(1.0, slack / sag))


def _place_blocks(findings: Findings, device: Device, half: float, reach: float, tilt: float, rng: Generator) -> dict:
    """Places of everything that must not overlap, by their names in a scene, and of the A-line window."""
    f = findings
    places = _pack(f.blocks_mm, f.a_line_width_mm, half, reach, rng)
    if f.a_lines and tilt * places[-1] > 0:  # repetitions go where the pleura is not deeper
        places = [-x for x in places]
    room = device.depth_mm - f.pleura_mm - 1.1 * f.effusion_mm - f.thickness_mm - 3

    def place(kind: str, width: float) -> Spot:
        height, level = 0.0, rng.uniform(-1, 2)
        if kind == "indents":
            height = min(rng.uniform(0.8, 2.5), 0.6 * width + 0.3)
        elif kind == "consolidations":
            height = min(max(rng.uniform(0.65, 0.95) * width, 2.5), room)
            level = rng.uniform(*c.CONSOLIDATION_DB)
        return Spot(places.pop(0), width, height, level)

    kinds = ("indents", "breaks", "consolidations", "bands")
    blocks = (f.indents_mm, f.breaks_mm, f.consolidations_mm, f.coalescent_mm)
    spots = {kind: tuple(place(kind, w) for w in widths) for kind, widths in zip(kinds, blocks, strict=True)}
    return spots | {"a_window": [Spot(places.pop(), f.a_line_width_mm)] if f.a_lines else []}


def _draw_bend(device: Device, rng: Generator) -> float:
    """A linear probe sees the pleura nearly straight; a convex one sees a straight pleura bend away from it."""
    if device.probe == "linear":
        return float(np.clip(rng.normal(0, 0.5), -1, 1))
    half = device.width_mm / device.radius_mm / 2
    return rng.uniform(0, 0.8) * (device.radius_mm + c.WALL_MM) * float(1 / np.cos(half) - 1)


def _draw_ribs(device: Device, rng: Generator) -> np.ndarray:
    """How far ribs reach into the image at its left and right edge, in millimetres, (2,); 0 where there is none."""
    sides, there = c.RIB_SIDES[device.probe], rng.random() < c.RIBS[device.probe]
    seen = sides[rng.integers(len(sides))] if there else ()
    return device.width_mm * rng.uniform(*c.RIB_ROOM[device.probe], 2) * [side in seen for side in (-1, 1)]


def _draw_motion(patient: Patient, zone: str, rng: Generator) -> Motion:
    lost = rng.random() < c.SLIDING_LOST
    slide = rng.uniform(*(c.SLIDE_LOST_MM if lost else c.SLIDE_BASAL_MM if zone.endswith("3") else c.SLIDE_MM))
    beat, drift, phase = rng.uniform(*c.BEAT_MM), rng.uniform(*c.DRIFT_MM), rng.uniform(0, 2 * np.pi)
    return Motion(slide, beat, drift, patient.breaths_hz, patient.beats_hz, phase)


def _pack(blocks: tuple[float, ...], window: float, half: float, reach: float, rng: Generator) -> list[float]:
    """Middles of the moving blocks, in the order given, and of the A-line window: side by side in random order."""
    widths = [*blocks, window] if window else [*blocks]
    shuffled = rng.permutation(len(widths))
    for order in (shuffled, shuffled[np.argsort(shuffled < len(blocks), kind="stable")]):  # else the window first
        # What moves keeps clear of what does not, the edges and the window, by as far as the lung slides.
        fixed = np.array([True, *(order == len(blocks)), True])
        pads = np.where(fixed[:-1] != fixed[1:], reach, 0.0)
        length = sum(widths) + pads.sum() + c.GAP_MM * max(len(widths) - 1, 0)
        if length <= 2 * half:
            break
    gaps = pads + rng.dirichlet(np.ones(len(pads))) * max(2 * half - length, 0.0)
    places, sizes = np.zeros(len(widths)), np.array(widths)[order]
    places[order] = np.cumsum(gaps[:-1] + sizes + c.GAP_MM) - c.GAP_MM - sizes / 2 - half
    return places.tolist()


def _place_b_lines(count: int, half: float, taken: list[Spot], probe: str, rng: Generator) -> tuple[Spot, ...]:
    """Separate B-lines at least ``B_LINE_SPACING_MM`` apart, clear of consolidations and bands.

    Where there is too little room for a random place, they stand as far apart as the room allows.
    """
    if not count:
        return ()
    spacing = c.B_LINE_SPACING_MM * (1.0 if probe == "linear" else c.CONVEX_SPREAD)
    grid = np.arange(-half, half, 0.1)
    away = np.min([np.full_like(grid, np.inf), *(np.abs(grid - s.x_mm) - s.width_mm / 2 for s in taken)], axis=0)
    for clear in (1.5, 1.1, 0.6, 0.0):
        open_ = grid[away > clear]
        if len(open_) and np.diff(_spread_out(open_, count), prepend=-np.inf).min() >= 2.0:
            break
    for _ in range(10):
        places, left = [], open_
        while len(places) < count and len(left):
            places.append(float(rng.choice(left)))
            left = left[np.abs(left - places[-1]) > spacing]
        if len(places) == count:
            break
    else:
        places = _spread_out(open_, count)
    places = sorted(places)
    steps = np.diff(places, prepend=-np.inf, append=np.inf)
    widths = c.B_LINE_CROWDED[probe] * np.minimum(steps[:-1], steps[1:])
    return tuple(
        Spot(x, min(rng.uniform(*c.B_LINE_MM[probe]), most), 0.0, rng.uniform(*c.B_LINE_LEVELS_DB[probe]))
        for x, most in zip(places, widths.tolist(), strict=True)
    )


def _spread_out(grid: np.ndarray, count: int) -> list[float]:
    """Places on a sorted grid, from left to right, with the largest least distance that still gives enough."""
    low, high = 0.0, float(np.ptp(grid)) + 1.0
    best = np.quantile(grid, np.linspace(0, 1, count)).tolist()
    for _ in range(20):
        spacing, places = (low + high) / 2, [-np.inf]
        for x in grid.tolist():
            if x - places[-1] >= spacing:
                places.append(x)
        if len(places) > count:
            low, best = spacing, places[1 : count + 1]
        else:
            high = spacing
    return best
