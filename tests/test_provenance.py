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


def test_notebooks_mean_the_runs_that_were_trained(tmp_path, capsys):
    assert settle_initial_weights(tmp_path, TINY) == "scratch"
    (tmp_path / "run.json").write_text('{"initial_weights": {"tsm_resnet18": "resnet18-f37072fd"}}')
    assert settle_initial_weights(tmp_path, TINY) == "resnet18-f37072fd"
    assert "as in notebook 02: resnet18-f37072fd" in capsys.readouterr().out
