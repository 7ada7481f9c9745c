"""COVID-BLUES: 63 patients, six BLUE points each, with severity, A-lines, B-lines, S/F and diagnosis.

The labels decide three of the seven diseases and a part of the 38 biomarkers; the rest is unknown.

Source: Wiedemann et al. 2025 (doi 10.1109/JBHI.2025.3543686). The mapping to the paper's labels is
an engineering choice, described at each function.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.download import how_to_get, read_published_table
from lusbio.cohorts.table import Cohort, check_table
from lusbio.errors import CohortError
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS, group_names

NAME = "covid_blues"
SEVERITY_FILE = "severity.csv"
CLINICAL_FILE = "clinical_variables.csv"
VIDEO_FOLDER = "lus_videos"
FPS = 25.0

MISSING_CODES = (-96.0, -99.0)
"""Numbers that stand for "not measured"."""

VIDEO_NAME = re.compile(r"patient_(?P<patient>\d+)_(?P<zone>[LR][123])(?:_\d+)?")
SPO2_ON_AIR, SPO2_ON_OXYGEN = "oxygen_saturation_without_ox", "oxygen_saturation_with_ox"
OXYGEN_LITRES = "oxygen_liter"

HEALTHY, COVID, _, _, _, OTHER_LUNG, _ = TASKS["disease"].classes
DIAGNOSES = {
    "clin_diagn#healthy_lung": HEALTHY,
    "clin_diagn#bacterial_pneumonia": OTHER_LUNG,
    "clin_diagn#COVID19_pneumonia": COVID,
    "clin_diagn#other_viral_pneumonia": OTHER_LUNG,
    "clin_diagn#other_lung_disease": OTHER_LUNG,
}
"""Class of the ``disease`` task by column of ``clinical_variables.csv``."""


DEVELOPMENT_PATIENTS = ("1", "4", "10", "14", "17", "19", "28", "32", "42", "43", "49", "55")
"""Patients that may be looked at while the simulator is developed; its transfer is reported on all
others. Drawn once, at random, from those whose videos were at hand."""

SEEN_PATIENTS = ("18", "24", "36", "44", "50", "51", "57")
"""Patients of whom a frame was looked at before that list was drawn; they do not count in transfer either."""


def load_covid_blues(folder: Path) -> Cohort:
    """Read COVID-BLUES as published.

    Args:
        folder: The local copy, with ``severity.csv``, ``clinical_variables.csv`` and
            ``lus_videos/*.mp4``. Part of the videos may be absent: they are left out of the table
            and counted in the notes.

    Returns:
        Cohort ``"covid_blues"``. ``patient_id`` is the published number and is reliable, so
        ``group_id`` is the same; ``zone`` is the BLUE point (``"L1"`` to ``"R3"``); the probe is
        convex; 25 fps. ``sf_value`` rests on an estimated FiO2 (``estimate_fio2``).

    Raises:
        CohortError: If a table or every video is missing (says how to get them), or if a table
            holds a value that is not understood: all of them, with file, column and value.

    Source: data: Wiedemann et al. 2025; mapping: engineering choice.
    """
    folder = Path(folder)
    severity = read_published_table(folder, SEVERITY_FILE, NAME, ["video_file", "Severity Score", "A-lines", "B-lines"])
    clinical = read_published_table(
        folder, CLINICAL_FILE, NAME, ["patient_id", SPO2_ON_AIR, SPO2_ON_OXYGEN, OXYGEN_LITRES, *DIAGNOSES]
    )
    files = _video_files(folder)
    labels = _video_labels(severity, folder / SEVERITY_FILE)
    patients = _patient_labels(clinical, folder / CLINICAL_FILE)
    rows = pd.DataFrame(files)
    table = rows.join(labels, on="video_id").join(patients, on="patient_id")
    table["probe"], table["fps"] = "convex", FPS
    table = check_table(table, folder)
    return Cohort(NAME, table, folder, notes=_notes(table, labels, patients))


def _video_files(folder: Path) -> list[dict[str, str]]:
    """video_id, patient_id, zone and path of every video on disk, by patient and zone."""
    paths = [path for path in (folder / VIDEO_FOLDER).glob("*.mp4") if not path.name.startswith(".")]
    if not paths:
        raise CohortError(folder / VIDEO_FOLDER, [f"no videos (*.mp4); {how_to_get(NAME)}"])
    names = {path: VIDEO_NAME.fullmatch(path.stem) for path in paths}
    strange = sorted(path.name for path, name in names.items() if name is None)
    if strange:
        expected = "expected patient_<number>_<L1 to R3>.mp4"
        raise CohortError(folder / VIDEO_FOLDER, [f"video {name!r}, {expected}" for name in strange])
    rows = [
        {
            "video_id": path.stem,
            "patient_id": name["patient"],
            "zone": name["zone"],
            "path": f"{VIDEO_FOLDER}/{path.name}",
        }
        for path, name in names.items()
    ]
    return sorted(rows, key=lambda row: (int(row["patient_id"]), row["video_id"]))


def _video_labels(severity: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Severity and the 38 biomarkers, one row per labelled video, index ``video_id``."""
    problems = [f"column 'video_file' is {name!r} in more than one row" for name in _repeated(severity["video_file"])]
    problems += [
        f"column 'video_file' is {name!r}, expected patient_<number>_<L1 to R3>"
        for name in severity["video_file"]
        if not VIDEO_NAME.fullmatch(name)
    ]
    owners = "video " + severity["video_file"]
    grades = _parse_column(severity["Severity Score"], _parse_severity, "0, 1, 2, 3 or empty", owners, problems)
    a_lines = _parse_column(severity["A-lines"], _parse_yes_no, "yes, no or empty", owners, problems)
    b_lines = _parse_column(severity["B-lines"], _parse_yes_no, "yes, no or empty", owners, problems)
    if problems:
        raise CohortError(path, problems)
    rows = [biomarkers_of(*row) for row in zip(a_lines, b_lines, grades, strict=True)]
    labels = pd.DataFrame(rows, columns=list(BIOMARKER_NAMES), index=severity["video_file"])
    labels["lung_severity"] = [np.nan if np.isnan(grade) else str(int(grade)) for grade in grades]
    return labels


def biomarkers_of(a_lines: float, b_lines: float, severity: float) -> dict[str, float]:
    """What two yes/no labels decide of the 38 biomarkers.

    A-lines "no": "none" is 1 and the group's four others are 0; "yes": "none" is 0 and the rest
    stays unknown. B-lines likewise, except that a white lung shows no separate B-lines and may have
    been labelled "no": "white" and the origin are decided only where severity is 0 or 1.

    Args:
        a_lines: 1 seen, 0 not seen, NaN unknown.
        b_lines: The same for B-lines.
        severity: Lung severity, 0 to 3 or NaN.

    Returns:
        1 (present), 0 (absent) or NaN (unknown) by biomarker name, all 38.

    Source: engineering choice.

    Example:
        >>> bits = biomarkers_of(a_lines=1, b_lines=0, severity=2)
        >>> bits["a_lines_none"], bits["b_lines_few"], bits["b_lines_white"]
        (0.0, 0.0, nan)
    """
    bits = dict.fromkeys(BIOMARKER_NAMES, np.nan)
    a_none, *a_options = group_names("A-lines")
    b_none, *b_counts, b_white = group_names("B-lines")
    origin_none, *origins = group_names("B-line origin")
    bits[a_none] = 1.0 - a_lines
    bits[b_none] = 1.0 - b_lines
    if a_lines == 0:
        bits |= dict.fromkeys(a_options, 0.0)
    if b_lines == 0:
        bits |= dict.fromkeys(b_counts, 0.0)
        if severity < 2:
            bits |= {b_white: 0.0, origin_none: 1.0} | dict.fromkeys(origins, 0.0)
    return bits


def _patient_labels(clinical: pd.DataFrame, path: Path) -> pd.DataFrame:
    """sf_value and disease, one row per patient, index ``patient_id``."""
    problems = [f"column 'patient_id' is {name!r} in more than one row" for name in _repeated(clinical["patient_id"])]
    owners = "patient " + clinical["patient_id"]

    def numbers(column: str, low: float, high: float) -> pd.Series:
        def parse(cell: str) -> float:
            return _parse_measure(cell, low, high)

        expected = f"a number or range from {low:g} to {high:g}, -96, -99 or empty"
        return _parse_column(clinical[column], parse, expected, owners, problems)

    air, oxygen = numbers(SPO2_ON_AIR, 40, 100), numbers(SPO2_ON_OXYGEN, 40, 100)
    litres = numbers(OXYGEN_LITRES, 0, 100)
    ticks = pd.DataFrame({column: numbers(column, 0, 1) for column in DIAGNOSES})
    for patient, ticked in zip(clinical["patient_id"], (ticks == 1).sum(axis=1), strict=True):
        if ticked > 1:
            problems.append(f"patient {patient}: {ticked} columns clin_diagn#... are 1, expected at most one")
    if problems:
        raise CohortError(path, problems)
    disease = (ticks == 1).apply(lambda row: DIAGNOSES[row.idxmax()] if row.any() else np.nan, axis=1)
    values = [sf_of(*row) for row in zip(air, oxygen, litres, strict=True)]
    return pd.DataFrame({"sf_value": values, "disease": list(disease)}, index=clinical["patient_id"])


def sf_of(spo2_on_air: float, spo2_on_oxygen: float, litres: float) -> float:
    """S/F from what was measured: on oxygen with its litres first, else on room air.

    Args:
        spo2_on_air: Oxygen saturation without oxygen, percent, or NaN.
        spo2_on_oxygen: Oxygen saturation with oxygen, percent, or NaN.
        litres: Oxygen flow in L/min, or NaN.

    Returns:
        Saturation in percent divided by the (estimated) inspired fraction, or NaN.

    Source: engineering choice. Preferring room air would hide who needs oxygen.

    Example:
        >>> round(sf_of(96.0, 92.0, 2.0)), round(sf_of(96.0, 92.0, float("nan")))
        (341, 457)
    """
    if not np.isnan(spo2_on_oxygen + litres):
        return spo2_on_oxygen / estimate_fio2(litres)
    return spo2_on_air / estimate_fio2(0.0)


def estimate_fio2(litres: float) -> float:
    """Estimate the inspired oxygen fraction from the flow: nobody measured it.

    0.21 + 0.03 per L/min up to 6 L/min (nasal prongs), 0.21 + 0.04 per L/min above (mask), never
    above 1. A rule of thumb: breathing pattern and device change it a lot, so an S/F class near an
    edge may be off by one.

    Args:
        litres: Oxygen flow in L/min; 0 is room air.

    Returns:
        Fraction from 0.21 to 1.

    Source: engineering choice, after common bedside tables.

    Example:
        >>> [round(estimate_fio2(flow), 2) for flow in (0, 2, 6, 15)]
        [0.21, 0.27, 0.39, 0.81]
    """
    return min(0.21 + (0.03 if litres <= 6 else 0.04) * litres, 1.0)


def _notes(table: pd.DataFrame, labels: pd.DataFrame, patients: pd.DataFrame) -> tuple[str, ...]:
    present = set(table["video_id"])
    absent = [video for video in labels.index if video not in present]
    unlabelled = [video for video in table["video_id"] if video not in labels.index]
    strangers = sorted(set(table["patient_id"]) - set(patients.index), key=int)
    notes = [f"{len(present)} of {len(present | set(labels.index))} videos present"]
    if absent:
        notes.append(f"{len(absent)} rows of {SEVERITY_FILE} have no video on disk: {_shown(absent)}")
    if unlabelled:
        notes.append(f"{len(unlabelled)} videos have no row in {SEVERITY_FILE}: {_shown(unlabelled)}")
    if strangers:
        notes.append(f"{len(strangers)} patients have no row in {CLINICAL_FILE}: {_shown(strangers)}")
    notes.append("three of the seven diseases occur; S/F rests on an FiO2 estimated from litres of oxygen")
    return tuple(notes)


def _shown(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _repeated(names: pd.Series) -> list[str]:
    return sorted(set(names[names.duplicated()]))


def _parse_column(
    cells: pd.Series, parse: Callable[[str], float], expected: str, owners: pd.Series, problems: list[str]
) -> pd.Series:
    """Parse every cell; a cell that is not understood becomes NaN and a line in ``problems``."""

    def attempt(cell: str, owner: str) -> float:
        try:
            return parse(cell)
        except ValueError:
            problems.append(f"{owner}: column {cells.name!r} is {cell!r}, expected {expected}")
            return np.nan

    values = [attempt(cell, owner) for cell, owner in zip(cells, owners, strict=True)]
    return pd.Series(values, index=cells.index, dtype="float64")


def _parse_measure(cell: str, low: float, high: float) -> float:
    """A number, the midpoint of a range such as ``"90-92"``, or NaN for a missing code."""
    ends = re.fullmatch(r"(\d+(?:\.\d+)?)\s*[-\u2013]\s*(\d+(?:\.\d+)?)", cell)
    if ends:
        values = [float(end) for end in ends.groups()]
    elif cell == "" or float(cell) in MISSING_CODES:
        return np.nan
    else:
        values = [float(cell)]
    if not all(low <= value <= high for value in values):
        raise ValueError(cell)
    return sum(values) / len(values)


def _parse_severity(cell: str) -> float:
    grade = _parse_measure(cell, 0, 3)
    if not (np.isnan(grade) or grade.is_integer()):
        raise ValueError(cell)
    return grade


def _parse_yes_no(cell: str) -> float:
    if cell.lower() not in ("yes", "no"):
        return _parse_measure(cell, 1, 0)  # a missing code, or an error
    return float(cell.lower() == "yes")
