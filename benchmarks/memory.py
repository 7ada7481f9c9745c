"""Whether a training's memory grows with its cohort: peak above the start with N videos and with four times as many."""

import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _measure import Finding, report
from _training import DEVICE

from lusbio.network import training
from lusbio.network.clips import ClipDataModule, ClipDataset
from lusbio.profiles import PROFILES
from lusbio.runs.assembly import make_network
from lusbio.videos import CachedVideo, VideoInfo
from lusbio.vocabulary import BIOMARKER_NAMES

VIDEOS, TIMES = 80, 4
FRAMES, SIZE, CLIP_FRAMES, BATCH = 300, 64, 4, 8
MB_PER_VIDEO = FRAMES * SIZE**2 / 1e6


def write_videos(folder: Path, count: int) -> None:
    """Fill a folder with frame caches of noise."""
    rng = np.random.default_rng(0)
    for k in range(count):
        np.save(folder / f"{k:04}.npy", rng.integers(0, 256, (FRAMES, SIZE, SIZE), np.uint8))


def train(folder: Path, count: int) -> float:
    """Train two epochs on every cached video of a folder, or the first ones.

    Args:
        folder: With frame caches, from ``write_videos``.
        count: How many to train on; a tenth of as many validate.

    Returns:
        Megabytes by which this process was ever larger than before the first step.
    """
    settings = replace(PROFILES["laptop"].training, frames=CLIP_FRAMES, width=64, epochs=2)
    info = VideoInfo(FRAMES, FRAMES, SIZE, SIZE, None)
    videos = [CachedVideo(path, "", info) for path in sorted(folder.glob("*.npy"))[:count]]
    targets = torch.randint(2, (count, len(BIOMARKER_NAMES))).float()
    data = ClipDataModule(
        ClipDataset(videos, targets, CLIP_FRAMES),
        np.arange(count),
        np.arange(count // 10),
        clips_per_epoch=None,
        batch_size=BATCH,
        validation_clips=1,
        seed=0,
    )
    module = training.VideoModule(
        make_network("tsm_resnet18", len(BIOMARKER_NAMES), settings),
        multilabel=True,
        settings=settings,
        steps_per_epoch=len(data.train_dataloader()),
        seed=0,
    )
    before = peak_mb()
    with tempfile.TemporaryDirectory() as place, training.one_thread():
        training.fit(module, data, Path(place), device=DEVICE)
    return peak_mb() - before


def peak_mb() -> float:
    """The most memory this process ever held, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main() -> None:
    """Measure, print and write."""
    grown = {}
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder), TIMES * VIDEOS)
        for count in (VIDEOS, TIMES * VIDEOS):
            command = [sys.executable, __file__, folder, str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            grown[count] = float(done.stdout.split()[-1])
    few, many = grown.values()
    added = (TIMES - 1) * VIDEOS * MB_PER_VIDEO
    findings = [
        Finding(f"peak above the start, {VIDEOS} videos, {VIDEOS * MB_PER_VIDEO:.0f} MB of frames", few, "MB"),
        Finding(f"peak above the start, {TIMES} times as many", many, "MB"),
        Finding("growth, of the frames that were added", 100 * (many - few) / added, "%", 5, at_least=False),
    ]
    report("memory", findings, peak_mb_by_videos=grown)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(train(Path(sys.argv[1]), int(sys.argv[2])))
    else:
        main()
