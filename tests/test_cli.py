import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_cohort import make_small_cohort
from test_videos import broken_files, moving_bar

from lusbio.cli import build_parser, main
from lusbio.cohorts.table import write_table
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
    (folder / "cohort.csv").write_text(
        "\n".join([lines[0] + ",colour", *(line + ",red" for line in lines[1:])])
    )
    (folder / "videos" / "p3_v0.npy").unlink()
    (folder / "videos" / "p3_v1.npy").write_bytes(b"")
    problems = "\n".join(errors_of(["check", str(folder)], capsys))
    for part in (f"'{BIOMARKER_NAMES[0]}' is 2.0", "'p0' stands in 2 groups", "'lung_severity' is '5'",
                 "unknown column 'colour'", "p3_v0", "p3_v1.npy (0 bytes): is empty"):  # fmt: skip
        assert part in problems, part


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [(BIOMARKER_NAMES[3], "2", "expected 1 (present)"), ("group_id", "x", "stands in 2 groups"),
     ("path", "videos/absent.npy", "absent.npy")],
)  # fmt: skip
def test_bad_input_gets_one_line_that_names_it_and_writes_nothing(
    command, column, value, expected, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    edit(folder, column, 0, value)
    arguments = (
        ["check", str(folder)]
        if command == "check"
        else ["train", "--cohort", str(folder), "--profile", "smoke"]
    )
    (line,) = errors_of(arguments, capsys)
    assert expected in line and line.startswith("error: ")
    assert not (tmp_path / "build").exists()


def test_scoring_broken_videos_names_each_and_prints_no_row(tmp_path, capsys):
    encode_video(moving_bar(), tmp_path / "good.mp4", 25)
    for path in broken_files(tmp_path, tmp_path / "good.mp4").values():
        lines = errors_of(["score", str(path), "--model", str(tmp_path)], capsys)
        assert len(lines) == 1 and (str(path) in lines[0] or str(tmp_path) in lines[0])


def test_an_unknown_cohort_is_refused_with_what_there_is(capsys):
    (line,) = errors_of(["train", "--cohort", "covid_blue", "--profile", "smoke"], capsys)
    assert "covid_blue" in line and "covid_blues" in line and "synthetic" in line


def test_the_command_is_installed_and_quick_to_say_what_it_can():
    command = [sys.executable, "-c", "import sys; from lusbio.cli import main; sys.exit(main(['--help']))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for verb in ("fetch", "simulate", "check", "train", "score"):
        assert verb in done.stdout
    imported = "import sys, lusbio.cli; print('torch' in sys.modules, 'pandas' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True).stdout
        == "False False\n"
    )


def test_simulate_takes_the_options_of_the_documentation():
    options = build_parser().parse_args(
        ["simulate", "--out", "x", "--patients", "3", "--probe", "convex", "--size", "64"]
    )
    assert (options.patients, options.probe, options.size, options.frames) == (3, "convex", 64, None)
    assert np.isscalar(options.seed)


@pytest.mark.parametrize(
    "option", [["--seed", "-1"], ["--jobs", "0"], ["--frames", "0"], ["--patients", "x"]]
)
def test_numbers_out_of_range_are_named(option, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["simulate", "--out", "x", *option])
    assert caught.value.code == 2 and f"{option[1]!r} is not a whole number" in capsys.readouterr().err


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    (line,) = errors_of(
        ["simulate", "--out", str(tmp_path / "file"), "--patients", "2", "--jobs", "1"], capsys
    )
    assert str(tmp_path / "file") in line


def test_the_simulator_does_not_overwrite_a_cohort_it_did_not_make(folder, capsys):
    before = (folder / "cohort.csv").read_bytes()
    (line,) = errors_of(["simulate", "--out", str(folder), "--patients", "2", "--jobs", "1"], capsys)
    assert "not made by the simulator" in line and (folder / "cohort.csv").read_bytes() == before


def test_folders_count_from_where_the_command_is_called(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert main(["check", folder.name]) == 0


def test_a_simulated_folder_is_called_simulated(tmp_path, capsys):
    assert main(["simulate", "--out", str(tmp_path / "made"), "--patients", "2", "--size", "32", "--frames", "2",
                 "--jobs", "1"]) == 0  # fmt: skip
    assert main(["check", str(tmp_path / "made")]) == 0
    assert "made (simulated)" in capsys.readouterr().out
