"""Your own videos: a folder with a ``cohort.csv`` and the files it names."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lusbio.cohorts.synthetic import read_synthetic
from lusbio.cohorts.table import Cohort, list_some, read_table
from lusbio.errors import CohortError
from lusbio.videos import VIDEO_SUFFIXES, videos_below

TABLE_FILE = "cohort.csv"

PUBLISHED_NAMES = ("synthetic", "synthetic_convex", "covid_blues", "pocovid")
"""Cohorts whose figures are committed; a folder of one's own never gets such a name."""


def load_folder(folder: Path) -> Cohort:
    """Read a cohort of one's own.

    Args:
        folder: Holds ``cohort.csv`` (columns: ``lusbio.cohorts.table.COLUMNS``; only ``video_id``,
            ``patient_id`` and ``path`` are required) and the videos, anywhere below: mp4, mov,
            avi, mpeg, gif, webm, DICOM (.dcm) or uint8 arrays (.npy).

    Returns:
        The cohort, named after the folder (``cohort_name``), with its truth where the simulator made
        it. Videos that no row names are not used; the notes count them.

    Raises:
        CohortError: If the table is missing or wrong, or videos are missing; all at once.
    """
    folder = Path(folder)
    if (folder / "simulation.json").is_file():
        return replace(read_synthetic(folder), name=cohort_name(folder))
    table = read_table(folder / TABLE_FILE)
    problems = path_problems(table, folder)
    if problems:
        raise CohortError(folder, problems)
    listed = set(table["path"].map(lambda path: Path(path).as_posix()))
    unlisted = [path for path in videos_below(folder) if path not in listed]
    note = f"{len(unlisted)} videos in the folder have no row in {TABLE_FILE} and are not used: {list_some(unlisted)}"
    return Cohort(cohort_name(folder), table, folder, notes=(note,) if unlisted else ())


def cohort_name(folder: Path) -> str:
    """A cohort's name from its folder's, safe as the name of a folder of results.

    Returns:
        Letters, digits, ``_`` and ``-``; never a name whose results are committed to the project.

    Example:
        >>> cohort_name(Path("data/St. Mary's 2024")), cohort_name(Path("mine/pocovid"))
        ('St_Mary_s_2024', 'my_pocovid')
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(folder).resolve().name).strip("_-") or "cohort"
    return f"my_{name}" if name.lower() in PUBLISHED_NAMES else name


def path_problems(table: pd.DataFrame, folder: Path) -> list[str]:
    """What is wrong with the paths of a table: missing files, types that are no videos, repeats.

    Args:
        table: One row per video, columns ``video_id`` and ``path``.
        folder: Where the paths start.

    Returns:
        One line per problem; empty when every file is there.
    """
    problems = []
    rows = table.dropna(subset=["path"])
    for video, path in zip(rows["video_id"], rows["path"], strict=True):
        if Path(path).suffix.lower() not in VIDEO_SUFFIXES:
            problems.append(f"video {video!r}: column 'path' is {path!r}, expected one of {', '.join(VIDEO_SUFFIXES)}")
        elif not (Path(folder) / path).is_file():
            problems.append(f"video {video!r}: no file {path!r}")
    counts = Counter(Path(path).as_posix() for path in rows["path"])
    problems += [f"column 'path' is {path!r} in {count} rows" for path, count in counts.items() if count > 1]
    return problems
