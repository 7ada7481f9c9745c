import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from helpers import broken_files, make_small_cohort, moving_bar

from lusbio.cli import build_parser, main
from lusbio.cohorts.table import write_table
from lusbio.files import ROOT
from lusbio.videos import encode_video
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cohort = make_small_cohort(tmp_path / "cohort", patients=4)
    write_table(cohort.table, cohort.folder / "cohort.csv")
    return cohort.folder


def errors_of(arguments: list[str], capsys) -> list[str]:
    """Run a command that must fail: exit code 1, nothing on standard output, lines of errors."""
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_check_describes_a_good_cohort(folder, capsys):
    assert main(["check", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "8 videos of 4 patients" in printed and "Lung severity" in printed


def edit(folder: Path, column: str, row: int, value: str) -> None:
    lines = (folder / "cohort.csv").read_text().splitlines()
    place = lines[0].split(",").index(column)
    cells = lines[row + 1].split(",")
    cells[place] = value
    lines[row + 1] = ",".join(cells)
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")


def test_check_lists_all_problems_at_once(folder, capsys):
    edit(folder, BIOMARKER_NAMES[0], 0, "2")
    edit(folder, "group_id", 1, "elsewhere")
    edit(folder, "lung_severity", 2, "5")
    lines = (folder / "cohort.csv").read_text().splitlines()
    (folder / "cohort.csv").write_text("\n".join([lines[0] + ",colour", *(line + ",red" for line in lines[1:])]))
    (folder / "videos" / "p3_v0.npy").unlink()
    (folder / "videos" / "p3_v1.npy").write_bytes(b"")
    problems = "\n".join(errors_of(["check", str(folder)], capsys))
    for part in (
        f"'{BIOMARKER_NAMES[0]}' is 2.0",
        "'p0' stands in 2 groups",
        "'lung_severity' is '5'",
        "unknown column 'colour'",
        "p3_v0",
        "p3_v1.npy (0 bytes): is empty",
    ):
        assert part in problems, part


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (BIOMARKER_NAMES[3], "2", "expected 1 (present)"),
        ("group_id", "x", "stands in 2 groups"),
        ("path", "videos/absent.npy", "absent.npy"),
    ],
)
def test_bad_input_gets_one_line_that_names_it_and_writes_nothing(
    command, column, value, expected, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    edit(folder, column, 0, value)
    arguments = (
        ["check", str(folder)] if command == "check" else ["train", "--cohort", str(folder), "--profile", "smoke"]
    )
    (line,) = errors_of(arguments, capsys)
    assert expected in line and line.startswith("error: ")
    assert not (tmp_path / "build").exists()


def test_scoring_broken_videos_names_each_and_prints_no_row(tmp_path, capsys):
    encode_video(moving_bar(), tmp_path / "good.mp4", 25)
    for path in broken_files(tmp_path, tmp_path / "good.mp4").values():
        lines = errors_of(["score", str(path), "--model", str(tmp_path)], capsys)
        assert len(lines) == 1 and (str(path) in lines[0] or str(tmp_path) in lines[0])


def test_files_of_a_folder_that_are_not_scored_are_named(tmp_path, capsys):
    encode_video(moving_bar(), tmp_path / "good.mp4", 25)
    (tmp_path / "other.wmv").touch()
    (tmp_path / ".hidden").touch()
    assert main(["score", str(tmp_path), "--model", str(ROOT / "model")]) == 0
    printed = capsys.readouterr()
    assert "1 files are of no type that is read, and not scored: other.wmv" in printed.err
    assert len(printed.out.splitlines()) == 2


def test_an_unknown_cohort_is_refused_with_what_there_is(capsys):
    (line,) = errors_of(["train", "--cohort", "covid_blue", "--profile", "smoke"], capsys)
    assert "covid_blue" in line and "covid_blues" in line and "synthetic" in line


def test_the_command_is_installed_and_quick_to_say_what_it_can():
    command = [sys.executable, "-c", "import sys; from lusbio.cli import main; sys.exit(main(['--help']))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for verb in ("fetch", "simulate", "check", "train", "score"):
        assert verb in done.stdout
    imported = "import sys, lusbio.cli; print('torch' in sys.modules, 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True).stdout == "False False\n"


def test_simulate_takes_the_options_of_the_documentation():
    options = build_parser().parse_args(
        ["simulate", "--out", "x", "--patients", "3", "--probe", "convex", "--size", "64"]
    )
    assert (options.patients, options.probe, options.size, options.frames) == (3, "convex", 64, None)
    assert np.isscalar(options.seed)


@pytest.mark.parametrize("option", [["--seed", "-1"], ["--jobs", "0"], ["--frames", "0"], ["--patients", "x"]])
def test_numbers_out_of_range_are_named(option, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["simulate", "--out", "x", *option])
    assert caught.value.code == 2 and f"{option[1]!r} is not a whole number" in capsys.readouterr().err


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    (line,) = errors_of(["simulate", "--out", str(tmp_path / "file"), "--patients", "2", "--jobs", "1"], capsys)
    assert str(tmp_path / "file") in line


def test_the_simulator_does_not_overwrite_a_cohort_it_did_not_make(folder, capsys):
    before = (folder / "cohort.csv").read_bytes()
    (line,) = errors_of(["simulate", "--out", str(folder), "--patients", "2", "--jobs", "1"], capsys)
    assert "not made by the simulator" in line and (folder / "cohort.csv").read_bytes() == before


def test_folders_count_from_where_the_command_is_called(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert main(["check", folder.name]) == 0


def test_a_simulated_folder_is_called_simulated(tmp_path, capsys):
    small = ["--patients", "2", "--size", "32", "--frames", "2", "--jobs", "1"]
    assert main(["simulate", "--out", str(tmp_path / "made"), *small]) == 0
    assert main(["check", str(tmp_path / "made")]) == 0
    assert "made (simulated)" in capsys.readouterr().out


def test_table_1_is_no_final_model(capsys):
    assert build_parser().parse_args(["train", "--table1"]).table1
    with pytest.raises(SystemExit):
        main(["train", "--table1", "--final"])
    assert "not allowed with" in capsys.readouterr().err


BARE = """
import sys, warnings
from dataclasses import replace
ABSENT = (
    "av imageio pooch skops pydicom papermill nbconvert nbformat jupyterlab ipykernel IPython "
    "jupyter_client mistune"
).split()

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in ABSENT else found(name, package)

from lusbio import profiles
from lusbio.cli import main
smoke = profiles.PROFILES["smoke"]
shorter = replace(smoke.training, epochs=EPOCHS, clips_per_epoch=8)
profiles.PROFILES["smoke"] = replace(smoke, training=shorter, video_size=32, video_frames=(4, 6))
if __name__ == "__main__":
    sys.exit(main(["train", "--profile", "smoke", "--table1", "--jobs", "JOBS"]))
"""


def start_training(folder: Path, *, epochs: int = 1, jobs: int = 1) -> subprocess.Popen:
    """``lusbio train --table1`` of small simulated videos, on a machine that has torch and little else."""
    script = folder / "train.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(BARE.replace("EPOCHS", str(epochs)).replace("JOBS", str(jobs)))
    environment = {**os.environ, "LUSBIO_BUILD": str(folder / "build"), "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, str(script)], env=environment, **pipes)


@pytest.mark.slow
def test_one_command_simulates_prepares_and_trains_table_1_on_a_machine_with_little_but_torch(tmp_path):
    printed, errors = (process := start_training(tmp_path)).communicate()
    assert process.returncode == 0, errors[-2000:]
    folders = [path.parent for path in (tmp_path / "build" / "runs").glob("*/run.json")]
    assert set(map(str, folders)) <= set(printed.splitlines())
    specs = [json.loads((folder / "run.json").read_text())["spec"] for folder in folders]
    assert {spec["task"] for spec in specs} == {"biomarkers", "lung_severity", "sf_ratio", "disease"}
    assert {(spec["backbone"], spec["label_fraction"]) for spec in specs} == {("tsm_resnet18", 1.0)}
    assert any(spec["initial_weights"].startswith("run:") for spec in specs)
    for folder in folders:
        small = {"predictions.csv", "features.npy", "run.json", "timing.json", "log.csv", "log.txt"}
        assert {path.name for path in folder.iterdir()} == small | {"weights.safetensors", ".lock"}
        assert sum((folder / name).stat().st_size for name in small) < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_training_that_is_told_to_end_leaves_what_can_be_resumed_and_no_process_behind(tmp_path, jobs):
    process = start_training(tmp_path, epochs=500, jobs=jobs)
    while process.poll() is None and not list((tmp_path / "build").glob("runs/*/resume.ckpt")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 130, errors[-2000:]
    assert "run it again to go on" in errors and "Traceback" not in errors
    locks = [filelock.FileLock(path) for path in (tmp_path / "build").glob("runs/*/.lock")]
    for lock in locks:
        with lock.acquire(timeout=30):  # held as long as somebody trains
            assert not (Path(lock.lock_file).parent / "run.json").exists()
    assert any(
        torch.load(path, weights_only=True)["epoch"] >= 0 for path in (tmp_path / "build").glob("runs/*/resume.ckpt")
    )
