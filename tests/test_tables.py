from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import made_up_row, made_up_run, small_study
from sklearn.metrics import accuracy_score, roc_auc_score

from lusbio.files import PACKAGE
from lusbio.paper.biomarkers import explain_near_chance, make_biomarker_auc_table, make_table2, make_table5
from lusbio.report.cells import read_published
from lusbio.report.tables import (
    TRAINING_TIME,
    describe_absent,
    describe_backbone_effort,
    describe_majority,
    make_cost,
    make_table1,
    make_table6,
    make_table7,
    runs_of,
)
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("cohort"))


def test_table1_is_what_scikit_learn_computes_run_by_run():
    row = made_up_row("end_to_end", "E2E", 0)
    cells = make_table1([row], draws=200).cells.set_index("metric")
    accuracy = [accuracy_score(h.labels, h.probabilities.argmax(1)) for h in row.held_out]
    auc = [roc_auc_score(h.labels, h.probabilities, multi_class="ovo", average="weighted") for h in row.held_out]
    for metric, values in {"accuracy": accuracy, "auc": auc}.items():
        assert cells.loc[metric, "mean"] == pytest.approx(100 * np.mean(values))
        assert cells.loc[metric, "sd"] == pytest.approx(100 * np.std(values))
        assert cells.loc[metric, "ci_low"] < cells.loc[metric, "mean"] < cells.loc[metric, "ci_high"]


def test_published_numbers_stand_beside_the_reproduced_ones():
    cells = make_table1([made_up_row("biomarkers", "MLP", 0)], draws=10).cells.set_index("metric")
    assert (cells.loc["auc", "published_mean"], cells.loc["accuracy", "published_sd"]) == (83.2, 2.0)
    assert len(read_published("table1")) == 134 and len(read_published("table2")) == 3


def test_table1_has_the_minutes_of_training_and_other_tables_do_not():
    rows = [made_up_row("biomarkers", "MLP", 0), made_up_row("end_to_end", "E2E", 1)]
    free = replace(made_up_row("majority", "—", 2), minutes=0.0)
    other = replace(rows[1], task="disease", minutes=2.5)
    table = make_table1([*rows, other, free], draws=5)
    assert table.cells["minutes"].tolist() == [1.5] * 4 + [2.5] * 2 + [0.0] * 2
    assert table.shown[TRAINING_TIME].tolist() == ["1.50", "2.00 (194)", "—"]
    assert TRAINING_TIME not in make_table7(rows, 5).shown


def test_a_class_that_nobody_has_leaves_a_number_and_is_said():
    row = made_up_row("end_to_end", "E2E", 0)
    rare = replace(row, held_out=tuple(h._replace(labels=h.labels % 3) for h in row.held_out))
    assert "Lung severity: 3 absent in 3 of 3 test folds" in describe_absent([rare])
    table = make_table1([rare], draws=20, note="Left out here: something.")
    assert table.cells["mean"].notna().all()
    assert table.note == "Left out here: something.\n\nLung severity: 3 absent in 3 of 3 test folds"
    assert describe_absent([row]) == "every class is present in every test fold" == make_table1([row], draws=2).note


def test_table2_judges_only_what_was_learnt(study, tmp_path):
    masked = [name for name in BIOMARKER_NAMES if name != BIOMARKER_NAMES[0]]
    run = made_up_run(study, tmp_path / "run", masked=masked)
    table = make_table2([run], study)
    cells = table.cells.set_index("metric")
    assert cells.loc["element_accuracy", "mean"] == cells.loc["mean_auc", "mean"] == 100
    assert cells.loc["weighted_recall", "published_mean"] == 76.4
    assert table.runs == (run,) and table.shown["classifier"].tolist() == ["TSM"]
    assert "(76.4 ± 1.0)" in table.shown["Biomarkers, Recall (weighted)"][0]
    aucs = make_biomarker_auc_table([run], study).cells
    assert aucs["mean"].notna().sum() == 1 and len(aucs) == 38
    tested = study.table[study.splits(0) == "test"]
    assert (
        aucs["present"][0] == (tested[BIOMARKER_NAMES[0]] == 1).sum() and aucs["present"][1] == aucs["absent"][1] == 0
    )


def test_table5_has_all_biomarkers_in_order():
    table = make_table5()
    assert table.cells["name"].tolist() == list(BIOMARKER_NAMES) and table.cells["index"].tolist() == list(range(38))
    assert table.cells["meaning"].str.endswith(".").all()
    assert list(table.shown) == ["index", "group", "option", "meaning"] and table.origin == ""


