import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lusbio import files
from lusbio.errors import name_way_out
from lusbio.files import (
    ROOT,
    atomic_path,
    build_folder,
    code_fingerprint,
    data_folder,
    figures_folder,
    file_sha256,
    read_words,
    text_sha256,
    to_markdown,
    write_csv,
    write_json,
    write_text,
)


def test_folders_are_in_the_checkout_unless_a_variable_says_otherwise(monkeypatch, tmp_path):
    for variable in ("LUSBIO_BUILD", "LUSBIO_FIGURES", "LUSBIO_DATA"):
        monkeypatch.delenv(variable, raising=False)
    assert build_folder("runs") == ROOT / "build" / "runs"
    assert figures_folder("smoke", "synthetic") == ROOT / "figures" / "smoke" / "synthetic"
    assert data_folder() == ROOT / "build" / "data"
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    assert build_folder("runs") == tmp_path / "runs"
    assert data_folder() == tmp_path / "data"


def test_a_relative_folder_starts_at_the_checkout_wherever_a_notebook_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUSBIO_DATA", "../patients")
    assert data_folder() == ROOT / "../patients"


def test_lists_in_a_file_of_words_are_read_as_tuples(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "PACKAGE", tmp_path)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.toml").write_text("range = [0.5, 2]\nby = { one = [[1], []], two = 'x' }\n")
    assert read_words("a.toml") == {"range": (0.5, 2), "by": {"one": ((1,), ()), "two": "x"}}


def write_half(path: Path) -> None:
    with atomic_path(path) as temporary:
        assert temporary.suffix == path.suffix
        temporary.write_text("half")
        raise ZeroDivisionError


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "numbers.json"
    write_json({"a": 1, "ü": [2]}, path)
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert path.read_text(encoding="utf-8") == '{\n  "a": 1,\n  "ü": [\n    2\n  ]\n}\n'
    assert [each.name for each in path.parent.iterdir()] == ["numbers.json"]


def test_tables_keep_nine_digits_for_programs_and_one_decimal_for_people(tmp_path):
    table = pd.DataFrame({"name": ["a|b", "c"], "value": [1 / 3, float("nan")], "count": [1, 2]})
    write_csv(table, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == b"name,value,count\na|b,0.333333333,1\nc,,2\n"
    assert to_markdown(table).splitlines() == [
        "| name | value | count |",
        "| --- | --- | --- |",
        "| a\\|b | 0.3 | 1 |",
        "| c | — | 2 |",
    ]


def test_digests_are_those_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"lung")
    assert file_sha256(tmp_path / "file").startswith("d08c7b73")
    assert text_sha256({"a": 1, "b": 2}) == text_sha256({"b": 2, "a": 1}) != text_sha256({"a": 1, "b": 3})


# --- which code decides numbers ---

CODE = '''\
"""A module."""

import numpy as np

from lusbio.errors import LusbioError

RATE = 0.5  # of something


def halve(x: float) -> float:
    """Halve a number."""
    if x < 0:
        raise LusbioError(f"{x} is below 0")
    return np.float64(RATE * x)
'''


@pytest.fixture
def fingerprint(tmp_path, monkeypatch):
    """A function that takes the fingerprint of a package of other files."""
    monkeypatch.setattr(files, "PACKAGE", tmp_path)

    def take(*texts: str, prefix: str = "module") -> str:
        code_fingerprint.cache_clear()
        for number, text in enumerate(texts):
            (tmp_path / f"{prefix}{number}.py").write_text(text, encoding="utf-8")
        return code_fingerprint(*(f"{prefix}{number}.py" for number in range(len(texts))))

    yield take
    code_fingerprint.cache_clear()


PROSE = {
    "a docstring": ('"""Halve a number."""', '"""Half of a number.\n\n    Never more.\n    """'),
    "a comment": ("  # of something", "  # another word"),
    "the text of an error": ('f"{x} is below 0"', 'f"expected at least 0, got {x}"'),
    "an import within the package": ("from lusbio.errors import", "from lusbio.somewhere.errors import"),
    "line breaks": ("return np.float64(RATE * x)", "return np.float64(\n        RATE * x\n    )"),
}
COMPUTED = {
    "a constant": ("RATE = 0.5", "RATE = 0.25"),
    "an operator": ("RATE * x", "RATE + x"),
    "the kind of an error": ("raise LusbioError(", "raise ValueError("),
    "another library": ("import numpy as np", "import jax.numpy as np"),
    "a condition": ("x < 0", "x <= 0"),
}


@pytest.mark.parametrize("change", PROSE)
def test_prose_and_moves_make_nothing_be_computed_again(fingerprint, change):
    before, after = PROSE[change]
    assert before in CODE and fingerprint(CODE.replace(before, after)) == fingerprint(CODE)


@pytest.mark.parametrize("change", COMPUTED)
def test_what_is_computed_otherwise_changes_the_fingerprint(fingerprint, change):
    before, after = COMPUTED[change]
    assert before in CODE and fingerprint(CODE.replace(before, after)) != fingerprint(CODE)


def test_files_may_be_called_anything_and_stand_in_any_order(fingerprint):
    other = CODE.replace("RATE", "SHARE")
    assert len(fingerprint(CODE, other)) == 12
    assert fingerprint(CODE, other) == fingerprint(other, CODE) == fingerprint(CODE, other, prefix="renamed")
    assert fingerprint(CODE) != fingerprint(CODE, other)


def test_whatever_does_not_fit_names_the_file(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: .*text.txt") as of_text:
            write_text("a" * 2000, tmp_path / "text.txt")
        with (
            pytest.raises(OSError, match="No room .*frames.npy") as of_array,
            atomic_path(tmp_path / "frames.npy") as path,
        ):
            np.save(path, np.zeros(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "ulimit -f" in name_way_out(of_text.value.errno) and "make room" in name_way_out(of_array.value.errno)
    assert name_way_out(None) == "" and list(tmp_path.iterdir()) == []
