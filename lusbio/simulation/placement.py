"""Places findings on the pleura so that what is labelled can be seen in every frame."""

import numpy as np

from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import Motion, Scene, Spot, visible_width
from lusbio.simulation.draws import lateral_need_mm
from lusbio.simulation.findings import Findings
from lusbio.simulation.patients import Device, Patient


def build_scene(findings: Findings, patient: Patient, zone: str, rng: np.random.Generator) -> Scene:
    """Place findings on the pleura so that all of them stay in the image while the lung slides.

    Args:
        findings: What has to be shown.
        patient: Whose body and scanner.
        zone: One of ``constants.ZONES``: basal lungs slide more.
        rng: Source of randomness.

    Returns:
        The scene.
    """
    width = visible_width(patient.device, findings)
    free = width - 2 * c.EDGE_MM - lateral_need_mm(findings)
    ribs, rib_room = _draw_ribs(patient.device, width, free, rng)
    free -= 2 * rib_room
    blocks = [*findings.indents_mm, *findings.breaks_mm, *findings.consolidations_mm, *findings.coalescent_mm]
    movers = len(blocks) + findings.b_lines
    motion = _draw_motion(patient, zone, free / (4 if findings.a_lines and movers else 2) if movers else np.inf, rng)
    reach = motion.slide_mm / 2 + motion.beat_mm
    half = width / 2 - c.EDGE_MM - rib_room
    spots, window = _place_blocks(findings, patient.device, half, reach, rng)
    taken = [*spots["consolidations"], *spots["bands"]]
    b_lines = _place_b_lines(findings.b_lines, max(half - reach, 4.0), taken, patient.device.probe, rng)
    return Scene(
        findings=findings,
        device=patient.device,
        motion=motion,
        wall_mm=_draw_wall(findings.pleura_mm, rng),
        tilt=float(np.clip(rng.normal(0, 0.02), -0.05, 0.05)) * (0.3 if findings.a_lines else 1.0),
        bend_mm=_draw_bend(findings, patient.device, rng),
        a_window=window,
        b_lines=b_lines,
        comets=() if findings.white else _draw_comets(half, rng),
        ribs=ribs,
        seed=tuple(int(v) for v in rng.integers(0, 2**32, 4)),
        **spots,
    )


def _place_blocks(
    findings: Findings, device: Device, half: float, reach: float, rng: np.random.Generator
) -> tuple[dict[str, tuple[Spot, ...]], Spot | None]:
    """Places of everything that must not overlap, and of the A-line window."""
    kinds = {
        "indents": findings.indents_mm,
        "breaks": findings.breaks_mm,
        "consolidations": findings.consolidations_mm,
        "bands": findings.coalescent_mm,
    }
    blocks = [width for widths in kinds.values() for width in widths]
    places, window = _pack(blocks, findings.a_line_width_mm, half, reach, rng)
    left, spots = list(places), {}
    for kind, widths in kinds.items():
        row = []
        for width in widths:
            height, level = 0.0, float(rng.uniform(-1, 2))
            if kind == "indents":
                height = float(min(rng.uniform(0.8, 2.5), 0.6 * width + 0.3))
            elif kind == "consolidations":
                height = _consolidation_height(width, findings, device, rng)
                level = float(rng.uniform(*c.CONSOLIDATION_DB))
            row.append(Spot(float(left.pop(0)), width, height, level))
        spots[kind] = tuple(row)
    return spots, Spot(window, findings.a_line_width_mm) if findings.a_lines else None


def _draw_comets(half: float, rng: np.random.Generator) -> tuple[Spot, ...]:
    """Short comet tails, which are not B-lines."""
    return tuple(
        Spot(float(rng.uniform(-half, half)), float(rng.uniform(0.4, 0.8)), float(rng.uniform(4, 9)))
        for _ in range(rng.poisson(c.COMETS))
    )


def _draw_bend(findings: Findings, device: Device, rng: np.random.Generator) -> float:
    """A linear probe sees the pleura nearly straight; a convex one sees a straight pleura bend away from it."""
    if device.probe == "linear":
        return float(np.clip(rng.normal(0, 0.5), -1, 0.3 if findings.a_lines else 1))
    half = device.width_mm / device.radius_mm / 2
    bend = rng.uniform(0, 0.8) * (device.radius_mm + findings.pleura_mm) * (1 / np.cos(half) - 1)
    # Repetitions have to stay above the bottom, also where the pleura bends away.
    slack = device.depth_mm / (findings.a_line_copies + 1) - findings.pleura_mm - 1.5
    return float(np.clip(bend, 0, max(slack, 0)))


def _draw_ribs(device: Device, width: float, free: float, rng: np.random.Generator) -> tuple[tuple[Spot, ...], float]:
    """Now and then a rib that reaches into one edge or both, where the findings leave room."""
    probe = device.probe
    (least, most), (nearest, farthest) = c.RIB_ROOM[probe], c.RIB_REACH_MM[probe]
    room = min(most * free, farthest)
    if room < 3 or rng.random() > c.RIBS[probe]:
        return (), 0.0
    reach = float(rng.uniform(max(nearest, min(least * free, farthest)), room))
    sides = c.RIB_SIDES[probe][rng.integers(0, len(c.RIB_SIDES[probe]))]
    # The middle of a rib lies outside the image.
    middle = width / 2 + c.RIB_WIDTH_MM / 2 - reach
    return tuple(Spot(side * middle, c.RIB_WIDTH_MM) for side in sides), reach


