"""Running the notebooks as a paper, and the house rules that keep them readable.

``python -m lusbio.publish.run_notebook run NOTEBOOK --profile laptop --cohort synthetic --jobs 2`` is what
``make paper`` calls for each notebook; ``python -m lusbio.publish.run_notebook check`` reads them without
running anything. The only module that knows papermill and nbconvert, and only when it runs one.
"""

import argparse
import ast
import json
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from lusbio.errors import LusbioError
from lusbio.files import ROOT, build_folder, write_text

PARAMETERS: dict[str, type] = {"profile": str, "cohort": str, "jobs": int}
"""What the runner passes to every notebook of the paper."""

LONGEST_CELL = 25
"""Lines of code after which a cell would read better as a function of the package."""

MACHINE_PATH = re.compile(r"(?<![\w.:/~-])(/(home|Users|root|work|mnt|media|opt|srv|tmp|data|scratch)/|[A-Z]:\\)\S*")
"""Paths that stand on one machine only; not what looks alike within an address or a longer path."""


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
        elif found != declared[name] and (found, declared[name]) != ("int", "float"):
            problems.append(f"parameter {name!r} is {found} {value!r}, expected {declared[name]}")
    if problems:
        raise LusbioError("\n".join(f"{source}: {problem}" for problem in problems))


