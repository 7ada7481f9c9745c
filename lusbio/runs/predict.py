"""What a trained network says of videos, and of whole other cohorts: as it is, nothing is retrained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.errors import LusbioError
from lusbio.files import write_csv
from lusbio.profiles import TrainingSettings
from lusbio.runs.parallel import side_by_side
from lusbio.runs.spec import PreparedCohort, Run, RunSpec
from lusbio.videos import CachedVideo, DecodedVideo
from lusbio.vocabulary import BIOMARKER_TASK

WEIGHTS_FILE = "weights.safetensors"

CLIPS = 2
"""Clips per video of another cohort. Source: the authors' practice."""


@dataclass(frozen=True)
class Model:
    """A network in a folder.

    Attributes:
        folder: Holds ``WEIGHTS_FILE``: a run's folder, or a model folder.
        spec: What the network was trained as.
        masked: Biomarkers that it never learnt.
    """

    folder: Path
    spec: RunSpec
    masked: tuple[str, ...]

    @classmethod
    def of_run(cls, run: Run) -> "Model":
        """The network of a finished run."""
        return cls(run.folder, run.spec, tuple(run.info["masked"]))

    @property
    def settings(self) -> TrainingSettings:
        """Frames, size and clips that the network takes."""
        return self.spec.training


def load_network(model: Model):
    """The network of a model, in evaluation mode."""
    from lusbio.network.weights import load_weights
    from lusbio.runs.assembly import make_network

    if "network-" in model.spec.own:
        raise LusbioError(f"{model.folder}: its network is somebody's own, which only they can make")
    network = make_network(model.spec.backbone, len(model.spec.outputs), model.settings)
    load_weights(network, model.folder / WEIGHTS_FILE)
    return network.eval()


def load_module(model: Model):
    """A model's network with what turns its logits into probabilities, where it is to compute."""
    from lusbio.network import training

    multilabel = model.spec.task == BIOMARKER_TASK
    module = training.VideoModule(load_network(model), multilabel=multilabel, settings=model.settings)
    return module.to(training.choose_device()).eval()


def make_dataset(videos: Sequence[CachedVideo | DecodedVideo], model: Model):
    """The clips of videos without labels."""
    import torch

    from lusbio.network import clips

    return clips.ClipDataset(videos, torch.full((len(videos),), -1), model.settings.frames)


def predict_batches(module, batches: Iterable[dict], model: Model) -> np.ndarray:
    """Probabilities, float64 (rows, K), averaged over the clips of a row; NaN for what was never learnt."""
    from lusbio.network import training

    probabilities = training.predict(module, batches, device=module.device)[0].astype(np.float64)
    probabilities[:, np.isin(model.spec.outputs, model.masked)] = np.nan
    return probabilities


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

    loader = clips.evaluation_loader(make_dataset(videos, model), np.arange(len(videos)), n_clips)
    return predict_batches(load_module(model), loader, model)


def predict_cohort(run: Run, other: PreparedCohort, n_clips: int = CLIPS) -> np.ndarray:
    """What a run's network says of the videos of another cohort; kept in the run's folder.

    Args:
        run: A finished run, of biomarkers or end to end.
        other: A cohort decoded at the size the run was trained with.
        n_clips: Clips per video, averaged.

    Returns:
        Probabilities, float64 (V, K): 38 biomarkers, NaN where never learnt, or the classes of the task.

    Raises:
        LusbioError: If the frames have another size.
    """
    sizes = run.spec.training.image_size, other.profile.training.image_size
    if sizes[0] != sizes[1]:
        names = f"run {run.folder.name} and cohort {other.cohort.name!r}"
        raise LusbioError(f"{names} differ in frame size: {sizes[0]} and {sizes[1]}")
    path = _name_predictions(run, other, n_clips)
    if not path.exists():
        from lusbio.network.training import one_thread

        with one_thread():
            write_predictions(predict_videos(other.videos, Model.of_run(run), n_clips), other.table["video_id"], path)
    return read_predictions(path)


def predict_each(runs: Sequence[Run], other: PreparedCohort, jobs: int) -> list[np.ndarray]:
    """``predict_cohort`` of several runs, ``jobs`` at a time; what is kept is read."""
    missing = [run for run in runs if not _name_predictions(run, other, CLIPS).exists()]
    if missing:
        side_by_side(predict_cohort, [(run, other) for run in missing], jobs)
    return [predict_cohort(run, other) for run in runs]


def _name_predictions(run: Run, other: PreparedCohort, n_clips: int) -> Path:
    return run.folder / "elsewhere" / f"{other.cohort.name}-{other.data}-{n_clips}clips.csv"


def write_predictions(probabilities: np.ndarray, video_ids: pd.Series, path: Path) -> None:
    """Write probabilities (V, K) of videos as columns ``p_0 ... p_K-1`` beside their ids."""
    table = pd.DataFrame({"video_id": video_ids})
    table[[f"p_{k}" for k in range(probabilities.shape[1])]] = probabilities
    write_csv(table, path)


def read_predictions(path: Path) -> np.ndarray:
    """The probabilities that ``write_predictions`` wrote, float64 (V, K); a ``LusbioError`` if a part is missing."""
    if not path.read_bytes().endswith(b"\n"):
        raise LusbioError(f"{path}: cut off; remove this file, and it is made again")
    return pd.read_csv(path, dtype={"video_id": str}).drop(columns="video_id").to_numpy(np.float64)
