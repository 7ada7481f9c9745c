"""The house rules that keep notebooks readable, checked without running them; ``make lint`` runs this file."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from lusbio.files import ROOT
from lusbio.publish.run_notebook import PARAMETERS, fits

LONGEST_CELL, LONGEST_FUNCTION = 25, 12
"""Lines of code after which a cell, or a function in it, would read better as a function of the package."""

MOST_NAMES = 12
"""Names that a notebook takes from the package."""

MACHINE_PATH = re.compile(r"(?<![\w.:/~-])(/(home|Users|root|work|mnt|media|opt|srv|tmp|data|scratch)/|[A-Z]:\\)\S*")
"""Paths that stand on one machine only; not what looks alike within an address or a longer path."""


def anatomy_problems(path: Path) -> list[str]:
    """Where a notebook departs from the house rules, without running it.

    Title ``# 03 · ...`` with the file's number; *makes*, *reads*, *takes* and *expect* lines in the first cell; one
    ``parameters`` cell of ``name: type = value  # help`` lines; prose between code cells; short cells and functions;
    no cell that is a guard; few names from the package; no outputs, no absolute paths; the kernel ``python3``.

    Returns:
        One line per problem, empty when there is none.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [(cell, "".join(cell["source"])) for cell in notebook["cells"]]
    problems = list(_opening_problems(path.name.split("_")[0], *cells[0]) if cells else ["it is empty"])
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        problems.append("its kernel is not named python3")
    problems += _parameter_problems([text for cell, text in cells if "parameters" in cell["metadata"].get("tags", [])])
    names = []
    for number, (cell, text) in enumerate(cells):
        if found := MACHINE_PATH.search(text):
            problems.append(f"cell {number}: absolute path {found.group()!r}")
        if cell["cell_type"] != "code":
            continue
        code = ast.parse(text, filename=f"{path.name}, cell {number}")
        names += _imported_names(code)
        problems += [f"cell {number}: {problem}" for problem in _code_problems(cell, text, code)]
        if number and cells[number - 1][0]["cell_type"] == "code":
            problems.append(f"cell {number}: code follows code without a word between them")
    if len(names) > MOST_NAMES:
        problems.append(f"{len(names)} names are imported from lusbio, at most {MOST_NAMES}")
    return [f"{path.name}: {problem}" for problem in problems]


def _opening_problems(number: str, cell: dict, text: str) -> Iterator[str]:
    if cell["cell_type"] != "markdown" or not re.match(rf"# {re.escape(number)} · \S", text):
        yield f"the first cell does not start with '# {number} · ' and a title"
    for word in ("makes", "reads", "takes", "expect"):
        if not re.search(rf"^\W*{word}\b", text, flags=re.MULTILINE | re.IGNORECASE):
            yield f"the first cell has no line that starts with {word!r}"


def _parameter_problems(tagged: list[str]) -> Iterator[str]:
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged 'parameters', expected 1"
        return
    for line in tagged[0].splitlines():
        match = re.fullmatch(r"([a-z]\w*): (str|int|float|bool) = (.+?)  # \S.*", line)
        # papermill reads a line with a second "=" as no parameter at all.
        if match is None or line.count("=") > 1:
            yield f"parameters: {line!r} is not 'name: type = value  # help' with one '='"
            continue
        name, declared, value = match.groups()
        try:
            found = type(ast.literal_eval(value)).__name__
        except (ValueError, SyntaxError):
            found = "an expression"
        if not fits(found, declared):
            yield f"parameters: {name} = {value} is {found}, declared {declared}"
        if name in PARAMETERS and PARAMETERS[name].__name__ != declared:
            yield f"parameters: {name} is declared {declared}, passed {PARAMETERS[name].__name__}"


def _imported_names(code: ast.Module) -> list[str]:
    """What a cell imports from the package, name by name."""
    names = []
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.split(".")[0] == "lusbio"]
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "lusbio":
            names += [alias.name for alias in node.names]
    return names


def _code_problems(cell: dict, text: str, code: ast.Module) -> Iterator[str]:
    if cell.get("outputs") or cell.get("execution_count") is not None:
        yield "outputs are committed; 'make lint' names the command that strips them"
    if (lines := _count_lines(text)) > LONGEST_CELL:
        yield f"{lines} lines of code, at most {LONGEST_CELL}: make it a function of the package"
    for node in ast.walk(code):
        if isinstance(node, ast.FunctionDef):
            lines = _count_lines(ast.get_source_segment(text, node))
            if lines > LONGEST_FUNCTION:
                yield f"{node.name} has {lines} lines, at most {LONGEST_FUNCTION}: make it a function of the package"
    if code.body and _is_guarded(*code.body):
        yield "it begins with a guard: one cell says what is missing, and the notebook ends there"


def _count_lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


def _is_guarded(first: ast.stmt, *rest: ast.stmt) -> bool:
    """Whether a cell works only if something is there: within one ``if``, or as ``None if missing else ...``."""
    if isinstance(first, ast.If):
        return all(isinstance(statement, ast.Expr) for statement in rest)  # which show what the ``if`` has made
    choice = getattr(first, "value", None)
    arms = (choice.body, choice.orelse) if isinstance(choice, ast.IfExp) else ()
    return any(isinstance(arm, ast.Constant) and arm.value is None for arm in arms)


if __name__ == "__main__":
    paths = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    problems = [problem for path in paths for problem in anatomy_problems(path)]
    print(*problems or [f"{len(paths)} notebooks follow the house rules"], sep="\n")
    sys.exit(bool(problems))
