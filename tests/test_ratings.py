"""Ratings: the rules of the sheet, the order of videos, the log, and what is made of it."""

import json
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import make_rated_cohort, rate

from lusbio.cohorts.table import read_table, write_table
from lusbio.errors import CohortError, LusbioError
from lusbio.labelling import ratings as module
from lusbio.labelling.merge import merge_ratings, write_label_studio
from lusbio.labelling.ratings import (
    ContinuedElsewhereError,
    RatingLog,
    choose_order,
    rating_problems,
    read_log,
    read_ratings,
)
from lusbio.labelling.sheet import GROUPS, ORIGIN, answer_problems, decode_answers, describe_sheet, encode_answers
from lusbio.vocabulary import BIOMARKER_FLAGS, BIOMARKER_GROUPS, BIOMARKER_NAMES, SEVERITY, SPECIALIST, group_names

UNSURE = dict.fromkeys(GROUPS)
HEALTHY = {group: [group_names(group)[0]] for group in BIOMARKER_GROUPS} | {SEVERITY: ["0"]}


# --- the sheet ---


def test_the_sheet_has_all_biomarkers_in_order_and_the_grades():
    *groups, severity = describe_sheet()
    assert [option["name"] for group in groups for option in group["options"]] == list(BIOMARKER_NAMES)
    assert [option["name"] for option in severity["options"]] == ["0", "1", "2", "3"]


def test_one_option_of_each_group_gives_ones_and_zeros_and_severity_is_what_was_said():
    assert answer_problems(HEALTHY) == []
    coded = encode_answers(HEALTHY)
    assert sum(coded["biomarkers"].values()) == 9 and coded["biomarkers"]["b_line_origin_na"] == 1
    assert coded[SEVERITY] == "0"
    assert decode_answers(coded) == HEALTHY


def test_an_unsure_group_gives_nothing_for_all_its_options():
    answers = HEALTHY | {"effusion": None}
    coded = encode_answers(answers)["biomarkers"]
    assert {coded[name] for name in group_names("effusion")} == {None} and coded["consolidation_none"] == 1
    assert answer_problems(UNSURE) == [] and set(encode_answers(UNSURE)["biomarkers"].values()) == {None}


@pytest.mark.parametrize("flag", BIOMARKER_FLAGS)
def test_a_flag_stands_only_beside_weak_or_bold(flag):
    assert answer_problems(HEALTHY | {"A-lines": ["a_lines_weak", flag]}) == []
    assert answer_problems(HEALTHY | {"A-lines": ["a_lines_bold", *BIOMARKER_FLAGS]}) == []
    assert "a flag stands beside a_lines_none" in answer_problems(HEALTHY | {"A-lines": ["a_lines_none", flag]})[0]
    assert "0 options are ticked" in answer_problems(HEALTHY | {"A-lines": [flag]})[0]


def test_without_b_lines_there_is_no_origin_and_beside_them_there_is_one():
    few = HEALTHY | {"B-lines": ["b_lines_few"]}
    assert "stands beside b_lines_few" in answer_problems(few)[0]
    assert answer_problems(few | {ORIGIN: ["b_line_origin_pleura"]}) == answer_problems(few | {ORIGIN: None}) == []
    for origin in (["b_line_origin_pleura"], None):
        assert "there is no B-line" in answer_problems(HEALTHY | {ORIGIN: origin})[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"effusion": ["effusion_none", "effusion_large"]}, "2 options are ticked"),
        ({"effusion": ["b_lines_none"]}, "no option 'b_lines_none'"),
        ({SEVERITY: ["4"]}, "no option '4'"),
        ({"colour": None}, "colour: no such group"),
    ],
)
def test_other_answers_are_refused(change, sentence):
    assert sentence in "; ".join(answer_problems(HEALTHY | change))


def test_an_open_group_is_no_unsure_one():
    assert answer_problems({g: a for g, a in UNSURE.items() if g != "effusion"}) == [
        "effusion: neither answered nor unsure"
    ]


# --- the order ---


def test_raters_see_different_orders_of_the_same_videos():
    videos = [f"v{k}" for k in range(50)]
    first, second = (choose_order(videos, rater, repeats=0.1) for rater in ("r1", "r2"))
    assert first != second and sorted(first[:50]) == sorted(second[:50]) == [(v, 0) for v in sorted(videos)]
    assert len(first) == 55 and {repeat for _, repeat in first[50:]} == {1}
    assert choose_order(videos[::-1], "r1") == first and choose_order(videos, "r1", seed=1) != first


