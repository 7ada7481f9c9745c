"""Places findings on the pleura so that what is labelled can be seen in every frame."""

import numpy as np
from numpy.random import Generator

from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import Motion, Scene, Spot, visible_width
from lusbio.simulation.patients import Device, Findings, Patient


def build_scene(findings: Findings, patient: Patient, zone: str, rng: Generator) -> Scene:
    """Place findings on the pleura so that all of them stay in the image while the lung slides.

    Args:
        findings: What has to be shown.
        patient: Whose body and scanner.
        zone: One of ``constants.ZONES``: basal lungs slide more.
        rng: Source of randomness.
    """
    device = patient.device
    width = visible_width(device, findings)
    free = width - 2 * c.EDGE_MM - findings.lateral_mm
    ribs, rib_room = _draw_ribs(device.probe, width, free, rng)
    free -= 2 * rib_room
    moves = findings.blocks_mm or findings.b_lines
    motion = _draw_motion(patient, zone, free / (4 if findings.a_lines and moves else 2) if moves else np.inf, rng)
    half = width / 2 - c.EDGE_MM - rib_room
    spots = {"ribs": ribs, **_place_blocks(findings, device, half, motion.reach_mm, rng)}
    taken = [*spots["consolidations"], *spots["bands"]]
    spots["b_lines"] = _place_b_lines(findings.b_lines, max(half - motion.reach_mm, 4.0), taken, device.probe, rng)
    skin = rng.uniform(1.0, 2.0)
    wall = (skin, findings.pleura_mm - min(rng.uniform(5, 15), findings.pleura_mm - skin - 2), findings.pleura_mm)
    tilt = float(np.clip(rng.normal(0, 0.02), -0.05, 0.05)) * (0.3 if findings.a_lines else 1.0)
    bend = _draw_bend(findings, device, rng)
    comets = 0 if findings.white else rng.poisson(c.COMETS)
    spots["comets"] = tuple(
        Spot(rng.uniform(-half, half), rng.uniform(0.4, 0.8), rng.uniform(4, 9)) for _ in range(comets)
    )
    return Scene(findings, device, motion, wall, tilt, bend, seed=tuple(rng.integers(0, 2**32, 4).tolist()), **spots)


def _place_blocks(findings: Findings, device: Device, half: float, reach: float, rng: Generator) -> dict:
    """Places of everything that must not overlap, by their names in a scene, and of the A-line window."""
    f = findings
    places = _pack(f.blocks_mm, f.a_line_width_mm, half, reach, rng)
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
    return spots | {"a_window": Spot(places.pop(), f.a_line_width_mm) if f.a_lines else None}


def _draw_bend(findings: Findings, device: Device, rng: Generator) -> float:
    """A linear probe sees the pleura nearly straight; a convex one sees a straight pleura bend away from it."""
    if device.probe == "linear":
        return float(np.clip(rng.normal(0, 0.5), -1, 0.3 if findings.a_lines else 1))
    half = device.width_mm / device.radius_mm / 2
    bend = rng.uniform(0, 0.8) * (device.radius_mm + findings.pleura_mm) * (1 / np.cos(half) - 1)
    # Repetitions have to stay above the bottom, also where the pleura bends away.
    slack = device.depth_mm / (findings.a_line_copies + 1) - findings.pleura_mm - 1.5
    return float(np.clip(bend, 0, max(slack, 0)))


def _draw_ribs(probe: str, width: float, free: float, rng: Generator) -> tuple[tuple[Spot, ...], float]:
    """Now and then a rib that reaches into one edge or both, where the findings leave room."""
    (least, most), (nearest, farthest) = c.RIB_ROOM[probe], c.RIB_REACH_MM[probe]
    room = min(most * free, farthest)
    if room < 3 or rng.random() > c.RIBS[probe]:
        return (), 0.0
    reach = rng.uniform(max(nearest, min(least * free, farthest)), room)
    sides = c.RIB_SIDES[probe][rng.integers(len(c.RIB_SIDES[probe]))]
    middle = width / 2 + c.RIB_WIDTH_MM / 2 - reach  # outside the image
    return tuple(Spot(side * middle, c.RIB_WIDTH_MM) for side in sides), reach


def _draw_motion(patient: Patient, zone: str, room: float, rng: Generator) -> Motion:
    lost = rng.random() < c.SLIDING_LOST
    slide = rng.uniform(*(c.SLIDE_LOST_MM if lost else c.SLIDE_BASAL_MM if zone.endswith("3") else c.SLIDE_MM))
    beat = float(np.clip(rng.uniform(*c.BEAT_MM), 0, max(room / 2, 0.0)))
    slide = float(np.clip(slide, 0, max(2 * (room - beat), 0.0)))
    drift, phase = rng.uniform(*c.DRIFT_MM), rng.uniform(0, 2 * np.pi)
    return Motion(slide, beat, drift, patient.breaths_hz, patient.beats_hz, phase)


def _pack(blocks: tuple[float, ...], window: float, half: float, reach: float, rng: Generator) -> list[float]:
    """Middles of the moving blocks, in the order given, and of the A-line window: side by side in random order."""
    widths = [*blocks, window] if window else blocks
    order = rng.permutation(len(widths))
    # A moving block keeps clear of the edges, and of the window, by as far as the lung slides.
    pads = [reach if blocks and i == len(blocks) else 0.0 for i in order]
    length = sum(widths[i] for i in order) + 2 * sum(pads) + c.GAP_MM * max(len(widths) - 1, 0)
    inner = half - (reach if blocks else 0.0)
    spare = rng.dirichlet(np.ones(len(widths) + 1)) * max(2 * inner - length, 0.0)
    places, cursor = np.zeros(len(widths)), -inner
    for i, pad, gap in zip(order, pads, spare[:-1], strict=True):
        cursor += gap + pad
        places[i] = cursor + widths[i] / 2
        cursor += widths[i] + pad + c.GAP_MM
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
