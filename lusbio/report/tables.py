"""The paper's tables: data frames in, data frames and Markdown out. Numbers x 100, as published."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.experts.rows import Decisions
from lusbio.files import write_csv, write_text
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.statistics.bootstrap import bootstrap_metrics
from lusbio.statistics.metrics import task_metrics
from lusbio.vocabulary import title_of

TABLE1_METRICS = ("auc", "accuracy")
TABLE7_METRICS = ("auc", "accuracy", "precision", "f1")
METRIC_TITLES = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "f1": "F1",
    "element_accuracy": "Accuracy per biomarker",
    "weighted_recall": "Recall (weighted)",
    "weighted_precision": "Precision (weighted)",
    "weighted_f1": "F1 (weighted)",
    "exact_match": "All biomarkers right",
    "mean_auc": "AUC (mean over biomarkers)",
}
FEATURE_TITLES = {
    "end_to_end": "end-to-end",
    "biomarkers": "biomarkers",
    "pretrained_on_biomarkers": "pretrained on biomarkers",
    "lung_severity_features": "lung-severity features",
    "crossfitted_biomarkers": "cross-fitted biomarkers",
    "true_biomarkers": "anchor: true biomarkers",
    "trainee_biomarkers": "anchor: trainee's biomarkers",
    "shuffled_labels": "anchor: shuffled labels",
    "majority": "anchor: class frequencies",
    "source_only": "anchor: source alone",
    "frozen_biomarkers": "biomarkers, frozen",
    "adapted_biomarkers": "biomarkers, adapted",
    "mixed_biomarkers": "biomarkers, mixed training",
    "fused_biomarkers": "biomarkers, frozen and adapted",
    "pretrained_on_simulated": "pretrained on simulated",
    "adapted_biomarkers_all_places": "biomarkers, adapted, all places",
    "pretrained_on_simulated_all_places": "pretrained on simulated, all places",
    "raters_two_bits": "anchor: the raters' two bits",
    "pooled_pixels": "floor: pooled pixels",
    "metadata": "floor: metadata",
}
"""What rows decide from, in words."""


TRAINING_TIME = "Train (min)"
"""Column of Table 1, as in the paper."""


@cache
def read_published(table: str) -> pd.DataFrame:
    """The published numbers of one table.

    Args:
        table: ``"table1"``, ``"table2"``, ``"table4"`` or ``"table7"``.

    Returns:
        Columns ``features, classifier, task, metric, published_mean, published_sd``, in percent.

    Source: Gare et al. 2022; the paper's private cohort.
    """
    published = pd.read_csv(Path(__file__).parent / "published" / "published.csv")
    published = published[published["table"] == table].drop(columns="table")
    return published.rename(columns={"mean": "published_mean", "sd": "published_sd"}).reset_index(drop=True)


@cache
def read_published_minutes() -> pd.DataFrame:
    """The published minutes per run on an RTX A6000: ``features, classifier, runs, minutes_per_run``."""
    return pd.read_csv(Path(__file__).parent / "published" / "train_minutes.csv")


def make_task_table(
    decisions: Sequence[Decisions], published: pd.DataFrame, metrics: Sequence[str], draws: int, seed: int = 0
) -> pd.DataFrame:
    """Means over runs, intervals over patients, and the published numbers beside them.

    Args:
        decisions: The rows.
        published: From ``read_published``.
        metrics: Which of ``metrics.task_metrics``.
        draws: Draws of patients behind an interval.
        seed: Of the draws.

    Returns:
        Columns ``features, classifier, task, metric, mean, sd, ci_low, ci_high, published_mean,
        published_sd``; percent; SD is the population's, over runs; the interval is the 95 %
        percentile interval of the mean over runs when patients are drawn anew.
    """
    rows = []
    for row in decisions:
        folds = [(fold.labels, fold.probabilities, fold.groups) for fold in row.folds]
        intervals = bootstrap_metrics(folds, n_draws=draws, seed=seed)
        values = pd.DataFrame([task_metrics(labels, probabilities) for labels, probabilities, _ in folds])
        for metric in metrics:
            low, high = intervals[metric]
            rows.append(
                {
                    "features": row.features,
                    "classifier": row.classifier,
                    "task": row.task,
                    "metric": metric,
                    "mean": 100 * values[metric].mean(),
                    "sd": 100 * values[metric].std(ddof=0),
                    "ci_low": 100 * low,
                    "ci_high": 100 * high,
                }
            )
    columns = ["features", "classifier", "task", "metric", "mean", "sd", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns).merge(published, "left", columns[:4])


def make_table1(decisions: Sequence[Decisions], draws: int) -> pd.DataFrame:
    """Table 1: AUC and accuracy of every classifier on every task; see ``make_task_table``.

    Args:
        decisions: The rows.
        draws: Draws of patients behind an interval.

    Returns:
        As ``make_task_table``, with the column ``minutes``: of training what decides, see ``Decisions``.
    """
    table = make_task_table(decisions, read_published("table1"), TABLE1_METRICS, draws)
    minutes = {(row.features, row.classifier, row.task): row.minutes for row in decisions}
    rows = zip(table["features"], table["classifier"], table["task"], strict=True)
    return table.assign(minutes=[minutes[row] for row in rows])


def make_table7(decisions: Sequence[Decisions], draws: int) -> pd.DataFrame:
    """Table 7: lung severity with precision and F1; see ``make_task_table``."""
    published = read_published("table7")
    kept = set(published["task"])
    features = set(published["features"])
    rows = [row for row in decisions if row.task in kept and row.features in features]
    return make_task_table(rows, published, TABLE7_METRICS, draws)


def make_table6(decisions: dict[str, Sequence[Decisions]], draws: int) -> pd.DataFrame:
    """Table 6: the rows of Table 1 with several backbones on the same folds. The paper's numbers are not available.

    Args:
        decisions: Rows by backbone.
        draws: Draws of patients behind an interval.

    Returns:
        As ``make_task_table``, with the column ``backbone``.
    """
    parts = [
        make_task_table(rows, read_published("table6"), TABLE1_METRICS, draws).assign(backbone=name)
        for name, rows in decisions.items()
    ]
    return pd.concat(parts, ignore_index=True)


def widen_table6(table: pd.DataFrame) -> pd.DataFrame:
    """Table 6 as people read it: as ``widen``, backbone by backbone, with the backbone in the first column."""
    parts = []
    for backbone, rows in table.groupby("backbone", sort=False):
        part = widen(rows)
        part.insert(0, "backbone", backbone)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def describe_backbone_effort(runs: Sequence[Run], prepared: PreparedCohort) -> str:
    """How much of the paper's comparison the runs of another backbone are; it stands over Table 6.

    Args:
        runs: Of the other backbone.
        prepared: The cohort.

    Returns:
        A sentence or two.
    """
    folds, all_folds = {run.spec.fold for run in runs}, run_folds(prepared.protocol)
    tasks = {run.spec.task for run in runs} - {BIOMARKER_TASK}
    own, usual = runs[0].spec.training.epochs, prepared.profile.training.epochs
    text = (
        f"{runs[0].spec.backbone}: {len(folds)} of {len(all_folds)} folds, {len(tasks)} task"
        f"{'s' * (len(tasks) != 1)}, {own} of {usual} epochs."
    )
    if own < usual or len(folds) < len(all_folds):
        text += " A short training shows that the path works; it does not tell which backbone is better."
    return text


def widen(table: pd.DataFrame, decimals: int = 1) -> pd.DataFrame:
    """A table of cells as people read it: a row per classifier, a column per task and metric.

    Args:
        table: From ``make_task_table`` or ``make_table1``.
        decimals: Of all numbers; the paper gives one, in Table 7 two.

    Returns:
        Text cells ``mean ± sd [low, high] (published ...)``; an em dash where there is nothing. Where the table has
        minutes, ``TRAINING_TIME`` of each row: per run, mean over tasks (published, on an RTX A6000).
    """
    if table.empty:
        return pd.DataFrame(columns=["features", "classifier"])
    table = table.assign(cell=[_cell(row, decimals) for _, row in table.iterrows()])
    table["column"] = [
        f"{title_of(t)}, {METRIC_TITLES[m]}" for t, m in zip(table["task"], table["metric"], strict=True)
    ]
    columns, order = list(dict.fromkeys(table["column"])), ["features", "classifier"]
    rows = table[order].drop_duplicates()
    wide = table.pivot(index=order, columns="column", values="cell").reindex(pd.MultiIndex.from_frame(rows))
    wide = wide[columns].fillna("—").reset_index()
    if "minutes" in table:
        wide[TRAINING_TIME] = _minutes_of(table, list(zip(wide["features"], wide["classifier"], strict=True)))
    return wide.assign(features=wide["features"].replace(FEATURE_TITLES)).rename_axis(columns=None)


def _minutes_of(table: pd.DataFrame, rows: Sequence[tuple[str, str]]) -> list[str]:
    ours = table.groupby(["features", "classifier"])["minutes"].mean()
    published = read_published_minutes().set_index(["features", "classifier"])["minutes_per_run"]
    beside = [f" ({published[row]:g})" if row in published.index else "" for row in rows]
    return [f"{ours[row]:.2f}{text}" if ours[row] else "—" for row, text in zip(rows, beside, strict=True)]


def name_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A table with tasks and features in words instead of the names that programs use."""
    words = {"task": lambda name: title_of(name), "features": lambda name: FEATURE_TITLES.get(name, name)}
    return table.assign(**{column: table[column].map(say) for column, say in words.items() if column in table})


