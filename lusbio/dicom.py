"""Ultrasound as it leaves a hospital: where in a DICOM object the image is, and what its tags say of it.

Nothing is guessed: what a tag does not say is unknown, and what tags contradict is an error that says so.
"""

import contextlib
import io
import logging
import re
import warnings
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lusbio.errors import VideoError

PROBE_OF = {"LINEAR": "linear", "CURVED LINEAR": "convex"}
"""Probes by TransducerType; whatever else it may say is none of ours."""

FLAT, TISSUE, CM = 1, 1, 3
"""RegionSpatialFormat "2D", RegionDataType "tissue", physical units "cm". Source: DICOM PS3.3, C.8.5.5."""

Box = namedtuple("Box", "left top right bottom")
"""A rectangle of pixels; right and bottom are the first ones outside."""

Facts = namedtuple("Facts", "fps depth_mm pixel_mm_x pixel_mm_y probe")
"""What the tags say of a video; None where they do not.

Attributes:
    fps: Frames per second.
    depth_mm: From top to bottom of the region, or, without a scale, the depth of the scan field.
    pixel_mm_x, pixel_mm_y: Width and height of a pixel.
    probe: ``"linear"`` or ``"convex"``.
"""


@contextlib.contextmanager
def opened(path: Path) -> Iterator:
    """A DICOM object as pydicom has it; whatever goes wrong with it within the block is one ``VideoError``.

    Broken bytes make pydicom raise nearly anything, hence every ``Exception``.
    """
    import pydicom

    logging.getLogger("pydicom").setLevel("CRITICAL")  # it logs values, and tracebacks
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield pydicom.dcmread(path, defer_size=2**16)  # pixels stay on disk until somebody asks
    except VideoError:
        raise
    except Exception as error:
        raise VideoError(path, _explain(error)) from error


def _explain(error: Exception) -> str:
    """Why an object cannot be read; where a decoder is missing, which one to install."""
    text = str(error).strip()
    needed = re.findall(r"requires (?!gdcm)(.+)", text) if "missing dependencies" in text else []
    if needed:
        compression = re.search(r"'(.+)'", text)[1]
        packages = " ".join(re.findall(r"[\w-]+(?=>=)", needed[-1]))
        return f"is compressed and no decoder for it is installed (it is {compression}; pip install {packages})"
    return f"is not a readable DICOM image ({(text.splitlines() or [type(error).__name__])[0][:120]})"


def find_region(dicom, path: Path) -> Box | None:
    """The image within the frame, by SequenceOfUltrasoundRegions; None where the object names no region.

    Raises:
        VideoError: If the regions name no image of tissue, several, or one that reaches out of the frame.
    """
    regions = dicom.get("SequenceOfUltrasoundRegions")
    if not regions:
        return None
    found = {_box(each) for each in regions if (each.RegionSpatialFormat, each.RegionDataType) == (FLAT, TISSUE)}
    if len(found) != 1:
        raise VideoError(path, f"has no one region with an image of tissue ({len(found)} of {len(regions)} regions)")
    (box,), width, height = found, dicom.Columns, dicom.Rows
    # Some scanners count the last pixel as the first one outside.
    if not (0 <= box.left < box.right <= width + 1 and 0 <= box.top < box.bottom <= height + 1):
        raise VideoError(path, f"names a region that reaches out of the frame ({tuple(box)} in {width} x {height})")
    return Box(box.left, box.top, min(box.right, width), min(box.bottom, height))


def _box(region) -> Box:
    corners = region.RegionLocationMinX0, region.RegionLocationMinY0, region.RegionLocationMaxX1
    left, top, last = map(int, corners)
    return Box(left, top, last + 1, int(region.RegionLocationMaxY1) + 1)


def names_no_region(path: Path) -> bool:
    """Whether a file is a DICOM object that does not say where in its frames the image is."""
    if path.suffix.lower() == ".dcm":
        with contextlib.suppress(VideoError), opened(path) as content:  # what is broken is named by who decodes it
            return not content.get("SequenceOfUltrasoundRegions")
    return False


def read_facts(dicom, box: Box | None) -> Facts:
    """What the tags say of a video; ``box`` as from ``find_region``."""
    width_mm, height_mm = _scale(dicom, box) if box else (None, None)
    field_mm = _above_zero(dicom.get("DepthOfScanField"))
    depth_mm = height_mm * (box.bottom - box.top) if height_mm else field_mm
    return Facts(_fps(dicom), depth_mm, width_mm, height_mm, PROBE_OF.get(str(dicom.get("TransducerType", "")).strip()))


def _fps(dicom) -> float | None:
    """By the time between frames, or else the rate at which they were taken; not by the one advised for display."""
    if interval_ms := _above_zero(dicom.get("FrameTime")):
        return 1000 / interval_ms
    vector = dicom.get("FrameTimeVector") or []
    times = [float(time) for time in vector[1:]] if len(vector) > 1 else []  # the first one is 0
    mean_ms = _above_zero(sum(times) / len(times)) if times else None
    return 1000 / mean_ms if mean_ms else _above_zero(dicom.get("CineRate"))


def _scale(dicom, box: Box) -> tuple[float | None, float | None]:
    """Millimetres of a pixel, across and down, where the region has a scale in centimetres."""
    units = "PhysicalUnitsXDirection", "PhysicalUnitsYDirection"
    for region in dicom.SequenceOfUltrasoundRegions:
        if _box(region)[:2] == box[:2] and all(region.get(unit) == CM for unit in units):
            deltas = _above_zero(region.get("PhysicalDeltaX")), _above_zero(region.get("PhysicalDeltaY"))
            return tuple(delta and 10 * delta for delta in deltas)
    return None, None


def _above_zero(value: object) -> float | None:
    number = float(value) if value not in (None, "") else 0.0
    return number if 0 < number < np.inf else None


def is_film(dicom) -> bool:
    """Whether the pixels are a stream of MPEG, which is for the video decoder."""
    return any(name in dicom.file_meta.TransferSyntaxUID.name for name in ("MPEG", "HEVC"))


def film_of(dicom) -> io.BytesIO:
    """That stream."""
    from pydicom.encaps import generate_frames

    return io.BytesIO(next(generate_frames(dicom.PixelData, number_of_frames=1)))


def grey_frames(dicom, box: Box | None) -> Iterator[np.ndarray]:
    """The frames one by one, cropped to the box, as uint8 (H, W) in which 0 is black, or (H, W, 3) where in colour."""
    from pydicom.pixels import apply_color_lut, iter_pixels

    kind = dicom.PhotometricInterpretation
    for frame in iter_pixels(dicom):  # turns YBR into RGB
        frame, most = frame if box is None else frame[box.top : box.bottom, box.left : box.right], 2**dicom.BitsStored
        if kind == "PALETTE COLOR":
            frame = apply_color_lut(frame, dicom)
            most = 2 ** (8 * frame.itemsize)  # of the colours, whatever their numbers have
        if frame.dtype != np.uint8 or most != 256:
            frame = (frame.astype(np.float64) * 255 / (most - 1)).clip(0, 255).astype(np.uint8)
        yield 255 - frame if kind == "MONOCHROME1" else frame
