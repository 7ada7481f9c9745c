"""Running the notebooks as a paper.

``python -m lusbio.publish.run_notebook NOTEBOOK --output EXECUTED --profile laptop --cohort synthetic --jobs 2`` is
what ``make paper`` calls for each notebook. The only module that knows papermill and nbconvert, and only when it runs
one: what is slow to import comes after ``ended_in_two_lines``.
"""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lusbio.errors import LusbioError, NothingToDo, name_way_out

PARAMETERS: dict[str, type] = {"profile": str, "cohort": str, "jobs": int}
"""What ``make paper`` passes to every notebook."""

LAST_WORDS = "last_words.txt"
"""What a kernel says outside of its notebook."""


@contextlib.contextmanager
def ended_in_two_lines(what: str, profile: str | None, cohort: str | None) -> Iterator[None]:
    """While the block lasts, an interrupt (Ctrl-C, SIGTERM) says what is kept and how to go on, and nothing else.

    What ends then, kernel and workers too, would bury these two lines under its tracebacks. Further signals are not
    heeded, because ending takes seconds and make passes on what the terminal has sent already.

    Args:
        what: Is interrupted, e.g. ``"02_biomarkers"``.
        profile: As handed to make; None where it was not.
        cohort: As handed to make; None where it was not.
    """
    options = {"PROFILE": profile, "COHORT": cohort}
    command = " ".join(["make paper", *(f"{name}={shlex.quote(value)}" for name, value in options.items() if value)])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heeded = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}  # as behind an `&`
    interrupted = False

    def end(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)
        os.write(2, f"\nstopped in {what}; finished epochs and runs are kept\ngo on: {command}\n".encode())
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        raise KeyboardInterrupt

    for number in heeded:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
        if interrupted:  # whatever has become of the exception on its way
            raise KeyboardInterrupt


def run_command(command: Callable[[], None], what: str, profile: str | None, cohort: str | None) -> int:
    """Run what a command line asks for: 0 when all went well, 1 after a LusbioError or a full disk, 130 if interrupted.

    Args:
        command: What to run.
        what: Is run, for ``ended_in_two_lines``.
        profile: As handed to make; None where it was not.
        cohort: As handed to make; None where it was not.
    """
    try:
        with ended_in_two_lines(what, profile, cohort):
            command()
    except LusbioError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"\n{what}: {error}{name_way_out(error.errno)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def check_parameters(source: Path, parameters: dict[str, str | int | float | bool]) -> None:
    """Raise unless a notebook takes exactly these parameters, each with this type.

    papermill itself only warns about a name that it does not know, and the notebook then runs with
    its defaults.

    Args:
        source: The notebook, with one cell tagged ``parameters``.
        parameters: Values by name. A whole number may stand for a ``float``.

    Raises:
        LusbioError: Naming every unknown name and every wrong type, and what there is instead.
    """
    from papermill import inspect_notebook

    if not source.is_file():
        raise LusbioError(f"{source}: no such notebook")
    declared = {name: entry["inferred_type_name"] for name, entry in inspect_notebook(source).items()}
    problems = []
    for name, value in parameters.items():
        found = type(value).__name__
        if name not in declared:
            problems.append(f"unknown parameter {name!r}; it takes {', '.join(declared) or 'none'}")
        elif not fits(found, declared[name]):
            problems.append(f"parameter {name!r} is {found} {value!r}, expected {declared[name]}")
    if problems:
        raise LusbioError("\n".join(f"{source}: {problem}" for problem in problems))


def fits(found: str, declared: str) -> bool:
    """Whether a value of one type may stand for another: the same, or a whole number for any.

    Example:
        >>> fits("int", "float"), fits("float", "int")
        (True, False)
    """
    return found == declared or (found, declared) == ("int", "float")


