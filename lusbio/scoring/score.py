"""From a folder of weights and experts to numbers for a video that nobody has seen.

A *model folder* is what ``lusbio train --final`` writes: the biomarker network (safetensors), one
expert per task (skops) and ``card.json``, which says what it was made from. A finished biomarker
run can be scored with too; it has no experts.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.folder import videos_below
from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.errors import CohortError, LusbioError, VideoError
from lusbio.experts.classifiers import Expert, load_expert
from lusbio.experts.inputs import fill_masked
from lusbio.network import USUAL_BACKBONE
from lusbio.profiles import TrainingSettings
from lusbio.runs.spec import RunSpec, is_finished, load_run, runs_folder, training_code
from lusbio.scoring.many_videos import check_files, look_at_each
from lusbio.videos import VIDEO_SUFFIXES, CachedVideo, DecodedVideo
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"

BLOCK = 16
"""Videos that are handed over at a time when many are scored: experts take one or sixteen rows in about
the same time. (Engineering choice.)"""


@dataclass(frozen=True)
class Model:
    """What videos are scored with.

    Attributes:
        folder: A model folder or a finished biomarker run.
        spec: What its network was trained as.
        masked: Biomarkers that were never learnt.
        experts: Expert by task; empty for a run.
    """

    folder: Path
    spec: RunSpec
    masked: tuple[str, ...]
    experts: dict[str, Expert]

    @property
    def settings(self) -> TrainingSettings:
        """Frames, size and clips that the network takes."""
        return self.spec.training


def find_model(folder: Path | None) -> Model:
    """A model folder, a run, or by default the best suited finished biomarker run.

    That is the one of the largest profile; among equals the one that learnt most biomarkers, then
    the newest. Runs of other code are passed over: their weights may mean something else.

    Args:
        folder: A model folder or a biomarker run's folder; None to look for a run.

    Returns:
        The model; its network is not loaded yet.

    Raises:
        LusbioError: If there is none, or it is broken, and how to make one.
    """
    if folder is None:
        return _find_run()
    if (folder / CARD_FILE).is_file():
        try:
            card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
            spec, masked, tasks = (RunSpec.from_json(card["network"]), tuple(card["masked"]), list(card["experts"]))
        except (ValueError, KeyError, TypeError) as error:
            raise LusbioError(f"{folder / CARD_FILE}: not the card of a model ({type(error).__name__})") from error
        return Model(folder, spec, masked, {task: load_expert(folder / f"{task}.skops") for task in tasks})
    if not is_finished(folder):
        raise LusbioError(f"{folder}: neither a model folder (no {CARD_FILE}) nor a finished run (no run.json)")
    run = load_run(folder)
    if run.spec.task != BIOMARKER_TASK:
        raise LusbioError(f"{folder}: a run for {run.spec.task}, expected one for {BIOMARKER_TASK}")
    return Model(folder, run.spec, tuple(run.info["masked"]), {})


def _find_run() -> Model:
    candidates = []
    for folder in runs_folder().glob(f"{BIOMARKER_TASK}-*"):
        if not is_finished(folder):
            continue
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if info["code"] != training_code(USUAL_BACKBONE):  # of other code, or of another backbone
            continue
        model = Model(folder, RunSpec.from_json(info["spec"]), tuple(info["masked"]), {})
        size = model.settings.frames * model.settings.image_size**2
        candidates.append(((size, -len(model.masked), (folder / "run.json").stat().st_mtime), model))
    if not candidates:
        raise LusbioError("no finished biomarker run to score with; `make paper` or `lusbio train` makes one")
    return max(candidates, key=lambda candidate: candidate[0])[1]


def find_videos(places: Sequence[Path]) -> dict[str, Path]:
    """The video files of files and folders, each under a name of its own.

    Args:
        places: Video files, and folders that are searched for them, subfolders included, hidden
            files and folders left out.

    Returns:
        File by ``video_id``, in the order given, those of a folder sorted. The id is the file's name
        without suffix; where that would repeat, the path as given.

    Raises:
        LusbioError: If a folder holds no video.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = videos_below(place)
            if not inside:
                raise LusbioError(f"{place}: no video in this folder (looked for {', '.join(VIDEO_SUFFIXES)})")
            found += [place / path for path in inside]
        else:
            found.append(place)
    stems = Counter(path.stem for path in found)
    return {path.stem if stems[path.stem] == 1 else str(path): path for path in found}


def score_videos(paths: dict[str, Path], model: Model) -> pd.DataFrame:
    """Biomarkers, and what the experts make of them, for videos without labels.

    Args:
        paths: Video file by ``video_id``, as from ``find_videos``.
        model: From ``find_model``.

    Returns:
        One row per video: ``video_id``, 38 probabilities by biomarker name (NaN for those that the
        model never learnt), and for each task of the model the class probabilities ``task=class`` (NaN
        for classes that it never learnt; those of a task sum to 1).

    Raises:
        CohortError: With one line for every video that does not decode. ``score_in_blocks`` hands over
            the rows of the others before it raises.
    """
    return pd.concat(score_in_blocks(paths, model), ignore_index=True)