def _cell(row: pd.Series, decimals: int) -> str:
    if np.isnan(row["mean"]):
        return "—"
    mean, sd, low, high, published, published_sd = (
        f"{row[name]:.{decimals}f}" for name in ("mean", "sd", "ci_low", "ci_high", "published_mean", "published_sd")
    )
    beside = "" if np.isnan(row["published_mean"]) else f" ({published} ± {published_sd})"
    return f"{mean} ± {sd} [{low}, {high}]{beside}"


def to_markdown(table: pd.DataFrame) -> str:
    """A data frame as a Markdown table; numbers with one decimal."""

    def text(value: object) -> str:
        if isinstance(value, float):
            return "—" if np.isnan(value) else f"{value:.1f}"
        return str(value).replace("|", "\\|")

    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[text(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


CELLS_NOTE = (
    "Percent. Cells: mean ± SD over the runs in which it is defined [95 % interval over patients] "
    "(published mean ± SD, the paper's private cohort)."
)


def save_table(
    table: pd.DataFrame, folder: Path, name: str, *, title: str, origin: str, shown: pd.DataFrame, note: str = ""
) -> None:
    """Write a table for programs (CSV) and for people (Markdown).

    Args:
        table: What goes into ``<name>.csv``.
        folder: Where.
        name: E.g. ``"table1"``.
        title: Heading of ``<name>.md``.
        origin: From ``describe_origin``.
        shown: What goes into the Markdown.
        note: A line below the table.
    """
    write_csv(table, folder / f"{name}.csv")
    parts = [f"# {title}", origin, to_markdown(shown), note]
    write_text("\n\n".join(part for part in parts if part) + "\n", folder / f"{name}.md")


def remove_table(folder: Path, name: str) -> None:
    """Remove a table and its figure that cannot be made any more, so that nobody takes them for new.

    Args:
        folder: Where they lie, if they do.
        name: E.g. ``"table3"``.
    """
    for suffix in (".csv", ".md", ".png", ".pdf"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def read_logs(runs: Sequence[Run]) -> pd.DataFrame:
    """The learning curves of several runs.

    Args:
        runs: Finished runs.

    Returns:
        One row per run and epoch: ``task, fold, epoch, train_loss, val_loss, val_accuracy,
        learning_rate``.
    """
    names = [f"{run.spec.task}{', pretrained' if run.spec.starts_from else ''}" for run in runs]
    logs = [
        pd.read_csv(run.folder / "log.csv").assign(task=name, fold=run.spec.fold)
        for name, run in zip(names, runs, strict=True)
    ]
    columns = ["task", "fold", "epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate"]
    return pd.concat(logs, ignore_index=True)[columns]


def describe_absent(decisions: Sequence[Decisions]) -> str:
    """A line that says which classes no test video of a fold has.

    Args:
        decisions: Rows of a table.

    Returns:
        E.g. ``"S/F ratio: <180 absent in 2 of 5 test folds"``, one line per task and class, or a
        line that says that every class is there.
    """
    absent: dict[tuple[str, str], int] = {}
    for row in {row.task: row for row in decisions}.values():
        for fold in row.folds:
            for k in sorted(set(range(len(row.classes))) - set(fold.labels)):
                key = (row.task, row.classes[k])
                absent[key] = absent.get(key, 0) + 1
    n_folds = max((len(row.folds) for row in decisions), default=0)
    lines = [f"{title_of(t)}: {name} absent in {n} of {n_folds} test folds" for (t, name), n in absent.items()]
    return "\n".join(lines) or "every class is present in every test fold"