def test_an_order_survives_added_videos():
    videos = [f"v{k}" for k in range(40)]
    before = choose_order(videos, "r1", repeats=0)
    after = [item for item in choose_order([*videos, "new1", "new2"], "r1", repeats=0) if item in before]
    assert before == after


# --- the log ---


@pytest.fixture
def log(tmp_path) -> RatingLog:
    return RatingLog(tmp_path, "r1", new_rater=True, role="trainee", experience="6 months")


def test_a_rating_comes_back_as_it_was_given(log):
    log.append(rate("v1", HEALTHY | {"effusion": None}, seconds=23.4, comment='says "event":"session" \n ü'))
    (row,) = read_ratings(log.path.parent).to_dict("records")
    assert (row["rater"], row["role"], row["experience"], row["blinded"]) == ("r1", "trainee", "6 months", True)
    assert row["a_lines_none"] == 1 and row["a_lines_bold"] == 0 and np.isnan(row["effusion_none"])
    assert row[SEVERITY] == "0" and row["seconds"] == 23.4 and row["comment"].endswith("ü")
    assert row["at"].tzinfo is not None
    log.append(rate("v2", HEALTHY))  # the comment is no other window's session


def test_the_last_rating_of_a_video_counts_and_a_repeat_is_another_one(log):
    log.append(rate("v1", HEALTHY), rate("v1", UNSURE, repeat=1))
    log.append(rate("v1", HEALTHY | {SEVERITY: ["1"]}))
    table = read_ratings(log.path.parent)
    assert table[["repeat", SEVERITY]].fillna("?").to_numpy().tolist() == [[0, "1"], [1, "?"]]
    assert len(log.path.read_text().splitlines()) == 4


def test_a_rater_goes_on_where_the_log_ends_with_the_same_seed(log):
    log.append(rate("v1", HEALTHY))
    again = RatingLog(log.path.parent, "r1")
    assert list(again.ratings) == [("v1", 0)] and again.session["experience"] == "6 months"
    with pytest.raises(LusbioError, match="began with seed 0; leave out seed 3"):
        RatingLog(log.path.parent, "r1", seed=3)


def test_the_last_window_wins_and_the_older_one_is_told(log):
    newer = RatingLog(log.path.parent, "r1")
    newer.append(rate("v1", HEALTHY))
    before = log.path.read_bytes()
    for write in (lambda: log.append(rate("v2", UNSURE)), lambda: log.keep_draft({"ticks": 1})):
        with pytest.raises(ContinuedElsewhereError, match="continued in another window"):
            write()
    assert log.path.read_bytes() == before and not log.draft_path.exists()
    newer.append(rate("v2", HEALTHY))


def test_a_cut_last_line_is_dropped_on_opening_and_was_never_counted(log):
    log.append(rate("v1", HEALTHY))
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"event":"rating","video_id":"v2')
    assert len(read_ratings(log.path.parent)) == 1
    RatingLog(log.path.parent, "r1").append(rate("v3", HEALTHY))
    assert log.path.read_bytes().startswith(whole) and read_ratings(log.path.parent)["video_id"].tolist() == [
        "v1",
        "v3",
    ]


DAMAGE = {
    "no json": b"{]",
    "another event": b'{"event":"lunch"}',
    "half a rating": b'{"event":"rating","session":"1","video_id":"v"}',
    "no object": b"7",
}


