"""From finished runs to decisions on patients nobody trained on: the rows of the paper's tables.

An end-to-end network decides by itself; experts decide from *evidence*: what a network hands over, its
features or its 38 biomarkers, or what raters saw. Both come out as the same thing, ``Decisions``.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import pandas as pd

from lusbio.cohorts.targets import classes_of, encode_task, keep_fraction
from lusbio.experts.classifiers import EXPERT_NAMES, Expert, fit_expert
from lusbio.experts.inputs import END_TO_END, MAJORITY, PRETRAINED, SHUFFLED, Evidence, handed_over, take_evidence
from lusbio.files import code_fingerprint, write_csv, write_json
from lusbio.runs.spec import PreparedCohort, Run, check_same_videos

EXPERT_CODE = ("experts/rows.py", "experts/classifiers.py", "cohorts/targets.py", "cohorts/splits.py")
"""The files that decide the numbers of experts."""

NETWORK = "E2E"
"""Classifier name of a network that decides by itself."""

ANCHOR_EXPERT = "RF"
"""The expert of the anchors; named beforehand, not chosen. (Engineering choice.)"""


@dataclass(frozen=True)
class FoldResult:
    """What one run decided on the videos of a split with a known label.

    Attributes:
        rows: Rows of the cohort's table, int64 (V,).
        labels: Class indices, int64 (V,).
        probabilities: float64 (V, K).
        groups: Group of each video, (V,), text.
    """

    rows: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right decisions, in [0, 1]."""
        return float(np.mean(self.probabilities.argmax(1) == self.labels))


@dataclass(frozen=True)
class Decisions:
    """One row of Table 1: one way to decide one task, over all runs.

    Attributes:
        features: What is decided from, e.g. ``"end_to_end"`` or ``"biomarkers"``.
        classifier: ``"E2E"`` or one of ``EXPERT_NAMES``.
        task: A key of ``TASKS``, or a task of one's own.
        folds: Of the test videos, one entry per run.
        validated: Of the validation videos, one entry per run; the only thing to choose a row or a threshold by.
        minutes: Mean per run, of training what decides here: a network, or an expert without its network.
        classes: Names of the K classes.
    """

    features: str
    classifier: str
    task: str
    folds: tuple[FoldResult, ...]
    validated: tuple[FoldResult, ...]
    minutes: float
    classes: tuple[str, ...]

    @property
    def validation_accuracy(self) -> float:
        """Mean over runs, in [0, 1]."""
        return float(np.mean([fold.accuracy for fold in self.validated]))


def judge(
    features: str,
    classifier: str,
    task: str,
    runs: Sequence[Run],
    decided: Sequence[np.ndarray],
    prepared: PreparedCohort,
    minutes: float,
) -> Decisions:
    """One row's decisions from what was said of all videos.

    Args:
        features: What is decided from.
        classifier: Who decides.
        task: A key of ``TASKS``, or a task of one's own.
        runs: The runs whose splits are followed.
        decided: Probabilities of all videos by run, float64 (V, K).
        prepared: The cohort.
        minutes: See ``Decisions``.

    Returns:
        The row: videos of the test and validation splits with a known label.
    """
    pairs = list(zip(runs, decided, strict=True))
    tested, validated = (
        tuple(_known(probabilities, run, split, task, prepared) for run, probabilities in pairs)
        for split in ("test", "val")
    )
    classes = classes_of(prepared.cohort.table, task)
    return Decisions(features, classifier, task, tested, validated, minutes, classes)


def decide_end_to_end(runs: Sequence[Run], prepared: PreparedCohort) -> Decisions:
    """The decisions of networks trained for a task.

    Args:
        runs: The runs of one task, one per fold.
        prepared: The cohort they are about.

    Returns:
        One row's decisions.
    """
    features = PRETRAINED if runs[0].spec.starts_from else END_TO_END
    minutes = float(np.mean([run.minutes for run in runs]))
    decided = [run.probabilities for run in runs]
    return judge(features, NETWORK, runs[0].spec.task, runs, decided, prepared, minutes)


def decide_with_experts(
    given: Sequence[Run] | Evidence,
    task: str,
    prepared: PreparedCohort,
    jobs: int = 1,
    *,
    experts: Sequence[str] = EXPERT_NAMES,
    label_fraction: float = 1.0,
    shuffled: bool = False,
) -> list[Decisions]:
    """Fit experts on evidence and let them decide a task.

    Experts see the training videos of each run, are chosen on its validation videos and decide on
    its test videos. What was fitted before with the same code and data is read back.

    Args:
        given: Runs whose features or biomarkers are handed over, one per fold, or other evidence.
        task: A key of ``TASKS``, or a task of one's own.
        prepared: The cohort they are about.
        jobs: Fits at a time.
        experts: Which of ``EXPERT_NAMES``.
        label_fraction: Share of the training patients whose labels are used, see ``labels.keep_fraction``.
        shuffled: Deal the training and validation labels anew among the videos: what is then found is chance.

    Returns:
        One row's decisions per expert.
    """
    import joblib

    evidence = given if isinstance(given, Evidence) else take_evidence(given, task)
    work = [(name, k) for name in experts for k in range(len(evidence.runs))]
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        done = joblib.Parallel(n_jobs=jobs)(
            joblib.delayed(_expert_decides)(name, evidence, k, task, prepared, label_fraction, shuffled)
            for name, k in work
        )
    results = dict(zip(work, done, strict=True))
    features = SHUFFLED if shuffled else evidence.features
    rows = []
    for name in experts:
        decided, minutes = zip(*(results[name, k] for k in range(len(evidence.runs))), strict=True)
        rows.append(judge(features, name, task, evidence.runs, decided, prepared, float(np.mean(minutes))))
    return rows


