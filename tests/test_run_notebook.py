import contextlib
import functools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
from notebook_anatomy import anatomy_problems

from lusbio.errors import LusbioError
from lusbio.files import ROOT
from lusbio.publish.run_notebook import PARAMETERS, check_parameters, main, run_notebook

pytest.importorskip("papermill")
psutil = pytest.importorskip("psutil")  # which ipykernel needs
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_keep_the_house_rules(path):
    assert anatomy_problems(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_reads_every_line_of_a_parameters_cell(path):
    from papermill import inspect_notebook

    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (text,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    assert len(inspect_notebook(path)) == len(text.splitlines())


def test_a_notebook_that_keeps_the_rules_has_no_problems(tmp_path, write_notebook):
    assert anatomy_problems(write_notebook(tmp_path / "03_good.ipynb", "x = 1", "x / 2")) == []


def _edited(path: Path, edit) -> list[str]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    edit(notebook)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return anatomy_problems(path)


HOME = "/" + "home/someone/videos"
IMPORTS = "import lusbio.files\nfrom lusbio.vocabulary import a, b, c, d, e, f, g\nfrom lusbio import h as i, j, k{}"
DEFECTS = {
    "kernel": (lambda nb: nb["metadata"].clear(), "kernel"),
    "number": (lambda nb: nb["cells"][0].update(source=nb["cells"][0]["source"].replace("03", "04")), "# 03 · "),
    "reads line": (lambda nb: nb["cells"][0].update(source="# 03 · T\n\nmakes\ntakes\nexpect"), "'reads'"),
    "no parameters": (lambda nb: nb["cells"][1]["metadata"].clear(), "0 cells are tagged"),
    "two parameters": (lambda nb: nb["cells"][3]["metadata"].update(tags=["parameters"]), "2 cells are tagged"),
    "untyped": (lambda nb: nb["cells"][1].update(source="jobs = 1  # processes"), "'jobs = 1"),
    "no help": (lambda nb: nb["cells"][1].update(source="jobs: int = 1"), "'jobs: int = 1'"),
    "= in help": (lambda nb: nb["cells"][1].update(source="seed: int = 1  # a=b"), "one '='"),
    "derived": (lambda nb: nb["cells"][1].update(source="seed: int = jobs + 1  # s"), "an expression"),
    "wrong type": (lambda nb: nb["cells"][1].update(source='seed: int = "1"  # s'), "is str, declared int"),
    "not as passed": (lambda nb: nb["cells"][1].update(source="jobs: float = 1  # s"), "passed int"),
    "no prose": (lambda nb: nb["cells"].pop(2), "code follows code"),
    "outputs": (lambda nb: nb["cells"][3].update(execution_count=1), "outputs are committed"),
    "long cell": (lambda nb: nb["cells"][3].update(source="x = 1\n" * 26), "26 lines of code"),
    "long function": (lambda nb: nb["cells"][3].update(source="def f():\n" + "    x = 1\n" * 12), "f has 13 lines"),
    "long method": (
        lambda nb: nb["cells"][3].update(source="class Long:\n    def f(self):\n" + "        x = 1\n\n" * 12),
        "f has 13 lines",
    ),
    "many names": (lambda nb: nb["cells"][3].update(source=IMPORTS.format(", n, o")), "13 names are imported"),
    "path in code": (lambda nb: nb["cells"][3].update(source=f"open('{HOME}')"), "absolute path"),
    "path in prose": (lambda nb: nb["cells"][2].update(source=f"see {HOME}"), "absolute path"),
}


GUARDS = (
    "if real is not None:\n    table = count(real)\n    display(table)",
    "if not missing:\n    table = count(real)\ntable",
    "if missing:\n    print(missing)\nelse:\n    display(count(real))",
    "None if missing else count(real).style.hide()",
    "frame = videos[0] if videos else None\nplot_frame(frame, ax=ax)",
)
NO_GUARDS = (
    "rows = list(material)\nif not rows:\n    rows = [fallback]\nplot(rows)",
    "if simulated:\n    title = 'simulated'\nax = plot(rows)\nax.set_title(title)",
    "for row in rows:\n    if row is not None:\n        print(row)",
    "size = 3 if wide else 2",
    "print(*(None if row.empty else row for row in rows))",
    "# nothing yet",
)


@pytest.mark.parametrize(
    ("code", "guarded"), [*((code, True) for code in GUARDS), *((code, False) for code in NO_GUARDS)]
)
def test_no_cell_works_only_if_something_is_there(code, guarded, tmp_path, write_notebook):
    problems = anatomy_problems(write_notebook(tmp_path / "03_try.ipynb", code))
    assert ["begins with a guard" in problem for problem in problems] == [True] * guarded


def test_only_names_from_the_package_count_wherever_they_are_imported(tmp_path, write_notebook):
    code = [IMPORTS.format(", n"), "import numpy\nfrom pathlib import Path\nfrom lusbio_of_mine import x"]
    assert anatomy_problems(write_notebook(tmp_path / "03_good.ipynb", *code)) == []
    (problem,) = anatomy_problems(write_notebook(tmp_path / "03_bad.ipynb", *code, "import lusbio"))
    assert "13 names are imported from lusbio, at most 12" in problem


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_broken_rule_is_named_once(defect, tmp_path, write_notebook):
    edit, said = DEFECTS[defect]
    problems = _edited(write_notebook(tmp_path / "03_bad.ipynb", "x = 1"), edit)
    assert len(problems) == 1 and said in problems[0] and problems[0].startswith("03_bad.ipynb: ")


def test_addresses_and_relative_paths_are_not_absolute_paths(tmp_path, write_notebook):
    text = '"https://example.org/home/x", "../data/y", "and/or", "build/data/covid_blues", "1/2"'
    assert anatomy_problems(write_notebook(tmp_path / "03_good.ipynb", text)) == []


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"profil": "smoke"}, "unknown parameter 'profil'; it takes profile, cohort, jobs"),
        ({"jobs": "2"}, "parameter 'jobs' is str '2', expected int"),
        ({"jobs": True}, "parameter 'jobs' is bool True, expected int"),
    ],
)
def test_a_parameter_that_does_not_fit_stops_before_anything_runs(parameters, said, tmp_path, write_notebook):
    source = write_notebook(tmp_path / "01_try.ipynb", "raise SystemError")
    with pytest.raises(LusbioError, match=re.escape(said)):
        run_notebook(source, tmp_path / "out" / "01_try.ipynb", parameters)
    assert not (tmp_path / "out").exists()


