import base64
import json
import re
from html.parser import HTMLParser

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lusbio.errors import LusbioError
from lusbio.files import ROOT, build_folder, figures_folder, to_markdown, write_figure
from lusbio.publish.page import SECTIONS, build_page, main, note_times
from lusbio.report.figures import plot_frame
from lusbio.vocabulary import ARTEFACTS, BIOMARKERS

RUN = {
    "cohort": "mine",
    "simulated": True,
    "videos": 7,
    "patients": 3,
    "notes": ["made <up>"],
    "data": "0f",
    "protocol": "paper",
    "profile": {"name": "smoke", "training": {"frames": 4, "image_size": 32, "epochs": 2}},
    "commit": "abc1234",
    "devices": ["CPU, 2 cores"],
    "precision": ["bf16-mixed"],
    "initial_weights": {"tsm_resnet18": "scratch"},
    "seeds": [0],
    "versions": {"python": "3.11"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A figures folder with a table, a figure, and what nobody has heard of."""
    monkeypatch.setenv("LUSBIO_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "build"))
    place = figures_folder("smoke", "mine")
    table = pd.DataFrame({"classifier": ["E2E", "RF"], "auc": [61.25, np.nan]})
    save_table(table, place, "table1", title="Table 1: tasks")
    save_table(table, place, "oddity", title="An oddity")
    draw(place, "fig3")
    (place / "run.json").write_text(json.dumps(RUN))
    runs = [{"run": str(fold), "kind": "end-to-end", "task": "disease", "minutes": 6.17} for fold in range(2)]
    (place / "timing.json").write_text(json.dumps({"minutes": 12.34, "runs": runs, "whole_paper": 30.5}))
    return place


def save_table(table, place, name, *, title, origin=""):
    place.mkdir(parents=True, exist_ok=True)
    table.to_csv(place / f"{name}.csv", index=False)
    (place / f"{name}.md").write_text(f"# {title}\n\n{origin}\n\n{to_markdown(table)}\n")


def draw(place, name):
    figure, ax = plt.subplots(figsize=(2, 1))
    plot_frame(np.zeros((4, 4), np.uint8), name, ax=ax)
    write_figure(figure, place, name)
    plt.close(figure)


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Balance(HTMLParser):
    """Raises where a tag is closed that is not the last one opened; collects anchors, links and addresses."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.links, self.sources = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_sound_html_that_loads_nothing(folder):
    write(build_folder("smoke", "mine", "notebooks", "03_experts.html"))
    page = build_page("smoke", "mine")
    parsed = Balance(page)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert [link for link in parsed.links if "//" in link] == ["https://arxiv.org/abs/2206.08398"]
    assert "notebooks/03_experts.html" in parsed.links
    assert not re.search(r"<script|<link|@import|url\(", page)


def test_sections_stand_in_the_papers_order(folder):
    page = build_page("smoke", "mine")
    anchors = re.findall(r'<h2 id="([^"]+)"', page)
    always = [section["anchor"] for section in SECTIONS if section.get("optional") != ["simulated", "real"]]
    assert anchors == [*always, "more"]
    assert anchors[:11] == [f"fig{n}" for n in range(1, 5)] + [f"table{n}" for n in range(1, 8)]


def test_everything_that_has_a_title_or_a_caption_stands_once():
    names = [name for section in SECTIONS for name in section["artefacts"]]
    assert len(set(names)) == len(names) and set(names) >= ARTEFACTS.keys() - {"verdict"}
    assert f"the {len(BIOMARKERS)} biomarkers" in next(s["title"] for s in SECTIONS if s["anchor"] == "table5")


def test_nothing_in_the_folder_is_lost_and_what_is_missing_is_said(folder):
    page = build_page("smoke", "mine")
    assert "An oddity" in page[page.index('<h2 id="more"') :]
    reason = "Notebook 04_generalization makes it, or says why not; it needs the POCOVID cohort."
    assert f"Not here: Table 3, Findings elsewhere. {reason}" in page
    assert "Not here: Fig. 1." in page and "No verdict here yet" in page
    assert "Not here: Table 1" not in page and "61.2" in page


def test_what_was_left_out_is_said_with_the_reason_and_not_called_missing(folder):
    left_out = {"pretraining": "P.", "table6": "Left out here: Table <6>. `PROFILE=paper`.", "label_efficiency": "L."}
    (folder / "run.json").write_text(json.dumps(RUN | {"left_out": left_out}))
    page = build_page("smoke", "mine")
    assert page.count('<p class="missing">Left out here: Table &lt;6&gt;. PROFILE=paper.</p>') == 1
    assert "Not here: Table 6" not in page and "Not here: Label efficiency" not in page
    table = pd.DataFrame({"a": [1]})
    save_table(table, folder, "table6", title="Table 6")
    assert "Left out here" not in build_page("smoke", "mine")


def test_the_banner_says_simulated_or_real_and_what_made_the_numbers(folder):
    page = build_page("smoke", "mine")
    assert "Simulated patients" in page and "Real patients" not in page
    for fact in (
        "7 videos, 3 patients",
        "4 frames of 32 x 32, 2 epochs",
        "abc1234",
        "CPU, 2 cores",
        "12.3 minutes, 2 runs",
        "whole paper</dt><dd>30.5",
        "made &lt;up&gt;",
    ):
        assert fact in page
    (folder / "run.json").write_text(json.dumps(RUN | {"simulated": False, "commit": "abc1234+"}))
    real = build_page("smoke", "mine")
    assert "Real patients" in real and "Simulated patients" not in real
    assert "changes not committed" in real and 'id="simulator"' not in real


def test_minutes_are_summed_by_kind_and_weights_told_by_backbone_where_they_differ(folder):
    runs = [{"kind": "end-to-end", "task": "disease", "fold": fold, "minutes": 1.5} for fold in range(3)]
    (folder / "timing.json").write_text(json.dumps({"minutes": 4.5, "runs": runs}))
    weights = {"tsm_resnet18": "imagenet", "i3d_resnet50": "scratch"}
    (folder / "run.json").write_text(json.dumps(RUN | {"initial_weights": weights}))
    page = build_page("smoke", "mine")
    assert "tsm_resnet18 imagenet, i3d_resnet50 scratch" in page
    minutes = page[page.index("Minutes of training") : page.index("</details>")]
    assert re.findall(r"<td[^>]*>(.*?)</td>", minutes) == ["end-to-end", "disease", "3", "4.5"]
    (folder / "run.json").write_text(json.dumps(RUN | {"initial_weights": dict.fromkeys(weights, "scratch")}))
    assert "<dd>scratch</dd>" in build_page("smoke", "mine")


def test_figures_are_the_files_byte_for_byte_and_private_frames_come_from_build(folder):
    draw(build_folder("smoke", "mine", "frames"), "fig4")
    pictures = [base64.b64decode(source.split(",")[1]) for source in Balance(build_page("smoke", "mine")).sources]
    places = (folder / "fig3.png", build_folder("smoke", "mine", "frames", "fig4.png"))
    assert pictures == [path.read_bytes() for path in places]


def test_verdicts_stand_above_everything_else(folder):
    rows = [("disease", "Disease", "worse", "A < B."), ("sf_ratio", "S/F ratio", "undecided", "Not yet.")]
    pd.DataFrame(rows, columns=["task", "title", "verdict", "sentence"]).to_csv(folder / "verdict.csv", index=False)
    page = build_page("smoke", "mine")
    assert page.index("A &lt; B.") < page.index("Not yet.") < page.index("On this page")
    assert '<div class="verdict bad">Disease<b>worse</b>' in page and '<div class="verdict open">S/F' in page
    assert 'id="more"' in page and "Verdict</a>" not in page
    note = ARTEFACTS["verdict"].note.replace("*matches*", "<em>matches</em>")
    assert page.index("Not yet.") < page.index(note) < page.index("On this page")


def test_a_verdict_of_another_commit_says_so(folder):
    table = pd.DataFrame({"title": ["Disease"], "verdict": ["worse"], "sentence": ["A < B."]})
    origins = [f"**Simulated** patients, 3 patients · commit `{name}`" for name in ("abc1234", "0000000")]
    save_table(table, folder, "table1", title="Table 1", origin=origins[0])
    said = {}
    for origin in origins:
        save_table(table, folder, "verdict", title="Verdict", origin=origin)
        page = build_page("smoke", "mine")
        said[origin] = '<p class="origin">' in page[: page.index("On this page")]
    assert list(said.values()) == [False, True] and "Verdict</a>" not in page


def test_a_csv_alone_is_shown_too(folder):
    write(folder / "alone.csv", "a,b\n1,x\n")
    assert "alone.csv, 1 rows" in build_page("smoke", "mine")


def test_the_same_files_give_the_same_page(folder, capsys):
    assert main(["--profile", "smoke", "--cohort", "mine"]) == 0
    path = build_folder("smoke", "mine", "paper.html")
    assert capsys.readouterr().out.strip() == str(path)
    first = path.read_bytes()
    assert main(["--profile", "smoke", "--cohort", "mine"]) == 0
    assert path.read_bytes() == first == build_page("smoke", "mine").encode()
    assert [file.name for file in path.parent.iterdir()] == ["paper.html"]


def test_without_results_it_says_what_to_run(folder, capsys):
    with pytest.raises(LusbioError, match=r"run make paper PROFILE=laptop COHORT=mine"):
        build_page("laptop", "mine")
    assert main(["--profile", "laptop", "--cohort", "mine"]) == 1
    assert "make paper" in capsys.readouterr().err


def test_the_committed_figures_make_a_page(monkeypatch):
    monkeypatch.setenv("LUSBIO_FIGURES", str(ROOT / "figures"))
    places = sorted(ROOT.glob("figures/laptop/*/run.json"))
    for place in places:
        page = build_page("laptop", place.parent.name)
        Balance(page)
        assert "Table 5" in page and 'class="cell"' in page


def test_minutes_of_notebooks_stand_beside_those_of_the_runs_and_the_working_time_counts(folder):
    notebooks = build_folder("smoke", "mine", "notebooks")
    notebooks.mkdir(parents=True, exist_ok=True)
    (notebooks / "05_agreement.running.ipynb").write_text('{"metadata": {"papermill": {"duration": 60.0}}}')
    before = json.loads((folder / "timing.json").read_text())

    def run(seconds: float) -> dict:
        (notebooks / "03_experts.ipynb").write_text(f'{{"metadata": {{"papermill": {{"duration": {seconds}}}}}}}')
        note_times("smoke", "mine")
        return json.loads((folder / "timing.json").read_text())

    assert run(90.0) == before | {"minutes_of_all_notebooks": 1.5, "notebooks": {"03_experts": 1.5}}
    assert run(6.0)["notebooks"] == {"03_experts": 1.5}  # it found its work done
    (folder / "timing.json").write_text(json.dumps(before | {"runs": [{"run": "another"}]}))
    assert run(6.0)["notebooks"] == {"03_experts": 0.1}
