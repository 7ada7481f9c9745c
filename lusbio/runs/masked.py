"""Pretraining without labels as a run: see ``network/masking.py`` for what is learnt."""

from collections.abc import Callable, Sequence

import numpy as np

from lusbio.errors import LusbioError
from lusbio.runs.spec import PreparedCohort, RunSpec
from lusbio.videos import CachedVideo, DecodedVideo

DECIDING = ("network/masking.py", "network/pretraining.py", "network/vit.py", "network/tsm.py")
"""The files that decide the numbers of these runs, besides this one and those of all trainings."""


def pretrain_masked(backbone: str, align: int, decay: tuple[float, float]) -> Callable:
    """What ``study.train(..., assemble=...)`` takes: learn to say what is hidden, from training videos alone.

    Every training video of the fold is learnt from, labelled or not; of each as often a frame (or clip). With a rate
    of 0 nothing is learnt, and the run is the network as it was made.

    Args:
        backbone: A key of ``vit.SIZES``, or else ``TSMResNet18``.
        align: See ``masking.draw_mask``.
        decay: Weight decay at the beginning and at the end.
    """

    def assemble(spec: RunSpec, prepared: PreparedCohort) -> tuple:
        import torch

        from lusbio.network import clips, masking
        from lusbio.network.pretraining import make_clips

        settings = spec.training
        rows = choose_unlabelled(spec, prepared)
        torch.manual_seed(spec.entropy)
        network = masking.make_reconstructor(backbone, settings)
        mean, sd = measure_pixels([prepared.videos[row] for row in rows["train"]])
        network.pixels.mean.fill_(mean)
        network.pixels.sd.fill_(sd)
        wanted = settings.clips_per_epoch or len(rows["train"])
        dataset = clips.ClipDataset(prepared.videos, torch.full((len(prepared.videos),), -1), settings.frames)
        data = make_clips(dataset, rows, spec, wanted - wanted % settings.batch_size)
        usual = {"settings": settings, "steps_per_epoch": len(data.train_dataloader()), "seed": spec.entropy}
        return masking.MaskedModule(network, align=align, decay=decay, **usual), data, rows

    return assemble


def choose_unlabelled(spec: RunSpec, prepared: PreparedCohort) -> dict[str, np.ndarray]:
    """Rows of the training and of the validation videos, whatever is known of them.

    Raises:
        LusbioError: If there are fewer training videos than a batch has images, or fewer than two to validate on: what
            hides a part of an image is often another one.
    """
    from lusbio.network.clips import EVALUATION_BATCH

    splits, batch = prepared.splits(spec.fold), spec.training.batch_size
    rows = {split: np.flatnonzero(splits == split) for split in ("train", "val")}
    for split, least in (("train", batch), ("val", 2)):
        if (found := len(rows[split])) < max(2, least):
            raise LusbioError(
                f"cohort {prepared.cohort.name!r}, fold {spec.fold}: {found} {split} videos, expected at least "
                f"{max(2, least)}, a batch; take more videos, or a profile with smaller batches"
            )
    if len(rows["val"]) % EVALUATION_BATCH == 1:
        rows["val"] = rows["val"][:-1]  # which would be a batch by itself
    return rows


def measure_pixels(videos: Sequence[CachedVideo | DecodedVideo]) -> tuple[float, float]:
    """Mean and SD of the pixels of videos, in [0, 1]; the SD is not below a grey level."""
    counts = sum(np.bincount(video.load().ravel(), minlength=256) for video in videos)
    greys = np.arange(256) / 255
    mean = counts @ greys / counts.sum()
    return float(mean), float(max(np.sqrt(counts @ (greys - mean) ** 2 / counts.sum()), 1 / 255))
