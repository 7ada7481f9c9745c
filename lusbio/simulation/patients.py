"""The records of the simulator, what is to be seen in a video, a scanner, a person, and the labels that follow.

Labels are read off the geometry, never the other way round: a scene is drawn from the same numbers.
"""

from collections import namedtuple

import numpy as np

from lusbio.simulation import constants as c
from lusbio.vocabulary import BIOMARKER_NAMES, group_names

_FINDINGS = (
    "pleura_mm thickness_mm a_lines a_line_copies a_line_width_mm b_lines coalescent_mm white b_origin_mm"
    " indents_mm breaks_mm consolidations_mm effusion_mm"
)


class Findings(namedtuple("Findings", _FINDINGS, defaults=(0.7, 0, 0, 0.0, 0, (), False, 0.0, (), (), (), 0.0))):
    """The findings of a video; every length is in millimetres. What is not said is not there.

    Attributes:
        pleura_mm: Skin to pleural line.
        thickness_mm: Full width at half maximum of the pleural line; 0.7 is ordinary.
        a_lines: 0 none, 1 weak, 2 bold.
        a_line_copies: How many repetitions of the pleural line are visible.
        a_line_width_mm: How wide they are; 0 when there are none.
        b_lines: Number of separate B-lines.
        coalescent_mm: Widths of the bands of merged B-lines, a tuple, as all widths.
        white: The whole field below the pleura is white.
        b_origin_mm: Where B-lines start below the pleural line; 0 is the line itself.
        indents_mm: Widths of the indents of the pleural line.
        breaks_mm: Widths of its gaps.
        consolidations_mm: Widths of the consolidations.
        effusion_mm: Thickness of the fluid between parietal and visceral line; 0 is none.
    """

    @property
    def has_b_lines(self) -> bool:
        """Whether there is any B-line, separate, merged or white."""
        return bool(self.b_lines or self.coalescent_mm or self.white)

    @property
    def a_line_flags(self) -> tuple[bool, bool]:
        """Whether A-lines are also stacked (two copies or more), and also wide (over 20 mm)."""
        return self.a_line_copies >= 2, self.a_line_width_mm > 20

    @property
    def blocks_mm(self) -> tuple[float, ...]:
        """Widths of what slides with the lung and must not overlap: indents, breaks, consolidations, merged B-lines."""
        return self.indents_mm + self.breaks_mm + self.consolidations_mm + self.coalescent_mm

    @property
    def lateral_mm(self) -> float:
        """How much pleura the findings take side by side: widths and gaps of whatever must not overlap."""
        widths = self.blocks_mm + ((self.a_line_width_mm,) if self.a_lines else ())
        return sum(widths) + c.GAP_MM * (len(widths) + 1) + 1.6 * self.b_lines


def choices_of(findings: Findings, depth_mm: float) -> dict[str, int]:
    """The option of every group that findings call for, in an image of some depth.

    Returns:
        Position of the option by group; flags ("also ...") are not options.

    Example:
        >>> choices_of(Findings(pleura_mm=18, b_lines=5), depth_mm=50)["B-lines"]
        2
    """
    f = findings
    many = f.coalescent_mm or f.b_lines > 6
    return {
        "A-lines": f.a_lines,
        "B-lines": 4 if f.white else 3 if many else (f.b_lines > 0) + (f.b_lines > 3),
        "B-line origin": 1 + (f.b_origin_mm > 0) if f.has_b_lines else 0,
        "pleural thickness": sum(f.thickness_mm > edge for edge in (1.0, 3.0, 5.0)),
        "pleural location": location_choice(f.pleura_mm / depth_mm),
        "pleural indent": sized_choice(f.indents_mm),
        "pleural break": sized_choice(f.breaks_mm),
        "consolidation": sized_choice(f.consolidations_mm),
        "effusion": (f.effusion_mm > 0) + (f.effusion_mm > 5),
    }


def location_choice(share: float) -> int:
    """The third of the image, 0 top to 2 bottom, that a share of its depth (0 to 1) lies in."""
    return min(2, int(3 * share))


def sized_choice(widths_mm: tuple[float, ...]) -> int:
    """The size option of indents, breaks or consolidations.

    Returns:
        0 none, 1 one or two below 5 mm, 2 more of them, 3 the largest is 5 to 10 mm, 4 it is larger.
    """
    largest = max(widths_mm, default=0)
    return 3 + (largest > 10) if largest >= 5 else (len(widths_mm) > 0) + (len(widths_mm) > 2)


def encode_choices(choices: dict[str, int], a_line_flags: tuple[bool, bool]) -> dict[str, int]:
    """The 38 biomarkers from one option per group and the flags "also stacked" and "also wide".

    Args:
        choices: Position of the option by group, all nine groups.
        a_line_flags: Ignored where there are no A-lines.

    Returns:
        1 or 0 by biomarker name, in the order of the vocabulary.
    """
    present = {group_names(group)[choice] for group, choice in choices.items()}
    if choices["A-lines"]:
        present |= {flag for flag, on in zip(group_names("A-lines")[3:], a_line_flags, strict=True) if on}
    return {name: int(name in present) for name in BIOMARKER_NAMES}


def biomarkers_of(findings: Findings, depth_mm: float) -> dict[str, int]:
    """The 38 biomarkers that findings amount to, in an image of some depth.

    Returns:
        1 or 0 by biomarker name, in the order of the vocabulary.

    Example:
        >>> [name for name, bit in biomarkers_of(Findings(pleura_mm=18), 50).items() if bit][:2]
        ['a_lines_none', 'b_lines_none']
    """
    return encode_choices(choices_of(findings, depth_mm), findings.a_line_flags)


