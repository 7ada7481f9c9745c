# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""What a ``RunSpec`` is trained with: its network, its labels, its clips. All of it decides numbers."""

import numpy as np
import torch
from torch import nn

from lusbio.cohorts.targets import keep_fraction, repeat_rare, select_rows
from lusbio.errors import LusbioError
from lusbio.network import OTHER_BACKBONE, USUAL_BACKBONE, clips, training
from lusbio.network.i3d import I3DResNet50
from lusbio.network.tsm import TSMResNet18
from lusbio.network.weights import load_initial_weights, read_weights
from lusbio.profiles import TrainingSettings
from lusbio.runs.spec import Own, PreparedCohort, RunSpec, is_finished, runs_folder
from lusbio.vocabulary import BIOMARKER_TASK

BACKBONES = {USUAL_BACKBONE: TSMResNet18, OTHER_BACKBONE: I3DResNet50}
"""The networks by the name that a ``RunSpec`` calls them."""


def make_network(backbone: str, n_outputs: int, settings: TrainingSettings) -> nn.Module:
    """A network with random weights, from float clips (B, T, 1, H, W) in [0, 1] to logits (B, K).

    Of the settings, ``frames`` counts, and for ``TSMResNet18`` ``width`` and ``pool``.

    Raises:
        ValueError: If there is no such backbone.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r} is not one of {', '.join(BACKBONES)}")
    usual = {name: getattr(settings, name) for name in ("width", "pool")}
    return BACKBONES[backbone](n_outputs, settings.frames, **(usual if backbone == USUAL_BACKBONE else {}))


def choose_rows(spec: RunSpec, prepared: PreparedCohort) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Which videos a run learns from and validates on, and their targets, as ``cohorts.targets.select_rows``.

    The training rows are those of the share of patients whose labels are used.
    """
    rows, targets, masked = select_rows(prepared.table, prepared.splits(spec.fold), spec.task)
    rows["train"] = keep_fraction(prepared.table, rows["train"], spec.label_fraction, spec.seed)
    return rows, targets, masked


def assemble(
    spec: RunSpec, prepared: PreparedCohort, rows: dict[str, np.ndarray], targets: np.ndarray, own: Own
) -> tuple[training.VideoModule, clips.ClipDataModule, str]:
    """The module with its initial weights, the clips, and a line that says where the weights are from.

    Args:
        spec: The run.
        prepared: The cohort it is about.
        rows: Training and validation rows, from ``choose_rows``.
        targets: Of all videos, from ``choose_rows``.
        own: What stands in place of the package's network, loss or augmentation.

    Returns:
        What ``training.fit`` takes, and a phrase.

    Raises:
        LusbioError: If the initial weights are not there.
    """
    settings = spec.training
    torch.manual_seed(spec.entropy)
    outputs = len(spec.outputs)
    network = own.network(outputs, settings.frames) if own.network else make_network(spec.backbone, outputs, settings)
    origin = _start(network, spec)
    data = clips.ClipDataModule(
        clips.ClipDataset(prepared.videos, torch.from_numpy(targets), settings.frames),
        repeat_rare(prepared.table, rows["train"], spec.task, spec.entropy),
        rows["val"],
        clips_per_epoch=count_clips(spec, prepared),
        batch_size=settings.batch_size,
        validation_clips=settings.validation_clips,
        seed=spec.entropy,
    )
    module = training.VideoModule(
        network,
        multilabel=spec.task == BIOMARKER_TASK,
        settings=settings,
        steps_per_epoch=len(data.train_dataloader()),
        seed=spec.entropy,
        loss=own.loss,
        augment=own.augment,
    )
    return module, data, origin


def predict_all(
    module: training.VideoModule, data: clips.ClipDataModule, spec: RunSpec, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """What a trained network says of every video of its cohort: probabilities (V, K), features (V, 8 * width)."""
    rows = np.arange(len(data.dataset))
    loader = clips.evaluation_loader(data.dataset, rows, spec.training.evaluation_clips)
    return training.predict(module, loader, device=device)


def _start(network: nn.Module, spec: RunSpec) -> str:
    """Put the initial weights into a network; a last layer of another size stays as it was made."""
    if spec.starts_from is None:
        return load_initial_weights(network, spec.initial_weights)
    folder = runs_folder(spec.starts_from)
    if not is_finished(folder):
        raise LusbioError(f"run {spec.run_id} starts from {spec.starts_from}, which is not finished")
    found, own = read_weights(folder / "weights.safetensors"), network.state_dict()
    network.load_state_dict({k: found[k] if found[k].shape == v.shape else v for k, v in own.items()})
    return f"from the network of {spec.starts_from}"


def count_clips(spec: RunSpec, prepared: PreparedCohort) -> int:
    """Length of an epoch in clips: with fewer labels, as many steps as with all."""
    if spec.training.clips_per_epoch:
        return spec.training.clips_per_epoch
    rows = select_rows(prepared.table, prepared.splits(spec.fold), spec.task)[0]["train"]
    return len(repeat_rare(prepared.table, rows, spec.task, spec.entropy))
