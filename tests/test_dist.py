"""Installed, not cloned: the wheel outside of the checkout, with an empty home."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, make_small_cohort, moving_bar, silent

from lusbio.cli import main
from lusbio.files import ROOT, shipped_files
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.scoring.final_model import train_final


def test_notebooks_are_copied_out_and_none_is_overwritten(tmp_path, capsys):
    assert main(["notebooks", str(tmp_path / "mine")]) == 0
    copied = sorted(path.name for path in (tmp_path / "mine").iterdir())
    assert copied == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert f"{len(copied)} notebooks" in capsys.readouterr().out
    assert main(["notebooks", str(tmp_path / "mine")]) == 0  # again, nothing was edited
    (tmp_path / "mine" / copied[0]).write_text("edited")
    (tmp_path / "mine" / copied[1]).unlink()
    assert main(["notebooks", str(tmp_path / "mine")]) == 1
    assert f"{copied[0]}: is there already" in capsys.readouterr().err
    assert (tmp_path / "mine" / copied[0]).read_text() == "edited" and not (tmp_path / "mine" / copied[1]).exists()


def test_what_is_shipped_is_there_and_what_is_not_is_none():
    assert [path.name for path in shipped_files("notebooks")][0].startswith("00_")
    assert shipped_files("nothing") == []


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Wheel and sdist, made in a copy of what git has."""
    if shutil.which("make") is None or importlib.util.find_spec("setuptools") is None:
        pytest.skip("make or setuptools is missing")
    copy = tmp_path_factory.mktemp("dist") / "checkout"
    copy.mkdir()
    needed = ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "lusbio", "notebooks", "model")
    for name in needed if (ROOT / "model").is_dir() else needed[:-1]:
        source, hidden = ROOT / name, shutil.ignore_patterns("__pycache__", ".*")
        (shutil.copytree(source, copy / name, ignore=hidden) if source.is_dir() else shutil.copy(source, copy / name))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "LUSBIO_"))}
    command = ["make", "dist", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=copy, env=inherited, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return copy / "build" / "dist"


@pytest.mark.slow
def test_the_sdist_has_what_the_wheel_has(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lusbio").rglob("*") if path.is_file()}
    assert {name for name in tracked if "__pycache__" not in name} <= names
    assert {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= names


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """A function that runs a command of an installed lusbio, in an empty home; it sees this environment's packages."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (wheel,) = dist.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    (folder / "home").mkdir()
    kept = {"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, env=kept, check=True)  # under make's PYTHONPATH the checkout would count as installed
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    run.folder, run.site = folder, site
    return run


@pytest.mark.slow
def test_an_installed_lusbio_scores_and_writes_nothing_beside_itself(installed, tmp_path):
    def everything() -> set[Path]:
        return {path for path in installed.site.rglob("*") if "__pycache__" not in path.parts}

    before = everything()
    assert "lusbio" in {path.name for path in before}
    train_final(as_study(prepare_cohort(make_small_cohort(tmp_path), TINY, protocol="final")), tmp_path / "m", silent)
    np.save(tmp_path / "bar.npy", moving_bar())
    assert "bar,20," in installed("lusbio", "score", str(tmp_path / "bar.npy"), "--model", str(tmp_path / "m"))
    if (ROOT / "model").is_dir():
        assert "bar,20," in installed("lusbio", "score", str(tmp_path / "bar.npy"))
    where = "from lusbio.files import build_folder, figures_folder as f; print(build_folder(), f('smoke', 'x'))"
    home = installed.folder / "home" / ".local" / "share" / "lusbio"
    assert installed("python", "-c", where).split() == [f"{home}/build", f"{home}/figures/smoke/x"]
    simulate = "from lusbio.cohorts.load import load_cohort as load; from dataclasses import replace as r; "
    simulate += "from lusbio.profiles import PROFILES as P; "
    simulate += "print(load('synthetic', r(P['smoke'], patients=2, video_size=32, video_frames=(2, 2))).folder)"
    assert installed("python", "-c", simulate).splitlines()[0] == f"{home}/build/cohorts/synthetic/smoke"
    assert f"{len(list((ROOT / 'notebooks').glob('*.ipynb')))} notebooks" in installed("lusbio", "notebooks", "mine")
    assert everything() == before
