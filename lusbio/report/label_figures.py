"""Figures of labels of pixels: maps over frames, what they bring, what they cost. Data frames in, axes out."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from lusbio.report.figures import INK, SOFT, plot_frame
from lusbio.vocabulary import PIXEL_CLASSES, SPARSE_CLASSES, Kind, kind_colour, kind_words

LABEL_COLOURS = {
    "A-line": to_rgba("#56b4e9", 0.8),
    "B-line": to_rgba("#f0e442", 0.55),
    "pleura": to_rgba("#d55e00", 0.8),
    "pleura, healthy": to_rgba("#00c48f", 0.8),
    "pleura, unhealthy": to_rgba("#d55e00", 0.8),
    "region, healthy": to_rgba("#009e73", 0.25),
    "region, unhealthy": to_rgba("#cc79a7", 0.35),
}
"""Colour and opacity of each class; background stays as it is."""

LABELS_COLOURS = {"dense": Kind.DENSE_SHARES.colour, "sparse": Kind.SPARSE_SHARES.colour}


def plot_label_map(frame: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], *, ax: Axes) -> Axes:
    """The classes of pixels over a grey frame.

    Args:
        frame: uint8 (H, W).
        labels: uint8 (H, W), positions in ``classes``.
        classes: ``PIXEL_CLASSES`` or ``SPARSE_CLASSES``.
        ax: Where to draw.
    """
    colours = np.array([LABEL_COLOURS.get(name, (0, 0, 0, 0)) for name in classes])
    plot_frame(frame, ax=ax).imshow(colours[labels])
    return ax


def plot_segmented(
    frames: np.ndarray, maps: dict[str, tuple[np.ndarray, tuple[str, ...]]], titles: list[str], *, axes: np.ndarray
) -> None:
    """Frames, a column each; below them label maps, a row each, and a legend.

    Args:
        frames: uint8 (n, H, W).
        maps: By what stands beside the row: uint8 (n, H, W), and the classes.
        titles: Of the columns.
        axes: (1 + rows, n).
    """
    for column, title in enumerate(titles):
        plot_frame(frames[column], title, ax=axes[0, column])
        for row, (labels, classes) in enumerate(maps.values(), start=1):
            plot_label_map(frames[column], labels[column], classes, ax=axes[row, column])
    for ax, name in zip(axes[:, 0], ("frame", *maps), strict=True):
        ax.text(-0.04, 0.5, name, transform=ax.transAxes, rotation=90, ha="right", va="center")
    shown = [name for name in (*SPARSE_CLASSES[1:3], *PIXEL_CLASSES[3:]) if name in LABEL_COLOURS]
    handles = [Patch(fc=LABEL_COLOURS[name], ec=SOFT, label=name) for name in shown]
    axes[0, 0].figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def plot_by_labels(cells: pd.DataFrame, metric: str, title: str, *, ax: Axes) -> Axes:
    """A measure of segmentation by structure, dense and sparse, from few patients (hollow) and from all.

    Args:
        cells: Of ``make_segmentation``: columns ``labels, patients, structure, metric, mean, ci_low, ci_high``.
        metric: Which measure.
        title: Above the axes.
        ax: Where to draw.
    """
    names = [*SPARSE_CLASSES[1:], "all three"]
    cells = cells[(cells["metric"] == metric) & cells["structure"].isin(names) & cells["labels"].isin(LABELS_COLOURS)]
    ways = list(dict.fromkeys(zip(cells["labels"], cells["patients"], strict=True)))
    for number, (labels, patients) in enumerate(ways):
        part = cells[(cells["labels"] == labels) & (cells["patients"] == patients)].set_index("structure").loc[names]
        y, colour = np.arange(len(names)) + 0.18 * (number - (len(ways) - 1) / 2), LABELS_COLOURS[labels]
        ax.hlines(y, part["ci_low"], part["ci_high"], color=colour, lw=1.5)
        label = f"{labels}, {f'{patients} patients' if patients else 'all'}"
        ax.scatter(part["mean"], y, s=26, fc="white" if patients else colour, ec=colour, zorder=3, label=label)
    ax.set(title=title, xlabel="%, 95 % interval", xlim=(0, None), ylim=(len(names) - 0.5, -0.5))
    ax.set_yticks(np.arange(len(names)), names)
    return ax


def plot_against_labels(cells: pd.DataFrame, title: str, *, ax: Axes) -> Axes:
    """AUC against the share of the training patients with a label of the task, a line per route.

    Args:
        cells: Of ``make_transfer``, of one task: columns ``features, patients, share, metric, mean``.
        title: Above the axes.
        ax: Where to draw.
    """
    cells = cells[(cells["metric"] == "auc")]
    for (name, patients), line in cells.groupby(["features", "patients"], sort=False):
        if len(line) < 2:  # from few patients, or a baseline
            label = f"{kind_words(name)}, {patients} patients" if patients else kind_words(name)
            ax.scatter(line["share"], line["mean"], ec=kind_colour(name), fc="white", s=24, zorder=3, label=label)
            continue
        label = f"{kind_words(name)}{f', {patients} patients' if patients else ''}"
        style = "--" if patients else "-"
        ax.plot(line["share"], line["mean"], style, marker="o", ms=4, color=kind_colour(name), label=label)
    ax.set_xscale("log")
    shares = sorted(set(cells["share"]))
    ax.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
    ax.minorticks_off()
    ax.axhline(50, color=SOFT, lw=1, ls="--", zorder=0)
    ax.set(title=title, xlabel="patients with a label of the task", ylabel="AUC (%)")
    return ax


def plot_label_cost(cells: pd.DataFrame, *, ax: Axes) -> Axes:
    """AUC against hours of labelling, a colour per route: hollow where the pixels of few patients are labelled.

    Args:
        cells: Of ``make_cost``: columns ``features, patients, share, minutes, auc, auc_low, auc_high``.
        ax: Where to draw.
    """
    for name, part in cells.groupby("features", sort=False):
        colour, hours = kind_colour(name), part["minutes"] / 60
        ax.vlines(hours, part["auc_low"], part["auc_high"], color=colour, lw=1, alpha=0.5)
        fills = np.where(part["patients"] > 0, "white", colour)
        ax.scatter(hours, part["auc"], s=36, c=fills, ec=colour, zorder=3)
        ax.scatter([], [], s=36, c=colour, label=kind_words(name))
        for x, row in zip(hours, part.itertuples(), strict=True):
            ax.annotate(
                f"{100 * row.share:g} %", (x, row.auc), (4, 3), textcoords="offset points", fontsize=6, color=INK
            )
    ax.set(xscale="log", xlabel="hours of labelling", ylabel="AUC of severity (%)", title="What labels cost and bring")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax
