import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import broken_files, moving_bar, write_container

from lusbio.errors import CohortError, VideoError
from lusbio.videos import (
    VIDEO_SUFFIXES,
    FrameCache,
    decode_video,
    encode_video,
    read_frames,
    read_video_info,
    write_frames,
)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    encode_video(moving_bar(), tmp_path / "bar.mp4", 25)
    return tmp_path / "bar.mp4"


def test_what_is_encoded_is_decoded(video):
    decoded = decode_video(video, 64)
    assert decoded.shape == (20, 64, 64) and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - moving_bar()).mean() < 3
    info = read_video_info(video)
    assert (info.frames, info.announced_frames, info.height, info.width, info.fps) == (20, 20, 64, 64, 25.0)


def test_resizing_averages_areas(video):
    large, small = decode_video(video, 64), decode_video(video, 16)
    averaged = large.reshape(20, 16, 4, 16, 4).mean((2, 4))
    assert np.abs(averaged - small).max() <= 2


def test_the_same_frames_give_the_same_bytes(video, tmp_path):
    encode_video(moving_bar(), tmp_path / "again.mp4", 25)
    assert (tmp_path / "again.mp4").read_bytes() == video.read_bytes()


@pytest.mark.parametrize("suffix", [".mov", ".avi", ".mpeg", ".gif", ".webm"])
def test_other_containers_decode(suffix, tmp_path):
    path = write_container(tmp_path / f"bar{suffix}")
    assert np.abs(decode_video(path, 64).astype(int) - moving_bar()).mean() < 12


def test_arrays_and_colour_arrays_decode(tmp_path):
    np.save(tmp_path / "grey.npy", moving_bar())
    np.save(tmp_path / "colour.npy", np.repeat(moving_bar()[..., None], 3, -1))
    assert (decode_video(tmp_path / "grey.npy", 64) == moving_bar()).all()
    assert (decode_video(tmp_path / "colour.npy", 64) == moving_bar()).all()


def dicom_file(path: Path, frames: np.ndarray) -> Path:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

    dicom = pydicom.Dataset()
    dicom.file_meta = pydicom.dataset.FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    dicom.file_meta.MediaStorageSOPInstanceUID = dicom.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["bar"])
    dicom.SOPClassUID = UltrasoundMultiFrameImageStorage
    dicom.NumberOfFrames, dicom.Rows, dicom.Columns = frames.shape
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation = 1, "MONOCHROME2"
    dicom.BitsAllocated = dicom.BitsStored = 8
    dicom.HighBit, dicom.PixelRepresentation, dicom.FrameTime = 7, 0, "50"
    dicom.PixelData = frames.tobytes()
    dicom.save_as(path, enforce_file_format=True)
    return path


def test_dicom_multi_frame_decodes(tmp_path):
    path = dicom_file(tmp_path / "bar.dcm", moving_bar())
    assert (decode_video(path, 64) == moving_bar()).all()
    assert read_video_info(path).fps == 20.0


def test_every_broken_file_is_named_with_its_reason(video, tmp_path):
    for reason, path in broken_files(tmp_path, video).items():
        with pytest.raises(VideoError) as caught:
            decode_video(path, 32)
        assert reason in str(caught.value) and str(path) in str(caught.value)


def test_the_cache_lists_all_broken_files_and_keeps_the_good_one(video, tmp_path):
    cache = FrameCache(tmp_path / "cache", 32)
    broken = broken_files(tmp_path, video)
    with pytest.raises(CohortError) as caught:
        cache.prepare([video, *broken.values()])
    assert len(caught.value.problems) == len(broken)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_the_cache_decodes_once(video, tmp_path):
    cache = FrameCache(tmp_path / "cache", 32)
    (first,) = cache.prepare([video])
    written = first.frames_path.stat().st_mtime_ns
    shutil.copy(video, tmp_path / "same_content.mp4")
    (second,) = cache.prepare([tmp_path / "same_content.mp4"])
    assert second == first and second.frames_path.stat().st_mtime_ns == written
    assert isinstance(first.load(), np.memmap) and (first.load() == decode_video(video, 32)).all()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_cache_is_rebuilt(video, tmp_path, damage):
    cache = FrameCache(tmp_path / "cache", 32)
    (entry,) = cache.prepare([video])
    content = bytearray(entry.frames_path.read_bytes())
    if damage == "truncate":
        entry.frames_path.write_bytes(content[:500])
    elif damage == "flip":
        content[-1] ^= 255
        entry.frames_path.write_bytes(content)
    else:
        entry.frames_path.unlink()
    assert (cache.prepare([video])[0].load() == decode_video(video, 32)).all()


def _prepare(folder: Path, video: Path) -> int:
    return FrameCache(folder, 32).prepare([video])[0].load().shape[0]


@pytest.mark.slow
def test_equal_files_may_be_decoded_at_the_same_time(video, tmp_path):
    copies = [tmp_path / f"copy{k}.mp4" for k in range(8)]
    for copy in copies:
        shutil.copy(video, copy)
    entries = FrameCache(tmp_path / "cache", 32).prepare(copies, workers=8)
    assert len({entry.frames_path for entry in entries}) == 1


def test_several_processes_share_a_cache(video, tmp_path):
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(_prepare, [tmp_path / "cache"] * 4, [video] * 4)) == [20] * 4
    assert not list((tmp_path / "cache").glob("*.tmp*"))


def test_frames_must_be_even_and_bytes(tmp_path):
    with pytest.raises(ValueError, match="even H and W"):
        encode_video(np.zeros((2, 5, 4), np.uint8), tmp_path / "odd.mp4", 25)
    with pytest.raises(ValueError, match="float64"):
        encode_video(np.zeros((2, 4, 4)), tmp_path / "float.mp4", 25)
    assert not list(tmp_path.iterdir())


def count_frames(path: Path) -> int:
    """Frames that OpenCV, with its own build of FFmpeg, finds."""
    cv2 = pytest.importorskip("cv2")
    video, count = cv2.VideoCapture(str(path)), 0
    while video.grab():
        count += 1
    video.release()
    return count


def test_opencv_counts_the_same_frames(video):
    assert count_frames(video) == read_video_info(video).frames == 20


@pytest.mark.slow
def test_every_real_video_decodes_to_the_frames_that_another_decoder_counts(data_folder):
    videos = [path for path in sorted(data_folder.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES]
    assert videos
    differing = [path.name for path in videos if read_video_info(path).frames != count_frames(path)]
    assert not differing


@pytest.mark.parametrize(("shape", "expected"), [((60, 100), (24, 40)), ((100, 60), (40, 24)), ((20, 30), (20, 30))])
def test_frames_for_people_keep_their_aspect_and_are_never_made_larger(tmp_path, shape, expected):
    frames = np.zeros((3, *shape), np.uint8)
    frames[:, : shape[0] // 2] = 200
    for name in ("video.npy", "video.mp4"):
        write_frames(frames, tmp_path / name, 25)
        read, info = read_frames(tmp_path / name, 40)
        assert read.shape == (3, *expected) and (info.height, info.width) == shape
        assert read[0, 2].mean() > 190 and read[0, -2].mean() < 10
