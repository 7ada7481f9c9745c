"""What `lusbio score` takes for a video beyond decoding it, and what decoding meanwhile would save."""

import os
import statistics
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from _measure import Finding, median_ratio, report, time_in_turn
from _training import make_cohort

from lusbio import training
from lusbio.assembly import make_network
from lusbio.clips import ClipDataset, evaluation_loader
from lusbio.experts import fit_expert, save_expert
from lusbio.files import write_json
from lusbio.labels import BIOMARKER_TASK
from lusbio.models.weights import save_weights
from lusbio.profiles import PROFILES
from lusbio.runs import RunSpec
from lusbio.scoring import CARD_FILE, WEIGHTS_FILE, Model, find_model, load_network, score_videos
from lusbio.videos import DecodedVideo, decode_video
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

VIDEOS, ROUNDS, AHEAD = 6, 3, 2


def make_model(folder: Path) -> Model:
    """A model folder of the paper's size with random weights, and a forest per task that learnt from noise.

    Args:
        folder: Where to write it.

    Returns:
        The model, as ``lusbio score`` finds it.
    """
    settings, rng = PROFILES["paper"].training, np.random.default_rng(0)
    spec = RunSpec(BIOMARKER_TASK, 0, "paper", settings, "noise", "noise", "final", BIOMARKER_NAMES)
    save_weights(make_network(spec.backbone, len(spec.outputs), settings.frames), folder / WEIGHTS_FILE)
    noise, groups = rng.random((200, len(BIOMARKER_NAMES))), np.arange(200)
    for task, about in TASKS.items():
        labels, classes = groups % len(about.classes), len(about.classes)
        expert = fit_expert("RF", noise, labels, groups, noise, labels, n_classes=classes, fits=1)
        save_expert(expert, folder / f"{task}.skops")
    write_json({"network": asdict(spec), "masked": [], "experts": dict.fromkeys(TASKS)}, folder / CARD_FILE)
    return find_model(folder)


def decode_ahead(paths: Iterable[Path], size: int) -> Iterator[np.ndarray]:
    """Frames of one video after the other, a few decoded in the background while the caller is busy."""
    with ThreadPoolExecutor(1) as pool:
        coming: deque = deque()
        for path in paths:
            coming.append(pool.submit(decode_video, path, size))
            if len(coming) > AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def find_biomarkers_meanwhile(paths: Iterable[Path], model: Model) -> np.ndarray:
    """Biomarkers of videos, one video at a time, while the next ones are decoded.

    Args:
        paths: Video files.
        model: From ``find_model``.

    Returns:
        Probabilities (V, 38).
    """
    settings, unknown = model.settings, torch.full((1, len(BIOMARKER_NAMES)), torch.nan)
    module = training.VideoModule(
        load_network(model), multilabel=True, settings=settings, steps_per_epoch=1, seed=0
    )
    found = []
    for frames in decode_ahead(paths, settings.image_size):
        dataset = ClipDataset([DecodedVideo(frames)], unknown, settings.frames)
        loader = evaluation_loader(dataset, np.arange(1), settings.evaluation_clips)
        found.append(training.predict(module, loader, device=training.choose_device())[0][0])
    return np.stack(found)


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(os.cpu_count())
    cohort = make_cohort(patients=4, size=224)
    paths = dict(zip(cohort.table["video_id"], cohort.video_paths(), strict=True))
    paths = {name: paths[name] for name in list(paths)[:VIDEOS]}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        size = model.settings.image_size
        blocks = {
            "decode": lambda: [decode_video(path, size) for path in paths.values()],
            "score": lambda: score_videos(paths, model),
            "meanwhile": lambda: find_biomarkers_meanwhile(paths.values(), model),
        }
        scores = score_videos(paths, model)[list(BIOMARKER_NAMES)].to_numpy()
        difference = float(np.abs(find_biomarkers_meanwhile(paths.values(), model) - scores).max())
        seconds = time_in_turn(blocks, ROUNDS, warmups=0)
    per_video = {name: [s / VIDEOS for s in values] for name, values in seconds.items()}
    beyond = float(np.median(np.subtract(per_video["score"], per_video["decode"])))
    findings = [
        Finding("decoding (224 pixels, as stored)", statistics.median(per_video["decode"]), "s/video"),
        Finding("scoring beyond decoding, weights read included", beyond, "s/video", 0.6, at_least=False),
        Finding(
            "the same, decoding while the network works", statistics.median(per_video["meanwhile"]), "s/video"
        ),
        Finding("speed of decoding meanwhile", median_ratio(seconds["score"], seconds["meanwhile"]), "x"),
        Finding("its largest difference of a probability", difference),
    ]
    report("scoring", findings, seconds_per_video=per_video)


if __name__ == "__main__":
    main()
