from dataclasses import replace

import numpy as np
import pytest
from helpers import made_up_run, small_study

from lusbio.experts.baselines import (
    BASELINE_EXPERT,
    FRAMES,
    LINEAR,
    SIZE,
    decide_linearly,
    take_metadata,
    take_pooled_pixels,
)
from lusbio.experts.inputs import ExpertInput
from lusbio.experts.rows import accuracy, decide_with_experts
from lusbio.runs.study import Study
from lusbio.videos import decode_video
from lusbio.vocabulary import BIOMARKER_NAMES, Kind


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Two zones; whether a patient is ill shows in how bright the videos are."""
    study = small_study(tmp_path_factory.mktemp("cohort"), simulated=False)
    zones = np.where(study.table["video_id"].str.endswith("0"), "L1", "R1")
    study = replace(study, cohort=replace(study.cohort, table=study.table.assign(zone=zones)))
    return study.with_task("ill", ("no", "yes"), (study.table["lung_severity"] > "1").map({False: "no", True: "yes"}))


@pytest.fixture(scope="module")
def runs(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [made_up_run(study, folder / str(fold), fold=fold) for fold in range(5)]


def test_pooled_pixels_are_the_mean_frame_of_the_file(study, runs):
    given = take_pooled_pixels(runs, study)
    assert isinstance(given, ExpertInput) and given.features == Kind.PIXELS and given.runs == tuple(runs)
    assert given.values[0].shape == (40, SIZE**2)
    for k in (0, 17):
        frames = decode_video(study.cohort.video_paths()[k], SIZE)
        chosen = [frames[round(i * (len(frames) - 1) / (FRAMES - 1))] for i in range(FRAMES)]
        np.testing.assert_allclose(given.values[0][k], np.mean(chosen, axis=0).ravel() / 255)


def test_metadata_are_zones_and_numbers_and_nothing_that_somebody_said(study, runs):
    given = take_metadata(runs, study)
    assert given.features == Kind.METADATA and given.runs == tuple(runs)
    values = given.values[0]
    assert values.shape == (40, 5)
    np.testing.assert_array_equal(values[:, 0], study.table["zone"] == "L1")
    assert (values[:, 2:4] == -1).all() and (values[:, 4] == 6).all()
    table = study.table.copy()
    table[["lung_severity", "sf_ratio", "sf_value", "disease", *BIOMARKER_NAMES]] = np.nan
    blind = replace(study, cohort=replace(study.cohort, table=table))
    np.testing.assert_array_equal(take_metadata(runs, blind).values[0], values)


def test_pixels_find_what_is_brightness(study, runs):
    given = take_pooled_pixels(runs, study)
    linear, (forest,) = decide_linearly(given, "ill", study), decide_with_experts(given, "ill", study, experts=["RF"])
    assert (linear.classifier, forest.classifier) == (LINEAR, BASELINE_EXPERT)
    for row in (linear, forest):
        assert row.features == Kind.PIXELS and np.mean([accuracy(fold) for fold in row.held_out]) > 0.9


def test_test_labels_have_no_say_in_the_linear_model(study, runs):
    given, table = take_pooled_pixels(runs, study), study.table.copy()
    tested = (study.splits(0) == "test").to_numpy()
    table.loc[tested, "ill"] = np.where(table.loc[tested, "ill"] == "yes", "no", "yes")
    other = replace(study, cohort=replace(study.cohort, table=table))
    one, two = (decide_linearly(given, "ill", prepared).held_out[0] for prepared in (study, other))
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert not np.array_equal(one.labels, two.labels)


def test_a_class_that_no_training_patient_has_gets_no_probability(study, runs):
    table = study.table.copy()
    table.loc[(table["lung_severity"] == "3") & (study.splits(0) == "train"), "lung_severity"] = np.nan
    fewer = replace(study, cohort=replace(study.cohort, table=table))
    row = decide_linearly(take_pooled_pixels(runs[:1], fewer), "lung_severity", fewer)
    assert row.held_out[0].probabilities.shape[1] == 4 and (row.held_out[0].probabilities[:, 3] == 0).all()
