import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import TINY, small_study

from lusbio.network import training
from lusbio.network.clips import EVALUATION_BATCH, ClipDataModule, ClipDataset, evaluation_loader
from lusbio.network.i3d import I3DResNet50
from lusbio.network.tsm import TSMResNet18
from lusbio.runs import assembly
from lusbio.runs import gpu as resident
from lusbio.runs.gpu import ResidentClips, compile_network, hold_frames, prepare_gpu
from lusbio.runs.spec import Own
from lusbio.videos import DecodedVideo
from lusbio.vocabulary import SEVERITY

CPU = torch.device("cpu")


def make_data(batch_size: int = 4) -> ClipDataModule:
    """Videos of 2 to 11 random frames, some of them shorter than a clip."""
    rng = np.random.default_rng(0)
    videos = [DecodedVideo(rng.integers(0, 256, (n, 8, 8)).astype(np.uint8)) for n in range(2, 12)]
    targets = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
    return ClipDataModule(
        ClipDataset(videos, targets, clip_frames=3),
        np.array([0, 1, 2, 2, 5, 6, 7, 9]),
        np.array([3, 4, 8]),
        clips_per_epoch=None,
        batch_size=batch_size,
        validation_clips=2,
        seed=0,
    )


def check_same_batches(found, expected) -> int:
    """Raise unless two loaders give the same batches; returns how many."""
    pairs = list(zip(found, expected, strict=True))
    for one, other in pairs:
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name
    return len(pairs)


def test_resident_batches_are_those_of_the_cache():
    cached, held = make_data(batch_size=3), make_data(batch_size=3)
    assert "from the memory" in hold_frames(held, CPU, room=10**6) and isinstance(held.dataset, ResidentClips)
    for epoch in range(3):
        for data in (cached, held):
            data.sampler.set_epoch(epoch)
        assert check_same_batches(held.train_dataloader(), cached.train_dataloader()) == 3
    check_same_batches(held.val_dataloader(), cached.val_dataloader())
    loaders = [evaluation_loader(data.dataset, np.arange(10), 4) for data in (held, cached)]
    assert check_same_batches(*loaders) == -(-40 // EVALUATION_BATCH) and len(held.dataset) == 10


def test_frames_lie_one_after_the_other_in_one_tensor():
    data = make_data()
    held = ResidentClips(data.dataset, CPU)
    assert held.frames.dtype == torch.uint8
    assert held.frames.nbytes == sum(video.load().nbytes for video in data.dataset.videos)
    assert torch.equal(held.frames[2:5], torch.from_numpy(data.dataset.videos[1].frames))


def test_what_does_not_fit_stays_in_the_cache_and_that_is_said():
    data = make_data()
    before = data.dataset
    line = hold_frames(data, CPU, room=sum(video.load().nbytes for video in before.videos) - 1)
    assert line.startswith("clips from the cache: 10 videos") and data.dataset is before


def test_a_device_that_fills_up_meanwhile_leaves_the_cache(monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(resident, "ResidentClips", fail)
    data = make_data()
    before = data.dataset
    assert "the device is full" in hold_frames(data, CPU, room=10**6) and data.dataset is before


def test_on_a_cpu_nothing_changes():
    data = make_data()
    network, dataset = TSMResNet18(3, 3), data.dataset
    module = training.VideoModule(network, multilabel=True, settings=TINY.training, steps_per_epoch=1, seed=0)
    prepare_gpu(module, data, CPU)
    assert data.dataset is dataset and "forward" not in vars(network)


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that generates nothing: a list of the batches whose graphs it was given, by size."""
    sizes = []

    def take_graph(graph, inputs):
        sizes.append(next(x for x in inputs if x.ndim == 5).shape[0])
        return graph.forward

    yield sizes, take_graph
    torch.compiler.reset()


@pytest.mark.slow
def test_usual_batches_are_compiled_once_and_odd_ones_never(compiler):
    sizes, backend = compiler
    network = TSMResNet18(3, 2).to(memory_format=TSMResNet18.memory_format)
    compile_network(network, 4, backend=backend)
    for size in (4, 3, 4, EVALUATION_BATCH):
        network(torch.rand(size, 2, 1, 32, 32))
    assert sizes == [4]
    network.eval()
    with torch.inference_mode():
        for size in (EVALUATION_BATCH, 4, EVALUATION_BATCH):
            network(torch.rand(size, 2, 1, 32, 32))
    assert sizes == [4, EVALUATION_BATCH]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bf16"), [(TSMResNet18, False), (TSMResNet18, True), (I3DResNet50, False)])
def test_a_network_is_one_graph_and_computes_what_it_did(kind, bf16):
    plain = kind(3, 2).to(memory_format=kind.memory_format)
    network = copy.deepcopy(plain)
    failures = []
    compile_network(network, 2, backend="aot_eager", say=failures.append)
    clips = torch.rand(2, 2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for one in (plain, network):
        torch.manual_seed(0)  # dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = one(clips)
        logits.float().square().sum().backward()
        found.append((logits.detach(), [p.grad for p in one.parameters()], dict(one.named_buffers())))
    torch.compiler.reset()
    assert failures == []
    torch.testing.assert_close(found[1], found[0])
    assert list(network.state_dict()) == list(plain.state_dict())


def test_a_copy_computes_with_its_own_weights():
    network = TSMResNet18(3, 2)
    compile_network(network, 4, backend="eager")
    other = copy.deepcopy(network)
    torch.nn.init.zeros_(other.fc.weight)
    torch.nn.init.ones_(other.fc.bias)
    assert (other(torch.rand(1, 2, 1, 32, 32)) == 1).all()


@pytest.mark.slow
def test_where_the_compiler_fails_the_network_runs_and_that_is_said(compiler):
    def fail(graph, inputs):
        raise NotImplementedError("no such machine")

    said = []
    network = TSMResNet18(3, 2)
    compile_network(network, 1, backend=fail, say=said.append)
    for _ in range(2):
        assert network(torch.rand(1, 2, 1, 32, 32)).shape == (1, 3)
    assert len(said) == 1 and said[0].startswith("batches of 1 run uncompiled")


def train(study, folder, *, settle: bool):
    """Two epochs with batches of all sizes; predictions, features and the best epoch."""
    spec = study.specs(SEVERITY)[0]
    rows, targets, _ = assembly.choose_rows(spec, study)
    module, data, _ = assembly.assemble(spec, study, rows, targets, Own())
    said = []
    if settle:
        said.append(hold_frames(data, CPU, room=10**9))
        compile_network(module.network, data.batch_size, backend="aot_eager", say=said.append)
    with training.one_thread():
        best = training.fit(module, data, folder, device=CPU)
        return *assembly.predict_all(module, data, spec, CPU), best, said


@pytest.mark.slow
def test_a_training_on_the_way_of_the_gpu_gives_the_numbers_of_the_usual_one(tmp_path):
    settings = replace(TINY.training, epochs=2, clips_per_epoch=11, batch_size=4, validation_clips=4)
    study = small_study(tmp_path / "cohort", profile=replace(TINY, training=settings))
    usual = train(study, tmp_path / "usual", settle=False)
    settled = train(study, tmp_path / "settled", settle=True)
    torch.compiler.reset()
    assert len(settled[3]) == 1, settled[3]
    np.testing.assert_allclose(settled[0], usual[0], atol=1e-3)
    np.testing.assert_allclose(settled[1], usual[1], rtol=1e-2, atol=1e-2)
    assert settled[2]["kept_epoch"] == usual[2]["kept_epoch"]
