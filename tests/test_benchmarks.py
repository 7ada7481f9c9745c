"""Scripts beside the package, of benchmarks/ and experiments/: they start, and say what they measure."""

import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import SMALL, TINY, small_study

from lusbio.errors import LusbioError
from lusbio.files import ROOT, build_folder
from lusbio.network import clips, training
from lusbio.profiles import PROFILES
from lusbio.runs import assembly
from lusbio.runs.spec import Own

FOLDER = ROOT / "benchmarks"
EXPERIMENTS = sorted((ROOT / "experiments").glob("[!_]*.py"))
SCRIPTS = [*sorted(FOLDER.glob("[!_]*.py")), *EXPERIMENTS]


@pytest.fixture
def load(monkeypatch):
    """A function that imports a script as Python does when it is run there, without running it."""
    for folder in (FOLDER, ROOT / "experiments"):
        monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def load_path(path: Path):
        spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    yield load_path
    for name in {"_measure", "_training", "_levers"} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def measure(load):
    return load(FOLDER / "_measure.py")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_can_be_imported_and_has_a_main(path, load):
    assert callable(load(path).main)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_is_explained_in_the_readme_of_its_folder(path):
    assert f"`{path.name}`" in (path.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_does_nothing_unless_it_is_told_to(path, load, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [path.name])
    load(path).main()
    assert re.fullmatch(r"\d+ (rungs|trainings), .*: run with --run\n", capsys.readouterr().out)


def test_papers_are_compared_task_by_task_unless_they_are_about_other_videos(load, tmp_path):
    arithmetic = load(ROOT / "experiments" / "arithmetic.py")
    committed = arithmetic.COMMITTED
    with pytest.raises(LusbioError, match=r"has no run.json, timing.json, differences.csv, verdict.csv; `make paper`"):
        arithmetic.compare([committed, tmp_path])
    for name in arithmetic.FILES:
        shutil.copy(committed / name, tmp_path / name)
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"precision": ["32-true"]}))
    (tmp_path / "timing.json").write_text(json.dumps({"notebooks": {"01_cohort": 1.5, "elsewhere": 9}}))
    table = arithmetic.compare([committed, tmp_path])
    (n_tasks,) = table.cells.groupby("made").size().unique()
    assert n_tasks == len(pd.read_csv(committed / "verdict.csv")) and "(32-true)" in table.cells["made"].iloc[-1]
    assert table.cells["minutes"].iloc[-1] == 1.5
    numbers = table.cells.drop(columns=["made", "minutes"])
    assert numbers.head(n_tasks).equals(numbers.tail(n_tasks).reset_index(drop=True))
    (tmp_path / "run.json").write_text(json.dumps(run | {"data": "other"}))
    with pytest.raises(LusbioError, match=f"data other, expected {run['data']} as in"):
        arithmetic.compare([committed, tmp_path])


@pytest.fixture
def frontier(load):
    return load(ROOT / "experiments" / "frontier.py")


def test_levers_of_the_frontier_that_are_not_pulled_are_the_packages_training(frontier):
    batch = torch.rand(6, 3, 1, 16, 16)
    usual = clips.augment_clips(batch, torch.Generator().manual_seed(0))
    assert torch.allclose(frontier.augment_by(1.0, batch, torch.Generator().manual_seed(0)), usual, atol=1e-6)
    mirrored = frontier.augment_by(0.0, batch, torch.Generator().manual_seed(0))
    kept = [torch.allclose(one, clip, atol=1e-5) for one, clip in zip(mirrored, batch, strict=True)]
    flipped = [torch.allclose(one, clip.flip(-1), atol=1e-5) for one, clip in zip(mirrored, batch, strict=True)]
    assert all(a or b for a, b in zip(kept, flipped, strict=True)) and any(kept) and any(flipped)
    logits, classes = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    assert frontier.smooth_loss(0.0, None, logits, classes) == torch.nn.functional.cross_entropy(logits, classes)
    targets = torch.tensor([[1.0, 0.0, torch.nan, 1.0]] * 5)
    assert torch.allclose(frontier.smooth_loss(0.0, None, logits, targets), training.masked_bce(logits, targets))