def grade_of(findings: Findings) -> int:
    """The severity grade, 0 to 3, that findings amount to on the published scale.

    0: continuous pleural line, at most two isolated B-lines. 1: indented pleural line, or separate B-lines. 2: broken
    pleural line, merged B-lines or small consolidation (up to 10 mm). 3: white lung or larger consolidation.

    Source: Soldati et al. 2020; that two isolated B-lines may be grade 0 follows COVID-BLUES' labels.
    """
    if findings.white or max(findings.consolidations_mm, default=0) > 10:
        return 3
    if findings.breaks_mm or findings.coalescent_mm or findings.b_lines > 6 or findings.consolidations_mm:
        return 2
    return int(bool(findings.indents_mm) or findings.b_lines > 2)


SIZED = ("indents_mm", "breaks_mm", "consolidations_mm")
"""Findings whose option follows from number and widths, see ``sized_choice``."""


def narrow_findings(findings: Findings) -> Findings:
    """The narrowest findings of the same options."""
    f = findings
    sized = {key: tuple(c.CLASS_WIDTHS_MM[sized_choice((w,))][0] for w in getattr(f, key)) for key in SIZED}
    window = min(f.a_line_width_mm, c.NARROWEST_WINDOW_MM[f.a_line_width_mm > 20])
    return f._replace(**sized, coalescent_mm=(c.NARROWEST_BAND_MM,) * len(f.coalescent_mm), a_line_width_mm=window)


def thin_findings(findings: Findings) -> Findings:
    """The fewest findings of the same options: the widest of each kind, or the three widest of many."""
    kinds = {key: getattr(findings, key) for key in SIZED}
    fewest = {key: tuple(sorted(w)[::-1][: 3 if sized_choice(w) == 2 else 1]) for key, w in kinds.items()}
    return findings._replace(**fewest, coalescent_mm=findings.coalescent_mm[:1])


Device = namedtuple(
    "Device",
    "probe depth_mm width_mm radius_mm frequency_mhz haze_db fade_db"
    " fps dynamic_range_db gain_db tgc_db persistence smoothing_px noise_db",
    defaults=(30.0, 62.0, 0.0, (0.0, 0.0, 0.0), 0.1, 0.9, -28.0),
)
"""A scanner and its settings, the same for all videos of a patient; the defaults are ordinary.

Attributes:
    probe: ``"linear"`` or ``"convex"``.
    depth_mm: Depth of the image.
    width_mm: Width of the image (linear), or of the arc at the skin (convex).
    radius_mm: Radius of a convex probe; 0 for a linear one.
    frequency_mhz: Centre frequency.
    haze_db: Lung just below the pleural line, in decibels about muscle.
    fade_db: How much weaker it is at the bottom.
    fps: Frames per second.
    dynamic_range_db: Decibels between black and white.
    gain_db: Overall gain error.
    tgc_db: Gain error at the skin, at mid-depth and at the bottom.
    persistence: Share of the previous frame in the next, 0 to 0.3.
    smoothing_px: SD of the scanner's own smoothing of the image, in pixels of the grid.
    noise_db: Electronic noise at the bottom of the image, against muscle.
"""


Patient = namedtuple(
    "Patient", "index disease traits a_profile_only aeration_loss sf_value wall_mm breaths_hz beats_hz device"
)
"""One simulated person.

Attributes:
    index: 1-based.
    disease: One of the classes of the task.
    traits: What the patient has in some video: ``"b_lines"``, ``"irregular"`` (pleura), ``"thick"`` (pleura),
        ``"consolidation"``, ``"effusion"``.
    a_profile_only: True when nothing but an A-profile is to be seen.
    aeration_loss: The latent behind severity and S/F ratio, in grades.
    sf_value: S/F ratio.
    wall_mm: Typical distance from skin to pleura.
    breaths_hz: Respiration rate.
    beats_hz: Heart rate.
    device: The scanner.
"""


class Recording(namedtuple("Recording", "patient index zone severity findings seed")):
    """One simulated video, before it is drawn.

    Attributes:
        patient: Whose.
        index: 1-based, within the patient.
        zone: One of ``constants.ZONES``.
        severity: True severity on the continuous scale, -0.5 to 3.5 grades; rounded, it is the grade of the findings.
        findings: What is to be seen.
        seed: Of the cohort.
    """

    @property
    def video_id(self) -> str:
        """Name of the video."""
        return f"{self.patient_id}_v{self.index:02d}"

    @property
    def patient_id(self) -> str:
        """Name of the patient."""
        return f"p{self.patient.index:04d}"

    def generator(self, purpose: int) -> np.random.Generator:
        """A random generator that depends on nothing but cohort seed, patient, video and purpose.

        Args:
            purpose: A small number: 0 findings, 1 trainee, 2 specialist, 3 placement, 4 pixels.
        """
        return video_generator(self.seed, self.patient.index, self.index, purpose)


def video_generator(seed: int, patient: int, video: int, purpose: int) -> np.random.Generator:
    """A random generator that depends on nothing but its arguments.

    Args:
        seed: Of the cohort.
        patient: 1-based.
        video: 1-based; 0 for draws that belong to the patient, and patient 0 for the cohort's.
        purpose: Which of the video's independent streams.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, patient, video], spawn_key=(purpose,)))
