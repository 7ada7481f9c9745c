"""POCOVID: 131 videos collected from clinics and the web, with diagnosis, findings and severity.

Its patient ids are not reliable, so videos are grouped by everything that may tie them together
(``conservative_groups``), and diagnosis is confounded with source: a model that recognises the
scanner scores well. Numbers on this cohort are a stress test, not a clinical result.

Its metadata name findings that were seen and none that was looked for and not there, so every biomarker that is known
has one value only and none can be learnt. (That a lung is called healthy is the diagnosis; labels made of it would let
a biomarker network learn the answer.)

Two people rated some of its videos without knowing of each other: its severities (Gare et al. 2022) and COVIDx-US'
scores (Ebadi et al. 2021) use the same grades, 0 to 3, and 32 videos stand in both collections under different names;
``registry/two_raters.csv`` says which. The scores themselves are read from the data folder.

Source: Born et al. 2021 (doi 10.3390/app11020672); severity: Gare et al. 2022. The mapping to the
paper's labels is an engineering choice, described at each function.
"""

from collections.abc import Collection
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from lusbio.cohorts.download import EMERGENCY_LICENSE, REGISTRY_FOLDER, how_to_get, read_published_table, read_registry
from lusbio.cohorts.table import Cohort, cell_problems, check_table
from lusbio.errors import CohortError, refuse
from lusbio.videos import VIDEO_SUFFIXES, videos_below
from lusbio.vocabulary import BIOMARKER_NAMES, PROBES, TASKS, group_names

NAME = "pocovid"
METADATA_FILE = "dataset_metadata.csv"
VIDEO_FOLDER = "pocus_videos"

DUPLICATES = {"Vir_or_Pneu_prospective_file4": "Vir_prospective_file1"}
"""Videos that are another one in a second crop. The metadata names ``Vir_prospective_file2`` as its
twin; the frames are those of file 1."""

HEALTHY, COVID, _, _, _, OTHER_LUNG, _ = TASKS["disease"].classes
DISEASES = {"regular": HEALTHY, "covid-19": COVID, "bacterial pneumonia": OTHER_LUNG, "viral pneumonia": OTHER_LUNG}
"""Class of the ``disease`` task by ``Label``, lower case."""

FINDINGS = {"A-lines": "A-lines", "B-lines": "B-lines", "Effusion": "effusion"}
FINDINGS |= dict.fromkeys(("Consolidations", "Air bronchogram"), "consolidation")
"""Biomarker group whose "none" a finding rules out. Pleural irregularity decides no biomarker."""

COLUMNS = (
    *("Filename", "URL (Video Name)", "Label", "Lung Severity Score", "License", "Type", "Probe"),
    *("Source ID", "Title", "Framerate", "Resolution", "Patient ID / Name", "Other", *FINDINGS),
)
"""Columns of the metadata that are used."""


def load_pocovid(folder: Path, *, include_emergency_license: bool = False) -> Cohort:
    """Read POCOVID as published.

    Args:
        folder: The local copy, with ``dataset_metadata.csv`` and
            ``pocus_videos/{convex,linear}/``. Part of the videos may be absent: they are left out
            of the table and counted in the notes.
        include_emergency_license: Take in the videos whose licence was granted for the pandemic
            only.

    Returns:
        Cohort ``"pocovid"``, both probes. ``patient_id`` is source and published id, which is
        **not** a patient key; split, and resample, by ``group_id`` (``conservative_groups``). It
        starts with the source, e.g. ``"18-northumbria_0409_set1"``. The notes say what was
        left out and why.

    Raises:
        CohortError: If the metadata or every video is missing (says how to get them), or if a row
            of a present video holds a value that is not understood: all of them at once.

    Source: data: Born et al. 2021; mapping: engineering choice.
    """
    folder = Path(folder)
    videos = read_videos(folder)
    paths = _video_paths(folder)
    present = videos[videos["Filename"].isin(paths)]
    _check_rows(present, folder / METADATA_FILE)
    barred = present["Filename"][(present["License"] == EMERGENCY_LICENSE) & (not include_emergency_license)]
    kept = present[~present["Filename"].isin({*barred, *DUPLICATES})]
    if kept.empty:
        raise CohortError(folder, [f"none of the videos has a row of labels that may be used; {how_to_get(NAME)}"])
    table = check_table(_table(kept, paths), folder)
    return Cohort(NAME, table, folder, notes=_notes(paths, present, len(barred)))


