"""A score of health learnt from single scans of many patients, and features in which scans alike in health lie close.

Source: the idea is that of LEARNER (arXiv 2411.01144), whose text has no formula; the loss is our reading of it.
"""

import numpy as np
import torch
import torch.nn.functional as F

from lusbio.errors import LusbioError
from lusbio.network import clips, training
from lusbio.network.pretraining import PretrainingModule
from lusbio.network.tsm import TSMResNet18

DECIDING = ("network/pretraining.py",)
"""What decides the numbers of these trainings besides this file, and besides what decides those of all."""

MARGIN, CONTRAST = 1.0, 1.0
"""Distance that scans apart in health should have at least, and the weight of the contrastive part. (Choices.)"""

METHODS = {"mse": (0.0, False), "contrastive": (CONTRAST, False), "weighted": (CONTRAST, True)}
"""Weight of the contrastive part, and whether its pairs are weighted, by the name that a training's task ends with."""


def learner_loss(
    predicted: torch.Tensor,
    features: torch.Tensor,
    health: torch.Tensor,
    patients: torch.Tensor,
    *,
    contrast: float = CONTRAST,
    weighted: bool = False,
) -> torch.Tensor:
    """Squared error of the score, and distances between scans of *different* patients that tell their difference.

    Scans closer than one SD in health should have the same direction, others be at least ``MARGIN`` apart by cosine
    distance. Weighted, a pair counts the more the surer it is: by its difference where that is one SD or more, else by
    what is missing to it. Of one patient alone no pair counts.

    Args:
        predicted: Scores (B,), in SD of the training videos.
        features: Of the clips, (B, F).
        health: What the scores should be, (B,).
        patients: Whose clips, (B,), any numbers.
        contrast: Weight of the second part; 0 leaves the squared error alone.
        weighted: Whether pairs count by their difference.

    Returns:
        A scalar.
    """
    error = ((predicted - health) ** 2).mean()
    first, second = torch.triu_indices(len(health), len(health), 1, device=health.device)
    apart = patients[first] != patients[second]
    if not contrast or not apart.any():
        return error
    first, second = first[apart], second[apart]
    distance = 1 - F.cosine_similarity(features[first], features[second])
    difference = (health[first] - health[second]).abs()
    far = difference >= 1
    weight = torch.where(far, difference, 1 - difference) if weighted else torch.ones_like(difference)
    pull, push = distance**2, (MARGIN - distance).clamp(min=0) ** 2
    return error + contrast * (weight * torch.where(far, push, pull)).sum() / weight.sum().clamp(min=1e-6)


class ScoreModule(PretrainingModule):
    """A network whose one output is a score of health.

    Args:
        network: Maps clips to one number, and has ``features_and_logits``.
        mean: Of the health of the training videos, and
        sd: its SD: scores are learnt in these units and handed over in those of the health.
        contrast: As for ``learner_loss``.
        weighted: As for ``learner_loss``.
        **training: As for ``PretrainingModule``.
    """

    def __init__(
        self, network: torch.nn.Module, *, mean: float, sd: float, contrast: float, weighted: bool, **training
    ):
        super().__init__(network, **training)
        self.mean, self.sd = mean, sd
        self.pairs = {"contrast": contrast, "weighted": weighted}

    def compute_loss(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """The loss of augmented clips."""
        shown = clips.augment_clips(training.to_unit_range(batch["clips"]), generator)
        features, predicted = self.network.features_and_logits(shown)
        health, patients = batch["targets"].T
        return learner_loss(predicted[:, 0].float(), features.float(), health, patients, **self.pairs)

    def validate(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Sums that the explained share is made of."""
        health, predicted = batch["targets"][:, 0], self(batch["clips"])[:, 0].float()
        sums = (torch.ones_like(health), health, health**2, (predicted - health) ** 2)
        return (torch.stack([values.sum() for values in sums]),)

    def judge(self, *validated: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared error, and the share of the variance that is explained."""
        n, total, squares, error = validated[0].sum(0)
        return error / n, 1 - error / (squares - total**2 / n).clamp(min=1e-6)

    def to_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Scores (B, 1) in the units of the health."""
        return logits * self.sd + self.mean

    def predict_all(self, data, spec, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """Scores (V, 1) and features (V, F) of all videos, means over clips."""
        rows = np.arange(len(data.dataset))
        loader = clips.evaluation_loader(data.dataset, rows, spec.training.evaluation_clips)
        return training.predict(self, loader, device=device)


def assemble_score(spec, prepared) -> tuple[ScoreModule, clips.ClipDataModule, dict[str, np.ndarray]]:
    """What a score is trained with, as ``runs.spec.Own`` asks for.

    Args:
        spec: A run whose task is ``<column>_<method>``: a column with numbers, and one of ``METHODS``.
        prepared: The cohort.

    Raises:
        LusbioError: If training videos have one value only, or no validation video has any.
    """
    column, method = spec.task.rsplit("_", 1)
    contrast, weighted = METHODS[method]
    torch.manual_seed(spec.entropy)
    health = prepared.table[column].astype(float).to_numpy()
    patients = np.unique(prepared.table["patient_id"], return_inverse=True)[1]
    splits, known = prepared.splits(spec.fold).to_numpy(), ~np.isnan(health)
    rows = {split: np.flatnonzero((splits == split) & known) for split in ("train", "val")}
    taught = health[rows["train"]]
    if not len(rows["val"]) or len(np.unique(taught)) < 2:
        found = f"{len(np.unique(taught))} different values in training and {len(rows['val'])} known in validation"
        raise LusbioError(f"column {column!r}: {found}; a score needs at least 2 and 1")
    mean, sd = taught.mean(), taught.std()
    targets = torch.tensor(np.column_stack([(health - mean) / sd, patients]), dtype=torch.float32)
    settings = spec.training
    data = clips.ClipDataModule(
        clips.ClipDataset(prepared.videos, targets, settings.frames),
        rows["train"],
        rows["val"],
        clips_per_epoch=settings.clips_per_epoch,
        batch_size=settings.batch_size,
        validation_clips=settings.validation_clips,
        seed=spec.entropy,
    )
    steps = {"steps_per_epoch": len(data.train_dataloader()), "seed": spec.entropy, "settings": settings}
    network = TSMResNet18(1, settings.frames, width=settings.width, pool=settings.pool)
    module = ScoreModule(network, mean=mean, sd=sd, contrast=contrast, weighted=weighted, **steps)
    return module, data, rows
