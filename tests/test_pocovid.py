import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lusbio.cohorts.download import EMERGENCY_LICENSE, read_registry
from lusbio.cohorts.pocovid import (
    COLUMNS,
    DISEASES,
    DUPLICATES,
    FINDINGS,
    biomarkers_of,
    conservative_groups,
    load_pocovid,
)
from lusbio.errors import CohortError
from lusbio.files import data_folder
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS, group_names

real_data = pytest.mark.skipif("LUSBIO_DATA" not in os.environ, reason="LUSBIO_DATA is not set")

PUBLISHED_COLUMNS = (
    "Filename",
    "URL (Video Name)",
    "Label",
    "Lung Severity Score",
    "License",
    "LinkToLicense",
    "Type",
    "Probe",
    "Source ID",
    "Comments from web site",
    "Title",
    "MD2",
    "Framerate",
    "Resolution",
    "Length (frames)",
    "Gender",
    "Patient ID / Name",
    "Unnamed: 28",
    "Effusion",
    "Consolidations",
    "B-lines",
    "A-lines",
    "Pleural line irregularities",
    "Air bronchogram",
    "Healthy",
    "Fever",
    "Other",
)
FLAGS = ("Effusion", "Consolidations", "B-lines", "A-lines", "Air bronchogram", "Healthy")


def made_up_row(name: str, **cells: str) -> dict[str, str]:
    """A row of metadata as published, with some cells of one's own."""
    usual = dict.fromkeys(PUBLISHED_COLUMNS, "") | dict.fromkeys(FLAGS, "0")
    usual |= {
        "Filename": name,
        "Label": "COVID-19",
        "License": "CC BY-NC -SA 4.0",
        "LinkToLicense": "https://example.org/license",
        "Type": "video",
        "Probe": "convex",
        "Source ID": "99",
        "Framerate": "25",
        "Resolution": "300x300",
        "Length (frames)": "40",
        "Patient ID / Name": name[-4:],
        "Other": "0",
    }
    return usual | cells


def slipped(row: dict[str, str]) -> dict[str, str]:
    """The row with everything from the title on one column too far right."""
    columns = list(PUBLISHED_COLUMNS)
    start = columns.index("Title")
    moved = ["rest of a comment", *(row[column] for column in columns[start:-1])]
    return row | dict(zip(columns[start:], moved, strict=True))


ROWS = [
    made_up_row("Cov-Atlas-+(43)", **{"Lung Severity Score": "2", "B-lines": "1"}),
    made_up_row("Reg_new-3", Label="Regular", Healthy="1", **{"Lung Severity Score": "0", "A-lines": "1"}),
    made_up_row("Pneu_linear", Label="Bacterial pneumonia", Probe="linear", Framerate="n/a", **{"Source ID": "7"}),
    made_up_row("Cov_barred", License=EMERGENCY_LICENSE),
    made_up_row("Cov_absent", Label="not looked at"),
    made_up_row("Cov_still", Type="Image"),
    slipped(made_up_row("Reg_slipped", Label="regular", Healthy="1", **{"B-lines": "1", "Framerate": "15"})),
    *(made_up_row(name, Label="Viral pneumonia") for pair in DUPLICATES.items() for name in pair),
]


def write_cohort(folder: Path, rows=ROWS) -> Path:
    pd.DataFrame(rows, columns=PUBLISHED_COLUMNS).to_csv(folder / "dataset_metadata.csv", index=False)
    suffixes = (".mp4", ".gif", ".avi", ".MP4", ".mov", ".mpeg")
    for index, row in enumerate(rows):
        if row["Filename"] != "Cov_absent":
            probe = row["Probe"] if row["Probe"] != "linear" else "linear/label_uncertain"
            path = folder / "pocus_videos" / probe / f"{row['Filename']}{suffixes[index % len(suffixes)]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def rows_of(cohort):
    return cohort.table.set_index("video_id")


def known(bits) -> dict[str, float]:
    return {name: bit for name, bit in dict(bits).items() if not np.isnan(bit)}


def test_the_made_up_metadata_has_every_column_that_is_used():
    assert set(COLUMNS) <= set(PUBLISHED_COLUMNS)


def test_rows_become_the_one_table(tmp_path):
    cohort = load_pocovid(write_cohort(tmp_path))
    table = rows_of(cohort)
    twin = next(iter(DUPLICATES.values()))
    assert set(table.index) == {"Cov-Atlas-+(43)", "Reg_new-3", "Pneu_linear", "Reg_slipped", twin}
    assert all(path.is_file() for path in cohort.video_paths())
    assert table.loc["Pneu_linear", "path"].startswith("pocus_videos/linear/label_uncertain/")
    healthy, covid, other = (TASKS["disease"].classes[index] for index in (0, 1, 5))
    assert table["disease"].to_dict() == {
        "Cov-Atlas-+(43)": covid,
        "Reg_new-3": healthy,
        "Pneu_linear": other,
        "Reg_slipped": healthy,
        twin: other,
    }
    assert table.loc["Cov-Atlas-+(43)", "lung_severity"] == "2"
    assert pd.isna(table.loc["Pneu_linear", ["lung_severity", "fps", "sf_ratio", "sf_value"]]).all()
    assert table["probe"].value_counts().to_dict() == {"convex": 4, "linear": 1}
    assert (table["group_id"].str.split("-").str[0] == table["patient_id"].str.split("-").str[0]).all()


