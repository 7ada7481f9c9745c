"""Later exams of simulated patients, the column that says which exam, and who is compared with whom."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from lusbio.cohorts import synthetic
from lusbio.cohorts.pairs import pair_exams, pair_mirrors
from lusbio.cohorts.synthetic import simulate_cohort, simulate_exams
from lusbio.cohorts.table import COLUMNS, EXAM, check_table, exams_of
from lusbio.errors import CohortError, LusbioError
from lusbio.files import file_sha256
from lusbio.simulation.exams import later_exam
from lusbio.simulation.population import simulate_recordings

SMALL = {"patients": 3, "size": 32, "frames": (3, 5)}


def hashes(cohort) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in cohort.video_paths()}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exams")
    first = simulate_cohort(folder / "first", **SMALL)
    return first, hashes(first), simulate_exams(first, folder / "second")


@pytest.fixture(scope="module")
def recordings():
    first = simulate_recordings(189, seed=0)
    return first, later_exam(first, 2)


# --- the simulator ---


def test_the_first_exam_stays_byte_for_byte_what_it_is(both, tmp_path):
    first, before, exams = both
    assert before.items() <= hashes(exams).items() and hashes(simulate_cohort(tmp_path, **SMALL)) == before
    kept = exams.table[exams.table[EXAM] == 1].drop(columns=[EXAM, "path"])
    pd.testing.assert_frame_equal(kept, first.table.drop(columns="path"))
    assert not any("exams" in place for place in synthetic._CODE), "its code decides nothing about the first exam"


def test_any_number_of_workers_gives_the_same_bytes(both, tmp_path):
    first, _, exams = both
    again = simulate_exams(first, tmp_path / "again", jobs=2)
    assert hashes(again) == hashes(exams)
    pd.testing.assert_frame_equal(again.table.drop(columns="path"), exams.table.drop(columns="path"))


def test_both_exams_are_one_cohort_with_truth(both):
    first, _, exams = both
    assert (exams.name, exams.simulated, len(exams.table)) == ("synthetic_exams", True, 2 * len(first.table))
    later = exams.table["video_id"][exams.table[EXAM] == 2]
    assert later.tolist() == (first.table["video_id"] + "_e2").tolist()
    assert exams.truth["video_id"].tolist() == exams.table["video_id"].tolist()
    assert all(path.is_file() for path in exams.video_paths())


def test_person_scanner_and_places_stay(recordings):
    for before, after in zip(*recordings, strict=True):
        assert before.zone == after.zone and before.patient_id == after.patient_id
        stays = {"aeration_loss": 0, "sf_value": 0}
        assert before.patient._replace(**stays) == after.patient._replace(**stays)
        if before.patient.a_profile_only:
            assert before.patient.aeration_loss == after.patient.aeration_loss and after.severity < 0.5


def test_there_is_an_answer_in_the_labels(recordings):
    parts = [[(r.patient_id, r.severity, r.patient.sf_value) for r in exam] for exam in recordings]
    tables = [pd.DataFrame(part, columns=["patient", "severity", "sf"]).groupby("patient").mean() for part in parts]
    change = tables[1] - tables[0]
    moved = change[change["sf"].abs() > 20]
    assert spearmanr(change["severity"], change["sf"])[0] < -0.5
    assert ((moved["severity"] < 0) == (moved["sf"] > 0)).mean() > 0.75
    assert 10 < change["sf"].abs().median() < 30 and change["sf"].abs().quantile(0.9) > 60


def test_draws_of_a_patient_depend_on_no_other(recordings):
    first, later = recordings
    some = [r for r in first if r.patient.index in (7, 150)]
    assert later_exam(some, 2) == [r for r in later if r.patient.index in (7, 150)]


def test_a_third_exam_follows_the_second(recordings):
    third = later_exam(recordings[1], 3)
    assert third[0].video_id == "p0001_v01_e3" and third[0].severity != recordings[1][0].severity
    for exam in (1, 2, 4):
        with pytest.raises(LusbioError, match=f"exam is {exam}: it is made from the recordings of exam {exam - 1}"):
            later_exam(recordings[1], exam)


# --- the column ---

GOOD = pd.DataFrame({"video_id": ["a", "b"], "patient_id": ["1", "1"], "path": ["a.mp4", "b.mp4"]})


def test_a_cohort_without_the_column_is_the_first_exam_and_stays_without():
    table = check_table(GOOD, "here")
    assert tuple(table.columns) == COLUMNS and exams_of(table).tolist() == [1, 1]


def test_an_empty_cell_is_the_first_exam():
    assert exams_of(check_table(GOOD.assign(exam=["2", None]), "here")).tolist() == [2, 1]


@pytest.mark.parametrize("wrong", ["0", "1.5", "second", "-1"])
def test_a_wrong_exam_is_named(wrong):
    with pytest.raises(CohortError, match="video 'b': column 'exam' is .*, expected a whole number from 1 on"):
        check_table(GOOD.assign(exam=["1", wrong]), "here")


# --- pairs ---


def visits(*rows: tuple) -> pd.DataFrame:
    """Patient, zone and exam of each video; its name is its number."""
    table = pd.DataFrame(rows, columns=["patient_id", "zone", "exam"])
    return table.assign(video_id=[f"v{k:02d}" for k in table.index], group_id=table["patient_id"])


def paired(table: pd.DataFrame, pair=pair_exams) -> list[tuple]:
    return list(map(tuple, pair(table)[["earlier", "later"]].to_numpy()))


def test_pairs_join_neither_patients_nor_places_and_skip_no_exam():
    rng = np.random.default_rng(0)
    rows = [(f"p{p}", zone, exam) for p in range(9) for zone in ("L1", "R1", "R2") for exam in (1, 2, 3, 4)]
    table = visits(*[row for row in rows if rng.random() < 0.7])
    found = pair_exams(table)
    first, second = (table.loc[found[side]].reset_index() for side in ("earlier", "later"))
    assert (first["patient_id"] == second["patient_id"]).all() and (first["zone"] == second["zone"]).all()
    assert (found["group"] == first["patient_id"]).all()
    came = {p: sorted(set(of["exam"])) for p, of in table.groupby("patient_id")}
    steps = [
        came[p].index(b) - came[p].index(a)
        for p, a, b in zip(first["patient_id"], first["exam"], second["exam"], strict=True)
    ]
    assert set(steps) == {1}


def test_the_order_of_rows_means_nothing():
    table = visits(("a", "L1", 2), ("a", "L1", 1), ("b", "L1", 3), ("a", "L1", 3))
    assert paired(table) == [(0, 3), (1, 0)]


def test_an_exam_that_is_there_twice_is_paired_first_with_first():
    table = visits(("a", "L1", 1), ("a", "L1", 1), ("a", "L1", 2))
    assert paired(table) == [(0, 2)]
    assert paired(visits(("a", None, 1), ("a", None, 2), ("a", None, 1), ("a", None, 2))) == [(0, 1), (2, 3)]


def test_exams_of_one_patient_need_no_common_numbers():
    assert paired(visits(("a", "L1", 1), ("a", "L1", 5), ("b", "L1", 5))) == [(0, 1)]


def test_one_exam_gives_no_pair():
    assert paired(visits(("a", "L1", 1), ("b", "L1", 1)).drop(columns="exam")) == []


def test_mirrors_are_left_then_right_of_one_place():
    table = visits(("a", "R1", 1), ("a", "L1", 1), ("a", "L2", 1), ("b", "R2", 1), ("a", None, 1))
    assert paired(table, pair_mirrors) == [(1, 0)]
