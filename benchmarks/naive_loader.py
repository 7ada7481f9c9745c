"""The training step against a plain loader: every item decodes its video, is augmented alone, in float32."""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from _measure import Finding, median_ratio, report
from _training import DEVICE, InTurn, make_cohort, make_steps, make_training, prepare
from torch.utils.data import DataLoader, Dataset

from lusbio.cohorts.covid_blues import NAME, load_covid_blues
from lusbio.cohorts.table import Cohort
from lusbio.files import data_folder
from lusbio.network import training
from lusbio.network.clips import augment_clips, frame_indices
from lusbio.runs.spec import PreparedCohort
from lusbio.videos import decode_video

VIDEOS = 36
SHAPES = ((8, 64), (15, 112))
"""Frames and pixels of a clip."""

BATCH = 4
STEPS, PLAIN_STEPS, ROUNDS = 6, 2, 2
"""Steps of a round and rounds that are timed; of plain steps, which take longer, there are fewer."""


class PlainDataset(Dataset):
    """What one would write first: an item is a file that is decoded, cut, resized and augmented when asked for.

    Only the frames of the clip are turned to grey and resized, which spares the plain loader most of that work.

    Args:
        paths: Video files.
        targets: float32 (V, 38).
        clip_frames: Frames of a clip, T.
        size: Height and width of a frame in pixels.
    """

    def __init__(self, paths: list[Path], targets: torch.Tensor, clip_frames: int, size: int):
        self.paths, self.targets = paths, targets
        self.clip_frames, self.size = clip_frames, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        video = iio.imread(self.paths[row], plugin="pyav")  # (N, H, W, 3)
        start = int(torch.randint(max(1, len(video) // self.clip_frames), ()))
        frames = video[frame_indices(len(video), self.clip_frames, start)]
        grey = torch.from_numpy(frames).float().mean(-1, keepdim=True).movedim(-1, 1) / 255  # (T, 1, H, W)
        clip = F.interpolate(grey, (self.size, self.size), mode="area")
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        return augment_clips(clip[None], generator)[0], self.targets[row]


def choose_cohort() -> Cohort:
    """Some videos of COVID-BLUES where it is at hand, else simulated ones."""
    folder = data_folder() / NAME
    if not folder.is_dir():
        return make_cohort(patients=9, size=224)
    cohort = load_covid_blues(folder)
    patients = cohort.table["patient_id"].drop_duplicates()[: VIDEOS // 6]
    return replace(cohort, table=cohort.table[cohort.table["patient_id"].isin(patients)])


def compare(cohort: Cohort, frames: int, size: int) -> tuple[list[Finding], dict]:
    """The plain loader against whole steps of a training, at one size of clips.

    Args:
        cohort: Whose videos.
        frames: Of a clip.
        size: Of a frame in pixels.

    Returns:
        Findings, and seconds per clip of every round.
    """
    prepared = prepare(cohort, frames, size, batch_size=BATCH, clips_per_epoch=STEPS * BATCH, epochs=ROUNDS + 1)
    name, seconds, findings = f"{frames} x {size} x {size}", {}, []
    for cores, goal in ((1, 5), (2, None)):
        found = seconds[f"{cores} cores"] = time_against(prepared, cores)
        per_clip = {which: 1000 * statistics.median(values) for which, values in found.items()}
        plain = f"plain loader on {cores} core{'s' * (cores > 1)}"
        findings += [
            Finding(f"{name}: float32 steps with a {plain}", per_clip["other"], "ms/clip"),
            Finding(f"{name}: steps of a run, 1 core", per_clip["whole"], "ms/clip"),
            Finding(f"{name}: speed of the run", median_ratio(found["other"], found["whole"]), "x", goal),
        ]
    return findings, {name: seconds}


def time_against(prepared: PreparedCohort, cores: int) -> dict[str, list[float]]:
    """Seconds per clip of plain steps (``other``) and of a run's (``whole``), in turn.

    Args:
        prepared: What the run trains on.
        cores: Of the plain loader: 1, or 2 for two processes that decode and two threads that compute. The run always
            has one: a grid of runs uses the other for another run.

    Returns:
        One number per round.
    """
    module, data = make_training(prepared)
    settings, clips = module.settings, PLAIN_STEPS * BATCH
    rows = np.random.default_rng(0).choice(data.sampler.rows, clips)
    paths = [prepared.cohort.video_paths()[row] for row in rows]
    dataset = PlainDataset(paths, data.dataset.targets[rows], settings.frames, settings.image_size)
    workers = {"num_workers": cores, "persistent_workers": True} if cores > 1 else {}
    take_steps = make_steps(module, DataLoader(dataset, BATCH, shuffle=True, **workers), plain=True)

    def take_plain_steps() -> None:
        torch.set_num_threads(cores)
        take_steps()
        torch.set_num_threads(1)

    turns = InTurn(take_plain_steps, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        training.fit(module, data, Path(folder), device=DEVICE, callbacks=[turns])
    counts = {"other": clips, "whole": STEPS * BATCH}
    return {name: [s / counts[name] for s in values[1:]] for name, values in turns.seconds.items()}


def measure_decoding(cohort: Cohort, size: int) -> Finding:
    """What a run's cache costs, once: milliseconds to decode a video."""
    paths = cohort.video_paths()[:8]
    start = time.perf_counter()
    for path in paths:
        decode_video(path, size)
    return Finding("decoding for the cache, once", 1000 * (time.perf_counter() - start) / len(paths), "ms/video")


def main() -> None:
    """Measure, print and write."""
    cohort = choose_cohort()
    print(f"videos: {len(cohort.table)} of {cohort.name}{' (simulated mp4 files)' if cohort.simulated else ''}")
    findings, details = [measure_decoding(cohort, SHAPES[0][1])], {}
    with training.one_thread():
        for shape in SHAPES:
            found, seconds = compare(cohort, *shape)
            findings += found
            details |= seconds
    report("naive_loader", findings, videos=cohort.name, seconds_per_clip=details)


if __name__ == "__main__":
    main()