def run_notebook(source: Path, output: Path, parameters: dict[str, str | int | float | bool]) -> None:
    """Execute a notebook with the running interpreter and write it, and a page of it, when it is done.

    While it runs, what it has done so far is in ``<output>.running.ipynb``; what it prints appears
    here too. ``output`` exists only once everything went well, so that a rule of make may trust it. Its time
    is when the run began: a source that is edited meanwhile is newer, as it should be.

    Args:
        source: The notebook. It runs in its own folder, as it does in JupyterLab.
        output: The executed notebook to write; ``output`` with the suffix ``.html`` is the page,
            which needs no other file and no network.
        parameters: Values by name, for the cell tagged ``parameters``.

    Raises:
        LusbioError: If a parameter does not fit (nothing runs then), or a cell fails; names the
            cell and its error. The executed part is kept in the running file.
    """
    import papermill

    check_parameters(source, parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    running = output.with_suffix(".running.ipynb")
    began = time.time()
    try:
        with tempfile.TemporaryDirectory(prefix="lusbio-") as sockets:
            papermill.execute_notebook(
                source.resolve(),
                running.resolve(),
                parameters,
                kernel_name="python3",
                kernel_manager_class=_kernel_of_this_python(sockets),
                extra_arguments=["--log-level=CRITICAL"],  # when stopped, a kernel logs how its sockets went
                cwd=source.resolve().parent,
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
    except papermill.PapermillExecutionError as error:
        raise LusbioError(_failure(source, running, error)) from None
    except RuntimeError as error:  # nbclient's DeadKernelError, and kernels that never start
        raise LusbioError(f"{source}: {error}. Out of memory? So far: {running}") from error
    write_text(_page(running), output.with_suffix(".html"))
    os.utime(running, (began, began))
    running.replace(output)


def _kernel_of_this_python(sockets: str) -> type:
    """A kernel manager that starts ``sys.executable``, whatever kernels are installed.

    Args:
        sockets: A folder for the kernel's sockets. Its path has to be short (107 bytes on Linux).
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    # Sockets in a folder only we can read: over TCP the kernel warns, in the notebook, that anyone may listen.
    channel = {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {}

    class KernelOfThisPython(AsyncKernelManager):
        def __init__(self, **settings):
            # With no folder to look into, "python3" can only be ipykernel's own spec, which is sys.executable.
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **channel, **settings)

        async def start_kernel(self, **settings):
            # Figures without the date in their bytes; tqdm need not ask for widgets it does not need.
            environment = os.environ | {"SOURCE_DATE_EPOCH": "0", "PYTHONWARNINGS": "ignore:IProgress not found"}
            environment.pop("MPLBACKEND", None)  # agg would leave the notebook without figures
            await super().start_kernel(env=environment, **settings)

    return KernelOfThisPython


def _failure(source: Path, running: Path, error: Exception) -> str:
    """A few lines for the person at the terminal: which cell, what it did, what went wrong."""
    code = [f"    {line}" for line in error.source.strip().splitlines()]
    shown = code if len(code) <= 6 else [*code[:5], f"    ... ({len(code) - 5} more lines)"]
    return "\n".join(
        [
            f"{source} stopped in cell [{error.exec_count}]:",
            *shown,
            f"{error.ename}: {error.evalue}",
            f"The whole traceback, and everything up to there: {running}",
        ]
    )


def _page(notebook: Path) -> str:
    """An executed notebook as one HTML page with its figures inside and no address to load from."""
    from nbconvert import HTMLExporter

    addresses = [name for name in HTMLExporter.class_trait_names() if name.endswith("_url")]
    exporter = HTMLExporter(embed_images=True, **dict.fromkeys(addresses, ""))
    page, _ = exporter.from_filename(str(notebook), {"metadata": {"name": notebook.name.split(".")[0]}})
    return page


def anatomy_problems(path: Path) -> list[str]:
    """Where a notebook departs from the house rules, without running it.

    Title ``# 03 · ...`` with the file's number; *makes*, *reads*, *takes* and *expect* lines in the first
    cell; one ``parameters`` cell of ``name: type = value  # help`` lines; prose between code cells;
    short cells; no outputs, no absolute paths; the kernel ``python3``.

    Args:
        path: An ``.ipynb``.

    Returns:
        One line per problem, empty when there is none.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [(cell, "".join(cell["source"])) for cell in notebook["cells"]]
    problems = _opening_problems(path, *cells[0]) if cells else ["it is empty"]
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        problems.append("its kernel is not named python3")
    problems += _parameter_problems(cells)
    for number, (cell, text) in enumerate(cells):
        problems += [f"cell {number}: {problem}" for problem in _cell_problems(cell, text)]
        if number and cell["cell_type"] == "code" == cells[number - 1][0]["cell_type"]:
            problems.append(f"cell {number}: code follows code without a word between them")
    return [f"{path.name}: {problem}" for problem in problems]


def _opening_problems(path: Path, cell: dict, text: str) -> list[str]:
    number = path.name.split("_")[0]
    problems = []
    if cell["cell_type"] != "markdown" or not re.match(rf"# {re.escape(number)} · \S", text):
        problems.append(f"the first cell does not start with '# {number} · ' and a title")
    for word in ("makes", "reads", "takes", "expect"):
        if not re.search(rf"^\W*{word}\b", text, flags=re.MULTILINE | re.IGNORECASE):
            problems.append(f"the first cell has no line that starts with {word!r}")
    return problems


def _parameter_problems(cells: list[tuple[dict, str]]) -> list[str]:
    tagged = [text for cell, text in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells are tagged 'parameters', expected 1"]
    problems = []
    for line in tagged[0].splitlines():
        match = re.fullmatch(r"([a-z]\w*): (str|int|float|bool) = (.+?)  # \S.*", line)
        # papermill reads a line with a second "=" as no parameter at all.
        if match is None or line.count("=") > 1:
            problems.append(f"parameters: {line!r} is not 'name: type = value  # help' with one '='")
            continue
        name, declared, value = match.groups()
        try:
            found = type(ast.literal_eval(value)).__name__
        except (ValueError, SyntaxError):
            found = "an expression"
        if found != declared and (found, declared) != ("int", "float"):
            problems.append(f"parameters: {name} = {value} is {found}, declared {declared}")
        if name in PARAMETERS and PARAMETERS[name].__name__ != declared:
            problems.append(f"parameters: {name} is declared {declared}, passed {PARAMETERS[name].__name__}")
    return problems


def _cell_problems(cell: dict, text: str) -> list[str]:
    problems = []
    if found := MACHINE_PATH.search(text):
        problems.append(f"absolute path {found.group()!r}")
    if cell["cell_type"] != "code":
        return problems
    if cell.get("outputs") or cell.get("execution_count") is not None:
        problems.append("outputs are committed; 'make lint' names the command that strips them")
    length = sum(bool(line.strip()) for line in text.splitlines())
    if length > LONGEST_CELL:
        problems.append(f"{length} lines of code, at most {LONGEST_CELL}: make it a function of the package")
    return problems


def main(arguments: list[str] | None = None) -> int:
    """The command line: ``run`` one notebook, or ``check`` the anatomy of some.

    Args:
        arguments: What follows ``python -m lusbio.publish.run_notebook``; None means the process's own.

    Returns:
        0 when all went well, 1 after a LusbioError, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lusbio.publish.run_notebook", description="Run or check notebooks."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute one, and write it with its page")
    run.add_argument("notebook", type=Path)
    run.add_argument("--output", type=Path, help="executed notebook (default: build/notebooks/NAME.ipynb)")
    for name, kind in PARAMETERS.items():
        run.add_argument(f"--{name}", type=kind, help="passed to the notebook; its own default when left out")
    check = commands.add_parser("check", help="report departures from the house rules, running nothing")
    check.add_argument("notebooks", type=Path, nargs="*", help="default: notebooks/*.ipynb")
    options = parser.parse_args(arguments)
    try:
        return _run(options) if options.command == "run" else _check(options.notebooks)
    except LusbioError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is finished is kept", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    # make ends its children with SIGTERM; as an interrupt, it takes the kernel down with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parameters = {name: getattr(options, name) for name in PARAMETERS if getattr(options, name) is not None}
    output = options.output or build_folder("notebooks", options.notebook.name)
    began = time.monotonic()
    run_notebook(options.notebook, output, parameters)
    print(f"      {options.notebook.stem}: {time.monotonic() - began:.0f} s, {output.with_suffix('.html')}")
    return 0


def _check(notebooks: list[Path]) -> int:
    paths = notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    problems = [problem for path in paths for problem in anatomy_problems(path)]
    if problems:
        raise LusbioError("\n".join(problems))
    print(f"{len(paths)} notebooks follow the house rules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
