import numpy as np
import pytest
import torch

from lusbio.errors import LusbioError
from lusbio.network.clips import augment_clips
from lusbio.network.masking import (
    ALIEN_SHARE,
    LARGEST_BLOCK,
    NOISE_SHARES,
    TSMReconstructor,
    ViTReconstructor,
    choose_blocks,
    corrupt,
    draw_mask,
    draw_views,
    make_head,
    masked_l1,
)
from lusbio.network.tsm import TSMResNet18
from lusbio.network.vit import Pixels, ViTClassifier


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_up_views(n: int = 16, size: int = 32) -> torch.Tensor:
    """Every image is of one grey, its own: what comes from another image shows."""
    return torch.linspace(0.1, 0.9, n)[:, None, None, None, None].expand(-1, 2, 1, size, size).clone()


@pytest.mark.parametrize("align", [1, 8])
def test_the_hidden_share_is_reached_and_not_passed_by_more_than_a_block(align):
    rng = np.random.default_rng(0)
    for _ in range(200):
        share = rng.uniform(0.3, 0.75)
        hidden = draw_mask(64, share, align, rng)
        assert share <= hidden.mean() < share + LARGEST_BLOCK**2


def test_blocks_have_sides_below_their_largest_and_whole_patches_are_hidden():
    rng, patch = np.random.default_rng(0), 8
    for _ in range(200):
        by_patch = draw_mask(64, 1e-3, patch, rng).reshape(8, patch, 8, patch).swapaxes(1, 2)  # one block
        assert (by_patch.all((2, 3)) == by_patch.any((2, 3))).all()
        sides = [by_patch.any((2, 3)).any(axis).sum() for axis in (0, 1)]
        assert 1 <= min(sides) and max(sides) * patch < LARGEST_BLOCK * 64


def test_every_place_is_hidden_at_times():
    """Those at the upper left more seldom, since a block's corner lies there and what sticks out is cut off."""
    rng = np.random.default_rng(0)
    often = np.mean([draw_mask(64, 0.6, 8, rng) for _ in range(300)], axis=0)
    assert 0.05 < often.min() and often.max() < 0.95 and often[0, 0] < often[32, 32]


def test_a_third_kind_of_share_is_refused():
    for share in (0, 1, 1.2):
        with pytest.raises(LusbioError, match=rf"hidden share of an image is {share}, expected more than 0 and less"):
            draw_mask(32, share, 8, np.random.default_rng(0))
    with pytest.raises(LusbioError, match="an image of 60 pixels is no multiple of blocks of 8 pixels"):
        draw_mask(60, 0.5, 8, np.random.default_rng(0))


def test_what_is_not_hidden_is_untouched_and_all_frames_of_a_clip_are_hidden_alike():
    views = torch.rand(16, 3, 1, 32, 32)
    seen, hidden = corrupt(views, seeded(), 8, Pixels())
    assert hidden.shape == (16, 1, 1, 32, 32) and hidden.dtype == torch.bool
    clean = ~hidden.expand_as(views)
    assert torch.equal(seen[clean], views[clean]) and (seen != views)[~clean].float().mean() > 0.99


def test_an_image_is_hidden_in_one_way_and_the_donor_is_another_image():
    views, kinds, donors = made_up_views(), [], set()
    for seed in range(20):
        seen, hidden = corrupt(views, seeded(seed), 8, Pixels())
        for k in range(len(views)):
            inside = seen[k][hidden[k].expand_as(seen[k])]
            greys, own = inside.unique(), views[k].unique()
            kinds.append(len(greys) > 1)
            if not kinds[-1]:  # a piece of one other image, whose grey it has
                assert greys.item() in views and greys.item() != own.item()
                donors.add(greys.item())
            share = hidden[k].float().mean()
            low, high = NOISE_SHARES if kinds[-1] else (ALIEN_SHARE, ALIEN_SHARE)
            assert low <= share < high + LARGEST_BLOCK**2
    assert 0.4 < np.mean(kinds) < 0.6 and len(donors) == len(views)


def test_a_piece_of_another_image_lies_where_it_lay_there():
    views = torch.rand(2, 1, 1, 32, 32)
    for seed in range(10):
        seen, hidden = corrupt(views, seeded(seed), 8, Pixels())
        for k in range(2):
            inside = hidden[k].expand_as(seen[k])
            if hidden[k].float().mean() < 0.5:
                assert torch.equal(seen[k][inside], views[1 - k][inside])


def test_noise_is_as_bright_and_as_varied_as_pixels():
    pixels = Pixels()
    pixels.mean.fill_(0.3)
    pixels.sd.fill_(0.1)
    seen, hidden = corrupt(torch.zeros(64, 4, 1, 32, 32), seeded(), 8, pixels)
    noise = seen[hidden.expand_as(seen)]
    noise = noise[noise != 0]
    assert abs(noise.mean() - 0.3) < 0.005 and abs(noise.std() - 0.1) < 0.005


def test_one_image_has_no_other_to_take_a_piece_from():
    with pytest.raises(LusbioError, match="a batch of one image has no other image to take a piece from"):
        corrupt(torch.rand(1, 1, 1, 32, 32), seeded(), 8, Pixels())


def test_the_same_seed_gives_the_same_bytes():
    clips = torch.rand(8, 2, 1, 32, 32)
    drawn = [corrupt(draw_views(clips, g), g, 8, Pixels()) for g in (seeded(3), seeded(3), seeded(4))]
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[2][0])


