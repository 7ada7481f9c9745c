"""Training under SLURM, with two nodes and a worker that is killed: the bytes are those of training here.

Skipped where no SLURM answers. Debian's packages do on one machine: slurmctld, slurmd, slurm-client and munge, two
nodes with NodeAddr=127.0.0.1 and ports of their own, ``slurmd -N NODE`` for each; SLURM_CONF says where the
configuration is.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from helpers import SMALL, TINY, silent, small_study

from lusbio.runs.spec import is_finished, runs_folder
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY

RESULTS = ("predictions.csv", "weights.safetensors", "features.npy", "log.csv", "run.json")


def count_nodes() -> int:
    """Nodes of the SLURM that answers here."""
    if shutil.which("sinfo") is None:
        return 0
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--states=idle"], capture_output=True, text=True, timeout=30
    )
    return len(done.stdout.splitlines())


@pytest.fixture
def study(tmp_path) -> Study:
    from dataclasses import replace

    longer = replace(TINY, training=replace(SMALL, epochs=4, clips_per_epoch=16))
    return small_study(tmp_path / "cohort", profile=longer)


def kill_one(folders: list[Path], killed: list[Path]) -> None:
    """Kill the process that trains a run, when an epoch of it is over, and note the run."""
    psutil = pytest.importorskip("psutil")
    while not all(map(is_finished, folders)):
        time.sleep(0.02)
        begun = [folder for folder in folders if (folder / "resume.ckpt").exists()]
        for process in psutil.process_iter() if begun else ():
            try:
                held = {Path(file.path).parent for file in process.open_files() if file.path.endswith(".lock")}
            except psutil.Error:
                continue
            if process.pid != os.getpid() and (theirs := held & set(begun)):
                process.send_signal(signal.SIGKILL)
                killed += theirs
                return


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of dask-jobqueue's clean-up
def test_slurm_gives_the_same_bytes_when_a_worker_is_killed(study, tmp_path, monkeypatch):
    jobqueue = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    if count_nodes() < 2:
        pytest.skip("no SLURM with two idle nodes answers here")
    specs = [*study.specs(BIOMARKER_TASK)[:2], study.specs(SEVERITY)[0]]
    here = study.train(specs, say=silent)
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "shared"))
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    job = {"cores": 1, "processes": 1, "memory": "1500MB", "walltime": "00:20:00", "log_directory": str(tmp_path)}
    flags = ["--no-nanny", "--host", "127.0.0.1"]
    with jobqueue.SLURMCluster(**job, scheduler_options=local, worker_extra_args=flags) as cluster:
        cluster.scale(jobs=2)
        cluster.wait_for_workers(2, timeout=300)
        monkeypatch.setenv("LUSBIO_SCHEDULER", cluster.scheduler_address)
        folders, killed = [runs_folder(spec.run_id) for spec in specs], []
        killer = threading.Thread(target=kill_one, args=(folders, killed), daemon=True)
        killer.start()
        there = study.train(specs, say=silent)
        killer.join()
    assert len(killed) == 1 and [run.folder for run in there] == folders
    for mine, theirs in zip(here, there, strict=True):
        for name in RESULTS:
            assert (mine.folder / name).read_bytes() == (theirs.folder / name).read_bytes(), name
