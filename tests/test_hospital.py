import shutil
import stat

import numpy as np
import pandas as pd
import pytest
from helpers import NAMING, hospital_frames, moving_bar, region_item, write_dicom

from lusbio.cli import main
from lusbio.cohorts.hospital import KEPT, import_dicom
from lusbio.cohorts.load import check_cohort, load_folder
from lusbio.errors import LusbioError
from lusbio.videos import read_video


@pytest.fixture
def export(tmp_path):
    """What a hospital might burn onto a disc: four good objects of three patients, and what is not wanted."""
    folder = tmp_path / "DOE^JANE"
    write_dicom(folder / "IM_0001", hospital_frames())
    write_dicom(folder / "a" / "IM_0002.dcm", hospital_frames(8), kind="RGB", compression="jpeg")
    write_dicom(folder / "a" / "IM_0003", hospital_frames(), PatientID=" MRN-0815 ", compression="rle", FrameTime=None)
    write_dicom(folder / "a" / "IM_0004", hospital_frames(7), IssuerOfPatientID="elsewhere", TransducerType="PHASED")
    shutil.copy(folder / "IM_0001", folder / "copy")
    write_dicom(folder / "whole", hospital_frames(), regions=[])
    write_dicom(folder / "m_mode", hospital_frames(), regions=[region_item(RegionSpatialFormat=2)])
    write_dicom(folder / "still", hospital_frames(1))
    write_dicom(folder / "nobody", hospital_frames(), PatientID=None)
    write_dicom(folder / "tiny", hospital_frames(), regions=[region_item((0, 0, 12, 40))])
    (folder / "DOE_JANE.pdf").write_bytes(b"%PDF Jane Doe MRN-4711")
    (folder / ".DS_Store").write_bytes(b"")
    return folder


@pytest.fixture
def imported(export, tmp_path):
    lines = []
    files = import_dicom(export, tmp_path / "ward", lines.append)
    return files, tmp_path / "ward", lines


def everything_in(folder):
    return b"\n".join([path.read_bytes() + str(path.relative_to(folder)).encode() for path in folder.rglob("*.*")])


def test_good_objects_become_a_cohort_that_passes_every_check(imported):
    files, out, _ = imported
    assert check_cohort(out) == []
    cohort = load_folder(out)
    assert len(cohort.table) == 4 and cohort.table["patient_id"].nunique() == 3 and cohort.notes == ()
    kept = files[files["outcome"] == KEPT].astype({"file": str}).set_index("file")
    first, second, third, fourth = kept.loc[["IM_0001", "a/IM_0002.dcm", "a/IM_0003", "a/IM_0004"], "patient_id"]
    assert first == second and len({first, third, fourth}) == 3  # another issuer's number is another patient
    rows = cohort.table.set_index("video_id")
    first, third, fourth = kept.loc[["IM_0001", "a/IM_0003", "a/IM_0004"], "video_id"]
    assert (rows.loc[first, ["fps", "depth_mm", "probe"]] == [20.0, 32.0, "linear"]).all()
    assert rows.loc[third, "path"].endswith(".npy") and pd.isna(rows.loc[third, "fps"])  # nobody said how fast
    assert pd.isna(rows.loc[fourth, "probe"])


def test_videos_hold_the_image_alone(imported):
    _, out, _ = imported
    for path in (out / "videos").iterdir():
        frames, info = read_video(path, None)
        assert frames.shape[1:] == (64, 64) and info.fps in (20.0, None)
        assert np.abs(frames.astype(int) - moving_bar(len(frames))).mean() < 4
    pixels = pd.read_csv(out / "pixels.csv")
    assert (pixels["pixel_mm_y"] == 0.5).all() and sorted(pixels["frames"]) == [6, 6, 7, 8]


def test_what_is_dropped_is_counted_in_the_cohort_and_named_only_beside_it(imported):
    files, out, lines = imported
    reasons = pd.read_csv(out / "dropped.csv").set_index("reason")["files"].to_dict()
    assert reasons == {
        "is not a readable DICOM image": 1,
        "is the same object as another file": 1,
        "names no ultrasound region, so that nothing can be cut away around the image": 1,
        "has no one region with an image of tissue": 1,
        "holds one frame, which is no video": 1,
        "has no PatientID": 1,
        "shows an image of less than 16 pixels": 1,
    }
    assert len(lines) == 7 and all(str(out) not in line for line in lines)
    assert len(files) == 11 and (files["outcome"] == KEPT).sum() == 4
    private = out.with_name("ward.private")
    assert pd.read_csv(private / "files.csv")["file"].nunique() == 11
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_nothing_that_names_anybody_is_in_the_cohort(imported, export):
    _, out, _ = imported
    content = everything_in(out).lower()
    for value in (*NAMING.values(), "MRN-0815", "doe", "jane", "elsewhere", "IM_000", "2.25.", export.name):
        assert value.lower().encode() not in content, value


