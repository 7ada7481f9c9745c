"""The one table that every source of videos is brought into: schema, validation, reading, writing.

A cohort is a table with one row per video and the folder that the table's paths start from.
"""

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.errors import CohortError, refuse
from lusbio.files import write_csv
from lusbio.vocabulary import BIOMARKER_FLAGS, BIOMARKER_GROUPS, BIOMARKER_NAMES, PROBES, TASKS, group_names, sf_class

REQUIRED_COLUMNS = ("video_id", "patient_id", "path")
TEXT_COLUMNS = ("video_id", "patient_id", "group_id", "path", "probe", "zone")
SEVERITY_COLUMNS = ("lung_severity", "specialist_lung_severity")
CLASSES = {name: task.classes for name, task in TASKS.items()} | {SEVERITY_COLUMNS[1]: TASKS["lung_severity"].classes}
NUMBER_COLUMNS = ("fps", "depth_mm", "sf_value")
LABEL_COLUMNS = ("lung_severity", "sf_ratio", "sf_value", "disease", "specialist_lung_severity")
SEVERAL = 5
"""Videos from which on a value that goes with one class only is no accident. (Engineering choice.)"""

COLUMNS = (*TEXT_COLUMNS, "fps", "depth_mm", *LABEL_COLUMNS, *BIOMARKER_NAMES)
"""All columns of ``cohort.csv``, in order."""

EXAM = "exam"
"""A column that a cohort has only where patients came more than once: 1, 2, ... in the order of their exams."""


@dataclass(frozen=True)
class Cohort:
    """A validated table of videos plus their folder.

    Attributes:
        name: Short name, used in folders, e.g. ``"covid_blues"``.
        table: One row per video, columns ``COLUMNS``. Text and class columns hold strings or NaN;
            biomarkers are float64 1 (present), 0 (absent) or NaN (unknown).
        folder: Where the paths of the table start.
        simulated: True when the videos were simulated, so that truth is exact.
        truth: For simulated cohorts one row per video with the true tasks and 38 biomarkers;
            otherwise None.
        notes: What a reader has to know, e.g. ``"273 of 362 videos present"``.
    """

    name: str
    table: pd.DataFrame
    folder: Path
    simulated: bool = False
    truth: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()

    @property
    def present(self) -> list[str]:
        """Of a public cohort the note that says how many of its videos are at hand."""
        return [note for note in self.notes if note.endswith("videos present")]

    def video_paths(self) -> list[Path]:
        """The files of all videos, in the table's order."""
        return [self.folder / path for path in self.table["path"]]


def tidy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Bring a table to the schema's columns, order and types, without judging its values.

    Missing optional columns are filled with NaN, ``group_id`` with ``patient_id``, and ``sf_ratio``
    with the range that ``sf_value`` falls in where only the value is known.

    Returns:
        A new table. Columns outside the schema are kept at the end, and numbers that cannot be read
        stay what they are, for ``table_problems`` to report.
    """
    extra = [column for column in table if column not in COLUMNS]
    columns = [column for column in COLUMNS if column in table or column not in REQUIRED_COLUMNS]
    table = table.reindex(columns=columns + extra).reset_index(drop=True)
    for column in set(columns) & {*TEXT_COLUMNS, *CLASSES}:
        cells = table[column].map(_text, na_action="ignore").astype(object)
        table[column] = cells.where(cells.notna() & (cells != ""), np.nan)
    for column in SEVERITY_COLUMNS:
        table[column] = table[column].map(lambda v: v.removesuffix(".0"), na_action="ignore")
    if EXAM in table:
        table[EXAM] = table[EXAM].where(table[EXAM].notna() & (table[EXAM] != ""), 1)
    for column in (*NUMBER_COLUMNS, *BIOMARKER_NAMES, *({EXAM} & {*table})):
        numbers = pd.to_numeric(table[column], errors="coerce").astype("float64")
        unreadable = numbers.isna() & table[column].notna()
        table[column] = table[column].astype(object).where(unreadable, numbers) if unreadable.any() else numbers
    if "patient_id" in table:
        table["group_id"] = table["group_id"].where(table["group_id"].notna(), table["patient_id"])
    derived = pd.to_numeric(table["sf_value"], errors="coerce").map(sf_class, na_action="ignore").astype(object)
    table["sf_ratio"] = table["sf_ratio"].where(table["sf_ratio"].notna(), derived)
    return table


def exams_of(table: pd.DataFrame) -> pd.Series:
    """Number of the exam of every video, int; 1 where a cohort does not say."""
    return table[EXAM].astype(int) if EXAM in table else pd.Series(1, table.index)


def _text(value: object) -> str:
    """A cell as text; whole numbers that pandas read as floats lose their ``.0``."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def table_problems(table: pd.DataFrame) -> list[str]:
    """Everything that is wrong with a tidied table; empty when it is good.

    Returns:
        Lines that name the column, the row's video, the value found and the values expected.
    """
    missing = [column for column in REQUIRED_COLUMNS if column not in table]
    problems = [f"column {column!r} is missing" for column in missing]
    for column in table.columns.difference([*COLUMNS, EXAM], sort=False):
        near = difflib.get_close_matches(str(column), COLUMNS, n=1)
        problems.append(f"unknown column {column!r}" + (f" (is {near[0]!r} meant?)" if near else ""))
    if table.empty:
        problems.append("no rows: a cohort has at least one video")
    if missing:
        return problems
    problems += _value_problems(table)
    groups = table.dropna(subset=["patient_id", "group_id"]).groupby("patient_id")["group_id"].unique()
    for patient, found in groups[groups.map(len) > 1].items():
        listed = ", ".join(map(repr, sorted(found)))
        problems.append(f"patient_id {patient!r} stands in {len(found)} groups ({listed}); a patient belongs to one")
    return problems


