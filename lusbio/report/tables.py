"""The paper's tables of decisions: rows in, ``Table`` out. Numbers x 100, as published."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd

from lusbio.cohorts.splits import run_folds
from lusbio.experts.baselines import BASELINES
from lusbio.experts.rows import NETWORK, Row
from lusbio.files import Table
from lusbio.report.cells import format_cell, make_task_cells, name_row, read_published, read_published_minutes, widen
from lusbio.runs.spec import Run
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY, Kind, kind_words, title_of

TABLE1_METRICS = ("auc", "accuracy")
TABLE7_METRICS = ("auc", "accuracy", "precision", "f1")

TRAINING_TIME = "Train (min)"
"""Column of Table 1, as in the paper."""


def make_table1(rows: Sequence[Row], draws: int, note: str = "") -> Table:
    """Table 1: AUC and accuracy of every classifier on every task, and minutes of training what decides.

    The note says which classes cannot be tested, and what the accuracies are worth.
    """
    minutes = np.repeat([row.minutes for row in rows], len(TABLE1_METRICS))
    cells = make_task_cells(rows, draws, TABLE1_METRICS).assign(minutes=minutes)
    shown = widen(cells).assign(**{TRAINING_TIME: _format_minutes(cells)})
    said = [note, describe_absent(rows), " ".join(describe_majority(cells))]
    return Table(cells, shown, "\n\n".join(filter(None, said)), runs=runs_of(rows))


def _format_minutes(cells: pd.DataFrame) -> list[str]:
    """Minutes per run, mean over tasks, and the published ones, row by row."""
    published, texts = read_published_minutes(), []
    for row, minutes in cells.groupby(["features", "classifier"], sort=False)["minutes"].mean().items():
        beside = f" ({published[row]:g})" if row in published.index else ""
        texts.append(f"{minutes:.2f}{beside}" if minutes else "—")
    return texts


def make_table7(rows: Sequence[Row], draws: int) -> Table:
    """Table 7: lung severity with precision and F1, two decimals."""
    published = read_published("table7")
    tasks, features = set(published["task"]), set(published["features"])
    rows = [row for row in rows if row.task in tasks and row.features in features]
    cells = make_task_cells(rows, draws, TABLE7_METRICS, "table7")
    return Table(cells, widen(cells, format_one=lambda cell: format_cell(cell, 2)), runs=runs_of(rows))


def make_table6(rows: Mapping[str, Sequence[Row]], draws: int, note: str = "") -> Table:
    """Table 6: the rows of Table 1 by backbone, on the same folds. The paper's numbers are not available."""
    by_backbone = {name: make_task_cells(of_one, draws, TABLE1_METRICS, "table6") for name, of_one in rows.items()}
    cells = pd.concat([part.assign(backbone=name) for name, part in by_backbone.items()], ignore_index=True)
    return Table(cells, widen(cells, ["backbone", "features", "classifier"]), note, runs=runs_of(chain(*rows.values())))


def describe_backbone_effort(runs: Sequence[Run], study: Study) -> str:
    """How much of the paper's comparison the runs of another backbone are, in a sentence or two."""
    folds, all_folds = {run.spec.fold for run in runs}, run_folds(study.protocol)
    tasks = {run.spec.task for run in runs} - {BIOMARKER_TASK}
    own, usual, plural = runs[0].spec.training.epochs, study.profile.training.epochs, "s" * (len(tasks) != 1)
    text = f"{runs[0].spec.backbone}: {len(folds)} of {len(all_folds)} folds, {len(tasks)} task{plural}, "
    text += f"{own} of {usual} epochs."
    if own < usual or len(folds) < len(all_folds):
        text += " A short training shows that the path works; it does not tell which backbone is better."
    return text


