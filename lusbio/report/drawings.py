"""Fig. 1 and Fig. 2: the idea and the annotator, drawn from the vocabulary."""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from lusbio.report.figures import ACCENT, GROUP_COLOURS, INK, SECOND, SOFT
from lusbio.vocabulary import BIOMARKERS, TASKS

PAPER, PANEL, STRONG, LIGHT, GREY, FILM = "#ffffff", "#f4f6f8", "#e3ebf3", "#fbe9eb", "#d5dbe1", "#56626e"
OPTIONS = {group: [b for b in BIOMARKERS if b.group == group] for group in GROUP_COLOURS}
SLIDING = ("pleural indent", "pleural break")
"""Groups that the annotator tags "sliding". Source: Fig. 2."""


def draw_idea(frame: np.ndarray | None = None, *, ax: Axes) -> Axes:
    """The idea: one network finds biomarkers, once, and light experts decide; beside it a network per task (Fig. 1).

    Args:
        frame: uint8 (H, W), a frame of the video to show; None draws a grey film.
        ax: Where to draw; good at 7 x 4.4 inches.

    Source: own drawing of the idea of Fig. 1.
    """
    ax.axis("off")
    _draw_panel(ax, 27.5, 35, "Biomarkers: one network, trained once, and light experts for every task")
    _draw_panel(ax, 0.5, 25, "End to end: one network for every task")
    middle = 43.5
    _draw_film(ax, frame, middle, 11)
    ax.text(8, middle - 8.7, "video", fontsize=8, ha="center", va="center")
    _draw_arrow(ax, (16, middle), (18.7, middle))
    _draw_network(ax, 26, middle, 14, 17, "TSM\nnetwork")
    _draw_arrow(ax, (33.3, middle), (36.3, middle))
    _draw_biomarkers(ax, 50, middle)
    for task, y in zip(TASKS.values(), (middle + 9.5, middle, middle - 9.5), strict=True):
        _draw_arrow(ax, (61, middle), (65, y))
        _draw_box(ax, 71.5, y, 12.4, 6, LIGHT, SECOND, "expert")
        _draw_arrow(ax, (78, y), (81.5, y))
        _draw_box(ax, 90, y, 16.4, 6, PAPER, INK, task.title)
    for task, y in zip(TASKS.values(), (18.2, 11.2, 4.2), strict=True):
        _draw_film(ax, frame, y, 4.6)
        _draw_arrow(ax, (13.5, y), (29.5, y))
        _draw_network(ax, 48, y, 36, 5.4, f"TSM network, trained for {_lower(task.title)}")
        _draw_arrow(ax, (66.5, y), (81.5, y))
        _draw_box(ax, 90, y, 16.4, 5.4, PAPER, INK, task.title)
    ax.set(xlim=(0, 100), ylim=(0, 63), aspect="equal")
    return ax


def _lower(title: str) -> str:
    """A title within a sentence: abbreviations keep their capitals."""
    return title if title[1:2].isupper() or "/" in title else title[0].lower() + title[1:]


def _draw_panel(ax: Axes, bottom: float, height: float, title: str) -> None:
    style = "round,pad=0,rounding_size=1.5"
    ax.add_patch(FancyBboxPatch((0.3, bottom), 99.4, height, boxstyle=style, fc=PANEL, ec="none", zorder=0))
    ax.text(2, bottom + height - 2.2, title, fontsize=8, weight="bold", va="center")


def _draw_film(ax: Axes, frame: np.ndarray | None, y: float, size: float) -> None:
    """A few frames behind each other, the first one seen."""
    for k in (2, 1, 0):
        left, low = (centre - size / 2 + (k - 1) * size / 11 for centre in (8.5, y))
        ax.add_patch(Rectangle((left, low), size, size, fc=FILM, ec=PAPER, lw=0.8, zorder=3 - k))
    if frame is not None:
        ax.imshow(frame, cmap="gray", vmin=0, vmax=255, extent=(left, left + size, low, low + size), zorder=4)


def _draw_network(ax: Axes, x: float, y: float, width: float, height: float, text: str) -> None:
    """A funnel: many pixels in, few numbers out."""
    left, right, low, high, slope = x - width / 2, x + width / 2, y - height / 2, y + height / 2, height * 0.16
    corners = [(left, low), (left, high), (right, high - slope), (right, low + slope)]
    ax.add_patch(Polygon(corners, closed=True, fc=STRONG, ec=ACCENT, lw=1.2, zorder=3))
    ax.text(x, y, text, fontsize=8, ha="center", va="center", zorder=4)


