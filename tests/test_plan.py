from dataclasses import replace

import pytest
from small_cohort import TINY, make_small_cohort
from test_train import silent

from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.errors import LusbioError
from lusbio.network import OTHER_BACKBONE, USUAL_BACKBONE
from lusbio.runs.assembly import choose_rows
from lusbio.runs.plan import (
    EXTRAS,
    find_left_out,
    find_tasks,
    list_grid,
    list_other_backbone,
    list_pretrained,
    list_specs,
    list_with_fewer_labels,
)
from lusbio.runs.spec import PreparedCohort, describe_spec, prepare_cohort
from lusbio.runs.train import GridClock, execute, execute_many, in_waves


@pytest.fixture
def prepared(tmp_path, monkeypatch) -> PreparedCohort:
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    return prepare_cohort(make_small_cohort(tmp_path / "cohort"), TINY)


def test_table1_takes_fifteen_runs(prepared):
    specs = list_specs(prepared, "scratch")
    assert len(specs) == len(set(specs)) == 15
    assert sum(spec.task == BIOMARKER_TASK for spec in specs) == 3
    assert sum(spec.starts_from is not None for spec in specs) == 3


def test_the_grid_has_every_run_once_and_those_of_the_other_backbone(prepared):
    weights = {USUAL_BACKBONE: "scratch", OTHER_BACKBONE: "scratch"}
    grid = list_grid(prepared, weights)
    assert len(grid) == len({spec.run_id for spec in grid})
    assert {spec.task for spec in grid if spec.backbone == OTHER_BACKBONE} == set(TINY.backbone_tasks)
    paper = replace(
        TINY,
        backbone_tasks=("biomarkers", "lung_severity", "sf_ratio", "disease"),
        backbone_folds=5,
        label_fractions=(0.25, 0.5),
        label_folds=5,
    )
    assert len(list_grid(replace(prepared, profile=paper), weights)) == 15 + 2 * 3 + 12


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_real_patients_are_not_asked_about_the_method(prepared, profile):
    real = replace(prepared, cohort=replace(prepared.cohort, simulated=False))
    real = replace(real, profile=replace(TINY, name=profile))
    weights = {USUAL_BACKBONE: "scratch", OTHER_BACKBONE: "scratch"}
    grid = list_grid(real, weights)
    assert grid == [spec for task in find_tasks(real)[0] for spec in real.specs(task)]
    assert list_specs(real, "scratch") == grid and list_other_backbone(real, "scratch") == []
    assert list_with_fewer_labels(real, "lung_severity", "scratch") == {}
    left_out = find_left_out(real)
    assert list(left_out) == list(EXTRAS)
    assert all(line.startswith("Left out here: ") and "`PROFILE=paper`" in line for line in left_out.values())


def test_the_paper_profile_asks_everybody_and_simulated_patients_are_always_asked(prepared):
    paper = replace(prepared, profile=replace(TINY, name="paper"))
    real = replace(paper, cohort=replace(prepared.cohort, simulated=False))
    weights = {USUAL_BACKBONE: "scratch", OTHER_BACKBONE: "scratch"}
    assert list_grid(real, weights) == list_grid(paper, weights)
    assert find_left_out(real) == find_left_out(paper) == find_left_out(prepared) == {}


def test_a_run_comes_after_the_run_it_starts_from(prepared):
    pretrained = list_pretrained(prepared, ["lung_severity"], "scratch")
    networks = prepared.specs(BIOMARKER_TASK)
    first, second = in_waves([*pretrained, *networks, *pretrained])
    assert first == networks and second == pretrained
    assert [spec.starts_from for spec in pretrained] == [spec.run_id for spec in networks]


def test_a_run_does_not_start_from_one_that_is_not_finished(prepared):
    spec = list_pretrained(prepared, ["lung_severity"], "scratch")[0]
    with pytest.raises(LusbioError, match=r"starts from biomarkers-fold0-\w+, which is not finished"):
        execute(spec, prepared)


def test_a_pretrained_network_starts_from_the_biomarkers_of_its_fold(prepared):
    spec = list_pretrained(prepared, ["lung_severity"], "scratch")[0]
    own = prepared.specs("lung_severity")[0]
    (_, run, other) = execute_many([prepared.specs(BIOMARKER_TASK)[0], spec, own], prepared, say=silent)
    assert run.info["initial_weights"] == f"from the network of {spec.starts_from}"
    assert run.probabilities.shape == (40, 4) and abs(run.probabilities - other.probabilities).max() > 1e-6


def test_fewer_labels_mean_fewer_patients_and_as_many_steps(prepared):
    by_share = list_with_fewer_labels(prepared, "lung_severity", "scratch")
    assert list(by_share) == [0.5, 1.0] and by_share[1.0] == prepared.specs("lung_severity")[:1]
    rows = {share: choose_rows(specs[0], prepared)[0] for share, specs in by_share.items()}
    assert set(rows[0.5]["train"]) < set(rows[1.0]["train"])
    assert list(rows[0.5]["val"]) == list(rows[1.0]["val"])
    groups = prepared.cohort.table["group_id"]
    assert groups.iloc[rows[0.5]["train"]].nunique() == -(-groups.iloc[rows[1.0]["train"]].nunique() // 2)


def test_a_share_that_leaves_one_class_is_left_out(prepared):
    profile = replace(TINY, label_fractions=(0.01, 0.5))
    assert list(list_with_fewer_labels(replace(prepared, profile=profile), "disease", "scratch")) == [0.5, 1.0]


def test_runs_are_told_apart_in_words(prepared):
    (fewer, _) = list_with_fewer_labels(prepared, "lung_severity", "scratch").values()
    assert describe_spec(fewer[0]) == "lung_severity fold 0, 50 % of the labels"
    pretrained = list_pretrained(prepared, ["lung_severity"], "scratch")[1]
    assert describe_spec(pretrained) == "lung_severity fold 1, pretrained on biomarkers"


def test_the_clock_tells_what_is_left(monkeypatch):
    clock = GridClock(10)
    monkeypatch.setattr("time.monotonic", lambda: clock.started + 120)
    assert clock.after(4) == "  · all runs: 40% done, about 3 min left"
    assert clock.after(6) == "  · all runs: 100% done, less than a minute left"


def test_a_task_without_test_labels_is_not_learnable(prepared):
    table = prepared.cohort.table.copy()
    table.loc[prepared.splits(0) == "test", "disease"] = None
    fewer = replace(prepared, cohort=replace(prepared.cohort, table=table))
    assert find_tasks(fewer)[1] == {"disease": "no test video has a label for disease"}


def test_the_other_backbone_takes_what_can_be_learnt(prepared):
    bare = replace(prepared, cohort=replace(prepared.cohort, table=prepared.cohort.table.assign(lung_severity=None)))
    assert {spec.task for spec in list_other_backbone(bare, "scratch")} == {BIOMARKER_TASK, "sf_ratio"}
