"""The words of the field: 38 biomarkers, three tasks. The only place where they are spelled.

Source: Gare et al. 2022 (arXiv 2206.08398), Table 5 for the biomarkers, Section 2 for the tasks.
"""

from dataclasses import dataclass

import numpy as np

PROBES = ("linear", "convex")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Biomarker:
    """One of the 38 visual findings of a video.

    Attributes:
        index: Position in the network's output, 0 to 37.
        name: Column name in ``cohort.csv``, e.g. ``"b_lines_few"``.
        group: What is looked at, e.g. ``"B-lines"``.
        option: The option ticked within the group, e.g. ``"few (1-3)"``.
        meaning: One sentence that says when it is present.
    """

    index: int
    name: str
    group: str
    option: str
    meaning: str


_SIZED = (
    ("none", "none"),
    ("few", "< 5 mm (few)"),
    ("multiple", "< 5 mm (multiple)"),
    ("medium", "5-10 mm"),
    ("large", "> 10 mm"),
)


def _sized(group: str, prefix: str, noun: str, nouns: str) -> list[tuple[str, str, str, str]]:
    """The five size options that indents, breaks and consolidations share."""
    sentences = (
        f"No {noun} is seen.",
        f"One or two {nouns} narrower than 5 mm.",
        f"Three or more {nouns} narrower than 5 mm.",
        f"The largest {noun} is 5 to 10 mm wide.",
        f"The largest {noun} is wider than 10 mm.",
    )
    return [
        (f"{prefix}_{key}", group, option, sentence) for (key, option), sentence in zip(_SIZED, sentences, strict=True)
    ]


_ROWS = [
    ("a_lines_none", "A-lines", "none", "No repetition of the pleural line is seen below it."),
    ("a_lines_weak", "A-lines", "weak", "Faint repetitions of the pleural line."),
    ("a_lines_bold", "A-lines", "bold", "Bright repetitions of the pleural line."),
    (
        "a_lines_stacked",
        "A-lines",
        "also stacked",
        "Two or more repetitions below each other (a flag beside weak or bold).",
    ),
    ("a_lines_wide", "A-lines", "also wide (> 2 cm)", "A repetition wider than 20 mm (a flag beside weak or bold)."),
    ("b_lines_none", "B-lines", "none", "No B-line."),
    ("b_lines_few", "B-lines", "few (1-3)", "One to three separate B-lines."),
    ("b_lines_some", "B-lines", "some (4-6)", "Four to six separate B-lines."),
    ("b_lines_many", "B-lines", "many or coalescing", "More than six B-lines, or B-lines that merge."),
    (
        "b_lines_white",
        "B-lines",
        "white (no striations)",
        "The whole field below the pleura is white, without striations.",
    ),
    ("b_line_origin_na", "B-line origin", "N/A", "There is no B-line, so no origin."),
    ("b_line_origin_pleura", "B-line origin", "pleura", "B-lines start at the pleural line."),
    ("b_line_origin_sub_pleura", "B-line origin", "sub-pleura", "B-lines start below the pleural line."),
    ("pleural_thickness_1mm", "pleural thickness", "< 1 mm", "The pleural line is thinner than 1 mm: normal."),
    ("pleural_thickness_2_3mm", "pleural thickness", "2-3 mm", "The pleural line is 2 to 3 mm thick."),
    ("pleural_thickness_4_5mm", "pleural thickness", "4-5 mm", "The pleural line is 4 to 5 mm thick."),
    ("pleural_thickness_over_5mm", "pleural thickness", "> 5 mm", "The pleural line is thicker than 5 mm."),
    ("pleural_location_top", "pleural location", "top third", "The pleural line lies in the top third of the image."),
    (
        "pleural_location_middle",
        "pleural location",
        "middle third",
        "The pleural line lies in the middle third of the image.",
    ),
    (
        "pleural_location_bottom",
        "pleural location",
        "bottom third",
        "The pleural line lies in the bottom third of the image.",
    ),
    *_sized("pleural indent", "pleural_indent", "indent of the pleural line", "indents of the pleural line"),
    *_sized("pleural break", "pleural_break", "break of the pleural line", "breaks of the pleural line"),
    *_sized("consolidation", "consolidation", "consolidation", "consolidations"),
    ("effusion_none", "effusion", "none", "No fluid between the pleural layers."),
    ("effusion_small", "effusion", "< 5 mm", "A layer of fluid thinner than 5 mm."),
    ("effusion_large", "effusion", "> 5 mm", "A layer of fluid thicker than 5 mm."),
]