def test_what_is_left_out_is_said_and_why(tmp_path):
    notes = "\n".join(load_pocovid(write_cohort(tmp_path)).notes)
    assert "1 videos under the 'COVID-19 emergency license' left out" in notes
    for name, twin in DUPLICATES.items():
        assert f"{name} left out: the same video as {twin}" in notes
    assert "put back: Reg_slipped" in notes
    assert "so no biomarker can be learnt" in notes  # before any colon, up to which a record keeps a note
    (tmp_path / "pocus_videos/convex/Cov_nobody.gif").touch()
    cohort = load_pocovid(tmp_path, include_emergency_license=True)
    notes = "\n".join(cohort.notes)
    # The still image's file counts as one without a row, too: only videos have labels here.
    assert "2 videos without a row in dataset_metadata.csv left out: Cov_nobody, Cov_still" in notes
    assert "emergency" not in notes and "Cov_barred" in rows_of(cohort).index


def test_presence_is_counted_against_the_registry(tmp_path):
    upstream = [Path(path) for path in read_registry("pocovid")["path"] if "pocus_videos" in path][:3]
    write_cohort(tmp_path, [made_up_row(path.stem) for path in upstream])
    assert load_pocovid(tmp_path).notes[0] == "3 of 131 videos present"


def test_slipped_cells_are_put_back(tmp_path):
    row = rows_of(load_pocovid(write_cohort(tmp_path))).loc["Reg_slipped"]
    assert row["fps"] == 15 and row["patient_id"] == "99-pped"
    assert row[group_names("B-lines")[0]] == 0 and np.isnan(row[group_names("A-lines")[0]])


def findings() -> dict[str, str]:
    return dict.fromkeys(FINDINGS, "0")


def test_a_finding_that_was_not_mentioned_decides_nothing():
    assert known(biomarkers_of(findings())) == {}
    assert known(biomarkers_of(dict.fromkeys(FINDINGS, ""))) == {}


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_rules_out_none_and_nothing_else(finding):
    bits = biomarkers_of(findings() | {finding: "1"})
    assert known(bits) == {group_names(FINDINGS[finding])[0]: 0}


def test_that_a_lung_is_healthy_decides_nothing_for_it_is_the_diagnosis(tmp_path):
    rows = [made_up_row(f"Reg_{k}", Label="Regular", Healthy="1") for k in range(3)]
    rows += [made_up_row(f"Cov_{k}", Effusion="1", Consolidations="1") for k in range(3)]
    table = load_pocovid(write_cohort(tmp_path, rows)).table
    assert table[list(BIOMARKER_NAMES)].max(axis=None) == 0
    assert table.loc[table["disease"] == "healthy", list(BIOMARKER_NAMES)].isna().all(axis=None)


def group_rows(*rows: tuple[str, str, str, str]) -> list[str]:
    columns = ["Filename", "Source ID", "Patient ID / Name", "URL (Video Name)"]
    return conservative_groups(pd.DataFrame(rows, columns=columns)).tolist()


def test_a_set_is_one_group_whatever_its_diagnoses_and_ids():
    first, second, other = group_rows(
        ("Pneu_clinic_0409_set3_vid1", "18", "190", "given"),
        ("Reg_clinic_0409_set3_vid2", "18", "207", "given"),
        ("Reg_clinic_0409_set4_vid2", "18", "208", "given"),
    )
    assert first == second != other


def test_a_page_a_patient_and_a_chain_of_both_tie_videos():
    page = "https://litfl.example/case-3/"
    groups = group_rows(
        ("Pneu_one", "16", "7", f"{page} (video at https://elsewhere)"),
        ("Reg_two", "16", "40", page.replace("https", "http") + "#second"),
        ("Reg_three", "16", "40", ""),
        ("Reg_four", "16", "", ""),
        ("Reg_two", "17", "40", ""),
    )
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups)) == 3  # an id or a name ties nothing across sources


@pytest.mark.parametrize(
    "names",
    [
        ("Reg_Image_181206_crop", "Reg_Image_181602_trimmed_crop"),
        ("Cov-Atlas+(44)", "Cov-Atlas+(45)"),
        ("Reg_Avi_lung-sliding", "Reg_Avi_lung-sliding-2"),
        ("Vir_prospective_file1", "Vir_or_Pneu_prospective_file4"),
        ("Cov_combatting_Image1", "Cov_combatting_image4"),
        ("Pneu-Atlas-pneumonia", "Pneu-Atlas-pneumonia2"),
        ("Cov_x_v1", "Cov_x_v12"),
    ],
)
def test_clip_numbers_do_not_make_groups(names):
    first, second = group_rows(*((name, "5", name, "") for name in names))
    assert first == second


