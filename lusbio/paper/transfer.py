"""A trained network on patients of another cohort, as it is: nothing is adapted, nothing is chosen."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.errors import LusbioError
from lusbio.files import write_csv
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.scoring.score import find_biomarkers, find_model
from lusbio.statistics.bootstrap import bootstrap_metrics
from lusbio.statistics.weighted_metrics import weighted_auc
from lusbio.vocabulary import BIOMARKER_NAMES, group_names

FINDINGS = ("A-lines", "B-lines")
"""Groups that COVID-BLUES labels with yes or no: present is everything but "none"."""


def predict_elsewhere(run: Run, prepared: PreparedCohort) -> pd.DataFrame:
    """Predictions of a run for the videos of another cohort; kept in the run's folder.

    Args:
        run: A finished biomarker run.
        prepared: A cohort decoded at the size the run was trained with.

    Returns:
        One row per video: ``video_id, p_0 ... p_37``.

    Raises:
        LusbioError: If the run is for another task, or the frames have another size.
    """
    if run.spec.task != BIOMARKER_TASK:
        raise LusbioError(f"run {run.folder.name} is for {run.spec.task}, expected {BIOMARKER_TASK}")
    if run.spec.training.image_size != prepared.profile.training.image_size:
        sizes = f"{run.spec.training.image_size} and {prepared.profile.training.image_size}"
        raise LusbioError(f"run {run.folder.name} and cohort {prepared.cohort.name!r} differ in frame size: {sizes}")
    path = run.folder / "elsewhere" / f"{prepared.cohort.name}-{prepared.data}.csv"
    if not path.exists():
        from lusbio.network.training import one_thread

        predictions = pd.DataFrame({"video_id": prepared.cohort.table["video_id"]})
        with one_thread():
            probabilities = find_biomarkers(prepared.videos, find_model(run.folder))
        predictions[[f"p_{k}" for k in range(probabilities.shape[1])]] = probabilities
        write_csv(predictions, path)
    return pd.read_csv(path, dtype={"video_id": str})


def measure_transfer(
    runs: Sequence[Run], prepared: PreparedCohort, draws: int, *, left_out: Collection[str] = ()
) -> pd.DataFrame:
    """How well biomarker networks find A-lines and B-lines in patients of another cohort.

    Args:
        runs: Biomarker runs, trained elsewhere; the AUC is the mean over them.
        prepared: The cohort to test on.
        draws: Draws of patients behind the interval.
        left_out: ``patient_id`` of patients that do not count, e.g. those looked at in development.

    Returns:
        One row per finding: ``finding, videos, present, patients, auc, ci_low, ci_high``; percent.
    """
    table = prepared.cohort.table
    counted = ~table["patient_id"].isin(left_out).to_numpy()
    rows = []
    for finding in FINDINGS:
        none = group_names(finding)[0]
        known = counted & table[none].notna().to_numpy()
        labels = (table[none] == 0).to_numpy()[known].astype(int)
        groups = table["group_id"].to_numpy()[known]
        column = f"p_{BIOMARKER_NAMES.index(none)}"
        unlearnt = [run.folder.name for run in runs if none in run.info["masked"]]
        if unlearnt:
            raise LusbioError(f"run {unlearnt[0]} never learnt {none!r}: it was masked in training")
        scores = [1 - predict_elsewhere(run, prepared)[column].to_numpy()[known] for run in runs]
        low, high = bootstrap_metrics([(labels, s, groups) for s in scores], draws, 0, _weighted_finding_auc)["auc"]
        whole = [_weighted_finding_auc(labels, s, np.ones((1, len(labels))))["auc"][0] for s in scores]
        rows.append(
            {
                "finding": finding,
                "videos": int(known.sum()),
                "present": int(labels.sum()),
                "patients": int(table["patient_id"][known].nunique()),
                "auc": 100 * float(np.mean(whole)),
                "ci_low": 100 * low,
                "ci_high": 100 * high,
            }
        )
    return pd.DataFrame(rows)


def _weighted_finding_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    return {"auc": weighted_auc(scores, labels.astype(bool), weights)}