def _value_problems(table: pd.DataFrame) -> list[str]:
    """The cells that are wrong, column by column."""
    numbers = table[list(NUMBER_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    choices = {"probe": PROBES, **CLASSES}
    rules = [
        ("video_id", ~table["video_id"].duplicated(), "a value that no other row has"),
        ("path", table["path"].map(is_inside), "a path inside the folder"),
        *((name, table[name].isin(values), f"one of {', '.join(values)}") for name, values in choices.items()),
        *((name, numbers[name].between(0, np.inf, "neither"), "a number above 0") for name in NUMBER_COLUMNS),
        *((name, table[name].isin([0, 1]), "1 (present), 0 (absent) or empty (unknown)") for name in BIOMARKER_NAMES),
    ]
    if EXAM in table:
        exams = pd.to_numeric(table[EXAM], errors="coerce")
        rules.append((EXAM, (exams >= 1) & (exams % 1 == 0), "a whole number from 1 on"))
    rows = pd.Series([f"row {number}, video {video!r}" for number, video in enumerate(table["video_id"], start=2)])
    problems = _double_ticks(table, rows)
    for name in REQUIRED_COLUMNS:
        problems += cell_problems(rows, table[name], table[name].notna(), "a value")
    for name, right, expected in rules:
        problems += cell_problems(rows, table[name], right | table[name].isna(), expected)
    return problems


def _double_ticks(table: pd.DataFrame, rows: pd.Series) -> list[str]:
    """Videos with two options of a group of which only one can be."""
    problems = []
    for group in BIOMARKER_GROUPS:
        present = table[[name for name in group_names(group) if name not in BIOMARKER_FLAGS]] == 1
        for row in present.index[present.sum(axis=1) > 1]:
            ticked = " and ".join(map(repr, present.columns[present.loc[row]]))
            problems.append(f"{rows[row]}: columns {ticked} are 1, expected one option of {group!r} at most")
    return problems


def patient_problems(table: pd.DataFrame) -> list[str]:
    """Patients who have several values of what they can have only one of, by exam; of a tidied table."""
    problems = []
    for task in (task.name for task in TASKS.values() if task.level == "patient"):
        for (patient, _), values in table.groupby(["patient_id", exams_of(table)])[task]:
            if len(found := values.dropna().unique()) > 1:
                listed = ", ".join(map(repr, found))
                problems.append(f"patient_id {patient!r}: column {task!r} is {listed}, expected one value per exam")
    return problems


def is_inside(path: object) -> bool:
    """Whether a cell is a path that stays in the folder it starts from."""
    return isinstance(path, str) and not (Path(path).is_absolute() or ".." in Path(path).parts)


def cell_problems(owners: pd.Series, cells: pd.Series, right: pd.Series, expected: str) -> list[str]:
    """A line for every cell of a column that is not right.

    Args:
        owners: What each row is called.
        cells: The column, with its name.
        right: bool, of each cell.
        expected: What would be right, in words.

    Example:
        >>> ages = pd.Series([4, -1], name="age")
        >>> cell_problems(pd.Series(["row 2", "row 3"]), ages, ages > 0, "a number above 0")
        ["row 3: column 'age' is -1, expected a number above 0"]
    """
    wrong = cells[~right.astype(bool)]
    return [
        f"{owners[row]}: column {cells.name!r} is {'empty' if pd.isna(cell) else repr(cell)}, expected {expected}"
        for row, cell in wrong.items()
    ]


def check_table(table: pd.DataFrame, where: str | Path) -> pd.DataFrame:
    """Tidy a table (``COLUMNS``), or raise if anything in it is wrong.

    Args:
        table: One row per video.
        where: The file it came from, for the error.

    Raises:
        CohortError: With all problems at once.
    """
    table = tidy_table(table)
    refuse(where, table_problems(table))
    return table


def read_cells(path: Path, advice: str = "a cohort folder holds a cohort.csv and its videos") -> pd.DataFrame:
    """Read a comma-separated table as text, cell for cell; an empty cell is NaN.

    Args:
        path: The file.
        advice: What to do where there is none, for the error.

    Raises:
        CohortError: If the file is missing or is not a table.
    """
    if not path.is_file():
        raise CohortError(path, [f"no such file; {advice}"])
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values="", encoding="utf-8-sig", index_col=False)
        if len(table.columns) == 1 and re.search("[;\t]", table.columns[0]):
            raise CohortError(
                path, ["columns are separated by semicolons or tabs; save it as CSV with commas, in UTF-8"]
            )
        return table.dropna(how="all")  # what a spreadsheet leaves below its last row
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CohortError(path, [f"not a comma-separated table in UTF-8 ({error})"]) from error


def read_table(path: Path) -> pd.DataFrame:
    """Read and validate a ``cohort.csv``.

    Raises:
        CohortError: If the file is missing, is not a table, or holds a wrong value.
    """
    table = check_table(read_cells(path), path)
    refuse(path, patient_problems(table))
    return table


def list_some(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, for a sentence.

    Example:
        >>> list_some(["a", "b", "c"], most=2)
        'a, b, ...'
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table atomically, after validating it.

    Args:
        table: One row per video.
        path: The ``cohort.csv`` to write; its folder is made.

    Raises:
        CohortError: If anything in the table is wrong; nothing is written then.
    """
    write_csv(check_table(table, path), path)


def fingerprint(cohort: Cohort, content: dict[str, str]) -> str:
    """A short name for exactly this data: the table's values and the bytes of every video.

    Args:
        cohort: The cohort.
        content: sha256 of every video's file by ``video_id``.

    Returns:
        16 hexadecimal digits.
    """
    rows = cohort.table.drop(columns="path").sort_values("video_id")
    values = rows.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    return hashlib.sha256("".join([values, *map(content.get, rows["video_id"])]).encode()).hexdigest()[:16]


def find_determined_classes(table: pd.DataFrame, biomarkers: Sequence[str], task: str) -> pd.DataFrame:
    """Biomarkers whose labels are a class of a task under another name: whoever learns them learns the task.

    That is so where, among the videos with both labels, a value of the biomarker (1 or 0) stands in all videos of a
    class and in no other, and there are ``SEVERAL`` of both. A finding that is always severe is no such thing as long
    as severe videos without it are there.

    Args:
        table: A cohort's table.
        biomarkers: Names of those that a network learns.
        task: A column with classes.

    Returns:
        One row per case: ``biomarker, value, class, videos`` (with that value).
    """
    found = []
    for name in biomarkers:
        counts = pd.crosstab(table[task].astype(str).where(table[task].notna()), table[name])
        for value, of_value in counts.items():
            (only, videos), others = (of_value.idxmax(), of_value.max()), counts.drop(columns=value)
            in_no_other = of_value.sum() == videos and not others.loc[only].any()
            if in_no_other and min(videos, others.to_numpy().sum()) >= SEVERAL:
                found.append((name, value, only, int(videos)))
    return pd.DataFrame(found, columns=["biomarker", "value", "class", "videos"])
