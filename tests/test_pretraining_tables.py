"""What pretraining without labels is said to be worth: differences, drift, verdicts, and a folder of still images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import execute_notebook, small_study
from PIL import Image

from lusbio.errors import NothingToDo
from lusbio.experts.rows import NETWORK, Row
from lusbio.paper import pretraining
from lusbio.paper.pretraining import FROZEN, STARTS, Arm, turn_gain
from lusbio.profiles import PROFILES
from lusbio.runs.plan import HALF
from lusbio.runs.study import Study
from lusbio.simulation.appearance import example_scene
from lusbio.simulation.scanner import compress
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import SEVERITY, Kind

PROFILE = replace(PROFILES["smoke"], bootstrap_draws=400)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"), profile=PROFILE)


# --- drift ---


def test_another_gain_moves_greys_as_the_scanner_would():
    scene = example_scene("b_lines_some")
    scene = scene._replace(device=scene.device._replace(dynamic_range_db=pretraining.RANGE_DB))
    db = np.linspace(-60, 20, 200)
    for gain in (-6, 6):
        before, after = (compress(scene, level).round().astype(np.uint8) for level in (db, db + gain))
        kept = before > 0
        assert np.abs(turn_gain(before, gain)[kept].astype(int) - after[kept]).max() <= 6


def test_no_gain_changes_nothing_and_black_stays_black():
    greys = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert (turn_gain(greys, 0) == greys).all()
    louder, quieter = turn_gain(greys, 6).astype(int).ravel(), turn_gain(greys, -6).astype(int).ravel()
    assert louder[0] == quieter[0] == 0 and (np.diff(louder[1:]) >= 0).all()
    assert (louder[1:] >= greys.ravel()[1:]).all() and (quieter <= greys.ravel()).all()


def test_drift_of_the_default_cohort_alone_has_another_probe(study):
    assert list(pretraining.list_drifts(study)) == ["gain -6 dB", "gain +6 dB"]


# --- tasks and shares ---


def test_tasks_are_read_off_severity_and_disease(study):
    asked = pretraining.add_tasks(study)
    assert (asked.table["screening"].eq("grade 0") == asked.table[SEVERITY].eq("0")).all()
    assert set(asked.table["diagnosis"]) == {"healthy", "COVID pneumonia", "other lung"}
    unlabelled = study.table.assign(disease=np.nan, lung_severity="2")
    poorer = pretraining.add_tasks(replace(study, cohort=replace(study.cohort, table=unlabelled)))
    assert not {"screening", "diagnosis"} & {*poorer.table}


def test_a_share_that_leaves_one_class_is_left_out(study, monkeypatch):
    monkeypatch.setitem(pretraining.WORDS, "smoke", pretraining.WORDS["smoke"] | {"shares": (0.01, 0.5, 1.0)})
    assert pretraining.list_shares(study, SEVERITY) == [0.5, 1.0]


# --- claims ---


def decide(kind: Kind, skill: float, seed: int, share: float = 1.0) -> Row:
    """Severity of 240 videos of 80 patients, the better the larger ``skill``."""
    rng, patients = np.random.default_rng(seed), np.random.default_rng(0)
    labels = patients.integers(0, 4, 240)
    scores = rng.normal(size=(240, 4))
    scores[np.arange(240), labels] += skill
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    held_out = HeldOut(labels, p, np.repeat(np.arange(80).astype(str), 3), np.arange(240))
    return Row(kind, NETWORK, SEVERITY, (held_out,), (held_out,), tuple("0123"))


def judge(study, monkeypatch, *, all_labels, few, drifted, half=None, labelled=None) -> pd.DataFrame:
    """Verdicts where the pretrained network has the given skills and the other one has 1.0 throughout."""
    rows = {0.5: [decide(STARTS[0], 1.0, 1), decide(STARTS[1], few, 2)]}
    rows[1.0] = [decide(STARTS[0], 1.0, 3), decide(STARTS[1], all_labels, 4)]
    halves = {1.0: all_labels if half is None else half, 0.5: few if half is None else half}
    tuned = {Arm(start, SEVERITY, share, HALF): [] for share in rows for start in STARTS}

    def decide_tuned(arm: Arm, tuned, study) -> Row:
        skill = halves[arm.share] if arm.start == Kind.MASKED else 1.0
        return decide(arm.start, skill, {0.5: 1, 1.0: 3}[arm.share] + (arm.start == Kind.MASKED))

    monkeypatch.setattr(pretraining, "decide_tuned", decide_tuned)
    by_drift = {"gain +6 dB": [decide(STARTS[0], 1.0, 5), decide(STARTS[1], drifted, 6)]}
    return pretraining.judge_claims(rows, by_drift, labelled or {}, tuned, study).cells.set_index("claim")


def test_a_planted_gain_is_confirmed_and_a_planted_loss_refuted(study, monkeypatch):
    found = judge(study, monkeypatch, all_labels=1.6, few=2.6, drifted=0.3)
    assert found["verdict"].tolist() == ["confirmed", "confirmed", "refuted", "not asked"]
    assert found.index.tolist() == ["P1", "P2", "P3, gain +6 dB", "P4"]
    assert (found["p_holm"].dropna() >= found["p_value"].dropna()).all()
    assert (found["published"].str.len() > 20).all()


def test_pixels_that_are_labelled_better_confirm_the_fourth_claim(study, monkeypatch):
    def counts(missed: float) -> list[HeldOut]:
        found = np.tile([50.0, 10, missed, 8, 8, 0], (60, 3, 1)) + np.random.default_rng(0).random((60, 3, 6))
        return [HeldOut(np.zeros(60, int), found, np.repeat(np.arange(20).astype(str), 3), np.arange(60))]

    few = pretraining.WORDS["smoke"]["few"]
    labelled = {(start, few, "all three"): counts(missed) for start, missed in zip(STARTS, (40, 10), strict=True)}
    found = judge(study, monkeypatch, all_labels=1.0, few=1.0, drifted=1.0, labelled=labelled)
    assert found.loc["P4", "verdict"] == "confirmed" and 10 < found.loc["P4", "difference"] < 20
    table = pretraining.make_segmentation(labelled, {}, study)
    assert "fine-tuned minus from scratch" in set(table.cells["features"])


def test_without_label_maps_the_table_of_pixels_says_so(study):
    real = replace(study, cohort=replace(study.cohort, simulated=False))
    assert pretraining.label_pixels(real, {}) == {} == pretraining.count_labelled(real, {})
    assert pretraining.make_segmentation({}, {}, real).note == "No label map is known of these patients."


def test_where_nothing_differs_nothing_is_found(study, monkeypatch):
    found = judge(study, monkeypatch, all_labels=1.0, few=1.0, drifted=1.0)
    assert set(found["verdict"]) == {"undecided", "not asked"}


def test_a_gain_that_still_moves_with_the_budget_is_said_to(study, monkeypatch):
    found = judge(study, monkeypatch, all_labels=1.8, few=2.8, drifted=1.8, half=1.0)
    assert found["verdict"].tolist() == ["moves"] * 3 + ["not asked"]


def test_differences_are_paired_and_relative_to_the_second(study):
    kinds = (*STARTS, *FROZEN.values())
    rows = {1.0: [decide(kind, 1.0 + 0.5 * k, k) for k, kind in enumerate(kinds)]}
    cells = pretraining.make_differences(rows, study).cells.set_index(["pair", "metric"])
    accuracies = [np.mean(r.held_out[0].probabilities.argmax(1) == r.held_out[0].labels) for r in rows[1.0]]
    line = cells.loc["fine-tuned minus from scratch", "accuracy"]
    assert line["mean"] == pytest.approx(100 * (accuracies[1] - accuracies[0]))
    assert line["relative"] == pytest.approx(100 * (accuracies[1] / accuracies[0] - 1))
    sentence = pretraining.describe_gain(cells.reset_index())
    assert f"{line['relative']:+.0f} percent" in sentence and "about 25 %" in sentence


# --- a folder of still images, end to end ---


def make_stills(folder: Path, patients: int = 160, labelled: bool = True) -> Path:
    """One X-ray of each patient, more or less: who is ill has a bright patch. Every kind of file takes turns."""
    rng, lines = np.random.default_rng(0), ["video_id,patient_id,path,disease"]
    folder.mkdir()
    for k in range(patients):
        image = rng.integers(20, 60, (48, 56)).astype(np.uint8)
        ill = k % 2
        image[10 * ill + 8 : 10 * ill + 24, 10 : 10 + 30 * ill] = 220
        name = f"x{k:03d}.{('png', 'jpg', 'tif')[k % 3]}"
        Image.fromarray(image).convert(("L", "RGB")[k % 5 == 0]).save(folder / name)
        disease = ("healthy", "COVID pneumonia")[ill] if labelled else ""
        lines.append(f"x{k:03d},p{k:03d},{name},{disease}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_without_labels_ends_with_what_is_missing(tmp_path):
    with pytest.raises(NothingToDo, match="cohort 'unlabelled' teaches none of the tasks. lung_severity: .*disease"):
        pretraining.open_frames("smoke", str(make_stills(tmp_path / "unlabelled", labelled=False)))


@pytest.mark.slow
def test_a_folder_of_still_images_goes_through_the_whole_notebook(tmp_path, monkeypatch):
    tables = execute_notebook("13_pretraining", make_stills(tmp_path / "stills"), tmp_path, monkeypatch)
    cells = pd.read_csv(tables / "pretraining.csv")
    assert set(cells["task"]) == {"diagnosis"} and set(cells["fraction"]) == {0.5, 1.0}
    assert "**Real** patients, cohort `stills` (160 videos, 160 patients)" in (tables / "pretraining.md").read_text()
    assert not (tables / "pretraining_frames.png").exists(), "what patients look like stays in the build folder"
    assert (tmp_path / "build/smoke/stills/frames/pretraining_frames.png").is_file()
