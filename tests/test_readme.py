"""Every command of the README is understood by the program that it calls; what is cheap runs in other tests."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from lusbio.cli import build_parser
from lusbio.files import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FENCED = re.compile(r"```(?:sh)?\n(.*?)```", re.DOTALL)
LINES = [part for block in FENCED.findall(TEXT) for line in block.splitlines() for part in line.split("&&")]
BLOCKS = list(filter(str.strip, LINES))
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCED.sub("", TEXT))]
COMMANDS = sorted({shlex.join(shlex.split(line, comments=True)) for line in BLOCKS})
COMMANDS += sorted({span for span in SPANS if re.match(r"(\S+/)?(make|lusbio|python|pip) ", span)} - set(COMMANDS))


def words_of(command: str) -> list[str]:
    """Words without the variables before them."""
    words = shlex.split(command, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words


def test_the_readme_has_commands_of_every_kind():
    programs = {words_of(command)[0].rpartition("/")[2] for command in COMMANDS}
    assert {"make", "lusbio", "dask", "pip", "python"} <= programs
    assert programs <= {"make", "lusbio", "dask", "pip", "python", "jupyter"}, "a test has to learn this program"


@pytest.mark.parametrize("command", [command for command in COMMANDS if words_of(command)[0].endswith("lusbio")])
def test_what_lusbio_is_told_it_takes(command):
    verb, *words = words_of(command)[1:]
    if words:
        assert build_parser().parse_args([verb, *words]).run
    else:  # a verb that is mentioned
        assert f"    {verb} " in build_parser().format_help()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", [command for command in COMMANDS if words_of(command)[0] == "make"])
def test_what_make_is_told_it_would_do(command, tmp_path):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "LUSBIO_"))}
    words = ["make", "-n", f"PYTHON={sys.executable}", *words_of(command)[1:]]
    environment = inherited | {"LUSBIO_BUILD": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("command", [command for command in COMMANDS if words_of(command)[0].endswith("python")])
def test_what_python_is_told_is_python(command):
    words = words_of(command)
    if words[1] == "-c":
        ast.parse(words[2])
    else:
        assert words[1] == "-m" or (ROOT / words[1]).is_file()


@pytest.mark.parametrize("command", [command for command in COMMANDS if words_of(command)[0] == "dask"])
def test_dask_knows_its_options(command):
    pytest.importorskip("distributed")
    from distributed.cli import dask_scheduler, dask_worker

    verb, *words = words_of(command)[1:]
    known = {"scheduler": dask_scheduler, "worker": dask_worker}[verb].main.params
    options = {option for parameter in known for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= options
