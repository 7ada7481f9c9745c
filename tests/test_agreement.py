from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score
from small_cohort import TINY, make_small_cohort
from test_rows import made_up_run

from lusbio.experts.rows import decide_end_to_end
from lusbio.paper.agreement import (
    SPECIALIST,
    compare_agreement,
    count_pairs,
    describe_cells,
    describe_public_raters,
    make_agreement_table,
    make_public_raters_table,
    widen_agreement,
)
from lusbio.runs.spec import PreparedCohort, prepare_cohort


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> PreparedCohort:
    """A cohort whose specialist grades everything one grade milder, and not all videos."""
    cohort = make_small_cohort(tmp_path_factory.mktemp("cohort"))
    grades = (cohort.table["lung_severity"].astype(int) - 1).clip(lower=0).astype(str)
    grades[::5] = np.nan
    return prepare_cohort(replace(cohort, table=cohort.table.assign(**{SPECIALIST: grades})), TINY)


@pytest.fixture
def decided(prepared, tmp_path):
    """A network that decides as the trainee did, and one that decides as the specialist would."""
    trainee = decide_end_to_end([made_up_run(prepared, tmp_path / "run", "lung_severity")], prepared)
    (fold,) = trainee.folds
    specialist = np.eye(4)[np.maximum(fold.labels - 1, 0)]
    return trainee, replace(trainee, features="biomarkers", folds=(replace(fold, probabilities=specialist),))


def test_everybody_is_compared_with_the_specialist_on_the_videos_that_were_graded(prepared, decided):
    table = make_agreement_table(decided, prepared, draws=50).set_index(["rater", "metric"])
    tested = prepared.cohort.table[(prepared.splits(0) == "test").to_numpy()].dropna(subset=[SPECIALIST])
    trainee, specialist = tested["lung_severity"].astype(int), tested[SPECIALIST].astype(int)
    for rater in ("trainee", "end_to_end"):
        found = table.loc[rater, "value"]
        assert found["agreement"] == pytest.approx(100 * (trainee == specialist).mean())
        assert found["kappa"] == pytest.approx(100 * cohen_kappa_score(trainee, specialist))
        quadratic = cohen_kappa_score(trainee, specialist, weights="quadratic")
        assert found["quadratic_kappa"] == pytest.approx(100 * quadratic)
        assert found["within_one"] == 100
    assert (table.loc["biomarkers", "value"] == 100).all()
    assert table["published"].dropna().to_dict() == {("trainee", "agreement"): 56}


def test_who_agrees_more_is_said_and_whether_that_is_sure(prepared, decided):
    sentence = compare_agreement(decided, prepared, draws=100)
    assert "more often, and the interval excludes 0" in sentence
    assert "no difference" in compare_agreement(decided[:1] * 2, prepared, draws=20)


def test_a_cohort_without_a_specialist_says_so_and_has_no_rows(prepared, decided):
    nobody = prepared.cohort.table.assign(**{SPECIALIST: pd.Series(np.nan, dtype=object)})
    prepared = replace(prepared, cohort=replace(prepared.cohort, table=nobody))
    table = make_agreement_table(decided, prepared, draws=10)
    assert table.empty and make_agreement_table([], prepared, draws=10).empty
    for rows, reason in ((decided, "no grades of a specialist"), ([], "cannot be learnt")):
        assert reason in compare_agreement(rows, prepared, draws=10)
        assert reason in describe_cells(table, rows, prepared)
    assert widen_agreement(make_agreement_table(decided, prepared, draws=10)).empty


def test_people_read_values_with_intervals_and_the_published_one(prepared, decided):
    shown = widen_agreement(make_agreement_table(decided, prepared, draws=50)).set_index("rater")
    assert shown.index.tolist() == ["trainee", "end-to-end", "biomarkers"]
    assert shown.loc["trainee", "same grade (%)"].endswith("] (56)")
    assert shown.loc["biomarkers", "kappa x 100"] == "100.0 [100.0, 100.0]"


def test_public_raters_are_compared_over_groups():
    raters = pd.DataFrame({"pocovid": [0, 1, 2, 3] * 5, "covidx_us": [0, 1, 2, 2] * 5, "group_id": list("abcd") * 5})
    table = make_public_raters_table(raters, draws=50).set_index("metric")
    assert table.loc["agreement", "value"] == 75 and table.loc["within_one", "value"] == 100
    assert "published" not in table
    assert widen_agreement(table.reset_index())["rater"].tolist() == ["POCOVID and COVIDx-US"]
    raters["matched_by"] = "butterfly title"
    counts = count_pairs(raters)
    assert counts.drop(columns="POCOVID").to_numpy().sum() == 20 and counts.loc[3, "COVIDx-US 2"] == 5
    text = describe_public_raters(raters)
    assert "20 videos, 0 of them" in text and "in 4 groups" in text and "0.25 grades higher" in text
