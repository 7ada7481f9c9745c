"""Learning labels of pixels: the loss, who is labelled, and what a training leaves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import SMALL, TINY, silent

from lusbio.errors import LusbioError
from lusbio.network.pixels import PixelDataset, PixelModule, balance_classes, describe_maps, label_frames, pixel_loss
from lusbio.network.unet import UNet, unet_classifier
from lusbio.network.weights import read_weights
from lusbio.paper import dense_labels
from lusbio.profiles import PROFILES
from lusbio.runs.masked import pretrain_masked
from lusbio.runs.pixel_training import (
    JITTERED,
    LABELS,
    choose_labelled,
    jitter_edges,
    name_task,
    predict_maps,
    read_task,
    train_on_pixels,
)
from lusbio.runs.plan import start_from
from lusbio.runs.study import open_study
from lusbio.vocabulary import SEVERITY, SPARSE_OF_DENSE, Kind

SIZES = {"frames": 1, "width": 4, "epochs": 2, "clips_per_epoch": 8, "batch_size": 4, "validation_clips": 1}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("lusbio.profiles").profiles.PROFILES, "tiny", replace(TINY, patients=24))
        return open_study("tiny", "synthetic")


def train(study, labels="dense", patients=0, **changes):
    settings = replace(SMALL, **SIZES)
    named = {"outputs": LABELS[labels], "backbone": "unet", "initial_weights": "scratch", "training": settings}
    specs = study.specs(name_task(labels, patients), **named | {"seed": 0} | changes)[:1]
    return study.train(specs, say=silent, assemble=train_on_pixels())[0]


def test_the_loss_is_that_of_plain_loops():
    torch.manual_seed(0)
    logits, maps, weights = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4)), torch.tensor([0.5, 1.0, 2.0])
    p, total, weight = logits.softmax(1), 0.0, 0.0
    both, either = [0.0] * 3, [0.0] * 3
    for b in range(2):
        for y in range(4):
            for x in range(4):
                k = int(maps[b, y, x])
                total -= weights[k] * p[b, k, y, x].log()
                weight += weights[k]
                for c in range(3):
                    both[c] += p[b, c, y, x] * (c == k)
                    either[c] += p[b, c, y, x] + (c == k)
    dice = sum(1 - (2 * both[c] + 1) / (either[c] + 1) for c in (1, 2))
    torch.testing.assert_close(pixel_loss(logits, maps, weights, 2), total / weight + dice / 2)


def test_parts_of_a_class_weigh_as_the_whole_and_rare_ones_more():
    maps = np.repeat(np.arange(7), [500, 5, 80, 10, 10, 200, 195]).astype(np.uint8)
    weights = balance_classes(maps, SPARSE_OF_DENSE)
    assert weights[0] == weights[5] == weights[6] and weights[3] == weights[4]
    assert weights[1] > weights[3] > weights[2] > weights[0]
    assert weights[[0, 1, 2, 3]].mean() == pytest.approx(1)
    sparse = balance_classes(np.asarray(SPARSE_OF_DENSE)[maps], (0, 1, 2, 3))
    torch.testing.assert_close(weights[[0, 1, 2, 3]], sparse)
    assert torch.isfinite(balance_classes(np.zeros(10, np.uint8), (0, 1, 2, 3))).all()


@pytest.mark.slow
def test_one_frame_is_learnt_in_sixty_steps():
    torch.manual_seed(0)
    maps = np.zeros((1, 1, 32, 32), np.uint8)
    maps[..., 8:11, :], maps[..., 11:, 12:16] = 3, 2
    frames = (40 + 60 * maps + np.random.default_rng(0).integers(0, 20, maps.shape)).astype(np.uint8)
    settings = replace(SMALL, epochs=1, learning_rate=1e-2)
    module = PixelModule(UNet(4, 8), balance_classes(maps, (0, 1, 2, 3)), (0, 1, 2, 3), settings=settings)
    batch = PixelDataset(frames, maps).__getitems__([(0, 0)] * 4)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for step in range(60):
        optimizer.zero_grad()
        module.compute_loss(batch, torch.Generator().manual_seed(step)).backward()
        optimizer.step()
    loss, counts = module.eval().validate(batch, torch.Generator())
    true, claimed, both = counts
    assert (2 * both / (true + claimed))[2:].min() > 0.9


def test_a_flip_turns_frame_and_map_together():
    maps = np.zeros((1, 1, 16, 16), np.uint8)
    maps[..., :8] = 1
    batch = PixelDataset(maps * 200, maps).__getitems__([(0, 0)] * 8)
    seen = []

    class Listening(UNet):
        def forward(self, frames):
            seen.append(frames)
            return torch.stack([frames[:, 0] * 0, frames[:, 0] * 100 - 10], 1)  # says 1 where it is bright

    module = PixelModule(Listening(2, 4), torch.ones(2), (0, 1), settings=SMALL)
    loss = module.compute_loss(batch, torch.Generator().manual_seed(1))
    sides = seen[0][:, 0, 0, 0] > 0.5
    assert sides.any() and not sides.all() and float(loss) < 0.01
    assert seen[0].max() <= 1 and len(seen[0].amax((1, 2, 3)).unique()) > 1


def test_shares_are_mean_and_most_over_frames():
    maps = np.zeros((1, 2, 4, 4), np.uint8)
    maps[0, 1, :2] = 2
    np.testing.assert_allclose(describe_maps(maps, 3), [[0.75, 0, 0.25, 1, 0, 0.5]])


def test_a_training_keeps_shares_of_all_videos_and_uses_no_test_patient(study):
    run = train(study)
    assert run.folder.name.startswith("dense_pixels-fold0-") and run.spec.outputs == LABELS["dense"]
    assert run.probabilities.shape == (len(study.videos), 7) and run.features.shape == (len(study.videos), 14)
    np.testing.assert_allclose(run.probabilities.sum(1), 1, atol=1e-6)
    module, data, rows = train_on_pixels()(run.spec, study)
    tested = np.flatnonzero(study.splits(0) == "test")
    assert not np.isin(tested, [*data.sampler.rows, *data.validation_rows]).any() and len(tested)
    frames = data.dataset.videos[3].load()[None]
    with_run = predict_maps(run, frames)
    np.testing.assert_allclose(describe_maps(with_run, 7)[0], run.features[3], atol=1e-6)
    assert (label_frames(UNet(7, 4), frames, torch.device("cpu")) < 7).all()


def test_dense_and_sparse_see_the_same_frames_in_the_same_order(study):
    spec = train(study).spec
    specs = [replace(spec, task=name_task(labels, 4), outputs=LABELS[labels]) for labels in ("dense", "sparse")]
    data = [train_on_pixels()(one, study)[1] for one in specs]
    first = [next(iter(one.train_dataloader())) for one in data]
    assert torch.equal(first[0]["clips"], first[1]["clips"])
    assert torch.equal(torch.tensor(SPARSE_OF_DENSE)[first[0]["maps"]], first[1]["maps"])


def test_edges_are_a_pixel_off_and_the_inside_stays():
    maps = np.zeros((2, 16, 16), np.uint8)
    maps[:, 4:12, 4:12] = 3
    moved = jitter_edges(maps, np.random.default_rng(0))
    assert (moved[:, 5:11, 5:11] == 3).all() and not moved[:, :3].any() and not moved[:, 13:].any()
    assert 0.2 < (moved != maps)[:, 4, 4:12].mean() < 0.8 and set(np.unique(moved)) == {0, 3}
    assert (jitter_edges(maps, np.random.default_rng(0)) == moved).all()


def test_jittered_labels_are_learnt_and_nothing_else_is_different(study):
    spec = train(study).spec
    exact, moved = (
        train_on_pixels()(replace(spec, task=name_task(labels, 0)), study)[1] for labels in ("dense", JITTERED)
    )
    first, second = (next(iter(data.train_dataloader())) for data in (exact, moved))
    assert torch.equal(first["clips"], second["clips"])
    assert 0 < (first["maps"] != second["maps"]).float().mean() < 0.3


@pytest.mark.slow
def test_shuffled_maps_teach_nothing(study, monkeypatch):
    import lusbio.runs.pixel_training as of_pixels

    sizes = {"width": 8, "epochs": 8, "clips_per_epoch": 240, "learning_rate": 3e-3}
    read, longer = of_pixels.read_label_maps, replace(SMALL, **SIZES | sizes)

    def shuffled(*given):
        known = read(*given)
        return known._replace(maps=known.maps[np.random.default_rng(0).permutation(len(known.maps))][:, ::-1, :, ::-1])

    right = train(study, "sparse", training=longer).info["val_accuracy"]
    monkeypatch.setattr(of_pixels, "read_label_maps", shuffled)
    assert train(study, "sparse", training=longer, seed=1).info["val_accuracy"] < right - 0.1


def test_a_transformer_labels_pixels_and_starts_from_a_pretrained_one(study):
    settings = replace(SMALL, **SIZES | {"learning_rate": 1e-12})
    named = {"backbone": "vit", "initial_weights": "scratch", "training": settings, "seed": 0}
    masked = study.specs("masked", outputs=(), **named | {"training": replace(settings, clips_per_epoch=8)})[:1]
    (first,) = study.train(masked, say=silent, assemble=pretrain_masked("vit_micro", 8, (0.05, 0.05)))
    specs = start_from([first.spec], study.specs(name_task("sparse", 0), outputs=LABELS["sparse"], **named)[:1])
    (run,) = study.train(specs, say=silent, assemble=train_on_pixels("vit_micro"))
    given, found = (read_weights(one.folder / "weights.safetensors") for one in (first, run))
    name = "encoder.blocks.0.mlp.0.weight"
    torch.testing.assert_close(found[name], given[name], atol=1e-8, rtol=0)
    frames = study.videos[0].load()[None, :2]
    assert predict_maps(run, frames, "vit_micro").shape == frames.shape


@pytest.mark.parametrize(("n_classes", "name"), [(0, "encoder.stages.4.0.weight"), (7, "classes.weight")])
def test_a_classifier_starts_from_what_it_takes_over(study, n_classes, name):
    first = train(study)
    settings = replace(SMALL, **SIZES | {"frames": 2}, learning_rate=1e-12)
    named = {"backbone": "unet", "initial_weights": "scratch", "training": settings, "seed": 0}
    specs = start_from([first.spec], study.specs(SEVERITY, **named)[:1])
    (run,) = study.train(specs, say=silent, network=unet_classifier(4, n_classes))
    given, found = (read_weights(one.folder / "weights.safetensors") for one in (first, run))
    torch.testing.assert_close(found[name], given[name], atol=1e-8, rtol=0)
    assert run.spec.words == "lung_severity fold 0, from dense_pixels"


@pytest.mark.parametrize(("head", "parts"), [("centre", 0), ("maps", 14)])
def test_classifiers_of_the_companion_take_over_what_their_head_sees(study, head, parts):
    first, sizes = train(study), dense_labels.find_sizes(replace(study, profile=PROFILES["smoke"]))
    classes = replace(SMALL, **SIZES | {"frames": 2})
    sizes = replace(sizes, head=head, classes=classes, few_shares=(), shares=(1.0,))
    rows = dense_labels.train_classifiers(study, sizes, {("dense", 0): [first]}, SEVERITY)
    assert set(rows) == {(Kind.END_TO_END, 0, 1.0), (Kind.FROM_DENSE, 0, 1.0)}
    for row in rows.values():
        assert row.runs[0].features.shape[1] == 64 + parts
    taken = rows[Kind.FROM_DENSE, 0, 1.0].runs[0].info["initial_weights"]
    assert taken.startswith(f"from the network of {first.folder.name}")


def test_what_is_labelled_can_be_read_off_the_name():
    for way in (("dense", 0), ("sparse", 4)):
        assert read_task(name_task(*way)) == way


def make_maps(study, rows):
    """Every patient shows every class, but for what a test takes away."""
    maps = np.zeros((len(study.videos), 1, 4, 4), np.uint8)
    maps[rows] = np.arange(16, dtype=np.uint8).reshape(4, 4) % 7
    return maps


def test_few_patients_are_drawn_by_the_seed_and_show_every_class(study):
    rows = np.flatnonzero(study.splits(0) == "train")
    maps = make_maps(study, rows)
    drawn = [choose_labelled(study, rows, maps, 4, seed) for seed in (0, 0, 1, 2, 3)]
    patients = [set(study.table["patient_id"][found]) for found in drawn]
    assert all(len(found) == 4 for found in patients) and patients[0] == patients[1]
    assert len(set(map(frozenset, patients))) > 1
    assert (choose_labelled(study, rows, maps, 0, 0) == rows).all()
    names, counts = np.unique(study.table["patient_id"][rows], return_counts=True)
    assert (counts >= 4).sum() < 4 or all(counts[names == name] >= 4 for name in patients[0])


def test_a_class_that_no_map_shows_is_named(study):
    rows = np.flatnonzero(study.splits(0) == "train")
    maps = make_maps(study, rows)
    maps[maps == 4] = 0
    for patients in (0, 4):
        with pytest.raises(LusbioError, match="no label map of the training patients shows pleura, unhealthy"):
            choose_labelled(study, rows, maps, patients, 0)
