"""Table 4: how far the trainee, and what learnt from the trainee, agree with a specialist. Numbers x 100."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.cohorts.targets import BIOMARKER_TASK, encode_task
from lusbio.experts.rows import Decisions
from lusbio.paper.closer_look import decide_both_ways, format_interval, route_title
from lusbio.report.tables import FEATURE_TITLES, read_published
from lusbio.runs.plan import find_tasks
from lusbio.runs.spec import PreparedCohort, Run, find_runs
from lusbio.statistics.bootstrap import Tested, agreement, paired_difference
from lusbio.statistics.weighted_metrics import weighted_agreement
from lusbio.vocabulary import TASKS

SPECIALIST = "specialist_lung_severity"
"""The column of a cohort's table that holds the specialist's grades."""

GRADED_TASK = "lung_severity"

METRIC_TITLES = {
    "agreement": "same grade (%)",
    "within_one": "within one grade (%)",
    "kappa": "kappa x 100",
    "quadratic_kappa": "quadratic kappa x 100",
}


def decide_severity(prepared: PreparedCohort, initial_weights: str, jobs: int = 1) -> tuple[list[Run], list[Decisions]]:
    """What Table 4 compares, see ``decide_both_ways``; nothing where a cohort has no severities to learn.

    Args:
        prepared: The cohort.
        initial_weights: Of the runs, see ``RunSpec``.
        jobs: Fits at a time.

    Returns:
        The finished runs, and the two rows in this order; no rows where the cohort has too few severities.

    Raises:
        LusbioError: If runs are not trained yet.
    """
    if GRADED_TASK not in find_tasks(prepared)[0]:
        return find_runs(prepared.specs(BIOMARKER_TASK, initial_weights)), []
    return decide_both_ways(GRADED_TASK, prepared, initial_weights, jobs)


def make_agreement_table(
    decisions: Sequence[Decisions], prepared: PreparedCohort, draws: int, seed: int = 0
) -> pd.DataFrame:
    """Table 4: how far the trainee, and networks that learnt from the trainee, agree with a specialist.

    Args:
        decisions: Rows that decide lung severity, from ``decide_severity``.
        prepared: The cohort they are about; its column ``specialist_lung_severity`` holds the specialist's grades.
        draws: Draws of patients behind an interval.
        seed: Of the draws.

    Returns:
        One row per rater and metric of ``statistics.agreement``: ``rater`` (``"trainee"``, or the features),
        ``metric, value, low, high, published``; x 100; on test videos that the specialist graded, mean over
        runs. No row where there is no such video.
    """
    raters = {}
    for row in decisions:
        raters["trainee"] = [(fold.rows, fold.labels, fold.groups) for fold in row.folds]
    raters |= {row.features: _decided(row) for row in decisions}
    found = {name: _beside_specialist(decided, prepared) for name, decided in raters.items()}
    table = _agreement_rows({name: runs for name, runs in found.items() if runs}, draws, seed)
    published = read_published("table4")["published_mean"].item()
    is_published = (table["rater"] == "trainee") & (table["metric"] == "agreement")
    return table.assign(published=np.where(is_published, published, np.nan))


def compare_agreement(decisions: Sequence[Decisions], prepared: PreparedCohort, draws: int, seed: int = 0) -> str:
    """A sentence that says which of two ways agrees better with the specialist, on the same patients.

    Args:
        decisions: Two rows that decide lung severity, from ``decide_severity``; the second is judged beside the first.
        prepared: The cohort.
        draws: Draws of patients.
        seed: Of the draws.

    Returns:
        The paired difference in agreement with its interval, in percentage points; or that nobody can say.
    """
    runs = [_beside_specialist(_decided(row), prepared) for row in decisions]
    if not decisions:
        return f"cohort `{prepared.cohort.name}`: lung severity cannot be learnt here, so nobody can say."
    if not any(runs):
        return f"cohort `{prepared.cohort.name}` has no grades of a specialist, so nobody can say."
    found = paired_difference(*runs[::-1], n_draws=draws, seed=seed, measure=weighted_agreement)["agreement"]
    low, high = 100 * found.low, 100 * found.high
    if low <= 0 <= high:
        verdict = "no difference that these patients could show"
    else:
        verdict = f"{'more' if low > 0 else 'less'} often, and the interval excludes 0"
    return (
        f"same grade as the specialist, {route_title(decisions[1])} minus {route_title(decisions[0])}: "
        f"{100 * found.value:+.1f} percentage points [{low:+.1f}, {high:+.1f}], {verdict}."
    )


def make_public_raters_table(raters: pd.DataFrame, draws: int, seed: int = 0) -> pd.DataFrame:
    """Agreement of the two public raters, as ``make_agreement_table`` without what was published.

    Args:
        raters: From ``cohorts.public_raters.read_public_raters``.
        draws: Draws of groups behind an interval.
        seed: Of the draws.

    Returns:
        Columns ``rater, metric, value, low, high``; x 100.
    """
    run = (raters["pocovid"].to_numpy(), raters["covidx_us"].to_numpy(), raters["group_id"].to_numpy())
    return _agreement_rows({"POCOVID and COVIDx-US": [run]}, draws, seed)


def _decided(row: Decisions) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [(fold.rows, fold.probabilities.argmax(axis=1), fold.groups) for fold in row.folds]


def _beside_specialist(
    decided: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], prepared: PreparedCohort
) -> list[Tested]:
    """The specialist's grades, someone else's and groups, by run; runs without a graded video are left out."""
    table = prepared.cohort.table
    grades = encode_task(table.assign(**{GRADED_TASK: table[SPECIALIST]}), GRADED_TASK)
    runs = []
    for rows, classes, groups in decided:
        graded = grades[rows] >= 0
        if graded.any():
            runs.append((grades[rows][graded], classes[graded], groups[graded]))
    return runs


def _agreement_rows(raters: dict[str, list[Tested]], draws: int, seed: int) -> pd.DataFrame:
    rows = [
        (name, metric, *(100 * np.array(found)))
        for name, runs in raters.items()
        for metric, found in agreement(runs, draws, seed).items()
    ]
    return pd.DataFrame(rows, columns=["rater", "metric", "value", "low", "high"])


def widen_agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Table 4 as people read it: a row per rater, a column per metric.

    Args:
        table: From ``make_agreement_table`` or ``make_public_raters_table``.

    Returns:
        Text cells ``value [low, high] (published)``.
    """
    table = table.replace({"rater": FEATURE_TITLES})
    cells = [
        format_interval(row.value, row.low, row.high)
        + (f" ({row.published:.0f})" if pd.notna(getattr(row, "published", np.nan)) else "")
        for row in table.itertuples()
    ]
    columns = table["metric"].replace(METRIC_TITLES)
    wide = table.assign(cell=cells, column=columns).pivot(index="rater", columns="column", values="cell")
    return wide.reindex(index=table["rater"].unique(), columns=columns.unique()).rename_axis(columns=None).reset_index()


