"""Companion 1: its tables and verdicts, from counts and rows that are made up."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import as_pocovid, made_up_row, made_up_run, small_study

from lusbio.cohorts.label_maps import LabelMaps
from lusbio.errors import NothingToDo
from lusbio.paper import dense_labels as dense
from lusbio.profiles import PROFILES
from lusbio.report import segmentation
from lusbio.runs.pixel_training import LABELS
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import DISEASE, SEVERITY, Kind


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("cohort"))


def counts_of(alarms: float, seed: int = 0) -> HeldOut:
    """60 videos of 20 patients: 8 frames without the structure each, of which a share are false alarms."""
    rng = np.random.default_rng(seed)
    counts = np.tile([50.0, 10, 10, 8, 8, 0], (60, 3, 1))
    counts[..., 5] = rng.binomial(8, alarms, (60, 3))
    return HeldOut(np.zeros(60, int), counts, np.repeat(np.arange(20).astype(str), 3), np.arange(60))


def rows_of(none: float, sparse: float, dense_skill: float) -> dict:
    skills = {Kind.END_TO_END: none, Kind.FROM_SPARSE: sparse, Kind.FROM_DENSE: dense_skill}
    rows = {
        (kind, 0, 1.0): made_up_row(kind, "E2E", seed=k, skill=skill) for k, (kind, skill) in enumerate(skills.items())
    }
    return {key: replace(row, validated=row.held_out) for key, row in rows.items()}


def judge(study, rows, dense_alarms=0.1, sparse_alarms=0.5, dice=0.7):
    runs = {(labels, 4): [SimpleNamespace(info={"val_accuracy": dice})] for labels in ("dense", "sparse")}
    counts = {
        ("dense", 4, segmentation.ALL_THREE): [counts_of(dense_alarms)],
        ("sparse", 4, segmentation.ALL_THREE): [counts_of(sparse_alarms, 1)],
    }
    maps = np.zeros((10, 1, 8, 8), np.uint8)
    maps[..., :2, :] = 2
    known = LabelMaps(np.zeros((10, 1), int), maps, maps)
    studied = replace(study, profile=replace(study.profile, bootstrap_draws=400))
    return dense.give_verdicts(counts, rows, studied, known, runs).cells.set_index("claim")


def test_claims_that_hold_are_confirmed(study):
    found = judge(study, rows_of(0.6, 1.2, 3.0))
    assert found["verdict"].tolist() == ["confirmed"] * 3
    assert found.loc["C1", "difference"] == pytest.approx(-40, abs=5) and (found["p_holm"] < 0.05).all()


def test_claims_whose_opposite_holds_are_refuted(study):
    found = judge(study, rows_of(3.0, 1.5, 0.7), dense_alarms=0.5, sparse_alarms=0.1)
    assert found["verdict"].tolist() == ["refuted"] * 3


def test_what_cannot_be_told_is_undecided(study):
    found = judge(study, rows_of(1.0, 1.0, 1.0), 0.3, 0.3)
    assert found["verdict"].tolist() == ["undecided"] * 3


def test_networks_that_learnt_nothing_get_no_verdict(study):
    found = judge(study, rows_of(0.0, 0.0, 0.0), dice=0.1)
    assert found["verdict"].tolist() == ["chance"] * 3
    assert "not above chance" in found.loc["C1", "meaning"]
    assert judge(study, rows_of(0.0, 2.0, 2.0)).loc[["C2", "C3"], "verdict"].tolist()[0] == "chance"


def test_p_values_are_corrected_over_the_three_claims(study):
    found = judge(study, rows_of(0.6, 1.2, 3.0))
    assert (found["p_holm"] >= found["p_value"]).all()
    assert found["p_holm"].min() == pytest.approx(3 * found["p_value"].min())


def test_segmentation_is_compared_structure_by_structure(study):
    counts = {
        (labels, patients, "A-line"): [counts_of(share)]
        for labels, patients, share in (("dense", 4, 0.2), ("sparse", 4, 0.6), ("sparse", 0, 0.6))
    }
    table = segmentation.make_segmentation(counts, {}, study, pairs=dense.SEGMENTATION_PAIRS)
    cells = table.cells[table.cells["metric"] == "false_alarms"].set_index(["labels", "patients"])["mean"]
    assert cells["dense minus sparse", 4] == pytest.approx(cells["dense", 4] - cells["sparse", 4])
    assert ("dense minus sparse", 0) not in cells
    assert table.shown.loc[table.shown["labels"] == "dense minus sparse", "False alarms"].str.startswith("-").all()


def test_shares_of_pixels_stand_beside_published_ones(study):
    maps = np.arange(7 * 16, dtype=np.uint8).reshape(1, 7, 4, 4) % 7
    cells = dense.make_pixel_shares(study, LabelMaps(np.zeros((1, 7), int), maps, maps), np.array([0])).cells
    assert cells.groupby("labels")["percent"].sum().round(6).tolist() == [100, 100]
    of_dense = cells[cells["labels"] == "dense"].set_index("class")
    assert (
        of_dense.loc["pleura", "percent"] == pytest.approx(200 / 7) and of_dense.loc["background", "published"] == "41"
    )


def test_sizes_are_there_for_every_profile(study):
    for profile in PROFILES.values():
        sizes = dense.find_sizes(replace(study, profile=profile))
        assert sizes.pixels.frames == 1 and sizes.few == 4 and sizes.shares[-1] == 1
        assert sizes.classes.image_size % 16 == 0 and sizes.pixels.width == sizes.classes.width
    assert dense.find_sizes(replace(study, profile=PROFILES["paper"])).pixels.width == 64


def test_the_published_size_sees_what_its_start_says_of_pixels(study):
    heads = {name: dense.find_sizes(replace(study, profile=profile)).head for name, profile in PROFILES.items()}
    assert heads == {"smoke": "centre", "laptop": "centre", "paper": "maps"}
    assert [dense.count_pixel_classes("maps", labels) for labels in dense.STARTS] == [7, 4, 7]
    assert [dense.count_pixel_classes("centre", labels) for labels in dense.STARTS] == [0, 0, 0]


def test_three_diagnoses_and_the_rest_unknown(study):
    with_diagnosis = dense.add_diagnosis(study)
    found = with_diagnosis.table.groupby(DISEASE)[dense.DIAGNOSIS].first()
    assert found["healthy"] == "healthy" and found["COVID pneumonia"] == "COVID"
    assert found["interstitial lung disease"] == "other lung disease"
    assert dense.list_tasks(with_diagnosis) == [dense.DIAGNOSIS, SEVERITY]
    nameless = replace(study, cohort=replace(study.cohort, table=study.table.assign(disease=np.nan)))
    with pytest.raises(NothingToDo, match="names fewer than two diagnoses"):
        dense.add_diagnosis(nameless)


def test_whose_pixels_are_labelled(study, tmp_path, monkeypatch):
    assert dense.find_labelled(study) is study
    real = replace(study, cohort=replace(study.cohort, simulated=False, folder=tmp_path))
    monkeypatch.setattr(type(study), "open_other", lambda self, name: name)
    assert dense.find_labelled(real) == "synthetic_convex"
    (tmp_path / "masks").mkdir()
    assert dense.find_labelled(real) is real


def test_the_source_alone_decides_by_the_diagnoses_of_the_source(study, tmp_path):
    pocovid = dense.add_diagnosis(as_study(prepare_cohort(as_pocovid(study.cohort), study.profile)))
    runs = [made_up_run(pocovid, tmp_path / "run", SEVERITY)]
    row = dense.make_row(
        Kind.SOURCE_ONLY, "—", dense.DIAGNOSIS, runs, [dense.share_by_source(dense.DIAGNOSIS, pocovid)], pocovid
    )
    np.testing.assert_allclose(row.held_out[0].probabilities.sum(1), 1)
    sources = pd.Series(row.held_out[0].groups).str.split("-").str[0]
    one = row.held_out[0].probabilities[(sources == sources[0]).to_numpy()]
    assert (one == one[0]).all()


def test_minutes_are_those_of_the_labels_a_route_learns_from(study, tmp_path):
    run = made_up_run(study, tmp_path / "run", SEVERITY)
    row = replace(made_up_row(Kind.END_TO_END, "E2E", 0), runs=(run,))
    of_task = {
        (Kind.END_TO_END, 0, 1.0): row,
        (Kind.SPARSE_SHARES, 4, 0.5): row,
        (Kind.FROM_DENSE, 0, 1.0): row,
        (Kind.TRUE_SHARES, 0, 1.0): row,
        (Kind.MAJORITY, 0, 1.0): row,
    }
    pixel_runs = {("sparse", 4): [SimpleNamespace(info={"trained_on": 8})]}
    pixel_runs["dense", 0] = [SimpleNamespace(info={"trained_on": 20})]
    minutes = {"grade": 1.0, "boxes": 3.0, "sparse": 10.0, "dense": 20.0}
    cells = dense.make_cost(of_task, {1.0: row}, pixel_runs, minutes, study).cells.set_index("features")["minutes"]
    n = int((run.splits == "train").sum())
    assert cells[Kind.END_TO_END] == n and cells[Kind.BIOMARKERS] == 4 * n
    assert cells[Kind.FROM_DENSE] == n + 400 and 80 < cells[Kind.SPARSE_SHARES] < 80 + n
    assert set(cells.index) == {Kind.END_TO_END, Kind.BIOMARKERS, Kind.FROM_DENSE, Kind.SPARSE_SHARES}


def test_real_patients_are_not_asked_what_labels_cost(study):
    real = replace(study, cohort=replace(study.cohort, simulated=False))
    with pytest.raises(NothingToDo, match="What labels cost is asked of simulated patients only"):
        dense.decide_on_boxes(real, dense.find_sizes(replace(real, profile=PROFILES["smoke"])))


def test_both_kinds_of_labels_are_judged_by_the_same_structures():
    assert (
        set(segmentation.STRUCTURES["sparse"])
        == {"A-line", "B-line", "pleura"}
        <= set(segmentation.STRUCTURES["dense"])
    )
    assert segmentation.STRUCTURES["dense"]["region, unhealthy"] == (LABELS["dense"].index("region, unhealthy"),)
