import pytest
import torch

from lusbio.network.resnet import BasicBlock, ResNet18


def test_resnet18_equals_monais_with_the_same_weights():
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    theirs = nets.resnet18(
        spatial_dims=2, n_input_channels=3, num_classes=38, conv1_t_stride=2, bias_downsample=False, shortcut_type="B"
    )
    ours = ResNet18(in_channels=3, n_outputs=38)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 70, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_parameters_have_torchvisions_names_and_number():
    names = ResNet18(in_channels=3, n_outputs=1000).state_dict()
    assert len(names) == 122
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.bias",
        "layer4.1.bn2.num_batches_tracked",
        "fc.bias",
    } <= set(names)
    assert sum(p.numel() for p in ResNet18(in_channels=3, n_outputs=1000).parameters()) == 11_689_512


def test_a_block_that_adds_nothing_is_its_shortcut():
    block = BasicBlock(8, 8).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    frames = torch.rand(2, 8, 5, 6)
    torch.testing.assert_close(block(frames), frames)


@pytest.mark.parametrize("size", [(32, 32), (33, 65)])
def test_shapes_follow_the_image(size):
    net = ResNet18(in_channels=1, n_outputs=7).eval()
    frames = torch.rand(3, 1, *size)
    assert net(frames).shape == (3, 7)
    assert net.features(frames).shape == (3, 512)
    assert net.features(frames).min() >= 0
    assert net.feature_maps(frames).shape == (3, 512, -(-size[0] // 32), -(-size[1] // 32))


def test_channels_last_changes_the_layout_and_not_the_numbers():
    torch.manual_seed(0)
    net = ResNet18().eval()
    frames = torch.rand(2, 1, 64, 64)
    expected = net(frames)
    net.to(memory_format=torch.channels_last)
    frames = frames.repeat(1, 1, 1, 1).to(memory_format=torch.channels_last)
    assert net.feature_maps(frames).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(frames), expected, rtol=1e-4, atol=1e-5)