@pytest.mark.parametrize("line", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_line_is_named_by_its_number_and_nothing_is_overwritten(log, line):
    log.append(rate("v1", HEALTHY))
    text = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(text[0] + line + b"\n" + text[1])
    before = log.path.read_bytes()
    for read in (lambda: read_ratings(log.path.parent), lambda: RatingLog(log.path.parent, "r1")):
        with pytest.raises(CohortError, match=r"line 2 is damaged .*nothing was overwritten"):
            read()
    assert log.path.read_bytes() == before


def test_findings_that_are_neither_known_nor_unknown_are_damage(log):
    rating = rate("v1", HEALTHY)
    rating["biomarkers"]["effusion_none"] = None  # known in part
    log.append(rating)
    assert "known in part" in read_log(log.path)[2][0]


def test_ratings_in_another_vocabulary_are_not_mixed_with_ours(log, monkeypatch):
    monkeypatch.setattr(module, "VOCABULARY", "0badcafe")
    with pytest.raises(CohortError, match=r"line 1: another vocabulary .*go on with that version"):
        RatingLog(log.path.parent, "r1")


@pytest.mark.parametrize("name", ["", "R1", "r 1", "../r1", "x" * 33, "é"])
def test_names_of_raters_are_plain(tmp_path, name):
    with pytest.raises(LusbioError, match="expected 1 to 32 of a-z"):
        RatingLog(tmp_path, name, new_rater=True)


def test_an_unknown_rater_is_no_new_one(log):
    with pytest.raises(LusbioError, match=r"no rater 'r11' .*\(is 'r1' meant\?\); a new one begins with --new-rater"):
        RatingLog(log.path.parent, "r11")
    log.append(rate("v1", HEALTHY))
    with pytest.raises(LusbioError, match="'r1' has rated in .*leave --new-rater out"):
        RatingLog(log.path.parent, "r1", new_rater=True)
    with pytest.raises(LusbioError, match="expected trainee or specialist"):
        RatingLog(log.path.parent, "r2", new_rater=True, role="boss")


def test_a_folder_that_cannot_be_written_says_how_to_name_another_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LusbioError, match="cannot be written .*name another folder with --ratings"):
        RatingLog(tmp_path / "file" / "ratings", "r1", new_rater=True)


def test_what_a_full_disk_takes_in_part_is_taken_back(log):
    log.append(rate("v1", HEALTHY))
    size = log.path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left|File too large"):
            log.append(rate("v2", HEALTHY))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.path.stat().st_size == size and ("v2", 0) not in log.ratings
    log.append(rate("v2", HEALTHY))
    assert read_ratings(log.path.parent)["video_id"].tolist() == ["v1", "v2"]


def test_drafts_are_kept_until_they_are_saved(log):
    log.keep_draft({"video_id": "v1", "answers": {"effusion": None}})
    assert RatingLog(log.path.parent, "r1").read_draft()["answers"] == {"effusion": None}
    RatingLog(log.path.parent, "r1").keep_draft(None)
    assert log.read_draft() is None
    log.draft_path.write_text("{")
    assert log.read_draft() is None


@pytest.mark.slow
def test_whatever_was_acknowledged_survives_a_kill_at_any_moment(tmp_path):
    rng, acknowledged = np.random.default_rng(0), 0
    RatingLog(tmp_path, "r1", new_rater=True)
    for kill in range(40):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:  # rates until it is killed, and says what is saved
            log = RatingLog(tmp_path, "r1")
            for k in range(10_000):
                log.append(rate(f"v{kill}_{k}", HEALTHY))
                log.keep_draft({"k": k})
                os.write(writing, b".")
        os.close(writing)
        os.read(reading, 1)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as rest:
            acknowledged = 1 + len(rest.read())
        log = RatingLog(tmp_path, "r1")  # every line is whole
        saved = [video for video, _ in log.ratings if video.startswith(f"v{kill}_")]
        assert saved[:acknowledged] == [f"v{kill}_{k}" for k in range(acknowledged)]
        assert len(saved) <= acknowledged + 1


# --- a cohort with ratings ---


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_rated_cohort(tmp_path / "cohort")


def test_ratings_of_a_good_cohort_have_no_problems(folder):
    assert rating_problems(folder) == []


def test_everything_that_is_wrong_with_ratings_is_listed(folder):
    np.save(folder / "videos" / "p0_v0.npy", np.zeros((3, 8, 8), np.uint8))
    lines = (folder / "cohort.csv").read_text().splitlines()
    (folder / "cohort.csv").write_text("\n".join(lines[:-1]) + "\n")
    with (folder / "ratings" / "r2.jsonl").open("a") as file:
        file.write("nothing\n")
    problems = "\n".join(rating_problems(folder))
    assert "ratings of 'r1': the file of video 'p0_v0' has changed since it was rated; restore it" in problems
    assert "video 'p3_v1' has no row in cohort.csv" in problems and "ratings of 'r2': line 10 is damaged" in problems


def test_a_rating_that_breaks_a_rule_is_a_problem(folder):
    log = RatingLog(folder / "ratings", "r1")
    log.append(rate("p0_v0", HEALTHY | {"B-lines": ["b_lines_few"]}, sha256=None))
    assert "stands beside b_lines_few" in rating_problems(folder)[0]


