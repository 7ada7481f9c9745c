"""The one engine behind every table of results: decisions in; mean, SD, interval, difference, published number out.

A *cell* is a line of a data frame: names that say what it is about, ``metric``, and numbers in percent. ``widen`` lays
cells out for people, ``format_value`` is how a number with its interval is written everywhere.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lusbio.experts.rows import Row
from lusbio.files import PACKAGE, read_words
from lusbio.statistics.bootstrap import Estimate, HeldOut, estimate, paired_difference
from lusbio.statistics.metrics import Measure, task_metrics
from lusbio.vocabulary import kind_words, title_of

NAMES = ["features", "classifier", "task"]
"""What a row is called in tables."""

METRIC_TITLES = read_words("metrics.toml")
"""What metrics are called in tables and figures."""

Named = tuple[dict, Sequence[HeldOut]]
"""Names of a way to decide, and what it decided, run by run."""

NamedPair = tuple[dict, Sequence[HeldOut], Sequence[HeldOut]]
"""The same of two ways, which are told apart."""


# --- from decisions to cells ---


def name_row(row: Row) -> dict[str, str]:
    """The ``NAMES`` of a row."""
    return {"features": row.features, "classifier": row.classifier, "task": row.task}


def measure_cells(
    named: Iterable[Named], draws: int, measure: Measure = task_metrics, metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """Means over runs, and intervals over patients and runs.

    Args:
        named: Ways to decide.
        draws: Draws behind an interval.
        measure: Of ``statistics``.
        metrics: Which of its metrics; None for all.

    Returns:
        One line per way and metric: its names, ``metric, mean, sd, ci_low, ci_high``, in percent. SD is the
        population's, over runs, NaN of a single one; the interval is the 95 % percentile interval of the mean over runs
        when patients, and runs that share them, are drawn anew.
    """
    found = _list_cells([(names, estimate(held_out, draws, measure)) for names, held_out in named], metrics)
    return found.drop(columns="p_value", errors="ignore")


def subtract_cells(
    named: Iterable[NamedPair], draws: int, measure: Measure = task_metrics, metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """Paired differences, first minus second on the same patients, as ``measure_cells`` with a ``p_value``."""
    return _list_cells([(names, paired_difference(*pair, draws, measure)) for names, *pair in named], metrics)


def _list_cells(found: Iterable[tuple[dict, dict[str, Estimate]]], metrics: Sequence[str] | None) -> pd.DataFrame:
    """A line per way and metric, in percent but for p-values."""
    lines = []
    for names, values in found:
        for metric in metrics or values:
            mean, sd, low, high, p_value = values[metric]
            percent = {"mean": 100 * mean, "sd": 100 * sd, "ci_low": 100 * low, "ci_high": 100 * high}
            lines.append(names | {"metric": metric} | percent | {"p_value": p_value})
    return pd.DataFrame(lines)


def lay_out(found: Mapping[str, Estimate]) -> dict[str, float]:
    """Estimates as columns, x 100: the value under its name, its interval as ``_low`` and ``_high``."""
    return {
        f"{name}{end}": 100 * number
        for name, (value, _, low, high, _) in found.items()
        for end, number in (("", value), ("_low", low), ("_high", high))
    }


def read_published(table: str) -> pd.DataFrame:
    """The published numbers of one table, ``"table1"``, ``"table2"``, ``"table4"`` or ``"table7"``, in percent.

    Columns ``features, classifier, task, metric, published_mean, published_sd``.

    Source: Gare et al. 2022; the paper's private cohort.
    """
    published = pd.read_csv(PACKAGE / "report" / "published" / "published.csv")
    published = published[published["table"] == table].drop(columns="table")
    return published.rename(columns={"mean": "published_mean", "sd": "published_sd"}).reset_index(drop=True)


def read_published_minutes() -> pd.Series:
    """The published minutes per run on an RTX A6000, by features and classifier."""
    published = pd.read_csv(PACKAGE / "report" / "published" / "train_minutes.csv")
    return published.set_index(["features", "classifier"])["minutes_per_run"]


def add_published(cells: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Cells with the published numbers beside them, NaN where there are none."""
    return cells.merge(published, "left", [*NAMES, "metric"])


