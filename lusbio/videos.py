"""Videos in, grey frames out: decode once, keep the frames, write videos.

The only module that opens or writes a video file.
"""

import gc
import importlib.util
import io
import json
import zipfile
import zlib
from collections import namedtuple
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lusbio import dicom
from lusbio.errors import CohortError, VideoError
from lusbio.files import atomic_path, file_sha256, write_json

DECODING, DECODING_DICOM = "1", "2"
"""Raise it whenever the same file comes out as other frames than before: caches and runs are then made anew."""

STILL_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""File types of still images, which are videos of one frame."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mpeg", ".mpg", ".gif", ".webm", ".dcm", ".npy", *STILL_SUFFIXES)
"""File types that can be read, lower case."""

MISSING_FRAMES_TOLERATED = 0.1
"""Share of the announced frames that may be missing. Edit lists of mov files hide up to 9 % of the
frames of intact public videos; a larger gap means a truncated file. (Engineering choice.)"""


VideoInfo = namedtuple("VideoInfo", "frames announced_frames height width fps")
"""What a video turned out to be when it was decoded.

Attributes:
    frames: Frames that decode.
    announced_frames: Frames that the container announces; None when it does not say.
    height: Stored height in pixels.
    width: Stored width in pixels.
    fps: Frames per second; None when the file does not say.
"""


Fit = Callable[[int, int], tuple[int, int]]
"""How large frames become: from stored height and width to those of the frames, in pixels."""


def own_size(height: int, width: int) -> tuple[int, int]:
    """As large as they are stored."""
    return height, width


def decode_video(path: Path, size: int) -> np.ndarray:
    """Decode a video to small square grey frames.

    The frame is resized to a square, whatever its aspect. The paper interpolates bilinearly; area averaging passes over
    no pixel where frames are made much smaller. (Engineering choice.)

    Args:
        path: A video, a still image, a DICOM object, or a uint8 array (N, H, W) or (N, H, W, 3).
        size: Height and width of the frames, in pixels.

    Returns:
        uint8 array (N, size, size), N >= 1, 0 is black. Of DICOM the region of the image, where the object names one.

    Raises:
        VideoError: If the file is missing, is not a video, or is truncated (fewer than 90 % of the
            announced frames decode); names path, bytes and reason.
    """
    return read_video(path, size)[0]


def decoding_of(path: Path | str) -> str:
    """Which way of decoding a file's frames are from."""
    return DECODING_DICOM if str(path).lower().endswith(".dcm") else DECODING


def files_below(folder: Path) -> tuple[list[str], list[str]]:
    """Files in a folder and its subfolders, relative to it and sorted, none that is hidden: videos, and all others."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sides: tuple[list[str], list[str]] = ([], [])
    for name in names:
        if "/." not in f"/{name}":
            sides[Path(name).suffix.lower() not in VIDEO_SUFFIXES].append(name)
    return sides


def videos_below(folder: Path) -> list[str]:
    """The video files of ``files_below``."""
    return files_below(folder)[0]


def read_video_info(path: Path) -> VideoInfo:
    """Decode a video to learn its true frame count and properties; raises what ``decode_video`` raises."""
    return read_video(path, 16)[1]


def read_video(path: Path, size: int | None) -> tuple[np.ndarray, VideoInfo]:
    """Frames as from ``decode_video``, or of their own size where that is None, and what the file turned out to be."""
    return _read(path, (lambda height, width: (size, size)) if size else own_size)


def read_frames(path: Path, longest: int) -> tuple[np.ndarray, VideoInfo]:
    """Decode a video to grey frames of its own aspect, for people to look at.

    Args:
        path: As for ``decode_video``.
        longest: The longer side in pixels; a smaller video stays as small as it is.

    Returns:
        uint8 array (N, H, W), and what the file turned out to be.

    Raises:
        VideoError: As from ``decode_video``.
    """

    def fit(height: int, width: int) -> tuple[int, int]:
        share = min(1.0, longest / max(height, width))
        return max(1, round(height * share)), max(1, round(width * share))

    return _read(path, fit)


def _read(path: Path, fit: Fit) -> tuple[np.ndarray, VideoInfo]:
    path = _find_file(path)
    suffix = path.suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise VideoError(path, f"file type {suffix!r} is not one of {', '.join(VIDEO_SUFFIXES)}")
    if path.stat().st_size == 0:
        raise VideoError(path, "is empty")
    readers = {".npy": _read_array, ".dcm": read_dicom} | dict.fromkeys(STILL_SUFFIXES, _read_still)
    return readers.get(suffix, _read_container)(path, fit)


def _find_file(path: Path) -> Path:
    if not Path(path).is_file():
        raise VideoError(path, "cannot be opened")
    return Path(path)


def _read_container(
    path: Path, fit: Fit, stream: io.BytesIO | None = None, box: dicom.Box | None = None
) -> tuple[np.ndarray, VideoInfo]:
    """Decode through imageio's pyav plugin, frame by frame: its ``imread`` invents missing frames."""
    import imageio.v3 as iio

    crop = [("crop", f"{box.right - box.left}:{box.bottom - box.top}:{box.left}:{box.top}:exact=1")] if box else []
    gc.freeze()  # imageio collects garbage at every close, which takes long with torch in memory
    try:
        with iio.imopen(stream or path, "r", plugin="pyav") as reader:
            announced, height, width = reader.properties().shape[:3]
            height, width = (box.bottom - box.top, box.right - box.left) if box else (height, width)
            fps = reader.metadata().get("fps")
            high, wide = fit(height, width)
            filters = [*crop, ("scale", f"{wide}:{high}:flags=area")]
            frames = list(reader.iter(format="gray", filter_sequence=filters))
        del reader  # it collects once more when it goes
    except Exception as error:  # broken bytes make plugin and decoder raise nearly anything
        raise VideoError(path, f"does not decode as a video ({_first_line(error)})") from error
    finally:
        gc.unfreeze()
    if not frames:
        raise VideoError(path, "holds no frames")
    info = VideoInfo(len(frames), announced or None, height, width, float(fps) if fps else None)
    if info.announced_frames and info.frames < (1 - MISSING_FRAMES_TOLERATED) * info.announced_frames:
        found = f"only {info.frames} of {info.announced_frames} announced frames"
        raise VideoError(path, f"{found} decode; is it truncated?")
    return np.stack(frames), info


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _read_array(path: Path, fit: Fit) -> tuple[np.ndarray, VideoInfo]:
    try:
        frames = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise VideoError(path, f"is not a NumPy array ({_first_line(error)})") from error
    if not isinstance(frames, np.ndarray):
        frames.close()
        raise VideoError(path, "is an archive of several NumPy arrays, expected one array")
    return _shrink(frames, path, fit, None)


