"""From a folder of weights and experts to numbers for a video that nobody has seen.

A *model folder* is what ``lusbio train --final`` writes: the biomarker network (safetensors), one
expert per task (skops) and ``card.json``, which says what it was made from. A finished biomarker
run can be scored with too; it has no experts.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.folder import videos_below
from lusbio.decisions import fit_experts
from lusbio.errors import CohortError, LusbioError, VideoError
from lusbio.evidence import fill_masked, handed_over
from lusbio.execution import execute_many
from lusbio.experts import Expert, load_expert, save_expert
from lusbio.files import write_json
from lusbio.grid import find_tasks
from lusbio.labels import BIOMARKER_TASK, encode_task
from lusbio.metrics import biomarker_metrics, task_metrics
from lusbio.models import USUAL_BACKBONE
from lusbio.paths import build_folder
from lusbio.profiles import TrainingSettings
from lusbio.runs import (
    PreparedCohort,
    Run,
    RunSpec,
    is_finished,
    labels_of,
    load_run,
    runs_folder,
    training_code,
)
from lusbio.videos import VIDEO_SUFFIXES, CachedVideo, DecodedVideo, decode_video
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"
LIMITS = (
    "For research only; not a medical device. Trained on one cohort: probabilities do not carry over to other "
    "probes, presets or populations without a check. Biomarkers listed as masked were never learnt."
)


def train_final(prepared: PreparedCohort, folder: Path, initial_weights: str) -> dict:
    """Fit the biomarker network and the experts with nobody held out for testing, for use on others.

    A fifth of the patients chooses the epoch, the fit and, per task, the expert; everybody else is
    trained on. What the card says of quality is measured on that fifth: it is optimistic, and the
    tables of the paper, from patients that nothing was chosen on, are what to quote.

    Args:
        prepared: A cohort prepared with protocol ``"final"``.
        folder: The model folder to write; ``card.json`` comes last.
        initial_weights: See ``RunSpec``.

    Returns:
        The content of ``card.json``.

    Raises:
        LusbioError: If there is nothing to learn.
    """
    learnable, reasons = find_tasks(prepared)
    if BIOMARKER_TASK not in learnable:
        raise LusbioError(f"cohort {prepared.cohort.name!r}: {reasons[BIOMARKER_TASK]}")
    folder.mkdir(parents=True, exist_ok=True)  # before the training, which takes long, not after it
    (folder / CARD_FILE).unlink(missing_ok=True)
    (run,) = execute_many(prepared.specs(BIOMARKER_TASK, initial_weights), prepared)
    experts = {}
    for task in learnable[1:]:
        expert, quality = _best_expert(run, task, prepared)
        save_expert(expert, folder / f"{task}.skops")
        experts[task] = {"expert": expert.name, "classes": list(TASKS[task].classes), "validation": quality}
    (folder / WEIGHTS_FILE).write_bytes((run.folder / WEIGHTS_FILE).read_bytes())
    card = {
        "cohort": prepared.cohort.name, "simulated": prepared.cohort.simulated, "notes": list(prepared.cohort.notes),
        "videos": run.info["videos"], "run": run.folder.name, "network": asdict(run.spec),
        "initial_weights": run.info["initial_weights"], "masked": run.info["masked"],
        "validation": _biomarker_quality(run, prepared), "experts": experts, "limits": LIMITS,
        "versions": run.info["versions"],
    }  # fmt: skip
    write_json(card, folder / CARD_FILE)
    return card


def _best_expert(run: Run, task: str, prepared: PreparedCohort) -> tuple[Expert, dict[str, float]]:
    """The expert with the best validation accuracy of all seven, and its validation metrics."""
    features, labels = handed_over(run), encode_task(prepared.cohort.table, task)
    val = (run.splits == "val") & (labels >= 0)
    fitted = fit_experts(run, task, prepared)
    best = max(fitted, key=lambda expert: expert.validation_accuracy)
    metrics = task_metrics(labels[val], best.predict_probabilities(features[val]))
    return best, {name: round(metrics[name], 4) for name in ("auc", "accuracy", "f1")}


def _biomarker_quality(run: Run, prepared: PreparedCohort) -> dict[str, float]:
    labels = labels_of(run, prepared)
    rows = (run.splits == "val") & ~np.isnan(labels).all(1)
    return {
        k: round(float(v), 4) for k, v in biomarker_metrics(labels[rows], run.probabilities[rows]).items()
    }


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
            spec, masked, tasks = (
                RunSpec.from_json(card["network"]),
                tuple(card["masked"]),
                list(card["experts"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise LusbioError(
                f"{folder / CARD_FILE}: not the card of a model ({type(error).__name__})"
            ) from error
        return Model(folder, spec, masked, {task: load_expert(folder / f"{task}.skops") for task in tasks})
    if not is_finished(folder):
        raise LusbioError(
            f"{folder}: neither a model folder (no {CARD_FILE}) nor a finished run (no run.json)"
        )
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
                raise LusbioError(
                    f"{place}: no video in this folder (looked for {', '.join(VIDEO_SUFFIXES)})"
                )
            found += [place / path for path in inside]
        else:
            found.append(place)
    stems = Counter(path.stem for path in found)
    return {path.stem if stems[path.stem] == 1 else str(path): path for path in found}


def score_videos(paths: dict[str, Path], model: Model) -> pd.DataFrame:
    """Biomarkers, and what the experts make of them, for videos without labels.

    All videos are decoded before the network is loaded, so that a broken one costs seconds.

    Args:
        paths: Video file by ``video_id``, as from ``find_videos``.
        model: From ``find_model``.

    Returns:
        One row per video: ``video_id``, 38 probabilities by biomarker name (NaN for those that the
        model never learnt), and for each task of the model the class probabilities ``task=class``.

    Raises:
        CohortError: With one line for every video that does not decode.
    """
    videos, broken = [], []
    for path in paths.values():
        try:
            videos.append(DecodedVideo(decode_video(path, model.settings.image_size)))
        except VideoError as error:
            broken.append(str(error))
    if broken:
        raise CohortError("videos", broken)
    probabilities = find_biomarkers(videos, model)
    scores = pd.DataFrame(probabilities, columns=list(BIOMARKER_NAMES))
    scores.insert(0, "video_id", list(paths))
    for task, expert in model.experts.items():
        names = [f"{task}={name}" for name in TASKS[task].classes]
        scores[names] = expert.predict_probabilities(fill_masked(probabilities))
    return scores


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
    import torch

    from lusbio import clips, training

    dataset = clips.ClipDataset(videos, torch.full((len(videos),), -1), model.settings.frames)
    loader = clips.evaluation_loader(dataset, np.arange(len(videos)), n_clips)
    module = training.VideoModule(
        load_network(model),
        multilabel=model.spec.task == BIOMARKER_TASK,
        settings=model.settings,
        steps_per_epoch=1,
        seed=0,
    )
    probabilities = training.predict(module, loader, device=training.choose_device())[0].astype(np.float64)
    probabilities[:, np.isin(model.spec.outputs, model.masked)] = np.nan
    return probabilities


def load_network(model: Model):
    """The network of a model, in evaluation mode."""
    from lusbio.assembly import make_network
    from lusbio.models.weights import load_weights

    network = make_network(model.spec.backbone, len(model.spec.outputs), model.settings.frames)
    load_weights(network, model.folder / WEIGHTS_FILE)
    return network.eval()


def default_model_folder(cohort: str, profile: str) -> Path:
    """Where ``lusbio train --final`` writes unless told otherwise."""
    return build_folder("models", f"{cohort}-{profile}")
