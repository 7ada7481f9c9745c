"""Figures of results: what decides what, how well, how surely, at what cost. Data frames in, axes out."""

from fractions import Fraction

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from sklearn.isotonic import IsotonicRegression

from lusbio.report.cells import METRIC_TITLES
from lusbio.report.figures import GROUP_COLOURS, INK, MARKERS, SOFT
from lusbio.vocabulary import BIOMARKERS, kind_colour, kind_words, title_of

TRAINEE_COLOUR = "#3a3a3a"


def plot_results(table: pd.DataFrame, task: str, metric: str, *, ax: Axes) -> Axes:
    """One task of Table 1: means with 95 % intervals, and the published means as open circles.

    Rows stand in groups, one colour per features. They are those of the whole table, also where this
    task has no such row, so that the same row lies at the same height in panels side by side. Allow
    0.15 inches a row and a group.

    Args:
        table: From ``tables.make_table1``.
        task: Of the table.
        metric: ``"auc"`` or ``"accuracy"``.
        ax: Where to draw.
    """
    places = _place_rows(table, "features", "classifier")
    rows = table[(table["task"] == task) & (table["metric"] == metric)]
    y = [places[key] for key in zip(rows["features"], rows["classifier"], strict=True)]
    _draw_rows(y, rows, rows["features"].map(kind_colour), (20, 26), "mean, 95 % interval", ax)
    titles = {name: (f"{kind_words(name)} (not here)", SOFT) for name in table["features"]}
    titles |= {name: (kind_words(name), kind_colour(name)) for name in rows["features"]}
    _name_rows(places, titles, ax)
    if "auc" in metric:
        ax.axvline(50, color=SOFT, lw=1, ls="--", zorder=0)
    ax.set(title=title_of(task), xlabel=f"{METRIC_TITLES[metric]} (%)")
    return ax


def _draw_rows(y: list, cells: pd.DataFrame, colours: pd.Series, sizes: tuple[int, int], here: str, ax: Axes) -> None:
    """Dots with their intervals, open circles for what was published, and a legend on the line of the title."""
    ax.hlines(y, cells["ci_low"], cells["ci_high"], color=colours, lw=2)
    ax.scatter(cells["mean"], y, c=colours, s=sizes[0], zorder=3)
    ax.scatter(cells["published_mean"], y, facecolors="none", edgecolors=INK, s=sizes[1], lw=0.8, zorder=4)
    marks = [Line2D([], [], color=INK, marker="o", ms=4, lw=1.5, label=here)]
    if cells["published_mean"].notna().any():
        marks.append(Line2D([], [], color=INK, marker="o", mfc="none", mew=0.8, ms=5, ls="none", label="published"))
    tight = {"handlelength": 1.6, "columnspacing": 0.9, "handletextpad": 0.4, "borderaxespad": 0}
    ax.legend(handles=marks, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=6.5, **tight)


def _place_rows(table: pd.DataFrame, group: str, name: str) -> dict[tuple[str, str], float]:
    """Heights of rows in groups, in the order of the table; a group begins one below for its title."""
    places, y = {}, 0.0
    for title, names in table.groupby(group, sort=False)[name]:
        for row in names.unique():
            y += 1
            places[title, row] = y
        y += 1.35
    return places


def _name_rows(places: dict[tuple[str, str], float], titles: dict[str, tuple[str, str]], ax: Axes) -> None:
    """Names of rows as ticks, titles of groups (with their colour) within the axes, above their rows."""
    first = {group: y for (group, _), y in reversed(places.items())}
    for group, (text, colour) in titles.items():
        look = {"fontsize": 7.5, "weight": "bold", "va": "center", "zorder": 1, "color": colour}
        box = {"fc": "white", "ec": "none", "pad": 0.6}
        ax.text(0.01, first[group] - 0.95, text, transform=ax.get_yaxis_transform(), bbox=box, **look)
    ax.set_yticks(list(places.values()), [name for _, name in places], fontsize=7)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(max(places.values(), default=1) + 0.7, -0.6)


