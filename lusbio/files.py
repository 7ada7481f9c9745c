"""Where things are, writing them so that nobody ever reads half of one, and naming them by content."""

import ast
import contextlib
import functools
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
"""The checkout: the folder that holds ``notebooks/``, ``lusbio/`` and ``figures/``."""


def _folder(variable: str, default: Path) -> Path:
    """A folder named by an environment variable; a relative one starts at ``ROOT``, not where a notebook runs."""
    return ROOT / os.environ[variable] if os.environ.get(variable) else default


def build_folder(*parts: str) -> Path:
    """The folder of everything that is made and never committed, or a place in it.

    Args:
        *parts: Path components below the build folder, e.g. ``"laptop", "synthetic"``.

    Returns:
        ``$LUSBIO_BUILD`` when that is set, else ``build/`` in the checkout, joined with ``parts``.
    """
    return _folder("LUSBIO_BUILD", ROOT / "build").joinpath(*parts)


def figures_folder(profile: str, cohort: str) -> Path:
    """The folder where the tables and figures of one profile and cohort go.

    Args:
        profile: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        cohort: The cohort's name (never a path).

    Returns:
        ``figures/<profile>/<cohort>`` in the checkout, or below ``$LUSBIO_FIGURES`` when set.
    """
    return _folder("LUSBIO_FIGURES", ROOT / "figures") / profile / cohort


def data_folder() -> Path:
    """The folder with the public cohorts, one subfolder each.

    Returns:
        ``$LUSBIO_DATA`` when that is set, else ``build/data``. It need not exist.
    """
    return _folder("LUSBIO_DATA", build_folder("data"))


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends without error.

    Args:
        path: The file to write; its folder is made.

    Yields:
        The temporary path to write to. It keeps the suffix of ``path``. After an error it is
        removed and ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically.

    Args:
        text: The content, written as UTF-8.
        path: The file; its folder is made.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV atomically.

    Args:
        table: The table; its index is not written.
        path: The file; its folder is made. Floats keep nine significant digits.
    """
    write_text(table.to_csv(index=False, float_format="%.9g", lineterminator="\n"), path)


def write_json(content: dict, path: Path) -> None:
    """Write a dictionary as indented JSON atomically.

    Args:
        content: Plain values only.
        path: The file; its folder is made.
    """
    write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", path)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
