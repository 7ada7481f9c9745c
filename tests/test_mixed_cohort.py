from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, make_small_cohort, silent

from lusbio.cohorts.splits import check_folds, check_no_leakage, run_folds
from lusbio.cohorts.table import COLUMNS
from lusbio.cohorts.targets import repeat_rare, select_rows
from lusbio.errors import LusbioError
from lusbio.runs.assembly import assemble, choose_rows
from lusbio.runs.mixed_cohort import (
    NEVER_TESTED,
    SIMULATED,
    MixedCohort,
    count_videos,
    find_mixed_runs,
    keep_real,
    list_mixed_runs,
    mix_cohorts,
)
from lusbio.runs.plan import start_from
from lusbio.runs.spec import Own, check_same_videos, load_run, prepare_cohort
from lusbio.runs.study import Study, as_study
from lusbio.runs.train import execute
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SEVERITY

ONLY_SIMULATED = BIOMARKER_NAMES[2]
ONE_SIDED = BIOMARKER_NAMES[9]


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Study:
    """Twenty patients, five folds; one biomarker is known where it is absent, and never present."""
    cohort = make_small_cohort(tmp_path_factory.mktemp("real"), simulated=False)
    cohort.table.loc[::2, ONE_SIDED] = 0.0
    return as_study(prepare_cohort(replace(cohort, name="real", notes=("40 of 41 videos present",)), TINY))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Study:
    """More patients than the real ones, under the same names, in whom more findings are known."""
    cohort = make_small_cohort(tmp_path_factory.mktemp("simulated"), patients=48)
    cohort.table[ONLY_SIMULATED] = (cohort.table["lung_severity"] > "1").astype(float)
    cohort.table[ONE_SIDED] = (cohort.table["lung_severity"] > "1").astype(float)
    return as_study(prepare_cohort(replace(cohort, name="simulated"), TINY))


@pytest.fixture(scope="module")
def mixed(real, simulated) -> MixedCohort:
    return mix_cohorts(real, simulated)


@pytest.fixture(scope="module")
def simulated_runs(simulated):
    return simulated.train(BIOMARKER_TASK, say=silent)


@pytest.fixture(scope="module")
def runs(mixed, simulated_runs):
    return mixed.train(list_mixed_runs(mixed), say=silent)


# --- who is used for what ---


def test_real_patients_keep_their_rows_and_their_splits(mixed, real):
    table, n_real = mixed.table, len(real.table)
    assert (table["video_id"][:n_real] == "real:" + real.table["video_id"]).all()
    for fold in run_folds(real.protocol):
        assert mixed.splits(fold)[:n_real].tolist() == real.splits(fold).tolist()


def test_simulated_patients_are_trained_on_or_not_used(mixed, real):
    for fold in run_folds(real.protocol):
        of_simulated = mixed.splits(fold)[len(real.table) :]
        assert set(of_simulated.dropna()) == {"train"} and of_simulated.isna().any()


def test_no_patient_of_a_test_fold_is_in_any_training_of_it(mixed, real):
    table = mixed.table
    for fold in run_folds(real.protocol):
        splits = mixed.splits(fold)
        check_no_leakage(table, splits)
        rows, *_ = select_rows(table, splits, BIOMARKER_TASK)
        tested = set(table["patient_id"][(splits == "test").to_numpy()])
        assert len(tested) == 4 and all(patient.startswith("real:") for patient in tested)
        for split in ("train", "val"):
            assert tested.isdisjoint(table["patient_id"].iloc[rows[split]])
        assert table["patient_id"].iloc[rows["val"]].str.startswith("real:").all()


def test_nothing_of_the_test_patients_decides_which_simulated_ones_are_chosen(real, simulated, mixed):
    table = real.table.copy()
    tested = (real.splits(0) == "test").to_numpy()
    for column in ("lung_severity", BIOMARKER_NAMES[0]):
        table.loc[tested, column] = table.loc[tested, column].to_numpy()[::-1]
    other = mix_cohorts(replace(real, cohort=replace(real.cohort, table=table)), simulated)
    assert other.chosen == mixed.chosen


def test_names_are_unique_and_belong_to_one_cohort(mixed, real, simulated):
    table = mixed.table
    assert table["video_id"].is_unique and len(table) == len(mixed.videos) == 136
    assert table["patient_id"].nunique() == 20 + 48  # though both cohorts have a patient p0
    assert list(table.columns) == list(COLUMNS)
    check_folds(table, mixed.folds)
    never = mixed.folds["fold"] == NEVER_TESTED
    assert never.sum() == 48 and (mixed.folds["group_id"].str.startswith("simulated:") == never).all()


