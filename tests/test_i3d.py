import pytest
import torch
import torch.nn.functional as F
from helpers import random_resnet50, see_frames
from torch import nn

from lusbio.network.i3d import STAGE_TIMES, ClipConv, I3DResNet50, ResidualBlock, inflate_kernel, inflate_resnet50


def inflated_network(state: dict[str, torch.Tensor], n_frames: int, *, centre: bool) -> I3DResNet50:
    network = I3DResNet50(len(state["fc.bias"]), n_frames).eval()
    missing, unexpected = network.load_state_dict(inflate_resnet50(state, centre=centre), strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return network


LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 1, 1), 1), ((1, 1, 1), 2), ((1, 3, 3), 2), ((3, 1, 1), 1), ((5, 7, 7), 2)]
)
def test_a_convolution_of_clips_equals_torchs_and_so_do_its_gradients(kernel, stride, layout):
    torch.manual_seed(0)
    padding = tuple(size // 2 for size in kernel)
    conv = ClipConv(3, 4, kernel, (1, stride, stride), padding, bias=False).double().to(memory_format=layout)
    clips = torch.rand(2, 3, 4, 6, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    ours, theirs = conv(clips), nn.Conv3d.forward(conv, clips)
    torch.testing.assert_close(ours, theirs)
    direction = torch.rand_like(ours)
    for mine, reference in zip(
        *(torch.autograd.grad((y * direction).sum(), (clips, conv.weight)) for y in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(mine, reference)
    if layout is torch.channels_last_3d:
        assert ours.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("n_frames", [4, 8, 15])
def test_gradients_in_bfloat16_are_near_those_in_float32(n_frames):
    torch.manual_seed(0)
    network = I3DResNet50(5, n_frames).to(memory_format=I3DResNet50.memory_format).eval()
    clips = torch.rand(2, n_frames, 1, 32, 32)
    gradients = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = network(clips).float().sum()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    for low, full in zip(*gradients, strict=True):
        assert (low - full).norm() < 0.5 * full.norm()  # and not NaN


@pytest.fixture(scope="module")
def flat():
    torch.manual_seed(0)
    return random_resnet50()


def test_inflated_at_the_centre_of_time_it_is_the_2d_network_on_every_frame(flat):
    frames = torch.rand(2, 3, 1, 48, 40)
    network = inflated_network(flat, 6, centre=True)
    maps = network.feature_maps(frames.repeat_interleave(2, dim=1))  # pairs: the pool over time changes nothing
    for time in range(3):
        torch.testing.assert_close(maps[:, :, time], see_frames(flat, frames[:, time]), rtol=1e-3, atol=1e-4)
    mean = torch.stack([see_frames(flat, frames[:, time]).mean((2, 3)) for time in range(3)]).mean(0)
    logits = F.linear(mean, flat["fc.weight"], flat["fc.bias"])
    torch.testing.assert_close(network(frames.repeat_interleave(2, dim=1)), logits, rtol=1e-3, atol=1e-4)


def test_up_to_the_pool_over_time_that_holds_for_any_video(flat):
    clips = torch.rand(1, 5, 1, 32, 32)
    network = inflated_network(flat, 5, centre=True)
    maps = network.blocks[1](network.blocks[0](clips.transpose(1, 2)))
    for time in range(5):
        torch.testing.assert_close(maps[:, :, time], see_frames(flat, clips[:, time], 1), rtol=1e-3, atol=1e-4)


def test_repeated_in_time_a_boring_video_is_its_picture_away_from_the_ends(flat):
    picture = torch.rand(1, 1, 32, 32)
    network = inflated_network(flat, 40, centre=False)
    maps = network.feature_maps(picture[:, None].expand(1, 40, 1, 32, 32))
    expected = see_frames(flat, picture)
    torch.testing.assert_close(maps[:, :, 10], expected, rtol=1e-3, atol=1e-4)
    assert (maps[:, :, 0] - expected).abs().max() > 0.1 * expected.abs().max()  # zeros beyond the end are seen


def test_it_equals_monais_resnet50_frame_by_frame():
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    theirs = nets.resnet50(
        spatial_dims=2, n_input_channels=1, num_classes=5, conv1_t_stride=2, bias_downsample=False, shortcut_type="B"
    ).eval()
    network = inflated_network(theirs.state_dict(), 2, centre=True)
    frames = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        ours = network(frames[:, None].repeat(1, 2, 1, 1, 1))
        torch.testing.assert_close(ours, theirs(frames), rtol=1e-3, atol=1e-4)


def test_names_and_number_of_parameters_are_pytorchvideos():
    network = I3DResNet50(400, 8, in_channels=3)
    names = network.state_dict()
    assert {
        "blocks.0.conv.weight",
        "blocks.0.norm.running_var",
        "blocks.1.res_blocks.0.branch1_conv.weight",
        "blocks.1.res_blocks.0.branch1_norm.bias",
        "blocks.1.res_blocks.0.branch2.conv_a.weight",
        "blocks.4.res_blocks.5.branch2.norm_c.weight",
        "blocks.5.res_blocks.2.branch2.conv_b.weight",
        "blocks.6.proj.weight",
        "blocks.6.proj.bias",
    } <= set(names)
    assert not any(name.startswith("blocks.2.") for name in names)  # the pool over time
    # 28.04 million in the table of PyTorchVideo's model zoo
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 28.04


def test_the_kernels_that_see_time_are_i3ds():
    names = I3DResNet50(5, 4).state_dict()
    assert names["blocks.0.conv.weight"].shape == (64, 1, 5, 7, 7)
    for stage, times in zip((1, 3, 4, 5), STAGE_TIMES, strict=True):
        kernels = [names[f"blocks.{stage}.res_blocks.{k}.branch2.conv_a.weight"] for k in range(len(times))]
        assert tuple(kernel.shape[2] for kernel in kernels) == times
        assert all(kernel.shape[3:] == (1, 1) for kernel in kernels)
        assert names[f"blocks.{stage}.res_blocks.0.branch2.conv_b.weight"].shape[2:] == (1, 3, 3)


@pytest.mark.parametrize("n_frames", [2, 4, 8, 15])
@pytest.mark.parametrize("size", [32, 64])
def test_short_clips_and_small_frames_pass(n_frames, size):
    network = I3DResNet50(5, n_frames).eval()
    features, logits = network.features_and_logits(torch.rand(2, n_frames, 1, size, size))
    assert features.shape == (2, 2048) and features.min() >= 0 and logits.shape == (2, 5)
    torch.testing.assert_close(logits, network.blocks[6].proj(features))


def test_a_block_that_adds_nothing_is_its_shortcut():
    block = ResidualBlock(8, 8, 3).eval()
    nn.init.zeros_(block.branch2.norm_c.weight)
    clips = torch.rand(2, 8, 3, 4, 4)
    torch.testing.assert_close(block(clips), clips)


def test_both_inflations_add_up_to_the_kernel_they_grew_from():
    kernel = torch.randn(4, 3, 7, 7)
    for centre in (True, False):
        grown = inflate_kernel(kernel, 5, centre=centre)
        assert grown.shape == (4, 3, 5, 7, 7)
        torch.testing.assert_close(grown.sum(2), kernel)
    assert inflate_kernel(kernel, 5, centre=True)[:, :, [0, 1, 3, 4]].abs().max() == 0


def test_what_is_no_part_of_a_resnet50_keeps_its_name():
    assert list(inflate_resnet50({"layer5.0.conv1.weight": torch.zeros(1)})) == ["layer5.0.conv1.weight"]


def test_order_of_frames_matters_and_clips_do_not_mix():
    torch.manual_seed(0)
    network = I3DResNet50(5, 4).eval()
    clips = torch.rand(2, 4, 1, 32, 32)
    assert (network(clips) - network(clips.flip(1))).abs().max() > 1e-4
    torch.testing.assert_close(network(clips)[:1], network(clips[:1]), rtol=1e-4, atol=1e-5)


def test_it_trains_in_bf16_and_channels_last_with_finite_gradients():
    torch.manual_seed(0)
    network = I3DResNet50(5, 4).to(memory_format=I3DResNet50.memory_format)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.rand(2, 4, 1, 32, 32))
    logits.float().square().mean().backward()
    assert logits.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_wrong_clips_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 1, 32, 32\), expected \(B, 4, 1, H, W\)"):
        I3DResNet50(5, 4)(torch.rand(2, 3, 1, 32, 32))
    with pytest.raises(ValueError, match="n_frames is 1, expected at least 2"):
        I3DResNet50(5, 1)
