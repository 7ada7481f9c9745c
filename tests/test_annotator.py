"""The annotator without a browser: what it sends, what it does with what it is told."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import make_rated_cohort

from lusbio.cli import main
from lusbio.errors import CohortError, LusbioError
from lusbio.files import ROOT
from lusbio.labelling import page
from lusbio.labelling.annotator import CHUNK_BYTES, Annotator
from lusbio.labelling.ratings import RatingLog, choose_order, read_ratings
from lusbio.labelling.sheet import GROUPS, ORIGIN
from lusbio.vocabulary import BIOMARKER_GROUPS, SEVERITY, group_names

HEALTHY = {group: [group_names(group)[0]] for group in BIOMARKER_GROUPS} | {SEVERITY: ["0"]}


keep = RatingLog.keep_draft


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = make_rated_cohort(tmp_path / "cohort")
    shutil.rmtree(folder / "ratings")
    return folder


class Browser:
    """What a browser would hear, and a way to talk as it does."""

    def __init__(self, annotator: Annotator):
        self.heard, self.annotator = [], annotator
        annotator.send = lambda content, buffers=None: self.heard.append(content | {"buffers": buffers or []})
        self.tell("open")

    def tell(self, do: str, **message) -> dict:
        self.annotator._hear(None, {"do": do, "request": 7} | message, [])
        return self.heard[-1]

    def last(self, say: str) -> dict:
        return [message for message in self.heard if message["say"] == say][-1]

    def save(self, number: int, answers: dict | None = HEALTHY, **state) -> dict:
        state = {"usable": answers is not None, "answers": answers or {}, "comment": "", "seconds": 2.0} | state
        return self.tell("save", number=number, **state)


def begin(folder: Path, **settings) -> Browser:
    return Browser(Annotator(folder, "r1", new_rater=True, role="trainee", **settings))


def test_a_video_arrives_as_frames_of_its_own_with_a_number_and_nothing_else(folder):
    browser = begin(folder)
    video = browser.last("video")
    assert (video["number"], video["total"], video["frames"]) == (1, 9, 6) and video["asked"] == list(GROUPS)
    parts = [message for message in browser.heard if message["say"] == "frames"]
    assert [part["first"] for part in parts] == [0, 1] and len(parts[0]["buffers"]) == 1
    assert all(data.startswith(b"\xff\xd8") for part in parts for data in part["buffers"])
    for text in ("p0", "p1", "p2", "p3", ".npy", str(folder), "r1"):
        assert text not in json.dumps([message | {"buffers": 0} for message in browser.heard])


def test_nothing_of_a_video_is_a_trait(folder):
    annotator = begin(folder).annotator
    saved = {name: value for name, value in annotator.get_state().items() if name not in ("_esm", "_css")}
    assert "p0" not in json.dumps(saved) and len(json.dumps(saved)) < 1000


def test_frames_of_large_videos_come_in_parts(folder, monkeypatch):
    np.save(folder / "videos/p0_v0.npy", np.random.default_rng(0).integers(0, 255, (6, 640, 640), dtype=np.uint8))
    order = choose_order([f"p{p}_v{v}" for p in range(4) for v in range(2)], "r1")
    browser = begin(folder)
    browser.tell("go", number=order.index(("p0_v0", 0)) + 1)
    parts = [message["buffers"] for message in browser.heard if message["say"] == "frames"][2:]
    assert len(parts) > 2 and sum(map(len, parts)) == 6
    assert all(sum(map(len, part[:-1])) < CHUNK_BYTES for part in parts)


def test_in_colab_frames_are_text(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "google.colab", object())
    monkeypatch.setattr("anywidget.widget.enable_custom_widget_manager_once", lambda: None, raising=False)
    parts = [message for message in begin(folder).heard if message["say"] == "frames"]
    assert all(part["base64"] and not part["buffers"] for part in parts)


def test_what_is_saved_is_logged_and_the_next_one_comes(folder):
    browser = begin(folder)
    browser.save(1, comment="deep", seconds=12.34)
    assert [m["say"] for m in browser.heard[-4:]] == ["saved", "video", "frames", "frames"]
    assert browser.last("video")["number"] == 2
    (row,) = read_ratings(folder / "ratings").to_dict("records")
    assert (row["position"], row["seconds"], row["comment"], row["role"]) == (1, 12.3, "deep", "trainee")
    assert len(row["sha256"]) == 64 and row["usable"]


def test_killed_between_saving_and_forgetting_what_was_ticked_the_next_one_comes(folder, monkeypatch):
    monkeypatch.setattr(RatingLog, "keep_draft", lambda self, draft: draft and keep(self, draft))
    first = begin(folder)
    first.tell("tick", number=1, usable=True, answers=HEALTHY, comment="", seconds=1.0)
    first.save(1)
    monkeypatch.undo()
    assert first.annotator._log.read_draft()["answers"] == HEALTHY
    again = Browser(Annotator(folder, "r1"))
    assert again.last("video")["number"] == 2
    again.tell("tick", number=1, usable=True, answers=HEALTHY | {SEVERITY: ["1"]}, comment="", seconds=1.0)
    assert Browser(Annotator(folder, "r1")).last("video")["number"] == 1


def test_a_sheet_that_breaks_a_rule_is_refused_by_python_too(folder):
    browser = begin(folder)
    assert "stands beside b_lines_few" in browser.save(1, HEALTHY | {"B-lines": ["b_lines_few"]})["text"]
    assert "neither answered nor unsure" in browser.save(1, {})["text"]
    assert read_ratings(folder / "ratings").empty


def test_saying_it_again_writes_no_second_line_and_a_revision_does(folder):
    browser = begin(folder)
    browser.save(1)
    browser.save(1)
    assert len(browser.annotator._log.path.read_text().splitlines()) == 2
    browser.save(1, HEALTHY | {SEVERITY: ["2"]})
    browser.tell("go", number=1)
    assert browser.last("video")["answers"][SEVERITY] == ["2"]
    assert len(browser.annotator._log.path.read_text().splitlines()) == 3
    assert read_ratings(folder / "ratings")[SEVERITY].tolist() == ["2"]


def test_ticks_survive_a_reload(folder):
    browser = begin(folder)
    browser.save(1)
    state = {"usable": True, "answers": {"effusion": None}, "comment": "half", "seconds": 3.0}
    assert browser.tell("tick", number=2, **state)["say"] == "kept"
    again = Browser(Annotator(folder, "r1")).last("video")
    assert again["number"] == 2 and {name: again[name] for name in state} == state


def test_all_are_done_once_repeats_are(folder):
    browser = begin(folder)
    for number in range(1, 10):
        browser.save(number)
    assert browser.heard[-1]["say"] == "done"
    ratings = read_ratings(folder / "ratings")
    assert len(ratings) == 9 and ratings["repeat"].tolist() == [0] * 8 + [1]
    assert Browser(Annotator(folder, "r1")).heard[-1]["say"] == "done"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"no video")])
def test_a_video_that_cannot_be_shown_is_recorded_and_the_next_one_comes(folder, spoil):
    (video, _), *_ = choose_order([f"p{p}_v{v}" for p in range(4) for v in range(2)], "r1")
    spoil(folder / "videos" / f"{video}.npy")
    browser = begin(folder)
    shown = browser.last("video")
    assert shown["frames"] == 0 and not shown["usable"]
    browser.save(1, None)
    assert browser.last("video")["number"] == 2
    (row,) = read_ratings(folder / "ratings").to_dict("records")
    assert not row["usable"] and row["sha256"] is None and np.isnan(row["effusion_none"])


def test_a_newer_window_ends_the_older_one(folder):
    older = begin(folder)
    Browser(Annotator(folder, "r1")).save(1)
    heard = older.save(1)
    assert heard["say"] == "over" and "another window" in heard["text"]


def test_what_goes_wrong_in_python_is_said_without_names(folder, monkeypatch, capsys):
    browser = begin(folder)
    monkeypatch.setattr(browser.annotator._log, "append", lambda rating: 1 / 0)
    assert browser.save(1)["text"] == "ZeroDivisionError in Python"

    def full(rating):
        raise OSError(28, "No space left on device", "p0_v0")

    monkeypatch.setattr(browser.annotator._log, "append", full)
    heard = browser.save(1)
    assert (heard["say"], heard["text"], heard["request"]) == ("failed", "No space left on device", 7)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_bad_beginnings_say_what_to_do(folder):
    with pytest.raises(LusbioError, match="a new one begins with --new-rater"):
        Annotator(folder, "r1")
    with pytest.raises(CohortError, match=r"cohort\.csv: no such file"):
        Annotator(folder / "videos", "r1", new_rater=True)


# --- consensus ---


@pytest.fixture
def two(tmp_path) -> Path:
    return make_rated_cohort(tmp_path / "cohort")


def test_a_consensus_asks_only_where_two_raters_differ_and_names_nobody(two):
    browser = Browser(Annotator(two, "consensus", between=("r1", "r2")))
    video, ratings = browser.last("video"), read_ratings(two / "ratings")
    name = browser.annotator._order[0][0]
    both = ratings[ratings["video_id"] == name].set_index("rater")
    differ = {
        group
        for group in BIOMARKER_GROUPS
        if not both.loc["r1", list(group_names(group))].equals(both.loc["r2", list(group_names(group))])
    }
    differ |= {SEVERITY} if both.loc["r1", SEVERITY] != both.loc["r2", SEVERITY] else set()
    assert set(video["asked"]) - {ORIGIN} == differ - {ORIGIN} and differ <= set(video["asked"])
    assert set(video["answers"]) == set(GROUPS) - set(video["asked"])
    assert len(video["sides"]) == 2 and "r1" not in json.dumps(video)
    assert browser.annotator._log.session["between"] == ["r1", "r2"] and not browser.annotator._log.session["blinded"]
    browser.save(1, HEALTHY)
    assert Browser(Annotator(two, "consensus", between=("r1", "r2"))).last("video")["number"] == 2


def test_sides_are_drawn_by_lot(two):
    ratings, annotator = read_ratings(two / "ratings"), Annotator(two, "consensus", between=("r1", "r2"))
    grades = ratings.set_index(["rater", "video_id"])[SEVERITY]
    first_is_r1 = {
        sides[0][SEVERITY] == [grades["r1", video]]
        for video, sides in annotator._sides.items()
        if grades["r1", video] != grades["r2", video]
    }
    assert first_is_r1 == {True, False}


def test_where_two_raters_agree_that_is_their_consensus(two):
    ratings = two / "ratings"
    (ratings / "r2.jsonl").write_text((ratings / "r1.jsonl").read_text().replace('"rater":"r1"', '"rater":"r2"'))
    browser = Browser(Annotator(two, "consensus", between=("r1", "r2")))
    assert browser.heard[-1]["say"] == "done" and (read_ratings(ratings)["rater"] == "consensus").sum() == 8


def test_a_consensus_waits_until_both_are_done(two):
    lines = (two / "ratings/r2.jsonl").read_text().splitlines()
    (two / "ratings/r2.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(LusbioError, match="'r2' has not rated 1 of 8 videos"):
        Annotator(two, "consensus", between=("r1", "r2"))


# --- the notebook ---


@pytest.mark.slow
def test_notebook_20_opens_the_annotator_for_a_rater_and_keeps_no_frame(two, tmp_path):
    pytest.importorskip("papermill")
    from lusbio.publish.run_notebook import run_notebook

    source, executed = ROOT / "notebooks" / "20_label_videos.ipynb", tmp_path / "20_label_videos.ipynb"
    run_notebook(source, executed, {"folder": str(two), "rater": "r3", "new_rater": True})
    text = executed.read_text()
    assert "application/vnd.jupyter.widget-view+json" in text and "p0_v0" not in text and "/9j/" not in text
    assert RatingLog(two / "ratings", "r3").session["role"] == "trainee"
    run_notebook(source, executed, {"folder": str(two)})
    assert "image/png" in executed.read_text() and "widget-view" not in executed.read_text()


# --- the command line ---


def test_merge_writes_a_new_table_and_never_edits_the_cohort(two, capsys):
    before, out = (two / "cohort.csv").read_bytes(), two / "labelled.csv"
    command = ["merge", str(two), "--trainee", "r1", "--specialist", "r2", "--out", str(out)]
    assert main([*command, "--label-studio", str(two / "tasks.json")]) == 0
    assert (two / "cohort.csv").read_bytes() == before and (two / "tasks.xml").is_file()
    assert capsys.readouterr().out.split() == [str(out), str(two / "tasks.json")]
    assert main([*command[:-1], str(two / "cohort.csv")]) == 1
    assert "cohort.csv is never edited" in capsys.readouterr().err


def test_check_and_merge_report_what_is_wrong_with_ratings(two, capsys):
    with (two / "ratings/r1.jsonl").open("a") as file:
        file.write("{\n")
    assert main(["check", str(two)]) == 1
    assert "ratings of 'r1': line 10 is damaged" in capsys.readouterr().err
    assert main(["merge", str(two), "--trainee", "r1", "--out", str(two / "out.csv")]) == 1
    assert not (two / "out.csv").exists()


def test_label_says_what_is_wrong_before_it_opens_a_page(two, capsys, monkeypatch):
    served = []
    monkeypatch.setattr(page, "serve_annotator", lambda settings, port, browser: served.append(settings))
    assert main(["label", str(two), "--rater", "r3"]) == 1
    assert "no rater 'r3'" in capsys.readouterr().err and served == []
    assert main(["label", str(two), "--rater", "r3", "--new-rater", "--role", "trainee"]) == 0
    assert served == [{"folder": str(two), "rater": "r3", "ratings": str(two / "ratings")}]
    assert RatingLog(two / "ratings", "r3").session["role"] == "trainee"


def test_a_page_that_cannot_be_opened_says_how_to_learn_why_and_names_nothing(two, capsys, monkeypatch):
    settings = {"folder": str(two), "rater": "r1", "ratings": str(two / "ratings")}
    monkeypatch.setenv(page.VARIABLE, json.dumps(settings))
    assert isinstance(page.open_annotator(), Annotator)
    with (two / "ratings/r1.jsonl").open("a") as file:
        file.write("{\n")
    assert page.open_annotator() is None
    said = capsys.readouterr().out
    assert "begin it again: it says what is wrong" in said and str(two) not in said


def test_a_taken_port_is_named(monkeypatch):
    import socket

    pytest.importorskip("voila")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LusbioError, match="cannot be used .*name another one with --port"):
            page.serve_annotator({}, taken.getsockname()[1])
    assert page.VARIABLE not in os.environ