def test_every_setting_of_the_frontier_is_tried_once_and_has_a_name_of_its_own(frontier):
    settings = frontier.list_first_round()
    assert len({setting.words for setting in settings}) == len(settings) > 20
    assert settings[0] == frontier.Setting() and settings[0].words == "start"


@pytest.fixture
def ladder(load):
    return load(ROOT / "experiments" / "lever_ladder.py")


def test_every_lever_differs_from_its_reference_in_one_thing(ladder):
    by_name = {rung.name: rung for rung in ladder.RUNGS}
    for rung in ladder.RUNGS:
        if rung.against:
            parts = [part for part in vars(rung) if part not in ("name", "change")]
            assert len([part for part in parts if vars(rung)[part] != vars(by_name[rung.against])[part]]) == 1


def test_levers_are_parts_of_ones_own(ladder):
    import torch

    clips = torch.rand(3, 4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = ladder.keep_depth(clips, torch.Generator().manual_seed(1))
    assert moved.shape == clips.shape and 0 <= moved.min() and moved.max() <= 1
    right, far = (ladder.earth_movers_loss(torch.eye(4)[None, k] * 99, torch.tensor([0])) for k in (0, 3))
    near = ladder.earth_movers_loss(torch.eye(4)[None, 1] * 99, torch.tensor([0]))
    assert right < 1e-6 and near == pytest.approx(1) and far == pytest.approx(3)
    names = [Own(loss=rung.loss, augment=rung.augment).name for rung in ladder.RUNGS]
    assert sorted(filter(None, {name.split("-")[0] for name in names})) == ["augment", "loss"]


@pytest.fixture
def small_training(tmp_path):
    """A module, its clips, the rows of its training videos, and made-up signs of all videos."""
    study = small_study(tmp_path)
    spec = study.specs("lung_severity", initial_weights="scratch")[0]
    rows, targets, _ = assembly.choose_rows(spec, study)
    module, data, _ = assembly.assemble(spec, study, rows, targets, Own())
    return module, data, rows["train"], torch.randn(len(targets), 5, generator=torch.Generator().manual_seed(0))


def copy_weights(module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.network.state_dict().items()}


def same_weights(module, before: dict[str, torch.Tensor]) -> set[str]:
    found = module.network.state_dict()
    assert found.keys() == before.keys()
    return {name for name, value in found.items() if torch.equal(value, before[name])}


def test_filling_in_what_is_hidden_changes_all_but_the_last_layer(ladder, small_training):
    module, data, rows, _ = small_training
    before = copy_weights(module)
    ladder.fill_in_what_is_hidden(module, data, rows, steps=2)
    assert same_weights(module, before) == {"fc.weight", "fc.bias"}


def test_learning_signs_changes_all_but_the_last_layer_and_keeps_none_of_its_own(ladder, small_training):
    module, data, rows, signs = small_training
    before = copy_weights(module)
    ladder.learn_signs(module, data, rows, signs, steps=2)
    assert same_weights(module, before) == {"fc.weight", "fc.bias"}


def test_signs_and_labels_of_other_videos_are_not_learnt_from(ladder, small_training):
    module, data, rows, signs = small_training
    others = torch.ones(len(signs), 1, dtype=torch.bool).index_fill(0, torch.from_numpy(rows), False)
    before, learnt = copy_weights(module), []
    for values in (signs, signs.masked_fill(others, 99.0)):
        module.network.load_state_dict(before)
        torch.manual_seed(0)
        ladder.learn_signs(module, data, rows, values, steps=2)
        learnt.append(copy_weights(module))
        data.dataset.targets[:] = -1
    assert same_weights(module, learnt[0]) == set(before)


def test_signs_beside_the_labels_add_their_loss_and_leave_the_network_as_it_is_kept(ladder, small_training):
    module, data, _, signs = small_training
    names, batch = set(module.network.state_dict()), next(iter(data.train_dataloader()))
    unknown = ladder.SignsToo(module, torch.full_like(signs, torch.nan))
    both = ladder.SignsToo(module, signs)
    usual, same, more = (each.training_step(batch, 0) for each in (module, unknown, both))
    assert same.item() == usual.item() < more.item()
    more.backward()
    assert both.layer.weight.grad.abs().sum() > 0
    assert {id(p) for p in both.layer.parameters()} <= {id(p) for p in both.parameters()}
    assert set(both.network.state_dict()) == names and not both.network.dropout._forward_pre_hooks


def test_few_labels_are_those_of_fewer_patients_but_all_are_learnt_from_without_labels(ladder, tmp_path, monkeypatch):
    study, signs, learnt = small_study(tmp_path), np.zeros((40, 5)), []
    monkeypatch.setattr(ladder, "fill_in_what_is_hidden", lambda module, data, rows: learnt.append(rows))
    rungs = {rung.name: replace(rung, start="scratch") for rung in ladder.RUNGS if rung.start == "simulated"}
    rows, every = {}, np.flatnonzero(study.splits(0) == "train")
    for name in ("from simulated", "from simulated, 1/8 of the labels"):
        spec = ladder.describe_training(rungs[name], 0, study, ())
        rows[name] = set(ladder.assemble_rung(rungs[name], spec, study, signs)[1].sampler.rows)
    all_rows, few = rows.values()
    patients = study.table["group_id"]
    assert few < all_rows == set(every)
    assert patients.iloc[sorted(few)].nunique() == np.ceil(patients.iloc[every].nunique() / 8)
    hidden = next(rung for rung in ladder.RUNGS if rung.name == "hidden parts, 1/8 of the labels")
    _, data = ladder.assemble_rung(hidden, spec, study, signs)
    assert set(data.sampler.rows) == few and set(learnt[0]) == set(every)


@pytest.mark.parametrize("task", ["biomarkers", "lung_severity"])
def test_a_network_that_learns_signs_first_learns_those_of_all_training_videos(task, ladder, tmp_path, monkeypatch):
    study, learnt = small_study(tmp_path), {}
    monkeypatch.setattr(ladder, "learn_signs", lambda module, data, rows, signs: learnt.update(rows=rows, signs=signs))
    first = [rung for rung in ladder.RUNGS if rung.start == "signs" and rung.task == task]
    values = np.random.default_rng(0).normal(3, 2, size=(len(study.table), 5))
    spec = study.specs(task)[0]
    for rung in first:
        module, _ = ladder.assemble_rung(rung, spec, study, values)
        assert type(module) is training.VideoModule
    every = np.flatnonzero(study.splits(0) == "train")
    assert len(first) == 1 and set(learnt["rows"]) == set(every)
    assert learnt["signs"][every].mean(0).numpy() == pytest.approx(0, abs=1e-5)
    assert learnt["signs"][every].std(0).numpy() == pytest.approx(1, abs=1e-5)


def test_every_rung_is_compared_with_one_before_it_that_has_as_many_labels(ladder):
    names = [rung.name for rung in ladder.RUNGS]
    against = {rung.name: rung.against for rung in ladder.RUNGS}
    assert len(set(names)) == len(names)
    assert all(names.index(other) < names.index(name) for name, other in against.items() if other)
    assert against["hidden parts, 1/8 of the labels"] == "from simulated, 1/8 of the labels"
    assert against["severity, hidden parts, 1/8 of the labels"] == "severity from simulated, 1/8 of the labels"
    assert against["from simulated, 1/8 of the labels"] == against["signs too"] == against["signs first"]
    assert against["signs first"] == "from simulated" and against["from scratch"] is None


@pytest.mark.parametrize("profile", PROFILES)
def test_other_settings_are_told_beside_those_of_the_profile(profile, ladder):
    usual = PROFILES[profile].training
    rungs = {rung.name: rung for rung in ladder.list_rungs(usual)}
    left_out = [rung.name for rung in ladder.RUNGS if rung.name not in rungs]
    assert left_out == (["15 frames"] if profile == "paper" else [])
    assert rungs["64 pixels"].say_change(usual) == f"64 pixels instead of {usual.image_size}"
    assert rungs["8 frames"].say_change(usual) == f"8 frames instead of {usual.frames}"
    assert all(rung.say_change(usual) for rung in rungs.values())


@pytest.mark.parametrize("lever", [{}, {"signs_too": True}], ids=["nothing", "signs too"])
def test_a_rung_is_trained_once_and_says_something_of_every_validation_video(lever, ladder, tmp_path, monkeypatch):
    study = small_study(tmp_path, profile=replace(TINY, training=replace(SMALL, frames=4)))
    signs = np.random.default_rng(0).normal(size=(len(study.table), 5))
    rung = ladder.Rung("one", "nothing", start="scratch", **lever)
    path = ladder.train_rung(rung, 0, study, (), signs)
    monkeypatch.setattr(ladder, "assemble_rung", None)
    assert ladder.train_rung(rung, 0, study, (), signs) == path
    ((rows, probabilities),) = ladder.read_answers([path])
    assert set(rows) == set(np.flatnonzero(study.splits(0) == "val")) and probabilities.shape == (len(rows), 38)


def test_blocks_take_turns_and_warmups_do_not_count(measure):
    order = []
    seconds = measure.time_in_turn(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmups=2
    )
    assert order == ["a", "b"] * 5
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_seconds_are_those_of_the_block(measure):
    now = [0.0]

    def work(seconds):
        now[0] += seconds

    blocks = {"slow": lambda: work(3.0), "fast": lambda: work(0.5)}
    assert measure.time_in_turn(blocks, rounds=2, clock=lambda: now[0]) == {"slow": [3.0, 3.0], "fast": [0.5, 0.5]}


def test_load_that_lasts_for_a_round_does_not_move_the_ratio(measure):
    quiet, busy = [2.0, 2.0, 2.0], [2.0, 20.0, 2.0]
    assert measure.median_ratio(quiet, [1.0, 1.0, 1.0]) == 2
    assert measure.median_ratio(busy, [1.0, 10.0, 1.0]) == 2
    assert measure.median_ratio([2.0, 3.0, 9.0], [1.0, 1.0, 1.0]) == 3
    with pytest.raises(ValueError, match="shorter"):
        measure.median_ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("value", "at_least", "reached"), [(1.7, True, True), (1.6, True, False), (1.7, False, True), (1.8, False, False)]
)
def test_a_goal_is_the_least_or_the_most_that_will_do(value, at_least, reached, measure):
    assert measure.Finding("speed", value, "x", goal=1.7, at_least=at_least).reached is reached


def test_what_has_no_goal_is_neither_reached_nor_missed(measure):
    finding = measure.Finding("speed", 1.0)
    assert finding.reached is None
    assert re.fullmatch(r"\s*1", measure.format_value(finding))


def test_a_report_says_the_same_to_readers_and_to_programs(measure, capsys):
    findings = [measure.Finding("speed", 2.5, "x", goal=5), measure.Finding("time", 0.25, "s")]
    path = measure.report("example", findings, seconds={"a": [1.0]})
    printed, written = capsys.readouterr().out, json.loads(path.read_text())
    assert path == build_folder("benchmarks", "example.json")
    assert re.search(r"speed +2.5 x +at least 5 x +MISSED", printed) and re.search(r"time +0.25 s\n", printed)
    assert written["findings"][0] == {
        "what": "speed",
        "value": 2.5,
        "unit": "x",
        "goal": 5,
        "at_least": True,
        "reached": False,
    }
    assert written["details"] == {"seconds": {"a": [1.0]}}
    assert written["machine"]["cores"] >= 1
