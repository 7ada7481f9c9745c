"""From a folder of DICOM objects, as a hospital exports them, to a cohort folder that names nobody.

What leaves is the image within each frame, a few numbers, and ids that only the salt ties to patients. That is not a
de-identification of what is seen within the image: whoever passes the cohort on looks at it first.
"""

import hmac
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lusbio import dicom
from lusbio.cohorts.load import TABLE_FILE
from lusbio.cohorts.table import COLUMNS, write_table
from lusbio.errors import LusbioError, VideoError
from lusbio.files import write_csv, write_text
from lusbio.videos import read_dicom, write_frames

PIXELS = ("frames", "height", "width", "pixel_mm_x", "pixel_mm_y")
"""Columns of ``pixels.csv``, besides ``video_id``."""

SMALLEST = 16
"""Height and width from which on a region is taken for an image, in pixels. (Engineering choice.)"""

KEPT = "imported"


def import_dicom(folder: Path, out: Path, say: Callable[[str], None] = print) -> pd.DataFrame:
    """Write a cohort folder from DICOM objects: cropped videos, hashed ids, and what was dropped.

    Two folders are written. ``out`` holds ``cohort.csv``, ``videos/``, ``pixels.csv`` (sizes and scales) and
    ``dropped.csv`` (how many files, and why), and names no patient and no file. ``<out>.private`` beside it stays in
    the hospital: the salt of the ids, made on the first call and used again, and ``files.csv``, which says what became
    of each file, to join labels by.

    An object is dropped where it says too little: no region of the image (what is written around it could not be cut
    away), no patient, a single frame. A video whose tags do not say how fast it runs is stored as an array, which does
    not say so either.

    Args:
        folder: Searched with its subfolders for DICOM files of any name.
        out: The folder to write; it holds no cohort yet.
        say: Takes a line for each file that is dropped.

    Returns:
        One row per file: ``file, video_id, patient_id, outcome``, what ``files.csv`` holds.

    Raises:
        LusbioError: If there is nothing to import, or the folders are in each other's way.
    """
    folder, out = folder.resolve(), out.resolve()
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not folder.is_dir() or not paths:
        raise LusbioError(f"{folder}: no folder, or one without files; expected one with DICOM files")
    if out.is_relative_to(folder):
        raise LusbioError(f"{out}: lies within {folder}; a cohort is written outside of the folder that is imported")
    if (out / TABLE_FILE).exists():
        raise LusbioError(f"{out}: holds a {TABLE_FILE} already; give --out a folder that is new")
    private = out.with_name(f"{out.name}.private")
    salt, rows, seen = _read_salt(private), [], set()
    for path in paths:
        try:
            rows.append(_import_one(path, out, salt, seen) | {"outcome": KEPT})
        except VideoError as error:
            rows.append({"outcome": error.reason})
            say(str(error))
    table = pd.DataFrame(rows, columns=[*COLUMNS, *PIXELS, "outcome"])
    files = table[["video_id", "patient_id", "outcome"]].assign(file=[path.relative_to(folder) for path in paths])
    write_csv(files, private / "files.csv")
    _write_cohort(table, out)
    return files


def _read_salt(private: Path) -> bytes:
    """A secret of 256 bits in a folder that only its owner may enter; made where it is missing."""
    private.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = private / "salt.txt"
    if not path.exists():
        write_text(secrets.token_hex(32) + "\n", path)
    return path.read_text(encoding="ascii").strip().encode()


def _import_one(path: Path, out: Path, salt: bytes, seen: set[str]) -> dict:
    """Write the video of one object; its row. A ``VideoError`` says why there is none."""

    def name(*content: object) -> str:
        return hmac.new(salt, "\n".join(str(part or "").strip() for part in content).encode(), "sha256").hexdigest()[
            :16
        ]

    with dicom.opened(path) as content:
        if not str(content.get("PatientID") or "").strip():
            raise VideoError(path, "has no PatientID")
        if (box := dicom.find_region(content, path)) is None:
            raise VideoError(path, "names no ultrasound region, so that nothing can be cut away around the image")
        facts = dicom.read_facts(content, box)
        row = facts._asdict() | {"video_id": name(content.SOPInstanceUID)}
        row["patient_id"] = name(content.get("IssuerOfPatientID"), content.PatientID)
    if row["video_id"] in seen:
        raise VideoError(path, "is the same object as another file")
    frames, info = read_dicom(path)
    if len(frames) < 2:
        raise VideoError(path, "holds one frame, which is no video")
    even = frames[:, : info.height // 2 * 2, : info.width // 2 * 2]  # as H.264 wants it
    if min(even.shape[1:]) < SMALLEST:
        raise VideoError(path, f"shows an image of less than {SMALLEST} pixels ({info.height} x {info.width})")
    if facts.pixel_mm_y:
        row["depth_mm"] = facts.pixel_mm_y * even.shape[1]
    suffix = ".mp4" if facts.fps and round(facts.fps) else ".npy"
    row["path"] = f"videos/{row['video_id']}{suffix}"
    write_frames(even, out / row["path"], facts.fps or 0)
    seen.add(row["video_id"])
    return row | {"frames": len(even), "height": even.shape[1], "width": even.shape[2]}


def _write_cohort(table: pd.DataFrame, out: Path) -> None:
    """The tables that may leave; ``cohort.csv`` comes last."""
    kept = table[table["outcome"] == KEPT].sort_values("video_id")
    reasons = Counter(reason.split(" (")[0] for reason in table["outcome"] if reason != KEPT)  # brackets hold values
    write_csv(pd.DataFrame(reasons.most_common(), columns=["reason", "files"]), out / "dropped.csv")
    if kept.empty:
        raise LusbioError(f"none of {len(table)} files could be imported; {out / 'dropped.csv'} counts the reasons")
    write_csv(kept[["video_id", *PIXELS]], out / "pixels.csv")
    write_table(kept[list(COLUMNS)], out / TABLE_FILE)
