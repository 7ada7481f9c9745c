import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lusbio.report.result_figures import (
    _spread,
    plot_agreement,
    plot_confusion,
    plot_cost,
    plot_importance,
    plot_label_efficiency,
    plot_reliability,
    plot_results,
)
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKERS, Kind


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_results_show_means_and_published_means(ax):
    table = pd.DataFrame(
        {
            "features": ["end_to_end", "biomarkers"],
            "classifier": ["E2E", "RF"],
            "task": "disease",
            "metric": "auc",
            "mean": [60.0, 65.0],
            "ci_low": [50.0, 55.0],
            "ci_high": [70.0, 75.0],
            "published_mean": [59.2, 61.2],
        }
    )
    plot_results(table, "disease", "auc", ax=ax)
    drawn = [collection.get_offsets()[:, 0].tolist() for collection in ax.collections[1:]]
    assert drawn == [[60.0, 65.0], [59.2, 61.2]]


def results(rows):
    columns = ["features", "classifier", "task", "mean"]
    table = pd.DataFrame(rows, columns=columns).assign(metric="auc", published_mean=np.nan)
    return table.assign(ci_low=table["mean"] - 5, ci_high=table["mean"] + 5)


def test_a_row_of_results_lies_at_the_same_height_for_every_task():
    table = results(
        [
            ("end_to_end", "E2E", "disease", 60.0),
            ("end_to_end", "E2E", "sf_ratio", 61.0),
            ("pretrained_on_biomarkers", "E2E", "disease", 62.0),
            ("biomarkers", "RF", "disease", 63.0),
            ("biomarkers", "RF", "sf_ratio", 64.0),
        ]
    )
    figure, axes = plt.subplots(1, 2)
    heights = []
    for task, ax in zip(("disease", "sf_ratio"), axes, strict=True):
        plot_results(table, task, "auc", ax=ax)
        points = ax.collections[1]
        heights.append(dict(zip(points.get_offsets()[:, 0], points.get_offsets()[:, 1], strict=True)))
        assert ax.get_legend().get_texts()[-1].get_text() != "published"
    assert heights[0][60.0] == heights[1][61.0] and heights[0][63.0] == heights[1][64.0]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert [text.get_text() for text in axes[1].texts] == [
        "end-to-end",
        "pretrained on biomarkers (not here)",
        "biomarkers",
    ]
    plt.close(figure)


def test_every_kind_of_row_has_a_colour_of_its_own_but_those_that_nothing_was_learnt_for():
    grey = {Kind.SHUFFLED, Kind.MAJORITY, Kind.SOURCE_ONLY, Kind.DIFFERENCE}
    coloured = [kind.colour for kind in Kind if kind not in grey]
    assert len(set(coloured)) == len(coloured) and {kind.colour for kind in grey} == {Kind.MAJORITY.colour}
    assert Kind.MAJORITY.colour not in coloured and len({kind.words for kind in Kind}) == len(Kind)


def test_results_wear_the_colours_of_their_kinds(ax):
    table = results([("end_to_end", "E2E", "disease", 60.0), ("biomarkers", "RF", "disease", 65.0)])
    plot_results(table, "disease", "auc", ax=ax)
    worn = [matplotlib.colors.to_hex(colour) for colour in ax.collections[1].get_facecolors()]
    assert worn == [Kind.END_TO_END.colour, Kind.BIOMARKERS.colour]