def test_every_video_stays_with_its_row(mixed):
    for path, video in zip(mixed.cohort.video_paths(), mixed.videos, strict=True):
        assert path.is_file() and video.n_frames == 6
    np.testing.assert_array_equal(mixed.videos[-1].load().shape, (6, 32, 32))


def test_about_half_of_what_a_network_sees_is_real(mixed, real):
    n_real = len(real.table)
    for spec in mixed.specs(BIOMARKER_TASK):
        rows, *_ = choose_rows(spec, mixed)
        repeated = repeat_rare(mixed.table, rows["train"], BIOMARKER_TASK, 0)
        assert 0.4 < (rows["train"] < n_real).mean() < 0.6 and 0.4 < (repeated < n_real).mean() < 0.6


def test_counts_of_videos_are_those_of_the_splits(mixed, real):
    counts = count_videos(mixed)
    assert (counts[["train", "val", "test"]].sum(axis=1) == 40).all() and counts["test"].sum() == 40
    for fold in run_folds(real.protocol):
        training = mixed.table["video_id"][(mixed.splits(fold) == "train").to_numpy()]
        assert counts.loc[fold, "train, simulated"] == training.str.startswith("simulated:").sum()


def test_folds_take_different_simulated_patients(mixed):
    assert len(set(mixed.chosen)) == 5
    assert len(set().union(*mixed.chosen)) > 1.5 * len(mixed.chosen[0])


def test_where_there_are_few_simulated_patients_all_are_taken(real, simulated):
    some = simulated.table["group_id"].isin(["p0", "p1", "p2"]).to_numpy()
    few = replace(
        simulated,
        cohort=replace(simulated.cohort, table=simulated.table[some].reset_index(drop=True)),
        videos=[video for video, keep in zip(simulated.videos, some, strict=True) if keep],
        folds=simulated.folds[simulated.folds["group_id"].isin(["p0", "p1", "p2"])],
    )
    assert {frozenset(groups) for groups in mix_cohorts(real, few).chosen} == {
        frozenset(f"simulated:p{k}" for k in range(3))
    }


# --- what is learnt ---


def test_what_a_cohort_does_not_label_is_unknown_there_and_learnt_from_the_other(mixed, real):
    n_real = len(real.table)
    for spec in mixed.specs(BIOMARKER_TASK):
        rows, targets, masked = choose_rows(spec, mixed)
        learnt = [name for name in BIOMARKER_NAMES if name not in masked]
        assert learnt == [BIOMARKER_NAMES[k] for k in (0, 2, 5, 9)]
        assert np.isnan(targets[:n_real, 2]).all() and not np.isnan(targets[n_real:, 2]).any()


def test_a_biomarker_that_real_labels_know_as_absent_only_is_unknown_there(mixed, real):
    n_real = len(real.table)
    assert real.table[ONE_SIDED].notna().any()
    assert mixed.table[ONE_SIDED][:n_real].isna().all()
    assert mixed.table[ONE_SIDED][n_real:].notna().all()
    assert real.table[BIOMARKER_NAMES[0]].equals(mixed.table[BIOMARKER_NAMES[0]][:n_real])


def test_the_loss_does_not_see_what_is_unknown(mixed):
    import torch

    spec = mixed.specs(BIOMARKER_TASK)[0]
    rows, targets, _ = choose_rows(spec, mixed)
    module, data, _ = assemble(spec, mixed, rows, targets, Own())
    batch = data.dataset.__getitems__([(0, 0), (100, 0)])  # a real video and a simulated one
    assert torch.isnan(batch["targets"][0, 2]) and not torch.isnan(batch["targets"][1, 2])
    logits = torch.zeros(2, len(BIOMARKER_NAMES), requires_grad=True)
    module.loss(logits, batch["targets"]).backward()
    assert ((logits.grad != 0) == ~torch.isnan(batch["targets"])).all()


def test_the_name_of_a_run_follows_from_both_cohorts_and_from_who_is_used(real, simulated, mixed):
    assert mix_cohorts(real, simulated).data == mixed.data
    others = [mix_cohorts(replace(real, data="x"), simulated), mix_cohorts(real, replace(simulated, data="x"))]
    fewer = replace(real, folds=real.folds.assign(fold=(real.folds["fold"] + 1) % 5))
    others.append(mix_cohorts(fewer, simulated))
    assert len({mixed.data, *(other.data for other in others)}) == 4


def test_questions_that_are_asked_of_the_real_patients_change_no_run(real, simulated, mixed):
    answers = pd.Series(np.where(real.table["lung_severity"] > "1", "yes", "no"))
    asked = real.with_task("ill", ("no", "yes"), answers)
    assert mix_cohorts(asked, simulated).specs(BIOMARKER_TASK) == mixed.specs(BIOMARKER_TASK)


