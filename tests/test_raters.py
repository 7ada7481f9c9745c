"""What notebook 05 says of people who label here, against scikit-learn."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import make_rated_cohort, rate
from sklearn.metrics import cohen_kappa_score

from lusbio.cohorts.load import load_cohort, load_folder
from lusbio.files import build_folder
from lusbio.labelling.ratings import RatingLog, rating_problems, read_log, read_ratings
from lusbio.labelling.sheet import GROUPS
from lusbio.paper.raters import code_answers, describe_raters, list_items, make_raters_table, open_ratings
from lusbio.profiles import PROFILES
from lusbio.runs.spec import prepare_cohort
from lusbio.runs.study import as_study
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_NAMES, SEVERITY, group_names

TINY = replace(PROFILES["smoke"], name="tiny", patients=8)


def as_a_study(folder):
    return as_study(prepare_cohort(load_folder(folder), TINY))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two raters of 40 videos; the first saw 30 of them again."""
    folder = make_rated_cohort(tmp_path_factory.mktemp("rated"), patients=20)
    ratings = read_ratings(folder / "ratings")
    rng, again = np.random.default_rng(0), []
    for row in ratings[ratings["rater"] == "r1"].head(30).to_dict("records"):
        answers = dict.fromkeys(GROUPS) | {SEVERITY: [str(rng.integers(0, 4))]}
        again.append(rate(row["video_id"], answers, repeat=1, sha256=row["sha256"]))
    RatingLog(folder / "ratings", "r1").append(*again, rate("p0_v0", None, sha256=None))
    return as_a_study(folder)


@pytest.fixture(scope="module")
def table(study):
    return make_raters_table(open_ratings(study), study)


def test_every_group_the_flags_and_severity_are_compared():
    items = list_items()
    assert [title for title, _, _ in items if ":" not in title] == [*BIOMARKER_GROUPS, "Lung severity"]
    assert sorted(name for _, columns, _ in items for name in columns) == sorted([*BIOMARKER_NAMES, SEVERITY])
    assert {title for title, _, ordered in items if not ordered} == {
        *("B-line origin", "A-lines: also stacked", "A-lines: also wide (> 2 cm)")
    }


def test_agreement_and_kappa_are_those_of_scikit_learn(study, table):
    first = open_ratings(study).query("repeat == 0 and usable")
    r1, r2 = (first[first["rater"] == name].set_index("video_id") for name in ("r1", "r2"))
    both = r1.index.intersection(r2.index)
    found = table.cells[table.cells["raters"] == "r1 and r2"].set_index(["item", "metric"])
    for group in BIOMARKER_GROUPS:
        if group == "A-lines":
            continue  # whose flags are apart
        names = list(group_names(group))
        a, b = (part.loc[both, names] for part in (r1, r2))
        known = a.notna().all(axis=1) & b.notna().all(axis=1)
        a, b = (part[known].to_numpy().argmax(axis=1) for part in (a, b))
        kind, weights = ("kappa", None) if group == "B-line origin" else ("quadratic_kappa", "quadratic")
        assert found.loc[(group, "agreement"), "value"] == pytest.approx(100 * (a == b).mean())
        kappa = cohen_kappa_score(a, b, weights=weights, labels=range(len(names)))
        assert found.loc[(group, kind), "value"] == pytest.approx(100 * kappa)
        assert found.loc[(group, "agreement"), "videos"] == known.sum()
    grades = [part.loc[both, SEVERITY].astype(int) for part in (r1, r2)]
    kappa = cohen_kappa_score(*grades, weights="quadratic")
    assert found.loc[("Lung severity", "quadratic_kappa"), "value"] == pytest.approx(100 * kappa)
    assert len(both) == 39  # one video is not usable
    known = found.dropna(subset=["value"])  # flags that nobody ticked have no kappa
    assert len(known) == len(found) - 2 and (known["low"] <= known["high"]).all()


def test_a_rater_is_compared_with_what_the_same_rater_said_first(study, table):
    own = open_ratings(study).query("rater == 'r1'").set_index(["repeat", "video_id"])[SEVERITY]
    first, again = own[0].drop("p0_v0"), own[1]
    both = first.index.intersection(again.index)
    found = table.cells[table.cells["raters"] == "r1 again"].set_index(["item", "metric"])
    assert found.loc[("Lung severity", "agreement"), "value"] == pytest.approx(
        100 * (first[both] == again[both]).mean()
    )
    assert set(found.index.get_level_values("item")) == {"Lung severity"}  # all else was unsure


def test_unsure_answers_are_counted_apart(study, table):
    usable = open_ratings(study).query("rater == 'r1' and repeat == 0 and usable")
    cells = table.cells.set_index(["raters", "item", "metric"])
    assert cells.loc[("r1", "effusion", "unsure"), "value"] == pytest.approx(
        100 * usable["effusion_none"].isna().mean()
    )
    assert cells.loc[("r1", "Lung severity", "unsure"), "value"] == 0
    assert (code_answers(usable, group_names("effusion")) == -1).sum() == usable["effusion_none"].isna().sum() > 0


def test_people_read_a_row_per_item(table):
    assert table.shown["item"].tolist() == [title for title, _, _ in list_items()]
    assert {"r1 and r2: same answer (%)", "r1 and r2: kappa x 100", "r2: unsure (%)"} <= set(table.shown)


def test_a_reader_learns_who_rated_how_and_how_often(study):
    text = describe_raters(open_ratings(study), study)
    assert (
        "40 videos of 20 patients" in text and "r1: trainee, experience not said, 40 of 40 videos, 1 not usable" in text
    )
    assert "30 rated again" in text and "1 s a video (median)" in text and "simulated" not in text


def test_where_nobody_has_labelled_that_is_said(tmp_path):
    folder = make_rated_cohort(tmp_path / "cohort", patients=8)
    shutil.rmtree(folder / "ratings")
    study = as_a_study(folder)
    table = make_raters_table(open_ratings(study), study)
    assert table.cells.empty and table.shown.empty and "Nobody has labelled" in table.note
    assert "Nobody has labelled" in describe_raters(open_ratings(study), study)


@pytest.mark.slow
def test_simulated_raters_rate_through_the_same_log():
    study = as_study(prepare_cohort(load_cohort("synthetic", TINY), TINY))
    ratings = open_ratings(study)
    folder = build_folder("tiny", "synthetic", "ratings")
    for rater in ("simulated_trainee", "simulated_specialist"):
        assert read_log(folder / f"{rater}.jsonl")[2] == []  # every sheet keeps the rules
    assert rating_problems(study.cohort.folder, folder) == []
    first = (
        ratings.query("rater == 'simulated_trainee' and repeat == 0").set_index("video_id").loc[study.table["video_id"]]
    )
    pd.testing.assert_frame_equal(
        first[list(BIOMARKER_NAMES)].reset_index(drop=True), study.table[list(BIOMARKER_NAMES)], check_dtype=False
    )
    assert first[SEVERITY].tolist() == study.table[SEVERITY].tolist()
    cells = make_raters_table(ratings, study).cells
    assert make_raters_table(open_ratings(study), study).cells.equals(cells)
    assert "simulated_trainee again" in set(cells["raters"])
    assert "all of it simulated" in describe_raters(ratings, study)