def describe_cells(table: pd.DataFrame, decisions: Sequence[Decisions], prepared: PreparedCohort) -> str:
    """The line below Table 4.

    Args:
        table: Table 4.
        decisions: Its rows, from ``decide_severity``.
        prepared: The cohort.

    Returns:
        How to read the cells, and who the experts were; or why there is none.
    """
    if not decisions:
        return f"Cohort `{prepared.cohort.name}`: lung severity cannot be learnt here, so there is nothing to compare."
    if table.empty:
        return f"Cohort `{prepared.cohort.name}` has no grades of a specialist: there is nobody to agree with."
    return (
        "Cells: mean over the runs [95 % interval over patients] (published). Biomarkers: the expert of each run that "
        f"did best on its validation patients ({decisions[1].classifier})."
    )


def count_pairs(raters: pd.DataFrame) -> pd.DataFrame:
    """How often the public raters gave which pair of grades.

    Args:
        raters: From ``cohorts.public_raters.read_public_raters``.

    Returns:
        Videos, a row per grade of POCOVID (first column), a column per grade of COVIDx-US.
    """
    grades = [pd.Categorical(raters[name], range(len(TASKS[GRADED_TASK].classes))) for name in ("pocovid", "covidx_us")]
    counts = pd.crosstab(*grades, dropna=False)
    counts.index.name, counts.columns = "POCOVID", [f"COVIDx-US {grade}" for grade in counts.columns]
    return counts.reset_index().astype({"POCOVID": str})


def describe_public_raters(raters: pd.DataFrame) -> str:
    """The line below the table of the public raters: how many there are, and who is stricter.

    Args:
        raters: From ``cohorts.public_raters.read_public_raters``.

    Returns:
        A few sentences.
    """
    higher = (raters["pocovid"] - raters["covidx_us"]).mean()
    groups = raters["group_id"].value_counts()
    certain = (raters["matched_by"] != "butterfly title").sum()
    return (
        f"Cells: value [95 % interval over groups]. {len(raters)} videos, {certain} of them matched by more than a "
        f"title, in {len(groups)} groups that may show one person; the largest has {groups.iloc[0]}, so the "
        f"intervals are rough. "
        f"POCOVID's rater is {abs(higher):.2f} grades {'higher' if higher > 0 else 'lower'} on average."
    )