def test_merged_ratings_are_a_cohort(folder):
    table, ratings = read_table(folder / "cohort.csv"), read_ratings(folder / "ratings")
    merged, notes = merge_ratings(table, ratings, "r1", "r2")
    write_table(merged, folder / "labelled.csv")
    again = read_table(folder / "labelled.csv")
    r1, r2 = (ratings[ratings["rater"] == name].set_index("video_id").loc[table["video_id"]] for name in ("r1", "r2"))
    assert notes == []
    pd.testing.assert_frame_equal(again[list(BIOMARKER_NAMES)], r1[list(BIOMARKER_NAMES)].reset_index(drop=True))
    assert again[SEVERITY].tolist() == r1[SEVERITY].tolist()
    assert again[SPECIALIST].tolist() == r2[SEVERITY].tolist() != r1[SEVERITY].tolist()


def test_other_labels_are_kept_and_listed_unless_they_shall_be_replaced(folder):
    table, ratings = read_table(folder / "cohort.csv"), read_ratings(folder / "ratings")
    own = ratings[(ratings["rater"] == "r1") & (ratings["video_id"] == "p0_v0")].iloc[0]
    other = str(3 - int(own[SEVERITY]))
    table[SEVERITY] = table[SEVERITY].astype(object)
    table.loc[0, SEVERITY], table.loc[0, "effusion_none"] = other, 1 - own["effusion_none"]
    table.loc[1, "a_lines_none"] = 1.0  # one bit of a group is known, and it is right
    kept, notes = merge_ratings(table, ratings, "r1")
    assert kept.loc[0, SEVERITY] == other and np.isnan(kept.loc[0, "effusion_small"])
    assert sum("'p0_v0'" in note and note.endswith("kept") for note in notes) == 2
    replaced, _ = merge_ratings(table, ratings, "r1", replace=True)
    assert replaced.loc[0, SEVERITY] == own[SEVERITY] and replaced.loc[0, "effusion_none"] == own["effusion_none"]
    assert replaced[SPECIALIST].isna().all()


def test_ratings_that_are_missing_are_named_and_how_to_go_on(folder):
    table, ratings = read_table(folder / "cohort.csv"), read_ratings(folder / "ratings")
    some = ratings[~((ratings["rater"] == "r2") & (ratings["video_id"] == "p1_v0"))]
    with pytest.raises(LusbioError, match="'r2' has not rated 1 of 8 videos: p1_v0; go on with `lusbio label"):
        merge_ratings(table, some, "r1", "r2")
    with pytest.raises(LusbioError, match="no ratings by 'r3'; there are ratings by r1, r2"):
        merge_ratings(table, ratings, "r3")
    with pytest.raises(LusbioError, match="trainee and specialist are both 'r1', expected two raters"):
        merge_ratings(table, ratings, "r1", "r1")


def test_a_video_that_is_not_usable_has_no_labels_and_is_listed(folder):
    RatingLog(folder / "ratings", "r1").append(rate("p0_v0", None, sha256=None))
    merged, notes = merge_ratings(read_table(folder / "cohort.csv"), read_ratings(folder / "ratings"), "r1")
    assert merged.loc[0, [SEVERITY, *BIOMARKER_NAMES]].isna().all()
    assert notes == ["video 'p0_v0': not usable, says r1"]


def test_label_studio_gets_tasks_and_the_setup_they_fit(folder):
    from xml.etree import ElementTree

    table, ratings = read_table(folder / "cohort.csv"), read_ratings(folder / "ratings")
    write_label_studio(ratings, table, folder / "tasks.json")
    tasks = json.loads((folder / "tasks.json").read_text())
    setup = ElementTree.parse(folder / "tasks.xml").getroot()
    choices = {tag.get("name"): {c.get("value") for c in tag} for tag in setup.iter("Choices")}
    names = {tag.get("name") for tag in setup}
    assert len(tasks) == 8 and len(choices) == 10
    for task in tasks:
        assert (folder / task["data"]["video"]).is_file() and len(task["annotations"]) == 2
        for annotation in task["annotations"]:
            assert {result["from_name"] for result in annotation["result"]} <= names
            for result in annotation["result"][1:]:
                assert set(result["value"]["choices"]) <= choices[result["from_name"]]
    who = [a["result"][0]["value"]["text"][0] for a in tasks[0]["annotations"]]
    assert who == ["r1", "r2"]
