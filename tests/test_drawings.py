import itertools

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Circle

from lusbio.report.drawings import draw_annotator, draw_idea
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_NAMES, BIOMARKERS, TASKS


@pytest.fixture
def ax():
    figure, axes = plt.subplots(figsize=(7, 4.6))
    yield axes
    plt.close(figure)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def check_texts_are_apart(ax):
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    frame = ax.figure.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


@pytest.mark.parametrize("frame", [None, np.zeros((48, 64), np.uint8)])
def test_the_idea_has_a_dot_per_biomarker_and_every_task_twice(ax, frame):
    assert draw_idea(frame, ax=ax) is ax
    assert sum(isinstance(patch, Circle) for patch in ax.patches) == len(BIOMARKERS)
    for task in TASKS.values():
        assert texts(ax).count(task.title) == 2
    assert texts(ax).count("expert") == len(TASKS)
    assert f"{len(BIOMARKERS)} biomarkers" in texts(ax)
    check_texts_are_apart(ax)


def test_the_idea_shows_the_frame_in_every_film(ax):
    draw_idea(np.zeros((8, 8), np.uint8), ax=ax)
    assert len(ax.images) == 1 + len(TASKS)
    assert ax.get_xlim() == (0, 100)


def test_the_annotator_has_a_box_per_biomarker_and_a_row_per_group(ax):
    assert draw_annotator(ax=ax) is ax
    assert len(ax.lines) == len(BIOMARKERS)
    said = [" ".join(text.split()) for text in texts(ax)]
    assert [said.count(b.option) for b in BIOMARKERS] == [
        sum(other.option == b.option for other in BIOMARKERS) for b in BIOMARKERS
    ]
    assert {group.lower() for group in BIOMARKER_GROUPS} <= {text.lower() for text in said}
    assert said.count("sliding") == 2
    check_texts_are_apart(ax)


def test_ticks_are_the_labels_and_unknown_is_not_absent(ax):
    labels = pd.Series(0.0, index=list(BIOMARKER_NAMES))
    labels.iloc[[2, 6]], labels.iloc[30:35] = 1.0, np.nan
    draw_annotator(labels, ax=ax)
    ticks = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold" and text.get_fontsize() == 7]
    grey = [line for line in ax.lines if line.get_markerfacecolor() not in ("none", "#ffffff")]
    assert len(ticks) == 2 and len(grey) == 5
    assert bold == [BIOMARKERS[2].option, BIOMARKERS[6].option]
    check_texts_are_apart(ax)


def test_labels_without_one_of_the_biomarkers_raise(ax):
    with pytest.raises(KeyError, match="effusion_large"):
        draw_annotator(pd.Series(0.0, index=list(BIOMARKER_NAMES[:-1])), ax=ax)