def plot_confusion(counts: pd.DataFrame, *, ax: Axes) -> Axes:
    """What was decided for what was true: counts in the cells, colour by share of the true class.

    Args:
        counts: Rows are true classes, columns decided classes, both in the order to show.
        ax: Where to draw.
    """
    shares = counts.div(counts.sum(axis=1).replace(0, 1), axis=0)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(*counts.shape):
        colour = "white" if shares.iloc[i, j] > 0.55 else INK
        ax.text(j, i, f"{counts.iloc[i, j]:g}", ha="center", va="center", color=colour, fontsize=8)
    long = max(map(len, map(str, counts.columns))) > 8
    turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
    ax.set_xticks(range(counts.shape[1]), counts.columns, fontsize=7, **turned)
    ax.set_yticks(range(counts.shape[0]), counts.index, fontsize=7)
    ax.set(xlabel="decided", ylabel="true")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def plot_reliability(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """How often a decision is right that is said to be right with some probability; the diagonal is perfect.

    Args:
        table: Columns ``route, bin_mean, observed, low, high, count``; probabilities from 0 to 1, a
            row per route and bin. The size of a point grows with ``count``.
        ax: Where to draw.
    """
    ax.plot([0, 1], [0, 1], color=SOFT, lw=1, ls="--", zorder=0)
    for k, (route, rows) in enumerate(table.groupby("route", sort=False)):
        rows = rows.sort_values("bin_mean")
        look = {"color": kind_colour(route), "marker": MARKERS[k % 6]}
        ax.vlines(rows["bin_mean"], rows["low"], rows["high"], color=look["color"], lw=1.2, alpha=0.6)
        ax.plot(rows["bin_mean"], rows["observed"], label=kind_words(route), lw=1.2, ms=3, **look)
        sizes = 8 + 60 * rows["count"] / table["count"].max()
        ax.scatter(rows["bin_mean"], rows["observed"], s=sizes, zorder=3, **look)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(title="Reliability", xlabel="probability said", ylabel="share that was right")
    ax.legend(fontsize=7, loc="upper left")
    return ax


def plot_cost(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """Minutes of training against what they bring; every route is named at the right, on a line to its point.

    Args:
        table: Columns ``features, classifier, minutes, mean, ci_low, ci_high``, a row per route;
            minutes above 0, AUC in percent.
        ax: Where to draw; some 0.15 inches of height per route.
    """
    rows = table.sort_values("mean")
    colours = [kind_colour(name) for name in rows["features"]]
    ax.vlines(rows["minutes"], rows["ci_low"], rows["ci_high"], color=colours, lw=1.2, alpha=0.45)
    ax.scatter(rows["minutes"], rows["mean"], c=colours, s=26, zorder=3)
    span = max(rows["ci_high"].max() - rows["ci_low"].min(), 1e-9)
    bottom, top = rows["ci_low"].min() - 0.04 * span, rows["ci_high"].max() + 0.04 * span
    heights = _spread((rows["mean"].to_numpy() - bottom) / (top - bottom), 0.055 if len(rows) < 18 else 1 / len(rows))
    for row, height, colour in zip(rows.itertuples(), heights, colours, strict=True):
        line = {"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6, "shrinkB": 3, "relpos": (0, 0.5)}
        beside = {"xytext": (1.04, height), "textcoords": "axes fraction", "annotation_clip": False, "va": "center"}
        name = f"{row.classifier} · {kind_words(row.features)}"
        ax.annotate(name, (row.minutes, row.mean), fontsize=7, color=colour, arrowprops=line, **beside)
    ax.set(xscale="log", ylim=(bottom, top), xlabel="minutes of training", ylabel="AUC (%)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.set_title("Cost and what it brings")
    return ax


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Heights moved apart as little as they must be, in their order, kept within 0 and 1 where they fit.

    Args:
        heights: (n,) ascending, within 0 and 1.
        gap: Least distance between two.
    """
    n = len(heights)
    steps = gap * np.arange(n)
    # With gaps taken out, "apart in order" is "not descending": the nearest such heights are a regression.
    level = IsotonicRegression(y_min=0, y_max=max(0.0, 1 - gap * (n - 1))).fit_transform(np.arange(n), heights - steps)
    return level + steps


def plot_label_efficiency(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """What each route reaches with a share of the task's labels.

    Args:
        table: Columns ``route, fraction, patients, mean, ci_low, ci_high``; ``fraction`` above 0, at
            most 1; ``patients`` that are labelled; AUC in percent.
        ax: Where to draw.
    """
    routes = list(dict.fromkeys(table["route"]))
    for k, route in enumerate(routes):
        rows = table[table["route"] == route].sort_values("fraction")
        shift = 2 ** (0.05 * (k - (len(routes) - 1) / 2))  # so that intervals do not hide each other
        errors = [rows["mean"] - rows["ci_low"], rows["ci_high"] - rows["mean"]]
        look = {"color": kind_colour(route), "lw": 1.4, "elinewidth": 1, "marker": MARKERS[k % 6], "ms": 5}
        ax.errorbar(rows["fraction"] * shift, rows["mean"], errors, label=kind_words(route), **look)
    patients = table.groupby("fraction")["patients"].max()
    ax.set_xscale("log", base=2)
    ax.set_xticks(patients.index, [f"{Fraction(f).limit_denominator(64)}\n{n:g}" for f, n in patients.items()])
    ax.minorticks_off()
    ax.set(title="Fewer labels", xlabel="share of the task's labels, and patients that have one", ylabel="AUC (%)")
    ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_importance(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """The ten biomarkers whose shuffling costs an expert most, and how much.

    Args:
        table: Columns ``biomarker`` (its column name, or the name of a group), ``mean``, ``sd``: drop in AUC, points.
        ax: Where to draw.
    """
    rows = table.nlargest(10, "mean")
    names = rows["biomarker"].replace({b.name: f"{b.group}: {b.option}" for b in BIOMARKERS})
    colours = rows["biomarker"].replace({b.name: b.group for b in BIOMARKERS}).map(GROUP_COLOURS)
    errors = {"xerr": rows["sd"], "error_kw": {"ecolor": INK, "elinewidth": 1}}
    ax.barh(range(len(rows)), rows["mean"], color=colours, height=0.7, **errors)
    ax.axvline(0, color=INK, lw=1)
    ax.set_yticks(range(len(rows)), names, fontsize=7)
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlabel="AUC lost when shuffled (points), mean and SD")
    return ax


def plot_agreement(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """How far raters agree with the specialist: a dot and its interval, metric by metric.

    Args:
        table: Columns ``rater, metric, value, low, high, published``, x 100; the last is an open circle.
        ax: Where to draw.
    """
    places = _place_rows(table, "metric", "rater")
    y = [places[key] for key in zip(table["metric"], table["rater"], strict=True)]
    colours = table["rater"].map(kind_colour).mask(table["rater"] == "trainee", TRAINEE_COLOUR)
    names = {"value": "mean", "low": "ci_low", "high": "ci_high", "published": "published_mean"}
    _draw_rows(y, table.rename(columns=names), colours, (28, 70), "95 % interval", ax)
    titles = {name: METRIC_TITLES[name] for name in table["metric"]}
    _name_rows(places, {name: (title[0].upper() + title[1:], INK) for name, title in titles.items()}, ax)
    ax.set_yticks(list(places.values()), [kind_words(rater) for _, rater in places], fontsize=8)
    ax.axvline(0, color=SOFT, lw=1, ls="--", zorder=0)
    ax.set(title="Agreement with the specialist", xlabel="agreement (x 100)")
    ax.set_xlim(min(0, table["low"].min()) - 2, 102)
    return ax
