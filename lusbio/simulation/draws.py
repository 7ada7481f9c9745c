"""How the findings of one video are drawn, given its patient and its grade."""

from dataclasses import replace

import numpy as np
from scipy.special import ndtr, ndtri

from lusbio.simulation import constants as c
from lusbio.simulation.findings import Findings
from lusbio.simulation.patients import Patient


def draw_lung(
    patient: Patient, zone: str, grade: int, extent: float, must: frozenset, rng: np.random.Generator
) -> Findings:
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
    traits = patient.traits
    marks = _draw_qualifiers(traits, grade, extent, must, rng)
    b_lines, coalescent = _draw_b_lines(patient, grade, extent, marks, must, rng)
    indent = "indent" in marks or (grade >= 2 and "irregular" in traits and rng.random() < c.INDENT_BESIDE[grade])
    broken = "break" in marks or (grade == 3 and "irregular" in traits and rng.random() < c.BREAK_BESIDE[grade])
    if "irregular" in must and grade and not indent and not broken:
        indent, broken = grade == 1, grade > 1
    size = 4 * extent
    consolidations = ()
    if "large consolidation" in marks:
        consolidations = _draw_widths(4, rng)
    elif "small consolidation" in marks:
        consolidations = _draw_widths(int(np.clip(1 + 3 * extent + rng.normal(0, 0.4), 1, 3.9)), rng)
    thick = "thick" in traits and ("thick" in must or rng.random() < c.THICK[grade])
    effusion = 0.0
    if "effusion" in traits and ("effusion" in must or rng.random() < c.EFFUSION_BY_ZONE[zone[1]]):
        effusion = rng.uniform(*c.EFFUSION_MM[rng.random() >= c.EFFUSION_SMALL])
    any_b = bool(b_lines or coalescent or "white" in marks)
    return Findings(
        pleura_mm=0.0,
        thickness_mm=_draw_thickness(thick, grade + extent, rng),
        b_lines=b_lines,
        coalescent_mm=coalescent,
        white="white" in marks,
        b_origin_mm=float(rng.uniform(*c.B_ORIGIN_MM))
        if any_b and rng.random() < c.SUB_PLEURAL_ORIGIN[patient.disease]
        else 0.0,
        indents_mm=_draw_widths(_draw_size(size, rng), rng) if indent else (),
        breaks_mm=_draw_widths(_draw_size(size, rng), rng) if broken else (),
        consolidations_mm=consolidations,
        effusion_mm=float(effusion),
    )


def _draw_qualifiers(
    traits: frozenset, grade: int, extent: float, must: frozenset, rng: np.random.Generator
) -> set[str]:
    """What makes the video this grade: at least one of what the patient can have."""
    if grade == 0:
        return set()
    needs = {
        "separate": "b_lines",
        "coalescent": "b_lines",
        "white": "b_lines",
        "indent": "irregular",
        "break": "irregular",
        "small consolidation": "consolidation",
        "large consolidation": "consolidation",
    }
    chances = {mark: p for mark, p in c.QUALIFIERS[grade].items() if needs[mark] in traits}
    if not chances:  # consolidation alone, and a latent below its grades: a few B-lines stand in
        return {"separate"} if grade == 1 else {"coalescent"}
    marks: set[str] = set()
    while not marks:
        marks = {mark for mark, p in chances.items() if rng.random() < p * (0.6 + 0.8 * extent)}
        if "consolidation" in must:
            marks |= {mark for mark in chances if "consolidation" in mark}
    return marks


def _draw_b_lines(
    patient: Patient, grade: int, extent: float, marks: set, must: frozenset, rng: np.random.Generator
) -> tuple[int, tuple[float, ...]]:
    """Number of separate B-lines and widths of merged ones."""
    if "white" in marks:
        return 0, ()
    if "coalescent" in marks:
        if rng.random() < 0.15:
            return int(rng.integers(7, 10)), ()
        bands = tuple(float(w) for w in rng.uniform(5.5, 7 + 5 * extent, size=1 + (rng.random() < extent / 2)))
        return int(rng.integers(0, 4)), bands
    if "separate" in marks:
        return int(np.clip(round(1.6 + 3.4 * extent + rng.normal(0, 0.4)), 3, 6)), ()
    allowed = "b_lines" in patient.traits or patient.a_profile_only
    chance = (0.4 + 1.6 * extent) * c.RATES[patient.disease].isolated_b if grade == 0 else c.B_BESIDE[grade]
    if "b_lines" in must or (allowed and rng.random() < chance):
        return int(rng.integers(1, 3 if grade < 2 else 6)), ()
    return 0, ()


def _draw_size(size: float, rng: np.random.Generator) -> int:
    """A size option, 1 to 4, larger towards the end of the grade."""
    return int(np.clip(np.ceil(size + rng.normal(0, 0.5)), 1, 4))


