# This file decides the numbers of trainings: see DECIDING in lusbio/runs/spec.py. A change makes them anew.
"""From videos to batches of clips: which frames, in which order, how they are augmented.

Nothing here keeps state: order and starts follow from (seed, epoch), so that a training that was
interrupted goes on with exactly the clips it would have seen.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from lusbio.videos import CachedVideo, DecodedVideo

EVALUATION_BATCH = 32 if torch.cuda.is_available() else 8
"""Clips of a batch that is only predicted: many for a GPU; few stay in the caches of a CPU. (Engineering choice.)"""


def frame_indices(n_frames: int, clip_frames: int, start: int) -> np.ndarray:
    """Which frames of a video make a clip.

    The video is cut into as many equal segments as the clip has frames; the clip takes every
    ``s``-th frame from ``start`` on, where ``s`` is the length of a segment. A video that is
    shorter than a clip shows every frame, some of them repeatedly, in order.

    Args:
        n_frames: Frames of the video, at least 1.
        clip_frames: Frames of the clip, T.
        start: First frame, in ``[0, s)``; ignored when the video is shorter than a clip.

    Returns:
        int64 array (T,), non-decreasing, all below ``n_frames``.

    Source: Gare et al. 2022, Section 2, for equal segments and a random start; short videos are an engineering choice.

    Example:
        >>> frame_indices(13, 4, start=2).tolist(), frame_indices(3, 4, start=0).tolist()
        ([2, 5, 8, 11], [0, 0, 1, 2])
    """
    stride = n_frames // clip_frames
    if stride == 0:
        return np.arange(clip_frames) * n_frames // clip_frames
    return start + stride * np.arange(clip_frames)


def evaluation_starts(n_frames: int, clip_frames: int, n_clips: int) -> np.ndarray:
    """Evenly spaced first frames for the clips that a prediction averages.

    Args:
        n_frames: Frames of the video.
        clip_frames: Frames of a clip, T.
        n_clips: Clips of the video. Where its segments are shorter than that, starts repeat.

    Returns:
        int64 array (n_clips,), values in ``[0, max(1, n_frames // clip_frames))``.

    Source: Gare et al. 2022, Section 2, for several clips and their mean; that starts are fixed and evenly spaced is an
        engineering choice.

    Example:
        >>> evaluation_starts(60, 15, 4).tolist(), evaluation_starts(30, 15, 4).tolist()
        ([0, 1, 2, 3], [0, 0, 1, 1])
    """
    stride = max(1, n_frames // clip_frames)
    return np.arange(n_clips) * stride // n_clips


def augment_clips(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip, scale, rotate, shift and brighten clips: one draw per clip, the same for all its frames.

    Each of the five happens with probability 0.5. Flip, scale, rotation and shift are one affine
    map, so that every frame is resampled once, where the clips are (CPU or GPU). What comes in
    from outside the frame is black.

    Args:
        clips: float (B, T, 1, H, W), range [0, 1].
        generator: On the CPU; the only source of randomness.

    Returns:
        Tensor of the same shape, type and device, range [0, 1].

    Source: Gare et al. 2022, Section 2: horizontal flip; intensity x 0.8-1.1; image scale +-20 %;
        rotation +-15 degrees; translation +-5 %. The probability of each is an engineering choice.
    """
    maps, brightness = draw_augmentation(len(clips), generator)
    return apply_augmentation(clips, maps.to(clips.device), brightness.to(clips.device))


def draw_augmentation(n_clips: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the parameters of ``augment_clips`` for B clips, with a generator on the CPU.

    Returns:
        Affine maps from output to input coordinates, float32 (B, 2, 3), as ``affine_grid`` takes
        them (x to the right, y down, both from -1 to 1); and brightness factors, float32 (B,).
    """
    uniform = torch.rand(6, n_clips, generator=generator) * 2 - 1
    happens = torch.rand(5, n_clips, generator=generator) < 0.5
    flip = torch.where(happens[0], -1.0, 1.0)
    brightness = torch.where(happens[1], 0.95 + 0.15 * uniform[0], 1.0)
    scale = torch.where(happens[2], 1 + 0.2 * uniform[1], 1.0)
    angle = torch.where(happens[3], torch.deg2rad(15 * uniform[2]), 0.0)
    # 5 % of the frame's width is 0.1 in coordinates that span from -1 to 1.
    shift_x, shift_y = torch.where(happens[4], 0.1 * uniform[3:5], 0.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack([flip * cos, -flip * sin, shift_x]), torch.stack([sin, cos, shift_y])]
    return torch.stack(rows).permute(2, 0, 1).contiguous(), brightness


def apply_augmentation(clips: torch.Tensor, maps: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    """Resample and brighten clips by given parameters.

    Args:
        clips: float (B, T, 1, H, W), range [0, 1].
        maps: float32 (B, 2, 3), as from ``draw_augmentation``.
        brightness: float32 (B,).

    Returns:
        Tensor of the same shape and type, clipped to [0, 1].
    """
    frames = clips.squeeze(2)  # (B, T, H, W): the frames of a clip are the channels of one image
    grid = F.affine_grid(maps.to(frames.dtype), list(frames.shape), align_corners=False)
    moved = F.grid_sample(frames, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (moved * brightness.to(frames.dtype)[:, None, None, None]).clamp(0, 1).unsqueeze(2)


class ClipDataset(Dataset):
    """Clips cut from decoded videos, whole batches at a time.

    An item is asked for by ``(video, start)``: the row of the video and the clip's first frame.

    Args:
        videos: Decoded videos, one per row.
        targets: float32 (V, K) with NaN for unknown biomarkers, or int64 (V,) classes with -1 for
            unknown.
        clip_frames: Frames of a clip, T.
    """

    def __init__(self, videos: Sequence[CachedVideo | DecodedVideo], targets: torch.Tensor, clip_frames: int):
        self.videos = videos
        self.targets = targets
        self.clip_frames = clip_frames

    def __len__(self) -> int:
        return len(self.videos)

    def __getitems__(self, items: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """A batch: ``clips`` uint8 (B, T, 1, H, W), ``targets`` (B, ...) and ``rows`` int64 (B,)."""
        clips = []
        for row, start in items:
            frames = self.videos[row].load()
            clips.append(frames[frame_indices(len(frames), self.clip_frames, start)])
        rows = torch.tensor([row for row, _ in items])
        clips = torch.from_numpy(np.stack(clips)).unsqueeze(2)
        return {"clips": clips, "targets": self.targets[rows], "rows": rows}


class TrainingSampler(Sampler):
    """The clips of an epoch: ``(video, start)`` pairs that follow from (seed, epoch) alone.

    The oversampled rows are shuffled and dealt out without replacement; an epoch takes the next
    ``clips_per_epoch`` of them and a new shuffle begins when they are used up, so that every row
    comes before any comes twice, whatever the length of an epoch.

    Args:
        rows: Rows of the training set after oversampling, int64 (R,).
        n_frames: Frames of every video, int64 (V,).
        clip_frames: Frames of a clip, T.
        clips_per_epoch: Length of an epoch; None means R.
        seed: Seed of the training.
    """

    def __init__(
        self, rows: np.ndarray, n_frames: np.ndarray, clip_frames: int, clips_per_epoch: int | None, seed: int
    ):
        self.rows = rows
        self.strides = np.maximum(1, n_frames // clip_frames)
        self.clips_per_epoch = clips_per_epoch or len(rows)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.clips_per_epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.epoch * self.clips_per_epoch
        position = np.arange(first, first + self.clips_per_epoch)
        order = np.empty(self.clips_per_epoch, np.int64)
        for shuffle in np.unique(position // len(self.rows)):
            here = position // len(self.rows) == shuffle
            shuffled = np.random.default_rng([self.seed, 0, shuffle]).permutation(self.rows)
            order[here] = shuffled[position[here] % len(self.rows)]
        starts = np.random.default_rng([self.seed, 1, self.epoch]).integers(0, self.strides[order])
        return iter(list(zip(order.tolist(), starts.tolist(), strict=True)))


class ClipDataModule(pl.LightningDataModule):
    """Batches for training, validation and prediction, all from one frame cache.

    Args:
        dataset: The clips of all videos.
        training_rows: Rows to train on after oversampling, int64 (R,).
        validation_rows: Rows to validate on, int64.
        clips_per_epoch: Clips of a training epoch; None means R.
        batch_size: Clips of a training batch; the last batch of an epoch may be smaller.
        validation_clips: Clips per video in validation.
        seed: Seed of order and starts.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        training_rows: np.ndarray,
        validation_rows: np.ndarray,
        *,
        clips_per_epoch: int | None,
        batch_size: int,
        validation_clips: int,
        seed: int,
    ):
        super().__init__()
        self.dataset = dataset
        self.validation_rows = validation_rows
        self.batch_size = batch_size
        self.validation_clips = validation_clips
        frames = np.array([video.n_frames for video in dataset.videos])
        self.sampler = TrainingSampler(training_rows, frames, dataset.clip_frames, clips_per_epoch, seed)

    def train_dataloader(self) -> DataLoader:
        """Training batches of one epoch, in the order of the sampler."""
        return DataLoader(self.dataset, self.batch_size, sampler=self.sampler, collate_fn=_as_it_is)

    def val_dataloader(self) -> DataLoader:
        """Evenly spaced clips of the validation videos."""
        return evaluation_loader(self.dataset, self.validation_rows, self.validation_clips)


def evaluation_loader(dataset: ClipDataset, rows: np.ndarray, n_clips: int) -> DataLoader:
    """Batches that show every given video ``n_clips`` times, with evenly spaced starts, one clip after the other."""
    items = [
        (int(row), int(start))
        for row in rows
        for start in evaluation_starts(dataset.videos[row].n_frames, dataset.clip_frames, n_clips)
    ]
    return DataLoader(dataset, EVALUATION_BATCH, sampler=items, collate_fn=_as_it_is)


def _as_it_is(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Batches are built whole; there is nothing to collate."""
    return batch
