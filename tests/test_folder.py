from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lusbio.cohorts.load import PUBLISHED_NAMES, cohort_name, load_folder, path_problems
from lusbio.cohorts.table import COLUMNS
from lusbio.errors import CohortError
from lusbio.videos import VIDEO_SUFFIXES
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS


def write_folder(folder: Path, **columns) -> Path:
    """Two patients with two videos each, as empty files, and a table with more columns if given."""
    videos = ["a1", "a2", "b1", "b2"]
    table = pd.DataFrame(
        {"video_id": videos, "patient_id": [v[0] for v in videos], "path": [f"videos/{v}.mp4" for v in videos]}
    )
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    for path in table["path"]:
        (folder / path).touch()
    table.assign(**columns).to_csv(folder / "cohort.csv", index=False)
    return folder


def test_a_folder_needs_three_columns_only(tmp_path):
    cohort = load_folder(write_folder(tmp_path / "ward 7"))
    assert cohort.name == "ward_7" and cohort.notes == () and not cohort.simulated
    assert list(cohort.table.columns) == list(COLUMNS)
    assert cohort.table["group_id"].tolist() == ["a", "a", "b", "b"]
    assert cohort.table[list(BIOMARKER_NAMES)].isna().all(axis=None)
    assert all(path.is_file() for path in cohort.video_paths())


def test_labels_are_read(tmp_path):
    biomarker = BIOMARKER_NAMES[3]
    columns = {"lung_severity": [0, 1, None, 3], biomarker: [1, 0, None, 1], "sf_value": [460, None, 300, None]}
    table = load_folder(write_folder(tmp_path, **columns)).table
    assert table["lung_severity"].tolist()[:2] == ["0", "1"] and pd.isna(table["lung_severity"][2])
    np.testing.assert_array_equal(table[biomarker], [1, 0, np.nan, 1])
    ranges = TASKS["sf_ratio"].classes
    assert table["sf_ratio"].tolist()[::2] == [ranges[0], ranges[1]]


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_every_type_of_video_is_taken_in_either_case(tmp_path, suffix):
    paths = ["one" + suffix, "two" + suffix.upper()]
    for path in paths:
        (tmp_path / path).touch()
    table = pd.DataFrame({"video_id": ["1", "2"], "path": paths})
    assert path_problems(table, tmp_path) == []


def test_all_missing_files_are_listed_at_once(tmp_path):
    write_folder(tmp_path)
    for video in ("a2", "b1"):
        (tmp_path / f"videos/{video}.mp4").unlink()
    with pytest.raises(CohortError) as raised:
        load_folder(tmp_path)
    assert len(raised.value.problems) == 2
    assert "video 'a2': no file 'videos/a2.mp4'" in str(raised.value)
    assert "video 'b1': no file 'videos/b1.mp4'" in str(raised.value)


def test_files_that_are_no_videos_and_files_named_twice_are_refused(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/notes.txt").touch()
    write_folder(tmp_path, path=["videos/a1.mp4", "./videos/a1.mp4", "videos/notes.txt", "videos/b2.mp4"])
    with pytest.raises(CohortError) as raised:
        load_folder(tmp_path)
    assert "column 'path' is 'videos/a1.mp4' in 2 rows" in str(raised.value)
    assert "column 'path' is 'videos/notes.txt', expected one of .mp4" in str(raised.value)


def test_a_table_that_is_missing_or_wrong_is_refused(tmp_path):
    with pytest.raises(CohortError, match=r"cohort\.csv: no such file"):
        load_folder(tmp_path)
    with pytest.raises(CohortError, match="'severty'.*lung_severity|lung_severity.*'4'"):
        load_folder(write_folder(tmp_path, lung_severity=[0, 1, 2, 4]))


def test_videos_without_a_row_are_counted_in_the_notes(tmp_path):
    write_folder(tmp_path)
    for name in ("videos/c1.mp4", "c2.AVI", "videos/.hidden.mp4", "readme.txt"):
        (tmp_path / name).touch()
    (note,) = load_folder(tmp_path).notes
    assert note.startswith("2 videos in the folder have no row") and "c2.AVI, videos/c1.mp4" in note


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_no_folder_gets_the_name_of_a_cohort_whose_figures_are_committed(tmp_path, name):
    for written in (name, name.upper(), f"-{name}", f"{name} "):
        assert cohort_name(tmp_path / written).lower() not in PUBLISHED_NAMES


@pytest.mark.parametrize("name", ["..hidden", "ward/../x y", "ü", "a" * 5, "_", "St. Mary's"])
def test_a_name_is_safe_as_a_folder(tmp_path, name):
    safe = cohort_name(tmp_path / name)
    assert safe and Path(safe).name == safe and not safe.startswith((".", "-"))
    assert set(safe) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
