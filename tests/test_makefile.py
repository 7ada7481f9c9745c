"""`make` as a person meets it: the real Makefile in a small checkout."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lusbio.cohorts.load import cohort_name
from lusbio.files import ROOT
from lusbio.publish.run_notebook import PARAMETERS

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LISTS = [line.split() for line in re.findall(r"^PAPER [:+]= (.*)$", MAKEFILE, flags=re.MULTILINE)]
PAPER = LISTS[0] + LISTS[1]  # of every cohort, and of the synthetic one


RESULT = """
import json
from lusbio.files import figures_folder
folder = figures_folder(profile, cohort)
folder.mkdir(parents=True, exist_ok=True)
run = {"simulated": True, "videos": 1, "patients": 1, "commit": "0", "devices": [], "precision": [], "notes": [],
       "initial_weights": {}, "profile": {"training": {"frames": 1, "image_size": 1, "epochs": 1}}, "versions": {},
       "seeds": [0], "protocol": "paper", "data": "0"}
(folder / "run.json").write_text(json.dumps(run))
(folder / "timing.json").write_text('{"minutes": 0, "runs": []}')
"""
"""What the last step needs of notebook 02."""


def _make(folder: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess:
    """Run make as from a fresh terminal, whatever `make test` and CI have set."""
    inherited = ("MAKE", "MFLAGS", "LUSBIO_", "PROFILE", "COHORT", "JOBS", "PYTHON", "TORCH_INDEX")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    return subprocess.run(
        ["make", f"PYTHON={python}", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def checkout(tmp_path, write_notebook) -> Path:
    """A checkout with the real Makefile and package and with small notebooks."""
    folder = tmp_path / "check out"
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "lusbio", folder / "lusbio", ignore=shutil.ignore_patterns("__pycache__"))
    for name in PAPER:
        code = "import lusbio\nprint(profile, cohort, jobs, lusbio.__file__)"
        write_notebook(folder / "notebooks" / f"{name}.ipynb", code + (RESULT if name == "02_biomarkers" else ""))
    long_ago = time.time() - 3600
    for path in folder.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    return folder


def _planned(folder: Path, *arguments: str) -> list[list[str]]:
    """The arguments of the runner, for each notebook that `make -n` would run."""
    result = _make(folder, "-n", "paper", *arguments)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[3:] for line in lines if " -m lusbio.publish.run_notebook " in line]


def test_the_paper_is_a_typed_list_that_trains_once_and_second():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    by_themselves = {"90_your_task", "11_dense_labels", "12_change", "13_pretraining", "20_label_videos"}
    assert {name for listed in LISTS for name in listed} == notebooks - by_themselves
    assert PAPER[:2] == ["01_cohort", "02_biomarkers"]


def test_make_alone_lists_every_target():
    listed = _make(ROOT).stdout
    targets = re.search(r"^\.PHONY: (.*) FORCE$", MAKEFILE, flags=re.MULTILINE)[1].split()
    assert set(re.findall(r"^  make ([\w-]+)", listed, flags=re.MULTILINE)) == set(targets)


def test_make_passes_exactly_the_runner_s_parameters(checkout):
    planned = _planned(checkout, "PROFILE=smoke", "JOBS=3")
    assert [Path(arguments[0]).stem for arguments in planned] == PAPER
    for arguments in planned:
        options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
        assert options.pop("--output") == f"build/smoke/synthetic/notebooks/{Path(arguments[0]).name}"
        assert options == {"--profile": "smoke", "--cohort": "synthetic", "--jobs": "3"}
        assert {name.removeprefix("--") for name in options} == set(PARAMETERS)


def test_a_folder_may_have_any_name_and_is_watched(checkout):
    videos = checkout / "it's our" / "hospital (2026)"
    videos.mkdir(parents=True)
    cohort = "COHORT=it's our/hospital (2026)/"
    assert cohort_name(videos) == "hospital_2026"
    for arguments in _planned(checkout, cohort):
        assert arguments[2] == f"build/laptop/hospital_2026/notebooks/{Path(arguments[0]).name}"
        assert arguments[arguments.index("--cohort") + 1] == "it's our/hospital (2026)/"
    inputs = checkout / "build/laptop/hospital_2026/notebooks/inputs.txt"
    before = inputs.read_text()
    _planned(checkout, cohort)
    assert inputs.read_text() == before
    (videos / "new.mp4").write_bytes(b"video")
    _planned(checkout, cohort)
    assert inputs.read_text() != before


def test_make_smoke_is_the_small_synthetic_paper_whatever_else_is_set(checkout):
    for name in PAPER:
        (checkout / "notebooks" / f"{name}.ipynb").write_text("not a notebook")
    result = _make(checkout, "smoke", "PROFILE=paper", "COHORT=pocovid")
    assert result.returncode == 2
    assert sorted(path.name for path in (checkout / "build").iterdir()) == ["smoke"]
    assert sorted(path.name for path in (checkout / "build/smoke").iterdir()) == ["synthetic"]


@pytest.mark.slow
def test_the_paper_stops_at_a_failure_goes_on_there_and_is_then_left_alone(checkout, write_notebook):
    """A kernel per notebook: `make paper` as a person meets it."""
    pytest.importorskip("papermill")
    broken = write_notebook(checkout / "notebooks" / "00_start_here.ipynb", "raise ValueError('not yet')")
    failed = _make(checkout, "paper", "PROFILE=smoke", "JOBS=1")
    assert failed.returncode == 2
    assert "stopped in cell [3]" in failed.stderr and "ValueError: not yet" in failed.stderr
    assert re.findall(r"^\[.*", failed.stdout, re.MULTILINE) == [
        f"[{number}/{len(PAPER)}] {name}" for number, name in enumerate(PAPER[:3], 1)
    ]
    assert f"smoke synthetic 1 {checkout}" in failed.stdout

    write_notebook(broken, "x = 1")
    mended = _make(checkout, "paper", "PROFILE=smoke", "JOBS=1")
    assert mended.returncode == 0, mended.stderr
    assert re.findall(r"^\[.*", mended.stdout, re.MULTILINE) == [
        f"[{number}/{len(PAPER)}] {name}" for number, name in enumerate(PAPER[2:], 3)
    ]
    pages = sorted(path.name for path in (checkout / "build/smoke/synthetic/notebooks").glob("*.html"))
    assert pages == sorted(f"{name}.html" for name in PAPER)
    assert (checkout / "build/smoke/synthetic/paper.html").is_file()

    assert _planned(checkout, "PROFILE=smoke", "JOBS=2") == []
    run = checkout / "build/runs/a-run/run.json"
    run.parent.mkdir(parents=True)
    (checkout / "build/smoke/synthetic/runs.txt").write_text("a-run\n")  # as notebook 02 writes it
    assert [Path(arguments[0]).stem for arguments in _planned(checkout, "PROFILE=smoke")] == PAPER[1:]
    run.touch()
    assert _planned(checkout, "PROFILE=smoke") == []
    (checkout / "notebooks" / "03_experts.ipynb").touch()
    assert [Path(arguments[0]).stem for arguments in _planned(checkout, "PROFILE=smoke")] == ["03_experts"]
    for name in ("vocabulary.py", "words/artefacts.toml", "simulation/targets.csv", "report/published/published.csv"):
        (checkout / "lusbio" / name).touch()
        assert [Path(arguments[0]).stem for arguments in _planned(checkout, "PROFILE=smoke")] == PAPER, name
        os.utime(checkout / "lusbio" / name, (0, 0))


def _python(path: Path, *, answers: str) -> str:
    """A script that stands for an interpreter without the stack, as `sh` sees it."""
    path.write_text(f'#!/bin/sh\ncase "$*" in --version) echo Python 3.9.2;; {answers} *) exit 1;; esac\n')
    path.chmod(0o755)
    return str(path)


def test_an_old_python_is_told_what_to_do(checkout, tmp_path):
    result = _make(checkout, "env", python=_python(tmp_path / "old", answers=""))
    assert result.returncode == 2
    assert "needs Python 3.11 or newer" in result.stdout and "Python 3.9.2" in result.stdout
    assert not (checkout / ".venv").exists()


def test_a_python_that_cannot_make_environments_is_told_what_to_do(checkout, tmp_path):
    new_enough = '"-c import sys; sys.exit(sys.version_info < (3, 11))") exit 0;;'
    result = _make(checkout, "env", python=_python(tmp_path / "debian", answers=new_enough))
    assert result.returncode == 2
    assert "apt-get install python3-venv" in result.stdout
    assert not (checkout / ".venv").exists()


def test_an_active_environment_with_the_stack_is_used_as_it_is(checkout):
    result = _make(checkout, "env")
    assert result.returncode == 0, result.stderr
    assert f"{sys.executable}: Python" in result.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("place", ["file", "file/in/it"])
def test_a_build_folder_that_cannot_be_written_is_a_sentence(checkout, place):
    (checkout / "file").touch()
    result = _make(checkout, "paper", f"BUILD={place}")
    assert result.returncode == 2 and "LUSBIO_BUILD" in result.stderr
    assert f"{place} cannot be written: make room, or name another build folder" in result.stderr
