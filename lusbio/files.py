"""Writing files so that nobody ever reads half of one, and naming them by content."""

import ast
import contextlib
import functools
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd


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
    """A hash of the code that decides what something computes.

    Taken over the syntax trees without docstrings and comments, so that prose never makes anything
    be computed again.

    Args:
        *places: Modules (``"experts.py"``) and subpackages (``"models"``) of the package.

    Returns:
        12 hexadecimal digits.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for place in places:
        files = [package / place] if place.endswith(".py") else sorted((package / place).glob("*.py"))
        for file in files:
            digest.update(ast.unparse(_without_docstrings(file.read_text(encoding="utf-8"))).encode())
    return digest.hexdigest()[:12]


def _without_docstrings(source: str) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            strings = [n for n in node.body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
            node.body = [n for n in node.body if n not in strings]
    return tree
