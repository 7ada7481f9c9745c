from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY, silent, small_study

from lusbio.errors import LusbioError
from lusbio.experts.classifiers import EXPERT_NAMES
from lusbio.experts.other_cohort import OtherCohortResult, decide_both_ways_elsewhere, decide_other_cohort
from lusbio.experts.rows import CHOSEN, NETWORK, choose_by_validation, decide_with_experts
from lusbio.runs.mixed_cohort import keep_real, list_mixed_runs, mix_cohorts
from lusbio.runs.predict import predict_cohort
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SEVERITY, Kind

pytestmark = pytest.mark.usefixtures("one_fit")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Study:
    study = small_study(tmp_path_factory.mktemp("home"))
    study.train([*study.specs(SEVERITY), *study.specs(BIOMARKER_TASK)], say=silent)
    return study


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Study:
    """Other patients, four of whose videos have no severity."""
    study = small_study(tmp_path_factory.mktemp("other"), simulated=False)
    table = study.table.copy()
    table.loc[:3, SEVERITY] = np.nan
    return replace(study, cohort=replace(study.cohort, table=table, name="elsewhere"))


@pytest.fixture(scope="module")
def result(home, other) -> OtherCohortResult:
    return decide_other_cohort(home, other)


@pytest.fixture(scope="module")
def with_mixed(home, other, tmp_path_factory) -> OtherCohortResult:
    """Decisions that mixed networks take part in; the other half of their patients is called simulated."""
    simulated = small_study(tmp_path_factory.mktemp("simulated"), patients=16)
    simulated = replace(simulated, cohort=replace(simulated.cohort, name="simulated"))
    simulated.train(BIOMARKER_TASK, say=silent)
    mixed = mix_cohorts(home, simulated)
    runs = mixed.train(list_mixed_runs(mixed), say=silent)
    return decide_other_cohort(home, other, mixed=[keep_real(run, mixed) for run in runs])


@pytest.mark.parametrize("task", [SEVERITY, BIOMARKER_TASK])
def test_on_its_own_cohort_a_run_predicts_what_it_predicted(home, task):
    run = home.runs(task)[0]
    expected = run.biomarkers if task == BIOMARKER_TASK else run.probabilities
    again = predict_cohort(run, home, n_clips=run.spec.training.evaluation_clips)
    np.testing.assert_allclose(again, expected, atol=1e-6)


def test_the_verdicts_two_rows_are_those_of_all_ways_to_decide_elsewhere(home, other, result):
    network, experts = decide_both_ways_elsewhere(SEVERITY, home, other)
    of_all = {(row.features, row.classifier): row for row in result.rows}
    assert experts.classifier == result.chosen and network.classifier == NETWORK
    for row, name in ((network, (Kind.END_TO_END, NETWORK)), (experts, (Kind.BIOMARKERS, CHOSEN))):
        assert len(row.held_out) == len(row.runs) == 3
        for mine, theirs in zip(row.held_out, of_all[name].held_out, strict=True):
            np.testing.assert_array_equal(mine.labels, theirs.labels)
            np.testing.assert_allclose(mine.probabilities, theirs.probabilities, atol=1e-9)


def test_predictions_are_kept_by_cohort_and_number_of_clips(home, other):
    run = home.runs(SEVERITY)[0]
    two, one = predict_cohort(run, other), predict_cohort(run, other, n_clips=1)
    kept = {path: path.stat().st_mtime_ns for path in (run.folder / "elsewhere").glob("elsewhere-*")}
    assert [path.name for path in sorted(kept)] == [f"elsewhere-{other.data}-{n}clips.csv" for n in (1, 2)]
    np.testing.assert_array_equal(predict_cohort(run, other), two)
    np.testing.assert_array_equal(predict_cohort(run, other, n_clips=1), one)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_predictions_that_are_cut_off_are_named(home, other):
    run = home.runs(SEVERITY)[0]
    whole = predict_cohort(run, other)
    (path,) = (run.folder / "elsewhere").glob(f"{other.cohort.name}-*2clips.csv")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(LusbioError, match=f"{path.name}: cut off; remove this file"):
        predict_cohort(run, other)
    path.unlink()
    np.testing.assert_array_equal(predict_cohort(run, other), whole)


