from dataclasses import replace

import pytest
from helpers import THREE_EPOCHS, TINY, silent, small_study

from lusbio.errors import LusbioError
from lusbio.network import OTHER_BACKBONE
from lusbio.runs.assembly import choose_rows
from lusbio.runs.plan import (
    EXTRAS,
    HALF,
    find_left_out,
    find_tasks,
    list_grid,
    list_other_backbone,
    list_pretrained,
    list_specs,
    list_with_fewer_labels,
)
from lusbio.runs.study import Study
from lusbio.runs.train import GridClock, execute, in_waves
from lusbio.vocabulary import BIOMARKER_TASK, DISEASE, SEVERITY


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"))


def test_table1_takes_fifteen_runs(study):
    specs = list_specs(study)
    assert len(specs) == len(set(specs)) == 15
    assert sum(spec.task == BIOMARKER_TASK for spec in specs) == 3
    assert sum(spec.starts_from is not None for spec in specs) == 3


def test_the_grid_has_every_run_once_and_those_of_the_other_backbone(study):
    grid = list_grid(study)
    assert len(grid) == len({spec.run_id for spec in grid})
    assert {spec.task for spec in grid if spec.backbone == OTHER_BACKBONE} == set(TINY.backbone_tasks)
    paper = replace(
        TINY,
        backbone_tasks=("biomarkers", SEVERITY, "sf_ratio", DISEASE),
        backbone_folds=5,
        label_fractions=(0.25, 0.5),
        label_folds=5,
    )
    assert len(list_grid(replace(study, profile=paper))) == 15 + 12 + 2 * 3 + 12


def test_both_routes_are_trained_with_half_of_the_epochs_too(study):
    study = replace(study, profile=THREE_EPOCHS)
    half = [spec for spec in list_grid(study) if spec.budget == HALF]
    assert {(spec.task, spec.fold) for spec in half} == {(task, k) for task in find_tasks(study)[0] for k in range(3)}
    assert {spec.training.epochs for spec in half} == {2}
    assert {spec.training.epochs for spec in list_specs(study)} == {3}
    assert half[0].words == "biomarkers fold 0, 50 % of the epochs"


def test_every_fold_and_seed_has_weights_of_its_own(study):
    twice = replace(study, profile=replace(TINY, seeds=2))
    specs = twice.specs(SEVERITY)
    assert [(spec.seed, spec.fold) for spec in specs] == [(seed, fold) for seed in (0, 1) for fold in (0, 1, 2)]
    assert len({spec.entropy for spec in specs}) == 6
    assert twice.specs(SEVERITY, seed=0) == study.specs(SEVERITY)
    starts = [spec.starts_from for spec in list_pretrained(twice, [SEVERITY])]
    assert starts == [spec.run_id for spec in twice.specs(BIOMARKER_TASK)]


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_real_patients_are_not_asked_about_the_method(study, profile):
    real = replace(study, cohort=replace(study.cohort, simulated=False))
    real = replace(real, profile=replace(TINY, name=profile))
    grid = list_grid(real)
    usual = [spec for task in find_tasks(real)[0] for spec in real.specs(task)]
    assert list_specs(real) == usual == [spec for spec in grid if spec.budget == 1] and len(grid) == 2 * len(usual)
    assert list_other_backbone(real) == []
    assert list_with_fewer_labels(real, SEVERITY) == {}
    left_out = find_left_out(real)
    assert list(left_out) == list(EXTRAS)
    assert all(line.startswith("Left out here: ") and "`PROFILE=paper`" in line for line in left_out.values())


def test_the_paper_profile_asks_everybody_and_simulated_patients_are_always_asked(study):
    paper = replace(study, profile=replace(TINY, name="paper"))
    real = replace(paper, cohort=replace(study.cohort, simulated=False))
    assert list_grid(real) == list_grid(paper)
    assert find_left_out(real) == find_left_out(paper) == find_left_out(study) == {}


def test_a_run_comes_after_the_run_it_starts_from(study):
    pretrained = list_pretrained(study, [SEVERITY])
    networks = study.specs(BIOMARKER_TASK)
    first, second = in_waves([*pretrained, *networks, *pretrained])
    assert first == networks and second == pretrained
    assert [spec.starts_from for spec in pretrained] == [spec.run_id for spec in networks]


def test_a_run_does_not_start_from_one_that_is_not_finished(study, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    spec = list_pretrained(study, [SEVERITY])[0]
    with pytest.raises(LusbioError, match=r"starts from biomarkers-fold0-\w+, which is not finished"):
        execute(spec, study)


def test_a_pretrained_network_starts_from_the_biomarkers_of_its_fold(study):
    spec = list_pretrained(study, [SEVERITY])[0]
    own = study.specs(SEVERITY)[0]
    (_, run, other) = study.train([study.specs(BIOMARKER_TASK)[0], spec, own], say=silent)
    assert run.info["initial_weights"] == f"from the network of {spec.starts_from}"
    assert run.probabilities.shape == (40, 4) and abs(run.probabilities - other.probabilities).max() > 1e-6


def test_fewer_labels_mean_fewer_patients_and_as_many_steps(study):
    by_share = list_with_fewer_labels(study, SEVERITY)
    assert list(by_share) == [0.5, 1.0] and by_share[1.0] == study.specs(SEVERITY)[:1]
    rows = {share: choose_rows(specs[0], study)[0] for share, specs in by_share.items()}
    assert set(rows[0.5]["train"]) < set(rows[1.0]["train"])
    assert list(rows[0.5]["val"]) == list(rows[1.0]["val"])
    groups = study.table["group_id"]
    assert groups.iloc[rows[0.5]["train"]].nunique() == -(-groups.iloc[rows[1.0]["train"]].nunique() // 2)


def test_a_share_that_leaves_one_class_is_left_out(study):
    profile = replace(TINY, label_fractions=(0.01, 0.5))
    assert list(list_with_fewer_labels(replace(study, profile=profile), DISEASE)) == [0.5, 1.0]


def test_runs_are_told_apart_in_words(study):
    (fewer, _) = list_with_fewer_labels(study, SEVERITY).values()
    assert fewer[0].words == "lung_severity fold 0, 50 % of the labels"
    pretrained = list_pretrained(study, [SEVERITY])[1]
    assert pretrained.words == "lung_severity fold 1, pretrained on biomarkers"


def test_the_clock_tells_what_is_left(monkeypatch):
    clock = GridClock(10)
    monkeypatch.setattr("time.monotonic", lambda: clock.started + 120)
    assert clock.after(4) == "  · all runs: 40% done, about 3 min left"
    assert clock.after(6) == "  · all runs: 100% done, less than a minute left"


def test_a_task_without_test_labels_is_not_learnable(study):
    table = study.table.copy()
    table.loc[study.splits(0) == "test", "disease"] = None
    fewer = replace(study, cohort=replace(study.cohort, table=table))
    assert find_tasks(fewer)[1] == {"disease": "no test video has a label for disease"}


def test_the_other_backbone_takes_what_can_be_learnt(study):
    bare = replace(study, cohort=replace(study.cohort, table=study.table.assign(lung_severity=None)))
    assert {spec.task for spec in list_other_backbone(bare)} == {BIOMARKER_TASK, "sf_ratio"}
