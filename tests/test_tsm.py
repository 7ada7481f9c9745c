import pytest
import torch

from lusbio.network.resnet import ResNet18
from lusbio.network.tsm import ShiftedBlock, TSMResNet18, shift_frames


def shift_by_loop(frames: torch.Tensor, n_frames: int, fraction: int) -> torch.Tensor:
    """The definition, one number at a time."""
    shifted = torch.zeros_like(frames)
    part = frames.shape[1] // fraction
    for i in range(len(frames)):
        time = i % n_frames
        for c in range(frames.shape[1]):
            if c < part:
                shifted[i, c] = frames[i + 1, c] if time + 1 < n_frames else 0
            elif c < 2 * part:
                shifted[i, c] = frames[i - 1, c] if time > 0 else 0
            else:
                shifted[i, c] = frames[i, c]
    return shifted


LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("clips", "n_frames", "channels", "fraction"),
    [(1, 1, 8, 8), (2, 2, 16, 8), (3, 5, 19, 8), (2, 4, 6, 3), (2, 3, 4, 2)],
)
def test_shift_equals_a_plain_loop(clips, n_frames, channels, fraction, layout):
    frames = torch.rand(clips * n_frames, channels, 3, 2).contiguous(memory_format=layout)
    shifted = shift_frames(frames, n_frames, fraction)
    torch.testing.assert_close(shifted, shift_by_loop(frames, n_frames, fraction), rtol=0, atol=0)
    assert shifted.stride() == frames.stride()


def test_shift_has_the_gradient_of_the_plain_loop():
    frames = torch.rand(6, 16, 2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, 16, 2, 2, dtype=torch.float64)
    (ours,) = torch.autograd.grad((shift_frames(frames, 3) * weights).sum(), frames)
    (loops,) = torch.autograd.grad((shift_by_loop(frames, 3, 8) * weights).sum(), frames)
    torch.testing.assert_close(ours, loops, rtol=0, atol=0)
    torch.autograd.gradcheck(lambda x: shift_frames(x, 3), frames)
    torch.autograd.gradgradcheck(lambda x: shift_frames(x, 3), frames)


def test_shift_refuses_half_clips_and_silly_fractions():
    with pytest.raises(ValueError, match="7 frames are not a whole number of clips of 3"):
        shift_frames(torch.rand(7, 8, 1, 1), 3)
    with pytest.raises(ValueError, match="fraction is 1"):
        shift_frames(torch.rand(3, 8, 1, 1), 3, fraction=1)


def test_the_shortcut_of_a_block_sees_unshifted_frames():
    block = ShiftedBlock(8, 8, 1, n_frames=4).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    frames = torch.rand(8, 8, 3, 3)
    torch.testing.assert_close(block(frames), frames)


def test_all_eight_blocks_shift_before_their_first_convolution(monkeypatch):
    import lusbio.network.tsm as tsm

    seen = []
    monkeypatch.setattr(tsm, "shift_frames", lambda x, *a: seen.append(x.shape[1]) or shift_frames(x, *a))
    TSMResNet18(5, 3).eval()(torch.rand(1, 3, 1, 32, 32))
    assert seen == [64, 64, 64, 128, 128, 256, 256, 512]


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_without_shifted_channels_it_is_a_resnet_pooled_over_time(pool):
    torch.manual_seed(0)
    net = TSMResNet18(5, 3, pool=pool, fraction=1000).eval()
    resnet = ResNet18(1, 5).eval()
    resnet.load_state_dict(net.state_dict())
    clips = torch.rand(2, 3, 1, 32, 32)
    by_frame = resnet.features(clips.flatten(0, 1)).view(2, 3, 512)
    expected = by_frame.max(dim=1).values if pool == "max" else by_frame.mean(dim=1)
    features, logits = net.features_and_logits(clips)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(logits, resnet.fc(expected))
    torch.testing.assert_close(net(clips), logits)


def test_the_mean_of_features_gives_the_mean_of_logits_over_frames():
    net = TSMResNet18(5, 4, pool="mean").eval()
    clips = torch.rand(2, 4, 1, 32, 32)
    by_frame = ResNet18.features(net, clips.flatten(0, 1))
    torch.testing.assert_close(net(clips), net.fc(by_frame).view(2, 4, 5).mean(dim=1))


def test_order_of_frames_matters_and_clips_do_not_mix():
    torch.manual_seed(0)
    net = TSMResNet18(5, 4).eval()
    clips = torch.rand(2, 4, 1, 32, 32)
    assert (net(clips) - net(clips.flip(1))).abs().max() > 1e-4
    torch.testing.assert_close(net(clips)[:1], net(clips[:1]))


def test_training_and_evaluation_see_features_of_the_same_size():
    torch.manual_seed(0)
    net = TSMResNet18(5, 8)
    seen = []
    net.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    clips = torch.rand(4, 8, 1, 32, 32)
    features, _ = net.features_and_logits(clips)
    dropped = seen[0]
    assert 0.4 < (dropped == 0).float().mean() < 0.6
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * features[kept])
    assert 0.9 < dropped.mean() / features.mean() < 1.1


def test_names_are_torchvisions():
    assert TSMResNet18(38, 8).state_dict().keys() == ResNet18(1, 38).state_dict().keys()


def test_wrong_clips_and_pools_are_refused():
    net = TSMResNet18(5, 4)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 1, 32, 32\), expected \(B, 4, 1, H, W\)"):
        net(torch.rand(2, 3, 1, 32, 32))
    with pytest.raises(ValueError, match="pool 'maximum' is not one of max, mean"):
        TSMResNet18(5, 4, pool="maximum")


def test_it_trains_in_bf16_and_channels_last_with_finite_gradients():
    torch.manual_seed(0)
    net = TSMResNet18(5, 4).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(torch.rand(2, 4, 1, 32, 32))
    logits.float().square().mean().backward()
    assert logits.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_it_can_tell_a_video_from_its_reverse():
    """A bar that moves left or right: only a network that sees time can learn it."""
    torch.manual_seed(0)
    steps = torch.arange(4)
    clips = torch.zeros(16, 4, 1, 32, 32)
    labels = torch.arange(16) % 2
    for i in range(16):
        columns = 4 + i // 2 + 3 * (steps if labels[i] else steps.flip(0))
        clips[i, steps, 0, :, columns] = 1.0
    net = TSMResNet18(2, 4, dropout=0.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(12):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(clips), labels).backward()
        optimizer.step()
    assert (net(clips).argmax(1) == labels).float().mean() > 0.9