def test_a_whole_number_may_stand_for_a_float(tmp_path, write_notebook):
    source = write_notebook(tmp_path / "01_try.ipynb", parameters="rate: float = 0.5  # per second")
    check_parameters(source, {"rate": 1})


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(LusbioError, match="no such notebook"):
        check_parameters(tmp_path / "01_try.ipynb", {})


def test_a_notebook_runs_in_this_python_and_becomes_a_page(tmp_path, write_notebook, capfd, monkeypatch):
    """One kernel for all that can be seen of a good run, because a kernel takes a second to start."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    source = write_notebook(
        tmp_path / "in" / "01_try.ipynb",
        "import os, sys\nprint(sys.executable, os.getcwd())\nprint(profile, cohort, jobs)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
    )
    output = tmp_path / "out" / "01_try.ipynb"
    before = time.time()
    run_notebook(source, output, {"profile": "smoke", "cohort": 'it\'s "mine"', "jobs": 2})
    printed = capfd.readouterr().out
    assert f'{sys.executable} {source.parent.resolve()}\nsmoke it\'s "mine" 2\n' in printed
    assert sorted(path.name for path in output.parent.glob("[!.]*")) == ["01_try.html", "01_try.ipynb"]
    assert "without encryption" not in output.read_text(encoding="utf-8")
    assert '"image/png"' in output.read_text(encoding="utf-8")
    page = output.with_suffix(".html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//|import\(["']?http|@import url\(["']?http""", page)
    assert output.stat().st_mtime < before + 1  # when it began, so that later edits are newer


def test_a_failed_cell_is_shown_and_leaves_only_the_running_file(tmp_path, write_notebook, capfd):
    code = "values = [1]\nraise ValueError('first line\\nsecond line')"
    source = write_notebook(tmp_path / "01_try.ipynb", "x = 1", code)
    output = tmp_path / "out" / "01_try.ipynb"
    assert main([str(source), "--output", str(output), "--jobs", "3"]) == 1
    said = capfd.readouterr().err
    assert "stopped in cell [4]" in said and "values = [1]" in said
    assert "ValueError: first line\nsecond line" in said and "01_try.running.ipynb" in said
    assert [path.name for path in output.parent.glob("[!.]*")] == ["01_try.running.ipynb"]


