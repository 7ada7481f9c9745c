import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_cohort import TINY, make_small_cohort

from lusbio.cohorts.targets import BIOMARKER_TASK, encode_task
from lusbio.errors import LusbioError
from lusbio.runs import spec as runs
from lusbio.runs.train import execute, execute_many


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    return runs.prepare_cohort(make_small_cohort(tmp_path / "cohort"), TINY)


def silent(line: str) -> None:
    """Say nothing."""


def test_a_run_leaves_weights_predictions_features_log_and_card(prepared):
    spec = prepared.specs("lung_severity")[0]
    (run,) = execute_many([spec], prepared, say=silent)
    assert run.probabilities.shape == (40, 4) and run.features.shape == (40, 512)
    np.testing.assert_allclose(run.probabilities.sum(1), 1, atol=1e-5)
    assert run.predictions["video_id"].tolist() == prepared.cohort.table["video_id"].tolist()
    assert (run.splits == prepared.splits(0)).all() and set(run.splits) == {"train", "val", "test"}
    assert len(pd.read_csv(run.folder / "log.csv")) == 3 and run.spec == spec and run.minutes > 0
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {"weights.safetensors", "predictions.csv", "features.npy", "log.csv", "run.json", "timing.json"}
    assert not any(name.endswith(".ckpt") or ".tmp" in name for name in names)


def test_a_finished_run_is_not_repeated(prepared):
    spec = prepared.specs("lung_severity")[0]
    (run,) = execute_many([spec], prepared, say=silent)
    written = (run.folder / "weights.safetensors").stat().st_mtime_ns
    execute_many([spec, spec], prepared, say=silent)
    assert (run.folder / "weights.safetensors").stat().st_mtime_ns == written


def test_the_same_spec_gives_the_same_bytes_with_one_or_two_workers(prepared, tmp_path, monkeypatch):
    specs = prepared.specs("lung_severity")[:1] + prepared.specs(BIOMARKER_TASK)[:1]
    first = execute_many(specs, prepared, jobs=1, say=silent)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build2"))
    second = execute_many(specs, prepared, jobs=2, say=silent)
    for a, b in zip(first, second, strict=True):
        assert a.folder != b.folder
        for name in ("weights.safetensors", "predictions.csv", "features.npy", "log.csv", "run.json"):
            assert (a.folder / name).read_bytes() == (b.folder / name).read_bytes(), name


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from small_cohort import make_small_cohort, TINY
from lusbio.runs import spec as runs
from lusbio.runs.train import execute
prepared = runs.prepare_cohort(make_small_cohort(Path({cohort!r})), TINY)
execute(prepared.specs("lung_severity")[0], prepared)
"""


@pytest.mark.parametrize("after_epoch", [1, 2])
def test_a_killed_run_resumes_to_the_same_bytes(prepared, tmp_path, monkeypatch, after_epoch):
    (whole,) = execute_many(prepared.specs("lung_severity")[:1], prepared, say=silent)
    environment = {**os.environ, "LUSBIO_BUILD": str(tmp_path / "killed")}
    script = KILLED.format(tests=str(Path(__file__).parent), cohort=str(tmp_path / "cohort"))
    folder = tmp_path / "killed" / "runs" / whole.folder.name
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    while process.poll() is None:
        log = folder / "log.csv"
        if (folder / "resume.ckpt").exists() and log.exists() and len(log.read_text().splitlines()) > after_epoch:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not (folder / "run.json").exists()
    (tmp_path / "killed").rename(tmp_path / "moved")  # another mount point, say
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "moved"))
    (resumed,) = execute_many(prepared.specs("lung_severity")[:1], prepared, say=silent)
    assert (resumed.folder / "log.txt").read_text().count("epoch 1/3") == 1, "it began again instead of resuming"
    for name in ("weights.safetensors", "predictions.csv", "features.npy", "log.csv", "run.json"):
        assert (whole.folder / name).read_bytes() == (resumed.folder / name).read_bytes(), name
    assert len(json.loads((resumed.folder / "timing.json").read_text())["epochs"]) == 3


def test_the_order_of_the_table_does_not_matter(prepared, tmp_path):
    (run,) = execute_many(prepared.specs("disease")[:1], prepared, say=silent)
    mixed = prepared.cohort.table.sample(frac=1, random_state=0)
    again = runs.prepare_cohort(replace(prepared.cohort, table=mixed), TINY)
    assert again.data == prepared.data
    runs.check_same_videos(run, again)
    elsewhere = replace(again, cohort=replace(again.cohort, table=mixed))
    with pytest.raises(LusbioError, match="predicted other videos"):
        runs.check_same_videos(run, elsewhere)


def test_other_data_are_refused(prepared):
    spec = replace(prepared.specs("lung_severity")[0], data="0" * 16)
    with pytest.raises(LusbioError, match="is about data 0000"):
        execute(spec, prepared)


def test_a_run_that_is_missing_is_named(prepared):
    spec = prepared.specs("disease")[2]
    with pytest.raises(LusbioError, match=spec.run_id):
        runs.find_runs([spec])


def test_whatever_decides_the_numbers_changes_the_name(prepared):
    spec = prepared.specs("lung_severity")[0]
    slower = replace(spec.training, learning_rate=1e-4)
    others = [
        replace(spec, seed=1),
        replace(spec, fold=1),
        replace(spec, data="1" * 16),
        replace(spec, training=slower),
        replace(spec, initial_weights="imagenet"),
    ]
    assert len({other.run_id for other in [spec, *others]}) == 6
    more_draws = replace(prepared, profile=replace(prepared.profile, bootstrap_draws=7))
    assert more_draws.specs("lung_severity")[0].run_id == spec.run_id


def test_the_network_learns_what_is_plain_to_see(prepared):
    longer = replace(prepared.profile.training, epochs=16, clips_per_epoch=64)
    learnt = replace(prepared, profile=replace(prepared.profile, training=longer))
    (run,) = execute_many(learnt.specs("disease")[:1], learnt, say=silent)
    test = run.splits == "test"
    truth = encode_task(prepared.cohort.table, "disease")
    assert (run.probabilities.argmax(1) == truth)[test].mean() >= 0.75
