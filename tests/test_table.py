import numpy as np
import pandas as pd
import pytest

from lusbio.cohorts.covid_blues import load_covid_blues
from lusbio.cohorts.table import (
    COLUMNS,
    NUMBER_COLUMNS,
    check_table,
    find_determined_classes,
    is_inside,
    read_table,
    table_problems,
    write_table,
)
from lusbio.errors import CohortError
from lusbio.files import write_csv
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import trainee_table, truth_table
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

GOOD = pd.DataFrame({"video_id": ["a", "b"], "patient_id": ["1", "2"], "path": ["a.mp4", "deep/b.mp4"]})


def problems_of(**columns) -> list[str]:
    with pytest.raises(CohortError) as raised:
        check_table(GOOD.assign(**columns), "here")
    return list(raised.value.problems)


def test_a_tidied_table_has_all_columns_and_stays_what_it_is():
    table = check_table(GOOD, "here")
    assert tuple(table.columns) == COLUMNS and table_problems(table) == []
    pd.testing.assert_frame_equal(check_table(table, "here"), table)
    assert (table.dtypes[[*NUMBER_COLUMNS, *BIOMARKER_NAMES]] == "float64").all()


def test_a_table_reads_as_it_was_written(tmp_path):
    columns = {
        "lung_severity": ["3", None],
        "sf_value": [180.5, np.nan],
        BIOMARKER_NAMES[4]: [np.nan, 1],
        "zone": ["R1", "01"],
    }
    table = check_table(GOOD.assign(**columns), "here")
    write_table(table, tmp_path / "cohort.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "cohort.csv"), table)


@pytest.mark.parametrize(
    ("column", "cells", "found", "expected"),
    [
        ("video_id", ["a", None], "empty", "a value"),
        ("patient_id", ["1", " "], "empty", "a value"),
        ("video_id", ["a", "a"], "'a'", "a value that no other row has"),
        ("path", ["a.mp4", "../b.mp4"], "'../b.mp4'", "a path inside the folder"),
        ("probe", [None, "sector"], "'sector'", "one of linear, convex"),
        ("lung_severity", [3.0, 4.0], "'4'", "one of 0, 1, 2, 3"),
        ("specialist_lung_severity", ["2.0", "low"], "'low'", "one of 0, 1, 2, 3"),
        ("sf_ratio", [">430", "430"], "'430'", "one of >430, 275-430, 180-275, <180"),
        ("fps", [25, 0], "0.0", "a number above 0"),
        ("depth_mm", [None, "deep"], "'deep'", "a number above 0"),
        ("sf_value", [460, np.inf], "inf", "a number above 0"),
        (BIOMARKER_NAMES[7], [0, 0.5], "0.5", "1 (present), 0 (absent) or empty (unknown)"),
        (BIOMARKER_NAMES[7], [1, "yes"], "'yes'", "1 (present), 0 (absent) or empty (unknown)"),
    ],
)
def test_a_wrong_cell_is_named_with_what_was_expected(column, cells, found, expected):
    video = cells[1] or np.nan if column == "video_id" else "b"
    line = f"row 3, video {video!r}: column {column!r} is {found}, expected {expected}"
    assert problems_of(**{column: cells}) == [line]


def test_two_options_of_a_group_where_one_can_be_are_named():
    ticked = {"b_lines_none": [1, 0], "b_lines_few": [1, 1], "a_lines_bold": [1, 0], "a_lines_wide": [1, 0]}
    (line,) = problems_of(**ticked)
    assert (
        line
        == "row 2, video 'a': columns 'b_lines_none' and 'b_lines_few' are 1, expected one option of 'B-lines' at most"
    )


def test_a_patient_has_one_value_of_what_belongs_to_the_patient(tmp_path):
    table = pd.DataFrame({"video_id": ["a", "b"], "patient_id": ["p", "p"], "path": ["a.mp4", "b.mp4"]})
    for columns, right in (({"exam": [1, 2]}, True), ({"exam": [1, 1]}, False), ({}, False)):
        write_csv(table.assign(disease=["healthy", "COVID pneumonia"], **columns), tmp_path / "cohort.csv")
        if right:
            read_table(tmp_path / "cohort.csv")
            continue
        with pytest.raises(
            CohortError, match="patient_id 'p': column 'disease' is 'healthy', 'COVID pneumonia', expected one"
        ):
            read_table(tmp_path / "cohort.csv")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_of_a_spreadsheet_in_another_language_says_how_to_save_it(tmp_path, mark):
    (tmp_path / "cohort.csv").write_text(mark.join(["video_id", "patient_id", "path"]) + "\n")
    with pytest.raises(CohortError, match="separated by semicolons or tabs; save it as CSV with commas, in UTF-8"):
        read_table(tmp_path / "cohort.csv")


def test_empty_rows_below_the_last_one_are_none(tmp_path):
    (tmp_path / "cohort.csv").write_text("video_id,patient_id,path\na,1,a.mp4\n,,\n,,\n")
    assert read_table(tmp_path / "cohort.csv")["video_id"].tolist() == ["a"]


def test_all_wrong_cells_come_at_once_beside_what_is_wrong_with_columns():
    problems = problems_of(probe=["?", "!"], fps=[-1, 25], lung_sevrity=1, patient_id="1", group_id=["g", "h"])
    assert len(problems) == 5
    assert problems[0] == "unknown column 'lung_sevrity' (is 'lung_severity' meant?)"
    assert problems[-1].startswith("patient_id '1' stands in 2 groups ('g', 'h')")
    assert table_problems(GOOD.drop(columns="path").iloc[:0]) == [
        "column 'path' is missing",
        "no rows: a cohort has at least one video",
    ]


def test_only_a_relative_path_that_does_not_climb_is_inside():
    assert [is_inside(path) for path in ("a.mp4", "b/c.mp4", "..mp4")] == [True] * 3
    assert [is_inside(path) for path in ("/a.mp4", "b/../../c.mp4", "..", np.nan, None)] == [False] * 5


def test_cells_that_mean_nothing_to_others_are_text(tmp_path):
    """``NA`` is a name as good as any; a trailing comma and a byte order mark are no columns."""
    (tmp_path / "cohort.csv").write_bytes(b"\xef\xbb\xbfvideo_id,patient_id,path\nNA,007,a.mp4,\nnull,1.0,b.mp4,\n")
    table = read_table(tmp_path / "cohort.csv")
    assert table["video_id"].tolist() == ["NA", "null"] and table["group_id"].tolist() == ["007", "1.0"]


def test_nothing_is_written_of_a_wrong_table(tmp_path):
    with pytest.raises(CohortError, match="probe"):
        write_table(GOOD.assign(probe="?"), tmp_path / "cohort.csv")
    assert not list(tmp_path.iterdir())


def test_a_biomarker_that_is_a_class_under_another_name_is_found():
    table = pd.DataFrame({"disease": ["healthy"] * 6 + ["COVID pneumonia"] * 6 + [None]})
    table["same"] = [1.0] * 6 + [0.0] * 5 + [np.nan, 1.0]
    table["often"] = [1.0] * 5 + [0.0] + [0.0] * 6 + [1.0]  # a healthy video without it is there
    table["always_ill"] = [0.0] * 6 + [1.0] * 5 + [0.0, 0.0]  # so are ill ones without this
    table["one_value"], table["rare"] = 1.0, [1.0] + [np.nan] * 5 + [0.0] * 7
    found = find_determined_classes(table, ["same", "often", "always_ill", "one_value", "rare"], "disease")
    assert found.to_numpy().tolist() == [["same", 0, "COVID pneumonia", 5], ["same", 1, "healthy", 6]]


def test_labels_made_of_the_diagnosis_are_found():
    """As POCOVID's once were: no effusion where the metadata call a lung healthy."""
    table = pd.DataFrame({"disease": ["healthy"] * 38 + ["COVID pneumonia"] * 14 + ["other lung disease"] * 30})
    table["effusion_none"] = [1.0] * 38 + [np.nan] * 36 + [0.0] * 8
    found = find_determined_classes(table, ["effusion_none"], "disease").to_numpy().tolist()
    assert ["effusion_none", 1, "healthy", 38] in found


@pytest.mark.parametrize(("patients", "probe"), [(24, "linear"), (189, "linear"), (189, "convex")])
@pytest.mark.parametrize("task", TASKS)
def test_what_severity_is_graded_by_does_not_give_it_away(patients, probe, task):
    recordings = simulate_recordings(patients, 0, probe)
    for table in (trainee_table(recordings, ".mp4"), truth_table(recordings)):
        assert find_determined_classes(table, BIOMARKER_NAMES, task).empty


@pytest.mark.parametrize("task", TASKS)
def test_findings_of_covid_blues_give_no_class_away(data_folder, task):
    table = load_covid_blues(data_folder / "covid_blues").table
    learnt = [name for name in BIOMARKER_NAMES if table[name].nunique() == 2]
    assert learnt == ["a_lines_none", "b_lines_none"] and find_determined_classes(table, learnt, task).empty
