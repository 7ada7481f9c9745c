"""What `lusbio score` takes for a video beyond decoding it, beside decoding first, and by clips per pass."""

import os
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _measure import Finding, median_ratio, report, time_in_turn

from lusbio.cohorts.synthetic import simulate_cohort
from lusbio.experts.classifiers import fit_expert, save_expert
from lusbio.files import build_folder, write_json
from lusbio.network import training
from lusbio.network.clips import EVALUATION_BATCH, ClipDataset, evaluation_loader
from lusbio.network.weights import save_weights
from lusbio.profiles import PROFILES
from lusbio.runs.assembly import make_network
from lusbio.runs.predict import WEIGHTS_FILE, load_module, predict_videos
from lusbio.runs.spec import RunSpec
from lusbio.scoring.score import CARD_FILE, ScoringModel, find_model, score_videos
from lusbio.videos import DecodedVideo, decode_video
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, TASKS

VIDEOS, ROUNDS = 8, 3
CLIPS_PER_PASS = (1, 2, 4, 8, 32)


def make_model(folder: Path) -> ScoringModel:
    """A model folder of the paper's size with random weights, and a forest per task that learnt from noise.

    Args:
        folder: Where to write it.

    Returns:
        The model, as ``lusbio score`` finds it.
    """
    settings, rng = PROFILES["paper"].training, np.random.default_rng(0)
    spec = RunSpec(BIOMARKER_TASK, 0, "paper", settings, "noise", "noise", "final", BIOMARKER_NAMES)
    save_weights(make_network(spec.backbone, len(spec.outputs), settings), folder / WEIGHTS_FILE)
    noise, groups = rng.random((200, len(BIOMARKER_NAMES))), np.arange(200)
    for task, about in TASKS.items():
        labels, classes = groups % len(about.classes), len(about.classes)
        expert = fit_expert("RF", noise, labels, groups, noise, labels, n_classes=classes, fits=1)
        save_expert(expert, folder / f"{task}.skops")
    write_json({"network": asdict(spec), "masked": [], "experts": dict.fromkeys(TASKS)}, folder / CARD_FILE)
    return find_model(folder)


def score_decode_first(paths: Sequence[Path], model: ScoringModel) -> np.ndarray:
    """Biomarkers of videos as a plain program finds them: all are decoded, then all are predicted.

    Args:
        paths: Video files.
        model: From ``find_model``.

    Returns:
        Probabilities (V, 38).
    """
    settings = model.network.settings
    videos = [DecodedVideo(decode_video(path, settings.image_size)) for path in paths]
    return predict_videos(videos, model.network, settings.evaluation_clips)


def cut_clips(paths: Sequence[Path], model: ScoringModel) -> torch.Tensor:
    """The clips of videos that the network sees.

    Args:
        paths: Video files.
        model: From ``find_model``.

    Returns:
        uint8 (clips, T, 1, H, W), those of a video one after the other.
    """
    settings = model.network.settings
    videos = [DecodedVideo(decode_video(path, settings.image_size)) for path in paths]
    dataset = ClipDataset(videos, torch.full((len(videos),), -1), settings.frames)
    loader = evaluation_loader(dataset, np.arange(len(videos)), settings.evaluation_clips)
    return torch.cat([batch["clips"] for batch in loader])


def predict_in_passes(module: training.VideoModule, clips: torch.Tensor, n_clips: int, threads: int) -> None:
    """Show clips to a network, some at a time, on as many cores as there are.

    Args:
        module: The network.
        clips: uint8 (clips, T, 1, H, W).
        n_clips: Clips per pass.
        threads: Passes at the same time, one core each; 1 for one pass at a time on all cores.
    """
    passes = [[{"clips": part, "rows": torch.arange(len(part))}] for part in clips.split(n_clips)]

    def predict(batches: list[dict]) -> None:
        training.predict(module, batches, device=training.choose_device())

    if threads == 1:
        for batches in passes:
            predict(batches)
        return
    one_each = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with training.one_thread(), ThreadPoolExecutor(threads, **one_each) as pool:
        list(pool.map(predict, passes))


def time_passes(clips: torch.Tensor, model: ScoringModel) -> tuple[list[Finding], dict[str, list[float]]]:
    """The network alone, by clips per pass, with all cores for one pass or one core for each of several.

    Args:
        clips: uint8 (clips, T, 1, H, W).
        model: From ``find_model``.

    Returns:
        Lines of the report, and seconds of each round by kind of pass.
    """
    module = load_module(model.network)
    cores = os.cpu_count() or 1
    ways = {"one pass at a time": 1, "a pass per core": cores}
    blocks = {
        f"{n_clips} clips, {way}": partial(predict_in_passes, module, clips, n_clips, threads)
        for way, threads in ways.items()
        for n_clips in CLIPS_PER_PASS
    }
    seconds = time_in_turn(blocks, ROUNDS)
    usual = seconds[f"{EVALUATION_BATCH} clips, one pass at a time"]
    findings = [
        Finding(f"network alone, {name}, beside {EVALUATION_BATCH}, one at a time", median_ratio(usual, values), "x")
        for name, values in seconds.items()
        if values is not usual
    ]
    return findings, seconds


def time_scoring(paths: dict[str, Path], model: ScoringModel) -> tuple[list[Finding], dict[str, list[float]]]:
    """``lusbio score`` beside decoding alone and beside decoding first.

    Args:
        paths: Video file by ``video_id``.
        model: From ``find_model``.

    Returns:
        Lines of the report, and seconds of each round.
    """
    files = list(paths.values())
    blocks = {
        "decode": lambda: [decode_video(path, model.network.settings.image_size) for path in files],
        "first": lambda: score_decode_first(files, model),
        "score": lambda: score_videos(paths, model),
    }
    scores = score_videos(paths, model)[list(BIOMARKER_NAMES)].to_numpy()
    difference = float(np.abs(score_decode_first(files, model) - scores).max())
    seconds = time_in_turn(blocks, ROUNDS)
    per_video = {name: [s / len(files) for s in values] for name, values in seconds.items()}
    beyond = float(np.median(np.subtract(per_video["score"], per_video["decode"])))
    return [
        Finding("decoding (224 pixels, as stored)", statistics.median(per_video["decode"]), "s/video"),
        Finding("scoring, decoding and experts included", statistics.median(per_video["score"]), "s/video"),
        Finding("scoring beyond decoding, weights read included", beyond, "s/video", 0.6, at_least=False),
        Finding("speed beside decoding first (no experts)", median_ratio(seconds["first"], seconds["score"]), "x"),
        Finding("its largest difference of a probability", difference),
    ], seconds


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(os.cpu_count())
    folder = build_folder("benchmarks", "cohort_of_the_paper_s_size")
    cohort = simulate_cohort(folder, patients=3, size=224, frames=(60, 150), jobs=os.cpu_count() or 1)
    paths = dict(zip(cohort.table["video_id"], cohort.video_paths(), strict=True))
    paths = {name: paths[name] for name in list(paths)[:VIDEOS]}
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        findings, seconds = time_scoring(paths, model)
        passes, seconds_of_passes = time_passes(cut_clips(list(paths.values()), model), model)
    report("scoring", findings + passes, videos=VIDEOS, seconds=seconds, seconds_of_passes=seconds_of_passes)


if __name__ == "__main__":
    main()
