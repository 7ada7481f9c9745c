"""Where things are, how they are written so that nobody ever reads half of one, and their names by content."""

import ast
import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

PACKAGE = Path(__file__).resolve().parent


def _find_root() -> Path:
    if (PACKAGE.parent / "pyproject.toml").is_file():
        return PACKAGE.parent
    import platformdirs

    return platformdirs.user_data_path("lusbio")


ROOT = _find_root()
"""The checkout: the folder that holds ``notebooks/``, ``lusbio/`` and ``figures/``; a folder of the user's own where
lusbio was installed, as nothing is written beside an installed package."""


def shipped_files(folder: str) -> list[Path]:
    """The files of ``"notebooks"`` or ``"model"``, folders that come with lusbio: of the checkout, or as installed."""
    if ROOT == PACKAGE.parent:
        return sorted((ROOT / folder).glob("[!.]*"))
    files = importlib.metadata.files("lusbio") or ()
    return sorted(Path(file.locate()).resolve() for file in files if file.match(f"share/lusbio/{folder}/*"))


def _folder(variable: str, default: Path) -> Path:
    """A folder named by an environment variable; a relative one starts at ``ROOT``, not where a notebook runs."""
    return ROOT / os.environ[variable] if os.environ.get(variable) else default


def read_words(name: str) -> dict:
    """The content of a TOML file in ``words/``, by key, with tuples for lists."""
    return _freeze(tomllib.loads((PACKAGE / "words" / name).read_text(encoding="utf-8")))


def _freeze(value: object) -> object:
    if isinstance(value, dict):
        return {name: _freeze(part) for name, part in value.items()}
    return tuple(map(_freeze, value)) if isinstance(value, list) else value


def build_folder(*parts: str) -> Path:
    """The folder of everything that is made and never committed, or a place in it.

    Args:
        *parts: Path components below the build folder, e.g. ``"laptop", "synthetic"``.

    Returns:
        ``$LUSBIO_BUILD`` when that is set, else ``build/`` in ``ROOT``, joined with ``parts``.
    """
    return _folder("LUSBIO_BUILD", ROOT / "build").joinpath(*parts)


def figures_folder(profile: str, cohort: str) -> Path:
    """The folder where the tables and figures of one profile and cohort go.

    Args:
        profile: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        cohort: The cohort's name (never a path).

    Returns:
        ``figures/<profile>/<cohort>`` in ``ROOT``, or below ``$LUSBIO_FIGURES`` when set.
    """
    return _folder("LUSBIO_FIGURES", ROOT / "figures") / profile / cohort


def data_folder() -> Path:
    """The folder with the public cohorts, one subfolder each.

    Returns:
        ``$LUSBIO_DATA`` when that is set, else ``build/data``. It need not exist.
    """
    return _folder("LUSBIO_DATA", build_folder("data"))


@contextlib.contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """An error of the disk says what was to be written, also where the system does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "requested and" in str(error):  # numpy, of an array that was written in part
            raise OSError(errno.ENOSPC, f"No room ({error})", str(path)) from error
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends without error.

    It keeps the suffix, and the folder is made. After an error it is removed and ``path`` is as it was; an error of the
    disk names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        with named_in_errors(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically, as UTF-8; its folder is made."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV atomically, without its index; floats keep nine significant digits."""
    write_text(table.to_csv(index=False, float_format="%.9g", lineterminator="\n"), path)


def write_json(content: dict, path: Path) -> None:
    """Write a dictionary of plain values as indented JSON atomically."""
    write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", path)


def write_figure(figure, folder: Path, name: str) -> None:
    """Write a matplotlib figure as PNG and PDF; the same figure always gives the same bytes."""
    unsaid = {".png": ["Software"], ".pdf": ["Creator", "Producer", "CreationDate"]}
    for suffix, keys in unsaid.items():
        with atomic_path(folder / f"{name}{suffix}") as temporary:
            figure.savefig(temporary, dpi=160, metadata=dict.fromkeys(keys))


@dataclass(frozen=True)
class Table:
    """Numbers for programs, and the same for people.

    Attributes:
        cells: What goes into the CSV file.
        shown: What people read; None where that is the same.
        note: Stands below it, after what always stands there.
        origin: Where the numbers come from, above it; None: from the study and the runs.
        runs: Finished runs behind the numbers.
    """

    cells: pd.DataFrame
    shown: pd.DataFrame | None = None
    note: str = ""
    origin: str | None = None
    runs: tuple = ()


def to_markdown(table: pd.DataFrame) -> str:
    """A data frame as a Markdown table; numbers with one decimal, an em dash for NaN."""

    def text(value: object) -> str:
        if isinstance(value, float):
            return "—" if np.isnan(value) else f"{value:.1f}"
        return str(value).replace("|", "\\|")

    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[text(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(*content: object) -> str:
    """The sha256 of plain values, as JSON: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@functools.cache
def code_fingerprint(*places: str) -> str:
    """A hash of the code that decides what something computes: 12 hexadecimal digits.

    Taken over the syntax trees without docstrings, comments, texts of errors and imports within the package, and
    whatever the files are called, so that neither prose nor a move makes anything be computed again.

    Args:
        *places: Modules of the package, e.g. ``"network/tsm.py"``.
    """
    trees = sorted(ast.unparse(_Bare().visit(ast.parse((PACKAGE / place).read_text("utf-8")))) for place in places)
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:12]


class _Bare(ast.NodeTransformer):
    """Leaves of a syntax tree what is computed."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | ast.Pass:
        return ast.Pass() if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        return ast.Raise(node.exc.func if isinstance(node.exc, ast.Call) else node.exc, None)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if (node.module or "").startswith("lusbio") else node
