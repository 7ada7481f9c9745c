"""The claim "needs less data", tested: both routes with the labels of some of the training patients."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.experts.inputs import BIOMARKERS, END_TO_END
from lusbio.experts.rows import Decisions, choose_by_validation, decide_end_to_end, decide_with_experts
from lusbio.runs.spec import PreparedCohort, Run, RunSpec, find_runs
from lusbio.statistics.bootstrap import bootstrap_metrics, draw_means, percentile_interval
from lusbio.statistics.metrics import task_metrics
from lusbio.statistics.weighted_metrics import weighted_task_metrics


def make_label_efficiency(
    specs: dict[float, list[RunSpec]], biomarker_runs: Sequence[Run], prepared: PreparedCohort, jobs: int = 1
) -> pd.DataFrame:
    """How well both routes decide when only some training patients have the label of the task.

    The biomarker labels are complete throughout; the end-to-end networks take as many steps with few
    labels as with all. The validation patients keep their labels, for both routes.

    Args:
        specs: From ``grid.list_with_fewer_labels``: trained runs of one task, by share.
        biomarker_runs: All biomarker runs; those of the same folds are used.
        prepared: The cohort they are about.
        jobs: Fits at a time.

    Returns:
        Columns ``route`` (``"end_to_end"``, ``"biomarkers"``: in each fold the expert that validated best),
        ``fraction, patients`` (labelled training patients, mean over runs), ``metric`` (``auc``, ``accuracy``),
        ``mean, sd, ci_low, ci_high`` in percent.
    """
    rows = []
    for share, of_share in specs.items():
        routes = _decide_with_fewer(share, of_share, biomarker_runs, prepared, jobs)
        patients = float(np.mean([_count_labelled(run, prepared, share) for run in find_runs(of_share)]))
        for route, row in routes.items():
            tested = [(fold.labels, fold.probabilities, fold.groups) for fold in row.folds]
            intervals = bootstrap_metrics(tested, prepared.profile.bootstrap_draws, 0)
            values = pd.DataFrame([task_metrics(labels, p) for labels, p, _ in tested])
            rows += [
                {
                    "route": route,
                    "fraction": share,
                    "patients": patients,
                    "metric": metric,
                    "mean": 100 * values[metric].mean(),
                    "sd": 100 * values[metric].std(ddof=0),
                    "ci_low": 100 * intervals[metric][0],
                    "ci_high": 100 * intervals[metric][1],
                }
                for metric in ("auc", "accuracy")
            ]
    return pd.DataFrame(rows)


def compare_label_needs(
    specs: dict[float, list[RunSpec]], biomarker_runs: Sequence[Run], prepared: PreparedCohort, jobs: int = 1
) -> pd.DataFrame:
    """Whether experts on biomarkers lose less than end-to-end networks when labels become few.

    Args:
        specs: As for ``make_label_efficiency``.
        biomarker_runs: As for ``make_label_efficiency``.
        prepared: The cohort they are about.
        jobs: Fits at a time.

    Returns:
        One row per share below 1: ``fraction``, ``end_to_end`` and ``biomarkers`` (AUC lost against all
        labels), ``difference`` (how much less the experts lose), ``ci_low, ci_high`` (over patients, all four
        on the same draws) and ``finding``, a sentence. Points of AUC.
    """
    routes = {share: _decide_with_fewer(share, specs[share], biomarker_runs, prepared, jobs) for share in specs}
    draws = prepared.profile.bootstrap_draws

    def measure(row: Decisions) -> tuple[float, np.ndarray]:
        tested = [(fold.labels, fold.probabilities, fold.groups) for fold in row.folds]
        mean = np.nanmean([task_metrics(labels, p)["auc"] for labels, p, _ in tested])
        return 100 * float(mean), 100 * draw_means(tested, draws, 0, weighted_task_metrics)["auc"]

    found = {share: {name: measure(row) for name, row in of_share.items()} for share, of_share in routes.items()}
    rows = []
    for share in sorted(found)[:-1]:
        lost, drawn = (
            {name: found[1.0][name][k] - found[share][name][k] for name in (END_TO_END, BIOMARKERS)} for k in (0, 1)
        )
        low, high = percentile_interval(drawn[END_TO_END] - drawn[BIOMARKERS])
        difference = lost[END_TO_END] - lost[BIOMARKERS]
        verdict = "less" if low > 0 else "more" if high < 0 else "neither clearly less nor clearly more"
        rows.append(
            {
                "fraction": share,
                **lost,
                "difference": difference,
                "ci_low": low,
                "ci_high": high,
                "finding": f"With {100 * share:g} % of the labels, experts on biomarkers lose {lost[BIOMARKERS]:.1f} "
                f"points of AUC and end-to-end networks {lost[END_TO_END]:.1f}: {verdict} "
                f"(difference {difference:+.1f} [{low:+.1f}, {high:+.1f}]).",
            }
        )
    return pd.DataFrame(rows)


def _decide_with_fewer(
    share: float, specs: list[RunSpec], biomarker_runs: Sequence[Run], prepared: PreparedCohort, jobs: int
) -> dict[str, Decisions]:
    """Both routes with a share of the labels; in each fold the expert that validated best."""
    runs, folds = find_runs(specs), [spec.fold for spec in specs]
    given = [run for run in biomarker_runs if run.spec.fold in folds]
    experts = decide_with_experts(given, runs[0].spec.task, prepared, jobs, label_fraction=share)
    return {END_TO_END: decide_end_to_end(runs, prepared), BIOMARKERS: choose_by_validation(experts)}


def _count_labelled(run: Run, prepared: PreparedCohort, share: float) -> int:
    """Training groups whose labels a run saw."""
    table = prepared.cohort.table
    training = (run.splits == "train") & table[run.spec.task].notna().to_numpy()
    return int(np.ceil(share * table["group_id"][training].nunique()))
