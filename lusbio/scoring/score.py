"""From a folder of weights and experts to numbers for a video that nobody has seen.

A *model folder* is what ``lusbio train --final`` writes: the biomarker network (safetensors), one expert per task
(skops) and ``card.json``, which says what it was made from. A finished biomarker run can be scored with too; it has no
experts.
"""

import json
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.load import SYNTHETIC
from lusbio.errors import LusbioError, VideoError, refuse
from lusbio.experts.classifiers import Expert, load_expert
from lusbio.experts.inputs import fill_masked
from lusbio.experts.signs import predict_signs
from lusbio.files import data_folder, shipped_files
from lusbio.runs.predict import Model, load_module, make_dataset, predict_batches
from lusbio.runs.spec import RunSpec, find_finished, is_finished, load_run
from lusbio.signs.measure import measure_video
from lusbio.videos import VIDEO_SUFFIXES, DecodedVideo, VideoInfo, read_video, try_each, videos_below
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, TASKS

CARD_FILE = "card.json"

NOTICES = {
    True: "Learnt from simulated patients alone. Research only; not a medical device.",
    False: "Research only; not a medical device.",
}
"""What stands above everything that a model says, by whether it has seen simulated patients only."""

BLOCK = 16
"""Videos that are handed over at a time when many are scored: experts take one or sixteen rows in about the same time.
(Engineering choice.)"""

WORKERS = 8
"""Most videos in memory at a time. With the paper's clips a network takes a few hundred megabytes for each, so that a
machine with many cores must not take one per core. (Engineering choice.)"""


@dataclass(frozen=True)
class ScoringModel:
    """What videos are scored with, and who taught it.

    Attributes:
        network: Finds biomarkers.
        experts: By task; none for a run.
        simulated: Whether all patients it learnt from are simulated.
        signs: Experts on signs, by biomarker; none for a run.
    """

    network: Model
    experts: dict[str, Expert]
    simulated: bool
    signs: dict[str, Expert] = field(default_factory=dict)

    @property
    def notice(self) -> str:
        """What a reader has to know before any number."""
        return NOTICES[self.simulated]

    def score(self, *places: str | Path) -> pd.DataFrame:
        """``score_videos`` of video files and of folders of them; one row per video."""
        return score_videos(find_videos([Path(place) for place in places]), self)


def find_model(folder: Path | None) -> ScoringModel:
    """A model folder, a run, or by default the model that comes with lusbio.

    Where that is not there, the best suited finished biomarker run: that of the largest profile; among equals the one
    that learnt most biomarkers, then the newest. Runs of other code are passed over: their weights may mean something
    else.

    Args:
        folder: A model folder or a biomarker run's folder; None for the model that ``lusbio fetch model`` has fetched,
            or else the one of the checkout or installation, or else a run.

    Returns:
        The model; its network is not loaded yet.

    Raises:
        LusbioError: If there is none, or it is broken, and how to make one.
    """
    if folder is None:
        released = [data_folder() / "model", *(file.parent for file in shipped_files("model"))]
        folder = next((place for place in released if (place / CARD_FILE).is_file()), None)
    if folder is None:
        return _take_run(_find_run())
    if (folder / CARD_FILE).is_file():
        return _read_card(folder)
    if not is_finished(folder):
        raise LusbioError(f"{folder}: neither a model folder (no {CARD_FILE}) nor a finished run (no run.json)")
    run = load_run(folder)
    if run.spec.task != BIOMARKER_TASK:
        raise LusbioError(f"{folder}: a run for {run.spec.task}, expected one for {BIOMARKER_TASK}")
    return _take_run(Model.of_run(run))


def _take_run(network: Model) -> ScoringModel:
    return ScoringModel(network, {}, network.spec.cohort in SYNTHETIC)


