import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lusbio.cohorts.covid_blues import DIAGNOSES, biomarkers_of, estimate_fio2, load_covid_blues, sf_of
from lusbio.cohorts.download import read_published_table
from lusbio.errors import CohortError
from lusbio.files import data_folder
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS, group_names

real_data = pytest.mark.skipif("LUSBIO_DATA" not in os.environ, reason="LUSBIO_DATA is not set")

AIR, OXYGEN, LITRES = "oxygen_saturation_without_ox", "oxygen_saturation_with_ox", "oxygen_liter"
HEALTHY, COVID, BACTERIAL = list(DIAGNOSES)[:3]

# Made-up rows with the dirt of the published ones.
SEVERITY = [
    ("patient_1_L1", "0.0", "yes", "no ", ""),
    ("patient_1_L1_2", "2.0", "no", "no", "white, or nearly"),
    ("patient_2_R3", "3.0", "no", "yes ", ""),
    ("patient_10_R1", "", "-99", "", "not rated"),
    ("patient_3_L2", "1.0", "yes", "yes", ""),
]
CLINICAL = [
    {"patient_id": "1", AIR: "97.0", OXYGEN: "-96", LITRES: "", HEALTHY: "1"},
    {"patient_id": "2", AIR: "88.0", OXYGEN: "90-92", LITRES: "15.0", COVID: "1"},
    {"patient_id": "10", AIR: "-99.0", OXYGEN: "95", LITRES: "", BACTERIAL: "1"},
    {"patient_id": "3", AIR: "89.5", OXYGEN: "94", LITRES: "", COVID: "1"},
]


def write_cohort(folder: Path, severity=SEVERITY, clinical=CLINICAL, absent=("patient_3_L2",)) -> Path:
    columns = ["video_file", "Severity Score", "A-lines", "B-lines", "comments"]
    pd.DataFrame(severity, columns=columns).to_csv(folder / "severity.csv", index=False)
    patients = pd.DataFrame([dict.fromkeys(DIAGNOSES, "0") | patient for patient in clinical])
    patients.to_csv(folder / "clinical_variables.csv", index=False)
    (folder / "lus_videos").mkdir(exist_ok=True)
    for video, *_ in severity:
        if video not in absent:
            (folder / f"lus_videos/{video}.mp4").touch()
    return folder


def rows_of(cohort):
    return cohort.table.set_index("video_id")


def test_rows_become_the_one_table(tmp_path):
    cohort = load_covid_blues(write_cohort(tmp_path))
    table = rows_of(cohort)
    assert cohort.name == "covid_blues" and not cohort.simulated
    assert list(table.index) == ["patient_1_L1", "patient_1_L1_2", "patient_2_R3", "patient_10_R1"]
    assert table["patient_id"].tolist() == table["group_id"].tolist() == ["1", "1", "2", "10"]
    assert table["zone"].tolist() == ["L1", "L1", "R3", "R1"]
    assert set(table["probe"]) == {"convex"} and set(table["fps"]) == {25.0}
    assert table["lung_severity"].tolist()[:3] == ["0", "2", "3"] and pd.isna(table["lung_severity"].iloc[3])
    healthy, covid, *_ = TASKS["disease"].classes
    assert table["disease"].tolist() == [healthy, healthy, covid, TASKS["disease"].classes[5]]
    assert all(path.is_file() for path in cohort.video_paths())


def test_oxygen_with_its_litres_comes_before_room_air(tmp_path):
    table = rows_of(load_covid_blues(write_cohort(tmp_path, absent=())))
    assert table.loc["patient_1_L1", "sf_value"] == pytest.approx(97 / 0.21)
    assert table.loc["patient_2_R3", "sf_value"] == pytest.approx(91 / 0.81)  # midpoint of 90-92
    assert table.loc["patient_3_L2", "sf_value"] == pytest.approx(89.5 / 0.21)  # litres unknown
    assert np.isnan(table.loc["patient_10_R1", "sf_value"])
    ranges = TASKS["sf_ratio"].classes
    assert table.loc[["patient_1_L1", "patient_2_R3", "patient_3_L2"], "sf_ratio"].tolist() == [
        ranges[0],
        ranges[3],
        ranges[1],
    ]
    assert pd.isna(table.loc["patient_10_R1", "sf_ratio"])


def test_the_inspired_fraction_rises_with_the_flow_and_stays_a_fraction():
    fractions = [estimate_fio2(litres) for litres in np.arange(0, 60, 0.5)]
    assert fractions[0] == 0.21 and max(fractions) == 1.0
    assert all(np.diff(fractions) >= 0)
    assert np.isnan(sf_of(np.nan, 95.0, np.nan)) and np.isnan(sf_of(np.nan, np.nan, 2.0))


def test_a_missing_label_decides_no_biomarker():
    assert np.isnan(list(biomarkers_of(np.nan, np.nan, 0).values())).all()


@pytest.mark.parametrize("severity", [0, 1, 2, 3, np.nan])
def test_labels_decide_what_they_say_and_no_more(severity):
    a_none, *a_options = group_names("A-lines")
    b_none, *b_counts, b_white = group_names("B-lines")
    origin = group_names("B-line origin")
    seen = biomarkers_of(1, 1, severity)
    assert {name: bit for name, bit in seen.items() if not np.isnan(bit)} == {a_none: 0, b_none: 0}
    unseen = biomarkers_of(0, 0, severity)
    expected = {a_none: 1, b_none: 1} | dict.fromkeys([*a_options, *b_counts], 0)
    if severity in (0, 1):
        expected |= dict(zip([b_white, *origin], [0, 1, 0, 0], strict=True))
    assert {name: bit for name, bit in unseen.items() if not np.isnan(bit)} == expected


