"""The paper's claim, tested: are experts on biomarkers as good as networks trained end to end?

Task by task, on the same test patients, with the expert of each run chosen on its validation patients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import linregress

from lusbio.experts.inputs import BIOMARKERS, CROSSFITTED, END_TO_END, PRETRAINED, SEVERITY_FEATURES
from lusbio.experts.rows import NETWORK, Decisions, choose_by_validation
from lusbio.report.tables import name_in_words, read_published_minutes
from lusbio.runs.plan import PRETRAINED_TASK
from lusbio.runs.spec import Run
from lusbio.statistics.bootstrap import bootstrap_metrics, holm, paired_difference
from lusbio.statistics.metrics import task_metrics
from lusbio.vocabulary import title_of

MARGIN = 2.5
"""Points of AUC by which experts may be worse and still count as matching. (Engineering choice: the SD over
runs that the paper reports for its three end-to-end networks is 2.4 on average.)"""

SIGNIFICANT = 0.05
"""Holm-corrected p-value below which a difference counts."""

FLAT = 2.0
"""Points of validation accuracy that a curve may gain in its last third and still count as flat.
(Engineering choice.)"""

VERDICTS = {
    "beats": f"better than end-to-end, corrected p below {SIGNIFICANT:g}",
    "matches": f"not worse than end-to-end by {MARGIN:g} points or more",
    "worse": f"worse than end-to-end, corrected p below {SIGNIFICANT:g}",
    "undecided": "no finding: these patients cannot tell",
    "undertrained": "no verdict: the end-to-end network was still learning when its training ended",
}
"""What is said of the experts on biomarkers, and what it means."""

DIFFERENCE_COLUMNS = [
    "task",
    "expert",
    "biomarkers",
    "end_to_end",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
    "p_holm",
]


def compare_routes(decisions: Sequence[Decisions], draws: int, seed: int = 0) -> pd.DataFrame:
    """Experts on biomarkers beside the end-to-end network, task by task, by AUC.

    Args:
        decisions: The rows of Table 1.
        draws: Draws of patients behind the interval of the difference.
        seed: Of the draws.

    Returns:
        One row per task that both decided: ``task, expert`` (fold by fold the one that validated best),
        ``biomarkers, end_to_end, difference, ci_low, ci_high`` (percent; the difference is paired: both on
        the same patients, drawn anew), ``p_value`` and ``p_holm``, corrected over the tasks.
    """
    rows = []
    for task in dict.fromkeys(row.task for row in decisions):
        network = [row for row in decisions if (row.task, row.features, row.classifier) == (task, END_TO_END, NETWORK)]
        experts = [row for row in decisions if row.task == task and row.features == BIOMARKERS]
        if not network or not experts:
            continue
        expert = choose_by_validation(experts)
        routes = [[(f.labels, f.probabilities, f.groups) for f in row.folds] for row in (expert, network[0])]
        difference = paired_difference(*routes, n_draws=draws, seed=seed)["auc"]
        aucs = [float(np.nanmean([task_metrics(labels, p)["auc"] for labels, p, _ in route])) for route in routes]
        rows.append(
            {
                "task": task,
                "expert": expert.classifier,
                "biomarkers": 100 * aucs[0],
                "end_to_end": 100 * aucs[1],
                "difference": 100 * difference.value,
                "ci_low": 100 * difference.low,
                "ci_high": 100 * difference.high,
                "p_value": difference.p_value,
            }
        )
    table = pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS[:-1])
    return table.assign(p_holm=holm(table["p_value"]))


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


def give_verdicts(
    comparison: pd.DataFrame, learning: pd.DataFrame, networks: Sequence[Decisions], draws: int
) -> pd.DataFrame:
    """The sentence of the paper, "biomarker experts match or beat end-to-end", task by task, whichever way it goes.

    Args:
        comparison: From ``compare_routes``.
        learning: From ``judge_learning``, of the end-to-end networks.
        networks: Decisions of the end-to-end networks: whether they learnt anything is said as well.
        draws: Draws of patients behind that.

    Returns:
        ``task, title, verdict`` (a key of ``VERDICTS``) and ``sentence``.
    """
    by_chance = [row.task for row in networks if not _is_above_chance(row, draws)]
    flat = learning.set_index("task")["flat"]
    rows = []
    for row in comparison.itertuples():
        verdict = _verdict(row) if flat.get(row.task, False) else "undertrained"
        sentence = (
            f"{title_of(row.task)}: experts on biomarkers reach an AUC of {row.biomarkers:.1f}, the end-to-end network "
            f"{row.end_to_end:.1f}; difference {row.difference:+.1f} [{row.ci_low:+.1f}, {row.ci_high:+.1f}], "
            f"Holm-corrected p {row.p_holm:.2f}. {verdict.capitalize()}: {VERDICTS[verdict]}."
        )
        if row.task in by_chance:
            sentence += " The end-to-end network is not above chance on its own validation patients."
        rows.append((row.task, title_of(row.task), verdict, sentence))
    return pd.DataFrame(rows, columns=["task", "title", "verdict", "sentence"])


def _verdict(row: NamedTuple) -> str:
    if row.p_holm < SIGNIFICANT:
        return "beats" if row.difference > 0 else "worse"
    return "matches" if row.ci_low > -MARGIN else "undecided"


def _is_above_chance(row: Decisions, draws: int) -> bool:
    """Whether the interval of the AUC on validation patients lies above one half."""
    validated = [(fold.labels, fold.probabilities, fold.groups) for fold in row.validated]
    return bootstrap_metrics(validated, draws, 0)["auc"][0] > 0.5


def make_cost_table(decisions: Sequence[Decisions], biomarker_runs: Sequence[Run]) -> pd.DataFrame:
    """What each row of Table 1 costs to train, in minutes per run.

    Args:
        decisions: The rows of Table 1, anchors left out.
        biomarker_runs: The biomarker runs.

    Returns:
        Columns ``features, classifier, task, minutes`` (of the row's own network or expert),
        ``network_minutes`` (of the networks that it rests on), ``published_minutes``.
    """
    networks = {(row.features, row.task): row.minutes for row in decisions if row.classifier == NETWORK}
    biomarkers = float(np.mean([run.minutes for run in biomarker_runs]))
    known = read_published_minutes().set_index(["features", "classifier"])["minutes_per_run"].to_dict()
    rows = []
    for row in decisions:
        below = 0.0 if row.classifier == NETWORK else networks.get((row.features, row.task), 0.0)
        if row.features in (BIOMARKERS, CROSSFITTED, PRETRAINED):
            below += biomarkers
        elif row.features == SEVERITY_FEATURES:
            below = networks[END_TO_END, PRETRAINED_TASK]
        rows.append(
            {
                "features": row.features,
                "classifier": row.classifier,
                "task": row.task,
                "minutes": row.minutes,
                "network_minutes": below,
                "published_minutes": known.get((row.features, row.classifier), np.nan),
            }
        )
    return pd.DataFrame(rows)


def widen_cost(cost: pd.DataFrame) -> pd.DataFrame:
    """Minutes of training as people read them, mean over tasks.

    Args:
        cost: From ``make_cost_table``.

    Returns:
        Text: ``features, classifier``, the minutes per run of the row itself, of the networks that it rests on,
        and as published; an em dash where there is nothing.
    """
    columns = {
        "minutes": "Minutes per run",
        "network_minutes": "Networks below it",
        "published_minutes": "Published (RTX A6000)",
    }
    means = name_in_words(cost).groupby(["features", "classifier"], sort=False)[list(columns)].mean()
    texts = means.map(lambda value: "—" if np.isnan(value) else f"{value:.2f}")
    return texts.rename(columns=columns).reset_index()


def add_up_routes(cost: pd.DataFrame, table1: pd.DataFrame, task: str, metric: str = "auc") -> pd.DataFrame:
    """What each route costs for all tasks together, and what it brings for one of them.

    Args:
        cost: From ``make_cost_table``.
        table1: From ``tables.make_table1``.
        task: Whose numbers to show.
        metric: Which of them.

    Returns:
        Columns ``features, classifier, minutes, mean, ci_low, ci_high``; a network that serves several tasks
        is counted once. Routes that do not serve all tasks are left out.
    """
    rows = []
    for (features, classifier), of_route in cost.groupby(["features", "classifier"], sort=False):
        if set(of_route["task"]) != set(cost["task"]):
            continue
        shared = features in (BIOMARKERS, SEVERITY_FEATURES)
        networks = of_route["network_minutes"].max() if shared else of_route["network_minutes"].sum()
        rows.append((features, classifier, networks + of_route["minutes"].sum()))
    minutes = pd.DataFrame(rows, columns=["features", "classifier", "minutes"])
    shown = table1[(table1["task"] == task) & (table1["metric"] == metric)]
    return minutes.merge(shown[["features", "classifier", "mean", "ci_low", "ci_high"]], on=["features", "classifier"])
