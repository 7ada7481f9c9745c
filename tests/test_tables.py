from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score
from small_cohort import TINY, make_small_cohort
from test_rows import made_up_run

from lusbio.experts.rows import Decisions, FoldResult
from lusbio.files import ROOT, file_sha256
from lusbio.paper.biomarkers import explain_near_chance, make_biomarker_auc_table, make_table2, make_table5
from lusbio.report.tables import (
    TRAINING_TIME,
    describe_absent,
    make_table1,
    make_table7,
    read_published,
    save_table,
    to_markdown,
    widen,
)
from lusbio.runs.spec import prepare_cohort
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_cohort(make_small_cohort(tmp_path_factory.mktemp("cohort")), TINY)


def made_up_decisions(
    features: str, classifier: str, seed: int, skill: float = 1.0, validation_accuracy: float = 0.5
) -> Decisions:
    rng, patients = np.random.default_rng(seed), np.random.default_rng(0)
    folds = []
    for _ in range(3):
        labels = patients.integers(0, 4, 60)  # the same whatever is made of them
        scores = rng.normal(size=(60, 4))
        scores[np.arange(60), labels] += skill
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        folds.append(FoldResult(np.arange(60), labels, p, np.repeat(np.arange(20).astype(str), 3)))
    right = np.arange(100) >= 100 * validation_accuracy
    validated = FoldResult(np.arange(100), right.astype(int), np.tile([1.0, 0, 0, 0], (100, 1)), np.arange(100))
    return Decisions(features, classifier, "lung_severity", tuple(folds), (validated,) * 3, 1.5, tuple("0123"))


def test_table1_is_what_scikit_learn_computes_run_by_run():
    row = made_up_decisions("end_to_end", "E2E", 0)
    table = make_table1([row], draws=200).set_index("metric")
    accuracy = [accuracy_score(f.labels, f.probabilities.argmax(1)) for f in row.folds]
    auc = [roc_auc_score(f.labels, f.probabilities, multi_class="ovo", average="weighted") for f in row.folds]
    for metric, values in {"accuracy": accuracy, "auc": auc}.items():
        assert table.loc[metric, "mean"] == pytest.approx(100 * np.mean(values))
        assert table.loc[metric, "sd"] == pytest.approx(100 * np.std(values))
        assert table.loc[metric, "ci_low"] < table.loc[metric, "mean"] < table.loc[metric, "ci_high"]


def test_published_numbers_stand_beside_the_reproduced_ones():
    table = make_table1([made_up_decisions("biomarkers", "MLP", 0)], draws=10).set_index("metric")
    assert (table.loc["auc", "published_mean"], table.loc["accuracy", "published_sd"]) == (83.2, 2.0)
    assert len(read_published("table1")) == 134 and len(read_published("table2")) == 3


def test_table1_has_the_minutes_of_training_and_other_tables_do_not():
    rows = [made_up_decisions("biomarkers", "MLP", 0), made_up_decisions("end_to_end", "E2E", 1)]
    free = replace(made_up_decisions("majority", "—", 2), minutes=0.0)
    other = replace(rows[1], task="disease", minutes=2.5)
    table = make_table1([*rows, other, free], draws=5)
    assert table["minutes"].tolist() == [1.5] * 4 + [2.5] * 2 + [0.0] * 2
    assert widen(table)[TRAINING_TIME].tolist() == ["1.50", "2.00 (194)", "—"]
    assert TRAINING_TIME not in widen(make_table7(rows, 5))


def test_a_class_that_nobody_has_leaves_a_number_and_is_said(prepared):
    row = made_up_decisions("end_to_end", "E2E", 0)
    rare = replace(row, folds=tuple(replace(f, labels=f.labels % 3) for f in row.folds))
    assert "Lung severity: 3 absent in 3 of 3 test folds" in describe_absent([rare])
    assert make_table1([rare], draws=20)["mean"].notna().all()
    assert describe_absent([row]) == "every class is present in every test fold"


