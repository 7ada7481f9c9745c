"""What the simulator's pictures are worth: its rates beside their targets, and its networks on real patients."""

from collections.abc import Collection, Sequence

import pandas as pd

from lusbio.errors import LusbioError
from lusbio.files import Table
from lusbio.report.cells import format_value, measure_cells
from lusbio.runs.predict import predict_cohort
from lusbio.runs.spec import Run
from lusbio.runs.study import Study
from lusbio.simulation.targets import TOLERANCE, score_nuisance, summarise_targets
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import finding_auc
from lusbio.vocabulary import BIOMARKER_NAMES, PROBES, group_names

FINDINGS = ("A-lines", "B-lines")
"""Groups that COVID-BLUES labels with yes or no: present is everything but "none"."""

FIRST_SEED = 100
"""Of the cohorts whose rates are shown: others than those on which the simulator's constants were adjusted."""


def make_targets(cohorts: int) -> Table:
    """Target against realised, over cohorts of labels, with a sentence on the targets that are missed or tolerated.

    The cells are those of ``summarise_targets``.
    """
    cells = summarise_targets(range(FIRST_SEED, FIRST_SEED + cohorts))
    judged = cells.dropna(subset=["within"])
    missed, outside = ~judged["within"].astype(bool), ~judged["mean"].round(3).between(judged["low"], judged["high"])
    listed = "; ".join(f"{row.group}, {row.quantity}: {row.mean:.3f}" for row in judged[missed].itertuples())
    note = f"**{(~missed).sum()} of {len(judged)}** targets are met, {(outside & ~missed).sum()} of these only within "
    note += f"the tolerance of {TOLERANCE}. Missed: {listed or 'none'}."
    numbers = cells[["low", "high", "mean", "sd"]].map(lambda number: format_value(number, decimals=3))
    words = missed.map({True: "no", False: "yes"}).mask(outside & ~missed, f"outside, by at most {TOLERANCE}")
    shown = cells.assign(**numbers, within=words.reindex(cells.index, fill_value="—"))
    return Table(cells, shown, note, origin=f"**Simulated** labels of {cohorts} cohorts of the paper's size")


def describe_nuisance(patients: int = 400) -> str:
    """A sentence on what motion and anatomy alone say about true severity and disease; seconds, as nothing is drawn."""
    told = []
    for probe in PROBES:
        auc = score_nuisance(patients, FIRST_SEED, probe)
        told.append(f"{auc['lung_severity']:.3f} for severity and {auc['disease']:.3f} for disease ({probe} probe)")
    return f"From motion and anatomy alone, over {patients} simulated patients, the AUC is {', '.join(told)}."


def measure_transfer(runs: Sequence[Run], real: Study, draws: int, *, left_out: Collection[str] = ()) -> pd.DataFrame:
    """How well biomarker networks find A-lines and B-lines in patients of another cohort, as they are.

    Args:
        runs: Biomarker runs, trained elsewhere; the AUC is the mean over them.
        real: The cohort to test on.
        draws: Draws of patients behind the interval.
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
