"""A training that learns something other than labels of videos: what all of them have in common."""

import numpy as np
import torch
from torch import nn

from lusbio.network.clips import ClipDataModule, ClipDataset
from lusbio.network.training import VideoModule
from lusbio.profiles import TrainingSettings


def make_clips(dataset: ClipDataset, rows: dict[str, np.ndarray], spec, length: int | None = None) -> ClipDataModule:
    """The batches of a pretraining.

    Args:
        dataset: The clips of all videos.
        rows: Those to learn from and to validate on, ``train`` and ``val``.
        spec: The run.
        length: Clips of an epoch; None means what the settings say.
    """
    settings = spec.training
    return ClipDataModule(
        dataset,
        rows["train"],
        rows["val"],
        clips_per_epoch=length or settings.clips_per_epoch,
        batch_size=settings.batch_size,
        validation_clips=settings.validation_clips,
        seed=spec.entropy,
    )


class PretrainingModule(VideoModule):
    """A network that is pretrained. A method says what the loss of a batch is, how good it is, and what is kept.

    Order and randomness are those of any training: what is drawn in a step follows from (seed, epoch, batch) alone, so
    a training that is taken up again draws the same.

    Args:
        network: The network; ``weights.safetensors`` of the run holds all of it.
        settings: Learning rate, schedule and epochs.
        steps_per_epoch: Batches of a training epoch.
        seed: What all randomness follows from.
    """

    def __init__(self, network: nn.Module, *, settings: TrainingSettings, steps_per_epoch: int = 1, seed: int = 0):
        super().__init__(network, multilabel=False, settings=settings, steps_per_epoch=steps_per_epoch, seed=seed)

    def compute_loss(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """The loss of a training batch, a scalar; whatever is random comes from the generator, which is on the CPU."""
        raise NotImplementedError

    def validate(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """What is known of a validation batch, e.g. its loss and score; the generator is the same in every epoch."""
        raise NotImplementedError

    def judge(self, *validated: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and score of an epoch, the score the higher the better, from what ``validate`` returned.

        Args:
            *validated: Each of its tensors over all batches, stacked: (batches, ...).
        """
        loss, score = validated
        return loss.mean(), score.mean()

    def predict_all(self, data, spec, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """What the run keeps of every video: ``p_0 ...`` (V, K) and features (V, F). Unless overridden, nothing."""
        nothing = np.zeros((len(data.dataset), 0), np.float32)
        return nothing, nothing

    def training_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> torch.Tensor:
        """The loss of one batch."""
        loss = self.compute_loss(batch, self._start_from(self.current_epoch, batch_index))
        self.train_losses.append(loss.detach())
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> None:
        """Collect what ``validate`` says."""
        found = self.validate(batch, self._start_from(-1, batch_index))
        self._validated.append(tuple(value.detach().float().cpu() for value in found))

    def on_validation_epoch_end(self) -> None:
        """Loss and score of the epoch; halve the rate when the plateau schedule says so."""
        loss, score = self.judge(*map(torch.stack, zip(*self._validated, strict=True)))
        self._validated.clear()
        self.log("val_loss", loss)
        self.log("val_accuracy", score)
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and not self.trainer.sanity_checking:
            scheduler.step(score)

    def _start_from(self, epoch: int, batch_index: int) -> torch.Generator:
        """A generator that follows from (seed, epoch, batch), and so does whatever torch draws by itself."""
        step_seed = int(np.random.SeedSequence([self.seed, epoch + 1, batch_index]).generate_state(1)[0])
        torch.manual_seed(step_seed)
        return torch.Generator().manual_seed(step_seed)
