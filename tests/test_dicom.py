from pathlib import Path

import numpy as np
import pytest
from helpers import REGION, hospital_frames, moving_bar, region_item, write_dicom

from lusbio import dicom
from lusbio.errors import VideoError
from lusbio.videos import decode_video, decoding_of, read_video

LEFT, TOP, RIGHT, BOTTOM = REGION
KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR")


def facts_of(path: Path) -> dicom.Facts:
    with dicom.opened(path) as content:
        return dicom.read_facts(content, dicom.find_region(content, path))


@pytest.mark.parametrize(
    ("kind", "compression"),
    [
        *((kind, "none") for kind in KINDS),
        *((kind, "rle") for kind in KINDS),
        *((kind, "jpeg") for kind in ("MONOCHROME1", "MONOCHROME2", "RGB")),
        ("MONOCHROME2", "mpeg"),
    ],
)
def test_every_kind_is_cropped_to_its_region(kind, compression, tmp_path):
    path = write_dicom(tmp_path / "us.dcm", hospital_frames(), kind=kind, compression=compression)
    frames, info = read_video(path, None)
    assert frames.shape == (6, 64, 64) and (info.height, info.width, info.fps) == (64, 64, 20.0)
    lossless = compression in ("none", "rle")
    limit = (2 if kind == "YBR_FULL" else 0) if lossless else 40
    difference = np.abs(frames.astype(int) - moving_bar(6))
    assert difference.max() <= limit and difference.mean() < 3
    assert decode_video(path, 32).shape == (6, 32, 32)


def test_nothing_of_what_is_written_around_the_image_is_left(tmp_path):
    frames = hospital_frames()
    frames[:, TOP:BOTTOM, LEFT:RIGHT] = 0
    assert not decode_video(write_dicom(tmp_path / "us.dcm", frames), 32).any()


def test_sixteen_bits_become_eight(tmp_path):
    path = write_dicom(tmp_path / "us.dcm", hospital_frames(), BitsAllocated=16, BitsStored=12, HighBit=11)
    import pydicom

    content = pydicom.dcmread(path)
    content.PixelData = (hospital_frames().astype(np.uint16) * 16).tobytes()
    content.save_as(path)
    assert np.abs(read_video(path, None)[0].astype(int) - moving_bar(6)).max() <= 1


def test_tags_say_depth_scale_speed_and_probe(tmp_path):
    facts = facts_of(write_dicom(tmp_path / "us.dcm", hospital_frames()))
    assert facts == (20.0, pytest.approx(32.0), pytest.approx(0.5), pytest.approx(0.5), "linear")


@pytest.mark.parametrize(
    ("tags", "fps"),
    [
        ({"FrameTime": "40"}, 25.0),
        ({"FrameTime": None, "FrameTimeVector": ["0", "30", "50", "40"]}, 25.0),
        ({"FrameTime": None, "CineRate": "30"}, 30.0),
        ({"FrameTime": "0", "CineRate": "30"}, 30.0),
        ({"FrameTime": None, "RecommendedDisplayFrameRate": "30"}, None),
        ({"FrameTime": None, "FrameTimeVector": ["0"]}, None),
        ({"FrameTime": None}, None),
    ],
)
def test_the_speed_is_that_of_the_recording_or_unknown(tags, fps, tmp_path):
    assert facts_of(write_dicom(tmp_path / "us.dcm", hospital_frames(), **tags)).fps == fps


@pytest.mark.parametrize("tags", [{"PhysicalUnitsYDirection": 4}, {"PhysicalUnitsXDirection": 0}])
def test_a_scale_in_other_units_is_none(tags, tmp_path):
    path = write_dicom(
        tmp_path / "us.dcm", hospital_frames(), regions=[region_item(**tags)], TransducerType="IV_PHASED"
    )
    assert facts_of(path) == (20.0, None, None, None, None)
    path = write_dicom(path, hospital_frames(), regions=[region_item(**tags)], DepthOfScanField=90)
    assert facts_of(path).depth_mm == 90


