import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import made_up_run, small_study
from sklearn.metrics import cohen_kappa_score

from lusbio.errors import NothingToDo
from lusbio.experts.rows import decide_end_to_end
from lusbio.files import ROOT
from lusbio.paper import agreement
from lusbio.paper.agreement import (
    compare_agreement,
    decide_severity,
    make_public_raters_table,
    make_table4,
    open_public_raters,
    publish_figure,
)
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_NAMES, SEVERITY, SPECIALIST, Kind


def with_column(study: Study, name: str, values: pd.Series) -> Study:
    return replace(study, cohort=replace(study.cohort, table=study.table.assign(**{name: values})))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """A cohort whose specialist grades everything one grade milder, and not all videos."""
    study = small_study(tmp_path_factory.mktemp("cohort"))
    grades = (study.table[SEVERITY].astype(int) - 1).clip(lower=0).astype(str)
    grades[::5] = np.nan
    return with_column(study, SPECIALIST, grades)


@pytest.fixture
def decided(study, tmp_path):
    """A network that decides as the trainee did, and one that decides as the specialist would."""
    trainee = decide_end_to_end([made_up_run(study, tmp_path / "run", SEVERITY)], study)
    (tested,) = trainee.held_out
    specialist = tested._replace(probabilities=np.eye(4)[np.maximum(tested.labels - 1, 0)])
    return trainee, replace(trainee, features=Kind.BIOMARKERS, held_out=(specialist,))


@pytest.fixture
def figures(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_FIGURES", str(tmp_path / "figures"))


def test_everybody_is_compared_with_the_specialist_on_the_videos_that_were_graded(study, decided):
    table = make_table4(decided, study).cells.set_index(["rater", "metric"])
    tested = study.table[(study.splits(0) == "test").to_numpy()].dropna(subset=[SPECIALIST])
    trainee, specialist = tested[SEVERITY].astype(int), tested[SPECIALIST].astype(int)
    for rater in ("trainee", "end_to_end"):
        found = table.loc[rater, "value"]
        assert found["agreement"] == pytest.approx(100 * (trainee == specialist).mean())
        assert found["kappa"] == pytest.approx(100 * cohen_kappa_score(trainee, specialist))
        quadratic = cohen_kappa_score(trainee, specialist, weights="quadratic")
        assert found["quadratic_kappa"] == pytest.approx(100 * quadratic)
        assert found["within_one"] == 100
    assert (table.loc["biomarkers", "value"] == 100).all()
    assert table["published"].dropna().to_dict() == {("trainee", "agreement"): 56}


def test_who_agrees_more_is_said_and_whether_that_is_sure(study, decided):
    sentence = compare_agreement(decided, study)
    assert "more often, and the interval excludes 0" in sentence
    assert "no difference" in compare_agreement(decided[:1] * 2, study)


def test_a_cohort_without_a_specialist_says_so_and_has_no_rows(study, decided, figures):
    nobody = with_column(study, SPECIALIST, pd.Series(np.nan, study.table.index, dtype=object))
    table = make_table4(decided, nobody)
    assert table.cells.empty and table.shown.empty and "no grades of a specialist" in table.note
    assert "no grades of a specialist" in compare_agreement(decided, nobody)
    publish_figure(make_table4(decided, study), study)
    assert (study.folder / "agreement.png").exists()
    publish_figure(table, nobody)  # what was drawn when there was a specialist goes
    assert not (study.folder / "agreement.png").exists()


def test_where_severity_cannot_be_learnt_the_notebook_ends(study, figures):
    unknown = with_column(study, SEVERITY, pd.Series(np.nan, study.table.index, dtype=object))
    with pytest.raises(NothingToDo, match="lung_severity"):
        decide_severity(unknown)


def test_who_agrees_is_about_being_right_so_experts_are_chosen_by_accuracy(study, monkeypatch):
    monkeypatch.setattr("lusbio.paper.agreement.decide_both_ways", lambda task, _, metric: [task, metric])
    assert decide_severity(study) == [SEVERITY, "accuracy"]


def test_where_no_biomarker_can_be_learnt_the_public_raters_are_compared_all_the_same(study, figures, monkeypatch):
    raters = pd.DataFrame({"pocovid": [0, 1, 2, 3] * 5, "covidx_us": [0, 1, 2, 2] * 5, "group_id": list("abcd") * 5})
    monkeypatch.setattr(agreement, "read_public_raters", lambda folder: raters.assign(matched_by="name"))
    study.publish("table4", pd.DataFrame({"rater": ["trainee"]}))
    table = study.table.assign(**dict.fromkeys(BIOMARKER_NAMES, np.nan))
    with pytest.raises(NothingToDo, match="cannot teach biomarkers"):
        decide_severity(replace(study, cohort=replace(study.cohort, table=table)))
    assert sorted(path.name for path in study.folder.iterdir()) == ["table4_public.csv", "table4_public.md"]


def test_people_read_values_with_intervals_and_the_published_one(study, decided):
    shown = make_table4(decided, study).shown.set_index("rater")
    assert shown.index.tolist() == ["trainee", "end-to-end", "biomarkers"]
    assert shown.loc["trainee", "same grade (%)"].endswith("] (56)")
    assert shown.loc["biomarkers", "kappa x 100"] == "100.0 [100.0, 100.0]"


def test_public_raters_are_compared_over_groups():
    raters = pd.DataFrame({"pocovid": [0, 1, 2, 3] * 5, "covidx_us": [0, 1, 2, 2] * 5, "group_id": list("abcd") * 5})
    table = make_public_raters_table(raters.assign(matched_by="butterfly title"), draws=50)
    values = table.cells.set_index("metric")["value"]
    assert values["agreement"] == 75 and values["within_one"] == 100
    assert "published" not in table.cells
    assert table.shown["rater"].tolist() == ["POCOVID and COVIDx-US"]
    assert "20 videos, 0 of them" in table.note and "in 4 groups" in table.note
    assert "0.25 grades higher" in table.note


def test_without_the_public_grades_the_notebook_ends_and_says_how_to_get_them(study, tmp_path, monkeypatch, figures):
    monkeypatch.setenv("LUSBIO_DATA", str(tmp_path))
    with pytest.raises(NothingToDo, match="lusbio fetch pocovid"):
        open_public_raters(study)


def test_what_the_notebook_counts_by_hand_is_right():
    cells = json.loads((ROOT / "notebooks" / "05_agreement.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names = {"np": np, "pd": pd, "grades": range(4)}
    for name in ("count_pairs", "count_agreement"):
        (text,) = [text for text in code if f"def {name}(" in text]
        exec(text[text.index("def ") :].split("\n\n\n")[0], names)
    raters = pd.DataFrame({"pocovid": [0, 1, 2, 3] * 5, "covidx_us": [0, 1, 2, 2] * 5})
    pairs = names["count_pairs"](raters["pocovid"], raters["covidx_us"])
    assert pairs.to_numpy().sum() == 20 and pairs.loc[3, 2] == 5 and pairs.shape == (4, 4)
    found = names["count_agreement"](pairs)
    assert found["agreement"] == 0.75
    assert found["kappa"] == pytest.approx(cohen_kappa_score(raters["pocovid"], raters["covidx_us"]))
    weighted = cohen_kappa_score(raters["pocovid"], raters["covidx_us"], weights="quadratic")
    assert found["quadratic_kappa"] == pytest.approx(weighted)
