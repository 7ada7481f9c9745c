import json

import pytest
from small_cohort import TINY, make_small_cohort
from test_decisions import made_up_run

from lusbio.provenance import describe_origin, describe_runs, settle_initial_weights
from lusbio.runs import prepare_cohort


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


def test_weights_are_looked_for_once_so_that_notebooks_mean_the_same_runs(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    said = []
    assert settle_initial_weights(prepared, say=said.append) == "scratch"
    path = tmp_path / "tiny" / "small" / "initial_weights.json"
    settled = json.loads(path.read_text())
    settled["tsm_resnet18"] = {
        "name": "resnet18-f37072fd",
        "description": "from resnet18-f37072fd.pth (ImageNet)",
    }
    path.write_text(json.dumps(settled))
    assert settle_initial_weights(prepared, say=said.append) == "resnet18-f37072fd"
    assert said[-1] == "tsm_resnet18: from resnet18-f37072fd.pth (ImageNet)"
    assert settle_initial_weights(prepared, "i3d_resnet50", said.append) == "scratch"
    assert list(json.loads(path.read_text())) == ["tsm_resnet18", "i3d_resnet50"]
