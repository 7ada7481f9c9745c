"""Tables about biomarkers: which there are (Table 5), how well they are found (Table 2), and which are not."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.report.tables import read_published
from lusbio.runs.spec import PreparedCohort, Run, labels_of
from lusbio.statistics.bootstrap import bootstrap_metrics
from lusbio.statistics.metrics import biomarker_aucs, biomarker_metrics
from lusbio.statistics.weighted_metrics import weighted_biomarker_metrics
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKERS

AUC_NOTE = (
    "Percent, mean and SD over runs; present and absent: test videos. A dash: the biomarker has no two values there, "
    "or was not learnt."
)


def make_table2(runs: Sequence[Run], prepared: PreparedCohort) -> pd.DataFrame:
    """Table 2: how well the biomarker network finds the biomarkers, each metric under its own name.

    The paper's "accuracy" (76.4) is most likely recall weighted by support: element-wise accuracy
    was about 87. It stands beside weighted recall for that reason.

    Args:
        runs: The biomarker runs, one per fold.
        prepared: The cohort they are about.

    Returns:
        As ``make_task_table``; biomarkers that a cohort does not label are left out.
    """
    groups = prepared.cohort.table["group_id"].to_numpy()
    folds = []
    for run in runs:
        labels = labels_of(run, prepared)
        rows = (run.splits == "test") & ~np.isnan(labels).all(1)
        folds.append((labels[rows], run.probabilities[rows], groups[rows]))
    values = pd.DataFrame([biomarker_metrics(known, probabilities) for known, probabilities, _ in folds])
    intervals = bootstrap_metrics(folds, prepared.profile.bootstrap_draws, 0, weighted_biomarker_metrics)
    rows = [
        {
            "features": "biomarkers",
            "classifier": "TSM",
            "task": "biomarkers",
            "metric": metric,
            "mean": 100 * values[metric].mean(),
            "sd": 100 * values[metric].std(ddof=0),
            "ci_low": 100 * intervals[metric][0],
            "ci_high": 100 * intervals[metric][1],
        }
        for metric in intervals
    ]
    published = read_published("table2").replace(
        {"metric": {"accuracy": "weighted_recall", "precision": "weighted_precision", "f1": "weighted_f1"}}
    )
    return pd.DataFrame(rows).merge(published, "left", ["features", "classifier", "task", "metric"])


def make_biomarker_auc_table(runs: Sequence[Run], prepared: PreparedCohort) -> pd.DataFrame:
    """AUC of every biomarker, mean and SD over runs, with the support on the test videos.

    Args:
        runs: The biomarker runs, one per fold.
        prepared: The cohort they are about.

    Returns:
        Columns ``group, option, name, present, absent, mean, sd``; percent; one row per biomarker,
        NaN where it has no two values in any test fold. Support is summed over distinct test videos.
    """
    labels = prepared.cohort.table[list(BIOMARKER_NAMES)].to_numpy(np.float64)
    parts = []
    for run in runs:
        test = run.splits == "test"
        parts.append(biomarker_aucs(labels_of(run, prepared)[test], run.probabilities[test])["auc"].to_numpy())
    values = pd.DataFrame(parts)  # (runs, 38)
    tested = np.any([run.splits == "test" for run in runs], axis=0)
    return pd.DataFrame(
        {
            "group": [b.group for b in BIOMARKERS],
            "option": [b.option for b in BIOMARKERS],
            "name": BIOMARKER_NAMES,
            "present": (labels[tested] == 1).sum(0),
            "absent": (labels[tested] == 0).sum(0),
            "mean": 100 * values.mean().to_numpy(),
            "sd": 100 * values.std(ddof=0).to_numpy(),
        }
    )


NEAR_CHANCE = 60.0
"""AUC in percent below which a biomarker counts as hardly found. (Engineering choice.)"""
RARE = 10
"""Positive test videos below which an AUC says little. (Engineering choice.)"""
DETAIL_MM = {
    "pleural thickness": 1.0,
    "pleural indent": 1.5,
    "pleural break": 2.0,
    "B-line origin": 2.0,
    "consolidation": 3.0,
}
"""What has to be resolved to tell the options of a group apart, by their definitions in Table 5."""


def explain_near_chance(aucs: pd.DataFrame, pixels_per_mm: float) -> pd.DataFrame:
    """The biomarkers that a network hardly finds, each with the reason that the data suggest.

    Args:
        aucs: From ``make_biomarker_auc_table``.
        pixels_per_mm: Of the frames that the network sees; NaN where the depth is unknown.

    Returns:
        Columns ``biomarker, present, auc, reason``, worst first: rare in the test videos, finer than
        two pixels, or neither.
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


def make_table5() -> pd.DataFrame:
    """Table 5: the 38 biomarkers. Columns ``index, group, option, name, meaning``."""
    return pd.DataFrame([vars(b) for b in BIOMARKERS])[["index", "group", "option", "name", "meaning"]]