def test_decisions_of_experts_are_read_back(home, other, result):
    folders = [run.folder / "elsewhere" for run in result.runs]
    written = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    again = decide_other_cohort(home, other)
    now = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    assert now == written and again.chosen == result.chosen
    for one, two in zip(result.rows, again.rows, strict=True):
        np.testing.assert_array_equal(one.held_out[0].probabilities, two.held_out[0].probabilities)


def test_frames_of_another_size_are_refused(home, other):
    larger = replace(other, profile=replace(TINY, training=replace(TINY.training, image_size=64)))
    with pytest.raises(LusbioError, match="32 and 64"):
        predict_cohort(home.runs(SEVERITY)[0], larger)


def test_the_rows_are_all_ways_to_decide_on_all_videos_with_a_severity(result, other):
    ways = [(row.features, row.classifier) for row in result.rows]
    experts = [(Kind.BIOMARKERS, name) for name in (*EXPERT_NAMES, CHOSEN)]
    signs = [(kind, CHOSEN) for kind in (Kind.SIGNS, Kind.SIGNS_BIOMARKERS)]
    assert ways == [(Kind.END_TO_END, NETWORK), *experts, *signs, (Kind.MAJORITY, "—")]
    known = np.flatnonzero(other.table[SEVERITY].notna())
    for row in result.rows:
        assert len(row.held_out) == 3 and all(np.array_equal(fold.rows, known) for fold in row.held_out)
    assert len(known) == 36


def test_other_labels_change_no_decision(home, other, result):
    table = other.table.copy()
    table[SEVERITY] = table[SEVERITY].sample(frac=1, random_state=0).to_numpy()
    table[list(BIOMARKER_NAMES)] = np.nan
    changed = replace(other, data="other-labels", cohort=replace(other.cohort, table=table))
    blind = decide_other_cohort(home, changed)
    assert blind.chosen == result.chosen
    for one, two in zip(result.rows, blind.rows, strict=True):
        for first, second in zip(one.held_out, two.held_out, strict=True):
            _, mine, theirs = np.intersect1d(first.rows, second.rows, return_indices=True)
            assert len(mine) > 20
            np.testing.assert_array_equal(first.probabilities[mine], second.probabilities[theirs])


def test_the_expert_that_counts_is_chosen_at_home(home, result):
    at_home = decide_with_experts(home.runs(BIOMARKER_TASK), SEVERITY, home)
    assert result.chosen == choose_by_validation(at_home).classifier
    chosen = next(row for row in result.rows if row.classifier == CHOSEN)
    of_expert = {row.classifier: row for row in result.rows}
    for k, name in enumerate(result.chosen.split(" / ")):
        assert chosen.held_out[k] is of_expert[name].held_out[k]


def test_class_frequencies_are_those_of_the_training_videos(home, result):
    majority = result.rows[-1]
    for k, fold in enumerate(majority.held_out):
        training = home.table[SEVERITY][home.splits(k) == "train"].value_counts(normalize=True, sort=False)
        np.testing.assert_allclose(fold.probabilities[0], training.reindex(list("0123")))


@pytest.mark.slow
def test_mixed_networks_stand_beside_the_others_and_change_nothing_of_them(result, with_mixed):
    ways = [(row.features, row.classifier) for row in with_mixed.rows]
    of_mixed = [(Kind.MIXED, name) for name in (*EXPERT_NAMES, CHOSEN)]
    before = [(row.features, row.classifier) for row in result.rows]
    of_signs = [*before[-3:-1], (Kind.SIGNS_MIXED, CHOSEN)]
    assert ways == [*before[:-3], *of_mixed, *of_signs, before[-1]] and with_mixed.chosen == result.chosen
    rows = {(row.features, row.classifier): row for row in with_mixed.rows}
    for row in result.rows:
        for one, two in zip(row.held_out, rows[row.features, row.classifier].held_out, strict=True):
            np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert len(with_mixed.runs) == len(result.runs) + 3
    own = rows[Kind.BIOMARKERS, CHOSEN].held_out[0].probabilities
    assert not np.array_equal(rows[Kind.MIXED, CHOSEN].held_out[0].probabilities, own)