BIOMARKERS: tuple[Biomarker, ...] = tuple(Biomarker(i, *row) for i, row in enumerate(_ROWS))
"""The 38 biomarkers in the order of the network's output."""

BIOMARKER_NAMES: tuple[str, ...] = tuple(b.name for b in BIOMARKERS)
"""Their column names, in the same order."""

BIOMARKER_GROUPS: tuple[str, ...] = tuple(dict.fromkeys(b.group for b in BIOMARKERS))
"""The nine groups of Table 5, in order."""

BIOMARKER_FLAGS: tuple[str, ...] = ("a_lines_stacked", "a_lines_wide")
"""Biomarkers that are added to another option of their group; every other group is single-choice."""


def group_names(group: str) -> tuple[str, ...]:
    """Column names of one group's biomarkers, in order.

    Args:
        group: One of ``BIOMARKER_GROUPS``.

    Returns:
        The names, at least three.

    Raises:
        KeyError: If there is no such group.

    Example:
        >>> group_names("effusion")
        ('effusion_none', 'effusion_small', 'effusion_large')
    """
    names = tuple(b.name for b in BIOMARKERS if b.group == group)
    if not names:
        raise KeyError(f"no biomarker group {group!r}; there are {', '.join(BIOMARKER_GROUPS)}")
    return names


@dataclass(frozen=True)
class Task:
    """A clinical decision with mutually exclusive classes.

    Attributes:
        name: Column name in ``cohort.csv``.
        title: Heading in tables and figures.
        classes: Class names, in the paper's order (mild to severe where there is an order).
        level: ``"video"`` or ``"patient"``: what one label belongs to.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    level: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("lung_severity", "Lung severity", ("0", "1", "2", "3"), "video"),
        Task("sf_ratio", "S/F ratio", (">430", "275-430", "180-275", "<180"), "patient"),
        Task(
            "disease",
            "Disease",
            (
                "healthy",
                "COVID pneumonia",
                "interstitial lung disease",
                "asthma/COPD exacerbation",
                "cardiogenic pulmonary edema",
                "other lung disease",
                "other non-lung disease",
            ),
            "patient",
        ),
    )
}
"""The paper's three tasks by name."""


def title_of(task: str) -> str:
    """The heading of a task: that of ``TASKS``, or the name itself for a task of one's own.

    Args:
        task: A task's column name.

    Returns:
        The heading.

    Example:
        >>> title_of("sf_ratio"), title_of("needs_oxygen")
        ('S/F ratio', 'Needs oxygen')
    """
    return TASKS[task].title if task in TASKS else task.replace("_", " ").capitalize()


def sf_class(sf_value: float) -> str | float:
    """The S/F range that a value falls in.

    The paper's ranges share their edges; an edge belongs to the range it closes from above
    (430 is ``"275-430"``), except that 180 is ``"180-275"``.

    Args:
        sf_value: SpO2 in percent divided by the inspired oxygen fraction, e.g. 98 / 0.21 = 467;
            NaN when unknown.

    Returns:
        A class of ``TASKS["sf_ratio"]``, or NaN.

    Example:
        >>> sf_class(467.0), sf_class(430.0), sf_class(179.9)
        ('>430', '275-430', '<180')
    """
    if np.isnan(sf_value):
        return np.nan
    classes = TASKS["sf_ratio"].classes
    if sf_value > 430:
        return classes[0]
    if sf_value > 275:
        return classes[1]
    return classes[2] if sf_value >= 180 else classes[3]
