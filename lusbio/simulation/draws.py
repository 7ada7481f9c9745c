"""How the findings of one video are drawn, given its patient and its grade."""

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from lusbio.simulation import constants as c
from lusbio.simulation.patients import Findings, Patient, sized_choice


def draw_lung(patient: Patient, zone: str, grade: int, extent: float, must: frozenset, rng: Generator) -> Findings:
    """Findings of pleura and lung that give the wished grade.

    Args:
        patient: Whose traits allow which findings.
        zone: One of ``constants.ZONES``.
        grade: Wished grade, 0 to 3.
        extent: Position within the grade, 0 to 1: more and larger findings towards 1.
        must: Traits this video has to show.
        rng: Source of randomness.

    Returns:
        Findings without A-lines and with a pleural depth still to be set (0).
    """

    def shows(trait: str, chance: float) -> bool:
        return trait in patient.traits and (trait in must or rng.random() < chance)

    def beside(chance: float) -> bool:
        return chance > 0 and "irregular" in patient.traits and rng.random() < chance

    def draw_sized() -> tuple[float, ...]:
        return _draw_widths(int(np.clip(np.ceil(4 * extent + rng.normal(0, 0.5)), 1, 4)), rng)

    marks = _draw_qualifiers(patient.traits, grade, extent, must, rng)
    lung = _draw_b_lines(patient, grade, extent, marks, must, rng)
    indent = "indent" in marks or beside(c.INDENT_BESIDE[grade])
    broken = "break" in marks or beside(c.BREAK_BESIDE[grade])
    if "irregular" in must and grade and not indent and not broken:
        indent, broken = grade == 1, grade > 1
    consolidations = _draw_consolidations(marks, extent, rng)
    thick, effusion = shows("thick", c.THICK[grade]), 0.0
    if shows("effusion", c.EFFUSION_BY_ZONE[zone[1]]):
        effusion = rng.uniform(*c.EFFUSION_MM[rng.random() >= c.EFFUSION_SMALL])
    option = int(np.clip(round(0.3 + 0.5 * (grade + extent) + rng.normal(0, 0.6)), 1, 3)) if thick else 0
    thickness = rng.uniform(*c.THICKNESS_MM[option])
    below = lung.has_b_lines and rng.random() < c.RATES[patient.disease].sub_pleural
    origin = rng.uniform(*c.B_ORIGIN_MM) if below else 0.0
    indents, breaks = (draw_sized() if irregular else () for irregular in (indent, broken))
    lung = replace(lung, thickness_mm=thickness, b_origin_mm=origin, effusion_mm=effusion)
    return replace(lung, indents_mm=indents, breaks_mm=breaks, consolidations_mm=consolidations)


def _draw_qualifiers(traits: frozenset, grade: int, extent: float, must: frozenset, rng: Generator) -> set[str]:
    """What makes the video this grade: at least one of what the patient can have."""
    if grade == 0:
        return set()
    chances = {mark: p for mark, trait, p in c.QUALIFIERS[grade] if trait in traits}
    if not chances:  # consolidation alone, and a latent below its grades: a few B-lines stand in
        return {"separate"} if grade == 1 else {"coalescent"}
    marks: set[str] = set()
    while not marks:
        marks = {mark for mark, p in chances.items() if rng.random() < p * (0.6 + 0.8 * extent)}
        if "consolidation" in must:
            marks |= {mark for mark in chances if "consolidation" in mark}
    return marks


def _draw_b_lines(patient: Patient, grade: int, extent: float, marks: set, must: frozenset, rng: Generator) -> Findings:
    """The beginning of a video's findings: separate or merged B-lines, or white lung."""
    if "white" in marks:
        return Findings(0.0, white=True)
    if "coalescent" in marks:
        if rng.random() < 0.15:
            return Findings(0.0, b_lines=int(rng.integers(7, 10)))
        bands = rng.uniform(5.5, 7 + 5 * extent, size=1 + (rng.random() < extent / 2))
        return Findings(0.0, b_lines=int(rng.integers(0, 4)), coalescent_mm=tuple(bands.tolist()))
    if "separate" in marks:
        return Findings(0.0, b_lines=int(np.clip(round(1.6 + 3.4 * extent + rng.normal(0, 0.4)), 3, 6)))
    allowed = "b_lines" in patient.traits or patient.a_profile_only
    chance = (0.4 + 1.6 * extent) * c.RATES[patient.disease].isolated_b if grade == 0 else c.B_BESIDE[grade]
    if "b_lines" in must or (allowed and rng.random() < chance):
        return Findings(0.0, b_lines=int(rng.integers(1, 3 if grade < 2 else 6)))
    return Findings(0.0)


