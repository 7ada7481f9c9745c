"""The levers of ``lever_ladder.py``: other clips, other losses, other pixels, and what a network learns beforehand."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from lusbio.network import USUAL_BACKBONE, clips, masking, training
from lusbio.network.sign_targets import keep_depth, miss_signs
from lusbio.runs.masked import measure_pixels

HIDDEN_BLOCK = 16
"""Sides of hidden blocks are multiples of this many pixels."""

DARK = 8 / 255
"""A row or column whose brightest mean pixel is darker lies outside the sector."""

SIGNS_WEIGHT = 1.0
"""What the signs' mean squared error counts beside the loss of the labels. (Engineering choice.)"""


# --- what a training sees, and how it is judged ---


def earth_movers_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared distance of cumulative distributions (B, K), summed over grades; a scalar.

    Source: Hou, Yu and Samaras 2016, "Squared Earth Mover's Distance-based Loss".
    """
    true = F.one_hot(targets, logits.shape[1]).float().cumsum(1)
    return (logits.softmax(1).cumsum(1) - true).square().sum(1).mean()


def crop_to_sector(frames: np.ndarray, size: int) -> np.ndarray:
    """Cut off what is black in the mean frame, and bring the rest to a size.

    Args:
        frames: uint8 (N, H, W).
        size: Height and width of the result.

    Returns:
        uint8 (N, size, size).
    """
    mean = frames.mean(axis=0) / 255
    rows, columns = (np.flatnonzero(mean.max(axis=axis) > DARK) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return crop_to_sector(np.maximum(frames, 255), size)  # a black video stays whole
    inside = torch.from_numpy(np.array(frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
    resized = F.interpolate(inside[:, None].float(), size=(size, size), mode="bilinear", antialias=True)
    return resized[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()


# --- what a network learns before it learns from labels ---


def draw_batches(
    data: clips.ClipDataModule, rows: np.ndarray, seed: int, steps: int, copies: int = 1
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of 16 different videos of some rows, one clip of each, or as many as there are copies."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        drawn = np.tile(rng.choice(rows, size=16, replace=False), copies)
        starts = rng.integers(0, data.sampler.strides[drawn])
        yield data.dataset.__getitems__(list(zip(drawn.tolist(), starts.tolist(), strict=True)))


def autocast() -> torch.autocast:
    """The precision of trainings on this CPU."""
    return torch.autocast("cpu", torch.bfloat16, enabled=training.choose_precision(torch.device("cpu")) != "32-true")


def take_step(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Follow the gradient of a loss."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def tell_videos_apart(
    module: training.VideoModule, data: clips.ClipDataModule, rows: np.ndarray, steps: int = 160
) -> None:
    """Pretrain a network without labels: two clips of a video are alike, others are not.

    Args:
        module: Its network is changed.
        data: Its videos.
        rows: Which of them are learnt from.
        steps: Of 16 videos each.

    Source: Chen et al. 2020, "SimCLR", normalised temperature-scaled cross-entropy, temperature 0.1.
    """
    first, last = torch.nn.Linear(module.network.n_features, 128), torch.nn.Linear(128, 64)
    projection = torch.nn.Sequential(first, torch.nn.ReLU(), last)
    optimiser = torch.optim.Adam([*module.network.parameters(), *projection.parameters()], lr=3e-4)
    generator = torch.Generator().manual_seed(module.seed)
    module.network.train()
    for batch in draw_batches(data, rows, module.seed, steps, copies=2):
        seen = clips.augment_clips(training.to_unit_range(batch["clips"]), generator)
        with autocast():
            vectors = F.normalize(projection(module.network.features(seen)).float(), dim=1)
        likeness = (vectors @ vectors.T / 0.1).masked_fill(torch.eye(len(vectors), dtype=torch.bool), -torch.inf)
        take_step(optimiser, F.cross_entropy(likeness, torch.arange(len(vectors)).roll(16)))


def fill_in_what_is_hidden(
    module: training.VideoModule, data: clips.ClipDataModule, rows: np.ndarray, steps: int = 160
) -> None:
    """Pretrain a network without labels: say what is hidden, see ``network/masking.py``.

    Args:
        module: Its network is changed, but for the last layer.
        data: Its videos.
        rows: Which of them are learnt from.
        steps: Of 16 videos each.
    """
    network, own = masking.make_reconstructor(USUAL_BACKBONE, module.settings), module.network.state_dict()
    kept = {name: value for name, value in own.items() if not name.startswith("fc.")}
    network.load_state_dict(network.state_dict() | kept)
    mean, sd = measure_pixels([data.dataset.videos[row] for row in rows])
    network.pixels.mean.fill_(mean)
    network.pixels.sd.fill_(sd)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4)
    generator = torch.Generator().manual_seed(module.seed)
    network.train()
    for batch in draw_batches(data, rows, module.seed, steps):
        views = masking.draw_views(training.to_unit_range(batch["clips"]), generator)
        seen, hidden = masking.corrupt(views, generator, HIDDEN_BLOCK, network.pixels)
        with autocast():
            said = network(seen)
        take_step(optimiser, masking.masked_l1(said.float(), network.pixels(views), hidden))
    module.network.load_state_dict(own | {name: network.state_dict()[name] for name in kept})


# --- measured signs as something to learn ---


def learn_signs(
    module: training.VideoModule, data: clips.ClipDataModule, rows: np.ndarray, signs: torch.Tensor, steps: int = 160
) -> None:
    """Pretrain a network without labels: say what was measured in a video. The layer that says it is thrown away.

    Clips are augmented with ``keep_depth``, as many signs are depths.

    Args:
        module: Its network is changed, but for the last layer.
        data: Its videos.
        rows: Which of them are learnt from.
        signs: Standardised, (V, S), NaN where unknown.
        steps: Of 16 videos each.
    """
    layer = torch.nn.Linear(module.network.n_features, signs.shape[1])
    optimiser = torch.optim.Adam([*module.network.parameters(), *layer.parameters()], lr=3e-4)
    generator = torch.Generator().manual_seed(module.seed)
    module.network.train()
    for batch in draw_batches(data, rows, module.seed, steps):
        seen = keep_depth(training.to_unit_range(batch["clips"]), generator)
        with autocast():
            said = layer(module.network.features(seen))
        take_step(optimiser, miss_signs(said.float(), signs[batch["rows"]]))


class SignsToo(training.VideoModule):
    """A training whose features also say what was measured, by a linear layer that no file of weights keeps.

    Args:
        usual: The training as it would be; its network is the one that learns.
        signs: Standardised, (V, S), NaN where unknown.
    """

    def __init__(self, usual: training.VideoModule, signs: torch.Tensor):
        same = ("multilabel", "settings", "steps_per_epoch", "seed", "augment")
        super().__init__(usual.network, loss=usual.loss_function, **{name: getattr(usual, name) for name in same})
        self.signs = signs
        self.layer = torch.nn.Linear(usual.network.n_features, signs.shape[1])

    def training_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> torch.Tensor:
        """The usual loss of the same clips, and how far the signs are off."""
        features = []
        hook = self.network.dropout.register_forward_pre_hook(lambda _, given: features.append(given[0]))
        loss = super().training_step(batch, batch_index)
        hook.remove()
        return loss + SIGNS_WEIGHT * miss_signs(self.layer(features[0]).float(), self.signs[batch["rows"]])
