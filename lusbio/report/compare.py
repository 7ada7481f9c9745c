"""The paper's claim, tested: are experts on biomarkers as good as networks trained end to end?

Task by task, on the same patients, with the expert of each run chosen on its validation patients.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from lusbio.cohorts.table import find_determined_classes
from lusbio.experts.rows import NETWORK, Row, choose_by_validation
from lusbio.files import Table, read_words
from lusbio.report.cells import format_value, show_intervals, subtract_cells
from lusbio.report.tables import runs_of
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import COVERAGE, draw_means, estimate, holm, percentile_interval, subtract_by_run
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, Kind, kind_words, title_of

MARGIN = 2.5
"""Points of AUC by which experts may be worse and still count as matching. (Engineering choice: the SD over
runs that the paper reports for its three end-to-end networks is 2.4 on average.)"""

SIGNIFICANT = 0.05
"""Holm-corrected p-value below which a difference counts."""

FEWEST_PATIENTS = 12
"""Below that nothing is said of a difference. (Engineering choice.)"""

DECIDED = ("beats", "matches", "worse", "undecided")
"""The verdicts that are given where one can be given."""

VERDICTS, CLAIM_VERDICTS = read_words("verdicts.toml"), read_words("claims.toml")
"""What is said of the experts on biomarkers, and what it means."""


def compare_routes(rows: Sequence[Row], draws: int) -> Table:
    """Experts on biomarkers beside the end-to-end network, task by task, by AUC.

    Args:
        rows: Of each task an end-to-end network and experts on biomarkers, among any others.
        draws: Draws of patients and runs behind the interval of the difference.

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
        chosen = experts[0] if " / " in experts[0].classifier else choose_by_validation(experts)
        pair = chosen, network[0]
        own = [100 * estimate(row.held_out, draws)["auc"].value for row in pair]
        names = {"task": task, "expert": pair[0].classifier, "biomarkers": own[0], "end_to_end": own[1]}
        lines.append((names, *(row.held_out for row in pair)))
    columns = ["task", "expert", "biomarkers", "end_to_end", "difference", "ci_low", "ci_high", "p_value"]
    found = subtract_cells(lines, draws, metrics=["auc"]).rename(columns={"mean": "difference"})
    cells = found.reindex(columns=columns).assign(p_holm=lambda table: holm(table["p_value"]))
    p_values = cells[["p_value", "p_holm"]].map(lambda p: format_value(p, decimals=3))
    shown = cells.assign(**p_values).rename(columns={"ci_low": "difference_low", "ci_high": "difference_high"})
    return Table(cells, show_intervals(shown), f"Tested on {_count_patients(rows)} patients.", runs=runs_of(rows))


def _count_patients(rows: Sequence[Row]) -> int:
    """How many patients were tested, in any run of any row."""
    return len({group for row in rows for held_out in row.held_out for group in held_out.groups})


def compare_signs(rows: Sequence[Row], draws: int) -> Table:
    """What measured signs add: alone and together with biomarkers, minus the chosen experts on biomarkers alone.

    Args:
        rows: Of ``table1.decide_all``.
        draws: Draws of patients and runs behind the intervals.

    Returns:
        Two lines per task, ``features, task``, and paired differences of AUC in points, ``mean, sd, ci_low, ci_high``
        with ``p_value`` and ``p_holm``, corrected over all of them.
    """
    pairs = []
    for row in rows:
        if row.features in (Kind.SIGNS, Kind.SIGNS_BIOMARKERS):
            experts = [one for one in rows if (one.features, one.task) == (Kind.BIOMARKERS, row.task)]
            names = {"features": row.features, "task": row.task}
            pairs.append((names, row.held_out, choose_by_validation(experts).held_out))
    cells = subtract_cells(pairs, draws, metrics=["auc"]).assign(p_holm=lambda table: holm(table["p_value"]))
    shown = pd.DataFrame({"features": cells["features"].map(kind_words), "task": cells["task"].map(title_of)})
    shown["difference in AUC"] = [
        format_value(*cell, sign="+") for cell in cells[["mean", "ci_low", "ci_high"]].to_numpy()
    ]
    shown["p, corrected"] = cells["p_holm"].map(lambda p: format_value(p, decimals=3))
    return Table(cells, shown, runs=runs_of(rows))


def compare_budgets(rows: dict[float, Sequence[Row]], draws: int) -> pd.DataFrame:
    """Whether the difference between the routes is still moving with the number of epochs.

    Args:
        rows: By share of the epochs, all of them first: of each task the end-to-end network and the chosen experts.
        draws: Draws of patients and runs; the same for all four rows of a task.

    Returns:
        One row per task: ``task``; ``before`` (experts minus end-to-end with fewer epochs), ``change`` (by how much all
        epochs move it), ``change_low, change_high``, in points of AUC; ``holds``: the interval of the change lies
        within ``MARGIN`` on both sides.
    """
    whole, fewer = rows.values()
    lines = []
    for k in range(0, len(whole), 2):
        values, drawn = zip(*(_subtract(pair[k : k + 2], draws) for pair in (whole, fewer)), strict=True)
        low, high = percentile_interval(drawn[0] - drawn[1])
        lines.append((whole[k].task, values[1], values[0] - values[1], low, high, max(-low, high) < MARGIN))
    return pd.DataFrame(lines, columns=["task", "before", "change", "change_low", "change_high", "holds"])


