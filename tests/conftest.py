"""What every test finds: one thread, folders of its own, and a way to write a small notebook."""

import functools
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before torch is imported: results differ between one and two threads, and CI has few cores.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a test makes lands in the checkout's build/ or figures/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUSBIO_BUILD", str(tmp_path_factory.mktemp("build")))
        patch.setenv("LUSBIO_FIGURES", str(tmp_path_factory.mktemp("figures")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On several cores what takes longest starts first; see `make test`."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: item.path.name not in ("test_paper.py", "test_real_papers.py"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the public cohorts; the test is skipped where there is none."""
    if not os.environ.get("LUSBIO_DATA"):
        pytest.skip("LUSBIO_DATA is not set: no public cohort at hand")
    return Path(os.environ["LUSBIO_DATA"])


@pytest.fixture(scope="module", autouse=True)
def _tidied_up() -> Iterator[None]:
    """Networks that a module has trained are gone after it: Lightning leaves them in circles, 100 MB each."""
    yield
    if "pytorch_lightning" in sys.modules:
        gc.collect()


@pytest.fixture(scope="module")
def one_fit() -> Iterator[None]:
    """Experts are fitted once instead of three times: for modules that are not about which fit is kept."""
    from lusbio.experts import rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "fit_expert", functools.partial(rows.fit_expert, fits=1))
        yield


OPENING = "# {number} · A test\n\nTwo. Sentences.\n\n- makes: a\n- reads: b\n- takes: c\n- expect: d"
PARAMETERS = """\
profile: str = "laptop"  # how big
cohort: str = "synthetic"  # whose videos
jobs: int = 1  # processes"""


@pytest.fixture
def write_notebook() -> Callable[..., Path]:
    """A function that writes a notebook which keeps the house rules around the given code cells."""

    def write(path: Path, *code: str, parameters: str = PARAMETERS) -> Path:
        cells = [_cell("markdown", OPENING.format(number=path.name[:2]))]
        cells.append(_cell("code", parameters, tags=["parameters"]))
        for text in code:
            cells += [_cell("markdown", "A question."), _cell("code", text)]
        notebook = {
            "cells": [cell | {"id": f"cell-{i}"} for i, cell in enumerate(cells)],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(notebook), encoding="utf-8")
        return path

    return write


def _cell(kind: str, text: str, tags: list[str] | None = None) -> dict:
    cell = {"cell_type": kind, "metadata": {"tags": tags} if tags else {}, "source": text}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})
