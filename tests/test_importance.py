from dataclasses import replace

import numpy as np
import pytest
from helpers import made_up_run, small_study
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression

from lusbio.experts.classifiers import Expert
from lusbio.experts.rows import choose_by_validation, decide_with_experts
from lusbio.paper.closer_look import describe_importance, make_importance, permute_columns
from lusbio.runs.study import Study
from lusbio.statistics.metrics import task_metrics
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_NAMES, DISEASE, SEVERITY


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"))


def test_drops_equal_scikit_learns_permutation_importance():
    rng = np.random.default_rng(0)
    features, labels = rng.random((200, 4)), np.arange(200) % 3
    features[:, 0] += labels
    features[:, 1] += 0.4 * labels
    model = LogisticRegression(max_iter=500).fit(features, labels)
    expert = Expert("LR", model, 3, 0.0, 0)
    _, ours = permute_columns(expert, features, labels, [[k] for k in range(4)], repeats=60, seed=0)
    theirs = permutation_importance(
        model, features, labels, scoring="roc_auc_ovo_weighted", n_repeats=60, random_state=1
    )
    np.testing.assert_allclose(ours.mean(axis=1), theirs.importances_mean, atol=0.01)
    np.testing.assert_allclose(ours.std(axis=1), theirs.importances_std, atol=0.01)


def test_columns_of_a_set_are_permuted_together():
    """Where two columns are one, and the model trusts their sum, apart they would cost less."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    signal = labels + rng.normal(0, 0.3, 400)
    features = np.stack([signal, signal, rng.random(400)], axis=1)
    expert = Expert("LR", LogisticRegression().fit(features, labels), 2, 0.0, 0)
    auc, drops = permute_columns(expert, features, labels, [[0], [0, 1], [2], []], repeats=20, seed=0)
    assert auc > 0.95
    assert drops[1].mean() == pytest.approx(auc - 0.5, abs=0.03)
    assert drops[0].mean() < drops[1].mean() / 2
    assert abs(drops[2].mean()) < 0.01
    assert (drops[3] == 0).all()


def test_the_biomarkers_that_hold_the_rule_carry_the_decision(study, tmp_path):
    run = made_up_run(study, tmp_path / "run")  # 0 and 1, both of A-lines, tell all severities apart
    (tree,) = decide_with_experts([run], SEVERITY, study, experts=["DT"])
    table = make_importance([tree], study).cells
    assert len(table) == len(BIOMARKER_GROUPS) + len(BIOMARKER_NAMES)
    groups = table[table["level"] == "group"].set_index("biomarker")["mean"]
    assert groups.idxmax() == "A-lines" and groups["A-lines"] > 20
    assert (groups.drop("A-lines") == 0).all()
    singles = table[table["level"] == "biomarker"].set_index("biomarker")["mean"]
    assert set(singles.nlargest(2).index) == set(BIOMARKER_NAMES[:2])
    assert (table["auc"] == 100).all()
    (sentence,) = describe_importance(table)
    assert sentence.startswith("Lung severity (AUC 100.0) rests most on A-lines (")


def test_the_experts_that_are_asked_are_those_that_decided(study, tmp_path):
    run = made_up_run(study, tmp_path / "run")
    rows = decide_with_experts([run], DISEASE, study, experts=["RF", "DT"])
    chosen = choose_by_validation(rows)
    auc = task_metrics(chosen.held_out[0].labels, chosen.held_out[0].probabilities)["auc"]
    table = make_importance([chosen], study).cells
    assert table["auc"].unique() == pytest.approx(100 * auc)
    with pytest.raises(ValueError, match="zip"):
        make_importance([replace(chosen, classifier="DT / DT")], study)


def test_nothing_stands_out_where_nothing_was_learnt(study, tmp_path):
    run = made_up_run(study, tmp_path / "run", masked=BIOMARKER_NAMES)
    (tree,) = decide_with_experts([run], SEVERITY, study, experts=["DT"])
    table = make_importance([tree], study).cells
    assert (table["mean"] == 0).all()
    (sentence,) = describe_importance(table)
    assert "no single group that stands out" in sentence