def make_task_cells(rows: Sequence[Row], draws: int, metrics: Sequence[str], published: str = "table1") -> pd.DataFrame:
    """The cells of rows with the published numbers of a table."""
    cells = measure_cells([(name_row(row), row.held_out) for row in rows], draws, metrics=metrics)
    # Where there is no row, as in Table 7 of a cohort without severity, there are columns all the same.
    cells = cells.reindex(columns=[*NAMES, "metric", "mean", "sd", "ci_low", "ci_high"])
    return add_published(cells, read_published(published))


# --- from cells to what people read ---


def format_value(
    value: float, low: float = np.nan, high: float = np.nan, *, sd: float | None = None, sign="", decimals: int = 1
) -> str:
    """A number with what is known of it, e.g. ``"71.0 ± 2.1 [50.7, 82.0]"``; an em dash for what is undefined.

    Example:
        >>> format_value(71.04, 50.7, 82), format_value(-0.01, -2, 3, sign="+"), format_value(71, sd=float("nan"))
        ('71.0 [50.7, 82.0]', '+0.0 [-2.0, +3.0]', '71.0 ± —')
    """
    if np.isnan(value):
        return "—"
    value, low, high = (round(number, decimals) + 0.0 for number in (value, low, high))  # turns -0.0 into 0.0
    spread = "" if sd is None else f" ± {'—' if np.isnan(sd) else format(sd, f'.{decimals}f')}"
    interval = "" if np.isnan(low) else f" [{low:{sign}.{decimals}f}, {high:{sign}.{decimals}f}]"
    return f"{value:{sign}.{decimals}f}{spread}{interval}"


def format_cell(cell: pd.Series, decimals: int = 1) -> str:
    """A cell in full: mean ± SD [interval] (published mean ± SD)."""
    text = format_value(cell["mean"], cell["ci_low"], cell["ci_high"], sd=cell["sd"], decimals=decimals)
    published = format_value(cell.get("published_mean", np.nan), sd=cell.get("published_sd"), decimals=decimals)
    return text if published == "—" else f"{text} ({published})"


def say_cell(cell: tuple, sign: str = "", decimals: int = 1) -> str:
    """A mean and its interval within a sentence, of a cell as ``itertuples`` gives it; or that it is not defined."""
    found = format_value(cell.mean, cell.ci_low, cell.ci_high, sign=sign, decimals=decimals)
    return "not defined" if np.isnan(cell.mean) else found


def say_side(low: float, high: float, above: str, below: str, neither: str) -> str:
    """What to say of an interval: that it lies above 0, below 0, or neither."""
    return above if low > 0 else below if high < 0 else neither


def widen(
    cells: pd.DataFrame,
    by: Sequence[str] = ("features", "classifier"),
    format_one: Callable[[pd.Series], str] = format_cell,
    heading: Callable[[pd.Series], str] | None = None,
) -> pd.DataFrame:
    """Cells as people read them: a row per way to decide, a column per task and metric, in the order of the cells.

    Args:
        cells: As from ``measure_cells``.
        by: What tells rows apart.
        format_one: From a cell to its text.
        heading: From a cell to the title of its column; None for task and metric.

    Returns:
        Text, an em dash where there is nothing; ``features`` in words.
    """
    if cells.empty:
        return pd.DataFrame(columns=list(by))
    heading = heading or (lambda cell: f"{title_of(cell['task'])}, {METRIC_TITLES[cell['metric']]}")
    cells = cells.assign(column=cells.apply(heading, axis=1), text=cells.apply(format_one, axis=1))
    rows = cells.set_index(list(by)).index.unique()
    wide = cells.pivot(index=list(by), columns="column", values="text").reindex(rows)
    wide = wide[list(dict.fromkeys(cells["column"]))].fillna("—").reset_index().rename_axis(columns=None)
    return wide.assign(features=wide["features"].map(kind_words)) if "features" in wide else wide


def show_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """A table as people read it: a column with ``_low`` and ``_high`` beside it becomes ``value [low, high]``."""
    shown = table.copy()
    for name in [name for name in table if f"{name}_low" in table]:
        bounds = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
        shown[name] = [format_value(*numbers) for numbers in bounds]
        shown = shown.drop(columns=[f"{name}_low", f"{name}_high"])
    numbers = shown.select_dtypes("number").columns
    shown[numbers] = shown[numbers].round(1)
    return in_words(shown).rename(columns=lambda name: name.replace("_", " "))


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A table with tasks and features in words instead of the names that programs use."""
    words = {"task": title_of, "features": kind_words}
    return table.assign(**{column: table[column].map(say) for column, say in words.items() if column in table})
