import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lusbio.cohorts.load import LOADERS, check_cohort, describe_cohort, load_folder
from lusbio.errors import LusbioError
from lusbio.videos import encode_video
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS, group_names

real_data = pytest.mark.skipif("LUSBIO_DATA" not in os.environ, reason="LUSBIO_DATA is not set")

VIDEOS = ("a1", "a2", "b1", "c1")


@pytest.fixture
def folder(tmp_path):
    """A small cohort: three patients, four videos of 8 to 11 frames, every one different."""
    folder = tmp_path / "ward"
    for index, video in enumerate(VIDEOS):
        frames = np.full((8 + index, 32, 32), 60, np.uint8)
        frames[:, 8 + index] = 200
        encode_video(frames, folder / f"{video}.mp4", 10)
    write_table(folder)
    return folder


def write_table(folder: Path, **columns) -> None:
    table = pd.DataFrame(
        {
            "video_id": VIDEOS,
            "patient_id": ["a", "a", "b", "c"],
            "path": [f"{v}.mp4" for v in VIDEOS],
            "probe": ["linear", "linear", "convex", None],
            "lung_severity": [0, 0, 3, None],
            group_names("effusion")[0]: [1, 0, None, None],
        }
    )
    table.assign(**columns).to_csv(folder / "cohort.csv", index=False)


def test_a_good_cohort_has_no_problems(folder):
    assert check_cohort(folder) == check_cohort(str(folder)) == []


def test_a_description_counts_videos_patients_and_labels(folder):
    text = describe_cohort(load_folder(folder))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "ward (real): 4 videos of 3 patients, 3 groups"
    severity = lines.index("Lung severity:")
    assert lines[severity + 1 : severity + 6] == [
        "0 2 videos of 1 patients",
        "1 0 videos of 0 patients",
        "2 0 videos of 0 patients",
        "3 1 videos of 1 patients",
        "unlabelled 1 videos of 1 patients",
    ]
    assert "Disease: no labels" in lines
    assert "effusion 1 / 1 / 10" in lines and "A-lines 0 / 0 / 20" in lines
    assert "Probes: 2 linear, 1 convex, 1 unknown" in lines
    assert "Frames: 8 to 11 per video, 38 in all" in lines


def test_a_description_ends_with_the_notes(folder):
    shutil.copy(folder / "a1.mp4", folder / "extra.mp4")
    assert "Note: 1 videos in the folder have no row" in describe_cohort(load_folder(folder)).splitlines()[-1]


def test_all_problems_come_at_once(folder):
    write_table(
        folder,
        lung_severity=[0, 7, 3, None],
        group_id=["g1", "g2", "b", "c"],
        b_lines_fewer=1,
        **{BIOMARKER_NAMES[0]: [1, 0, 2, None]},
    )
    (folder / "a1.mp4").unlink()
    (folder / "b1.mp4").write_bytes((folder / "b1.mp4").read_bytes()[:300])
    (folder / "c1.mp4").write_text("<html>please log in</html>")
    problems = check_cohort(folder)
    for expected in (
        "'lung_severity' is '7'",
        "patient_id 'a' stands in 2 groups",
        "unknown column 'b_lines_fewer'",
        f"column {BIOMARKER_NAMES[0]!r} is",
        "video 'a1': no file 'a1.mp4'",
        "b1.mp4 (300 bytes)",
        "c1.mp4 (",
    ):
        assert sum(expected in problem for problem in problems) == 1, (expected, problems)


def test_a_truncated_video_is_found_by_counting_frames(folder):
    frames = np.random.default_rng(0).integers(0, 255, (60, 64, 64), np.uint8)
    encode_video(frames, folder / "a1.mp4", 10)
    content = (folder / "a1.mp4").read_bytes()
    assert check_cohort(folder) == []
    # Rubbish in the middle leaves the index of frames whole.
    quarter = len(content) // 4
    (folder / "a1.mp4").write_bytes(content[:quarter] + bytes(len(content) - 2 * quarter) + content[-quarter:])
    (problem,) = check_cohort(folder)
    assert problem.startswith("video 'a1'") and "a1.mp4" in problem


def test_equal_files_in_two_groups_are_a_leak(folder):
    shutil.copy(folder / "a1.mp4", folder / "a2.mp4")
    assert check_cohort(folder) == []  # one patient may be recorded twice into one file
    shutil.copy(folder / "a1.mp4", folder / "c1.mp4")
    (problem,) = check_cohort(folder)
    assert "the same file in several groups" in problem and "'c1' (group 'c')" in problem


def test_no_folder_and_no_table_are_one_problem_each(tmp_path):
    (problem,) = check_cohort(tmp_path / "nowhere")
    assert "no such file" in problem
    (tmp_path / "table.csv").touch()
    (problem,) = check_cohort(tmp_path / "table.csv")
    assert problem == f"{tmp_path / 'table.csv'} is a file, expected the folder that holds cohort.csv and the videos"
    (tmp_path / "cohort.csv").write_bytes(b"\xff\xfe\x00 not text")
    (problem,) = check_cohort(tmp_path)
    assert "not a comma-separated table" in problem


@pytest.mark.parametrize("path", ["/etc/hosts", "../secret.mp4"])
def test_files_outside_the_folder_are_not_opened(folder, path):
    write_table(folder, path=["a1.mp4", "a2.mp4", "b1.mp4", path])
    (problem,) = check_cohort(folder)
    assert "expected a path inside the folder" in problem


def test_a_public_cohort_that_is_not_here_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    for name in LOADERS:
        (problem,) = check_cohort(name)
        assert f"lusbio fetch {name}" in problem


def test_a_cohort_with_a_broken_video_is_not_described(folder):
    (folder / "b1.mp4").write_bytes(b"nothing")
    with pytest.raises(LusbioError, match=r"'ward' cannot be described: .*b1\.mp4"):
        describe_cohort(load_folder(folder))


def test_every_task_is_described(folder):
    text = describe_cohort(load_folder(folder))
    assert all(f"{task.title}:" in text for task in TASKS.values())