def _draw_box(ax: Axes, x: float, y: float, w: float, h: float, colour: str, edge: str, text: str) -> None:
    style = "round,pad=0,rounding_size=1"
    ax.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, boxstyle=style, fc=colour, ec=edge, lw=1, zorder=3))
    ax.text(x, y, text, fontsize=8, ha="center", va="center", zorder=4)


def _draw_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color=INK, shrinkA=0, shrinkB=0))


def _draw_biomarkers(ax: Axes, x: float, y: float) -> None:
    """A dot per biomarker, a row and a colour per group; some filled, as findings are."""
    pitch = 2.2
    for row, (group, options) in enumerate(OPTIONS.items()):
        colour, height = GROUP_COLOURS[group], y + ((len(OPTIONS) - 1) / 2 - row) * pitch
        for k in range(len(options)):
            fill_colour = colour if k == row % len(options) else PAPER
            ax.add_patch(Circle((x + k * pitch, height), 0.74, fc=fill_colour, ec=colour, lw=0.9, zorder=4))
        ax.text(x - 1.6, height, group, fontsize=5.6, ha="right", va="center", zorder=4)
    ax.text(x - 1, y - 12.2, f"{len(BIOMARKERS)} biomarkers", fontsize=8, ha="center", va="center")


def draw_annotator(labels: pd.Series | None = None, *, ax: Axes) -> Axes:
    """The checkbox annotator that the labels come from (Fig. 2).

    Args:
        labels: One video's labels by biomarker name: 1 ticked, 0 not, NaN unknown (drawn grey);
            None leaves every box empty.
        ax: Where to draw; good at 7 x 4.6 inches.

    Source: own drawing of Fig. 2; rows and options are those of Table 5.
    """
    n_columns = max(map(len, OPTIONS.values()))
    ax.set(xlim=(-1.55, n_columns), ylim=(len(OPTIONS) + 0.02, -0.8))
    ax.axis("off")
    ax.add_patch(Rectangle((-1.55, -0.8), n_columns + 1.55, 0.72, fc=INK, ec="none"))
    ax.text(-1.45, -0.44, "Lung ultrasound annotator", fontsize=8.5, weight="bold", color=PAPER, va="center")
    legend = "tick what the video shows" if labels is None else "labels of one video (grey: unknown)"
    ax.text(n_columns - 0.1, -0.44, legend, fontsize=7.5, color=PAPER, va="center", ha="right")
    for row, (group, options) in enumerate(OPTIONS.items()):
        if row % 2 == 0:
            ax.add_patch(Rectangle((-1.55, row), n_columns + 1.55, 1, fc=PANEL, ec="none", zorder=0))
        y = row + (0.33 if group in SLIDING else 0.5)
        ax.text(-1.45, y, group[0].upper() + group[1:], fontsize=7.5, weight="bold", va="center")
        if group in SLIDING:
            box = {"boxstyle": "round,pad=0.25", "fc": STRONG, "ec": ACCENT, "lw": 0.7}
            ax.text(-1.4, row + 0.72, "sliding", fontsize=5.8, va="center", bbox=box)
        for column, biomarker in enumerate(options):
            value = 0.0 if labels is None else float(labels[biomarker.name])
            _draw_option(ax, column, row + 0.5, biomarker.option, value)
    return ax


def _draw_option(ax: Axes, x: float, y: float, text: str, value: float) -> None:
    """A check box, its tick, and what it says."""
    ticked, unknown = value == 1, np.isnan(value)
    colour, weight = SECOND if ticked else SOFT if unknown else INK, "bold" if ticked else "normal"
    ax.plot(x + 0.1, y, marker="s", ms=7, mew=1, ls="none", mfc=GREY if unknown else PAPER, mec=colour)
    if ticked:
        ax.plot(x + 0.1, y, marker=[(-1, 0.1), (-0.3, -0.7), (1.1, 1)], ms=6, mfc="none", mec=SECOND, mew=1.8)
    broken = text.replace(" (", "\n(") if len(text) > 11 and "(" in text else fill(text, 13)
    ax.text(x + 0.2, y, broken, fontsize=7, va="center", linespacing=1.08, weight=weight, color=colour)
