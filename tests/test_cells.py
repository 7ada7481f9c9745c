"""The engine of cells: what it computes against scikit-learn, and how numbers are written."""

import numpy as np
import pandas as pd
import pytest
from helpers import made_up_row
from sklearn.metrics import accuracy_score, roc_auc_score

from lusbio.files import PACKAGE, file_sha256, to_markdown
from lusbio.report.cells import (
    add_published,
    format_value,
    lay_out,
    measure_cells,
    name_row,
    read_published,
    read_published_minutes,
    show_intervals,
    subtract_cells,
    widen,
)
from lusbio.statistics.bootstrap import Estimate, estimate, paired_difference
from lusbio.statistics.metrics import rater_agreement

PUBLISHED_SHA256 = {
    "published.csv": "b1a5e146ae9d924d8b62e981db94f7bbb3dea5fbb866553f1e36176f4ab653ff",
    "train_minutes.csv": "337048402b6c5b352254eb87baf5991225da33e17bcb12459904ce16f7780af7",
}
"""Of the transcription that was checked against the paper."""


def test_cells_are_what_scikit_learn_computes_run_by_run():
    row = made_up_row("end_to_end", "E2E", 0)
    cells = measure_cells([(name_row(row), row.held_out)], draws=200).set_index("metric")
    assert set(cells.index) == {"accuracy", "precision", "recall", "f1", "auc"}
    accuracy = [accuracy_score(h.labels, h.probabilities.argmax(1)) for h in row.held_out]
    auc = [roc_auc_score(h.labels, h.probabilities, multi_class="ovo", average="weighted") for h in row.held_out]
    for metric, values in {"accuracy": accuracy, "auc": auc}.items():
        assert cells.loc[metric, "mean"] == pytest.approx(100 * np.mean(values))
        assert cells.loc[metric, "sd"] == pytest.approx(100 * np.std(values))
        assert cells.loc[metric, "ci_low"] < cells.loc[metric, "mean"] < cells.loc[metric, "ci_high"]


def test_cells_are_the_estimates_in_percent_whatever_is_measured():
    row = made_up_row("end_to_end", "E2E", 0)
    graded = [h._replace(probabilities=h.probabilities.argmax(1)) for h in row.held_out]
    found = estimate(graded, 50, rater_agreement)
    cells = measure_cells([({"rater": "network"}, graded)], 50, rater_agreement, ["kappa", "agreement"])
    assert cells["metric"].tolist() == ["kappa", "agreement"] and set(cells["rater"]) == {"network"}
    for cell in cells.itertuples():
        expected = [100 * number for number in found[cell.metric][:4]]
        assert (cell.mean, cell.sd, cell.ci_low, cell.ci_high) == pytest.approx(expected)
    laid_out = lay_out({"kappa": found["kappa"]})
    assert laid_out == {
        "kappa": 100 * found["kappa"].value,
        "kappa_low": 100 * found["kappa"].low,
        "kappa_high": 100 * found["kappa"].high,
    }


def test_differences_are_paired_and_carry_a_p_value():
    weak, strong = made_up_row("end_to_end", "E2E", 0), made_up_row("biomarkers", "RF", 1, skill=4)
    (cell,) = subtract_cells([({"task": "x"}, strong.held_out, weak.held_out)], 100, metrics=["auc"]).itertuples()
    found = paired_difference(strong.held_out, weak.held_out, 100)["auc"]
    assert cell.mean == pytest.approx(100 * found.value) and cell.p_value == found.p_value < 0.05
    assert 0 < cell.ci_low < cell.mean < cell.ci_high
    own = [measure_cells([({}, row.held_out)], 2, metrics=["auc"])["mean"][0] for row in (strong, weak)]
    assert cell.mean == pytest.approx(own[0] - own[1])


def test_published_numbers_are_those_of_the_paper():
    for name, sha256 in PUBLISHED_SHA256.items():
        assert file_sha256(PACKAGE / "report" / "published" / name) == sha256
    rows = pd.read_csv(PACKAGE / "report" / "published" / "published.csv").groupby("table").size()
    assert rows.to_dict() == {"table1": 134, "table2": 3, "table4": 1, "table7": 60}
    assert {name: len(read_published(name)) for name in rows.index} == rows.to_dict()
    assert read_published_minutes()["end_to_end", "E2E"] == 194


def test_published_numbers_stand_beside_those_that_have_one():
    rows = [made_up_row("biomarkers", "MLP", 0), made_up_row("majority", "—", 1)]
    cells = measure_cells([(name_row(row), row.held_out) for row in rows], 5, metrics=["auc", "recall"])
    beside = add_published(cells, read_published("table1"))
    assert beside["published_mean"].tolist()[0] == 83.2 and beside["published_mean"].isna().sum() == 3
    pd.testing.assert_frame_equal(beside[cells.columns], cells)


def test_a_number_is_written_with_what_is_known_of_it():
    assert format_value(83.16) == "83.2" and format_value(np.nan, 1, 2) == "—"
    assert format_value(83.16, 70, 90.04, sd=1.25, decimals=2) == "83.16 ± 1.25 [70.00, 90.04]"
    assert format_value(-0.01, -3, 2, sign="+") == "+0.0 [-3.0, +2.0]"


def test_a_single_run_has_a_dash_for_its_sd():
    row = made_up_row("biomarkers", "MLP", 0)
    cells = measure_cells([(name_row(row), row.held_out[:1])], 10, metrics=["auc"])
    assert cells["sd"].isna().all()
    shown = widen(add_published(cells, read_published("table1")))["Lung severity, AUC"].item()
    assert shown.startswith(f"{cells['mean'].item():.1f} ± — [") and shown.endswith(" (83.2 ± 1.4)")


def test_people_read_a_row_per_way_and_a_column_per_metric_in_the_order_of_the_cells():
    rows = [made_up_row("end_to_end", "E2E", 1), made_up_row("biomarkers", "MLP", 0)]
    cells = measure_cells([(name_row(row), row.held_out) for row in rows], 10, metrics=["auc", "accuracy"])
    shown = widen(cells.iloc[:3])
    assert list(shown) == ["features", "classifier", "Lung severity, AUC", "Lung severity, Accuracy"]
    assert shown["features"].tolist() == ["end-to-end", "biomarkers"]
    assert shown["classifier"].tolist() == ["E2E", "MLP"] and shown["Lung severity, Accuracy"].tolist()[1] == "—"
    assert shown["Lung severity, AUC"][0].startswith(f"{cells['mean'][0]:.1f} ± ")
    by_one = widen(cells, ["classifier"], lambda cell: f"{cell['mean']:.3f}", lambda cell: cell["metric"])
    assert by_one.to_dict("list") == {
        "classifier": ["E2E", "MLP"],
        "auc": [f"{value:.3f}" for value in cells["mean"][::2]],
        "accuracy": [f"{value:.3f}" for value in cells["mean"][1::2]],
    }
    assert list(widen(cells.iloc[:0])) == ["features", "classifier"]


def test_intervals_stand_behind_their_numbers():
    table = pd.DataFrame([{"task": "sf_ratio"} | lay_out({"kappa": Estimate(0.1234, 0, 0.1, np.nan)}) | {"a_count": 3}])
    assert show_intervals(table).to_dict("records") == [
        {"task": "S/F ratio", "kappa": "12.3 [10.0, nan]", "a count": 3}
    ]


def test_missing_numbers_are_shown_as_missing():
    assert to_markdown(pd.DataFrame({"a": [1.25, np.nan], "b": ["x|y", "z"]})).splitlines()[2:] == [
        "| 1.2 | x\\|y |",
        "| — | z |",
    ]
