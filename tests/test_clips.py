from pathlib import Path

import numpy as np
import pytest
import torch

from lusbio.network.clips import (
    ClipDataModule,
    ClipDataset,
    TrainingSampler,
    apply_augmentation,
    augment_clips,
    draw_augmentation,
    evaluation_starts,
    frame_indices,
)
from lusbio.videos import FrameCache

IDENTITY = torch.tensor([[1.0, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("n_frames", [1, 2, 3, 14, 15, 16, 29, 30, 59, 60, 150])
def test_every_clip_is_in_order_and_inside_the_video(n_frames):
    for start in range(max(1, n_frames // 15)):
        indices = frame_indices(n_frames, 15, start)
        assert indices.shape == (15,) and (np.diff(indices) >= 0).all()
        assert indices.min() >= 0 and indices.max() < n_frames


def test_a_clip_takes_every_s_th_frame():
    assert frame_indices(150, 15, 7).tolist() == list(range(7, 150, 10))


def test_a_short_video_shows_every_frame():
    assert set(frame_indices(7, 15, 0)) == set(range(7))


@pytest.mark.parametrize("n_frames", [7, 15, 29, 44, 60, 101])
def test_evaluation_starts_are_spread_over_the_segment(n_frames):
    starts = evaluation_starts(n_frames, 15, 4)
    stride = max(1, n_frames // 15)
    assert starts[0] == 0 and starts.max() < stride and len(set(starts)) == min(4, stride)


def random_clips(n_clips: int = 4) -> torch.Tensor:
    return torch.rand(n_clips, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_augmentation_at_zero_is_the_identity():
    clips = random_clips()
    same = apply_augmentation(clips, IDENTITY.expand(4, 2, 3), torch.ones(4))
    torch.testing.assert_close(same, clips, atol=1e-5, rtol=0)


def test_all_frames_of_a_clip_are_augmented_alike_and_clips_differ():
    clips = random_clips(8)[:, :1].expand(-1, 5, -1, -1, -1)
    augmented = augment_clips(clips, torch.Generator().manual_seed(1))
    assert (augmented == augmented[:, :1]).all()
    maps, brightness = draw_augmentation(8, torch.Generator().manual_seed(1))
    assert len({tuple(m.flatten().tolist()) for m in maps}) > 4 and len(set(brightness.tolist())) > 2


def test_flipping_twice_gives_the_clip_back():
    flip = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(4, 2, 3)
    clips = random_clips()
    once = apply_augmentation(clips, flip, torch.ones(4))
    torch.testing.assert_close(once, clips.flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(apply_augmentation(once, flip, torch.ones(4)), clips, atol=1e-5, rtol=0)


def test_draws_stay_in_the_published_ranges_and_happen_half_of_the_time():
    maps, brightness = draw_augmentation(20_000, torch.Generator().manual_seed(0))
    assert brightness.min() >= 0.8 and brightness.max() <= 1.1
    scale = 1 / torch.linalg.vector_norm(maps[:, 1, :2], dim=1)
    assert scale.min() >= 0.8 - 1e-4 and scale.max() <= 1.2 + 1e-4
    angle = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 1, 1]))
    assert angle.abs().max() <= 15.001 and maps[:, :, 2].abs().max() <= 0.1
    changed = {
        "flip": torch.linalg.det(maps[:, :, :2]) < 0,
        "brightness": brightness != 1,
        "scale": (scale - 1).abs() > 1e-5,
        "angle": angle.abs() > 1e-5,
        "shift": maps[:, 0, 2] != 0,
    }
    for name, happened in changed.items():
        assert 0.48 < happened.float().mean() < 0.52, name


def test_augmentation_follows_monai_where_it_is_installed():
    transforms = pytest.importorskip("monai.transforms")
    image = random_clips(1)[0, :1, 0]
    angle, zoom = np.deg2rad(10), 1.1
    oracle = transforms.Affine(
        rotate_params=angle, scale_params=(1 / zoom, 1 / zoom), padding_mode="zeros", image_only=True
    )(image)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    maps = torch.tensor([[[cos, -sin, 0], [sin, cos, 0]]], dtype=torch.float32)
    ours = apply_augmentation(image[None, None], maps, torch.ones(1))[0, 0]
    other_way = apply_augmentation(image[None, None], maps * torch.tensor([[1, -1, 1], [-1, 1, 1]]), torch.ones(1))
    error = min((ours - oracle).abs().mean(), (other_way[0, 0] - oracle).abs().mean())
    assert error < 1e-3


def test_every_row_comes_before_any_comes_twice():
    sampler = TrainingSampler(np.arange(10), np.full(10, 40), 4, 7, seed=3)
    seen = []
    for epoch in range(10):
        sampler.set_epoch(epoch)
        seen += [row for row, _ in sampler]
    for shuffle in range(7):
        assert sorted(seen[10 * shuffle : 10 * shuffle + 10]) == list(range(10))


def test_the_clips_of_an_epoch_follow_from_seed_and_epoch():
    def clips(seed: int, epoch: int) -> list:
        sampler = TrainingSampler(np.arange(30), np.full(30, 100), 4, None, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert clips(0, 5) == clips(0, 5)
    assert clips(0, 5) != clips(0, 6) and clips(0, 5) != clips(1, 5)
    assert {start for _, start in clips(0, 0)} <= set(range(25)) and len({s for _, s in clips(0, 0)}) > 5


@pytest.fixture
def dataset(tmp_path: Path) -> ClipDataset:
    for k in range(4):
        np.save(tmp_path / f"{k}.npy", np.full((6 + k, 8, 8), 10 * k, np.uint8))
    videos = FrameCache(tmp_path / "cache", 8).prepare([tmp_path / f"{k}.npy" for k in range(4)])
    return ClipDataset(videos, torch.tensor([0, 1, 2, -1]), clip_frames=3)


def test_batches_hold_the_clips_that_were_asked_for(dataset):
    module = ClipDataModule(
        dataset, np.array([0, 1, 1]), np.array([2, 3]), clips_per_epoch=6, batch_size=4, validation_clips=2, seed=0
    )
    batches = list(module.train_dataloader())
    assert [len(batch["rows"]) for batch in batches] == [4, 2]
    for batch in batches:
        assert batch["clips"].shape[1:] == (3, 1, 8, 8) and batch["clips"].dtype == torch.uint8
        assert (batch["clips"][:, 0, 0, 0, 0] == 10 * batch["rows"]).all()
        assert (batch["targets"] == dataset.targets[batch["rows"]]).all()
    (validation,) = module.val_dataloader()
    assert validation["rows"].tolist() == [2, 2, 3, 3]