def _draw_widths(option: int, rng: np.random.Generator) -> tuple[float, ...]:
    low, high = c.CLASS_WIDTHS_MM[option]
    count = int(rng.integers(3, 6)) if option == 2 else int(rng.integers(1, 3)) if option == 1 else 1
    widths = [float(rng.uniform(low, high)) for _ in range(count)]
    if option > 2 and rng.random() < c.SMALL_BESIDE_LARGE:
        widths.append(float(rng.uniform(*c.CLASS_WIDTHS_MM[1])))
    return tuple(widths)


def _draw_thickness(thick: bool, severity: float, rng: np.random.Generator) -> float:
    if not thick:
        return float(rng.uniform(*c.THICKNESS_MM[0]))
    option = int(np.clip(round(0.3 + 0.5 * severity + rng.normal(0, 0.6)), 1, 3))
    return float(rng.uniform(*c.THICKNESS_MM[option]))


def lateral_need_mm(findings: Findings) -> float:
    """How much pleura the findings take side by side.

    Args:
        findings: The findings.

    Returns:
        Sum of widths and gaps of whatever must not overlap, in millimetres.
    """
    blocks = [*findings.indents_mm, *findings.breaks_mm, *findings.consolidations_mm, *findings.coalescent_mm]
    if findings.a_lines:
        blocks.append(findings.a_line_width_mm)
    return sum(blocks) + c.GAP_MM * (len(blocks) + 1) + 1.6 * findings.b_lines


def draw_geometry(lung: Findings, patient: Patient, grade: int, extent: float, rng: np.random.Generator) -> Findings:
    """Add A-lines and the depth of the pleura so that all that is labelled fits into the image.

    d <= D - 8 mm (less fluid and the thickness of the line); 2d < D with A-lines; 3d < D with stacked
    ones; everything side by side.

    Args:
        lung: What ``draw_lung`` returned.
        patient: Whose chest wall and scanner.
        grade: True grade, which decides how likely A-lines are.
        extent: Position within the grade; A-lines are bolder towards 0.
        rng: Source of randomness.

    Returns:
        Complete findings.
    """
    depth, width = patient.device.depth_mm, patient.device.width_mm - 2.0
    lung = _shrink_to_fit(lung, width)
    room = width - lateral_need_mm(lung) - c.GAP_MM
    a_lines, stacked, a_width = _draw_a_lines(lung, grade, extent, room, rng)
    deepest = depth - c.BOTTOM_MM - 1.1 * lung.effusion_mm - lung.thickness_mm
    if a_lines:
        deepest = min(deepest, _deepest_repeated(depth, 2 if stacked else 1))
    wall = _truncated_lognormal(patient.wall_mm, c.WALL_SPREAD_VIDEOS, c.THINNEST_WALL_MM, deepest, rng)
    copies = 0
    if a_lines:
        most = max(n for n in range(1, 5) if n == 1 + stacked or wall <= _deepest_repeated(depth, n))
        copies = int(min(1 + rng.integers(1, 4), most)) if stacked else 1
    return replace(lung, pleura_mm=wall, a_lines=a_lines, a_line_copies=copies, a_line_width_mm=a_width)


def _deepest_repeated(depth: float, copies: int) -> float:
    """How deep a pleural line may lie for so many repetitions to stay in the image while it moves and slopes."""
    return (depth - 1.5) / (copies + 1) - 1.5


def _draw_a_lines(
    lung: Findings, grade: int, extent: float, room: float, rng: np.random.Generator
) -> tuple[int, bool, float]:
    """Strength, whether stacked, and width; none where white lung, fluid or lack of room forbid them."""
    if lung.white or lung.effusion_mm or room < 7 or rng.random() >= c.A_LINES[grade]:
        return 0, False, 0.0
    strength = 1 + int(rng.random() < c.A_LINES_BOLD[grade] + 0.25 - 0.5 * extent)
    stacked = bool(rng.random() < c.A_LINES_STACKED[strength])
    if room > 22 and rng.random() < c.A_LINES_WIDE:
        return strength, stacked, float(rng.uniform(21.5, min(room, 40)))
    return strength, stacked, float(rng.uniform(6.5, min(room, 18)))


def _shrink_to_fit(lung: Findings, width: float) -> Findings:
    """Shrink findings within their size options until they fit side by side; else drop the smallest."""
    keys = ("indents_mm", "breaks_mm", "consolidations_mm")
    if lateral_need_mm(lung) > width:
        least = {key: tuple(_least_width(w) for w in getattr(lung, key)) for key in keys}
        lung = replace(lung, **least, coalescent_mm=tuple(5.5 for _ in lung.coalescent_mm[:1]))
    while lateral_need_mm(lung) > width:
        key = max(keys, key=lambda key: len(getattr(lung, key)))
        lung = replace(lung, **{key: tuple(sorted(getattr(lung, key))[1:])})
    return lung


def _least_width(width: float) -> float:
    return 10.6 if width > 10 else 5.4 if width >= 5 else 1.5


def _truncated_lognormal(median: float, spread: float, low: float, high: float, rng: np.random.Generator) -> float:
    edges = ndtr(np.log(np.array([low, high]) / median) / spread)
    share = np.clip(rng.uniform(*edges), 1e-12, 1 - 1e-12)
    return float(np.clip(median * np.exp(spread * ndtri(share)), low, high))
