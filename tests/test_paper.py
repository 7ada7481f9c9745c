"""The paper itself, in miniature: every notebook on a toy cohort, as `make smoke` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]


def make_smoke(folder: Path) -> Path:
    """Run `make smoke` with everything it makes in a folder; returns where its tables lie."""
    environment = {
        **os.environ,
        "LUSBIO_BUILD": str(folder / "build"),
        "LUSBIO_FIGURES": str(folder / "figures"),
    }
    for variable in ("MAKEFLAGS", "LUSBIO_DATA"):  # with real patients at hand the paper has more to show
        environment.pop(variable, None)
    command = ["make", "--no-print-directory", "smoke", f"PYTHON={sys.executable}", "JOBS=2"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "figures" / "smoke" / "synthetic"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    return make_smoke(tmp_path_factory.mktemp("first"))


def test_make_smoke_makes_every_table_and_figure(smoke):
    tables = {
        f"{name}.{suffix}"
        for name in ("table1", "table2", "table5", "biomarker_aucs")
        for suffix in ("csv", "md")
    }
    figures = {
        f"{name}.{suffix}"
        for name in (
            "fig3",
            "fig4",
            "table1",
            "learning_curves",
            "biomarker_aucs",
            "contact_sheet",
            "simulator_layers",
        )
        for suffix in ("png", "pdf")
    }
    assert {path.name for path in smoke.iterdir()} == {
        *tables, *figures, "simulator_targets.csv", "simulator_targets.md", "run.json", "timing.json"
    }  # fmt: skip


def test_every_cell_of_table1_is_a_number_with_an_interval_around_it(smoke):
    table = pd.read_csv(smoke / "table1.csv")
    assert len(table) == 3 * (1 + 7 + 7) * 2
    assert table.drop(columns=["published_mean", "published_sd"]).notna().all(axis=None)
    assert ((table["ci_low"] <= table["ci_high"]) & table["mean"].between(0, 100)).all()
    assert (
        "**Simulated**" in (smoke / "table1.md").read_text()
        and "`smoke`" in (smoke / "table1.md").read_text()
    )


def test_executed_notebooks_are_pages_that_need_no_network(smoke):
    pages = list((smoke.parents[2] / "build" / "smoke" / "synthetic" / "notebooks").glob("*.html"))
    assert len(pages) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    for page in pages:
        text = page.read_text()
        assert 'src="http' not in text and 'href="http' not in text.replace('href="https://arxiv.org', "")


def test_two_smoke_papers_are_equal_byte_by_byte(smoke, tmp_path):
    again = make_smoke(tmp_path)
    for path in sorted(smoke.iterdir()):
        if path.name != "timing.json":
            assert path.read_bytes() == (again / path.name).read_bytes(), path.name