def make_cost(rows: Sequence[Row], biomarker_runs: Sequence[Run]) -> Table:
    """What each row of Table 1 costs to train, in minutes per run; baselines are left out.

    Columns ``features, classifier, task, minutes`` (of the row's own network or expert), ``network_minutes`` (of the
    networks that it rests on), ``published_minutes``.
    """
    rows = [row for row in rows if row.features not in BASELINES]
    networks = {(row.features, row.task): row.minutes for row in rows if row.classifier == NETWORK}
    biomarkers = float(np.mean([run.minutes for run in biomarker_runs]))
    published, lines = read_published_minutes(), []
    for row in rows:
        below = 0.0 if row.classifier == NETWORK else networks.get((row.features, row.task), 0.0)
        if row.features in (Kind.BIOMARKERS, Kind.CROSSFITTED, Kind.PRETRAINED, Kind.SIGNS_BIOMARKERS):
            below += biomarkers
        elif row.features == Kind.SEVERITY_FEATURES:
            below = networks[Kind.END_TO_END, SEVERITY]
        as_published = published.get((row.features, row.classifier), np.nan)
        minutes = {"minutes": row.minutes, "network_minutes": below, "published_minutes": as_published}
        lines.append(name_row(row) | minutes)
    cells = pd.DataFrame(lines)
    named = cells.assign(features=cells["features"].map(kind_words))
    means = named.groupby(["features", "classifier"], sort=False)[list(minutes)].mean()
    texts = means.map("{:.2f}".format, na_action="ignore").fillna("—")
    titles = ["Minutes per run", "Networks below it", "Published (RTX A6000)"]
    return Table(cells, texts.set_axis(titles, axis=1).reset_index(), runs=runs_of(rows))


def read_logs(runs: Sequence[Run]) -> pd.DataFrame:
    """The learning curves of several runs, a line per run and epoch.

    Columns ``task, fold, epoch, train_loss, val_loss, val_accuracy, learning_rate``.
    """
    logs = []
    for run in runs:
        task = run.spec.task + (", pretrained" if run.spec.starts_from else "")
        logs.append(pd.read_csv(run.folder / "log.csv").assign(task=task, fold=run.spec.fold))
    columns = ["task", "fold", "epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate"]
    return pd.concat(logs, ignore_index=True)[columns]


def describe_absent(rows: Sequence[Row]) -> str:
    """Which classes no test video of a fold has, e.g. ``"S/F ratio: <180 absent in 2 of 5 test folds"``."""
    absent = Counter(
        (row.task, row.classes[k])
        for row in {row.task: row for row in rows}.values()
        for held_out in row.held_out
        for k in sorted(set(range(len(row.classes))) - set(held_out.labels))
    )
    n_folds = max((len(row.held_out) for row in rows), default=0)
    lines = [f"{title_of(t)}: {name} absent in {n} of {n_folds} test folds" for (t, name), n in absent.items()]
    return "; ".join(lines) or "every class is present in every test fold"


def describe_majority(cells: pd.DataFrame) -> list[str]:
    """What the accuracies of Table 1 are worth: who is above the class frequencies, by means, a sentence per task."""
    sentences, accuracies = [], cells[cells["metric"] == "accuracy"]
    majorities = accuracies[accuracies["features"] == Kind.MAJORITY].set_index("task")["mean"]
    for task, known in majorities.items():
        rows = accuracies[accuracies["task"] == task]
        learnt, told = rows[~rows["features"].isin(BASELINES)], []
        for decides, means in learnt.groupby(learnt["classifier"] == NETWORK)["mean"]:
            who = "networks" if decides else "experts"
            told.insert(0, f"{(means > known).sum() or 'none'} of {len(means)} {who} (best: {means.max():.1f})")
        above = " and ".join(told)
        sentences.append(f"{title_of(task)}, accuracy: class frequencies alone reach {known:.1f}; above are {above}.")
    return sentences


def runs_of(rows: Iterable[Row]) -> tuple[Run, ...]:
    """The finished runs behind rows, each once."""
    return tuple({run.folder: run for row in rows for run in row.runs}.values())