def test_biomarkers_reach_the_right_rows(tmp_path):
    table = rows_of(load_covid_blues(write_cohort(tmp_path)))
    white = group_names("B-lines")[-1]
    for video, labels in {
        "patient_1_L1": (1, 0, 0),
        "patient_1_L1_2": (0, 0, 2),
        "patient_2_R3": (0, 1, 3),
        "patient_10_R1": (np.nan, np.nan, np.nan),
    }.items():
        expected = pd.Series(biomarkers_of(*labels))
        found = table.loc[video, list(BIOMARKER_NAMES)].astype(float)
        pd.testing.assert_series_equal(found, expected, check_names=False)
    assert table[white].tolist()[0] == 0 and np.isnan(table[white].tolist()[1])


def test_absent_videos_are_counted_and_strangers_reported(tmp_path):
    write_cohort(tmp_path)
    (tmp_path / "lus_videos/patient_77_R2.mp4").touch()
    (tmp_path / "lus_videos/._patient_1_L1.mp4").touch()
    cohort = load_covid_blues(tmp_path)
    notes = "\n".join(cohort.notes)
    assert "5 of 6 videos present" in notes
    assert "1 rows of severity.csv have no video on disk: patient_3_L2" in notes
    assert "1 videos have no row in severity.csv: patient_77_R2" in notes
    assert "1 patients have no row in clinical_variables.csv: 77" in notes
    assert pd.isna(rows_of(cohort).loc["patient_77_R2", ["lung_severity", "disease", "sf_ratio"]]).all()


def test_absent_data_say_how_to_get_them(tmp_path):
    for missing in ("severity.csv", "clinical_variables.csv"):
        folder = tmp_path / missing
        folder.mkdir()
        (write_cohort(folder) / missing).unlink()
        with pytest.raises(CohortError, match=f"(?s){missing}.*lusbio fetch covid_blues.*LUSBIO_DATA"):
            load_covid_blues(folder)
    folder = tmp_path / "no_videos"
    folder.mkdir()
    write_cohort(folder, absent=[video for video, *_ in SEVERITY])
    with pytest.raises(CohortError, match="no videos.*lusbio fetch covid_blues"):
        load_covid_blues(folder)


def test_every_cell_that_is_not_understood_is_named(tmp_path):
    severity = [*SEVERITY, ("patient_4_L1", "1.5", "maybe", "no", ""), ("patient_4_L1", "0", "no", "no", "")]
    with pytest.raises(CohortError) as raised:
        load_covid_blues(write_cohort(tmp_path, severity=severity))
    text = str(raised.value)
    assert "severity.csv: video patient_4_L1: column 'Severity Score' is '1.5', expected 0, 1, 2, 3" in text
    assert "column 'A-lines' is 'maybe', expected yes, no or empty" in text
    assert "column 'video_file' is 'patient_4_L1' in more than one row" in text
    clinical = [*CLINICAL, {"patient_id": "5", AIR: "9,5", OXYGEN: "980", LITRES: "two", HEALTHY: "1", COVID: "1"}]
    with pytest.raises(CohortError) as raised:
        load_covid_blues(write_cohort(tmp_path, clinical=clinical))
    text = str(raised.value)
    for column, value in ((AIR, "9,5"), (OXYGEN, "980"), (LITRES, "two")):
        assert f"clinical_variables.csv: patient 5: column {column!r} is {value!r}, expected a number" in text
    assert "patient 5: 2 columns clin_diagn#... are 1" in text


def test_a_file_name_without_a_blue_point_is_refused(tmp_path):
    (write_cohort(tmp_path) / "lus_videos/liver.mp4").touch()
    with pytest.raises(CohortError, match=r"'liver\.mp4', expected patient_<number>"):
        load_covid_blues(tmp_path)


def all_patients_and_videos(folder: Path) -> Path:
    """The published tables with an empty file for every video that they name."""
    source = data_folder() / "covid_blues"
    for name in ("severity.csv", "clinical_variables.csv"):
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "lus_videos").mkdir()
    for video in read_published_table(source, "severity.csv", "covid_blues", [])["video_file"]:
        (folder / f"lus_videos/{video}.mp4").touch()
    return folder


@real_data
def test_the_published_tables_give_the_published_counts(tmp_path):
    cohort = load_covid_blues(all_patients_and_videos(tmp_path))
    table = cohort.table
    assert len(table) == 362 and cohort.notes[0] == "362 of 362 videos present"
    assert table["lung_severity"].value_counts().sort_index().tolist() == [120, 111, 83, 48]
    patients = table.drop_duplicates("patient_id")
    assert len(patients) == 63
    classes = TASKS["sf_ratio"].classes
    assert [(patients["sf_ratio"] == name).sum() for name in classes] == [29, 23, 3, 7]
    assert sorted(patients["disease"].value_counts()) == [10, 20, 33]
    assert (table.groupby("patient_id")[["disease", "sf_ratio"]].nunique(dropna=False) == 1).all(axis=None)


@real_data
def test_the_part_on_this_machine_is_counted():
    cohort = load_covid_blues(data_folder() / "covid_blues")
    assert cohort.notes[0] == f"{len(cohort.table)} of 362 videos present"