def run_notebook(source: Path, output: Path, parameters: dict[str, str | int | float | bool]) -> None:
    """Execute a notebook with the running interpreter and write it, and a page of it, when it is done.

    While it runs, what it has done so far is in ``<output>.running.ipynb``; what it prints appears
    here too. ``output`` exists only once everything went well, so that a rule of make may trust it; it ends early, and
    well, where a cell raises ``NothingToDo``. Its time is when the run began: a source that is edited meanwhile is
    newer, as it should be.

    Args:
        source: The notebook. It runs in its own folder, as it does in JupyterLab.
        output: The executed notebook to write; ``output`` with the suffix ``.html`` is the page,
            which needs no other file and no network.
        parameters: Values by name, for the cell tagged ``parameters``.

    Raises:
        LusbioError: If a parameter does not fit (nothing runs then), or a cell fails; names the
            cell and its error. The executed part is kept in the running file.
    """
    import filelock

    from lusbio.files import named_in_errors, write_text

    check_parameters(source, parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    running = output.with_suffix(".running.ipynb")
    lock = output.with_name(f".{output.stem}.lock")
    with filelock.FileLock(lock), named_in_errors(running):  # a second make waits, then finds every training done
        _execute(source, running, parameters)
        write_text(_page(running), output.with_suffix(".html"))
        running.replace(output)


def _execute(source: Path, running: Path, parameters: dict[str, str | int | float | bool]) -> None:
    """Write a notebook into its running file, cell after cell."""
    import papermill

    began = time.time()
    with tempfile.TemporaryDirectory(prefix="lusbio-") as folder, _kernel_of_this_python(Path(folder)) as kernel:
        by = {"kernel_name": "python3", "kernel_manager_class": kernel, "cwd": source.resolve().parent}
        shown = {"stdout_file": sys.stdout, "stderr_file": sys.stderr, "progress_bar": False}
        shown["extra_arguments"] = ["--log-level=CRITICAL"]  # when stopped, a kernel logs how its sockets went
        try:
            papermill.execute_notebook(source.resolve(), running.resolve(), parameters, **by, **shown)
        except papermill.PapermillExecutionError as error:
            if error.ename != NothingToDo.__name__:
                raise LusbioError(_failure(source, running, error)) from None
            print(error.evalue)
            marked = papermill.iorw.load_notebook_node(str(running))
            papermill.iorw.write_ipynb(papermill.execute.remove_error_markers(marked), str(running))
        except RuntimeError as error:  # nbclient's DeadKernelError, and kernels that never start
            said = (Path(folder) / LAST_WORDS).read_text(errors="replace")
            raise LusbioError(f"{source}: {error}. Out of memory? So far: {running}\n{said}".rstrip()) from error
    os.utime(running, (began, began))


@contextlib.contextmanager
def _kernel_of_this_python(folder: Path) -> Iterator[type]:
    """A kernel manager that starts ``sys.executable``, whatever kernels are installed; none outlives the block.

    Args:
        folder: For the kernel's sockets, and what it says when it dies. Its path has to be short (107 bytes on Linux).
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    # Sockets in a folder only we can read: over TCP the kernel warns, in the notebook, that anyone may listen.
    channel = {"transport": "ipc", "ip": f"{folder}/kernel"} if os.name == "posix" else {}
    started = []

    class KernelOfThisPython(AsyncKernelManager):
        def __init__(self, **settings):
            # With no folder to look into, "python3" can only be ipykernel's own spec, which is sys.executable.
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **channel, **settings)

        async def start_kernel(self, **settings):
            # Figures without the date in their bytes; tqdm need not ask for widgets it does not need.
            environment = os.environ | {"SOURCE_DATE_EPOCH": "0", "PYTHONWARNINGS": "ignore:IProgress not found"}
            environment.pop("MPLBACKEND", None)  # agg would leave the notebook without figures
            with (folder / LAST_WORDS).open("wb") as errors:  # not the terminal: a stopped kernel complains
                await super().start_kernel(env=environment, stdout=errors, stderr=errors, **settings)
            started.append(self.provisioner.pid)

    try:
        yield KernelOfThisPython
    finally:
        for group in started:  # a kernel and its workers are a group of their own; some may not have ended when asked
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def _failure(source: Path, running: Path, error: Exception) -> str:
    """A few lines for the person at the terminal: which cell, what it did, what went wrong."""
    code = [f"    {line}" for line in error.source.strip().splitlines()]
    shown = code if len(code) <= 6 else [*code[:5], f"    ... ({len(code) - 5} more lines)"]
    number = re.match(r"\[Errno (\d+)\]", error.evalue)
    way_out = name_way_out(int(number[1])) if number else ""
    what = [f"{source} stopped in cell [{error.exec_count}]:", *shown, f"{error.ename}: {error.evalue}{way_out}"]
    return "\n".join([*what, f"The whole traceback, and everything up to there: {running}"])


def _page(notebook: Path) -> str:
    """An executed notebook as one HTML page with its figures inside and no address to load from."""
    from nbconvert import HTMLExporter

    addresses = [name for name in HTMLExporter.class_trait_names() if name.endswith("_url")]
    exporter = HTMLExporter(embed_images=True, **dict.fromkeys(addresses, ""))
    page, _ = exporter.from_filename(str(notebook), {"metadata": {"name": notebook.name.split(".")[0]}})
    return page


def main(arguments: list[str] | None = None) -> int:
    """The command line: execute one notebook, and write it with its page.

    Args:
        arguments: What follows ``python -m lusbio.publish.run_notebook``; None means the process's own.

    Returns:
        0 when all went well, 1 after a LusbioError, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m lusbio.publish.run_notebook", description="Execute a notebook.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="executed notebook; its page lies beside it")
    for name, kind in PARAMETERS.items():
        parser.add_argument(f"--{name}", type=kind, help="passed to the notebook; its own default when left out")
    options, began = parser.parse_args(arguments), time.monotonic()
    parameters = {name: getattr(options, name) for name in PARAMETERS if getattr(options, name) is not None}
    name = options.notebook.stem

    def run() -> None:
        run_notebook(options.notebook, options.output, parameters)
        print(f"      {name}: {time.monotonic() - began:.0f} s, {options.output.with_suffix('.html')}")

    return run_command(run, name, options.profile, options.cohort)


if __name__ == "__main__":
    sys.exit(main())
