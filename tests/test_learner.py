"""The score of health, and the loss that compares patients."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TINY, make_small_cohort, silent

from lusbio.errors import LusbioError
from lusbio.network import learner
from lusbio.network.learner import PairSampler, assemble_score, learner_loss, pair_loss, train_on_pairs
from lusbio.network.weights import read_weights
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study


def draw(n: int = 12, seed: int = 0, patients: int = 5) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    predicted, health = torch.randn(2, n, generator=rng)
    return [predicted, torch.rand(n, 6, generator=rng), health, torch.randint(0, patients, (n,), generator=rng)]


def loop_loss(predicted, features, health, patients, contrast, weighted, margin=1.0) -> float:
    """The same, pair by pair."""
    predicted, features, health = (values.double().numpy() for values in (predicted, features, health))
    error = np.mean([(p - h) ** 2 for p, h in zip(predicted, health, strict=True)])
    total = weights = 0.0
    for i in range(len(health)):
        for j in range(i):
            if patients[i] == patients[j]:
                continue
            u, v = features[i], features[j]
            distance = 1 - u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
            g = abs(health[i] - health[j])
            w = (g if g >= 1 else 1 - g) if weighted else 1.0
            total += w * (max(0, margin - distance) ** 2 if g >= 1 else distance**2)
            weights += w
    return error + contrast * total / weights if weights else error


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_equals_a_double_loop(weighted, seed):
    batch = draw(seed=seed)
    found = learner_loss(*batch, contrast=0.7, weighted=weighted).item()
    assert found == pytest.approx(loop_loss(*batch, 0.7, weighted), rel=1e-5)


def test_without_the_contrastive_part_it_is_the_squared_error_bit_for_bit():
    batch = draw()
    assert torch.equal(learner_loss(*batch, contrast=0.0), torch.nn.functional.mse_loss(batch[0], batch[2]))


def test_scans_of_one_patient_are_not_compared():
    predicted, features, health, _ = draw()
    one_more = torch.cat([torch.zeros(11, dtype=torch.int64), torch.ones(1, dtype=torch.int64)])
    alone = learner_loss(predicted.requires_grad_(), features.requires_grad_(), health, torch.zeros(12))
    assert torch.autograd.grad(alone, features, materialize_grads=True)[0].abs().sum() == 0
    pairs = learner_loss(predicted, features, health, one_more) - ((predicted - health) ** 2).mean()
    by_pair = [learner_loss(*(v[[k, 11]] for v in (predicted, features, health, one_more))) for k in range(11)]
    errors = [((predicted - health)[[k, 11]] ** 2).mean() for k in range(11)]
    expected = sum(one - error for one, error in zip(by_pair, errors, strict=True)) / 11
    torch.testing.assert_close(pairs, expected)


def test_a_batch_of_one_patient_is_squared_error_and_no_nan():
    predicted, features, health, _ = draw()
    found = learner_loss(predicted, features, health, torch.zeros(12), weighted=True)
    assert found == torch.nn.functional.mse_loss(predicted, health)


def test_features_of_nothing_and_equal_scores_give_a_number():
    predicted, features, _, patients = draw()
    for health in (torch.zeros(12), torch.arange(12.0)):
        assert learner_loss(predicted, 0 * features, health, patients, weighted=True).isfinite()
    far = learner_loss(predicted, features, torch.arange(12.0) % 2, torch.arange(12), weighted=True)
    assert far.isfinite()


# --- trained ---


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_small_cohort(tmp_path_factory.mktemp("cohort"))


def study_of(cohort, profile=TINY, **columns):
    changed = replace(cohort, table=cohort.table.assign(**columns))
    return as_study(prepare_cohort(changed, profile, protocol="cross"))


def train(study, task="sf_value_weighted"):
    specs = study.specs(task, outputs=("score",), initial_weights="scratch", seed=0)[:1]
    return study.train(specs, say=silent, assemble=assemble_score)[0]


def test_a_run_keeps_a_score_and_features_of_every_video(cohort):
    study = study_of(cohort)
    run = train(study)
    assert run.probabilities.shape == (40, 1) and run.features.shape == (40, 128)
    assert run.folder.name.startswith("sf_value_weighted-fold0-") and run.info["trained_on"] == 24


def test_scores_are_in_the_unit_of_the_column_and_learn_brightness(cohort):
    profile = replace(TINY, training=replace(TINY.training, epochs=8, clips_per_epoch=64, batch_size=16))
    study = study_of(cohort, profile)
    run = train(study, "sf_value_mse")
    truth, test = study.table["sf_value"].to_numpy(), run.splits == "test"
    assert np.corrcoef(run.probabilities[test, 0], truth[test])[0, 1] > 0.5
    assert 200 < run.probabilities[test].mean() < 500


def test_the_three_losses_are_three_networks_and_two_trainings_are_one(cohort, monkeypatch):
    study = study_of(cohort)
    weights = {m: read_weights(train(study, f"sf_value_{m}").folder / "weights.safetensors") for m in learner.METHODS}
    names = list(weights["mse"])
    assert any(not torch.equal(weights["mse"][k], weights["contrastive"][k]) for k in names)
    assert any(not torch.equal(weights["contrastive"][k], weights["weighted"][k]) for k in names)
    monkeypatch.setitem(learner.METHODS, "again", learner.METHODS["mse"])
    again = read_weights(train(study, "sf_value_again").folder / "weights.safetensors")
    assert all(torch.equal(weights["mse"][k], again[k]) for k in names)


def test_videos_without_a_value_are_not_learnt_from(cohort):
    values = cohort.table["sf_value"].where(cohort.table["patient_id"] != "p0")
    study = study_of(cohort, sf_value=values)
    split = study.splits(0)[study.table["patient_id"] == "p0"].iloc[0]
    run = train(study)
    assert run.info["trained_on" if split == "train" else "validated_on"] < (24 if split == "train" else 8)
    assert np.isfinite(run.probabilities).all()


@pytest.mark.parametrize("values", [450.0, np.nan])
def test_a_constant_score_teaches_nothing(cohort, values):
    study = study_of(cohort, sf_value=pd.Series(values, cohort.table.index))
    with pytest.raises(LusbioError, match="column 'sf_value': [01] different values in training and"):
        train(study)


# --- from pairs ---


def test_three_classes_share_the_probability_and_swapped_exams_swap_them():
    for moved in (-40.0, -1.3, 0.0, 0.4, 25.0):
        predicted = torch.tensor([2.0, 2.0 + moved], dtype=torch.float64)
        worse, same, better = (
            pair_loss(predicted, torch.tensor([0, change])).neg().exp().item() for change in (-2, 1, 3)
        )
        assert worse + same + better == pytest.approx(1) and same > 0
        assert better == pytest.approx(1 / (1 + np.exp(1 - moved)))
        assert pair_loss(predicted.flip(0), torch.tensor([3, 0])).neg().exp().item() == pytest.approx(better)
    two = pair_loss(torch.tensor([0.0, 3, 1, 0]), torch.tensor([0.0, 2, 5, 5]))
    ones = [
        pair_loss(torch.tensor([0.0, 3]), torch.tensor([0.0, 2])),
        pair_loss(torch.tensor([1.0, 0]), torch.zeros(2)),
    ]
    assert two.item() == pytest.approx(float(sum(ones)) / 2)


def test_pairs_come_two_by_two_and_every_pair_before_any_comes_twice():
    later, frames = {0: 1, 4: 5, 2: 3}, np.array([40, 8, 12, 40, 4, 40])
    sampler = PairSampler(later, n_frames=frames, clip_frames=4, clips_per_epoch=3, seed=0)
    items = list(sampler)
    assert len(items) == len(sampler) == 6
    assert {a: b for (a, _), (b, _) in zip(items[::2], items[1::2], strict=True)} == later
    assert all(start < max(1, frames[row] // 4) for row, start in items)
    assert list(sampler) == items


def pairs_of(study) -> tuple[tuple[int, int], ...]:
    """First and second video of each patient, who has two."""
    return tuple((k, k + 1) for k in range(0, len(study.table), 2))


def train_pairs(study, pairs, threshold=30.0):
    specs = study.specs("sf_value_pairs", outputs=("score",), initial_weights="scratch", seed=0)[:1]
    return study.train(specs, say=silent, assemble=train_on_pairs(pairs, threshold))[0]


def test_change_is_learnt_from_pairs_alone(cohort):
    training = replace(TINY.training, epochs=8, clips_per_epoch=64, batch_size=16)
    study = study_of(cohort, replace(TINY, training=training))
    bright = np.array([video.load().mean() for video in study.videos])
    study = study_of(cohort, replace(TINY, training=training), sf_value=200 + 3 * bright)
    run = train_pairs(study, pairs_of(study))
    earlier, later = np.array(pairs_of(study)).T
    test = run.splits[earlier] == "test"
    said, truth = (values[later] - values[earlier] for values in (run.probabilities[:, 0], 200 + 3 * bright))
    assert np.corrcoef(said[test], truth[test])[0, 1] > 0.5
    assert run.info["trained_on"] == 24 and run.features.shape == (40, 128)


def test_a_fold_without_pairs_is_named(cohort):
    study = study_of(cohort)
    only_training = tuple(pair for pair in pairs_of(study) if study.splits(0)[pair[0]] == "train")
    with pytest.raises(LusbioError, match="sf_value_pairs, fold 0: 12 pairs in training and 0 in validation"):
        train_pairs(study, only_training)
