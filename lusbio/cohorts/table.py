"""The one table that every source of videos is brought into: schema, validation, reading, writing.

A cohort is a table with one row per video and the folder that the table's paths start from.
"""

import difflib
import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.errors import CohortError
from lusbio.files import write_csv
from lusbio.vocabulary import BIOMARKER_NAMES, PROBES, TASKS, sf_class

REQUIRED_COLUMNS = ("video_id", "patient_id", "path")
TEXT_COLUMNS = ("video_id", "patient_id", "group_id", "path", "probe", "zone")
SEVERITY_COLUMNS = ("lung_severity", "specialist_lung_severity")
CLASSES = {
    **{name: task.classes for name, task in TASKS.items()},
    "specialist_lung_severity": TASKS["lung_severity"].classes,
}
NUMBER_COLUMNS = ("fps", "depth_mm", "sf_value")
COLUMNS = (
    *TEXT_COLUMNS,
    "fps",
    "depth_mm",
    "lung_severity",
    "sf_ratio",
    "sf_value",
    "disease",
    "specialist_lung_severity",
    *BIOMARKER_NAMES,
)
"""All columns of ``cohort.csv``, in order."""


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

    def video_path(self, video_id: str) -> Path:
        """The file of one video.

        Args:
            video_id: A value of the table's ``video_id``.

        Returns:
            The path, absolute when ``folder`` is.

        Raises:
            KeyError: If there is no such video.
        """
        rows = self.table.loc[self.table["video_id"] == video_id, "path"]
        if rows.empty:
            raise KeyError(f"no video {video_id!r} in cohort {self.name!r}")
        return self.folder / rows.iloc[0]

    def video_paths(self) -> list[Path]:
        """The files of all videos, in the table's order."""
        return [self.folder / path for path in self.table["path"]]


def tidy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Bring a table to the schema's columns, order and types, without judging its values.

    Missing optional columns are filled with NaN, ``group_id`` with ``patient_id``, and ``sf_ratio``
    with the range that ``sf_value`` falls in where only the value is known.

    Args:
        table: One row per video, with at least ``REQUIRED_COLUMNS``. Columns outside the schema
            are kept at the end, for ``check_table`` to report.

    Returns:
        A new table. Numbers that cannot be read stay what they are, for ``check_table`` to report.
    """
    table = table.copy()
    for column in COLUMNS:
        if column not in table and column not in REQUIRED_COLUMNS:
            table[column] = np.nan
    for column in set(table.columns) & {*TEXT_COLUMNS, *CLASSES}:
        table[column] = table[column].map(_text, na_action="ignore").astype(object)
        table[column] = table[column].where(table[column].notna() & (table[column] != ""), np.nan)
    for column in SEVERITY_COLUMNS:
        table[column] = table[column].map(lambda v: v.removesuffix(".0"), na_action="ignore")
    for column in (*NUMBER_COLUMNS, *BIOMARKER_NAMES):
        numbers = pd.to_numeric(table[column], errors="coerce").astype("float64")
        unreadable = numbers.isna() & table[column].notna()
        table[column] = table[column].astype(object).where(unreadable, numbers) if unreadable.any() else numbers
    if "patient_id" in table:
        table["group_id"] = table["group_id"].where(table["group_id"].notna(), table["patient_id"])
    if pd.api.types.is_float_dtype(table["sf_value"]):
        derived = table["sf_value"].map(sf_class, na_action="ignore").astype(object)
        table["sf_ratio"] = table["sf_ratio"].where(table["sf_ratio"].notna(), derived)
    extra = [column for column in table.columns if column not in COLUMNS]
    return table[[column for column in COLUMNS if column in table] + extra].reset_index(drop=True)


def _text(value: object) -> str:
    """A cell as text; whole numbers that pandas read as floats lose their ``.0``."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def table_problems(table: pd.DataFrame) -> list[str]:
    """Everything that is wrong with a tidied table, one line per problem.

    Args:
        table: What ``tidy_table`` returned.

    Returns:
        Lines that name the column, the row's video, the value found and the values expected;
        empty when the table is good.
    """
    problems = _column_problems(table)
    if any(column not in table for column in REQUIRED_COLUMNS):
        return problems
    problems += _value_problems(table)
    groups = table.dropna(subset=["patient_id", "group_id"]).groupby("patient_id")["group_id"].unique()
    for patient, found in groups.items():
        if len(found) > 1:
            listed = ", ".join(repr(g) for g in sorted(found))
            problems.append(
                f"patient_id {patient!r} stands in {len(found)} groups ({listed}); a patient belongs to one"
            )
    return problems


