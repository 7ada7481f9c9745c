"""What the simulator's pictures are worth: its rates beside their targets, and its networks on real patients."""

from collections.abc import Collection, Sequence

import pandas as pd

from lusbio.errors import LusbioError
from lusbio.files import Table
from lusbio.report.cells import format_value, measure_cells
from lusbio.runs.predict import predict_cohort
from lusbio.runs.spec import Run
from lusbio.runs.study import Study
from lusbio.simulation.targets import TOLERANCE, summarise_targets
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import finding_auc
from lusbio.vocabulary import BIOMARKER_NAMES, group_names

FINDINGS = ("A-lines", "B-lines")
"""Groups that COVID-BLUES labels with yes or no: present is everything but "none"."""

FIRST_SEED = 100
"""Of the cohorts whose rates are shown: others than those on which the simulator's constants were adjusted."""


def make_targets(cohorts: int, jobs: int = 1) -> Table:
    """Target against realised, over cohorts of labels, with a sentence on the targets that are missed or tolerated.

    The cells are those of ``summarise_targets``.
    """
    cells = summarise_targets(range(FIRST_SEED, FIRST_SEED + cohorts), jobs=jobs)
    judged = cells.dropna(subset=["within"])
    met = judged["within"].astype(bool)
    gap = (judged["mean"] - judged["mean"].clip(judged["low"], judged["high"])).round(3)
    note = f"**{met.sum()} of {len(judged)}** targets are met, give or take {TOLERANCE}."
    outside = met & (gap != 0) & (judged["low"] < judged["high"])
    for title, rows in {"Missed": judged[~met], "Outside a range, but tolerated": judged[outside]}.items():
        listed = "; ".join(f"{row.group}, {row.quantity}: {row.mean:.3f}" for row in rows.itertuples())
        note += f" {title}: {listed or 'none'}."
    numbers = cells[["low", "high", "mean", "sd"]].map(lambda number: format_value(number, decimals=3))
    words = pd.Series(map(_judge, met, gap), judged.index).reindex(cells.index, fill_value="—")
    shown = cells.assign(**numbers, within=words)
    return Table(cells, shown, note, origin=f"**Simulated** labels of {cohorts} cohorts of the paper's size")


def _judge(met: bool, gap: float) -> str:
    """Whether a target is met, and how far above or below it the realised value lies."""
    where = f"{abs(gap):.3f} {'above' if gap > 0 else 'below'}"
    return f"{'tolerated' if met else 'no'}: {where}" if gap else "yes"


def measure_transfer(runs: Sequence[Run], real: Study, draws: int, *, left_out: Collection[str] = ()) -> pd.DataFrame:
    """How well biomarker networks find A-lines and B-lines in patients of another cohort, as they are.

    Args:
        runs: Biomarker runs, trained elsewhere; the AUC is the mean over them.
        real: The cohort to test on.
        draws: Draws of patients and runs behind the interval.
        left_out: ``patient_id`` of patients that do not count, e.g. those looked at in development.

    Returns:
        One row per finding: ``finding, videos, present, patients, auc, ci_low, ci_high``; percent.
    """
    counted, clips = ~real.table["patient_id"].isin(left_out), real.profile.training.evaluation_clips
    probabilities = [predict_cohort(run, real, clips) for run in runs]
    named = []
    for finding in FINDINGS:
        none = group_names(finding)[0]
        if unlearnt := [run.folder.name for run in runs if none in run.info["masked"]]:
            raise LusbioError(f"run {unlearnt[0]} never learnt {none!r}: it was masked in training")
        known = counted & real.table[none].notna()
        table, said = real.table[known], [of_run[known, BIOMARKER_NAMES.index(none)] for of_run in probabilities]
        present = (table[none] == 0).to_numpy().astype(int)
        counts = {"videos": len(table), "present": present.sum(), "patients": table["patient_id"].nunique()}
        held_out = [HeldOut(present, 1 - of_none, table["group_id"].to_numpy()) for of_none in said]
        named.append(({"finding": finding, **counts}, held_out))
    return measure_cells(named, draws, finding_auc).drop(columns=["metric", "sd"]).rename(columns={"mean": "auc"})
