"""The synthetic cohort on disk: complete, reproducible whatever the workers, restartable."""

import json
from unittest import mock

import pandas as pd
import pytest

from lusbio.cohorts.synthetic import read_synthetic, simulate_cohort
from lusbio.cohorts.table import COLUMNS
from lusbio.errors import CohortError
from lusbio.files import file_sha256
from lusbio.videos import decode_video
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

SMALL = {"patients": 3, "size": 32, "frames": (3, 5)}


def hashes(cohort):
    return {path.name: file_sha256(path) for path in cohort.video_paths()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(tmp_path_factory.mktemp("synthetic"), **SMALL)


def test_the_table_holds_every_column_and_no_unknown_label(cohort):
    assert cohort.name == "synthetic"
    assert cohort.simulated
    assert tuple(cohort.table.columns) == COLUMNS
    assert cohort.table.notna().all().all()
    assert cohort.table["video_id"].is_unique
    assert cohort.table.groupby("patient_id").size().min() >= 2
    assert (cohort.table["group_id"] == cohort.table["patient_id"]).all()


def test_truth_has_one_row_per_video_in_the_same_order(cohort):
    assert list(cohort.truth["video_id"]) == list(cohort.table["video_id"])
    assert list(cohort.truth.columns) == ["video_id", *TASKS, *BIOMARKER_NAMES]
    for name, task in TASKS.items():
        assert set(cohort.truth[name]) <= set(task.classes)
        if task.level == "patient":
            assert list(cohort.truth[name]) == list(cohort.table[name])
    assert cohort.truth[list(BIOMARKER_NAMES)].isin([0.0, 1.0]).all().all()


def test_videos_decode_to_the_asked_sizes(cohort):
    for path in cohort.video_paths():
        frames = decode_video(path, 32)
        assert frames.shape[1:] == (32, 32)
        assert 3 <= len(frames) <= 5
        assert frames.max() > 60


def test_two_workers_give_the_same_bytes_as_one(cohort, tmp_path):
    again = simulate_cohort(tmp_path, **SMALL, jobs=2)
    assert hashes(again) == hashes(cohort)
    pd.testing.assert_frame_equal(again.table, cohort.table)
    pd.testing.assert_frame_equal(again.truth, cohort.truth)


def test_a_killed_call_is_taken_up_where_it_stopped(cohort, tmp_path):
    first = simulate_cohort(tmp_path, **SMALL)
    before = hashes(first)
    kept, lost = first.video_paths()[0], first.video_paths()[1]
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    (tmp_path / "cohort.csv").unlink()
    with pytest.raises(CohortError, match="no cohort.csv"):
        read_synthetic(tmp_path)
    assert hashes(simulate_cohort(tmp_path, **SMALL)) == before
    assert kept.stat().st_mtime_ns == stamp


def test_a_complete_cohort_is_only_read(cohort):
    stamps = [path.stat().st_mtime_ns for path in [*cohort.video_paths(), cohort.folder / "cohort.csv"]]
    simulate_cohort(cohort.folder, **SMALL)
    assert [path.stat().st_mtime_ns for path in [*cohort.video_paths(), cohort.folder / "cohort.csv"]] == stamps


def test_arrays_of_a_machine_without_av_stay_what_they_are(tmp_path):
    with mock.patch("lusbio.cohorts.synthetic.can_encode", return_value=False):
        made = simulate_cohort(tmp_path, **SMALL)
    assert {path.suffix for path in made.video_paths()} == {".npy"}
    assert hashes(simulate_cohort(tmp_path, **SMALL)) == hashes(made)  # av is there now


def test_other_parameters_make_the_cohort_anew(tmp_path):
    first = hashes(simulate_cohort(tmp_path, **SMALL))
    other = simulate_cohort(tmp_path, **SMALL, seed=1)
    assert json.loads((tmp_path / "simulation.json").read_text())["seed"] == 1
    assert len(list((tmp_path / "videos").iterdir())) == len(other.table)
    assert not set(first.values()) & set(hashes(other).values())


def test_a_lost_video_is_named(cohort, tmp_path):
    broken = simulate_cohort(tmp_path, **SMALL)
    broken.video_paths()[0].unlink()
    with pytest.raises(CohortError, match=broken.table["path"].iloc[0]):
        read_synthetic(tmp_path)


def test_foreign_videos_are_never_overwritten(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(CohortError, match="not made by the simulator"):
        simulate_cohort(tmp_path, **SMALL)
    assert (tmp_path / "videos" / "mine.mp4").read_bytes() == b"mine"


def test_a_convex_cohort_has_its_own_name(tmp_path):
    cohort = simulate_cohort(tmp_path, patients=1, size=32, frames=(2, 2), probe="convex")
    assert cohort.name == "synthetic_convex"
    assert set(cohort.table["probe"]) == {"convex"}
    assert cohort.table["depth_mm"].min() >= 80


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"size": 33}, "size is 33"), ({"frames": (5, 2)}, "frames is"), ({"patients": 0}, "patients")],
)
def test_wrong_parameters_are_named(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        simulate_cohort(tmp_path, **SMALL | wrong)