def test_people_read_what_programs_read(study):
    table = make_table1([made_up_row("biomarkers", "MLP", 0), made_up_row("end_to_end", "E2E", 1)], 10, "No more.")
    assert table.shown["classifier"].tolist() == ["MLP", "E2E"] and "Lung severity, AUC" in table.shown
    shown = study.publish("table1", table)
    written = pd.read_csv(study.folder / "table1.csv")
    assert written["mean"].to_numpy() == pytest.approx(table.cells["mean"].to_numpy())
    text = (study.folder / "table1.md").read_text()
    assert text.startswith("# Table 1: three tasks\n\n**Simulated** patients")
    assert f"{table.cells['mean'][0]:.1f}" in text and "\n\nPercent. Cells: mean ± SD" in text and "No more." in text
    assert shown == f"##{text}" and shown._repr_markdown_() == shown
    study.publish("table1", replace(table, origin="**Simulated**"))
    assert (study.folder / "table1.md").read_text().startswith("# Table 1: three tasks\n\n**Simulated**\n\n|")


def test_every_published_number_of_table1_stands_in_its_cell():
    published = pd.read_csv(PACKAGE / "report" / "published" / "published.csv").query("table in ('table1', 'table7')")
    for (features, classifier), rows in published.groupby(["features", "classifier"]):
        decided = replace(made_up_row(features, classifier, 0), task=rows["task"].iloc[0])
        made = {"table1": make_table1([decided], 2), "table7": make_table7([decided], 2)}
        for row in rows[rows["task"] == decided.task].itertuples():
            cell = made[row.table].cells.set_index("metric").loc[row.metric]
            assert (cell["published_mean"], cell["published_sd"]) == (row.mean, row.sd)


def test_a_table_without_rows_has_columns_all_the_same(study):
    table = make_table7([made_up_row("majority", "—", 0)], 2)
    assert table.cells.empty and "published_mean" in table.cells
    assert "| features | classifier |" in study.publish("table7", table)


def test_table6_has_the_rows_of_both_backbones_and_says_how_far_they_went(study, tmp_path):
    run = made_up_run(study, tmp_path / "run", "lung_severity")
    rows = {name: [replace(made_up_row("end_to_end", "E2E", k), runs=(run,))] for k, name in enumerate(("a", "b"))}
    table = make_table6(rows, draws=5, note="One fold.")
    assert table.cells["backbone"].tolist() == ["a", "a", "b", "b"] and table.cells["published_mean"].isna().all()
    assert list(table.shown)[0] == "backbone" and table.shown["backbone"].tolist() == ["a", "b"]
    assert table.note == "One fold." and table.runs == (run,) == runs_of(rows["a"])
    text = describe_backbone_effort([run], study)
    epochs = study.profile.training.epochs
    assert text.startswith(f"tsm_resnet18: 1 of 3 folds, 1 task, {epochs} of {epochs} epochs. A short training shows")


def test_cost_counts_the_networks_that_a_row_rests_on(study, tmp_path):
    run = made_up_run(study, tmp_path / "run")
    rows = [made_up_row("end_to_end", "E2E", 0), made_up_row("biomarkers", "RF", 1), made_up_row("majority", "—", 2)]
    table = make_cost(rows, [run, replace(run, minutes=2.5)])
    assert table.cells["network_minutes"].tolist() == [0.0, 2.0] and table.cells["minutes"].tolist() == [1.5, 1.5]
    assert table.shown["Published (RTX A6000)"].tolist() == ["194.00", "—"]


def test_it_is_said_whether_anybody_is_right_more_often_than_class_frequencies():
    names = [("end_to_end", "E2E"), ("pretrained_on_biomarkers", "E2E"), ("biomarkers", "RF"), ("biomarkers", "DT")]
    names += [("true_biomarkers", "RF"), ("majority", "—")]
    cells = pd.DataFrame(names, columns=["features", "classifier"]).assign(task="sf_ratio", metric="accuracy")
    (sentence,) = describe_majority(cells.assign(mean=[40.0, 43.5, 44.5, 42, 60, 44]))
    told = "above are none of 2 networks (best: 43.5) and 1 of 2 experts (best: 44.5)."
    assert sentence == f"S/F ratio, accuracy: class frequencies alone reach 44.0; {told}"
    rows = [made_up_row("end_to_end", "E2E", 0), made_up_row("majority", "—", 1, skill=-1)]
    (sentence,) = describe_majority(make_table1(rows, draws=2).cells)
    assert sentence.startswith("Lung severity") and "above are 1 of 1 networks" in sentence


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
