"""COVID-BLUES: 63 patients, six BLUE points each, with severity, A-lines, B-lines, S/F and diagnosis.

The labels decide three of the seven diseases and a part of the 38 biomarkers; the rest is unknown.

Source: Wiedemann et al. 2025 (doi 10.1109/JBHI.2025.3543686). The mapping to the paper's labels is
an engineering choice, described at each function.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.download import how_to_get, read_published_table
from lusbio.cohorts.table import Cohort, cell_problems, check_table, list_some
from lusbio.errors import CohortError, refuse
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS, group_names

NAME = "covid_blues"
SEVERITY_FILE = "severity.csv"
CLINICAL_FILE = "clinical_variables.csv"
VIDEO_FOLDER = "lus_videos"
FPS = 25.0

MISSING_CODES = (-96.0, -99.0)
"""Numbers that stand for "not measured"."""

VIDEO_NAME = r"^patient_(?P<patient_id>\d+)_(?P<zone>[LR][123])(?:_\d+)?$"
MEASURE = r"^(\d+(?:\.\d+)?)(?:\s*[-\u2013]\s*(\d+(?:\.\d+)?))?$"
"""A number, or a range such as ``"90-92"``."""

OXYGEN = {"oxygen_saturation_without_ox": (40, 100), "oxygen_saturation_with_ox": (40, 100), "oxygen_liter": (0, 100)}
"""Lowest and highest value of the columns of ``clinical_variables.csv`` that S/F is made from (``sf_of``)."""

HEALTHY, COVID, _, _, _, OTHER_LUNG, _ = TASKS["disease"].classes
DIAGNOSES = {"clin_diagn#healthy_lung": HEALTHY, "clin_diagn#COVID19_pneumonia": COVID}
DIAGNOSES |= {
    f"clin_diagn#{name}": OTHER_LUNG for name in ("bacterial_pneumonia", "other_viral_pneumonia", "other_lung_disease")
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
    labels, patients = _video_labels(folder), _patient_labels(folder)
    table = _video_files(folder).join(labels, on="video_id").join(patients, on="patient_id")
    table = check_table(table.assign(probe="convex", fps=FPS), folder)
    return Cohort(NAME, table, folder, notes=_notes(table, labels, patients))


def _read(folder: Path, file: str, columns: list[str]) -> pd.DataFrame:
    """Columns of a published table as text; "not measured" is ``""``, as an empty cell is."""
    cells = read_published_table(folder, file, NAME, columns)[columns]
    return cells.mask(cells.apply(pd.to_numeric, errors="coerce").isin(MISSING_CODES), "")


def _video_files(folder: Path) -> pd.DataFrame:
    """``video_id, patient_id, zone, path`` of every video on disk, by patient and zone."""
    place = folder / VIDEO_FOLDER
    videos = pd.Series(sorted(path.stem for path in place.glob("*.mp4") if not path.name.startswith(".")), dtype=str)
    if videos.empty:
        raise CohortError(place, [f"no videos (*.mp4); {how_to_get(NAME)}"])
    files = videos.str.extract(VIDEO_NAME).assign(video_id=videos, path=f"{VIDEO_FOLDER}/" + videos + ".mp4")
    strange = videos[files["zone"].isna()] + ".mp4"
    refuse(place, [f"video {name!r}, expected patient_<number>_<L1 to R3>.mp4" for name in strange])
    return files.sort_values("patient_id", key=lambda ids: ids.astype(int), kind="stable")


def _video_labels(folder: Path) -> pd.DataFrame:
    """Severity and the 38 biomarkers, one row per labelled video, index ``video_id``."""
    cells = _read(folder, SEVERITY_FILE, ["video_file", "Severity Score", "A-lines", "B-lines"])
    names, owners = cells["video_file"], "video " + cells["video_file"]
    grades = pd.to_numeric(cells["Severity Score"], errors="coerce")
    grades = grades.where(grades.isin(range(4)))
    lines = [cells[column].str.lower().map({"yes": 1.0, "no": 0.0}) for column in ("A-lines", "B-lines")]
    strange = names[~names.str.match(VIDEO_NAME)]
    problems = _repeated(names)
    problems += [f"column 'video_file' is {name!r}, expected patient_<number>_<L1 to R3>" for name in strange]
    problems += _unread(owners, cells["Severity Score"], grades, "0, 1, 2, 3 or empty")
    for found in lines:
        problems += _unread(owners, cells[found.name], found, "yes, no or empty")
    refuse(folder / SEVERITY_FILE, problems)
    labels = pd.DataFrame([biomarkers_of(*row) for row in zip(*lines, grades, strict=True)], index=names)
    return labels.assign(lung_severity=grades.to_numpy())


def _repeated(names: pd.Series) -> list[str]:
    repeated = sorted(set(names[names.duplicated()]))
    return [f"column {names.name!r} is {name!r} in more than one row" for name in repeated]


def _unread(owners: pd.Series, cells: pd.Series, values: pd.Series, expected: str) -> list[str]:
    """A line for every cell that has something in it, of which no value was made."""
    return cell_problems(owners, cells, values.notna() | (cells == ""), expected)


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
    bits |= {a_none: 1.0 - a_lines, b_none: 1.0 - b_lines}
    if a_lines == 0:
        bits |= dict.fromkeys(a_options, 0.0)
    if b_lines == 0:
        bits |= dict.fromkeys(b_counts, 0.0)
        if severity < 2:
            bits |= {b_white: 0.0, origin_none: 1.0} | dict.fromkeys(origins, 0.0)
    return bits


def _patient_labels(folder: Path) -> pd.DataFrame:
    """``sf_value`` and ``disease``, one row per patient, index ``patient_id``."""
    ranges = OXYGEN | dict.fromkeys(DIAGNOSES, (0, 1))
    cells = _read(folder, CLINICAL_FILE, ["patient_id", *ranges])
    names, owners = cells["patient_id"], "patient " + cells["patient_id"]
    problems, values = _repeated(names), pd.DataFrame(index=cells.index)
    for column, (low, high) in ranges.items():
        ends = cells[column].str.extract(MEASURE).astype(float)
        ends[1] = ends[1].fillna(ends[0])
        values[column] = ends.where((low <= ends) & (ends <= high)).mean(axis=1, skipna=False)
        expected = f"a number or range from {low} to {high}, -96, -99 or empty"
        problems += _unread(owners, cells[column], values[column], expected)
    ticks = values[list(DIAGNOSES)] == 1
    twice = ticks.sum(axis=1).loc[lambda counts: counts > 1]
    problems += [f"{owners[row]}: {n} columns clin_diagn#... are 1, expected at most one" for row, n in twice.items()]
    refuse(folder / CLINICAL_FILE, problems)
    sf_values = [sf_of(*row) for row in values[list(OXYGEN)].to_numpy()]
    diseases = ticks.idxmax(axis=1).map(DIAGNOSES).where(ticks.any(axis=1))
    return pd.DataFrame({"sf_value": sf_values, "disease": diseases.to_numpy()}, index=names)


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
    present = table["video_id"].tolist()
    absent = [video for video in labels.index if video not in present]
    said = {
        f"rows of {SEVERITY_FILE} have no video on disk": absent,
        f"videos have no row in {SEVERITY_FILE}": [video for video in present if video not in labels.index],
        f"patients have no row in {CLINICAL_FILE}": sorted({*table["patient_id"]} - {*patients.index}, key=int),
    }
    return (
        f"{len(present)} of {len(present) + len(absent)} videos present",
        *(f"{len(names)} {words}: {list_some(names)}" for words, names in said.items() if names),
        "three of the seven diseases occur; S/F rests on an FiO2 estimated from litres of oxygen",
    )