def _read_card(folder: Path) -> ScoringModel:
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        network = Model(folder, RunSpec.from_json(card["network"]), tuple(card["masked"]))
        tasks, signs = list(card["experts"]), [name for name, one in card.get("signs", {}).items() if one["taken"]]
        simulated = bool(card["simulated"])
    except (ValueError, KeyError, TypeError) as error:
        raise LusbioError(f"{folder / CARD_FILE}: not the card of a model ({type(error).__name__})") from error
    experts, on_signs = ({name: load_expert(folder / f"{name}.skops") for name in names} for names in (tasks, signs))
    return ScoringModel(network, experts, simulated, on_signs)


def _find_run() -> Model:
    candidates = []
    for folder, info in find_finished(BIOMARKER_TASK):
        model = Model(folder, RunSpec.from_json(info["spec"]), tuple(info["masked"]))
        size = model.settings.frames * model.settings.image_size**2, model.settings.width, model.spec.budget
        candidates.append(((*size, -len(model.masked), (folder / "run.json").stat().st_mtime), model))
    if not candidates:
        raise LusbioError(
            "no model and no finished biomarker run to score with; `lusbio fetch model` or `make paper` gets one"
        )
    return max(candidates, key=lambda candidate: candidate[0])[1]


def find_videos(places: Sequence[Path]) -> dict[str, Path]:
    """The video files of files and folders, each under a name of its own.

    Args:
        places: Video files, and folders that are searched for them, subfolders included, hidden files and folders left
            out.

    Returns:
        File by ``video_id``, in the order given, those of a folder sorted. The id is the file's name without suffix;
        where that would repeat, the path as given.

    Raises:
        LusbioError: If a folder holds no video.
    """
    found: list[Path] = []
    for place in places:
        inside = [place / path for path in videos_below(place)] if place.is_dir() else [place]
        if not inside:
            raise LusbioError(f"{place}: no video in this folder (looked for {', '.join(VIDEO_SUFFIXES)})")
        found += inside
    stems = Counter(path.stem for path in found)
    return {path.stem if stems[path.stem] == 1 else str(path): path for path in found}


def score_videos(paths: dict[str, Path], model: ScoringModel) -> pd.DataFrame:
    """Biomarkers, and what the experts make of them, for videos without labels.

    Args:
        paths: Video file by ``video_id``, as from ``find_videos``.
        model: From ``find_model``.

    Returns:
        One row per video: ``video_id``, ``frames`` that decode and ``seconds`` that they last (NaN where the file does
        not say how fast), 38 probabilities by biomarker name (NaN for those that the model never learnt), and for each
        task of the model the class probabilities ``task=class`` (NaN for classes that it never learnt; those of a task
        sum to 1).

    Raises:
        CohortError: With one line for every video that does not decode. ``score_in_blocks`` hands over the rows of the
            others before it raises.
    """
    return pd.concat(score_in_blocks(paths, model), ignore_index=True)


def score_in_blocks(paths: dict[str, Path], model: ScoringModel) -> Iterator[pd.DataFrame]:
    """Scores as they are ready: the next videos are decoded and looked at while the caller has a block.

    Files that are missing, empty or of another type are named before anything is decoded. Any other broken video shows
    only when it is decoded; it has no row, the rest is scored all the same, and the error that names it comes last.

    Args:
        paths: Video file by ``video_id``, as from ``find_videos``.
        model: From ``find_model``.

    Yields:
        Rows as in ``score_videos``, at most ``BLOCK`` at a time, in the order of ``paths``.

    Raises:
        CohortError: With one line for every broken video.
    """
    check_files(paths.values())
    broken: list[str] = []
    results = zip(paths, _find_in_each(paths.values(), model.network), strict=True)
    while block := dict(islice(results, BLOCK)):
        broken += [str(result) for result in block.values() if isinstance(result, VideoError)]
        if found := {name: result for name, result in block.items() if not isinstance(result, VideoError)}:
            yield _add_signs(_ask_experts(found, model), paths, model)
    refuse("videos", broken)


def check_files(paths: Iterable[Path]) -> None:
    """Refuse files that need not be decoded to see that they are no videos: missing, empty, or of another type."""
    broken = [
        path for path in paths if not (path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and path.stat().st_size)
    ]
    reasons = try_each(lambda path: read_video(path, 1), broken, workers=1)  # says which of the three it is
    refuse("videos", list(map(str, reasons)))