def test_an_object_without_regions_is_shown_whole_and_says_so(tmp_path):
    path = write_dicom(tmp_path / "us.dcm", hospital_frames(), regions=[])
    assert read_video(path, None)[0].shape == (6, 96, 128)
    assert dicom.names_no_region(path)
    assert not dicom.names_no_region(write_dicom(tmp_path / "region.dcm", hospital_frames()))
    (tmp_path / "broken.dcm").write_text("hello")
    assert not dicom.names_no_region(tmp_path / "broken.dcm") and not dicom.names_no_region(tmp_path / "film.mp4")


@pytest.mark.parametrize(
    ("regions", "reason"),
    [
        ([region_item(), region_item((80, 8, 120, 72))], "no one region with an image of tissue (2 of 2"),
        ([region_item(RegionSpatialFormat=2)], "no one region with an image of tissue (0 of 1"),
        ([region_item((16, 8, 200, 72))], "reaches out of the frame ((16, 8, 200, 72) in 128 x 96)"),
        ([region_item((80, 8, 16, 72))], "reaches out of the frame"),
    ],
)
def test_regions_that_leave_room_for_guesses_are_refused(regions, reason, tmp_path):
    path = write_dicom(tmp_path / "us.dcm", hospital_frames(), regions=regions)
    with pytest.raises(VideoError) as caught:
        read_video(path, 32)
    assert reason in str(caught.value)


def test_colour_over_the_image_and_the_same_region_twice_are_one_image(tmp_path):
    regions = [region_item(), region_item(), region_item((20, 20, 60, 60), RegionDataType=2)]
    path = write_dicom(tmp_path / "us.dcm", hospital_frames(), regions=regions)
    assert read_video(path, None)[0].shape == (6, 64, 64)


def test_a_last_pixel_that_is_counted_as_the_first_outside_is_forgiven(tmp_path):
    path = write_dicom(tmp_path / "us.dcm", hospital_frames(), regions=[region_item((0, 0, 129, 97))])
    assert read_video(path, None)[0].shape == (6, 96, 128)


def test_a_missing_decoder_is_named_with_what_to_install(monkeypatch):
    pydicom_data = pytest.importorskip("pydicom.data")
    path = Path(pydicom_data.get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))
    with pytest.raises(VideoError, match=r"JPEG-LS.*; pip install pyjpegls\)"):
        decode_video(path, 32)
    error = RuntimeError(
        "Unable to decompress 'JPEG Lossless' pixel data because all plugins are missing dependencies:\n"
        "\tgdcm - requires gdcm>=3.0.10\n\tpylibjpeg - requires pylibjpeg>=2.0 and pylibjpeg-libjpeg>=2.1"
    )
    assert dicom._explain(error).endswith("(it is JPEG Lossless; pip install pylibjpeg pylibjpeg-libjpeg)")


def test_pydicom_s_own_ultrasound_is_read_or_refused_in_a_sentence():
    """Its example in YBR names a region of the larger video that it was cut from."""
    pydicom_data = pytest.importorskip("pydicom.data")
    with pytest.raises(VideoError, match=r"reaches out of the frame \(\(84, 31, 596, 415\) in 320 x 240\)"):
        decode_video(Path(pydicom_data.get_testdata_file("examples_ybr_color.dcm")), 32)
    with pytest.raises(VideoError, match="reaches out of the frame"):
        decode_video(Path(pydicom_data.get_testdata_file("examples_palette.dcm")), 32)
    assert read_video(Path(pydicom_data.get_testdata_file("examples_rgb_color.dcm")), 32)[0].shape[1:] == (32, 32)


def test_frames_that_were_kept_before_regions_counted_are_not_taken():
    assert decoding_of("a.dcm") == decoding_of(Path("b.DCM")) != decoding_of("a.mp4") == "1"