def test_each_fold_starts_from_a_simulated_run_counted_round(mixed, real, simulated):
    ids = [spec.run_id for spec in simulated.specs(BIOMARKER_TASK)]
    specs = list_mixed_runs(mixed)
    assert {(spec.task, spec.cohort, spec.data) for spec in specs} == {
        (BIOMARKER_TASK, "real_with_simulated", mixed.data)
    }
    adapted, severity = (
        start_from(simulated.specs(BIOMARKER_TASK), real.specs(task)) for task in (BIOMARKER_TASK, SEVERITY)
    )
    for some in (specs, adapted, severity):
        assert [spec.starts_from for spec in some] == [ids[k] for k in (0, 1, 2, 0, 1)]
    assert {spec.task for spec in adapted} == {BIOMARKER_TASK}
    assert {spec.outputs for spec in severity} == {("0", "1", "2", "3")}


def test_mixed_runs_start_from_the_weights_that_were_chosen_for_the_simulated_ones(mixed, simulated, monkeypatch):
    before = [spec.starts_from for spec in list_mixed_runs(mixed)]
    monkeypatch.setattr("lusbio.runs.study.choose_initial_weights", lambda *_: ("imagenet", "as asked for"))
    ids = [spec.run_id for spec in simulated.specs(BIOMARKER_TASK, initial_weights="imagenet")]
    after = [spec.starts_from for spec in list_mixed_runs(mixed)]
    assert after == [ids[k] for k in (0, 1, 2, 0, 1)] and set(before).isdisjoint(after)


def test_frames_of_two_sizes_and_cohorts_of_one_name_are_refused(real, simulated):
    larger = replace(simulated, profile=replace(TINY, training=replace(TINY.training, image_size=64)))
    with pytest.raises(LusbioError, match="32 and 64"):
        mix_cohorts(real, larger)
    with pytest.raises(LusbioError, match="both cohorts are called 'real'"):
        mix_cohorts(real, real)


# --- from training to a run of the real patients ---


def test_an_adapted_network_goes_on_from_a_simulated_one_with_what_real_labels_teach(real, simulated_runs):
    spec = start_from([run.spec for run in simulated_runs], real.specs(BIOMARKER_TASK))[1]
    run = load_run(execute(spec, real))
    assert simulated_runs[1].folder.name in run.info["initial_weights"]
    learnt = [k for k, name in enumerate(BIOMARKER_NAMES) if name not in run.info["masked"]]
    assert learnt == [0, 5]


def test_mixed_networks_train_and_are_read_as_runs_of_the_real_patients(runs, mixed, real):
    for run in runs:
        kept = keep_real(run, mixed)
        check_same_videos(kept, real)
        assert kept.splits.tolist() == real.splits(run.spec.fold).tolist()
        np.testing.assert_array_equal(kept.probabilities, run.probabilities[:40])
        assert kept.features.shape == (40, 8 * 16) and kept.folder == run.folder
        assert run.info["videos"]["test"] == (kept.splits == "test").sum()
        learnt = np.flatnonzero(~np.isnan(kept.biomarkers).all(axis=0))
        assert learnt.tolist() == [0, 2, 5, 9]
        assert run.info["validated_on"] == (kept.splits == "val").sum()


def test_runs_of_other_videos_or_other_splits_are_refused(runs, mixed, real):
    with pytest.raises(LusbioError, match="other videos"):
        keep_real(replace(runs[0], predictions=runs[0].predictions.iloc[::-1]), mixed)
    with pytest.raises(LusbioError, match="in another way"):
        keep_real(replace(runs[0], spec=replace(runs[0].spec, fold=1)), mixed)


@pytest.mark.slow
def test_mixed_runs_of_covid_blues_are_found_once_they_are_trained(real, simulated, tmp_path, monkeypatch):
    of_covid_blues = replace(real, cohort=replace(real.cohort, name="covid_blues"))
    convex = replace(simulated, cohort=replace(simulated.cohort, name=SIMULATED))
    monkeypatch.setattr("lusbio.runs.mixed_cohort.open_study", lambda *_: convex)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    runs, line = find_mixed_runs(of_covid_blues)
    assert runs == [] and "notebook 07" in line
    convex.train(BIOMARKER_TASK, say=silent)
    together = mix_cohorts(of_covid_blues, convex)
    together.train(list_mixed_runs(together), say=silent)
    runs, line = find_mixed_runs(of_covid_blues)
    assert [run.spec.fold for run in runs] == list(range(5)) and line == ""
    check_same_videos(runs[0], real)


def test_other_cohorts_than_covid_blues_have_no_mixed_networks(real):
    assert find_mixed_runs(real) == ([], "")