def _draw_consolidations(marks: set, extent: float, rng: Generator) -> tuple[float, ...]:
    if "large consolidation" in marks:
        return _draw_widths(4, rng)
    if "small consolidation" in marks:
        return _draw_widths(int(np.clip(1 + 3 * extent + rng.normal(0, 0.4), 1, 3.9)), rng)
    return ()


def _draw_widths(option: int, rng: Generator) -> tuple[float, ...]:
    """Widths that amount to a size option, 1 to 4."""
    count = {1: (1, 3), 2: (3, 6)}.get(option)
    widths = rng.uniform(*c.CLASS_WIDTHS_MM[option], size=rng.integers(*count) if count else 1).tolist()
    if option > 2 and rng.random() < c.SMALL_BESIDE_LARGE:
        widths.append(rng.uniform(*c.CLASS_WIDTHS_MM[1]))
    return tuple(widths)


def draw_geometry(lung: Findings, patient: Patient, grade: int, extent: float, rng: Generator) -> Findings:
    """Add A-lines and the depth of the pleura so that all that is labelled fits into the image.

    d <= D - 8 mm (less fluid and the thickness of the line); 2d < D with A-lines; 3d < D with stacked
    ones; everything side by side.

    Args:
        lung: What ``draw_lung`` returned.
        patient: Whose chest wall and scanner.
        grade: True grade, which decides how likely A-lines are.
        extent: Position within the grade; A-lines are bolder towards 0.
        rng: Source of randomness.
    """
    depth, width = patient.device.depth_mm, patient.device.width_mm - 2.0
    lung = _shrink_to_fit(lung, width)
    a_lines, stacked, a_width = _draw_a_lines(lung, grade, extent, width - lung.lateral_mm - c.GAP_MM, rng)
    deepest = depth - c.BOTTOM_MM - 1.1 * lung.effusion_mm - lung.thickness_mm
    if a_lines:
        deepest = min(deepest, _deepest_repeated(depth, 1 + stacked))
    wall = _draw_wall(patient.wall_mm, deepest, rng)
    copies = int(a_lines > 0)
    if stacked:
        most = max(n for n in range(1, 5) if n == 2 or wall <= _deepest_repeated(depth, n))
        copies = int(min(1 + rng.integers(1, 4), most))
    return replace(lung, pleura_mm=wall, a_lines=a_lines, a_line_copies=copies, a_line_width_mm=a_width)


def _deepest_repeated(depth: float, copies: int) -> float:
    """How deep a pleural line may lie for so many repetitions to stay in the image while it moves and slopes."""
    return (depth - 1.5) / (copies + 1) - 1.5


def _draw_a_lines(lung: Findings, grade: int, extent: float, room: float, rng: Generator) -> tuple[int, bool, float]:
    """Strength, whether stacked, and width; none where white lung, fluid or lack of room forbid them."""
    if lung.white or lung.effusion_mm or room < 7 or rng.random() >= c.A_LINES[grade]:
        return 0, False, 0.0
    strength = 1 + int(rng.random() < c.A_LINES_BOLD[grade] + 0.25 - 0.5 * extent)
    stacked = bool(rng.random() < c.A_LINES_STACKED[strength])
    wide = room > 22 and rng.random() < c.A_LINES_WIDE
    return strength, stacked, rng.uniform(*((21.5, min(room, 40)) if wide else (6.5, min(room, 18))))


def _shrink_to_fit(lung: Findings, width: float) -> Findings:
    """Shrink findings within their size options until they fit side by side; else drop the smallest."""
    keys = ("indents_mm", "breaks_mm", "consolidations_mm")
    if lung.lateral_mm > width:
        least = {key: tuple(c.CLASS_WIDTHS_MM[sized_choice((w,))][0] for w in getattr(lung, key)) for key in keys}
        lung = replace(lung, **least, coalescent_mm=tuple(5.5 for _ in lung.coalescent_mm[:1]))
    while lung.lateral_mm > width:
        key = max(keys, key=lambda key: len(getattr(lung, key)))
        lung = replace(lung, **{key: tuple(sorted(getattr(lung, key))[1:])})
    return lung


def _draw_wall(median: float, deepest: float, rng: Generator) -> float:
    """Skin to pleura: lognormal between the thinnest wall and the deepest that leaves enough lung to be seen."""
    low, spread = c.THINNEST_WALL_MM, c.WALL_SPREAD_VIDEOS
    edges = ndtr(np.log(np.array([low, deepest]) / median) / spread)
    share = np.clip(rng.uniform(*edges), 1e-12, 1 - 1e-12)
    return float(np.clip(median * np.exp(spread * ndtri(share)), low, deepest))
