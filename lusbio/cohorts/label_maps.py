"""A class for every pixel of some frames of every video: exact where patients are simulated, else painted by people."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lusbio.cohorts.synthetic import scene_of
from lusbio.cohorts.table import Cohort, list_some
from lusbio.errors import CohortError, refuse
from lusbio.files import atomic_path, build_folder, code_fingerprint, text_sha256
from lusbio.simulation.masks import label_map
from lusbio.simulation.patients import Recording
from lusbio.simulation.population import simulate_recordings
from lusbio.videos import CachedVideo
from lusbio.vocabulary import PIXEL_CLASSES

PAINTED = "masks"
"""Folder of a cohort with maps that people painted: ``<video_id>.npy``, uint8 (N, H, W), one map a frame."""

CODE = ("simulation/masks.py", "simulation/artifacts.py", "simulation/anatomy.py", "simulation/placement.py")
"""What decides exact maps, besides what decides the videos."""


class LabelMaps(NamedTuple):
    """Frames and their labels.

    Attributes:
        numbers: Which frames of each video, int64 (V, n), spread evenly, each from 0 to its last.
        frames: uint8 (V, n, H, W).
        maps: uint8 (V, n, H, W), positions in ``PIXEL_CLASSES``.
    """

    numbers: np.ndarray
    frames: np.ndarray
    maps: np.ndarray


def spread_frames(videos: list[CachedVideo], n: int) -> np.ndarray:
    """Numbers of n frames of each video, int64 (V, n), spread evenly; those of a shorter video repeat."""
    return np.array([np.arange(n) * video.n_frames // n for video in videos])


def take_frames(videos: list[CachedVideo], numbers: np.ndarray) -> np.ndarray:
    """Frames of decoded videos, uint8 (V, n, H, W)."""
    return np.stack([video.load()[of_video] for video, of_video in zip(videos, numbers, strict=True)])


def read_label_maps(cohort: Cohort, videos: list[CachedVideo], n: int, jobs: int = 1) -> LabelMaps:
    """Some frames of every video of a cohort with their label maps.

    Those of simulated patients are computed once, at the size of the decoded frames, and kept in the build folder.

    Args:
        cohort: Simulated, or with a folder ``PAINTED``.
        videos: Decoded, a row of the table each.
        n: Frames of each video.
        jobs: Videos at a time.

    Raises:
        CohortError: If there are no maps, or they are not those of the decoded frames; names all that is wrong.
    """
    numbers = spread_frames(videos, n)
    frames = take_frames(videos, numbers)
    if cohort.simulated and (cohort.folder / "simulation.json").is_file():
        return LabelMaps(numbers, frames, _compute_maps(cohort, numbers, frames.shape[-1], jobs))
    return LabelMaps(numbers, frames, _read_painted(cohort, videos, numbers))


def _compute_maps(cohort: Cohort, numbers: np.ndarray, size: int, jobs: int) -> np.ndarray:
    from joblib import Parallel, delayed

    parameters = json.loads((cohort.folder / "simulation.json").read_text(encoding="utf-8"))
    known = text_sha256(parameters, code_fingerprint(*CODE), cohort.table["video_id"].tolist(), numbers.tolist(), size)
    path = build_folder("label_maps", f"{cohort.name}-{size}-{known[:12]}.npy")
    if not path.is_file():
        recordings = simulate_recordings(parameters["patients"], parameters["seed"], parameters["probe"])
        by_id = {recording.video_id: recording for recording in recordings}
        asked = zip((by_id[name] for name in cohort.table["video_id"]), numbers.tolist(), strict=True)
        with atomic_path(path) as temporary:
            np.save(temporary, np.stack(Parallel(jobs)(delayed(_label_video)(*one, size) for one in asked)))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _label_video(recording: Recording, numbers: list[int], size: int) -> np.ndarray:
    scene = scene_of(recording)
    return np.stack([label_map(scene, size, number) for number in numbers])


def _read_painted(cohort: Cohort, videos: list[CachedVideo], numbers: np.ndarray) -> np.ndarray:
    folder, names = cohort.folder / PAINTED, cohort.table["video_id"].tolist()
    missing = [name for name in names if not (folder / f"{name}.npy").is_file()]
    if missing:
        what = f"no label maps of {len(missing)} of {len(names)} videos ({list_some(missing)})"
        raise CohortError(cohort.name, [f"{what}: give `{PAINTED}/<video_id>.npy`, uint8 (N, H, W)"])
    maps = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names]
    refuse(cohort.folder, [line for one in zip(names, maps, videos, strict=True) for line in _find_problems(*one)])
    return np.stack([of_video[chosen] for of_video, chosen in zip(maps, numbers, strict=True)])


def _find_problems(name: str, maps: np.ndarray, video: CachedVideo) -> list[str]:
    """What is wrong with the painted maps of a video: at most one line."""
    expected, start = video.load().shape, f"{Path(PAINTED, name)}.npy"
    if maps.dtype != np.uint8 or maps.shape != expected:
        found = f"{start} is {maps.dtype} {maps.shape}, expected uint8 {expected}"
        return [f"{found}: one map a frame at the size of the profile; maps are never resized"]
    if (highest := int(maps.max(initial=0))) >= len(PIXEL_CLASSES):
        return [
            f"{start} holds the value {highest}, expected 0 to {len(PIXEL_CLASSES) - 1}: {', '.join(PIXEL_CLASSES)}"
        ]
    return []
