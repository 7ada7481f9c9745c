"""The network that labels pixels, and what becomes of it."""

import pytest
import torch
from torch import nn

from lusbio.errors import LusbioError
from lusbio.network.unet import Encoder, MapsClassifier, UNet, UNetClassifier, Up, unet_classifier


@pytest.mark.parametrize(("classes", "parameters"), [(7, 31_038_919), (4, 31_038_724)])
def test_it_has_as_many_parameters_as_published(classes, parameters):
    assert sum(value.numel() for value in UNet(classes, 64).parameters()) == parameters


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (1, 1, 32, 48)])
def test_every_pixel_has_its_logits(shape):
    assert UNet(7, 4).eval()(torch.rand(shape)).shape == (shape[0], 7, *shape[2:])


@pytest.mark.parametrize("make", [lambda: UNet(4, 4), lambda: UNetClassifier(4, 4)])
def test_a_side_that_cannot_be_halved_four_times_is_refused(make):
    frames = torch.rand(1, 1, 40, 32) if isinstance(make(), UNet) else torch.rand(1, 2, 1, 40, 32)
    with pytest.raises(LusbioError, match="frames are 40 x 32, expected sides that are multiples of 16"):
        make()(frames)


def test_a_step_up_and_the_way_down_are_those_of_monai():
    nets = pytest.importorskip("monai.networks.nets.basic_unet")
    encoder = Encoder(4).eval()
    frames = torch.rand(2, 1, 32, 32)
    channels, maps, expected = [1, 4, 8, 16, 32, 64], encoder(frames), frames
    for level, stage in enumerate(encoder.stages):
        twice = nets.TwoConv(2, channels[level], channels[level + 1], ("relu", {}), "batch", True, 0.0).eval()
        for number, (conv, norm) in enumerate([(stage[0], stage[1]), (stage[3], stage[4])]):
            part = getattr(twice, f"conv_{number}")
            part.conv.load_state_dict(conv.state_dict())
            part.adn.N.load_state_dict(norm.state_dict())
        expected = twice(expected if level == 0 else nn.functional.max_pool2d(expected, 2))
        torch.testing.assert_close(maps[level], expected)
    up, theirs = Up(8).eval(), nets.UpCat(2, 16, 8, 8, ("relu", {}), "batch", True, 0.0, "deconv", halves=True).eval()
    theirs.upsample.deconv.load_state_dict(up.enlarge.state_dict())
    for number, conv in enumerate([up.convs[0], up.convs[2]]):
        part = getattr(theirs.convs, f"conv_{number}")
        part.conv.load_state_dict(conv.state_dict())
        nn.init.constant_(part.adn.N.weight, (1 + part.adn.N.eps) ** 0.5)  # a batch norm that changes nothing
    small, skipped = torch.rand(2, 16, 8, 8), torch.rand(2, 8, 16, 16)
    torch.testing.assert_close(up(small, skipped), theirs(small, skipped), rtol=1e-4, atol=1e-5)


def test_a_classifier_takes_clips_and_every_tensor_of_the_way_down_fits():
    unet, classifier = UNet(7, 4), unet_classifier(4)(3, 5)
    features, logits = classifier.features_and_logits(torch.rand(2, 5, 1, 32, 32))
    assert features.shape == (2, 64) and logits.shape == (2, 3)
    ours, theirs = classifier.state_dict(), unet.state_dict()
    fitting = {name for name in ours if name in theirs and ours[name].shape == theirs[name].shape}
    assert set(ours) - fitting == {"head.weight", "head.bias"}


def test_a_classifier_that_sees_maps_is_the_whole_network_and_what_it_says_of_pixels():
    unet, classifier, clips = UNet(7, 4), unet_classifier(4, 7)(3, 5).eval(), torch.rand(2, 5, 1, 32, 32)
    assert set(classifier.state_dict()) - set(unet.state_dict()) == {"head.weight", "head.bias"}
    features, logits = classifier.features_and_logits(clips)
    assert features.shape == (2, 64 + 14) and logits.shape == (2, 3)
    unet.load_state_dict({name: classifier.state_dict()[name] for name in unet.state_dict()})
    said = unet.eval()(clips[0]).softmax(1)
    torch.testing.assert_close(features[0, 64:71], said.mean((0, 2, 3)))
    torch.testing.assert_close(features[0, 71:], said.flatten(2).max(2).values.mean(0))
    centre = UNetClassifier(3, 4).eval()
    centre.encoder.load_state_dict(unet.encoder.state_dict())
    torch.testing.assert_close(features[:, :64], centre.features_and_logits(clips)[0])


@pytest.mark.parametrize("make", [lambda: UNetClassifier(3, 4), lambda: MapsClassifier(3, 4, 7)])
def test_the_order_of_frames_tells_the_classifier_nothing(make):
    classifier, clips = make().eval(), torch.rand(2, 5, 1, 32, 32)
    torch.testing.assert_close(classifier(clips), classifier(clips.flip(1)))