def _read_still(path: Path, fit: Fit) -> tuple[np.ndarray, VideoInfo]:
    """Read an image, turned as its EXIF says and laid on black where it is transparent.

    Files of 16 bits often hold fewer and do not say so: white is the largest number of as many bits as are used.
    (Engineering choice.)
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as file:
            n_images, image = getattr(file, "n_frames", 1), ImageOps.exif_transpose(file)
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise VideoError(path, f"does not decode as an image ({_first_line(error)})") from error
    if n_images > 1 or image.mode == "F":
        found = f"{n_images} images" if n_images > 1 else "numbers with a decimal point"
        raise VideoError(path, f"holds {found}, expected one image of 8 or 16 bits")
    if image.mode.startswith("I"):
        numbers = np.asarray(image).clip(0)
        bits = max(8, int(numbers.max()).bit_length())
        return _shrink((numbers * (255 / (2**bits - 1))).round().astype(np.uint8)[None], path, fit, None)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return _shrink(np.asarray(image.convert("L"))[None], path, fit, None)


def read_dicom(path: Path, fit: Fit = own_size) -> tuple[np.ndarray, VideoInfo]:
    """As ``read_video``, of a DICOM object whatever its file is called: the image within its frames.

    MPEG streams inside one go through the video decoder.
    """
    with dicom.opened(path) as content:
        box = dicom.find_region(content, path)
        fps = dicom.read_facts(content, box).fps
        if dicom.is_film(content):
            frames, info = _read_container(path, fit, dicom.film_of(content), box)
            return frames, info._replace(fps=fps or info.fps)
        return _shrink(np.stack(list(dicom.grey_frames(content, box))), path, fit, fps)


def _shrink(frames: np.ndarray, path: Path, fit: Fit, fps: float | None) -> tuple[np.ndarray, VideoInfo]:
    """Whole frames made smaller by area averaging."""
    from PIL import Image

    colour = frames.ndim == 4 and frames.shape[-1] == 3
    if frames.dtype != np.uint8 or not (frames.ndim == 3 or colour) or 0 in frames.shape:
        found = f"{frames.dtype} of shape {frames.shape}"
        raise VideoError(path, f"holds {found}, expected uint8 (N, H, W) or (N, H, W, 3)")
    size = fit(*frames.shape[1:3])[::-1]  # Pillow says the width first
    small = [np.asarray(Image.fromarray(f).convert("L").resize(size, Image.Resampling.BOX)) for f in frames]
    return np.stack(small), VideoInfo(len(frames), len(frames), frames.shape[1], frames.shape[2], fps)


def can_encode() -> bool:
    """Whether this machine has what writes mp4 files; machines that only train often do not."""
    return importlib.util.find_spec("av") is not None


def write_frames(frames: np.ndarray, path: Path, fps: float) -> None:
    """Write grey frames as a video, or as they are.

    Args:
        frames: uint8 array (N, H, W).
        path: ``.mp4`` for H.264 (see ``encode_video``), ``.npy`` for the array itself, which is what a
            machine without av can read; it appears only when complete.
        fps: Frames per second; an array does not keep it.

    Raises:
        ValueError: If the frames do not fit a video.
    """
    if path.suffix == ".npy":
        with atomic_path(path) as temporary:
            np.save(temporary, frames)
    else:
        encode_video(frames, path, fps)


def encode_video(frames: np.ndarray, path: Path, fps: float) -> None:
    """Write grey frames as an H.264 mp4; the same frames always give the same bytes.

    Args:
        frames: uint8 array (N, H, W); H and W even.
        path: The ``.mp4`` file; its folder is made, and it appears only when complete.
        fps: Frames per second.

    Raises:
        ValueError: If the frames are not uint8 (N, H, W) of even height and width.
    """
    import av

    if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1] % 2 or frames.shape[2] % 2 or not len(frames):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (N, H, W) with even H and W")
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        # One thread and no frames held back: otherwise x264's bytes depend on the machine and the moment.
        options = {"crf": "18", "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
        stream = container.add_stream("h264", rate=round(fps), options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())


class CachedVideo(namedtuple("CachedVideo", "frames_path sha256 info")):
    """A decoded video on disk.

    Attributes:
        frames_path: ``.npy`` file, uint8 (N, size, size).
        sha256: Of the original file's bytes.
        info: What the original turned out to be, a ``VideoInfo``.
    """

    @property
    def n_frames(self) -> int:
        """N."""
        return self.info.frames

    def load(self) -> np.ndarray:
        """The frames as a read-only memory map, uint8 (N, size, size)."""
        return np.load(self.frames_path, mmap_mode="r", allow_pickle=False)


class DecodedVideo(namedtuple("DecodedVideo", "frames")):
    """A decoded video in memory, for where there is nothing to keep.

    Attributes:
        frames: uint8 (N, size, size).
    """

    @property
    def n_frames(self) -> int:
        """N."""
        return len(self.frames)

    def load(self) -> np.ndarray:
        """The frames, uint8 (N, size, size)."""
        return self.frames


class FrameCache(namedtuple("FrameCache", "folder size")):
    """Decoded frames, one array per video, found by the content of the file and the frame size.

    Any number of processes may use one folder: a file appears there only when complete, under a
    name that its content decides.

    Attributes:
        folder: Where the arrays lie.
        size: Height and width of the frames, in pixels.
    """

    def prepare(self, paths: Sequence[Path], workers: int = 1) -> list[CachedVideo]:
        """Decode what is not decoded yet, and check what is.

        Args:
            paths: Video files.
            workers: Threads that decode.

        Returns:
            One entry per path, in the same order.

        Raises:
            CohortError: With one line for every file that does not decode.
        """
        results = try_each(self._prepare_one, paths, workers)
        broken = [str(result) for result in results if isinstance(result, VideoError)]
        if broken:
            raise CohortError("videos", broken)
        return results

    def _prepare_one(self, path: Path) -> CachedVideo:
        path = _find_file(path)
        sha256 = file_sha256(path)
        # Readers differ by file type, and one content under two names may be read by two of them.
        stem = f"{sha256[:32]}-{path.suffix.lower().lstrip('.')}-{self.size}-{decoding_of(path)}"
        frames_path, notes_path = self.folder / f"{stem}.npy", self.folder / f"{stem}.json"
        info = _read_notes(frames_path, notes_path)
        if info is None:
            frames, info = read_video(path, self.size)
            with atomic_path(frames_path) as temporary:
                np.save(temporary, frames)
            write_json({**info._asdict(), "crc32": zlib.crc32(frames)}, notes_path)
        return CachedVideo(frames_path, sha256, info)


def _read_notes(frames_path: Path, notes_path: Path) -> VideoInfo | None:
    """The notes of a cached video, or None when it is absent or its frames are not what was written."""
    try:
        notes = json.loads(notes_path.read_text())
        intact = zlib.crc32(np.load(frames_path, allow_pickle=False)) == notes.pop("crc32")
        return VideoInfo(**notes) if intact else None
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None


def try_each(read: Callable[[Path], object], paths: Sequence[Path], workers: int) -> list:
    """Read many videos; a bar shows when a person watches and there is something to wait for.

    Args:
        read: A function of one path.
        paths: Video files.
        workers: Threads.

    Returns:
        For each path what ``read`` returned, or the ``VideoError`` that it raised.
    """
    from tqdm import tqdm

    def attempt(path: Path) -> object:
        try:
            return read(path)
        except VideoError as error:
            return error

    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(attempt, paths)
        return list(tqdm(results, "decoding", len(paths), unit="video", leave=False, delay=1, disable=None))
