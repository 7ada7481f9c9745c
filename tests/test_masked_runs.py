"""Pretraining without labels as a run, and what comes of it."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import THREE_EPOCHS, silent, small_study

from lusbio.errors import LusbioError
from lusbio.network import masking
from lusbio.network.vit import vit_classifier
from lusbio.network.weights import read_weights
from lusbio.runs.masked import choose_unlabelled, measure_pixels, pretrain_masked
from lusbio.runs.mixed_cohort import keep_real, mix_cohorts
from lusbio.runs.plan import start_from
from lusbio.runs.spec import Run
from lusbio.runs.study import Study
from lusbio.videos import DecodedVideo
from lusbio.vocabulary import SEVERITY

FRAMES = replace(THREE_EPOCHS, training=replace(THREE_EPOCHS.training, frames=1, batch_size=4))
OF_VIT = {"backbone": "vit", "initial_weights": "scratch", "seed": 0}
ASSEMBLE = pretrain_masked("vit_micro", 8, (0.05, 0.05))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"), profile=FRAMES)


def pretrain(study: Study, assemble=ASSEMBLE, **settings) -> Run:
    training = replace(study.profile.training, **settings)
    specs = study.specs("masked", outputs=(), training=training, **OF_VIT)[:1]
    return study.train(specs, say=silent, assemble=assemble)[0]


def test_only_training_videos_are_learnt_from_whatever_is_known_of_them(study):
    """Neither frames nor the mean and spread of pixels come from those who are validated or tested."""
    unlabelled = study.table.assign(**{SEVERITY: study.table[SEVERITY].where(study.splits(0) != "train")})
    unlabelled = replace(study, cohort=replace(study.cohort, table=unlabelled))
    spec = unlabelled.specs("masked", outputs=(), **OF_VIT)[0]
    module, data, rows = ASSEMBLE(spec, unlabelled)
    splits = study.splits(0).to_numpy()
    seen = {row for epoch in range(9) for row, _ in [data.sampler.set_epoch(epoch), *data.sampler][1:]}
    assert seen == set(np.flatnonzero(splits == "train")) == set(rows["train"])
    assert set(splits[data.validation_rows]) == {"val"}
    pixels = np.stack([study.videos[row].load() for row in rows["train"]]) / 255
    assert module.network.pixels.mean.item() == pytest.approx(pixels.mean(), rel=1e-5)
    assert module.network.pixels.sd.item() == pytest.approx(pixels.std(), rel=1e-5)


def test_the_score_is_the_share_of_the_mean_pixels_error_that_is_saved(study):
    module, data, _ = ASSEMBLE(study.specs("masked", outputs=(), **OF_VIT)[0], study)
    loss, score = module.judge(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]), torch.tensor([100.0, 300.0]))
    assert loss.item() == pytest.approx(2.5) and score.item() == pytest.approx(1 - 2.5 / 3.5)
    batch = next(iter(data.val_dataloader()))
    missed, by_mean, _ = module.validate(batch, torch.Generator().manual_seed(0))
    module.network.forward = torch.zeros_like
    silent_missed, again, _ = module.validate(batch, torch.Generator().manual_seed(0))
    assert silent_missed == again == by_mean and missed != by_mean


def test_it_learns_to_fill_in_and_hands_on_features(study):
    run = pretrain(study, epochs=8, clips_per_epoch=64, batch_size=8, learning_rate=3e-3)
    log = pd.read_csv(run.folder / "log.csv")
    assert log["val_accuracy"].iloc[-1] > 0.05 > log["val_accuracy"].iloc[0]
    assert run.features.shape == (40, 64) and run.probabilities.shape == (40, 0) and run.features.std(axis=0).min() > 0


def test_the_same_seed_gives_the_same_bytes(study, tmp_path, monkeypatch):
    first = pretrain(study)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    second = pretrain(study)
    assert first.folder.name == second.folder.name and first.folder != second.folder
    for name in ("weights.safetensors", "features.npy", "log.csv"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    assert pretrain(study, pretrain_masked("vit_micro", 1, (0.05, 0.05))).folder.name != first.folder.name


def test_with_a_rate_of_0_the_network_stays_as_it_was_made(study):
    run = pretrain(study, learning_rate=0.0, epochs=1)
    torch.manual_seed(run.spec.entropy)
    made = masking.make_reconstructor("vit_micro", run.spec.training).state_dict()
    kept = read_weights(run.folder / "weights.safetensors")
    assert {name for name in made if not torch.equal(made[name], kept[name])} == {
        "encoder.pixels.mean",
        "encoder.pixels.sd",
    }


def test_a_task_starts_from_the_whole_encoder_and_from_what_pixels_are_like(study):
    first = pretrain(study)
    (spec,) = start_from([first.spec], study.specs(SEVERITY, **OF_VIT)[:1])
    still = replace(spec, training=replace(spec.training, learning_rate=1e-12))
    (run,) = study.train([still], say=silent, network=vit_classifier("vit_micro", 32))
    found, given = (read_weights(one.folder / "weights.safetensors") for one in (run, first))
    shared = [name for name in found if name.startswith("encoder")]
    assert set(found) - set(shared) == {"fc.weight", "fc.bias"} and "encoder.pixels.mean" in shared
    assert all(torch.allclose(found[name], given[name], atol=1e-9) for name in shared)
    np.testing.assert_allclose(run.features, first.features, atol=1e-4)
    assert run.spec.words == "lung_severity fold 0, from masked"


def test_the_convolutional_network_is_pretrained_by_the_same_masking(study):
    run = pretrain(study, pretrain_masked("tsm_resnet18", 8, (0.05, 0.05)), frames=2)
    given = read_weights(run.folder / "weights.safetensors")
    assert {"layer4.1.conv2.weight", "bn1.running_mean", "head.0.weight"} <= given.keys()
    assert run.features.shape == (40, 8 * run.spec.training.width)


def test_real_patients_are_joined_by_simulated_ones_and_keep_their_rows(study, tmp_path):
    real = small_study(tmp_path, profile=FRAMES, simulated=False)
    real = replace(real, cohort=replace(real.cohort, name="real"))
    mixed = mix_cohorts(real, study)
    spec = mixed.specs("masked", outputs=(), **OF_VIT)[0]
    rows = choose_unlabelled(spec, mixed)
    n_real, splits = len(real.table), real.splits(0).to_numpy()
    assert set(splits[rows["train"][rows["train"] < n_real]]) == {"train"} and set(splits[rows["val"]]) == {"val"}
    assert (rows["train"] >= n_real).sum() >= (rows["train"] < n_real).sum() - 2
    (run,) = mixed.train([spec], say=silent, assemble=ASSEMBLE)
    kept = keep_real(run, mixed)
    assert kept.features.shape == (n_real, 64) and (kept.splits == splits).all()
    (then,) = start_from([kept.spec], real.specs(SEVERITY, **OF_VIT)[:1])
    (tuned,) = real.train([then], say=silent, network=vit_classifier("vit_micro", 32))
    assert tuned.spec.starts_from == run.folder.name


# --- the optimiser ---


def make_module(**changes) -> masking.MaskedModule:
    settings = replace(FRAMES.training, epochs=800, learning_rate=5e-4, schedule="cosine", **changes)
    network = masking.make_reconstructor("vit_micro", settings)
    return masking.MaskedModule(network, align=8, decay=(0.04, 0.4), settings=settings, steps_per_epoch=1)


def test_the_rate_warms_up_for_10_of_800_epochs_and_ends_at_a_millionth():
    module = make_module()
    optimizer, schedule = (found := module.configure_optimizers())["optimizer"], found["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(801):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:11] == pytest.approx([5e-4 * k / 10 for k in range(11)]) and np.argmax(rates) == 10
    middle = 1e-6 + (5e-4 - 1e-6) * (1 + math.cos(math.pi * (405 - 10) / 790)) / 2
    assert rates[405] == pytest.approx(middle) and rates[800] == pytest.approx(1e-6)


def test_decay_rises_and_spares_biases_and_vectors(monkeypatch):
    module = make_module()
    optimizer = module.configure_optimizers()["optimizer"]
    matrices, vectors = (group["params"] for group in optimizer.param_groups)
    assert {p.ndim for p in vectors} == {1} and min(p.ndim for p in matrices) == 2
    assert sum(map(len, (matrices, vectors))) == len(list(module.parameters()))
    for step, expected in ((0, 0.04), (400, 0.22), (800, 0.4)):
        monkeypatch.setattr(masking.MaskedModule, "global_step", step)
        module.on_before_optimizer_step(optimizer)
        assert [g["weight_decay"] for g in optimizer.param_groups] == pytest.approx([expected, 0.0])


def test_gradients_are_cut_tensor_by_tensor(monkeypatch):
    module = make_module()
    monkeypatch.setattr(masking.MaskedModule, "global_step", 0)
    for k, parameter in enumerate(module.parameters()):
        parameter.grad = torch.full_like(parameter, 10.0 if k % 2 else 1e-4)
    before = [parameter.grad.clone() for parameter in module.parameters()]
    module.on_before_optimizer_step(module.configure_optimizers()["optimizer"])
    for parameter, grad in zip(module.parameters(), before, strict=True):
        expected = grad * min(1, 3 / grad.norm())
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


# --- what cannot be learnt from ---


def test_fewer_videos_than_a_batch_are_refused_with_both_numbers(study):
    spec = study.specs("masked", outputs=(), training=replace(FRAMES.training, batch_size=64), **OF_VIT)[0]
    found = (study.splits(0) == "train").sum()
    with pytest.raises(LusbioError, match=rf"cohort 'small', fold 0: {found} train videos, expected at least 64"):
        ASSEMBLE(spec, study)
    lonely = replace(study)
    object.__setattr__(lonely, "splits", lambda fold: pd.Series(["train"] * 39 + ["val"]))
    with pytest.raises(LusbioError, match="1 val videos, expected at least 2"):
        choose_unlabelled(study.specs("masked", outputs=(), **OF_VIT)[0], lonely)


def test_no_batch_is_left_with_one_image(study):
    several = replace(study)
    object.__setattr__(several, "splits", lambda fold: pd.Series(["train"] * 7 + ["val"] * 33))
    spec = study.specs("masked", outputs=(), training=replace(FRAMES.training, clips_per_epoch=None), **OF_VIT)[0]
    assert len(choose_unlabelled(spec, several)["val"]) == 32
    _, data, _ = ASSEMBLE(spec, several)
    assert [len(batch["rows"]) for batch in data.train_dataloader()] == [4]


def test_black_videos_have_a_spread_all_the_same():
    assert measure_pixels([DecodedVideo(np.zeros((3, 8, 8), np.uint8))]) == (0.0, 1 / 255)
