"""Table 4: how far the trainee, and what learnt from the trainee, agree with a specialist. Numbers x 100."""

import contextlib
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lusbio.cohorts.pocovid import read_public_raters
from lusbio.cohorts.targets import encode_task
from lusbio.errors import CohortError, NothingToDo
from lusbio.experts.rows import Row
from lusbio.experts.table1 import decide_both_ways
from lusbio.files import Table, data_folder
from lusbio.report.cells import METRIC_TITLES, format_value, measure_cells, read_published, subtract_cells, widen
from lusbio.report.decisions import take_classes
from lusbio.report.result_figures import plot_agreement
from lusbio.report.tables import runs_of
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import rater_agreement
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY, SPECIALIST, kind_words

COLUMNS = ["rater", "metric", "value", "low", "high"]


def decide_severity(study: Study) -> list[Row]:
    """The network and the experts that Table 4 compares: of each run the most accurate in validation.

    Raises:
        NothingToDo: Where a cohort has too few labels of severity or of biomarkers to learn. The table of the public
            raters, who need no network, is made before that.
    """
    for task in sorted({SEVERITY, BIOMARKER_TASK} & study.unlearnable.keys()):
        with contextlib.suppress(NothingToDo):
            study.publish("table4_public", make_public_raters_table(open_public_raters(study), study.draws))
        study.check_learnable(task, "table4", "agreement")
    return decide_both_ways(SEVERITY, study, metric="accuracy")


def make_table4(rows: Sequence[Row], study: Study) -> Table:
    """Table 4: how far the trainee, and networks that learnt from the trainee, agree with a specialist.

    Args:
        rows: From ``decide_severity``.
        study: The cohort; its column ``SPECIALIST`` holds the specialist's grades.

    Returns:
        One line per rater and metric of ``rater_agreement``: ``rater`` (``"trainee"``, or the features), ``metric,
        value, low, high, published``; on test videos that the specialist graded, mean over runs. No line where there is
        no such video.
    """
    trainee = [held_out._replace(probabilities=held_out.labels) for held_out in rows[0].held_out]
    raters = {"trainee": trainee} | {row.features: take_classes(row) for row in rows}
    graded = {name: runs for name, decided in raters.items() if (runs := _beside_specialist(decided, study))}
    cells = _measure_agreement(graded, study.draws)
    is_published = (cells["rater"] == "trainee") & (cells["metric"] == "agreement")
    cells["published"] = np.where(is_published, read_published("table4")["published_mean"].item(), np.nan)
    note = (
        "Cells: mean over the runs [95 % interval over patients and runs] (published). Biomarkers: the expert of each "
        f"run that was right most often on its validation patients ({rows[-1].classifier})."
    )
    if cells.empty:
        note = f"Cohort `{study.cohort.name}` has no grades of a specialist: there is nobody to agree with."
    return Table(cells, _widen(cells), note, runs=runs_of(rows))


def _beside_specialist(decided: Sequence[HeldOut], study: Study) -> list[HeldOut]:
    """The specialist's grades in place of the labels, run by run; runs without a video that is graded are left out."""
    grades = encode_task(study.table.assign(**{SEVERITY: study.table[SPECIALIST]}), SEVERITY)
    runs = [run._replace(labels=grades[run.rows]) for run in decided]
    return [run.keep(run.labels >= 0) for run in runs if (run.labels >= 0).any()]


def _measure_agreement(raters: dict[str, list[HeldOut]], draws: int) -> pd.DataFrame:
    cells = measure_cells([({"rater": name}, runs) for name, runs in raters.items()], draws, rater_agreement)
    return cells.rename(columns={"mean": "value", "ci_low": "low", "ci_high": "high"}).reindex(columns=COLUMNS)


def _widen(cells: pd.DataFrame) -> pd.DataFrame:
    """A row per rater, a column per metric; text ``value [low, high] (published)``."""

    def format_one(cell: pd.Series) -> str:
        published = format_value(cell.get("published", np.nan), decimals=0)
        return format_value(cell["value"], cell["low"], cell["high"]) + (f" ({published})" if published != "—" else "")

    cells = cells.assign(rater=cells["rater"].map(kind_words))
    return widen(cells, ["rater"], format_one, lambda cell: METRIC_TITLES[cell["metric"]])


def publish_figure(table4: Table, study: Study) -> None:
    """Draw and publish Table 4; where nobody graded there is nothing to draw, and what was drawn before is removed."""
    study.remove("agreement")
    if len(table4.cells):
        fig, ax = plt.subplots(figsize=(6.5, 3.8))
        plot_agreement(table4.cells, ax=ax)
        study.publish("agreement", fig)


def compare_agreement(rows: Sequence[Row], study: Study) -> str:
    """A sentence that says whether the second of two rows agrees better with the specialist than the first.

    Both on the same patients: the paired difference in agreement with its interval, or that nobody can say.
    """
    first, second = (_beside_specialist(take_classes(row), study) for row in rows)
    if not first:
        return f"cohort `{study.cohort.name}` has no grades of a specialist, so nobody can say."
    (found,) = subtract_cells([({}, second, first)], study.draws, rater_agreement, ["agreement"]).itertuples()
    verdict = "no difference that these patients could show"
    if found.ci_low > 0 or found.ci_high < 0:
        verdict = f"{'more' if found.ci_low > 0 else 'less'} often, and the interval excludes 0"
    difference = format_value(found.mean, found.ci_low, found.ci_high, sign="+")
    compared = f"{rows[1].words} minus {rows[0].words}"
    return f"same grade as the specialist, {compared}: {difference} percentage points, {verdict}."


def open_public_raters(study: Study) -> pd.DataFrame:
    """The grades of ``read_public_raters``; where they are not in the data folder the notebook ends, see ``Study``."""
    try:
        return read_public_raters(data_folder())
    except CohortError as error:
        study.end_here(f"This needs the grades of two public raters. {error}", "table4_public")


def make_public_raters_table(raters: pd.DataFrame, draws: int) -> Table:
    """Agreement of the two public raters, ``rater, metric, value, low, high``; intervals over groups.

    Args:
        raters: From ``cohorts.pocovid.read_public_raters``.
        draws: Draws of groups behind an interval.
    """
    run = HeldOut(*(raters[column].to_numpy() for column in ("pocovid", "covidx_us", "group_id")))
    cells = _measure_agreement({"POCOVID and COVIDx-US": [run]}, draws)
    higher, groups = (raters["pocovid"] - raters["covidx_us"]).mean(), raters["group_id"].value_counts()
    certain = (raters["matched_by"] != "butterfly title").sum()
    note = (
        f"Cells: value [95 % interval over groups]. {len(raters)} videos, {certain} of them matched by more than a "
        f"title, in {len(groups)} groups that may show one person; the largest has {groups.iloc[0]}, so the intervals "
        f"are rough. POCOVID's rater is {abs(higher):.2f} grades {'higher' if higher > 0 else 'lower'} on average."
    )
    return Table(cells, _widen(cells), note, origin="**Real** patients, POCOVID and COVIDx-US")