def test_table2_judges_only_what_was_learnt(prepared, tmp_path):
    masked = [name for name in BIOMARKER_NAMES if name != BIOMARKER_NAMES[0]]
    run = made_up_run(prepared, tmp_path / "run", masked=masked)
    table = make_table2([run], prepared).set_index("metric")
    assert table.loc["element_accuracy", "mean"] == table.loc["mean_auc", "mean"] == 100
    assert table.loc["weighted_recall", "published_mean"] == 76.4
    aucs = make_biomarker_auc_table([run], prepared)
    assert aucs["mean"].notna().sum() == 1 and len(aucs) == 38


def test_table5_has_all_biomarkers_in_order():
    table = make_table5()
    assert table["name"].tolist() == list(BIOMARKER_NAMES) and table["index"].tolist() == list(range(38))
    assert table["meaning"].str.endswith(".").all()


def test_people_read_what_programs_read(tmp_path):
    table = make_table1([made_up_decisions("biomarkers", "MLP", 0), made_up_decisions("end_to_end", "E2E", 1)], 10)
    shown = widen(table)
    assert shown["classifier"].tolist() == ["MLP", "E2E"] and "Lung severity, AUC" in shown
    save_table(table, tmp_path, "table1", title="Table 1", origin="**Simulated**", shown=shown, note="Percent.")
    assert pd.read_csv(tmp_path / "table1.csv")["mean"].to_numpy() == pytest.approx(table["mean"].to_numpy())
    text = (tmp_path / "table1.md").read_text()
    assert text.startswith("# Table 1\n\n**Simulated**") and f"{table['mean'][0]:.1f}" in text


def test_missing_numbers_are_shown_as_missing():
    assert to_markdown(pd.DataFrame({"a": [1.25, np.nan], "b": ["x|y", "z"]})).splitlines()[2:] == [
        "| 1.2 | x\\|y |",
        "| — | z |",
    ]


PUBLISHED_SHA256 = {
    "published.csv": "b1a5e146ae9d924d8b62e981db94f7bbb3dea5fbb866553f1e36176f4ab653ff",
    "train_minutes.csv": "337048402b6c5b352254eb87baf5991225da33e17bcb12459904ce16f7780af7",
}
"""Of the transcription that was checked against the paper."""


def test_published_numbers_are_those_of_the_paper():
    for name, sha256 in PUBLISHED_SHA256.items():
        assert file_sha256(ROOT / "lusbio" / "published" / name) == sha256
    rows = pd.read_csv(ROOT / "lusbio" / "published" / "published.csv").groupby("table").size()
    assert rows.to_dict() == {"table1": 134, "table2": 3, "table4": 1, "table7": 60}


def test_every_published_number_of_table1_stands_in_its_cell():
    published = pd.read_csv(ROOT / "lusbio" / "published" / "published.csv").query("table in ('table1', 'table7')")
    for (features, classifier), rows in published.groupby(["features", "classifier"]):
        decided = replace(made_up_decisions(features, classifier, 0), task=rows["task"].iloc[0])
        made = {"table1": make_table1([decided], 2), "table7": make_table7([decided], 2)}
        for row in rows[rows["task"] == decided.task].itertuples():
            cell = made[row.table].set_index("metric").loc[row.metric]
            assert (cell["published_mean"], cell["published_sd"]) == (row.mean, row.sd)


def test_biomarkers_near_chance_are_named_with_the_reason():
    aucs = pd.DataFrame(
        {
            "group": ["effusion", "pleural break", "A-lines", "B-lines"],
            "option": ["> 5 mm", "none", "bold", "none"],
            "present": [3, 60, 50, 80],
            "absent": [150, 100, 112, 82],
            "mean": [40.0, 55.0, 52.0, 80.0],
        }
    )
    explained = explain_near_chance(aucs, pixels_per_mm=0.8).set_index("biomarker")["reason"]
    assert list(explained.index) == ["effusion: > 5 mm", "A-lines: bold", "pleural break: none"]
    assert explained["effusion: > 5 mm"].startswith("rare: 3 test videos")
    assert explained["pleural break: none"] == "fine: 2 mm are 1.6 pixels here"
    assert explained["A-lines: bold"].startswith("neither")