def test_a_confusion_matrix_is_coloured_by_share_and_says_counts(ax):
    counts = pd.DataFrame([[3, 1], [0, 0]], index=["a", "b"], columns=["a", "b"])
    plot_confusion(counts, ax=ax)
    assert ax.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]  # a class that nobody has stays white
    assert [text.get_text() for text in ax.texts] == ["3", "1", "0", "0"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("decided", "true")


def test_reliability_has_a_diagonal_and_a_line_per_route(ax):
    table = pd.DataFrame(
        {
            "route": ["end_to_end", "end_to_end", "mine"],
            "bin_mean": [0.8, 0.4, 0.6],
            "observed": [0.7, 0.5, 0.6],
            "low": 0.3,
            "high": 0.9,
            "count": [5, 10, 20],
        }
    )
    plot_reliability(table, ax=ax)
    lines = [list(zip(*line.get_data(), strict=True)) for line in ax.lines]
    assert lines == [[(0, 0), (1, 1)], [(0.4, 0.5), (0.8, 0.7)], [(0.6, 0.6)]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["end-to-end", "mine"]


@pytest.mark.parametrize("gap", [0.1, 0.2, 0.4])
def test_names_are_moved_apart_in_order_and_no_further_than_needed(gap):
    apart = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(_spread(apart, gap), apart)
    close = _spread(np.array([0.5, 0.5, 0.51]), gap)
    np.testing.assert_allclose(np.diff(close), gap)
    assert 0 <= close.min() and close.max() <= 1 and abs(close.mean() - 0.5033) < 1e-3


@pytest.mark.parametrize("n", [1, 4, 16, 30])
def test_no_two_routes_of_the_cost_are_named_over_each_other(n):
    rng = np.random.default_rng(n)
    table = pd.DataFrame(
        {
            "features": "biomarkers",
            "classifier": [f"expert {k}" for k in range(n)],
            "minutes": rng.uniform(1, 40, n),
            "mean": rng.normal(60, 0.5, n),
        }
    ).assign(ci_low=lambda t: t["mean"] - 4, ci_high=lambda t: t["mean"] + 4)
    figure, ax = plt.subplots(figsize=(7, max(4, 0.17 * n)))
    plot_cost(table, ax=ax)
    figure.canvas.draw()
    # The text alone: get_window_extent of an annotation includes its line.
    boxes = sorted((matplotlib.text.Text.get_window_extent(text) for text in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == n and ax.get_xscale() == "log"
    assert all(low.y1 <= high.y0 + 1 for low, high in zip(boxes, boxes[1:], strict=False))
    assert len(np.unique(ax.collections[1].get_offsets()[:, 0].round(6))) == n
    plt.close(figure)


def test_label_efficiency_doubles_from_tick_to_tick_and_says_the_patients(ax):
    table = pd.DataFrame(
        {
            "route": ["end_to_end"] * 3,
            "fraction": [0.25, 1.0, 0.125],
            "patients": [24, 95, 12],
            "mean": [60.0, 70.0, 55.0],
        }
    ).assign(ci_low=50.0, ci_high=75.0)
    plot_label_efficiency(table, ax=ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1/8\n12", "1/4\n24", "1\n95"]
    assert ax.lines[0].get_ydata().tolist() == [55.0, 60.0, 70.0]
    assert ax.xaxis.get_transform().base == 2


def test_the_ten_most_important_biomarkers_stand_in_order(ax):
    table = pd.DataFrame({"biomarker": BIOMARKER_NAMES, "mean": np.arange(38.0) - 30, "sd": 1.0})
    plot_importance(table, ax=ax)
    assert [bar.get_width() for bar in ax.patches] == list(np.arange(7.0, -3.0, -1))
    assert ax.get_yticklabels()[0].get_text() == f"{BIOMARKERS[37].group}: {BIOMARKERS[37].option}"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_agreement_stands_metric_by_metric_with_the_published_one_open(ax):
    table = pd.DataFrame(
        {
            "rater": ["trainee", "biomarkers"] * 2,
            "metric": ["agreement"] * 2 + ["kappa"] * 2,
            "value": [56.0, 50.0, 30.0, -4.0],
            "published": [56.0, np.nan, np.nan, np.nan],
        }
    ).assign(low=lambda t: t["value"] - 5, high=lambda t: t["value"] + 5)
    plot_agreement(table, ax=ax)
    assert ax.collections[1].get_offsets()[:, 0].tolist() == table["value"].tolist()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["trainee", "biomarkers"] * 2
    assert [text.get_text() for text in ax.texts] == ["Same grade (%)", "Kappa x 100"]
    assert ax.get_legend().get_texts()[-1].get_text() == "published" and ax.get_xlim()[0] < -9
