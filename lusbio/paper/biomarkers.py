"""Tables about biomarkers: which there are (Table 5), how well they are found (Table 2), and which are not."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.files import Table, read_words
from lusbio.report.cells import add_published, measure_cells, read_published, widen
from lusbio.runs.spec import Run, labels_of
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import biomarker_aucs, biomarker_metrics
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, BIOMARKERS, Kind

NEAR_CHANCE = 60.0
"""AUC in percent below which a biomarker counts as hardly found. (Engineering choice.)"""

RARE = 10
"""Positive test videos below which an AUC says little. (Engineering choice.)"""

DETAIL_MM = read_words("detail_mm.toml")
"""What has to be resolved to tell the options of a group apart, by their definitions in Table 5."""

OUR_NAMES = {"accuracy": "weighted_recall", "precision": "weighted_precision", "f1": "weighted_f1"}
"""The metrics of the published Table 2 as this package calls them."""


def make_table5() -> Table:
    """Table 5: the 38 biomarkers, ``index, group, option, name, meaning``."""
    cells = pd.DataFrame(BIOMARKERS)[["index", "group", "option", "name", "meaning"]]
    return Table(cells, cells.drop(columns="name"), origin="")


def make_table2(runs: Sequence[Run], study: Study) -> Table:
    """Table 2: how well the biomarker networks, one run per fold, find what they could learn.

    The paper's "accuracy" (76.4) is most likely recall weighted by support: element-wise accuracy was about 87. It
    stands beside weighted recall for that reason.
    """
    groups, held_out = study.table["group_id"].to_numpy(), []
    for run in runs:
        labels = labels_of(run, study)
        rows = np.flatnonzero((run.splits == "test") & ~np.isnan(labels).all(axis=1))
        held_out.append(HeldOut(labels[rows], run.probabilities[rows], groups[rows]))
    names = {"features": Kind.BIOMARKERS.value, "classifier": "TSM", "task": BIOMARKER_TASK}
    cells = measure_cells([(names, held_out)], study.draws, biomarker_metrics)
    cells = add_published(cells, read_published("table2").replace({"metric": OUR_NAMES}))
    return Table(cells, widen(cells, by=["classifier"]), runs=tuple(runs))


def make_biomarker_auc_table(runs: Sequence[Run], study: Study) -> Table:
    """AUC of every biomarker over the biomarker runs, with the support on the test videos.

    Columns ``group, option, name, present, absent, mean, sd``, in percent; NaN where a biomarker has no two values in
    any test fold. ``present`` and ``absent`` count distinct test videos.
    """
    tests = [run.splits == "test" for run in runs]
    labels = study.table.loc[np.any(tests, axis=0), list(BIOMARKER_NAMES)].to_numpy(np.float64)
    by_run = pd.DataFrame(
        biomarker_aucs(labels_of(run, study)[test], run.probabilities[test])["auc"].to_numpy()
        for run, test in zip(runs, tests, strict=True)
    )  # (runs, 38)
    support = {"present": (labels == 1).sum(axis=0), "absent": (labels == 0).sum(axis=0)}
    aucs = {"mean": 100 * by_run.mean(), "sd": 100 * by_run.std(ddof=0)}
    cells = pd.DataFrame(BIOMARKERS)[["group", "option", "name"]].assign(**support, **aucs)
    return Table(cells, cells.drop(columns="name"), runs=tuple(runs))


def explain_near_chance(aucs: pd.DataFrame, pixels_per_mm: float) -> pd.DataFrame:
    """The biomarkers that a network hardly finds, each with the reason that the data suggest.

    Args:
        aucs: Cells of ``make_biomarker_auc_table``.
        pixels_per_mm: Of the frames that the network sees; NaN where the depth is unknown.

    Returns:
        Columns ``biomarker, present, auc, reason``, worst first: rare in the test videos, finer than two pixels, or
        neither.
    """
    rows = []
    for row in aucs[aucs["mean"] < NEAR_CHANCE].sort_values("mean").itertuples():
        pixels = DETAIL_MM.get(row.group, np.nan) * pixels_per_mm
        if min(row.present, row.absent) < RARE:
            reason = f"rare: {row.present} test videos show it, {row.absent} do not"
        elif pixels < 2:
            reason = f"fine: {DETAIL_MM[row.group]:g} mm are {pixels:.1f} pixels here"
        else:
            reason = "neither rare nor fine: not learnt in this training"
        rows.append((f"{row.group}: {row.option}", row.present, row.mean, reason))
    return pd.DataFrame(rows, columns=["biomarker", "present", "auc", "reason"])