def _column_problems(table: pd.DataFrame) -> list[str]:
    problems = [f"column {column!r} is missing" for column in REQUIRED_COLUMNS if column not in table]
    for column in table.columns:
        if column not in COLUMNS:
            near = difflib.get_close_matches(str(column), COLUMNS, n=1)
            problems.append(f"unknown column {column!r}" + (f" (is {near[0]!r} meant?)" if near else ""))
    if table.empty:
        problems.append("no rows: a cohort has at least one video")
    return problems


def _value_problems(table: pd.DataFrame) -> list[str]:
    """Run the pandera schema lazily and put its failures into plain sentences."""
    try:
        import pandera.errors  # heavy, and absent on machines that only train
    except ImportError:
        warnings.warn("pandera is not installed: the values of the table are not checked", stacklevel=4)
        return []
    known = table[[column for column in table.columns if column in COLUMNS]]
    try:
        _schema().validate(known, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        lines = []
        for column, check, value, row in zip(
            cases["column"], cases["check"], cases["failure_case"], cases["index"], strict=True
        ):
            video = table["video_id"].iloc[int(row)] if pd.notna(row) else None
            where = f"row {int(row) + 2}, video {video!r}: " if pd.notna(row) else ""
            shown = "empty" if value is None or value is np.nan or pd.isna(value) else repr(value)
            lines.append(f"{where}column {column!r} is {shown}, expected {check}")
        return list(dict.fromkeys(lines))
    return []


def _schema():
    """The pandera schema; each check is named by what it expects, which the error lines quote."""
    import pandera.pandas as pa

    def check(function: Callable[[object], bool], expected: str) -> "pa.Check":
        return pa.Check(lambda s: s.map(function).astype(bool), name=expected, error=expected, ignore_na=True)

    def column(*checks, nullable: bool = True, unique: bool = False) -> "pa.Column":
        filled = [] if nullable else [pa.Check(lambda s: s.notna(), name="a value", error="a value", ignore_na=False)]
        if unique:
            filled.append(
                pa.Check(
                    lambda s: ~s.duplicated(keep="first") | s.isna(),
                    name="a value that no other row has",
                    error="a value that no other row has",
                )
            )
        return pa.Column(None, [*filled, *checks], nullable=True, required=False)

    def one_of(values: tuple) -> "pa.Check":
        return check(lambda v: v in values, "one of " + ", ".join(map(str, values)))

    def is_number(value: object) -> bool:
        return isinstance(value, (int, float)) and np.isfinite(value) and value > 0

    columns = {name: column(nullable=False) for name in REQUIRED_COLUMNS}
    columns["video_id"] = column(nullable=False, unique=True)
    columns["path"] = column(
        check(lambda p: not (Path(p).is_absolute() or ".." in Path(p).parts), "a path inside the folder"),
        nullable=False,
    )
    columns["probe"] = column(one_of(PROBES))
    columns |= {name: column(one_of(classes)) for name, classes in CLASSES.items()}
    columns |= {name: column(check(is_number, "a number above 0")) for name in NUMBER_COLUMNS}
    present = check(lambda v: v in (0, 1), "1 (present), 0 (absent) or empty (unknown)")
    columns |= {name: column(present) for name in BIOMARKER_NAMES}
    return pa.DataFrameSchema(columns, strict=False)


def check_table(table: pd.DataFrame, where: str | Path) -> pd.DataFrame:
    """Tidy a table and raise if anything in it is wrong.

    Args:
        table: One row per video; see ``COLUMNS``.
        where: The file it came from, for the error.

    Returns:
        The tidied table.

    Raises:
        CohortError: With all problems at once.
    """
    table = tidy_table(table)
    problems = table_problems(table)
    if problems:
        raise CohortError(where, problems)
    return table


def read_table(path: Path) -> pd.DataFrame:
    """Read and validate a ``cohort.csv``.

    Args:
        path: The file.

    Returns:
        The tidied table, columns ``COLUMNS``.

    Raises:
        CohortError: If the file is missing, is not a table, or holds a wrong value.
    """
    if not path.is_file():
        raise CohortError(path, ["no such file; a cohort folder holds a cohort.csv and its videos"])
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig", index_col=False
        )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CohortError(path, [f"not a comma-separated table in UTF-8 ({error})"]) from error
    return check_table(table, path)


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
    digest = hashlib.sha256()
    rows = cohort.table.drop(columns="path").sort_values("video_id")
    digest.update(rows.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())
    for video_id in rows["video_id"]:
        digest.update(content[video_id].encode())
    return digest.hexdigest()[:16]
