"""The paper's figures: data frames in, axes out. Every ``plot_*`` draws on the axes it is given."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKERS, TASKS

INK, SOFT, ACCENT, SECOND = "#22313f", "#9aa5b1", "#1f77b4", "#d1495b"
GROUP_COLOURS = dict(zip(BIOMARKER_GROUPS, sns.color_palette("tab10", len(BIOMARKER_GROUPS)), strict=True))
MEASURED = ("#17becf", "#ffd92f", "#e377c2")
"""Colours of what is measured in a frame: pleural line, its repetitions, streaks."""

MARKERS = ("o", "s", "^", "D", "v", "P")


def use_style() -> None:
    """Set the look of all figures; call it once at the top of a notebook."""
    plt.style.use(Path(__file__).with_suffix(".mplstyle"))
    inked = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
    plt.rcParams.update(dict.fromkeys(inked, INK))


def plot_videos_per_patient(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """How many patients of a cohort's table have how many videos (Fig. 3)."""
    counts = table.groupby("patient_id").size().value_counts().sort_index()
    ax.bar(counts.index, counts, color=ACCENT)
    ax.set(title="Videos per patient", xlabel="videos", ylabel="patients", xticks=counts.index)
    return ax


def plot_class_counts(table: pd.DataFrame, task: str, *, ax: Axes) -> Axes:
    """Videos of a cohort's table per class of one of ``TASKS`` (Fig. 3); the title counts those without a label."""
    classes, title, unknown = TASKS[task].classes, TASKS[task].title, table[task].isna().sum()
    counts = table[task].value_counts().reindex(classes, fill_value=0)
    ax.bar_label(ax.barh(classes, counts, color=ACCENT), padding=2, color=INK)
    ax.set(title=f"{title} ({unknown} unknown)" if unknown else title, xlabel="videos")
    ax.set_xlim(0, max(1, counts.max()) * 1.15)
    ax.invert_yaxis()
    return ax


def plot_frame(frame: np.ndarray, title: str = "", *, ax: Axes) -> Axes:
    """One grey frame, uint8 (H, W), with a title above it."""
    ax.imshow(frame, cmap="gray", vmin=0, vmax=255)
    ax.set_title(title)
    ax.axis("off")
    return ax


def plot_heat(frame: np.ndarray, heat: np.ndarray, *, ax: Axes) -> Axes:
    """Heat over a grey frame: the hotter, the less of the frame shows through.

    Args:
        frame: uint8 (H, W).
        heat: float (H, W) in [0, 1].
        ax: Where to draw.
    """
    plot_frame(frame, ax=ax).imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * heat)
    return ax


def plot_biomarkers(values: pd.DataFrame, *, ax: Axes) -> Axes:
    """The 38 biomarkers of one video as bars, coloured by group.

    Args:
        values: Column ``probability`` in the order of ``BIOMARKERS``; optionally ``label`` (1, 0 or
            NaN): a dot marks what the rater ticked.
        ax: Where to draw.
    """
    names = [f"{b.group}: {b.option}" for b in BIOMARKERS]
    ax.barh(names, values["probability"], color=[GROUP_COLOURS[b.group] for b in BIOMARKERS], height=0.75)
    if "label" in values:
        ticked = np.flatnonzero(values["label"] == 1)
        ax.plot(np.full(len(ticked), 1.03), ticked, "o", color=INK, ms=4, clip_on=False, label="ticked by the rater")
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1))
    # With room for those that nothing is known of.
    ax.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), xlabel="probability")
    ax.tick_params(axis="y", labelsize=7)
    return ax


def plot_learning_curves(logs: pd.DataFrame, *, ax: Axes) -> Axes:
    """Validation accuracy by epoch, one line per run: columns ``task, fold, epoch, val_accuracy``."""
    sns.lineplot(logs, x="epoch", y="val_accuracy", hue="task", units="fold", estimator=None, marker="o", ms=4, ax=ax)
    ax.set(title="Validation accuracy while training", xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    ax.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_biomarker_aucs(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """AUC of each biomarker with SD over runs; the label says how many test videos show it.

    Args:
        table: Columns ``group, option, present, absent, mean, sd``, a row per biomarker; those without an AUC are
            counted below.
        ax: Where to draw.
    """
    known = table.dropna(subset=["mean"]).reset_index(drop=True)
    names = [f"{row.group}: {row.option}  ({row.present} of {row.present + row.absent})" for row in known.itertuples()]
    colours = known["group"].map(GROUP_COLOURS)
    ax.hlines(known.index, known["mean"] - known["sd"], known["mean"] + known["sd"], color=colours, lw=2)
    ax.scatter(known["mean"], known.index, c=colours, s=22, zorder=3)
    ax.axvline(50, color=SOFT, lw=1, ls="--")
    ax.set_yticks(known.index, names, fontsize=7)
    missing = len(table) - len(known)
    unknown = f" ({missing} biomarkers have none here)" if missing else ""
    ax.set(title="Biomarkers on test videos", xlabel=f"AUC, mean and SD over runs{unknown}")
    ax.set(xlim=(0, 100), ylim=(len(known) - 0.5, -0.5))
    return ax


def plot_lines(frame: np.ndarray, lines: tuple, *, ax: Axes) -> Axes:
    """A frame with what was measured in it: pleural line (dotted where it breaks), repetitions, streaks as bars below.

    Args:
        frame: uint8 (H, W).
        lines: From ``signs.lines.find_lines``.
        ax: Where to draw.
    """
    plot_frame(frame, ax=ax)
    height, width = frame.shape
    across = lines.columns * width - 0.5
    for seen, style in ((lines.seen, "-"), (~lines.seen, ":")):
        ax.plot(across, np.where(seen, lines.pleura, np.nan) * height - 0.5, style, color=MEASURED[0], lw=1.4)
    for heights in lines.repetitions:
        ax.plot(across, heights * height - 0.5, color=MEASURED[1], lw=1.4)
    for left, right in lines.streaks:
        ax.axvspan(left * width - 0.5, right * width - 0.5, ymax=0.04, color=MEASURED[2])
    return ax
