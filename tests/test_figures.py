import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import make_small_cohort

from lusbio.files import write_figure
from lusbio.report.figures import (
    plot_biomarker_aucs,
    plot_biomarkers,
    plot_class_counts,
    plot_frame,
    plot_learning_curves,
    plot_videos_per_patient,
)
from lusbio.vocabulary import BIOMARKERS


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_class_counts_are_the_table_and_unknowns_are_said(ax, tmp_path):
    table = make_small_cohort(tmp_path).table
    table.loc[:2, "lung_severity"] = np.nan
    assert plot_class_counts(table, "lung_severity", ax=ax) is ax
    assert [bar.get_width() for bar in ax.patches] == table["lung_severity"].value_counts().sort_index().tolist()
    assert "3 unknown" in ax.get_title(loc="left") + ax.get_title()


def test_videos_per_patient_add_up(ax, tmp_path):
    table = make_small_cohort(tmp_path, patients=5, videos=3).table
    plot_videos_per_patient(table, ax=ax)
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in ax.patches] == [(3.0, 5.0)]


def test_all_38_biomarkers_are_drawn_and_ticks_marked(ax):
    values = pd.DataFrame({"probability": np.linspace(0, 1, 38), "label": [1.0, np.nan] * 19})
    plot_biomarkers(values, ax=ax)
    assert len(ax.patches) == 38 and len(ax.lines[0].get_xdata()) == 19


def test_biomarkers_without_an_auc_are_counted_not_drawn(ax):
    table = pd.DataFrame(
        {
            "group": [b.group for b in BIOMARKERS],
            "option": [b.option for b in BIOMARKERS],
            "present": 3,
            "absent": 7,
            "mean": [70.0] * 30 + [np.nan] * 8,
            "sd": 2.0,
        }
    )
    plot_biomarker_aucs(table, ax=ax)
    assert len(ax.get_yticks()) == 30 and "8 biomarkers" in ax.get_xlabel()


def test_learning_curves_have_a_line_per_run(ax):
    rows = [(t, f, e, 0.5 + 0.1 * e) for t in ("a", "b") for f in (0, 1) for e in (1, 2)]
    plot_learning_curves(pd.DataFrame(rows, columns=["task", "fold", "epoch", "val_accuracy"]), ax=ax)
    assert sum(len(line.get_xdata()) == 2 for line in ax.lines) == 4


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        figure, axes = plt.subplots()
        plot_frame(np.arange(64, dtype=np.uint8).reshape(8, 8), "frame 1", ax=axes)
        write_figure(figure, tmp_path / folder, "fig")
        plt.close(figure)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / "a" / f"fig{suffix}").read_bytes() == (tmp_path / "b" / f"fig{suffix}").read_bytes()
