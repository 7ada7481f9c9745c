"""The site: checklists that point at files, links that lead somewhere, pages that need no network."""

import re
import runpy
from pathlib import Path

import pandas as pd
import pytest

from lusbio.files import ROOT, build_folder

pytest.importorskip("pdoc")


@pytest.fixture(scope="module")
def build() -> dict:
    return runpy.run_path(str(ROOT / "docs" / "build.py"))


def links_of(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def test_every_item_of_the_checklists_is_answered_by_files_that_are_there():
    table = pd.read_csv(ROOT / "docs" / "reporting.csv", dtype=str)
    items = table.groupby("guideline")["item"].apply(list)
    assert items["CLAIM 2024"] == [str(number) for number in range(1, 45)]
    assert len(set(items["TRIPOD+AI"])) == 52 and items["TRIPOD+AI"][-1] == "27c"
    missing = [link for cell in table["answered in"] for link in links_of(cell) if not (ROOT / link).exists()]
    assert missing == []
    answered = table["answered in"].map(lambda cell: bool(links_of(cell)))
    assert table["answered in"][~answered].str.contains("No: |none|simulated|public cohorts").all()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_between_files_of_the_repository_lead_somewhere(page):
    local = [link.split("#")[0] for link in links_of((ROOT / page).read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_data_sheet_has_its_numbers_from_files(build):
    text = build["read_page"](ROOT / "docs" / "datasheet.md", "laptop")
    assert "718 videos of 189 patients" in text and "{{" not in text


def test_times_are_those_of_the_committed_runs(build):
    assert build["list_times"]()["notebook"].str.match(r"\d\d_").all()


def test_broken_links_and_anchors_are_found(build, tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#there">x</a><a href="#top">y</a><img src="c.png">'
    )
    (tmp_path / "b.html").write_text(
        '<a name="there"></a><a href="a.html#nowhere">z</a><a href="https://x.org/q">w</a>'
    )
    assert build["find_broken_links"](tmp_path) == ["a.html: c.png", "b.html: a.html#nowhere"]


@pytest.mark.slow
def test_the_whole_site_has_no_broken_link_and_loads_nothing(build, tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path))
    (tmp_path / "smoke" / "synthetic" / "notebooks").mkdir(parents=True)
    (tmp_path / "smoke" / "synthetic" / "paper.html").write_text("<h1>The paper</h1>")
    site = build_folder("site")
    assert build["build_site"](site, "smoke", "somebody/lusbio") == []
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert {"README.html", "CONTRIBUTING.html", "docs/reporting.html", "api/lusbio/dicom.html"} <= set(pages)
    assert not [name for name, page in pages.items() if 'src="http' in page or "@import" in page]
    assert "github/somebody/lusbio/blob/gh-pages/colab/90_your_task.ipynb" in pages["README.html"]
    notebook = Path(site / "colab" / "00_start_here.ipynb").read_text(encoding="utf-8")
    assert "google.colab" in notebook and "somebody/lusbio" in notebook
    compile(build["INSTALL"].format(repository="a/b"), "install", "exec")