def conservative_groups(videos: pd.DataFrame) -> pd.Series:
    """Groups of videos that may show the same person, so that no split can leak.

    Two videos of one source belong together if they share the published patient id, or the web
    page or article they came from, or the set or batch in the file name (the name without the
    diagnosis in front and the clip number at the end), or are tied by a chain of such videos.
    Ids alone would not do: one clinic has an id per video although ``..._0409_set6_vid1`` to
    ``vid8`` are one set, and normal and diseased zones of one web case carry different labels.

    Args:
        videos: Rows of the metadata with ``Filename``, ``Source ID``, ``Patient ID / Name`` and
            ``URL (Video Name)``. Pass all of them, so that the groups do not depend on which
            videos are present.

    Returns:
        Group name by row: the source, a dash, and the group's first batch.

    Source: engineering choice.

    Example:
        >>> names = ["Pneu_clinic_set1_vid1", "Reg_clinic_set1_vid2", "Reg_clinic_set2_vid1"]
        >>> rows = pd.DataFrame({"Filename": names, "Source ID": "18", "Patient ID / Name": ["1", "2", "3"],
        ...                      "URL (Video Name)": "given by a clinic"})
        >>> conservative_groups(rows).tolist()
        ['18-clinic_set1', '18-clinic_set1', '18-clinic_set2']
    """
    source = videos["Source ID"]
    batch = videos["Filename"].str.lower().str.replace(r"^(?:(?:cov|pneu|reg|vir)[-_](?:or[-_])?)+", "", regex=True)
    batch = batch.str.replace(r"(?:_trimmed)?_crop$", "", regex=True)
    batch = batch.str.replace(r"(?:[-_](?:vid|img|clip|mov|file|v)|[-_ ])?\d+\)?$", "", regex=True)
    page = videos["URL (Video Name)"].str.extract(r"^https?://(?:www\.)?([^\s#?]+)", expand=False).str.rstrip("/")
    patient = videos["Patient ID / Name"].replace("", np.nan)
    groups = source + "-" + batch
    ties = [(source + "-" + tie).rename(None) for tie in (batch, patient, page)]
    while True:
        merged = groups
        for tie in ties:
            merged = merged.where(tie.isna(), merged.groupby(tie).transform("min"))
        if merged.equals(groups):
            return groups
        groups = merged


def read_videos(folder: Path) -> pd.DataFrame:
    """The metadata of the videos, as text.

    In some rows a comma within a comment made two cells of one, so that everything from ``Title``
    on stands one column too far right; the frame rate is then empty and the resolution a rate.
    These cells are put back.

    Args:
        folder: The local copy, with ``dataset_metadata.csv``.

    Returns:
        One row per video, absent ones too: ``COLUMNS``, ``group_id`` (``conservative_groups``), and
        ``slipped``, bool: whether cells were put back.

    Raises:
        CohortError: If the metadata is missing or lacks a column.
    """
    rows = read_published_table(folder, METADATA_FILE, NAME, COLUMNS)
    slipped = (rows["Framerate"] == "") & rows["Resolution"].str.fullmatch(r"\d+")
    cells = rows.loc[slipped, "Title":"Other"]
    rows.loc[slipped, "Title":"Other"] = cells.shift(-1, axis=1, fill_value="")
    videos = rows.assign(slipped=slipped)[rows["Type"].str.lower() == "video"]
    return videos.assign(group_id=conservative_groups(videos))


def _video_paths(folder: Path) -> dict[str, str]:
    """Path from the folder by file stem, for every video on disk."""
    places = [f"{VIDEO_FOLDER}/{probe}" for probe in PROBES]
    found = [f"{place}/{name}" for place in places for name in videos_below(folder / place)]
    if not found:
        raise CohortError(folder / VIDEO_FOLDER, [f"no videos below convex/ or linear/; {how_to_get(NAME)}"])
    paths = {PurePosixPath(path).stem: path for path in found}
    twins = [(path, paths[PurePosixPath(path).stem]) for path in found]
    refuse(folder, [f"{path} and {twin} have the same name" for path, twin in twins if path != twin])
    return paths


def _check_rows(present: pd.DataFrame, path: Path) -> None:
    """Raise with every cell of a present video that is not understood."""
    names, flags = present["Filename"], {"", "0", "1"}
    owners = "video " + names.map(repr)
    expected = {"Label": DISEASES, "Lung Severity Score": {"", *TASKS["lung_severity"].classes}, "Probe": PROBES}
    expected |= dict.fromkeys(FINDINGS, flags) | {"Source ID": {*present["Source ID"]} - {""}}
    problems = []
    for column, values in expected.items():
        cells = present[column].str.lower()
        words = "one of " + ", ".join(sorted(value or "empty" for value in values))
        problems += cell_problems(owners, cells, cells.isin(values), words)
    rates = present["Framerate"]
    problems += cell_problems(owners, rates, rates.str.fullmatch(r"\d+(\.\d+)?|n/a|"), "a number, n/a or empty")
    problems += [f"video {video!r} has more than one row" for video in sorted(set(names[names.duplicated()]))]
    refuse(path, problems)