def test_views_are_crops_of_the_frame_alike_in_all_frames():
    ramp = torch.linspace(0, 1, 64).expand(64, 64)
    clips = torch.stack([ramp, ramp.T])[None, :, None].expand(200, -1, -1, -1, -1)
    views = draw_views(clips, seeded())
    assert views.shape == clips.shape and views.min() >= 0 and views.max() <= 1
    x, y = views[:, 0, 0], views[:, 1, 0]  # where in the frame each pixel is from, times the brightness
    torch.testing.assert_close(y[:, 1:, 5] - y[:, :-1, 5], y[:, 1:, 40] - y[:, :-1, 40], atol=1e-4, rtol=1e-3)
    span_x = (x[:, 32, -8] - x[:, 32, 8]).abs() / (48 / 63)
    span_y = (y[:, -8, 32] - y[:, 8, 32]) / (48 / 63)
    torch.testing.assert_close(span_x, span_y, atol=5e-3, rtol=0.02)  # crops are square
    assert 0.38 < span_x.min() < 0.5 and 0.9 < span_x.max() <= 1.11  # half of the side to all, x 0.8 to 1.1
    mirrored = (x[:, 32, -8] < x[:, 32, 8]).float().mean()
    assert 0.4 < mirrored < 0.6


def test_black_images_stay_black_and_give_finite_losses():
    views = draw_views(torch.zeros(4, 1, 1, 32, 32), seeded())
    seen, hidden = corrupt(views, seeded(), 8, Pixels())
    net = ViTReconstructor(1, size=32, name="vit_micro")
    loss = masked_l1(net(seen), net.pixels(views), hidden)
    loss.backward()
    assert not views.any() and loss.isfinite()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


# --- reconstruction ---


@pytest.mark.parametrize(("channels", "parameters"), [(3, 738_435), (1, 541_825)])
def test_the_head_has_the_published_number_of_parameters(channels, parameters):
    assert sum(p.numel() for p in make_head(384, channels, 16).parameters()) == parameters


def test_a_head_hears_four_of_the_last_blocks():
    assert choose_blocks(12) == [11, 9, 7, 5]  # the 12th, 10th, 8th and 6th
    assert choose_blocks(6) == [5, 4, 3, 2] and choose_blocks(2) == [1, 0]


def test_patches_are_put_back_where_they_were():
    """A head that hands on the mean of a patch, and blocks that change nothing: the image comes back."""
    torch.manual_seed(0)
    net = ViTReconstructor(1, size=32, name="vit_micro").eval()
    marked = torch.zeros(1, 1, 1, 32, 32)
    marked[..., 8:16, 24:32] = 1.0
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.encoder.patches.weight[0] = 1 / 64
        net.encoder.norm.weight.fill_(1.0)
        net.head = torch.nn.ConvTranspose2d(32, 1, 8, 8)
        net.head.weight.zero_()
        net.head.weight[0] = 1.0
        net.head.bias.zero_()
        said = net(marked)[0, 0, 0]
    assert (said[8:16, 24:32] > 1).all() and said.count_nonzero() == 64


def test_only_hidden_pixels_are_judged():
    torch.manual_seed(0)
    said, views = torch.randn(3, 2, 1, 16, 16, requires_grad=True), torch.randn(3, 2, 1, 16, 16)
    hidden = torch.rand(3, 1, 1, 16, 16) < 0.4
    loss = masked_l1(said, views, hidden)
    (gradient,) = torch.autograd.grad(loss, said)
    everywhere = hidden.expand_as(said)
    assert (gradient[~everywhere] == 0).all() and (gradient[everywhere] != 0).all()
    triples = zip(said.detach().ravel(), views.ravel(), everywhere.ravel(), strict=True)
    by_hand = [abs(float(s - v)) for s, v, h in triples if h]
    assert loss.item() == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert masked_l1(views, views, hidden) == 0 and masked_l1(said, views, hidden & False) == 0


def test_a_repeated_frame_is_learnt():
    torch.manual_seed(0)
    net = ViTReconstructor(1, size=32, name="vit_micro")
    frame = torch.rand(1, 1, 1, 4, 4).repeat_interleave(8, -1).repeat_interleave(8, -2)
    views = torch.cat([frame.expand(7, -1, -1, -1, -1), 1 - frame])
    optimizer, generator, losses = torch.optim.AdamW(net.parameters(), 3e-3), seeded(), []
    for _ in range(200):
        seen, hidden = corrupt(views, generator, 8, net.pixels)
        loss = masked_l1(net(seen), net.pixels(views), hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < np.mean(losses[:3]) / 5


def test_a_network_for_a_task_can_take_over_everything_but_its_last_layer():
    networks = [
        (ViTReconstructor(2, size=32, name="vit_micro"), ViTClassifier(4, 2, size=32, name="vit_micro")),
        (TSMReconstructor(2, width=8), TSMResNet18(4, 2, width=8)),
    ]
    for pretrained, fresh in networks:
        known, own = pretrained.state_dict(), fresh.state_dict()
        fitting = {name for name, value in own.items() if name in known and known[name].shape == value.shape}
        assert own.keys() - fitting == {"fc.weight", "fc.bias"}
        clips = torch.rand(2, 2, 1, 32, 32)
        fresh.load_state_dict({name: known[name] if name in fitting else own[name] for name in own})
        torch.testing.assert_close(fresh.eval().features(clips), pretrained.eval().features(clips))


@pytest.mark.parametrize("size", [64, 96, 80])
def test_the_convolutional_network_says_every_pixel_too(size):
    net = TSMReconstructor(2, width=8)
    clips = augment_clips(torch.rand(3, 2, 1, size, size), seeded())
    assert net(clips).shape == clips.shape
