"""The words of the field and of this project: biomarkers, tasks, kinds of rows. The only place where they are spelled.

Source: Gare et al. 2022 (arXiv 2206.08398), Table 5 for the biomarkers, Section 2 for the tasks.
"""

import csv
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

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


_WORDS = Path(__file__).parent / "words"


def _read_rows(name: str) -> list[dict[str, str]]:
    with (_WORDS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_entries(name: str) -> dict[str, dict]:
    return tomllib.loads((_WORDS / name).read_text(encoding="utf-8"))


BIOMARKERS: tuple[Biomarker, ...] = tuple(Biomarker(i, **row) for i, row in enumerate(_read_rows("biomarkers.csv")))
"""The 38 biomarkers in the order of the network's output; they stand in ``words/biomarkers.csv``."""

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


PIXEL_CLASSES = ("background", "A-line", "B-line", "pleura, healthy", "pleura, unhealthy")
PIXEL_CLASSES += ("region, healthy", "region, unhealthy")
"""What a pixel shows where labels are dense, in the order of label maps; the region is what lies below the pleura."""

SPARSE_CLASSES = ("background", "A-line", "B-line", "pleura")
"""What it shows where labels are sparse."""

SPARSE_OF_DENSE = (0, 1, 2, 3, 3, 0, 0)
"""The sparse class of each dense one."""

BIOMARKER_TASK = "biomarkers"
"""What the biomarker network is trained on, where a task is named."""

SEVERITY, SF_RATIO, DISEASE = "lung_severity", "sf_ratio", "disease"
"""The paper's tasks. Severity also balances the biomarker network, and its network is the one that is pretrained."""

SPECIALIST = "specialist_lung_severity"
"""The column with the specialist's grades."""


@dataclass(frozen=True)
class Task:
    """A clinical decision with mutually exclusive classes.

    Attributes:
        name: Column name in ``cohort.csv``.
        title: Heading in tables and figures.
        classes: Class names, in the paper's order (mild to severe where there is an order).
        level: ``"video"`` or ``"patient"``: what one label belongs to.
        positive: The classes that mean yes in the yes-or-no question within the task. (Engineering choice.)
        ordered: Whether classes go from mild to severe.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    level: str
    positive: tuple[int, ...]
    ordered: bool


TASKS: dict[str, Task] = {
    name: Task(name, **words | {key: tuple(words[key]) for key in ("classes", "positive")})
    for name, words in _read_entries("tasks.toml").items()
}
"""The paper's three tasks by name; they stand in ``words/tasks.toml``."""


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
    below = sum((sf_value <= 430, sf_value <= 275, sf_value < 180))
    return TASKS[SF_RATIO].classes[below]  # the ranges are listed from the highest down


class _Kind(StrEnum):
    """What a row of a table decides from. Its value stands in files, its words and its colour in what people read.

    Attributes:
        words: In tables and figures.
        colour: The same in every figure.
        meaning: What it is.
    """

    def __new__(cls, value: str, words: str, colour: str, meaning: str) -> "_Kind":
        """A member."""
        kind = str.__new__(cls, value)
        kind._value_, kind.words, kind.colour, kind.meaning = value, words, colour, meaning
        return kind


Kind = _Kind("Kind", {row.pop("name"): tuple(row.values()) for row in _read_rows("kinds.csv")}, module=__name__)
"""All kinds, e.g. ``Kind.END_TO_END``; a new one is a line of ``words/kinds.csv``.

First come the paper's rows, then baselines, behind which no network stands or that learnt nothing, then those of real
patients, then those of the companions. Colours are apart for colour-blind eyes too (Okabe and Ito, pink and orange
darker, to be read as text; for what rests on simulated patients, Tol's muted palette); baselines are greys and browns.
"""

ON_ALL_PLACES = {Kind.ADAPTED: Kind.ADAPTED_ALL_PLACES, Kind.FROM_SIMULATED: Kind.FROM_SIMULATED_ALL_PLACES}
"""What heeds the patient's other places too, by what it rests on."""

WITH_SIGNS = {
    Kind.BIOMARKERS: Kind.SIGNS_BIOMARKERS,
    Kind.FROZEN: Kind.SIGNS_FROZEN,
    Kind.ADAPTED: Kind.SIGNS_ADAPTED,
    Kind.MIXED: Kind.SIGNS_MIXED,
}
"""Biomarkers together with measured signs, by the biomarkers."""


def kind_words(name: str) -> str:
    """A kind of row in words; a name that is none, without its underscores."""
    return next((kind.words for kind in Kind if kind == name), name.replace("_", " "))


def kind_colour(name: str) -> str:
    """The colour of a kind of row; grey for a name that is none."""
    return next((kind.colour for kind in Kind if kind == name), Kind.MAJORITY.colour)


@dataclass(frozen=True)
class Artefact:
    """What a notebook publishes under a file name.

    Attributes:
        title: Heading of the table.
        note: What always stands below the table.
        caption: Below the figure, on the page.
    """

    title: str = ""
    note: str = ""
    caption: str = ""


CELLS_NOTE = (
    "Percent. Cells: mean ± SD over the runs in which it is defined [95 % interval over patients and "
    "runs] (published mean ± SD, the paper's private cohort). A run alone with its test patients is not drawn anew."
)

ARTEFACTS: dict[str, Artefact] = {
    name: Artefact(**{key: text.format(cells=CELLS_NOTE) for key, text in words.items()})
    for name, words in _read_entries("artefacts.toml").items()
}
"""Titles, notes and captions by file name; they stand in ``words/artefacts.toml``."""