def _draw_motion(patient: Patient, zone: str, room: float, rng: np.random.Generator) -> Motion:
    basal = zone.endswith("3")
    lost = rng.random() < c.SLIDING_LOST
    slide = rng.uniform(*(c.SLIDE_LOST_MM if lost else c.SLIDE_BASAL_MM if basal else c.SLIDE_MM))
    beat = float(np.clip(rng.uniform(*c.BEAT_MM), 0, max(room / 2, 0.0)))
    return Motion(
        slide_mm=float(np.clip(slide, 0, max(2 * (room - beat), 0.0))),
        beat_mm=beat,
        drift_mm=float(rng.uniform(*c.DRIFT_MM)),
        breaths_hz=patient.breaths_hz,
        beats_hz=patient.beats_hz,
        phase=float(rng.uniform(0, 2 * np.pi)),
    )


def _pack(blocks: list[float], window: float, half: float, reach: float, rng: np.random.Generator):
    """Places of the moving blocks and of the A-line window, side by side in random order.

    Returns:
        Middles of the blocks, in the order given, and the middle of the window (0 without one).
    """
    items = [*enumerate(blocks), *([(-1, window)] if window else [])]
    order = rng.permutation(len(items))
    # A moving block keeps clear of the edges, and of the window, by as far as the lung slides.
    pads = [reach if items[i][0] == -1 and blocks else 0.0 for i in order]
    length = sum(items[i][1] for i in order) + 2 * sum(pads) + c.GAP_MM * max(len(items) - 1, 0)
    inner = half - (reach if blocks else 0.0)
    spare = rng.dirichlet(np.ones(len(items) + 1)) * max(2 * inner - length, 0.0)
    places, window_x = np.zeros(len(blocks)), 0.0
    cursor = -min(inner, length / 2) if 2 * inner <= length else -inner
    for k, (i, pad) in enumerate(zip(order, pads, strict=True)):
        index, width = items[i]
        cursor += spare[k] + pad
        if index == -1:
            window_x = float(cursor + width / 2)
        else:
            places[index] = cursor + width / 2
        cursor += width + pad + c.GAP_MM
    return places, window_x


def _consolidation_height(width: float, findings: Findings, device: Device, rng: np.random.Generator) -> float:
    room = device.depth_mm - findings.pleura_mm - 1.1 * findings.effusion_mm - findings.thickness_mm - 3
    return float(min(max(rng.uniform(0.65, 0.95) * width, 2.5), room))


def _place_b_lines(
    count: int, half: float, taken: list[Spot], probe: str, rng: np.random.Generator
) -> tuple[Spot, ...]:
    """Separate B-lines at least ``B_LINE_SPACING_MM`` apart, clear of consolidations and bands.

    Where there is too little room for a random place, they stand as far apart as the room allows.
    """
    if not count:
        return ()
    spread = 1.0 if probe == "linear" else c.CONVEX_SPREAD
    grid = np.arange(-half, half, 0.1)
    for clear in (1.5, 1.1, 0.6, 0.0):
        away = [np.abs(grid - spot.x_mm) - spot.width_mm / 2 for spot in taken]
        open_ = grid[np.min(away, axis=0) > clear] if taken else grid
        if len(open_) and np.diff(_spread_out(open_, count), prepend=-np.inf).min() >= 2.0:
            break
    for _ in range(10):
        places, left = [], open_
        while len(places) < count and len(left):
            places.append(float(rng.choice(left)))
            left = left[np.abs(left - places[-1]) > spread * c.B_LINE_SPACING_MM]
        if len(places) == count:
            break
    else:
        places = _spread_out(open_, count)
    spots, places = [], sorted(places)
    for x, gap in zip(places, _gaps(places), strict=True):
        width = min(float(rng.uniform(*c.B_LINE_MM[probe])), c.B_LINE_CROWDED[probe] * gap)
        spots.append(Spot(x, width, 0.0, float(rng.uniform(*c.B_LINE_LEVELS_DB[probe]))))
    return tuple(spots)


def _gaps(places: list[float]) -> list[float]:
    """Distance of each of several sorted places to the nearest other one; infinite for a single one."""
    steps = np.diff(places, prepend=-np.inf, append=np.inf)
    return [float(v) for v in np.minimum(steps[:-1], steps[1:])]


def _spread_out(grid: np.ndarray, count: int) -> list[float]:
    """Places on a sorted grid, from left to right, with the largest least distance that still gives enough."""
    low, high = 0.0, float(np.ptp(grid)) + 1.0
    best = [float(x) for x in np.quantile(grid, np.linspace(0, 1, count))]
    for _ in range(20):
        spacing, places = (low + high) / 2, [float(grid[0])]
        for x in grid:
            if x - places[-1] >= spacing:
                places.append(float(x))
        if len(places) >= count:
            low, best = spacing, places[:count]
        else:
            high = spacing
    return best


def _draw_wall(pleura: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Lower edges of skin, fat and muscle; the muscle reaches to the pleura."""
    skin = rng.uniform(1.0, 2.0)
    muscle = min(rng.uniform(5, 15), pleura - skin - 2)
    return float(skin), float(pleura - muscle), float(pleura)
