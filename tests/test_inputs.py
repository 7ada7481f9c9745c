from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, make_small_cohort, random_runs, silent

from lusbio.experts.inputs import (
    ExpertInput,
    fuse_biomarkers,
    take_adapted_biomarkers,
    take_frozen_biomarkers,
    take_mixed_biomarkers,
    take_rated_bits,
)
from lusbio.runs.mixed_cohort import MixedCohort, mix_cohorts
from lusbio.runs.predict import predict_cohort
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import Study, as_study
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, Kind, group_names

NONES = [group_names(group)[0] for group in ("A-lines", "B-lines")]
UNTAUGHT = [name for name in BIOMARKER_NAMES if name not in NONES]
CLIPS = TINY.training.evaluation_clips


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Real patients, of whom two findings are known."""
    cohort = make_small_cohort(tmp_path_factory.mktemp("real"), simulated=False)
    return as_study(prepare_cohort(replace(cohort, name="real"), TINY))


@pytest.fixture(scope="module")
def convex(tmp_path_factory) -> Study:
    """Simulated patients, in whom one more finding is known."""
    cohort = make_small_cohort(tmp_path_factory.mktemp("convex"), patients=24)
    cohort.table[BIOMARKER_NAMES[2]] = (cohort.table["lung_severity"] > "1").astype(float)
    return as_study(prepare_cohort(replace(cohort, name="synthetic_convex"), TINY))


@pytest.fixture(scope="module")
def simulated(convex):
    return convex.train(BIOMARKER_TASK, say=silent)


@pytest.fixture(scope="module")
def mixed(study, convex) -> MixedCohort:
    return mix_cohorts(study, convex)


@pytest.fixture(scope="module")
def own(study, tmp_path_factory):
    return random_runs(study, tmp_path_factory.mktemp("own"), masked=UNTAUGHT)


@pytest.fixture(scope="module")
def frozen(simulated, own, study) -> ExpertInput:
    return take_frozen_biomarkers(simulated, own, study)


@pytest.fixture(scope="module")
def adapted(study, frozen, tmp_path_factory) -> ExpertInput:
    return take_adapted_biomarkers(random_runs(study, tmp_path_factory.mktemp("a"), seed=1, masked=UNTAUGHT), frozen)


def test_frozen_biomarkers_are_the_mean_over_the_simulated_networks(study, simulated, own, frozen):
    one_by_one = [predict_cohort(run, study, CLIPS) for run in simulated]
    learnt = ~np.isnan(one_by_one[0]).all(axis=0)
    assert np.flatnonzero(learnt).tolist() == [0, 2, 5]
    assert frozen.features == Kind.FROZEN and frozen.runs == tuple(own) and len(frozen.values) == 5
    for values in frozen.values:
        np.testing.assert_allclose(values[:, learnt], sum(one_by_one)[:, learnt] / 3)
        assert (values[:, ~learnt] == 0.5).all()


def test_a_finding_that_one_network_did_not_learn_is_the_mean_of_the_others(study, simulated, own):
    unlearnt = replace(simulated[0], info=simulated[0].info | {"masked": list(BIOMARKER_NAMES)})
    unlearnt = replace(unlearnt, folder=simulated[0].folder.with_name("unlearnt"))
    path = unlearnt.folder / "elsewhere"
    path.mkdir(parents=True)
    predict_cohort(simulated[0], study, CLIPS)
    name = f"{study.cohort.name}-{study.data}-{CLIPS}clips.csv"
    empty = pd.read_csv(simulated[0].folder / "elsewhere" / name, dtype={"video_id": str})
    empty[empty.columns[1:]] = np.nan
    empty.to_csv(path / name, index=False)
    given = take_frozen_biomarkers([unlearnt, *simulated[1:]], own, study).values[0]
    others = [predict_cohort(run, study, CLIPS)[:, 0] for run in simulated[1:]]
    np.testing.assert_allclose(given[:, 0], sum(others) / 2)


def test_labels_of_real_patients_do_not_touch_frozen_biomarkers(study, simulated, own, frozen):
    table = study.table.copy()
    table[list(BIOMARKER_NAMES)] = np.nan
    blind = replace(study, data="no-labels", cohort=replace(study.cohort, table=table))
    np.testing.assert_array_equal(take_frozen_biomarkers(simulated, own, blind).values[0], frozen.values[0])


def test_adapted_biomarkers_keep_the_frozen_values_where_nothing_could_be_learnt(adapted, frozen):
    assert adapted.features == Kind.ADAPTED
    for run, values, before in zip(adapted.runs, adapted.values, frozen.values, strict=True):
        for k, name in enumerate(BIOMARKER_NAMES):
            np.testing.assert_array_equal(values[:, k], (run.probabilities if name in NONES else before)[:, k])
    assert np.isfinite(adapted.values).all()


def test_mixed_biomarkers_are_those_of_the_real_patients(study, mixed, frozen, tmp_path):
    """The last biomarker is one that no training video decides."""
    runs = random_runs(mixed, tmp_path / "runs", masked=[BIOMARKER_NAMES[-1]])
    given = take_mixed_biomarkers(runs, mixed, frozen)
    assert given.features == Kind.MIXED
    for run, kept, values in zip(runs, given.runs, given.values, strict=True):
        of_real = run.predictions[run.predictions["video_id"].str.startswith("real:")]
        assert of_real["video_id"].str.removeprefix("real:").tolist() == list(study.table["video_id"])
        np.testing.assert_array_equal(values[:, :-1], of_real.filter(like="p_").to_numpy()[:, :-1])
        np.testing.assert_array_equal(values[:, -1], frozen.values[0][:, -1])
        assert kept.splits.tolist() == study.splits(run.spec.fold).tolist()


def test_fused_biomarkers_are_both_side_by_side(frozen, adapted):
    fused = fuse_biomarkers(frozen, adapted)
    assert fused.features == Kind.FUSED and fused.runs == adapted.runs
    for values, first, second in zip(fused.values, frozen.values, adapted.values, strict=True):
        np.testing.assert_array_equal(values[:, :38], first)
        np.testing.assert_array_equal(values[:, 38:], second)


def test_the_raters_two_bits_do_not_give_severity_away(study, own):
    table = study.table.copy()
    table[UNTAUGHT] = 0.0
    table.loc[table["lung_severity"] > "1", UNTAUGHT] = np.nan  # as labels of COVID-BLUES may do
    leaky = replace(study, cohort=replace(study.cohort, table=table))
    given = take_rated_bits(own, leaky, NONES)
    assert given.features == Kind.RATED_BITS and given.runs == tuple(own) and len(given.values) == len(own)
    for values in given.values:
        np.testing.assert_array_equal(values, study.table[NONES])
