import functools
import http.server
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers import random_resnet50, see_frames
from safetensors.torch import load_file, save_file

from lusbio.errors import LusbioError
from lusbio.files import file_sha256
from lusbio.network import weights
from lusbio.network.i3d import I3DResNet50
from lusbio.network.resnet import ResNet18
from lusbio.network.tsm import TSMResNet18
from lusbio.network.weights import find_initial_weights, load_initial_weights, load_weights, read_weights, save_weights


@pytest.fixture(autouse=True)
def nothing_at_hand(tmp_path, monkeypatch):
    """No weights in the environment, torch's cache or the build folder, and no server either."""
    for variable in weights.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(weights, "IMAGENET_URL", "http://127.0.0.1:9")  # nobody listens
    weights._download.cache_clear()


def save_as_official(state: dict, folder: Path, backbone: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as torchvision's, under a name that holds its own digits, and that is the one looked for."""
    torch.save(state, folder / "any.pth")
    digits = file_sha256(folder / "any.pth")[:8]
    path = (folder / "any.pth").rename(folder / f"{backbone.split('_')[1]}-{digits}.pth")
    monkeypatch.setitem(weights.IMAGENET, backbone, path.name)
    return path


@pytest.fixture(scope="module")
def colour_network():
    torch.manual_seed(0)
    return ResNet18(in_channels=3, n_outputs=1000).eval()


@pytest.fixture
def imagenet_like(tmp_path, monkeypatch, colour_network):
    return save_as_official(colour_network.state_dict(), tmp_path, "tsm_resnet18", monkeypatch)


@pytest.fixture
def server(tmp_path, monkeypatch, imagenet_like):
    """A server on this machine that has the file."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            requests.append(arguments[1])

    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(weights, "IMAGENET_URL", f"http://127.0.0.1:{running.server_port}")
        yield requests
        running.shutdown()


def test_the_files_name_their_own_digits():
    names = list(weights.IMAGENET.values())
    assert list(map(weights._digits, names)) == ["f37072fd", "0676ba61"]


def test_without_network_it_is_scratch_at_once_and_says_why():
    begin = time.perf_counter()
    found = find_initial_weights("imagenet")
    assert found == weights.InitialWeights("scratch", None, "from scratch: no ImageNet weights (no network)")
    assert time.perf_counter() - begin < weights.PATIENCE_S + 1
    assert find_initial_weights("scratch").path is None


def test_a_server_that_never_answers_is_given_up_once(monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as silent:  # never serves
        monkeypatch.setattr(weights, "IMAGENET_URL", f"http://127.0.0.1:{silent.server_port}")
        monkeypatch.setattr(weights, "PATIENCE_S", 0.3)
        begin = time.perf_counter()
        found = [find_initial_weights("imagenet") for _ in range(20)]
        assert time.perf_counter() - begin < 3
        assert {one.description for one in found} == {"from scratch: no ImageNet weights (no network)"}


def test_what_is_downloaded_is_checked_and_kept(server, imagenet_like):
    found = find_initial_weights("imagenet")
    assert found.path == weights.build_folder("weights") / imagenet_like.name
    assert found.name == imagenet_like.stem
    assert found.description == f"from {imagenet_like.name} (ImageNet)"
    asked = len(server)
    assert asked > 0
    assert find_initial_weights("imagenet") == found
    assert len(server) == asked


def test_a_download_of_something_else_is_thrown_away(server, imagenet_like, monkeypatch):
    other = imagenet_like.rename(imagenet_like.with_name("resnet18-00000000.pth"))
    monkeypatch.setitem(weights.IMAGENET, "tsm_resnet18", other.name)
    found = find_initial_weights("imagenet")
    assert found.path is None
    assert "what arrived has sha256" in found.description
    assert list(weights.build_folder("weights").iterdir()) == []


def test_torchs_cache_is_used(tmp_path, imagenet_like):
    cached = tmp_path / "torch" / "hub" / "checkpoints" / imagenet_like.name
    cached.parent.mkdir(parents=True)
    imagenet_like.rename(cached)
    assert find_initial_weights("imagenet").path == cached


def test_a_damaged_file_is_an_error_with_both_hashes(imagenet_like):
    damaged = weights.build_folder("weights") / imagenet_like.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(imagenet_like.read_bytes()[:-1])
    found, expected = file_sha256(damaged)[:8], imagenet_like.stem[-8:]
    with pytest.raises(LusbioError, match=f"{damaged.name}: sha256 begins with {found}, expected {expected}"):
        find_initial_weights("imagenet")


def test_a_file_of_ones_own_is_used_and_named_by_its_content(tmp_path, monkeypatch, colour_network):
    path = tmp_path / "mine.safetensors"
    save_weights(colour_network, path)
    monkeypatch.setenv("LUSBIO_WEIGHTS", str(path))
    found = find_initial_weights("imagenet")
    assert found.path == path
    assert found.name == f"mine-{file_sha256(path)[:8]}"
    assert str(tmp_path) not in found.description
    monkeypatch.setenv("LUSBIO_WEIGHTS", str(tmp_path / "absent.pth"))
    with pytest.raises(LusbioError, match="absent.pth: no such file; LUSBIO_WEIGHTS"):
        find_initial_weights("imagenet")
    assert find_initial_weights("scratch").name == "scratch"


def test_a_grey_network_sees_what_the_colour_network_sees_in_grey(monkeypatch, imagenet_like, colour_network):
    monkeypatch.setenv("LUSBIO_WEIGHTS", str(imagenet_like))
    network = TSMResNet18(38, 2).eval()
    before = network.fc.weight.clone()
    description = load_initial_weights(network, "imagenet")
    assert description == f"from {imagenet_like.name} (named by LUSBIO_WEIGHTS)"
    torch.testing.assert_close(network.fc.weight, before)
    grey = ResNet18(1, 38).eval()
    grey.load_state_dict(network.state_dict())
    frames = torch.rand(2, 1, 48, 48)
    torch.testing.assert_close(grey.features(frames), colour_network.features(frames.expand(-1, 3, -1, -1)))


def test_a_last_layer_that_fits_is_kept(tmp_path, monkeypatch):
    saved = TSMResNet18(38, 2)
    save_weights(saved, tmp_path / "biomarkers.safetensors")
    monkeypatch.setenv("LUSBIO_WEIGHTS", str(tmp_path / "biomarkers.safetensors"))
    network = TSMResNet18(38, 4)
    load_initial_weights(network, "imagenet")
    torch.testing.assert_close(network.state_dict(), saved.state_dict())


@pytest.fixture(scope="module")
def flat():
    """A 2-D ResNet-50 for three colours with 1000 classes."""
    torch.manual_seed(0)
    state = random_resnet50(n_outputs=1000)
    return state | {"conv1.weight": torch.randn(64, 3, 7, 7) / 20}


def test_i3d_starts_from_a_2d_resnet50_repeated_in_time(tmp_path, monkeypatch, flat):
    path = save_as_official(flat, tmp_path, "i3d_resnet50", monkeypatch)
    (tmp_path / "build" / "weights").mkdir(parents=True)
    path = path.rename(tmp_path / "build" / "weights" / path.name)
    network = I3DResNet50(5, 24).eval()
    before = network.blocks[6].proj.weight.clone()
    assert load_initial_weights(network, "imagenet") == f"from {path.name} (ImageNet)"
    torch.testing.assert_close(network.blocks[6].proj.weight, before)
    picture = torch.rand(1, 1, 32, 32)
    maps = network.blocks[1](network.blocks[0](picture[:, :, None].expand(1, 1, 24, 32, 32)))
    grey = flat | {"conv1.weight": flat["conv1.weight"].sum(1, keepdim=True)}
    torch.testing.assert_close(maps[:, :, 12], see_frames(grey, picture, stages=1), rtol=1e-3, atol=1e-4)
    found = find_initial_weights("imagenet", "i3d_resnet50")
    assert found.path == path and found.name == path.stem
    assert find_initial_weights("imagenet").name == "scratch"  # the other backbone has a file of its own
    path.write_bytes(b"damaged")
    with pytest.raises(LusbioError, match=f"{path.name}: sha256 begins with .*, expected {path.stem[-8:]}"):
        find_initial_weights("imagenet", "i3d_resnet50")


def test_i3d_prefers_kinetics_and_reads_it_by_its_own_names(tmp_path, monkeypatch, flat):
    save_as_official(flat, tmp_path, "i3d_resnet50", monkeypatch)
    torch.manual_seed(1)
    theirs = I3DResNet50(400, 8, in_channels=3)
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save({"model_state": theirs.state_dict()}, cache / "I3D_8x8_R50.pyth")
    network = I3DResNet50(5, 4)
    description = load_initial_weights(network, "imagenet")
    digits = file_sha256(cache / "I3D_8x8_R50.pyth")[:8]
    assert description == f"from I3D_8x8_R50-{digits}.pyth (Kinetics)"
    own, expected = network.state_dict(), theirs.state_dict()
    name = "blocks.4.res_blocks.2.branch2.conv_a.weight"
    torch.testing.assert_close(own[name], expected[name])
    stem = "blocks.0.conv.weight"
    torch.testing.assert_close(own[stem], expected[stem].sum(1, keepdim=True))
    load_initial_weights(I3DResNet50(5, 4), f"I3D_8x8_R50-{digits}")  # by name, as a run's spec asks for it


def test_each_backbone_has_a_variable_of_its_own(tmp_path, monkeypatch, imagenet_like):
    monkeypatch.setenv("LUSBIO_WEIGHTS", str(imagenet_like))
    assert find_initial_weights("imagenet", "i3d_resnet50").path is None
    monkeypatch.setenv("LUSBIO_WEIGHTS_I3D", str(imagenet_like))
    with pytest.raises(LusbioError, match=f"{imagenet_like.name} does not fit the network"):
        load_initial_weights(I3DResNet50(5, 4), "imagenet")
    monkeypatch.setenv("LUSBIO_WEIGHTS_I3D", str(tmp_path / "absent.pth"))
    with pytest.raises(LusbioError, match="absent.pth: no such file; LUSBIO_WEIGHTS_I3D"):
        load_initial_weights(I3DResNet50(5, 4), "imagenet")


def test_files_without_batch_counters_fit(tmp_path, monkeypatch, colour_network):
    state = {k: v for k, v in colour_network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    monkeypatch.setenv("LUSBIO_WEIGHTS", str(tmp_path / "old.pth"))
    load_initial_weights(TSMResNet18(38, 2), "imagenet")


def test_weights_can_be_asked_for_again_by_name(monkeypatch, imagenet_like):
    monkeypatch.setenv("LUSBIO_WEIGHTS", str(imagenet_like))
    load_initial_weights(TSMResNet18(5, 2), find_initial_weights("imagenet").name)
    monkeypatch.delenv("LUSBIO_WEIGHTS")
    with pytest.raises(LusbioError, match=f"'{imagenet_like.stem}' are not found here; from scratch: no ImageNet"):
        load_initial_weights(TSMResNet18(5, 2), imagenet_like.stem)
    assert load_initial_weights(TSMResNet18(5, 2), "scratch") == "from scratch: asked for"
    with pytest.raises(ValueError, match="initial weights 'kinetics' are not one of imagenet, scratch"):
        find_initial_weights("kinetics")
    with pytest.raises(ValueError, match="backbone 'vgg' is not one of tsm_resnet18, i3d_resnet50"):
        find_initial_weights("imagenet", "vgg")


def test_saved_weights_come_back_even_from_channels_last(tmp_path):
    torch.manual_seed(0)
    network = TSMResNet18(5, 3).to(memory_format=torch.channels_last)
    network(torch.rand(2, 3, 1, 32, 32))  # moves the batch statistics
    path = tmp_path / "new" / "weights.safetensors"
    save_weights(network, path)
    other = TSMResNet18(5, 3)
    load_weights(other, path)
    clips = torch.rand(2, 3, 1, 32, 32)
    torch.testing.assert_close(other.eval()(clips), network.eval()(clips), rtol=1e-4, atol=1e-5)
    assert other.state_dict().keys() == load_file(path).keys()
    save_weights(other, tmp_path / "again.safetensors")
    assert file_sha256(path) == file_sha256(tmp_path / "again.safetensors")
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_weights_of_another_network_are_refused_whole(tmp_path):
    save_weights(TSMResNet18(5, 3), tmp_path / "five.safetensors")
    network = TSMResNet18(7, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(LusbioError, match=r"2 problems: fc.weight has shape \(5, 512\), expected \(7, 512\)"):
        load_weights(network, tmp_path / "five.safetensors")
    torch.testing.assert_close(network.state_dict(), before)
    state = network.state_dict()
    state["extra"] = state.pop("fc.bias")
    save_file(state, tmp_path / "renamed.safetensors")
    with pytest.raises(LusbioError, match="fc.bias is missing; extra is not part of the network"):
        load_weights(network, tmp_path / "renamed.safetensors")


def test_files_that_hold_no_weights_are_refused(tmp_path):
    for name in ("text.safetensors", "text.pth"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(LusbioError, match=rf"{name} \(sha256 2cf24dba...\) does not hold weights"):
            read_weights(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(LusbioError, match="list.pth holds a list, expected tensors"):
        read_weights(tmp_path / "list.pth")
    torch.save({"a": threading.Thread}, tmp_path / "code.pth")
    with pytest.raises(LusbioError, match="code.pth .* does not hold weights"):
        read_weights(tmp_path / "code.pth")
    with pytest.raises(LusbioError, match="absent.pth: no such file"):
        read_weights(tmp_path / "absent.pth")