def test_a_full_disk_is_a_sentence_in_a_cell_and_outside_of_one(tmp_path, write_notebook, capfd):
    source = write_notebook(tmp_path / "01_try.ipynb", "raise OSError(28, 'No space left on device', 'frames.npy')")
    assert main([str(source), "--output", str(tmp_path / "out" / "01_try.ipynb")]) == 1
    said = capfd.readouterr().err
    assert "left on device: 'frames.npy'; make room" in said and "what is finished is kept" in said
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        assert main([str(source), "--output", str(tmp_path / "out" / "02_try.ipynb")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capfd.readouterr().err
    assert (
        "01_try: " in said
        and "File too large: '" in said
        and "02_try.running.ipynb'; allow" in said
        and "ulimit -f" in said
        and "Traceback" not in said
    )


def test_a_notebook_is_run_by_one_process_at_a_time(tmp_path, write_notebook):
    """Two share one running file, and who is second must not find half of it."""
    source, output = write_notebook(tmp_path / "01_try.ipynb", "print('run')"), tmp_path / "out" / "01_try.ipynb"
    output.parent.mkdir()
    command = [sys.executable, "-m", "lusbio.publish.run_notebook", str(source), "--output", str(output)]
    with filelock.FileLock(output.with_name(".01_try.lock")):
        process = subprocess.Popen(command, cwd=ROOT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(6)
        assert not output.with_suffix(".running.ipynb").exists()
    assert process.wait() == 0 and output.exists()


def test_a_notebook_that_has_nothing_to_do_ends_there_and_is_done(tmp_path, write_notebook, capfd):
    code = "from lusbio.errors import NothingToDo\nraise NothingToDo('No raters here: lusbio fetch pocovid.')"
    source = write_notebook(tmp_path / "in" / "01_try.ipynb", "print('begun')", code, "print('after', 'that')")
    output = tmp_path / "out" / "01_try.ipynb"
    assert main([str(source), "--output", str(output)]) == 0
    said = capfd.readouterr()
    assert "begun\nNo raters here: lusbio fetch pocovid.\n" in said.out and "after that" not in said.out
    assert said.err == ""
    page = output.with_suffix(".html").read_text(encoding="utf-8")
    assert "No raters here" in page and "Traceback" not in page and "papermill-error" not in page
    assert [path.name for path in sorted(output.parent.glob("[!.]*"))] == ["01_try.html", "01_try.ipynb"]


def test_a_kernel_that_dies_is_an_error_with_its_last_words(tmp_path, write_notebook):
    code = "import os, sys\nsys.__stderr__.write('so long')\nsys.__stderr__.flush()\nos._exit(9)"
    source = write_notebook(tmp_path / "01_try.ipynb", code)
    with pytest.raises(LusbioError, match=r"(?s)Kernel died.*memory.*so long"):
        run_notebook(source, tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()


SLEEPS = "import os, time\nopen('0.started', 'w').close()\ntime.sleep(60)"
TRAINS = """
import joblib, time
def train(number):
    open(f"{number}.started", "w").close()
    while True:
        time.sleep(0.1)
joblib.Parallel(n_jobs=2)(joblib.delayed(train)(number) for number in range(4))
"""
STOPPED = """
stopped in 01_try; finished epochs and runs are kept
go on: make paper PROFILE=smoke COHORT='it'"'"'s mine'
"""


def check_interrupt(source: Path, started: int, sent: signal.Signals, send) -> None:
    """Send a signal to the run of a notebook, as a terminal (``os.killpg``) or make (``os.kill``) does."""
    command = [sys.executable, "-m", "lusbio.publish.run_notebook", source, "--output", source.parent / "out.ipynb"]
    with subprocess.Popen(
        [*command, "--profile", "smoke", "--cohort", "it's mine", "--jobs", "2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Where the tests run in the background, SIGINT is ignored and children inherit that.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while process.poll() is None and len(list(source.parent.glob("*.started"))) < started:
            time.sleep(0.05)
        below = psutil.Process(process.pid).children(recursive=True)
        send(process.pid, sent)
        printed, _ = process.communicate(timeout=60)
    assert len(below) > started - 1
    assert printed == STOPPED
    assert process.returncode == 130
    assert [child for child in below if _is_alive(child)] == []
    assert not (source.parent / "out.ipynb").exists()


def _is_alive(process) -> bool:
    """Whether it runs; one that has ended, and that nobody has asked how, does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


posix = pytest.mark.skipif(os.name != "posix", reason="signals")


@posix
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupted_run_takes_its_kernel_along(sent, tmp_path, write_notebook):
    check_interrupt(write_notebook(tmp_path / "01_try.ipynb", SLEEPS), 1, sent, os.kill)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupted_training_says_what_is_kept_and_how_to_go_on_and_leaves_no_process(
    sent, tmp_path, write_notebook
):
    check_interrupt(write_notebook(tmp_path / "01_try.ipynb", TRAINS), 2, sent, os.killpg)


def test_lint_names_every_problem_and_fails(tmp_path, write_notebook):
    good = write_notebook(tmp_path / "01_good.ipynb", "x = 1")
    bad = write_notebook(tmp_path / "02_bad.ipynb", "x = 1\n" * 30)
    command = [sys.executable, str(ROOT / "tests" / "notebook_anatomy.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([*command, good], env=environment, check=False).returncode == 0
    found = subprocess.run([*command, good, bad], env=environment, check=False, capture_output=True, text=True)
    assert found.returncode == 1 and "02_bad.ipynb: cell 3: 30 lines" in found.stdout


def test_the_paper_s_notebooks_take_what_the_runner_passes():
    from papermill import inspect_notebook

    listed = " ".join(re.findall(r"^PAPER [:+]= (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)).split()
    for path in NOTEBOOKS:
        if path.stem in listed:
            assert set(PARAMETERS) <= set(inspect_notebook(path)), path.name