def test_groups_do_not_depend_on_which_videos_are_present(tmp_path):
    rows = [
        made_up_row("Cov_absent", **{"Patient ID / Name": "1", "URL (Video Name)": "https://a.b/c"}),
        made_up_row("Cov_x", **{"Patient ID / Name": "1"}),
        made_up_row("Cov_y", **{"Patient ID / Name": "2", "URL (Video Name)": "https://a.b/c"}),
    ]
    assert load_pocovid(write_cohort(tmp_path, rows)).table["group_id"].nunique() == 1


def test_every_cell_that_is_not_understood_is_named(tmp_path):
    odd = made_up_row("Cov_odd", Label="flu", Effusion="Np", Probe="phased", **{"Lung Severity Score": "4"})
    write_cohort(tmp_path, [odd])
    (tmp_path / "pocus_videos/convex").mkdir()
    (tmp_path / "pocus_videos/convex/Cov_odd.mp4").touch()
    with pytest.raises(CohortError) as raised:
        load_pocovid(tmp_path)
    text = str(raised.value)
    for column, value in {"Label": "flu", "Effusion": "np", "Probe": "phased", "Lung Severity Score": "4"}.items():
        assert f"dataset_metadata.csv: video 'Cov_odd': column {column!r} is {value!r}, expected one of" in text


def test_absent_data_say_how_to_get_them(tmp_path):
    with pytest.raises(CohortError, match="(?s)dataset_metadata.*lusbio fetch pocovid.*LUSBIO_DATA"):
        load_pocovid(tmp_path)
    pd.DataFrame(ROWS).to_csv(tmp_path / "dataset_metadata.csv", index=False)
    with pytest.raises(CohortError, match="no videos.*lusbio fetch pocovid"):
        load_pocovid(tmp_path)


def test_labels_map_to_three_diseases():
    assert len(set(DISEASES.values())) == 3 and set(DISEASES.values()) <= set(TASKS["disease"].classes)


@pytest.fixture
def everything(tmp_path):
    """The published metadata with an empty file for every video upstream."""
    source = data_folder() / "pocovid"
    (tmp_path / "dataset_metadata.csv").write_bytes((source / "dataset_metadata.csv").read_bytes())
    for path in read_registry("pocovid")["path"]:
        local = tmp_path / path.removeprefix("data/")
        local.parent.mkdir(parents=True, exist_ok=True)
        local.exists() or local.touch()
    return tmp_path


@real_data
def test_the_published_metadata_gives_the_published_counts(everything):
    cohort = load_pocovid(everything, include_emergency_license=True)
    table = cohort.table
    assert len(table) == 130 and cohort.notes[0] == "131 of 131 videos present"
    assert table["lung_severity"].value_counts().sort_index().tolist() == [48, 16, 11, 6]
    assert table["disease"].value_counts().sort_values().tolist() == [29, 42, 59]
    assert table["probe"].value_counts().to_dict() == {"convex": 121, "linear": 9}
    assert len(load_pocovid(everything).table) == 123


@real_data
def test_groups_of_the_published_videos_are_coarser_than_patients_and_finer_than_sources(everything):
    table = load_pocovid(everything, include_emergency_license=True).table
    assert table["group_id"].nunique() == 33
    assert (table.groupby("patient_id")["group_id"].nunique() == 1).all()
    assert (table["group_id"].str.split("-").str[0] == table["patient_id"].str.split("-").str[0]).all()
    for together, size in {
        r"northumbria_0409_set6_": 7,
        r"northumbria_0409_set3_": 4,  # both diagnoses
        r"northumbria_1009_": 7,
        r"Avi_Video_": 10,
        r"liftl.*case3_": 5,  # the diseased and the normal zones of one case
        r"Cov-Atlas-Day": 4,
        r"_denault_": 7,
        r"Reg_(?:pat1)?Image_": 13,  # one volunteer stands in both batches
        r"_prospective_": 3,
    }.items():
        groups = table["group_id"][table["video_id"].str.contains(together)]
        assert len(groups) == size and groups.nunique() == 1
        assert (table["group_id"] == groups.iloc[0]).sum() == size


@real_data
def test_the_part_on_this_machine_is_counted():
    cohort = load_pocovid(data_folder() / "pocovid")
    present = sum(path.is_file() for path in (data_folder() / "pocovid/pocus_videos").rglob("*"))
    assert cohort.notes[0] == f"{present} of 131 videos present"
    bits = cohort.table[list(BIOMARKER_NAMES)]
    assert ((bits == 0) | bits.isna()).all(axis=None) and (bits == 0).any(axis=None)