def test_ids_hang_on_the_salt(export, tmp_path):
    first = import_dicom(export, tmp_path / "one", str)["patient_id"].dropna()
    other = import_dicom(export, tmp_path / "two", str)["patient_id"].dropna()
    assert not set(first) & set(other)
    shutil.copytree(tmp_path / "one.private", tmp_path / "three.private")
    assert list(import_dicom(export, tmp_path / "three", str)["patient_id"].dropna()) == list(first)


@pytest.mark.parametrize("where", ["inside", "full", "empty", "absent"])
def test_folders_in_each_other_s_way_are_refused(where, imported, export, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {
        "inside": (export, export / "cohort", "outside of the folder"),
        "full": (export, imported[1], "holds a cohort.csv already"),
        "empty": (tmp_path / "empty", tmp_path / "new", "without files"),
        "absent": (tmp_path / "absent", tmp_path / "new", "no folder"),
    }
    folder, out, reason = places[where]
    with pytest.raises(LusbioError, match=reason):
        import_dicom(folder, out, str)


def test_the_command_says_what_it_did_and_what_stays(export, tmp_path, capsys):
    assert main(["import", str(export), "--out", str(tmp_path / "ward")]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'ward'}: 4 videos of 3 patients, 11 files seen\n"
    assert "ward.private stays here" in printed.err and "names no ultrasound region" in printed.err
    (tmp_path / "pdf").mkdir()
    shutil.copy(export / "DOE_JANE.pdf", tmp_path / "pdf")
    assert main(["import", str(tmp_path / "pdf"), "--out", str(tmp_path / "none")]) == 1
    assert "none of 1 files could be imported" in capsys.readouterr().err


def test_a_cohort_counts_its_objects_without_a_region(tmp_path):
    write_dicom(tmp_path / "us.dcm", hospital_frames(), regions=[])
    table = pd.DataFrame({"video_id": ["a"], "patient_id": ["b"], "path": ["us.dcm"]})
    table.to_csv(tmp_path / "cohort.csv", index=False)
    (note,) = load_folder(tmp_path).notes
    assert note == "1 DICOM files name no ultrasound region; their whole frames are used: us.dcm"


@pytest.mark.slow
def test_two_hundred_mutated_objects_end_in_a_cohort_or_in_sentences_and_name_nobody(tmp_path, capsys):
    """Bytes are changed, removed or cut off anywhere, in objects of every kind."""
    rng, kinds = np.random.default_rng(0), ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR")
    for number in range(200):
        compression = ("none", "rle", "jpeg", "mpeg")[number % 4]
        kind = kinds[number % 5] if compression in ("none", "rle") else ("MONOCHROME2", "RGB")[number // 5 % 2]
        kind = "MONOCHROME2" if compression == "mpeg" else kind
        frames = np.roll(hospital_frames(), number, 2)  # no two the same
        path = write_dicom(tmp_path / "in" / f"IM_{number}", frames, kind=kind, compression=compression)
        content = bytearray(path.read_bytes())
        header = content.index(b"\xe0\x7f\x10\x00")  # where the pixels begin
        for _ in range(1 + number % 5):
            place = int(rng.integers(128, header if number % 3 else len(content)))
            removed, added = (1, 1) if number % 2 else rng.integers(0, 5, 2)
            content[place : place + int(removed)] = rng.bytes(int(added))
        path.write_bytes(content[: int(rng.integers(200, len(content)))] if number % 7 == 0 else content)
    assert main(["import", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert check_cohort(tmp_path / "out") == []
    content = everything_in(tmp_path / "out").lower()
    for value in NAMING.values():
        assert value.lower().encode() not in content, value
    kept = len(pd.read_csv(tmp_path / "out" / "cohort.csv"))
    dropped = pd.read_csv(tmp_path / "out" / "dropped.csv")["files"].sum()
    assert kept + dropped == 200 and 20 < kept < 180
