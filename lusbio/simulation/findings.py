"""What is to be seen in one video, in millimetres, and the labels that follow from it.

Labels are read off the geometry, never the other way round: a scene is drawn from the same numbers.
"""

from dataclasses import dataclass

from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_NAMES, group_names


@dataclass(frozen=True)
class Findings:
    """The findings of a video; every length is in millimetres.

    Attributes:
        pleura_mm: Skin to pleural line.
        thickness_mm: Full width at half maximum of the pleural line.
        a_lines: 0 none, 1 weak, 2 bold.
        a_line_copies: How many repetitions of the pleural line are visible.
        a_line_width_mm: How wide they are; 0 when there are none.
        b_lines: Number of separate B-lines.
        coalescent_mm: Widths of the bands of merged B-lines.
        white: The whole field below the pleura is white.
        b_origin_mm: Where B-lines start below the pleural line; 0 is the line itself.
        indents_mm: Widths of the indents of the pleural line.
        breaks_mm: Widths of its gaps.
        consolidations_mm: Widths of the consolidations.
        effusion_mm: Thickness of the fluid between parietal and visceral line; 0 is none.
    """

    pleura_mm: float
    thickness_mm: float = 0.7
    a_lines: int = 0
    a_line_copies: int = 0
    a_line_width_mm: float = 0.0
    b_lines: int = 0
    coalescent_mm: tuple[float, ...] = ()
    white: bool = False
    b_origin_mm: float = 0.0
    indents_mm: tuple[float, ...] = ()
    breaks_mm: tuple[float, ...] = ()
    consolidations_mm: tuple[float, ...] = ()
    effusion_mm: float = 0.0

    @property
    def has_b_lines(self) -> bool:
        """Whether there is any B-line, separate, merged or white."""
        return bool(self.b_lines or self.coalescent_mm or self.white)


def choice_of(group: str, findings: Findings, depth_mm: float) -> int:
    """The option of a group that findings call for.

    Args:
        group: One of ``lusbio.vocabulary.BIOMARKER_GROUPS``.
        findings: The findings.
        depth_mm: Depth of the image.

    Returns:
        Position of the option within the group; flags ("also ...") are not options.

    Raises:
        KeyError: If there is no such group.

    Example:
        >>> choice_of("B-lines", Findings(pleura_mm=18, b_lines=5), depth_mm=50)
        2
    """
    f = findings
    choices = {
        "A-lines": f.a_lines,
        "B-lines": _b_line_choice(f),
        "B-line origin": 0 if not f.has_b_lines else 1 + (f.b_origin_mm > 0),
        "pleural thickness": sum(f.thickness_mm > edge for edge in (1.0, 3.0, 5.0)),
        "pleural location": location_choice(f.pleura_mm / depth_mm),
        "pleural indent": sized_choice(f.indents_mm),
        "pleural break": sized_choice(f.breaks_mm),
        "consolidation": sized_choice(f.consolidations_mm),
        "effusion": 0 if not f.effusion_mm else 1 + (f.effusion_mm > 5),
    }
    return choices[group]


def _b_line_choice(findings: Findings) -> int:
    if findings.white:
        return 4
    if findings.coalescent_mm or findings.b_lines > 6:
        return 3
    return 0 if not findings.b_lines else 1 + (findings.b_lines > 3)


def location_choice(share: float) -> int:
    """The third of the image that a share of its depth lies in.

    Args:
        share: Depth of the pleura over depth of the image, 0 to 1.

    Returns:
        0 top, 1 middle, 2 bottom.
    """
    return min(2, int(3 * share))


def sized_choice(widths_mm: tuple[float, ...]) -> int:
    """The size option of indents, breaks or consolidations.

    Args:
        widths_mm: Their widths, in millimetres.

    Returns:
        0 none, 1 one or two below 5 mm, 2 more of them, 3 the largest is 5 to 10 mm, 4 it is larger.
    """
    largest = max(widths_mm, default=0)
    if largest >= 5:
        return 3 + (largest > 10)
    return 0 if not widths_mm else 1 + (len(widths_mm) > 2)


def encode_choices(choices: dict[str, int], stacked: bool, wide: bool) -> dict[str, int]:
    """The 38 biomarkers from one option per group and the two flags.

    Args:
        choices: Position of the option by group, all nine groups.
        stacked: Flag "also stacked"; ignored where there are no A-lines.
        wide: Flag "also wide"; ignored where there are no A-lines.

    Returns:
        1 or 0 by biomarker name, in the order of the vocabulary.
    """
    present = {group_names(group)[choice] for group, choice in choices.items()}
    if choices["A-lines"]:
        flags = group_names("A-lines")[3:]
        present |= {flag for flag, on in zip(flags, (stacked, wide), strict=True) if on}
    return {name: int(name in present) for name in BIOMARKER_NAMES}


def biomarkers_of(findings: Findings, depth_mm: float) -> dict[str, int]:
    """The 38 biomarkers that findings amount to.

    Args:
        findings: The findings.
        depth_mm: Depth of the image.

    Returns:
        1 or 0 by biomarker name, in the order of the vocabulary.

    Example:
        >>> [name for name, bit in biomarkers_of(Findings(pleura_mm=18), 50).items() if bit][:2]
        ['a_lines_none', 'b_lines_none']
    """
    return encode_choices(choices_of(findings, depth_mm), findings.a_line_copies >= 2, findings.a_line_width_mm > 20)


def choices_of(findings: Findings, depth_mm: float) -> dict[str, int]:
    """``choice_of`` for all groups.

    Args:
        findings: The findings.
        depth_mm: Depth of the image.

    Returns:
        Position of the option by group.
    """
    return {group: choice_of(group, findings, depth_mm) for group in BIOMARKER_GROUPS}


def grade_of(findings: Findings) -> int:
    """The severity grade that findings amount to on the published scale.

    0: continuous pleural line, at most two isolated B-lines. 1: indented pleural line, or separate B-lines. 2: broken
    pleural line, merged B-lines or small consolidation (up to 10 mm). 3: white lung or larger consolidation.

    Args:
        findings: The findings.

    Returns:
        0 to 3.

    Source: Soldati et al. 2020; that two isolated B-lines may be grade 0 follows COVID-BLUES' labels.
    """
    if findings.white or max(findings.consolidations_mm, default=0) > 10:
        return 3
    if findings.breaks_mm or findings.coalescent_mm or findings.b_lines > 6 or findings.consolidations_mm:
        return 2
    return int(bool(findings.indents_mm) or findings.b_lines > 2)
