import json
from dataclasses import replace

import pytest
from small_cohort import TINY, make_small_cohort
from test_rows import made_up_run

from lusbio.runs.origin import (
    add_runs,
    describe_kind,
    describe_origin,
    describe_runs,
    save_provenance,
    settle_initial_weights,
)
from lusbio.runs.spec import prepare_cohort


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_cohort(make_small_cohort(tmp_path_factory.mktemp("cohort")), TINY)


def test_the_origin_says_simulated_or_real_profile_weights_and_commit(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run", "lung_severity")
    line = describe_origin(prepared, [run])
    for part in ("**Simulated**", "40 videos, 20 patients", "`tiny`", "scratch", "CPU (32-true)", "commit"):
        assert part in line


def test_times_stay_out_of_what_is_compared(prepared, tmp_path):
    run = made_up_run(prepared, tmp_path / "run", "lung_severity")
    described, timing = describe_runs(prepared, [run])
    assert "minutes" not in json.dumps(described) and timing["minutes"] == 1.5
    json.dumps(timing)


def test_runs_of_later_notebooks_count_too_and_once(prepared, tmp_path):
    own = made_up_run(prepared, tmp_path / "own", "lung_severity")
    later = made_up_run(prepared, tmp_path / "later", "disease")
    later = replace(later, spec=replace(later.spec, cohort="synthetic_convex", seed=3), minutes=2.25)
    add_runs([later], tmp_path / "figures")
    assert not (tmp_path / "figures").exists()  # notebook 02 has not been there
    timing = save_provenance(prepared, [own], tmp_path / "figures")
    assert timing["minutes"] == 1.5
    for _ in range(2):
        add_runs([own, later], tmp_path / "figures")
        described, timing = (
            json.loads((tmp_path / "figures" / f"{name}.json").read_text()) for name in ("run", "timing")
        )
        assert timing["minutes"] == 3.75
        assert [(run["run"], run["kind"]) for run in timing["runs"]] == [
            ("own", "end-to-end"),
            ("later", "end-to-end, synthetic convex"),
        ]
        assert list(described["runs"]) == ["own", "later"] and described["seeds"] == [0, 3]
    first = json.loads(json.dumps(describe_runs(prepared, [own])[0]))
    kept = [name for name in first if name not in ("seeds", "runs")]
    assert {name: described[name] for name in kept} == {name: first[name] for name in kept}


def test_a_biomarker_network_that_starts_from_another_is_no_end_to_end_one(prepared):
    kinds = [describe_kind(prepared.specs(task, "run:x")[0]) for task in ("biomarkers", "lung_severity")]
    assert kinds == ["biomarker network, pretrained", "pretrained on biomarkers"]


def test_weights_are_looked_for_once_so_that_notebooks_mean_the_same_runs(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    said = []
    assert settle_initial_weights(prepared, say=said.append) == "scratch"
    path = tmp_path / "tiny" / "small" / "initial_weights.json"
    settled = json.loads(path.read_text())
    settled["tsm_resnet18"] = {"name": "resnet18-f37072fd", "description": "from resnet18-f37072fd.pth (ImageNet)"}
    path.write_text(json.dumps(settled))
    assert settle_initial_weights(prepared, say=said.append) == "resnet18-f37072fd"
    assert said[-1] == "tsm_resnet18: from resnet18-f37072fd.pth (ImageNet)"
    assert settle_initial_weights(prepared, "i3d_resnet50", said.append) == "scratch"
    assert list(json.loads(path.read_text())) == ["tsm_resnet18", "i3d_resnet50"]
