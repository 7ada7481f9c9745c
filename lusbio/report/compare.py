"""The paper's claim, tested: are experts on biomarkers as good as networks trained end to end?

Task by task, on the same test patients, with the expert of each run chosen on its validation patients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import linregress

from lusbio.experts.rows import NETWORK, Row, choose_by_validation
from lusbio.files import Table, read_words
from lusbio.report.cells import format_value, show_intervals, subtract_cells
from lusbio.report.tables import runs_of
from lusbio.statistics.bootstrap import estimate, holm
from lusbio.vocabulary import Kind, title_of

MARGIN = 2.5
"""Points of AUC by which experts may be worse and still count as matching. (Engineering choice: the SD over
runs that the paper reports for its three end-to-end networks is 2.4 on average.)"""

SIGNIFICANT = 0.05
"""Holm-corrected p-value below which a difference counts."""

FLAT = 2.0
"""Points of validation accuracy that a curve may gain in its last third and still count as flat.
(Engineering choice.)"""

VERDICTS = read_words("verdicts.toml")
"""What is said of the experts on biomarkers, and what it means."""


def compare_routes(rows: Sequence[Row], draws: int) -> Table:
    """Experts on biomarkers beside the end-to-end network, task by task, by AUC.

    Args:
        rows: The rows of Table 1.
        draws: Draws of patients behind the interval of the difference.

    Returns:
        One line per task that both decided: ``task, expert`` (fold by fold the one that validated best),
        ``biomarkers, end_to_end, difference, ci_low, ci_high`` (percent; the difference is paired: both on the same
        patients, drawn anew), ``p_value`` and ``p_holm``, corrected over the tasks.
    """
    lines = []
    for task in dict.fromkeys(row.task for row in rows):
        of_task = [row for row in rows if row.task == task]
        network = [row for row in of_task if (row.features, row.classifier) == (Kind.END_TO_END, NETWORK)]
        experts = [row for row in of_task if row.features == Kind.BIOMARKERS]
        if not network or not experts:
            continue
        pair = choose_by_validation(experts), network[0]
        own = [100 * estimate(row.held_out, draws)["auc"].value for row in pair]
        names = {"task": task, "expert": pair[0].classifier, "biomarkers": own[0], "end_to_end": own[1]}
        lines.append((names, *(row.held_out for row in pair)))
    columns = ["task", "expert", "biomarkers", "end_to_end", "difference", "ci_low", "ci_high", "p_value"]
    found = subtract_cells(lines, draws, metrics=["auc"]).rename(columns={"mean": "difference"})
    cells = found.reindex(columns=columns).assign(p_holm=lambda table: holm(table["p_value"]))
    p_values = cells[["p_value", "p_holm"]].map(lambda p: format_value(p, decimals=3))
    shown = cells.assign(**p_values).rename(columns={"ci_low": "difference_low", "ci_high": "difference_high"})
    return Table(cells, show_intervals(shown), runs=runs_of(rows))


def judge_learning(logs: pd.DataFrame) -> pd.DataFrame:
    """Whether networks had learnt what they could when their training ended.

    A straight line is laid through the validation accuracies of the last third of the epochs of all runs of
    a task. The curve still rises if that line gains ``FLAT`` points or more over the third, and more than
    its standard error. A training of fewer than six epochs shows no curve and counts as not flat. A flat
    curve does not say that anything was learnt.

    Args:
        logs: From ``tables.read_logs``.

    Returns:
        One row per task: ``task, epochs, gain`` (points over the last third, NaN without a curve),
        ``gain_error`` (its standard error), ``flat``.
    """
    rows = []
    for task, log in logs.groupby("task", sort=False):
        epochs, gain, error = int(log["epoch"].max()), np.nan, np.nan
        if epochs >= 6:
            last = log[log["epoch"] > epochs - epochs // 3]
            line = linregress(last["epoch"], 100 * last["val_accuracy"])
            gain, error = line.slope * (epochs // 3), line.stderr * (epochs // 3)
        flat = bool(gain < FLAT or gain < error)
        rows.append({"task": task, "epochs": epochs, "gain": gain, "gain_error": error, "flat": flat})
    return pd.DataFrame(rows, columns=["task", "epochs", "gain", "gain_error", "flat"])


def give_verdicts(comparison: Table, learning: pd.DataFrame, rows: Sequence[Row], draws: int) -> Table:
    """The sentence of the paper, "biomarker experts match or beat end-to-end", task by task, whichever way it goes.

    Args:
        comparison: From ``compare_routes``.
        learning: From ``judge_learning``, of the end-to-end networks.
        rows: Those of Table 1: whether the end-to-end networks among them learnt anything is said as well.
        draws: Draws of patients behind that.

    Returns:
        ``task, title, verdict`` (a key of ``VERDICTS``) and ``sentence``.
    """
    networks = [row for row in rows if (row.features, row.classifier) == (Kind.END_TO_END, NETWORK)]
    by_chance = [row.task for row in networks if estimate(row.validated, draws)["auc"].low <= 0.5]
    flat = learning.set_index("task")["flat"]
    lines = []
    for row in comparison.cells.itertuples():
        verdict = _verdict(row) if flat.get(row.task, False) else "undertrained"
        difference = format_value(row.difference, row.ci_low, row.ci_high, sign="+")
        sentence = (
            f"{title_of(row.task)}: experts on biomarkers reach an AUC of {row.biomarkers:.1f}, the end-to-end network "
            f"{row.end_to_end:.1f}; difference {difference}, Holm-corrected p {row.p_holm:.2f}. "
            f"{verdict.capitalize()}: {VERDICTS[verdict].format(margin=MARGIN, significant=SIGNIFICANT)}."
        )
        if row.task in by_chance:
            sentence += " The end-to-end network is not above chance on its own validation patients."
        lines.append((row.task, title_of(row.task), verdict, sentence))
    cells = pd.DataFrame(lines, columns=["task", "title", "verdict", "sentence"])
    return Table(cells, cells[["title", "verdict", "sentence"]], runs=comparison.runs)


def _verdict(row: NamedTuple) -> str:
    if row.p_holm < SIGNIFICANT:
        return "beats" if row.difference > 0 else "worse"
    return "matches" if row.ci_low > -MARGIN else "undecided"
