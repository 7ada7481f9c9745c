"""From finished runs to decisions on patients nobody trained on: the rows of the paper's tables.

An end-to-end network decides by itself; experts decide from what a network hands over, its 512-d
features or its 38 biomarkers. Both come out as the same thing, ``Decisions``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.experts import EXPERT_NAMES, Expert, fit_expert
from lusbio.files import code_fingerprint, write_csv
from lusbio.labels import BIOMARKER_TASK, encode_task
from lusbio.runs import PreparedCohort, Run, check_same_videos
from lusbio.vocabulary import TASKS

END_TO_END = "end_to_end"
"""Features of a network trained for the task itself (Table 1's name for the rows)."""

BIOMARKERS = "biomarkers"
"""The 38 probabilities of a biomarker network."""

NETWORK = "E2E"
"""Classifier name of a network that decides by itself."""


@dataclass(frozen=True)
class FoldResult:
    """What one run decided on the videos of a split with a known label.

    Attributes:
        labels: Class indices, int64 (V,).
        probabilities: float64 (V, K).
        groups: Group of each video, (V,), text.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Decisions:
    """One row of Table 1: one way to decide one task, over all runs.

    Attributes:
        features: ``"end_to_end"`` or ``"biomarkers"``: what is decided from.
        classifier: ``"E2E"`` or one of ``EXPERT_NAMES``.
        task: A key of ``TASKS``.
        folds: One entry per run.
        validation_accuracy: Mean over runs, in [0, 1]; the only thing a row may be chosen by.
    """

    features: str
    classifier: str
    task: str
    folds: tuple[FoldResult, ...]
    validation_accuracy: float


def decide_end_to_end(runs: Sequence[Run], prepared: PreparedCohort) -> Decisions:
    """The decisions of end-to-end networks.

    Args:
        runs: The runs of one task, one per fold.
        prepared: The cohort they are about.

    Returns:
        One row's decisions.
    """
    task = runs[0].spec.task
    return _decisions(END_TO_END, NETWORK, task, [(run, run.probabilities) for run in runs], prepared)


def decide_with_experts(
    runs: Sequence[Run], task: str, prepared: PreparedCohort, jobs: int = 1
) -> list[Decisions]:
    """Fit all experts on what each run hands over and let them decide a task.

    Experts see the training videos of the run, are chosen on its validation videos and decide on
    its test videos. What was fitted before with the same code and data is read back.

    Args:
        runs: Biomarker runs (38 probabilities) or end-to-end runs (512-d features), one per fold.
        task: A key of ``TASKS``.
        prepared: The cohort they are about.
        jobs: Runs at a time.

    Returns:
        One row's decisions per expert, in the order of ``EXPERT_NAMES``.
    """
    import joblib

    with joblib.parallel_config("loky", inner_max_num_threads=1):
        tables = joblib.Parallel(n_jobs=jobs)(
            joblib.delayed(_expert_table)(run, task, prepared) for run in runs
        )
    features = BIOMARKERS if runs[0].spec.task == BIOMARKER_TASK else END_TO_END
    rows = []
    for name in EXPERT_NAMES:
        decided = [_probabilities(table[table["expert"] == name]) for table in tables]
        rows.append(_decisions(features, name, task, list(zip(runs, decided, strict=True)), prepared))
    return rows


def _decisions(
    features: str,
    classifier: str,
    task: str,
    decided: Sequence[tuple[Run, np.ndarray]],
    prepared: PreparedCohort,
) -> Decisions:
    folds = tuple(_known(probabilities, run, "test", task, prepared) for run, probabilities in decided)
    validated = [_known(probabilities, run, "val", task, prepared) for run, probabilities in decided]
    accuracy = np.mean([np.mean(fold.probabilities.argmax(1) == fold.labels) for fold in validated])
    return Decisions(features, classifier, task, folds, float(accuracy))


def handed_over(run: Run) -> np.ndarray:
    """What experts see of a run: biomarkers float64 (V, 38), or features float64 (V, 512)."""
    if run.spec.task == BIOMARKER_TASK:
        return fill_masked(run.biomarkers)
    return run.features.astype(np.float64)


def fill_masked(biomarkers: np.ndarray) -> np.ndarray:
    """Biomarkers (V, 38) with 0.5 in place of NaN: what was never learnt must not tell videos apart."""
    return np.nan_to_num(biomarkers, nan=0.5)


def fit_experts(run: Run, task: str, prepared: PreparedCohort) -> list[Expert]:
    """Fit all experts on what a run hands over, on its training videos, each chosen on its validation videos.

    Args:
        run: A biomarker run or an end-to-end run.
        task: A key of ``TASKS``.
        prepared: The cohort it is about.

    Returns:
        One expert per name in ``EXPERT_NAMES``, in this order.
    """
    check_same_videos(run, prepared)
    features, labels = handed_over(run), encode_task(prepared.cohort.table, task)
    groups, n_classes = prepared.cohort.table["group_id"].to_numpy(), len(TASKS[task].classes)
    train, val = ((run.splits == split) & (labels >= 0) for split in ("train", "val"))
    known = (features[train], labels[train], groups[train], features[val], labels[val])
    return [fit_expert(name, *known, n_classes=n_classes, seed=run.spec.seed) for name in EXPERT_NAMES]


def _expert_table(run: Run, task: str, prepared: PreparedCohort) -> pd.DataFrame:
    """Predictions of all experts for all videos, kept in the run's folder: ``expert, video_id, p_0 ...``."""
    code = code_fingerprint("decisions.py", "experts.py", "labels.py", "splits.py")
    path: Path = run.folder / "experts" / f"{task}-{code}-{version('scikit-learn')}.csv"
    if not path.exists():
        parts = []
        for expert in fit_experts(run, task, prepared):
            probabilities = expert.predict_probabilities(handed_over(run))
            part = pd.DataFrame({"expert": expert.name, "video_id": run.predictions["video_id"]})
            part[[f"p_{k}" for k in range(probabilities.shape[1])]] = probabilities
            parts.append(part)
        write_csv(pd.concat(parts), path)
    return pd.read_csv(path, dtype={"video_id": str})


def _probabilities(table: pd.DataFrame) -> np.ndarray:
    return table.filter(regex=r"^p_\d+$").to_numpy(np.float64)


def _known(
    probabilities: np.ndarray, run: Run, split: str, task: str, prepared: PreparedCohort
) -> FoldResult:
    check_same_videos(run, prepared)
    labels = encode_task(prepared.cohort.table, task)
    rows = (run.splits == split) & (labels >= 0)
    return FoldResult(labels[rows], probabilities[rows], prepared.cohort.table["group_id"].to_numpy()[rows])