def _find_in_each(paths: Iterable[Path], model: Model) -> Iterator[tuple[np.ndarray, VideoInfo] | VideoError]:
    """Biomarkers (38,) of each video and what its file turned out to be, or why it does not decode.

    The network sees one clip at a time, whose activations stay in a core's cache, and each once: in a short video
    several of the evaluation clips are the same.
    """
    from lusbio.network import clips

    module, settings = load_module(model), model.settings

    def find(frames: np.ndarray) -> np.ndarray:
        starts = clips.evaluation_starts(len(frames), settings.frames, settings.evaluation_clips)
        starts, times = np.unique(starts, return_counts=True)
        dataset = make_dataset([DecodedVideo(frames)] * len(starts), model)
        one_by_one = (dataset.__getitems__([item]) for item in enumerate(starts.tolist()))
        return np.average(predict_batches(module, one_by_one, model), axis=0, weights=times)

    return look_at_each(paths, settings.image_size, find)


def look_at_each(
    paths: Iterable[Path], size: int, look: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[np.ndarray, VideoInfo] | VideoError]:
    """Decode videos and do something with the frames of each, on all cores.

    A thread decodes a video, looks at it and forgets the frames; meanwhile others look at other videos. Each computes
    with one thread of torch, so that what is found in a video depends neither on the videos beside it nor on the number
    of cores. They take turns at decoding, which is short beside a network and in parallel costs several times as much:
    ``read_video`` holds off garbage collections that hold up everybody, and two at once get in each other's way.

    Args:
        paths: Video files; any number of them.
        size: Height and width of the frames, in pixels.
        look: Takes frames, uint8 (N, size, size), in a thread of its own; what it returns is kept.

    Yields:
        What ``look`` made of each video, with what its file is, or why it does not decode, in the order of ``paths``.
    """
    import torch

    from lusbio.network.training import one_thread

    turn = threading.Lock()

    def decode_and_look(path: Path) -> tuple[np.ndarray, VideoInfo] | VideoError:
        try:
            with turn:
                frames, info = read_video(path, size)
        except VideoError as error:
            return error
        return look(frames), info

    workers = min(os.cpu_count() or 1, WORKERS)
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        coming: deque[Future] = deque()
        for path in paths:
            coming.append(pool.submit(decode_and_look, path))
            if len(coming) == 2 * workers:  # as many wait as are looked at: nobody idles when one is long
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _ask_experts(found: dict[str, tuple[np.ndarray, VideoInfo]], model: ScoringModel) -> pd.DataFrame:
    """A row per video: what the network found in it, and what the experts make of that."""
    probabilities = np.stack([biomarkers for biomarkers, _ in found.values()])
    infos = [info for _, info in found.values()]
    seconds = [round(info.frames / info.fps, 2) if info.fps else np.nan for info in infos]
    known = {"video_id": list(found), "frames": [info.frames for info in infos], "seconds": seconds}
    scores = pd.DataFrame(known).join(pd.DataFrame(probabilities, columns=list(BIOMARKER_NAMES)))
    for task, expert in model.experts.items():
        decided = expert.predict_probabilities(fill_masked(probabilities))
        decided[:, find_never_learnt(expert)] = np.nan
        scores[[f"{task}={name}" for name in TASKS[task].classes]] = decided
    return scores


def _add_signs(scores: pd.DataFrame, paths: dict[str, Path], model: ScoringModel) -> pd.DataFrame:
    """Biomarkers that measured signs tell as well: the mean of what both say. Tasks are decided from the network's."""
    if model.signs:
        values = np.stack([measure_video(paths[name]) for name in scores["video_id"]])
        for name, expert in model.signs.items():
            scores[name] = (scores[name] + predict_signs(expert, values)[:, 1]) / 2
    return scores


def find_never_learnt(expert: Expert) -> np.ndarray:
    """The classes of its task, as numbers, that no training patient of a fitted expert had."""
    return np.setdiff1d(np.arange(expert.n_classes), expert.model.classes_)