def decide_by_majority(runs: Sequence[Run], task: str, prepared: PreparedCohort) -> Decisions:
    """Everybody gets the class frequencies of the training videos: what a table's numbers are worth.

    Args:
        runs: Runs whose splits are followed.
        task: A key of ``TASKS``, or a task of one's own.
        prepared: The cohort they are about.

    Returns:
        One row's decisions.
    """
    labels, n_classes = encode_task(prepared.cohort.table, task), len(classes_of(prepared.cohort.table, task))
    decided = []
    for run in runs:
        counts = np.bincount(labels[(run.splits == "train") & (labels >= 0)], minlength=n_classes)
        decided.append(np.tile(counts / counts.sum(), (len(labels), 1)))
    return judge(MAJORITY, "—", task, runs, decided, prepared, 0.0)


def choose_by_validation(rows: Sequence[Decisions]) -> Decisions:
    """Fold by fold, the decisions of the row that validated best there; of equally good ones the first.

    Args:
        rows: Ways to decide one task, with the same runs' splits.

    Returns:
        One row; its classifier names the choice of each fold.
    """
    best = [
        max(rows, key=lambda row: row.validated[k].accuracy)  # noqa: B023 (used at once)
        for k in range(len(rows[0].folds))
    ]
    return replace(
        rows[0],
        classifier=" / ".join(row.classifier for row in best),
        folds=tuple(row.folds[k] for k, row in enumerate(best)),
        validated=tuple(row.validated[k] for k, row in enumerate(best)),
        minutes=float(np.mean([row.minutes for row in best])),
    )


def fit_experts(run: Run, task: str, prepared: PreparedCohort, experts: Sequence[str] = EXPERT_NAMES) -> list[Expert]:
    """Fit experts on what a run hands over, on its training videos, each chosen on its validation videos.

    Args:
        run: A biomarker run or an end-to-end run.
        task: A key of ``TASKS``, or a task of one's own.
        prepared: The cohort it is about.
        experts: Which of ``EXPERT_NAMES``.

    Returns:
        One expert per name, in this order.
    """
    check_same_videos(run, prepared)
    labels = encode_task(prepared.cohort.table, task)
    return [_fit(name, run, handed_over(run), labels, task, prepared) for name in experts]


def _fit(name: str, run: Run, values: np.ndarray, labels: np.ndarray, task: str, prepared: PreparedCohort) -> Expert:
    table = prepared.cohort.table
    groups, n_classes = table["group_id"].to_numpy(), len(classes_of(table, task))
    train, val = ((run.splits == split) & (labels >= 0) for split in ("train", "val"))
    known = (values[train], labels[train], groups[train], values[val], labels[val])
    return fit_expert(name, *known, n_classes=n_classes, seed=run.spec.seed)


def _expert_decides(
    name: str, evidence: Evidence, k: int, task: str, prepared: PreparedCohort, label_fraction: float, shuffled: bool
) -> tuple[np.ndarray, float]:
    """Probabilities for all videos (V, K) and the minutes of fitting; kept in the folder of run ``k``."""
    run, values = evidence.runs[k], evidence.values[k]
    check_same_videos(run, prepared)
    labels = _labels_to_learn(run, task, prepared, label_fraction, shuffled)
    content = hashlib.sha256(np.ascontiguousarray(values).tobytes() + labels.tobytes()).hexdigest()
    code = code_fingerprint(*EXPERT_CODE)
    known = json.dumps([content, code, version("scikit-learn"), classes_of(prepared.cohort.table, task)])
    features = SHUFFLED if shuffled else evidence.features
    kind = features if label_fraction == 1 else f"{features}_share_{label_fraction:g}"
    stem = f"{kind}-{task}-{name.replace(' ', '_')}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
    path, timing = run.folder / "experts" / f"{stem}.csv", run.folder / "experts" / f"{stem}.timing.json"
    if not path.exists():
        began = time.perf_counter()
        probabilities = _fit(name, run, values, labels, task, prepared).predict_probabilities(values)
        write_json({"seconds": round(time.perf_counter() - began, 3)}, timing)
        table = pd.DataFrame({"video_id": run.predictions["video_id"]})
        table[[f"p_{k}" for k in range(probabilities.shape[1])]] = probabilities
        write_csv(table, path)
    decided = pd.read_csv(path, dtype={"video_id": str}).drop(columns="video_id").to_numpy(np.float64)
    return decided, json.loads(timing.read_text(encoding="utf-8"))["seconds"] / 60


def _labels_to_learn(
    run: Run, task: str, prepared: PreparedCohort, label_fraction: float, shuffled: bool
) -> np.ndarray:
    """Class indices of all videos, int64 (V,); -1 for training videos whose label is not used."""
    table = prepared.cohort.table
    labels = encode_task(table, task)
    if label_fraction < 1:
        training = np.flatnonzero((run.splits == "train") & (labels >= 0))
        labels[np.setdiff1d(training, keep_fraction(table, training, label_fraction, run.spec.seed))] = -1
    if shuffled:
        for split in ("train", "val"):
            rows = np.flatnonzero((run.splits == split) & (labels >= 0))
            labels[rows] = np.random.default_rng([run.spec.seed, run.spec.fold]).permutation(labels[rows])
    return labels


def _known(probabilities: np.ndarray, run: Run, split: str, task: str, prepared: PreparedCohort) -> FoldResult:
    check_same_videos(run, prepared)
    labels = encode_task(prepared.cohort.table, task)
    rows = np.flatnonzero((run.splits == split) & (labels >= 0))
    groups = prepared.cohort.table["group_id"].to_numpy()[rows]
    return FoldResult(rows, labels[rows], probabilities[rows], groups)
