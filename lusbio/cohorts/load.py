"""One door to all cohorts, by name or by folder: read one, find everything that is wrong with it, say what is in it."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lusbio.cohorts.covid_blues import load_covid_blues
from lusbio.cohorts.pocovid import load_pocovid
from lusbio.cohorts.synthetic import read_synthetic, simulate_cohort, simulate_exams
from lusbio.cohorts.table import (
    Cohort,
    is_inside,
    list_some,
    patient_problems,
    read_cells,
    read_table,
    table_problems,
    tidy_table,
)
from lusbio.dicom import names_no_region
from lusbio.errors import CohortError, LusbioError, VideoError, refuse
from lusbio.files import ROOT, build_folder, data_folder, file_sha256
from lusbio.profiles import Profile
from lusbio.videos import VIDEO_SUFFIXES, VideoInfo, read_video_info, try_each, videos_below
from lusbio.vocabulary import BIOMARKER_GROUPS, TASKS, group_names

SYNTHETIC = {"synthetic": "linear", "synthetic_convex": "convex"}
"""The cohorts that need no data, and their probe: linear as in the paper, convex as in public data."""

FRESH, FRESH_OF, FRESH_SEED = "synthetic_fresh", "synthetic", 1000
"""More patients like those of the default cohort, of another seed: nothing is learnt from them and nothing chosen."""

EXAMS, EXAMS_OF = "synthetic_exams", "synthetic"
"""The default cohort with a second exam of every patient."""

LOADERS = {"covid_blues": load_covid_blues, "pocovid": load_pocovid}
"""Loaders of the public cohorts, which lie in ``data_folder()`` under their names."""

PUBLISHED_NAMES = (*SYNTHETIC, FRESH, EXAMS, *LOADERS)
"""Cohorts whose figures are committed; a folder of one's own never gets such a name."""

TABLE_FILE = "cohort.csv"


def load_cohort(name_or_folder: str, profile: Profile, jobs: int = 1) -> Cohort:
    """A cohort by name or folder.

    Args:
        name_or_folder: A key of ``SYNTHETIC``, ``FRESH`` or ``EXAMS`` (simulated when it is not there yet),
            ``"covid_blues"`` or ``"pocovid"`` (from ``data_folder()``), or a folder with a ``cohort.csv``.
        profile: Decides the size of the synthetic cohort.
        jobs: Videos that are simulated at a time.

    Raises:
        CohortError: If it is not there, or not usable; says what is wrong and how to get it.
    """
    size, folder = (profile.video_size, profile.video_frames), build_folder("cohorts", name_or_folder, profile.name)
    if name_or_folder in SYNTHETIC:
        return simulate_cohort(folder, profile.patients, *size, probe=SYNTHETIC[name_or_folder], jobs=jobs)
    if name_or_folder == FRESH:
        return replace(simulate_cohort(folder, profile.fresh_patients, *size, FRESH_SEED, jobs=jobs), name=FRESH)
    if name_or_folder == EXAMS:
        return simulate_exams(load_cohort(EXAMS_OF, profile, jobs), folder, jobs)
    if name_or_folder in LOADERS:
        return LOADERS[name_or_folder](data_folder() / name_or_folder)
    folder = ROOT / Path(name_or_folder).expanduser()
    if not folder.is_dir():
        raise CohortError(name_or_folder, [f"neither one of {', '.join([*SYNTHETIC, *LOADERS])}, nor a folder"])
    return load_folder(folder)


