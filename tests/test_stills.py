"""Still images are videos of one frame, whatever they are stored as."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lusbio.errors import VideoError
from lusbio.videos import STILL_SUFFIXES, FrameCache, decode_video, read_video_info

RAMP = np.arange(0, 256, 4, dtype=np.uint8)[None].repeat(64, 0)  # dark at the left, bright at the right


def write_png16(numbers: np.ndarray, path: Path) -> Path:
    """Grey of 16 bits, written down independently of the reader."""
    height, width = numbers.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("suffix", STILL_SUFFIXES)
def test_a_still_image_is_a_video_of_one_frame(tmp_path, suffix):
    path = tmp_path / f"ramp{suffix}"
    Image.fromarray(RAMP).save(path)
    frames, info = decode_video(path, 64), read_video_info(path)
    assert frames.shape == (1, 64, 64) and frames.dtype == np.uint8
    assert np.abs(frames[0].astype(int) - RAMP).max() <= (3 if "jp" in suffix else 0)
    assert info == (1, 1, 64, 64, None)


def test_what_is_not_square_is_made_so(tmp_path):
    Image.fromarray(RAMP[:32]).save(tmp_path / "wide.png")
    assert decode_video(tmp_path / "wide.png", 16).shape == (1, 16, 16)


@pytest.mark.parametrize(("bits", "suffix"), [(16, ".png"), (12, ".png"), (16, ".tif"), (10, ".tif")])
def test_images_of_more_than_8_bits_keep_their_greys(tmp_path, bits, suffix):
    """White is the largest number of as many bits as are used: a file of 16 bits may well hold 12."""
    numbers = np.round(RAMP / RAMP.max() * (2**bits - 1)).astype(np.uint16)
    path = tmp_path / f"deep{suffix}"
    if suffix == ".png":
        write_png16(numbers, path)
    else:
        Image.fromarray(numbers).save(path)
    found = decode_video(path, 64)[0].astype(int)
    assert np.abs(found - RAMP / RAMP.max() * 255).max() <= 1


def test_colours_and_palettes_become_grey(tmp_path):
    grey = Image.fromarray(RAMP)
    for mode in ("RGB", "P", "CMYK", "LA", "RGBA"):
        path = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        grey.convert(mode).save(path)
        assert np.abs(decode_video(path, 64)[0].astype(int) - RAMP).max() <= 2, mode


def test_what_is_transparent_is_black(tmp_path):
    colours = np.dstack([RAMP, RAMP, RAMP, np.full_like(RAMP, 255)])
    colours[:32, :, 3] = 0
    Image.fromarray(colours).save(tmp_path / "half.png")
    found = decode_video(tmp_path / "half.png", 64)[0]
    assert (found[:32] == 0).all() and np.abs(found[32:].astype(int) - RAMP[32:]).max() <= 1


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the right edge of what is stored is the top of what is meant, counted clockwise
    Image.fromarray(RAMP).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    found = decode_video(tmp_path / "turned.jpg", 64)[0].astype(int)
    assert np.abs(found - np.rot90(RAMP, -1)).max() <= 3


def test_black_images_are_images(tmp_path):
    Image.fromarray(np.zeros_like(RAMP)).save(tmp_path / "black.png")
    write_png16(np.zeros((64, 64), np.uint16), tmp_path / "deep.png")
    for name in ("black.png", "deep.png"):
        assert not decode_video(tmp_path / name, 32).any()


def test_broken_stills_are_named_with_their_reason(tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8))
    for suffix in (".png", ".jpg", ".tif"):
        noise.save(tmp_path / f"whole{suffix}")
        whole = (tmp_path / f"whole{suffix}").read_bytes()
        (tmp_path / f"truncated{suffix}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("this is not an image\n" * 50)
    shutil.copy(tmp_path / "whole.png", tmp_path / "hurt.png")
    hurt = bytearray((tmp_path / "hurt.png").read_bytes())
    hurt[60:90] = bytes(30)
    (tmp_path / "hurt.png").write_bytes(hurt)
    noise.save(tmp_path / "two.tif", save_all=True, append_images=[noise])
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "floats.tif")
    reasons = dict.fromkeys(["truncated.png", "truncated.jpg", "truncated.tif", "text.png", "hurt.png"], "decode as an")
    reasons |= {"two.tif": "holds 2 images, expected one image of 8 or 16 bits", "floats.tif": "holds numbers with a"}
    for name, reason in reasons.items():
        with pytest.raises(VideoError, match=reason) as caught:
            decode_video(tmp_path / name, 32)
        assert str(tmp_path / name) in str(caught.value)


def write_dicom(numbers: np.ndarray, path: Path, photometric: str, bits: int) -> Path:
    import pydicom
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    dicom = pydicom.Dataset()
    dicom.file_meta = pydicom.dataset.FileMetaDataset()
    dicom.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dicom.file_meta.MediaStorageSOPClassUID = dicom.SOPClassUID = DigitalXRayImageStorageForPresentation
    uid = pydicom.uid.generate_uid(entropy_srcs=["still"])
    dicom.file_meta.MediaStorageSOPInstanceUID = dicom.SOPInstanceUID = uid
    dicom.Rows, dicom.Columns = numbers.shape
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation = 1, photometric
    dicom.BitsAllocated, dicom.BitsStored = 8 * numbers.itemsize, bits
    dicom.HighBit, dicom.PixelRepresentation = bits - 1, 0
    dicom.PixelData = numbers.tobytes()
    dicom.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("bits", [8, 12])
def test_dicom_whose_zero_is_white_is_inverted(tmp_path, bits):
    numbers = np.round(RAMP / 255 * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    usual = write_dicom(numbers, tmp_path / "usual.dcm", "MONOCHROME2", bits)
    inverted = write_dicom(2**bits - 1 - numbers, tmp_path / "inverted.dcm", "MONOCHROME1", bits)
    assert np.abs(decode_video(inverted, 64).astype(int) - decode_video(usual, 64)).max() <= 1
    assert np.abs(decode_video(inverted, 64)[0].astype(int) - RAMP).max() <= 1


def test_stills_are_cached_as_videos_are(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "ramp.png")
    (entry,) = FrameCache(tmp_path / "cache", 32).prepare([tmp_path / "ramp.png"])
    assert entry.n_frames == 1 and entry.load().shape == (1, 32, 32)
