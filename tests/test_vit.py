import pytest
import torch
from torch import nn

from lusbio.errors import LusbioError
from lusbio.network.vit import SIZES, Block, ViT, ViTClassifier


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("channels", "parameters"), [(3, 21_665_664), (1, 21_469_056)])
def test_the_small_transformer_has_the_published_number_of_parameters(channels, parameters):
    assert count(ViT(224, *SIZES["vit_small"], channels)) == parameters


def test_the_tiny_one_has_a_million():
    assert count(ViT(64, *SIZES["vit_tiny"])) == 1_206_656


def as_torchs(block: Block, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """torch's own block with the weights of ours."""
    usual = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
    theirs = nn.TransformerEncoderLayer(width, heads, 4 * width, **usual)
    names = {"attention": "self_attn", "mlp.0": "linear1", "mlp.2": "linear2"}
    state = block.state_dict()
    for ours, other in names.items():
        state = {name.replace(ours, other, 1) if name.startswith(ours) else name: v for name, v in state.items()}
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("training", [True, False])
def test_a_block_equals_torchs_and_so_do_its_gradients(training):
    torch.manual_seed(0)
    block = Block(32, 4).train(training)
    theirs, tokens = as_torchs(block, 32, 4).train(training), torch.randn(3, 7, 32)
    torch.testing.assert_close(block(tokens), theirs(tokens))
    for one in (block, theirs):
        one(tokens).square().mean().backward()
    torch.testing.assert_close(block.attention.in_proj_weight.grad, theirs.self_attn.in_proj_weight.grad)


def test_whole_transformers_equal_torchs_encoder():
    torch.manual_seed(0)
    vit, frames = ViT(32, 8, 16, 3, 2).eval(), torch.rand(2, 1, 32, 32)
    cut = frames.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3).flatten(3)[:, 0]  # (B, 16, 64): patches, row by row
    tokens = cut @ vit.patches.weight.flatten(1).T + vit.patches.bias
    tokens = torch.cat([vit.cls.expand(2, -1, -1), tokens], 1) + vit.positions
    for block, found in zip(vit.blocks, vit(frames), strict=True):
        tokens = as_torchs(block, 16, 2).eval()(tokens)
        torch.testing.assert_close(found, tokens)


def test_in_training_some_images_pass_a_block_by_and_the_mean_stays():
    torch.manual_seed(0)
    block, tokens = Block(16, 2, dropped=0.5), torch.randn(1, 5, 16).expand(4000, -1, -1)
    with torch.no_grad():
        trained, evaluated = block(tokens) - tokens, block.eval()(tokens) - tokens
    passed = (trained.abs().amax((1, 2)) == 0).float().mean()
    assert 0.2 < passed < 0.3  # both residuals, half of the time each
    torch.testing.assert_close(trained.mean(0), evaluated[0], atol=0.05, rtol=0.1)
    shares = [block.dropped for block in ViT(32, 8, 16, 3, 2).blocks]
    assert shares == pytest.approx([0, 0.05, 0.1])


def test_pixels_are_standardised_first():
    torch.manual_seed(0)
    vit, frames = ViT(16, 8, 16, 1, 2).eval(), torch.rand(2, 1, 16, 16)
    before = vit(frames)[0]
    vit.pixels.mean.fill_(0.3)
    vit.pixels.sd.fill_(0.2)
    torch.testing.assert_close(vit(0.2 * frames + 0.3)[0], before)
    assert {"pixels.mean", "pixels.sd"} <= vit.state_dict().keys()


def test_a_clip_is_the_mean_of_its_frames_and_clips_do_not_mix():
    torch.manual_seed(0)
    net, clips = ViTClassifier(5, 4, size=32, name="vit_micro").eval(), torch.rand(3, 4, 1, 32, 32)
    features, logits = net.features_and_logits(clips)
    frame_by_frame = torch.stack([net.features(clips[:, k : k + 1]) for k in range(4)])
    torch.testing.assert_close(features, frame_by_frame.mean(0))
    torch.testing.assert_close(logits, net.fc(features))
    torch.testing.assert_close(net(clips)[1:2], net(clips[1:2]))
    assert features.shape == (3, 64) and logits.shape == (3, 5)


def test_features_are_cls_and_the_mean_of_patches():
    net, frames = ViTClassifier(5, 1, size=32, name="vit_micro").eval(), torch.rand(2, 1, 32, 32)
    tokens = net.encoder.norm(net.encoder(frames)[-1])
    torch.testing.assert_close(net.features(frames[:, None])[:, :32], tokens[:, 0])
    torch.testing.assert_close(net.features(frames[:, None])[:, 32:], tokens[:, 1:].mean(1))


def test_a_side_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(LusbioError, match="frames of 60 pixels cannot be cut into patches of 8, expected a multiple"):
        ViTClassifier(4, 1, size=60, name="vit_tiny")


def test_it_trains_in_bf16_with_finite_gradients():
    torch.manual_seed(0)
    net = ViTClassifier(4, 2, size=32, name="vit_micro")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(torch.rand(2, 2, 1, 32, 32))
    logits.float().square().mean().backward()
    used = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in used)
