import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import THREE_EPOCHS, silent, small_study

from lusbio.cohorts.targets import encode_task
from lusbio.errors import LusbioError
from lusbio.runs.spec import Run, RunSpec, check_same_videos, find_finished, find_runs, prepare_cohort, runs_folder
from lusbio.runs.study import Study
from lusbio.runs.train import execute, execute_many
from lusbio.vocabulary import BIOMARKER_TASK, DISEASE, SEVERITY

RESULTS = ("weights.safetensors", "predictions.csv", "features.npy", "log.csv", "run.json")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"), profile=THREE_EPOCHS)


def test_a_run_leaves_weights_predictions_features_log_and_card(study):
    spec = study.specs(SEVERITY)[0]
    (run,) = study.train([spec], say=silent)
    assert run.probabilities.shape == (40, 4) and run.features.shape == (40, 8 * 16)
    np.testing.assert_allclose(run.probabilities.sum(1), 1, atol=1e-5)
    assert run.predictions["video_id"].tolist() == study.table["video_id"].tolist()
    assert (run.splits == study.splits(0)).all() and set(run.splits) == {"train", "val", "test"}
    assert len(pd.read_csv(run.folder / "log.csv")) == 3 and run.spec == spec and run.minutes > 0
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {*RESULTS, "timing.json"}
    assert not any(name.endswith(".ckpt") or ".tmp" in name for name in names)


def test_a_finished_run_is_not_repeated(study):
    spec = study.specs(SEVERITY)[0]
    (run,) = study.train([spec], say=silent)
    written = (run.folder / "weights.safetensors").stat().st_mtime_ns
    study.train([spec, spec], say=silent)
    assert (run.folder / "weights.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_the_same_spec_gives_the_same_bytes_with_one_or_two_workers(study, tmp_path, monkeypatch):
    specs = study.specs(SEVERITY, seed=2)[:1] + study.specs(BIOMARKER_TASK, seed=2)[:1]
    # The workers outlive this test: they train where all tests do.
    first = execute_many(specs, study, jobs=2, say=silent)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build2"))
    second = execute_many(specs, study, jobs=1, say=silent)
    for a, b in zip(first, second, strict=True):
        assert a.folder != b.folder
        for name in RESULTS:
            assert (a.folder / name).read_bytes() == (b.folder / name).read_bytes(), name


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers import THREE_EPOCHS, small_study
from lusbio.runs.train import execute
study = small_study(Path({cohort!r}), profile=THREE_EPOCHS)
execute(study.specs("lung_severity")[0], study)
"""


@pytest.mark.parametrize("after_epoch", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same_bytes(study, tmp_path, monkeypatch, after_epoch):
    (whole,) = study.train(study.specs(SEVERITY)[:1], say=silent)
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
    (resumed,) = study.train(study.specs(SEVERITY)[:1], say=silent)
    assert (resumed.folder / "log.txt").read_text().count("epoch 1/3") == 1, "it began again instead of resuming"
    for name in RESULTS:
        assert (whole.folder / name).read_bytes() == (resumed.folder / name).read_bytes(), name
    assert len(json.loads((resumed.folder / "timing.json").read_text())["epochs"]) == 3


@pytest.fixture(scope="module")
def whole(study) -> tuple[RunSpec, dict[str, bytes]]:
    """A spec and what a run of it leaves when nothing goes wrong."""
    (run,) = study.train(study.specs(SEVERITY, seed=3)[:1], say=silent)
    return run.spec, {name: (run.folder / name).read_bytes() for name in RESULTS}


def check_trained_again(study: Study, whole: tuple[RunSpec, dict[str, bytes]]) -> Run:
    """Train what is not there, and find what is written when nothing goes wrong."""
    (run,) = study.train([whole[0]], say=silent)
    assert {name: (run.folder / name).read_bytes() for name in RESULTS} == whole[1]
    return run


def test_a_damaged_run_is_named_and_made_again_once_it_is_removed(study, whole):
    folder = runs_folder(whole[0].run_id)
    for name in ("weights.safetensors", "predictions.csv", "features.npy", "run.json", "timing.json"):
        content = (folder / name).read_bytes()
        for length in (len(content) * 2 // 3, len(content) - 2):
            (folder / name).write_bytes(content[:length])
            with pytest.raises(LusbioError, match=f"{folder.name}: damaged .*; remove this folder"):
                study.train([whole[0]], say=silent)
        if name == "run.json":
            with pytest.raises(LusbioError, match="damaged .*; remove this folder"):
                find_finished(SEVERITY)
        (folder / name).write_bytes(content)
    (folder / "features.npy").unlink()
    with pytest.raises(LusbioError, match="damaged .*features.npy"):
        find_runs([whole[0]])
    shutil.rmtree(folder)
    check_trained_again(study, whole)


def test_half_a_checkpoint_is_no_reason_to_stop(study, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    folder = runs_folder(whole[0].run_id)
    folder.mkdir(parents=True)
    (folder / "resume.ckpt").write_bytes(b"PK\x03\x04" + bytes(10_000))
    run = check_trained_again(study, whole)
    assert "begins again" in (run.folder / "log.txt").read_text()


@pytest.mark.parametrize("largest", [300, 200_000, 4_000_000])
def test_a_training_on_a_full_disk_names_the_file_and_goes_on_when_there_is_room(
    study, whole, largest, tmp_path, monkeypatch
):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}"):
            study.train([whole[0]], say=silent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    check_trained_again(study, whole)


def test_the_order_of_the_table_does_not_matter(study):
    (run,) = study.train(study.specs(DISEASE)[:1], say=silent)
    mixed = study.table.sample(frac=1, random_state=0)
    again = prepare_cohort(replace(study.cohort, table=mixed), study.profile)
    assert again.data == study.data
    check_same_videos(run, again)
    elsewhere = replace(again, cohort=replace(again.cohort, table=mixed))
    with pytest.raises(LusbioError, match="predicted other videos"):
        check_same_videos(run, elsewhere)


def test_other_data_are_refused(study):
    spec = replace(study.specs(SEVERITY)[0], data="0" * 16)
    with pytest.raises(LusbioError, match="is about data 0000"):
        execute(spec, study)


def test_a_run_that_is_missing_is_named(study):
    spec = study.specs(DISEASE, seed=7)[2]
    with pytest.raises(LusbioError, match=spec.run_id):
        find_runs([spec])
    with pytest.raises(LusbioError, match=f"not trained yet: .*{spec.run_id}"):
        study.runs(DISEASE, seed=7)


def test_whatever_decides_the_numbers_changes_the_name(study):
    spec = study.specs(SEVERITY)[0]
    slower = replace(spec.training, learning_rate=1e-4)
    others = [
        replace(spec, seed=1),
        replace(spec, fold=1),
        replace(spec, data="1" * 16),
        replace(spec, training=slower),
        replace(spec, initial_weights="imagenet"),
        replace(spec, own="loss-00000000"),
    ]
    assert len({other.run_id for other in [spec, *others]}) == 7
    more_draws = replace(study, profile=replace(study.profile, bootstrap_draws=7))
    assert more_draws.specs(SEVERITY)[0].run_id == spec.run_id


@pytest.mark.slow
def test_the_network_learns_what_is_plain_to_see(study):
    longer = replace(study.profile.training, epochs=4, clips_per_epoch=128)
    learnt = replace(study, profile=replace(study.profile, training=longer))
    (run,) = learnt.train(learnt.specs(DISEASE)[:1], say=silent)
    test = run.splits == "test"
    truth = encode_task(study.table, DISEASE)
    assert (run.probabilities.argmax(1) == truth)[test].mean() >= 0.75
