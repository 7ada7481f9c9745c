"""What a person reads while a network trains. Apart from ``training``, so that wording never retrains."""

import functools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from lusbio.errors import LusbioError
from lusbio.files import write_csv
from lusbio.network import training
from lusbio.profiles import TrainingSettings
from lusbio.runs.assembly import make_network
from lusbio.runs.spec import Say
from lusbio.vocabulary import BIOMARKER_NAMES


@functools.cache
def time_clips(backbone: str, settings: TrainingSettings) -> tuple[float, float]:
    """Seconds that one thread needs for a clip: in training, and in evaluation; of a few steps on made-up clips."""
    device, size = training.choose_device(), settings.image_size
    with training.one_thread():
        network = make_network(backbone, len(BIOMARKER_NAMES), settings).to(device)
        module = training.VideoModule(network, multilabel=True, settings=settings)
        optimizer = torch.optim.Adam(module.parameters())
        clips = torch.rand(settings.batch_size, settings.frames, 1, size, size, device=device)
        targets = torch.zeros(settings.batch_size, len(BIOMARKER_NAMES), device=device)
        bf16, generator = training.choose_precision(device) == "bf16-mixed", torch.Generator()

        def learn() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = module.loss(module.network(module.augment(clips, generator)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # waits for a GPU

        @torch.inference_mode()
        def evaluate() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                module.network(clips).sum().item()

        learning = _time(learn)
        module.eval()
        return learning / len(clips), _time(evaluate) / len(clips)


def _time(step: Callable[[], None]) -> float:
    """Seconds that a step usually takes; the first ones, which prepare, are slower and do not decide."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class EpochLog(Callback):
    """One line and one row per epoch; the rows travel in the checkpoint, so a resume keeps them.

    Args:
        path: The ``log.csv`` to write after every epoch.
        say: Takes the line; e.g. ``print``.
    """

    def __init__(self, path: Path, say: Say):
        self.path = path
        self.say = say
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self._started = 0.0

    def state_dict(self) -> dict:
        """The rows and the times so far."""
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up the rows of the interrupted run."""
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row and say the line. Runs before the epoch's checkpoint is written."""
        seconds = time.perf_counter() - self._started
        self.seconds.append(round(seconds, 2))
        metrics = {name: float(trainer.callback_metrics[name]) for name in ("val_loss", "val_accuracy")}
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs
        loss = float(torch.stack(pl_module.train_losses).mean())
        if not math.isfinite(loss):
            raise LusbioError(f"epoch {epoch}: the loss is {loss}, expected a finite number; the run is not finished")
        pl_module.train_losses.clear()
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append({"epoch": epoch, "train_loss": loss, **metrics, "learning_rate": rate})
        write_csv(pd.DataFrame(self.rows), self.path)
        eta = (epochs - epoch) * seconds / 60
        self.say(
            f"epoch {epoch}/{epochs}  loss {loss:.3f}  validation loss {metrics['val_loss']:.3f}"
            f"  accuracy {metrics['val_accuracy']:.3f}  {seconds:.1f} s/epoch  eta {eta:.1f} min"
        )