def _table(kept: pd.DataFrame, paths: dict[str, str]) -> pd.DataFrame:
    """The cohort's table from rows of the metadata."""
    patient = kept["Patient ID / Name"].where(kept["Patient ID / Name"] != "", kept["Filename"])
    table = pd.DataFrame(
        {
            "video_id": kept["Filename"],
            "patient_id": kept["Source ID"] + "-" + patient,
            "group_id": kept["group_id"],
            "path": kept["Filename"].map(paths),
            "probe": kept["Probe"].str.lower(),
            "fps": pd.to_numeric(kept["Framerate"], errors="coerce"),
            "lung_severity": kept["Lung Severity Score"],
            "disease": kept["Label"].str.lower().map(DISEASES),
        }
    )
    bits = pd.DataFrame([biomarkers_of(row) for row in kept.to_dict("records")], index=kept.index)
    return table.join(bits).sort_values(["group_id", "video_id"])


def biomarkers_of(findings: dict[str, str]) -> dict[str, float]:
    """What the flags of the metadata decide of the 38 biomarkers.

    A finding that is 1 says that its group's "none" is 0. A finding that is 0 was not mentioned,
    which decides nothing.

    Args:
        findings: ``"1"``, ``"0"`` or ``""`` by column of the metadata, all of ``FINDINGS``.

    Returns:
        0 (absent) or NaN (unknown) by biomarker name, all 38.

    Source: engineering choice.
    """
    seen = {group_names(group)[0] for finding, group in FINDINGS.items() if findings[finding] == "1"}
    return dict.fromkeys(BIOMARKER_NAMES, np.nan) | dict.fromkeys(seen, 0.0)


def find_sources(groups: np.ndarray) -> np.ndarray:
    """Where videos come from: the part of POCOVID's group names before the first dash.

    Args:
        groups: Group of each video, (V,), text.

    Returns:
        Source of each video, (V,), text.

    Example:
        >>> find_sources(np.array(["18-clinic_set1", "2-atlas"])).tolist()
        ['18', '2']
    """
    return np.array([group.partition("-")[0] for group in groups])


def _notes(paths: Collection[str], present: pd.DataFrame, n_barred: int) -> tuple[str, ...]:
    upstream = [PurePosixPath(path) for path in read_registry(NAME)["path"]]
    names = set(present["Filename"])
    total = len({path.stem for path in upstream if path.suffix.lower() in VIDEO_SUFFIXES} | names)
    unlabelled, mended = sorted(set(paths) - names), sorted(present["Filename"][present["slipped"]])
    barred = f"{n_barred} videos under the {EMERGENCY_LICENSE!r} left out; include_emergency_license=True takes them in"
    said = {
        barred: n_barred,
        **{f"{name} left out: the same video as {twin}": name in names for name, twin in DUPLICATES.items()},
        f"{len(unlabelled)} videos without a row in {METADATA_FILE} left out: {', '.join(unlabelled)}": unlabelled,
        f"cells slipped by one column in {METADATA_FILE}, put back: {', '.join(mended)}": mended,
    }
    return (
        f"{len(names)} of {total} videos present",
        *(note for note, holds in said.items() if holds),
        "published patient ids are not reliable: split and resample by group_id",
        "three of the seven diseases occur, and diagnosis is confounded with source",
        "findings are noted where they were seen, never as absent, so no biomarker can be learnt from them",
    )


def read_public_raters(data_folder: Path) -> pd.DataFrame:
    """The grades of both raters for the videos that both rated. No video is needed for it.

    Args:
        data_folder: Holds ``pocovid/`` and ``covidx_us/`` (at least their tables).

    Returns:
        One row per video: ``video_id`` (POCOVID's), ``group_id`` (what may show one person, see
        ``conservative_groups``), ``pocovid`` and ``covidx_us`` (class indices of ``lung_severity``, int64),
        ``matched_by`` (how the pair was found; matches by title are the least certain).

    Raises:
        CohortError: If a table is missing (says how to get it), or a pair has no grade there.

    Source: the matching is ours, by file name, by title and by hand.
    """
    data_folder = Path(data_folder)
    pairs = pd.read_csv(REGISTRY_FOLDER / "two_raters.csv")
    rows = read_videos(data_folder / NAME).drop_duplicates("Filename").set_index("Filename")
    scores = read_published_table(data_folder / "covidx_us", "LUSS_metadata.csv", "covidx_us", ["id", "LUSS"])
    names, grades = pairs["pocovid_filename"], pd.Index(TASKS["lung_severity"].classes)
    found = pd.DataFrame({"video_id": names, "group_id": names.map(rows["group_id"])})
    found["pocovid"] = grades.get_indexer(names.map(rows["Lung Severity Score"]))
    found["covidx_us"] = grades.get_indexer(pairs["covidx_us_id"].map(scores.set_index("id")["LUSS"]))
    problems = [
        f"no grade of {column} for video {video!r}; is this the published table?"
        for column in ("pocovid", "covidx_us")
        for video in names[found[column] < 0]
    ]
    refuse(data_folder, problems)
    return found.assign(matched_by=pairs["matched_by"])
