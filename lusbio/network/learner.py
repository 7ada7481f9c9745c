"""A score of health learnt from single scans of many patients, and features in which scans alike in health lie close.

Source: the idea is that of LEARNER (arXiv 2411.01144), whose text has no formula; the loss is our reading of it.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from lusbio.errors import LusbioError
from lusbio.network import clips, training
from lusbio.network.pretraining import PretrainingModule, make_clips
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


class PairSampler(clips.TrainingSampler):
    """Clips of an epoch, two by two: the earlier video of a pair, then the later one, each from a start of its own.

    Args:
        later: Row of the later video by that of the earlier one.
        **usual: As for ``clips.TrainingSampler``, with as many pairs as ``clips_per_epoch`` says.
    """

    def __init__(self, later: dict[int, int], **usual):
        super().__init__(np.array(list(later)), **usual)
        self.later = later

    def __len__(self) -> int:
        return 2 * self.clips_per_epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for row, start in super().__iter__():
            yield row, start
            yield self.later[row], start % self.strides[self.later[row]]


class PairModule(ScoreModule):
    """A network whose one output is a score of health that is learnt from pairs: only differences of it count.

    Worse, the same or better has the probability of an ordered logistic whose cuts lie one threshold below and above
    no difference: exams that change places swap worse and better. Scores are learnt in units of the threshold.

    Args:
        network: As for ``ScoreModule``.
        threshold: Largest change that is the same.
        **training: As for ``PretrainingModule``.
    """

    def __init__(self, network: torch.nn.Module, *, threshold: float, **training):
        super().__init__(network, mean=0.0, sd=threshold, contrast=0.0, weighted=False, **training)

    def compute_loss(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """The loss of augmented clips, pair by pair."""
        shown = clips.augment_clips(training.to_unit_range(batch["clips"]), generator)
        return pair_loss(self.network(shown)[:, 0].float(), batch["targets"][:, 0])

    def validate(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """The loss of pairs, and minus it, which is the score: the likelihood of what happened."""
        loss = pair_loss(self(batch["clips"])[:, 0].float(), batch["targets"][:, 0])
        return loss, -loss

    def judge(self, *validated: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As of any pretraining."""
        return PretrainingModule.judge(self, *validated)


def pair_loss(predicted: torch.Tensor, health: torch.Tensor) -> torch.Tensor:
    """Minus the mean log likelihood of worse, the same or better, of clips (B,) that are earlier, later, earlier, ...

    Args:
        predicted: Scores, in units of the threshold.
        health: In the same unit.
    """
    moved, found = (later - earlier for earlier, later in (predicted.view(-1, 2).T, health.view(-1, 2).T))
    better, worse = F.logsigmoid(moved - 1), F.logsigmoid(-moved - 1)
    same = F.logsigmoid(moved + 1) + F.logsigmoid(1 - moved) + math.log(1 - math.exp(-2))  # what the others leave
    return -torch.where(found > 1, better, torch.where(found < -1, worse, same)).mean()


def train_on_pairs(pairs: tuple[tuple[int, int], ...], threshold: float) -> Callable:
    """What ``study.train(..., assemble=...)`` takes: learn the change itself, from pairs of exams, end to end.

    The task is named as for ``assemble_score``, with any method.

    Args:
        pairs: Rows of the earlier and of the later video; of each pair both have a value in the column.
        threshold: Largest change that is the same, in the unit of the column.
    """

    def assemble(spec, prepared) -> tuple[PairModule, clips.ClipDataModule, dict[str, np.ndarray]]:
        torch.manual_seed(spec.entropy)
        settings, splits = spec.training, prepared.splits(spec.fold).to_numpy()
        health = prepared.table[spec.task.rsplit("_", 1)[0]].astype(float).to_numpy() / threshold
        later = {split: {a: b for a, b in pairs if splits[a] == split} for split in ("train", "val")}
        rows = {split: np.array(list(of_split.items()), int).ravel() for split, of_split in later.items()}
        if not rows["train"].size or not rows["val"].size:
            found = f"{len(later['train'])} pairs in training and {len(later['val'])} in validation"
            raise LusbioError(f"{spec.task}, fold {spec.fold}: {found}, expected at least one of each")
        targets = torch.tensor(health[:, None], dtype=torch.float32)
        data = make_clips(clips.ClipDataset(prepared.videos, targets, settings.frames), rows, spec)
        frames = np.array([video.n_frames for video in prepared.videos])
        count = (settings.clips_per_epoch or len(rows["train"])) // 2
        usual = {"n_frames": frames, "clip_frames": settings.frames, "clips_per_epoch": count, "seed": spec.entropy}
        data.sampler, data.validation_clips = PairSampler(later["train"], **usual), 1
        network = TSMResNet18(1, settings.frames, width=settings.width, pool=settings.pool)
        steps = {"steps_per_epoch": len(data.train_dataloader()), "seed": spec.entropy, "settings": settings}
        return PairModule(network, threshold=threshold, **steps), data, rows

    return assemble


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
    data = make_clips(clips.ClipDataset(prepared.videos, targets, settings.frames), rows, spec)
    steps = {"steps_per_epoch": len(data.train_dataloader()), "seed": spec.entropy, "settings": settings}
    network = TSMResNet18(1, settings.frames, width=settings.width, pool=settings.pool)
    module = ScoreModule(network, mean=mean, sd=sd, contrast=contrast, weighted=weighted, **steps)
    return module, data, rows