def _subtract(pair: Sequence[Row], draws: int) -> tuple[float, np.ndarray]:
    """Experts minus end-to-end in points of AUC: as it is, and in every draw (D,)."""
    network, experts = pair
    value = np.nanmean(subtract_by_run(experts.held_out, network.held_out)["auc"])
    drawn = [draw_means(row.held_out, draws)["auc"] for row in (experts, network)]
    return 100 * value, 100 * (drawn[0] - drawn[1])


def give_verdicts(comparison: Table, budgets: pd.DataFrame, rows: Sequence[Row], study: Study) -> Table:
    """The sentence of the paper, "biomarker experts match or beat end-to-end", task by task, whichever way it goes.

    There is none where labels of a biomarker give a class of the task away, so that the biomarker network was
    trained on the task, nor where few patients were tested, nor where the end-to-end network is not above chance on its
    own validation patients.

    Args:
        comparison: From ``compare_routes``, of ``rows``.
        budgets: From ``compare_budgets``.
        rows: Of each task the end-to-end network and the chosen experts.
        study: Whose labels the networks learnt from.

    Returns:
        ``task, title, verdict`` (a key of ``VERDICTS``), ``power`` (percent: the chance to find "matches" if both were
        equal) and ``sentence``.
    """
    networks = [row for row in rows if row.classifier == NETWORK]
    by_chance = {row.task for row in networks if not estimate(row.validated, study.draws)["auc"].low > 0.5}
    masked = [set(run.info["masked"]) for row in rows for run in row.runs if run.spec.task == BIOMARKER_TASK]
    learnt = sorted(set(BIOMARKER_NAMES) - set.intersection(*masked))
    lines = []
    tested = {row.task: _count_patients([row]) for row in networks}
    for row, budget in zip(comparison.cells.itertuples(), budgets.itertuples(), strict=True):
        leaks, few = find_determined_classes(study.table, learnt, row.task), tested[row.task] < FEWEST_PATIENTS
        verdict = "leak" if len(leaks) else "few" if few else "chance" if row.task in by_chance else _verdict(row)
        words = VERDICTS[verdict].format(margin=MARGIN, significant=SIGNIFICANT, fewest=FEWEST_PATIENTS)
        beyond = norm.ppf(0.5 + COVERAGE / 2)  # half the width of an interval in standard errors
        error = max(row.ci_high - row.ci_low, 1e-6) / (2 * beyond)
        power = 100 * norm.cdf(MARGIN / error - beyond)
        sentence = f"{describe_difference(row)} {words}."
        if verdict in DECIDED:
            sentence += f" {describe_budget(budget)} Were both equal, the chance of *matches* would be {power:.0f} %."
        lines.append((row.task, title_of(row.task), verdict, power, sentence))
    cells = pd.DataFrame(lines, columns=["task", "title", "verdict", "power", "sentence"])
    return Table(cells, cells[["title", "verdict", "sentence"]], runs=comparison.runs)


def describe_difference(row: NamedTuple) -> str:
    """A line of ``compare_routes`` as a sentence."""
    difference = format_value(row.difference, row.ci_low, row.ci_high, sign="+")
    return (
        f"{title_of(row.task)}: experts on biomarkers reach an AUC of {row.biomarkers:.1f}, the end-to-end network "
        f"{row.end_to_end:.1f}; difference {difference}, Holm-corrected p {format_value(row.p_holm, decimals=3)}."
    )


def describe_budget(row: NamedTuple) -> str:
    """A line of ``compare_budgets`` as a sentence."""
    change = format_value(row.change, row.change_low, row.change_high, sign="+")
    said = "this holds when the budget doubles" if row.holds else "the gap still moves with the budget"
    return f"At this budget; with half of the epochs the difference was {row.before:+.1f}, the change {change}: {said}."


def _verdict(row: NamedTuple) -> str:
    if row.p_holm < SIGNIFICANT:
        return "beats" if row.difference > 0 else "worse"
    return "matches" if row.ci_low > -MARGIN else "undecided"


def judge_claim(difference: float, p_holm: float, *, chance: bool = False, moves: bool = False) -> str:
    """What is said of a claim of a companion paper, a key of ``words/claims.toml``.

    Args:
        difference: In the direction of the claim.
        p_holm: Corrected for the claims being several.
        chance: Whether a network of the comparison is not above chance on its own validation patients.
        moves: Whether the difference may still move by ``MARGIN`` when the budget doubles.
    """
    if chance:
        return "chance"
    if not p_holm < SIGNIFICANT:
        return "undecided"
    return "moves" if moves else "confirmed" if difference > 0 else "refuted"


def explain_verdict(verdict: str) -> str:
    """What a verdict of ``judge_claim`` means."""
    return CLAIM_VERDICTS[verdict].format(margin=MARGIN, significant=SIGNIFICANT)
