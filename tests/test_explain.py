import json
from dataclasses import replace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import TINY, make_small_cohort

from lusbio.experts.classifiers import fit_expert
from lusbio.network.tsm import TSMResNet18
from lusbio.report.figures import plot_heat
from lusbio.runs import study as studies
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study, find_or_train
from lusbio.runs.train import execute
from lusbio.scoring import explain
from lusbio.scoring.explain import choose_frames, compute_heat, describe_tree_path, pick_visible, pick_winners
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_NAMES, BIOMARKER_TASK, BIOMARKERS


def clips_with_squares(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise (n, 4, 64, 64); every second clip has a bright square in one frame: time, row, column of each."""
    rng = np.random.default_rng(seed)
    clips = rng.integers(0, 60, (n, 4, 64, 64)).astype(np.uint8)
    places = np.column_stack([rng.integers(0, 4, n), *rng.integers(0, 44, (2, n))])
    present = np.arange(n) % 2
    for clip, (time, top, left), square in zip(clips, places, present, strict=True):
        if square:
            clip[time, top : top + 20, left : left + 20] = 255
    return clips, places, present


@pytest.fixture(scope="module")
def finder():
    """A network that has learnt to tell clips with a square from those without."""
    torch.manual_seed(0)
    clips, _, present = clips_with_squares(32, seed=0)
    inputs, targets = torch.from_numpy(clips)[:, :, None].float() / 255, torch.from_numpy(present).float()
    network = TSMResNet18(3, 4, dropout=0.0).to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5  # there are only a few steps to learn the statistics in
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(4):
        for rows in torch.randperm(32).split(8):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(inputs[rows])[:, 1], targets[rows])
            loss.backward()
            optimizer.step()
    return network.eval()


def test_heat_lies_on_what_decides_in_the_frame_that_has_it(finder):
    clips, places, present = clips_with_squares(20, seed=1)
    for clip, (time, top, left) in zip(clips[present == 1], places[present == 1], strict=True):
        heat = compute_heat(finder, clip, 1)
        assert heat.shape == clip.shape and heat.dtype == np.float32
        assert heat.min() >= 0 and heat.max() == pytest.approx(1)
        hottest, y, x = np.unravel_index(heat.argmax(), heat.shape)
        assert hottest == time and -4 <= y - top < 24 and -4 <= x - left < 24  # half a cell of 8 pixels
        assert heat[time].sum() > 0.8 * heat.sum()


def test_heat_of_the_last_stage_is_what_the_equations_say():
    """Space is averaged and time pooled by its maximum, so the gradient can be written down."""
    torch.manual_seed(0)
    network = TSMResNet18(3, 4).eval()
    clip = np.random.default_rng(0).integers(0, 256, (4, 64, 64)).astype(np.uint8)
    with torch.no_grad():
        maps = network.feature_maps(torch.from_numpy(clip)[:, None].float() / 255)  # (T, 512, 2, 2)
        means = maps.mean((2, 3))
        decided = means == means.amax(0)
        weights = decided * network.fc.weight[1] / 4
        expected = (weights[:, :, None, None] * maps).sum(1).relu()
    heat = compute_heat(network, clip, 1, stage=4)
    corners = torch.from_numpy(heat)[:, [0, 0, -1, -1], [0, -1, 0, -1]].view(4, 2, 2)
    torch.testing.assert_close(corners, expected / expected.max(), rtol=1e-3, atol=1e-5)


def test_asking_for_heat_leaves_the_network_as_it_was(finder):
    clip = clips_with_squares(2, seed=2)[0][1]
    before = {name: value.clone() for name, value in finder.state_dict().items()}
    first = compute_heat(finder, clip, 1)
    np.testing.assert_array_equal(compute_heat(finder, clip, 1), first)
    torch.testing.assert_close(finder.state_dict(), before)
    assert all(parameter.grad is None or parameter.requires_grad for parameter in finder.parameters())
    assert not finder.layer2._forward_hooks


def test_what_speaks_against_an_output_gives_no_heat():
    torch.manual_seed(0)
    network = TSMResNet18(1, 2)
    torch.nn.init.constant_(network.fc.weight, -1.0)
    clip = np.full((2, 64, 64), 90, np.uint8)
    heat = compute_heat(network, clip, 0, stage=4)
    assert heat.shape == (2, 64, 64) and heat.max() == 0
    assert compute_heat(network, clip, 0, against=True, stage=4).max() == pytest.approx(1)


@pytest.mark.parametrize(("side", "stage"), [(224, 4), (112, 3), (64, 2), (32, 1), (16, 1)])
def test_the_stage_has_cells_enough_to_say_where(side, stage):
    assert explain._choose_stage(side) == stage


def test_the_hottest_frames_come_in_order_of_time():
    heat = np.zeros((5, 2, 2))
    heat[[1, 4, 3], 0, 0] = 0.5, 1.0, 0.2
    assert choose_frames(heat, 2).tolist() == [1, 4] and choose_frames(heat, 9).tolist() == [0, 1, 2, 3, 4]


def test_each_group_has_one_winner_and_flags_do_not_compete():
    probabilities = np.linspace(0.1, 0.9, 38)
    probabilities[BIOMARKER_NAMES.index("a_lines_wide")] = 1.0
    probabilities[BIOMARKER_NAMES.index("effusion_large")] = np.nan
    winners = pick_winners(probabilities).set_index("group")
    assert tuple(winners.index) == BIOMARKER_GROUPS
    assert winners.loc["A-lines", "name"] == "a_lines_bold" and winners.loc["effusion", "name"] == "effusion_small"
    assert winners.loc["B-lines", "margin"] == pytest.approx(probabilities[9] - probabilities[8])
    groups_without = pick_winners(np.where(np.isin(BIOMARKER_NAMES, winners["name"]), np.nan, probabilities))
    assert not set(groups_without["name"]) & set(winners["name"])


def test_what_is_absent_is_not_pointed_at():
    probabilities = np.where([b.option == "none" for b in BIOMARKERS], 0.6, 0.1)
    for name, value in (("b_lines_none", 0.9), ("b_line_origin_na", 0.95), ("effusion_large", 0.8)):
        probabilities[BIOMARKER_NAMES.index(name)] = value
    visible = pick_visible(pick_winners(probabilities), 2)
    assert visible["name"].iloc[0] == "effusion_large" and len(visible) == 2 and not visible["against"].any()
    assert not visible["option"].isin(["none", "N/A"]).any()
    nothing = np.where([b.option in ("none", "N/A") for b in BIOMARKERS], 0.9, np.nan)
    assert pick_visible(pick_winners(nothing), 3)["option"].tolist() == ["none"]


def test_a_doubted_none_is_something_to_point_at():
    probabilities = np.full(38, np.nan)
    probabilities[BIOMARKER_NAMES.index("b_lines_none")] = 0.1
    probabilities[BIOMARKER_NAMES.index("a_lines_none")] = 0.7
    (finding,) = pick_visible(pick_winners(probabilities), 3).itertuples()
    assert (finding.group, finding.option, finding.against) == ("B-lines", "not none", True)
    assert finding.probability == pytest.approx(0.9)


@pytest.fixture(scope="module")
def tree():
    """A tree on a planted rule: class 2 where B-lines are many, else class 1 where there is an effusion, else 0."""
    rng = np.random.default_rng(0)
    features = rng.random((200, 38))
    many, fluid = features[:, 8] > 0.6, features[:, 37] > 0.3
    labels = np.where(many, 2, np.where(fluid, 1, 0))
    groups = np.arange(200)
    return fit_expert("DT", features, labels, groups, features, labels, n_classes=3)


def test_the_path_of_a_tree_names_what_was_planted(tree):
    video = np.full(38, 0.5)
    video[8] = 0.9
    (line,) = describe_tree_path(tree, video)
    assert (
        line.startswith("B-lines, many or coalescing: 0.900, above 0.")
        and tree.predict_probabilities(video[None]).argmax() == 2
    )
    video[8], video[37] = 0.2, 0.1
    lines = describe_tree_path(tree, video)
    assert [line.split(":")[0] for line in lines] == ["B-lines, many or coalescing", "effusion, > 5 mm"]
    assert all(", at most 0." in line for line in lines)


def test_every_line_of_a_path_is_true_of_the_video():
    rng = np.random.default_rng(1)
    features, labels = rng.random((120, 38)), rng.integers(0, 4, 120)
    expert = fit_expert("DT", features, labels, np.arange(120), features, labels, n_classes=4)
    for video in features[:30]:
        lines = describe_tree_path(expert, video)
        asked = expert.model.decision_path(video[None]).indices[:-1]
        assert len(lines) == len(set(expert.model.tree_.feature[asked]))
        for line in lines:
            name, words = line.split(": ")
            value, limits = words.split(", ")
            (index,) = [b.index for b in BIOMARKERS if f"{b.group}, {b.option}" == name]
            assert float(value) == pytest.approx(video[index], abs=6e-4)
            kind, low, *high = limits.replace("at most", "below").replace(" and", "").split()
            bounds = [float(low), *map(float, high)]
            if kind == "above":
                bounds = [*bounds, np.inf]
            elif kind == "below":
                bounds = [-np.inf, *bounds]
            assert bounds[0] - 1e-3 <= video[index] <= bounds[1] + 1e-3


def test_only_trees_over_biomarkers_have_a_path():
    features, labels = np.random.default_rng(0).random((40, 5)), np.arange(40) % 2
    given = (features, labels, np.arange(40), features, labels)
    with pytest.raises(ValueError, match="expert 'RF' is not a decision tree"):
        describe_tree_path(fit_expert("RF", *given, n_classes=2), np.zeros(38))
    with pytest.raises(ValueError, match="the tree decides from 5 numbers"):
        describe_tree_path(fit_expert("DT", *given, n_classes=2), np.zeros(38))


@pytest.mark.slow
def test_a_finished_run_is_used_and_without_one_a_tiny_network_is_trained(tmp_path, monkeypatch):
    cohort = make_small_cohort(tmp_path / "small")
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(studies, "load_cohort", lambda name, profile, jobs: cohort)
    monkeypatch.setattr(studies, "TINY", TINY)
    said: list[str] = []
    prepared, run = find_or_train("small", "smoke", say=said.append)
    assert said[0].startswith("There is no finished biomarker run of profile smoke")
    assert any("epoch 1/1" in line for line in said) and run.spec.profile == prepared.profile.name == "tiny"

    real = as_study(prepare_cohort(cohort, replace(TINY, name="smoke")))
    monkeypatch.setattr(studies, "find_profile", lambda name: real.profile)
    specs = real.specs(BIOMARKER_TASK)
    folders = [execute(replace(spec, training=replace(spec.training, epochs=1)), real) for spec in specs[1::-1]]
    execute(real.specs(BIOMARKER_TASK, budget=0.5)[0], real)  # the newest, but half a training
    said.clear()
    prepared, run = find_or_train("small", "smoke", say=said.append)
    assert run.folder == folders[1] and run.spec.fold == 0 and len(said) == 1

    info = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(info | {"code": "of long ago"}))
    assert find_or_train("small", "smoke", say=said.append)[1].folder == folders[0]


def test_heat_is_drawn_over_its_frame():
    figure, ax = plt.subplots()
    heat = np.zeros((8, 8))
    heat[2, 3] = 1
    assert plot_heat(np.zeros((8, 8), np.uint8), heat, ax=ax) is ax
    assert len(ax.images) == 2 and ax.images[1].get_alpha().argmax() == heat.argmax()
    plt.close(figure)