def score_in_blocks(paths: dict[str, Path], model: Model) -> Iterator[pd.DataFrame]:
    """Scores as they are ready: the next videos are decoded and looked at while the caller has a block.

    Files that are missing, empty or of another type are named before anything is decoded. Any other
    broken video shows only when it is decoded; it has no row, the rest is scored all the same, and
    the error that names it comes last.

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
    found: dict[str, np.ndarray] = {}
    for video_id, result in zip(paths, _find_in_each(paths.values(), model), strict=True):
        if isinstance(result, VideoError):
            broken.append(str(result))
            continue
        found[video_id] = result
        if len(found) == BLOCK:
            yield _ask_experts(found, model)
            found = {}
    if found:
        yield _ask_experts(found, model)
    if broken:
        raise CohortError("videos", broken)


def _find_in_each(paths: Iterable[Path], model: Model) -> Iterator[np.ndarray | VideoError]:
    """Biomarkers (38,) of each video, or why it does not decode.

    The network sees one clip at a time, whose activations stay in a core's cache, and each once: in a
    short video several of the evaluation clips are the same.
    """
    from lusbio.network import clips

    module, settings = _load_module(model), model.settings

    def find(frames: np.ndarray) -> np.ndarray:
        starts = clips.evaluation_starts(len(frames), settings.frames, settings.evaluation_clips)
        starts, times = np.unique(starts, return_counts=True)
        dataset = _make_dataset([DecodedVideo(frames)] * len(starts), model)
        one_by_one = (dataset.__getitems__([item]) for item in enumerate(starts.tolist()))
        return np.average(_predict(module, one_by_one, model), axis=0, weights=times)

    return look_at_each(paths, settings.image_size, find)


def _ask_experts(found: dict[str, np.ndarray], model: Model) -> pd.DataFrame:
    """A row per video: what the network found in it, and what the experts make of that."""
    probabilities = np.stack(list(found.values()))
    scores = pd.DataFrame(probabilities, columns=list(BIOMARKER_NAMES))
    scores.insert(0, "video_id", list(found))
    for task, expert in model.experts.items():
        names = [f"{task}={name}" for name in TASKS[task].classes]
        decided = expert.predict_probabilities(fill_masked(probabilities))
        decided[:, find_never_learnt(expert)] = np.nan
        scores[names] = decided
    return scores


def find_never_learnt(expert: Expert) -> np.ndarray:
    """Classes of its task that no training patient of an expert had.

    Args:
        expert: Fitted.

    Returns:
        Their numbers, int64.
    """
    return np.setdiff1d(np.arange(expert.n_classes), expert.model.classes_)


def find_biomarkers(videos: Sequence[CachedVideo | DecodedVideo], model: Model) -> np.ndarray:
    """What a model's network finds in decoded videos, averaged over its evaluation clips.

    Args:
        videos: Decoded at the size that the model takes.
        model: From ``find_model``.

    Returns:
        Probabilities, float64 (V, 38); NaN for biomarkers that the model never learnt.
    """
    return predict_videos(videos, model, model.settings.evaluation_clips)


def predict_videos(videos: Sequence[CachedVideo | DecodedVideo], model: Model, n_clips: int) -> np.ndarray:
    """What a network says of decoded videos, whatever it was trained for.

    Args:
        videos: Decoded at the size that the model takes.
        model: Its network finds biomarkers or decides a task.
        n_clips: Clips per video that are averaged.

    Returns:
        Probabilities, float64 (V, K); NaN for biomarkers that the model never learnt.
    """
    from lusbio.network import clips

    loader = clips.evaluation_loader(_make_dataset(videos, model), np.arange(len(videos)), n_clips)
    return _predict(_load_module(model), loader, model)


def _make_dataset(videos: Sequence[CachedVideo | DecodedVideo], model: Model):
    """The clips of videos without labels."""
    import torch

    from lusbio.network import clips

    return clips.ClipDataset(videos, torch.full((len(videos),), -1), model.settings.frames)


def _predict(module, batches: Iterable[dict], model: Model) -> np.ndarray:
    """Probabilities, float64 (rows, K), averaged over the clips of a row; NaN for what was never learnt."""
    from lusbio.network import training

    probabilities = training.predict(module, batches, device=module.device)[0].astype(np.float64)
    probabilities[:, np.isin(model.spec.outputs, model.masked)] = np.nan
    return probabilities


def _load_module(model: Model):
    """A model's network with what turns its logits into probabilities, where it is to compute."""
    from lusbio.network import training

    module = training.VideoModule(
        load_network(model),
        multilabel=model.spec.task == BIOMARKER_TASK,
        settings=model.settings,
        steps_per_epoch=1,
        seed=0,
    )
    return module.to(training.choose_device()).eval()


def load_network(model: Model):
    """The network of a model, in evaluation mode."""
    from lusbio.network.weights import load_weights
    from lusbio.runs.assembly import make_network

    network = make_network(model.spec.backbone, len(model.spec.outputs), model.settings.frames)
    load_weights(network, model.folder / WEIGHTS_FILE)
    return network.eval()
