# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""One network, one training: losses, schedule, checkpoints, predictions.

The same module trains the biomarker network (38 independent findings, some unknown) and the
end-to-end networks (one of several classes); only the loss differs.
"""

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lusbio.errors import LusbioError
from lusbio.network.clips import ClipDataModule, augment_clips
from lusbio.network.weights import load_weights, save_weights
from lusbio.profiles import TrainingSettings

RESUME_FILE = "resume.ckpt"
KEPT_FILE = "kept.safetensors"
PRECISIONS = ("bf16-mixed", "32-true")

_EXPECTED_WARNINGS = (
    ".*LeafSpec.*",  # Lightning 2.6 uses a class that torch 2.13 deprecates
    ".*does not have many workers.*",  # clips come from memory maps; worker processes would slow them
    ".*exists and is not empty.*",  # the folder of a run that is resumed
    ".*smaller than the logging interval.*",
    ".*The dirpath has changed.*",  # a run's folder may move between interruption and resume
)

for _name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def masked_bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy over the biomarkers that are known.

    Args:
        logits: float (B, 38).
        targets: float (B, 38): 1 present, 0 absent, NaN unknown.

    Returns:
        Mean over the known entries, a scalar; 0 when none is known.

    Example:
        >>> loss = masked_bce(torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]]))
        >>> round(loss.item(), 4)
        0.6931
    """
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def biomarker_accuracy(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Share of the known biomarkers (V, 38), NaN unknown, that are right at a threshold of 0.5; NaN without any."""
    known = ~targets.isnan()
    return ((probabilities > 0.5) == (targets > 0.5))[known].float().mean()


def class_accuracy(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Share of the videos (V, K) whose most probable class is the right one (V,), int64; NaN without videos."""
    return (probabilities.argmax(1) == targets).float().mean()


def choose_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(device: torch.device) -> str:
    """A precision as Lightning names it: bfloat16 autocast where the device computes it natively, else float32.

    ``$LUSBIO_PRECISION``, ``"bf16-mixed"`` or ``"32-true"``, overrides that.
    """
    if asked := os.environ.get("LUSBIO_PRECISION"):
        if asked not in PRECISIONS:
            raise LusbioError(f"LUSBIO_PRECISION is {asked!r}, expected {' or '.join(PRECISIONS)}")
        return asked
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


class VideoModule(pl.LightningModule):
    """A video network with its loss, optimiser and schedule.

    Args:
        network: Maps float clips (B, T, 1, H, W) to logits (B, K).
        multilabel: True for biomarkers (masked binary cross-entropy), False for one of K classes.
        settings: Learning rate, schedule and epochs.
        steps_per_epoch: Batches of a training epoch.
        seed: Seed of augmentation and dropout; both follow from (seed, epoch, batch).
        loss: From logits (B, K) float32 and targets to a scalar; None: masked binary cross-entropy or cross-entropy.
        augment: From float clips (B, T, 1, H, W) in [0, 1] and a generator to clips; None: ``augment_clips``.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        multilabel: bool,
        settings: TrainingSettings,
        steps_per_epoch: int = 1,
        seed: int = 0,
        loss: Callable | None = None,
        augment: Callable | None = None,
    ):
        super().__init__()
        self.network = network.to(memory_format=getattr(network, "memory_format", torch.contiguous_format))
        self.loss_function = loss or (masked_bce if multilabel else F.cross_entropy)
        self.augment = augment or augment_clips
        self.multilabel = multilabel
        self.settings = settings
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.train_losses: list[torch.Tensor] = []
        self._validated: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of uint8 clips (B, T, 1, H, W)."""
        return self.network(to_unit_range(clips))

    def training_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> torch.Tensor:
        """Augment on the device, then the loss of one batch."""
        step_seed = int(np.random.SeedSequence([self.seed, self.current_epoch, batch_index]).generate_state(1)[0])
        torch.manual_seed(step_seed)  # dropout: the same after a resume
        clips = self.augment(to_unit_range(batch["clips"]), torch.Generator().manual_seed(step_seed))
        loss = self.loss(self.network(clips), batch["targets"])
        self.train_losses.append(loss.detach())
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> None:
        """Collect logits of clips; they are averaged by video when the epoch ends."""
        self._validated.append((batch["rows"].cpu(), self(batch["clips"]).float().cpu(), batch["targets"].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Loss and accuracy over videos; halve the rate when the plateau schedule says so."""
        rows, logits, targets = (torch.cat(parts) for parts in zip(*self._validated, strict=True))
        self._validated.clear()
        videos, of_clip = rows.unique(return_inverse=True)
        probabilities = _mean_by(of_clip, self.to_probabilities(logits), len(videos))
        targets_of_videos = targets[[int((of_clip == k).nonzero()[0]) for k in range(len(videos))]]
        accuracy = biomarker_accuracy if self.multilabel else class_accuracy
        value = accuracy(probabilities, targets_of_videos)
        self.log("val_loss", self.loss(logits, targets))
        self.log("val_accuracy", value)
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and not self.trainer.sanity_checking:
            scheduler.step(value)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of logits (B, K), in float32; a scalar."""
        return self.loss_function(logits.float(), targets)

    def to_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Independent (sigmoid) or exclusive (softmax) probabilities of logits (B, K)."""
        return logits.sigmoid() if self.multilabel else logits.softmax(1)

    def configure_optimizers(self) -> dict:
        """Adam; the schedule of the settings."""
        rate = self.settings.learning_rate
        optimizer = torch.optim.Adam(self.parameters(), lr=rate)
        if self.settings.schedule == "plateau":
            # Stepped by hand in on_validation_epoch_end, before the checkpoint of the epoch is
            # written; Lightning would step it afterwards, and a resumed run would lose the step.
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5)
            never = {"interval": "epoch", "frequency": 10**9, "monitor": "val_accuracy", "strict": False}
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **never}}
        steps = self.steps_per_epoch * self.settings.epochs
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def to_unit_range(clips: torch.Tensor) -> torch.Tensor:
    """uint8 clips as float32 in [0, 1], same shape."""
    return clips.float() / 255


def _mean_by(index: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """Mean of the rows of ``values`` (R, K) that share an index in [0, n): (n, K)."""
    total = torch.zeros(n, values.shape[1]).index_add_(0, index, values)
    return total / index.bincount(minlength=n)[:, None]


@contextlib.contextmanager
def one_thread():
    """Compute with one thread inside the block: more threads add in another order and round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(
    module: VideoModule, data: ClipDataModule, folder: Path, *, device: torch.device, callbacks: Sequence[Callback] = ()
) -> dict[str, float]:
    """Train to the last epoch, resuming where an interrupted call left off, and keep the weights of one epoch.

    Args:
        module: The network with its initial weights; afterwards it holds those that ``KeptEpoch`` kept.
        data: Training and validation clips.
        folder: Holds the checkpoints while training goes on.
        device: Where to compute.
        callbacks: What watches; their state travels in the checkpoint.

    Returns:
        ``kept_epoch`` (1-based) and its ``val_accuracy``.
    """
    kept = KeptEpoch(folder / KEPT_FILE, best=module.settings.schedule == "plateau")
    resume = folder / RESUME_FILE
    last = ModelCheckpoint(folder, resume.stem, enable_version_counter=False)  # overwritten after every epoch
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=choose_precision(device),
        max_epochs=module.settings.epochs,
        callbacks=[*callbacks, kept, last],
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(module, data, ckpt_path=resume if resume.exists() else None, weights_only=True)
    load_weights(module.network, folder / KEPT_FILE)
    return {"kept_epoch": kept.epoch, "val_accuracy": kept.accuracy}


class KeptEpoch(Callback):
    """Keeps the weights of the epoch with the best validation accuracy, the first one among equals, or of the last.

    A one-cycle schedule makes its weights good at its end: those of an epoch on the way are half annealed,
    and a lucky validation is no reason to take them. Which epoch was kept travels in the checkpoint, so that
    an interrupted run remembers it wherever its folder lies by then.

    Args:
        path: The safetensors file to write.
        best: The best epoch, as with the plateau schedule; else the last.

    Source:
        Gare et al. 2022, Section 3, for the best epoch; the last is an engineering choice.
    """

    def __init__(self, path: Path, *, best: bool):
        self.path = path
        self.best = best
        self.epoch = 0
        self.accuracy = -math.inf

    def state_dict(self) -> dict:
        """The epoch that is kept so far."""
        return {"epoch": self.epoch, "accuracy": self.accuracy}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up what the interrupted run kept."""
        self.epoch, self.accuracy = state_dict["epoch"], state_dict["accuracy"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights, if they are better. Runs before the epoch's checkpoint is written."""
        accuracy = float(trainer.callback_metrics["val_accuracy"])
        if not self.best or accuracy > self.accuracy or not self.epoch:
            self.epoch, self.accuracy = trainer.current_epoch + 1, accuracy
            save_weights(pl_module.network, self.path)


def remove_checkpoints(folder: Path) -> None:
    """Remove what is only needed to resume."""
    for name in (RESUME_FILE, KEPT_FILE):
        (folder / name).unlink(missing_ok=True)


@torch.inference_mode()
def predict(module: VideoModule, loader: DataLoader, *, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and features of videos, averaged over their clips.

    Args:
        module: A trained network.
        loader: From ``clips.evaluation_loader``; the clips of a video follow each other.
        device: Where to compute.

    Returns:
        Probabilities float32 (V, K) and features float32 (V, 8 * width), in the loader's order.
    """
    module = module.to(device).eval()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=choose_precision(device) == "bf16-mixed")
    rows, probabilities, features = [], [], []
    for batch in loader:
        with autocast:
            found, logits = module.network.features_and_logits(to_unit_range(batch["clips"].to(device)))
        rows.append(batch["rows"])
        probabilities.append(module.to_probabilities(logits.float()).cpu())
        features.append(found.float().cpu())
    videos, of_clip = torch.cat(rows).unique_consecutive(return_inverse=True)
    return tuple(_mean_by(of_clip, torch.cat(parts), len(videos)).numpy() for parts in (probabilities, features))


def describe_device(device: torch.device) -> str:
    """The device in words, for reports, e.g. ``"NVIDIA H200"`` or ``"CPU, 2 cores, AVX512"``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
