"""Training on a dask cluster: two worker processes on this machine, one of which is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import SMALL, TINY, silent, small_study

from lusbio.errors import LusbioError
from lusbio.runs import train as execution
from lusbio.runs.cluster import connect_cluster
from lusbio.runs.plan import list_pretrained
from lusbio.runs.spec import Own, PreparedCohort, Run, RunSpec, is_finished, runs_folder
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY

# Enough epochs for a worker to be killed in the middle of them.
LONGER = replace(TINY, training=replace(SMALL, epochs=4, clips_per_epoch=16))
RESULTS = ("predictions.csv", "weights.safetensors", "features.npy", "log.csv", "run.json")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"), profile=LONGER)


def list_untrained(study: Study) -> list[RunSpec]:
    """Runs that no test here finishes."""
    return study.specs(BIOMARKER_TASK, seed=9)


@contextlib.contextmanager
def start_dask(*arguments: str) -> Iterator[subprocess.Popen]:
    """A process of dask's command line, killed at the end of the block."""
    process = subprocess.Popen([sys.executable, "-m", "dask", *arguments], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def start_cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A scheduler on 127.0.0.1 and processes that work for it: the address, and all processes."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    file = folder / "scheduler.json"
    quiet = ("--host", "127.0.0.1", "--scheduler-file", str(file), "--no-dashboard")
    with contextlib.ExitStack() as stack:
        free = ("--port", "0", "--dashboard-address", "127.0.0.1:0")
        processes = [stack.enter_context(start_dask("scheduler", *free, *quiet))]
        one = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
        processes += [stack.enter_context(start_dask("worker", *quiet, *one)) for _ in range(workers)]
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(workers)
            address = client.scheduler.address
        yield address, processes


@contextlib.contextmanager
def start_threads(threads: int, monkeypatch) -> Iterator[None]:
    """A cluster of one worker within this process."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    settings = {"processes": False, "n_workers": 1, "threads_per_worker": threads, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**settings) as cluster:
        monkeypatch.setenv("LUSBIO_SCHEDULER", cluster.scheduler_address)
        yield


def kill_half_way(worker: subprocess.Popen, folders: Sequence[Path], killed: list[Path]) -> None:
    """Kill a worker when an epoch of the run it is at is over, and note that run."""
    psutil = pytest.importorskip("psutil")
    while worker.poll() is None and not all(map(is_finished, folders)):
        time.sleep(0.02)
        held = {Path(file.path) for file in psutil.Process(worker.pid).open_files()}
        for folder in folders:
            if folder / ".lock" in held and (folder / "resume.ckpt").exists():
                worker.kill()
                killed.append(folder)
                return


def read_results(runs: Sequence[Run]) -> list[dict[str, bytes]]:
    return [{name: (run.folder / name).read_bytes() for name in RESULTS} for run in runs]


@pytest.mark.slow
def test_a_worker_killed_half_way_leaves_the_same_bytes(study, tmp_path, monkeypatch):
    pretrained = list_pretrained(study, [SEVERITY])
    specs = [*study.specs(BIOMARKER_TASK)[:2], pretrained[0]]
    here = study.train(specs, say=silent)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "shared"))
    with start_cluster(tmp_path, workers=2) as (address, (_, victim, survivor)):
        monkeypatch.setenv("LUSBIO_SCHEDULER", address)
        folders, killed = [runs_folder(spec.run_id) for spec in specs], []
        killer = threading.Thread(target=kill_half_way, args=(victim, folders, killed), daemon=True)
        killer.start()
        lines: list[str] = []
        there = study.train(specs, say=lines.append)
        killer.join()
        assert survivor.poll() is None and victim.wait() == -signal.SIGKILL
    assert [run.folder for run in there] == folders and read_results(there) == read_results(here)
    for folder in folders:
        log = (folder / "log.txt").read_text()
        assert log.count("videos to train on") == 1 + (folder in killed), "only the lost run was taken up"
        assert log.count("epoch 1/4") == 1, "it began again instead of resuming"
    assert lines[:2] == ["3 runs, 3 to train, one thread each", f"training on the workers of {address}, 2 now"]
    assert sum("epoch 4/4" in line for line in lines) == 3


def test_a_single_worker_trains_not_the_one_who_asks(study, monkeypatch):
    seen = []

    def note(spec: RunSpec, prepared: PreparedCohort, own: Own) -> None:
        seen.append((spec, threading.current_thread()))

    monkeypatch.setattr(execution, "execute", note)
    specs = list_untrained(study)
    with start_threads(1, monkeypatch), pytest.raises(LusbioError, match="not trained yet"):
        study.train(specs, say=silent)
    assert {spec for spec, _ in seen} == set(specs)
    assert threading.current_thread() not in [thread for _, thread in seen]


def test_a_worker_with_two_threads_is_refused(study, monkeypatch):
    with start_threads(2, monkeypatch), pytest.raises(LusbioError, match="has 2 threads, expected 1"):
        study.train(list_untrained(study)[:1], say=silent)


@pytest.mark.slow
def test_a_worker_that_would_write_elsewhere_is_refused(study, tmp_path, monkeypatch):
    with start_cluster(tmp_path, workers=1) as (address, _):
        monkeypatch.setenv("LUSBIO_SCHEDULER", address)
        monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "elsewhere"))
        with pytest.raises(LusbioError, match=r"expected .*elsewhere.*: it needs the same checkout"):
            study.train(list_untrained(study)[:1], say=silent)


def test_a_scheduler_that_does_not_answer_is_named(study, monkeypatch):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed", reason="dask is not installed")
    specs = list_untrained(study)[:1]
    monkeypatch.setenv("LUSBIO_SCHEDULER", "tcp://127.0.0.1:9")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(LusbioError, match=r"LUSBIO_SCHEDULER is tcp://127.0.0.1:9, but no scheduler answers"),
    ):
        study.train(specs, say=silent)
    monkeypatch.setenv("LUSBIO_SCHEDULER", "nowhere")
    with pytest.raises(LusbioError, match="no scheduler answers there: .*port"):
        study.train(specs, say=silent)


@pytest.mark.slow
def test_a_call_that_takes_its_workers_down_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    with (
        start_cluster(tmp_path, workers=1) as (address, _),
        pytest.raises(LusbioError, match=r"a run was given up, its workers died"),
        connect_cluster(address, silent) as client,
    ):
        client.gather([client.submit(os.abort)])


@pytest.mark.slow
def test_a_scheduler_that_goes_away_is_named(tmp_path):
    with (
        start_cluster(tmp_path, workers=1) as (address, (scheduler, _)),
        pytest.raises(LusbioError, match="the scheduler at tcp://.* is gone"),
        connect_cluster(address, silent) as client,
    ):
        client.gather([client.submit(os.kill, scheduler.pid, signal.SIGKILL)])


def test_without_dask_the_error_says_what_to_install(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setenv("LUSBIO_SCHEDULER", "tcp://127.0.0.1:8786")
    with pytest.raises(LusbioError, match=r"dask is not installed: python -m pip install .*\.\[cluster\]"):
        study.train(list_untrained(study)[:1], say=silent)


@pytest.mark.slow
def test_what_is_finished_asks_no_scheduler(study, monkeypatch):
    specs = study.specs(BIOMARKER_TASK)[:1]
    (first,) = study.train(specs, say=silent)
    monkeypatch.setenv("LUSBIO_SCHEDULER", "tcp://127.0.0.1:9")
    (second,) = study.train(specs, say=silent)
    assert first.folder == second.folder
