"""Is this cohort usable, and what is in it? Every problem at once, then a description."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lusbio.cohorts.folder import TABLE_FILE, path_problems
from lusbio.cohorts.load import LOADERS
from lusbio.cohorts.table import Cohort, is_inside, read_cells, read_table
from lusbio.errors import CohortError, LusbioError, VideoError
from lusbio.files import ROOT, data_folder, file_sha256
from lusbio.videos import VideoInfo, read_video_info, try_each
from lusbio.vocabulary import BIOMARKER_GROUPS, TASKS, group_names


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
    problems = []
    try:
        table = read_table(folder / TABLE_FILE)
    except CohortError as error:  # a wrong table does not hide the wrong videos
        problems += error.problems
        table = _read_anyway(folder / TABLE_FILE)
    return problems + path_problems(table, folder) + video_problems(table, folder)


def _read_anyway(path: Path) -> pd.DataFrame:
    """The columns that lead to videos, from a table that did not pass; empty if there are none."""
    try:
        table = read_cells(path, "")
    except CohortError:
        table = pd.DataFrame()
    table = table.reindex(columns=["video_id", "path", "group_id", "patient_id"]).astype(object)
    table["group_id"] = table["group_id"].fillna(table["patient_id"])
    return table[table["path"].map(is_inside).astype(bool)]


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
    infos = try_each(read_video_info, files, 2)
    videos = table["video_id"]
    problems = [f"video {v!r}: {info}" for v, info in zip(videos, infos, strict=True) if isinstance(info, VideoError)]
    owners = defaultdict(list)
    for file, video, group in zip(files, videos, table["group_id"], strict=True):
        owners[file_sha256(file)].append((video, group))
    for same in owners.values():
        if len({group for _, group in same}) > 1:
            listed = ", ".join(f"{video!r} (group {group!r})" for video, group in same)
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
    lines += [f"Frames: {_frames(infos or _decode_all(cohort))}", *(f"Note: {note}" for note in cohort.notes)]
    return "\n".join(lines)


def _counted(table: pd.DataFrame) -> str:
    return f"{len(table)} videos of {table['patient_id'].nunique()} patients"


def _decode_all(cohort: Cohort) -> list[VideoInfo]:
    infos = try_each(read_video_info, cohort.video_paths(), 2)
    for info in infos:
        if isinstance(info, VideoError):
            raise LusbioError(f"cohort {cohort.name!r} cannot be described: {info}")
    return infos


def _frames(infos: Sequence[VideoInfo]) -> str:
    frames = [info.frames for info in infos]
    text = f"{min(frames)} to {max(frames)} per video, {sum(frames)} in all"
    fewer = sum(info.announced_frames is not None and info.frames < info.announced_frames for info in infos)
    return text + (f"; {fewer} videos decode to fewer than their file announces" if fewer else "")
