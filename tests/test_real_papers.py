"""The paper of real patients, in miniature, where the public cohorts are at hand: `make paper COHORT=covid_blues`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLES = {
    "covid_blues": (
        *(
            "table1",
            "table2",
            "table3",
            "findings_elsewhere",
            "table4_public",
            "table7",
            "biomarker_aucs",
            "differences",
        ),
        *("verdict", "cost", "confusion", "kappa", "operating_points", "calibration", "reliability", "importance"),
        *("real_patients", "real_findings"),
    ),
    "pocovid": ("table4_public", "leakage", "leakage_severity"),
}
NOT_MADE = {
    "covid_blues": ("table6", "label_efficiency"),
    "pocovid": ("table1", "table2", "table3", "table6", "verdict", "biomarker_aucs"),
}
"""Of COVID-BLUES what this profile does not ask; of POCOVID what takes biomarkers, which its labels do not teach."""

FIGURES = {"covid_blues": {"fig3", "learning_curves", "table1", "reliability"}, "pocovid": {"fig3"}}

FRAMES = ("fig4", "contact_sheet", "simulator_layers")
"""Figures that show videos: of real patients they stay in the build folder, of the simulator they are not here."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One for all papers: the networks of simulated patients that they take are trained once."""
    return tmp_path_factory.mktemp("papers")


@pytest.fixture(scope="module", params=TABLES)
def paper(request, folder, data_folder) -> tuple[str, Path]:
    """Name of a cohort, and where the tables of its paper lie."""
    cohort = request.param
    if not (data_folder / cohort).is_dir():
        pytest.skip(f"no {cohort} at hand")
    places = {"LUSBIO_BUILD": folder / "build", "LUSBIO_FIGURES": folder / "figures", "LUSBIO_DATA": data_folder}
    environment = {**os.environ, **{name: str(place) for name, place in places.items()}}
    environment.pop("MAKEFLAGS", None)
    settings = ("PROFILE=smoke", f"COHORT={cohort}", f"PYTHON={sys.executable}", "JOBS=2")
    command = ["make", "--no-print-directory", "paper", *settings]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return cohort, folder / "figures" / "smoke" / cohort


def test_every_table_is_made_and_says_that_patients_are_real(paper):
    cohort, tables = paper
    for name in TABLES[cohort]:
        text = (tables / f"{name}.md").read_text(encoding="utf-8")
        assert "**Real** patients" in text and "**Simulated** patients" not in text, name
        assert "`smoke`" in text or name == "table4_public", "the public raters are the same for every profile"
        assert len(pd.read_csv(tables / f"{name}.csv")), name
    described = json.loads((tables / "run.json").read_text(encoding="utf-8"))
    assert described["cohort"] == cohort and described["simulated"] is False and described["left_out"]


def test_no_picture_of_a_patient_is_among_the_results(paper):
    cohort, tables = paper
    figures = {path.stem for path in tables.iterdir() if path.suffix in (".png", ".pdf")}
    assert figures >= FIGURES[cohort] and figures.isdisjoint(FRAMES)


def test_what_this_profile_does_not_ask_of_them_is_not_there_and_the_page_says_why(paper, folder):
    cohort, tables = paper
    assert not any((tables / f"{name}.csv").exists() for name in NOT_MADE[cohort])
    page = (folder / "build" / "smoke" / cohort / "paper.html").read_text(encoding="utf-8")
    assert "Real patients" in page and "Left out here: another backbone (Table 6)" in page
