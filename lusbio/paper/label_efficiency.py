"""The claim "needs less data", tested: both routes with the labels of some of the training patients."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lusbio.experts.rows import Row, choose_by_validation, decide_end_to_end, decide_with_experts
from lusbio.files import Table
from lusbio.report.cells import format_value, measure_cells
from lusbio.report.tables import TABLE1_METRICS, runs_of
from lusbio.runs.plan import FEWER_LABELS, choose_efficiency_task, list_with_fewer_labels
from lusbio.runs.spec import find_runs
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import draw_means, estimate, percentile_interval
from lusbio.vocabulary import BIOMARKER_TASK, Kind, kind_words, title_of

COMPARED = ["fraction", Kind.END_TO_END, Kind.BIOMARKERS, "difference", "ci_low", "ci_high", "finding"]


def decide_with_fewer_labels(study: Study) -> dict[float, list[Row]]:
    """The end-to-end network and, fold by fold, the expert that validated best, by share of labelled patients.

    The biomarker labels are complete throughout; the end-to-end networks take as many steps with few labels as with
    all. The validation patients keep their labels, for both routes. Shares come as ``plan.list_with_fewer_labels``
    lists them, all labels last.

    Raises:
        NothingToDo: Where ``plan.find_left_out`` leaves the question out.
    """
    if FEWER_LABELS in study.left_out:
        study.end_here(study.left_out[FEWER_LABELS], FEWER_LABELS)
    task, found = choose_efficiency_task(study), {}
    for share, specs in list_with_fewer_labels(study, task).items():
        networks, folds = find_runs(specs), [spec.fold for spec in specs]
        given = [run for run in study.runs(BIOMARKER_TASK) if run.spec.fold in folds]
        experts = decide_with_experts(given, task, study, label_fraction=share)
        found[share] = [decide_end_to_end(networks, study), choose_by_validation(experts)]
    return found


def make_label_efficiency(rows: Mapping[float, list[Row]], study: Study) -> Table:
    """How well both routes decide when only some training patients have the label of the task.

    Args:
        rows: From ``decide_with_fewer_labels``.
        study: The cohort they are about.

    Returns:
        Cells ``route, fraction, patients`` (labelled training patients, mean over runs), ``metric, mean, sd, ci_low,
        ci_high`` in percent.
    """
    named = [
        ({"route": row.features, "fraction": share, "patients": _count_labelled(row, share, study)}, row.held_out)
        for share, of_share in rows.items()
        for row in of_share
    ]
    cells = measure_cells(named, study.draws, metrics=TABLE1_METRICS)
    shown = cells.assign(route=cells["route"].map(kind_words), fraction=cells["fraction"].map("{:g}".format))
    every_row = [row for of_share in rows.values() for row in of_share]
    folds = ", ".join(str(run.spec.fold) for run in every_row[-1].runs)
    note = f"{title_of(every_row[-1].task)}, percent, run folds: {folds}; patients: labelled training patients."
    return Table(cells, shown, note, runs=runs_of(every_row))


def _count_labelled(row: Row, share: float, study: Study) -> float:
    """Training groups whose labels were seen, mean over runs."""
    known = study.table[row.task].notna().to_numpy()
    groups = [study.table["group_id"][known & (run.splits == "train")].nunique() for run in row.runs]
    return float(np.mean(np.ceil(share * np.array(groups))))


def compare_label_needs(rows: Mapping[float, list[Row]], draws: int) -> pd.DataFrame:
    """Whether experts on biomarkers lose less than end-to-end networks when labels become few.

    Args:
        rows: From ``decide_with_fewer_labels``.
        draws: Draws of patients behind the interval.

    Returns:
        One row per share below 1: ``fraction``, ``end_to_end`` and ``biomarkers`` (AUC lost against all labels),
        ``difference`` (how much less the experts lose), ``ci_low, ci_high`` (over patients, all four on the same draws)
        and ``finding``, a sentence. Points of AUC.
    """
    aucs = {share: [_value_and_draws(row, draws) for row in of_share] for share, of_share in rows.items()}
    lines = []
    for share in sorted(aucs)[:-1]:
        network, experts = (whole - fewer for whole, fewer in zip(aucs[1.0], aucs[share], strict=True))
        difference, *drawn = network - experts
        low, high = percentile_interval(np.array(drawn))
        verdict = "less" if low > 0 else "more" if high < 0 else "neither clearly less nor clearly more"
        finding = (
            f"With {100 * share:g} % of the labels, experts on biomarkers lose {experts[0]:.1f} points of AUC and "
            f"end-to-end networks {network[0]:.1f}: {verdict} "
            f"(difference {format_value(difference, low, high, sign='+')})."
        )
        lost = {"fraction": share, Kind.END_TO_END: network[0], Kind.BIOMARKERS: experts[0]}
        lines.append(lost | {"difference": difference, "ci_low": low, "ci_high": high, "finding": finding})
    return pd.DataFrame(lines, columns=COMPARED)


def _value_and_draws(row: Row, draws: int) -> np.ndarray:
    """The AUC on the videos as they are, then in each draw of patients: shape (1 + D,), points."""
    value = estimate(row.held_out, draws)["auc"].value
    return 100 * np.append(value, draw_means(row.held_out, draws)["auc"])