def load_folder(folder: Path) -> Cohort:
    """Read a cohort of one's own.

    Args:
        folder: Holds ``cohort.csv`` (columns: ``lusbio.cohorts.table.COLUMNS``; only ``video_id``,
            ``patient_id`` and ``path`` are required) and the videos, anywhere below: mp4, mov,
            avi, mpeg, gif, webm, DICOM (.dcm), uint8 arrays (.npy) or stills (png, jpg, tif).

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
    refuse(folder, path_problems(table, folder))
    listed = set(table["path"].map(lambda path: Path(path).as_posix()))
    unlisted = [path for path in videos_below(folder) if path not in listed]
    whole = [path for path in table["path"] if names_no_region(folder / path)]
    notes = {
        f"{len(unlisted)} videos in the folder have no row in {TABLE_FILE} and are not used": unlisted,
        f"{len(whole)} DICOM files name no ultrasound region; their whole frames are used": whole,
    }
    notes = tuple(f"{note}: {list_some(paths)}" for note, paths in notes.items() if paths)
    return Cohort(cohort_name(folder), table, folder, notes=notes)


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
    counts = rows["path"].map(lambda path: Path(path).as_posix()).value_counts(sort=False)
    return problems + [f"column 'path' is {path!r} in {count} rows" for path, count in counts.items() if count > 1]


def check_cohort(name_or_folder: str | Path) -> list[str]:
    """Look for everything that is wrong with a cohort: table, files, frames, leaks.

    Every video is decoded, which takes some 0.1 s each.

    Args:
        name_or_folder: ``"covid_blues"``, ``"pocovid"``, or a folder with a ``cohort.csv``
            (a relative path starts at the checkout).

    Returns:
        One line per problem, all of them; empty when the cohort is good.
    """
    name = str(name_or_folder)
    if name in LOADERS:
        try:
            cohort = LOADERS[name](data_folder() / name)
        except CohortError as error:
            return str(error).splitlines()
        return video_problems(cohort.table, cohort.folder)
    folder = ROOT / Path(name).expanduser()
    if folder.is_file():
        return [f"{folder} is a file, expected the folder that holds {TABLE_FILE} and the videos"]
    try:
        table = tidy_table(read_cells(folder / TABLE_FILE))
    except CohortError as error:
        return list(error.problems)
    # A wrong table does not hide the wrong videos.
    rows = table.reindex(columns=["video_id", "path", "group_id"])
    rows = rows[rows["path"].map(is_inside).astype(bool)]
    problems = table_problems(table) or patient_problems(table)
    return problems + path_problems(rows, folder) + video_problems(rows, folder)


def video_problems(table: pd.DataFrame, folder: Path) -> list[str]:
    """Videos that do not decode, and equal files that a split could part.

    Args:
        table: One row per video: ``video_id``, ``path``, ``group_id``. Rows without a file are
            passed over.
        folder: Where the paths start.

    Returns:
        One line per problem.
    """
    table = table.loc[[isinstance(path, str) and (folder / path).is_file() for path in table["path"]]]
    files = [folder / path for path in table["path"]]
    infos = zip(table["video_id"], try_each(read_video_info, files, 2), strict=True)
    problems = [f"video {video!r}: {info}" for video, info in infos if isinstance(info, VideoError)]
    for _, same in table.assign(sha256=[file_sha256(file) for file in files]).groupby("sha256", sort=False):
        if same["group_id"].nunique(dropna=False) > 1:
            listed = ", ".join(f"{row.video_id!r} (group {row.group_id!r})" for row in same.itertuples())
            problems.append(f"the same file in several groups, which a split may part: {listed}")
    return problems


def describe_cohort(cohort: Cohort, infos: Sequence[VideoInfo] | None = None) -> str:
    """What is in a cohort, for a person to read.

    Args:
        cohort: A cohort whose videos are all there.
        infos: What decoding each video showed, where that is known; None decodes them.

    Returns:
        Some 25 lines of plain text, ending without a newline: videos, patients, groups; classes per
        task; biomarkers known; probes; frames; notes.

    Raises:
        LusbioError: If a video does not decode; ``check_cohort`` finds all of them.
    """
    table = cohort.table
    kind = "simulated" if cohort.simulated else "real"
    lines = [f"{cohort.name} ({kind}): {_counted(table)}, {table['group_id'].nunique()} groups", ""]
    for task in TASKS.values():
        labels = table[task.name].fillna("unlabelled")
        if (labels == "unlabelled").all():
            lines.append(f"{task.title}: no labels")
            continue
        names = [*task.classes, *labels[labels == "unlabelled"].unique()]
        lines += [f"{task.title}:", *(f"  {name:<28}{_counted(table[labels == name])}" for name in names)]
    lines += ["", "Biomarkers (present / absent / unknown, summed over the group's options):"]
    for group in BIOMARKER_GROUPS:
        bits = table[list(group_names(group))]
        counts = [str(cells.to_numpy().sum()) for cells in (bits == 1, bits == 0, bits.isna())]
        lines.append(f"  {group:<28}{' / '.join(counts)}")
    probes = table["probe"].fillna("unknown").value_counts()
    lines += ["", "Probes: " + ", ".join(f"{count} {probe}" for probe, count in probes.items())]
    lines += [f"Frames: {_frames(cohort, infos)}", *(f"Note: {note}" for note in cohort.notes)]
    return "\n".join(lines)


def _counted(table: pd.DataFrame) -> str:
    return f"{len(table)} videos of {table['patient_id'].nunique()} patients"


def _frames(cohort: Cohort, infos: Sequence[VideoInfo] | None) -> str:
    infos = infos or try_each(read_video_info, cohort.video_paths(), 2)
    for info in infos:
        if isinstance(info, VideoError):
            raise LusbioError(f"cohort {cohort.name!r} cannot be described: {info}")
    frames = [info.frames for info in infos]
    text = f"{min(frames)} to {max(frames)} per video, {sum(frames)} in all"
    fewer = sum(info.announced_frames is not None and info.frames < info.announced_frames for info in infos)
    return text + (f"; {fewer} videos decode to fewer than their file announces" if fewer else "")
