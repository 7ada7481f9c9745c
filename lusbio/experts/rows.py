"""From finished runs to decisions on patients nobody trained on: the rows of the paper's tables.

An end-to-end network decides by itself; experts decide from an ``ExpertInput``. Both come out as the same thing, a
``Row``.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from lusbio.cohorts.targets import classes_of, encode_task, keep_fraction
from lusbio.experts.classifiers import EXPERT_NAMES, Expert, fit_expert
from lusbio.experts.inputs import ExpertInput, expert_input, take_input
from lusbio.files import code_fingerprint, text_sha256, write_json
from lusbio.runs.parallel import side_by_side
from lusbio.runs.predict import read_predictions, write_predictions
from lusbio.runs.spec import PreparedCohort, Run, check_same_videos
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import judge_validation
from lusbio.vocabulary import Kind, kind_words

EXPERT_CODE = ("experts/rows.py", "experts/classifiers.py", "cohorts/targets.py", "cohorts/splits.py")
EXPERT_CODE += ("statistics/metrics.py",)
"""The files that decide the numbers of experts."""

NETWORK = "E2E"
"""Classifier name of a network that decides by itself."""

CHOSEN = "validated best"
"""Classifier name of the expert that did best on the validation patients of each run, where tables show only it."""


@dataclass(frozen=True)
class Row:
    """One way to decide one task, over all runs: a row of Table 1.

    Attributes:
        features: The ``Kind`` of what is decided from.
        classifier: ``NETWORK``, ``CHOSEN`` or one of ``EXPERT_NAMES``; several, by fold, joined by slashes.
        task: A key of ``TASKS``, or a task of one's own.
        held_out: Test videos with a known label, one entry per run.
        validated: Validation videos, one entry per run; the only thing to choose a row or a threshold by.
        classes: Names of the K classes.
        runs: The runs whose splits are followed.
        minutes: Mean per run, of training what decides here: a network, or an expert without its network.
    """

    features: Kind
    classifier: str
    task: str
    held_out: tuple[HeldOut, ...]
    validated: tuple[HeldOut, ...]
    classes: tuple[str, ...]
    runs: tuple[Run, ...] = ()
    minutes: float = 0.0

    @property
    def words(self) -> str:
        """Its name in a sentence: ``"end-to-end network"``, ``"RF on biomarkers"``, ``"experts on biomarkers"``."""
        if self.classifier == NETWORK:
            return f"{kind_words(self.features)} network"
        chosen = " / " in self.classifier or self.classifier == CHOSEN
        return f"{'experts' if chosen else self.classifier} on {kind_words(self.features)}"


def make_row(
    features: Kind,
    classifier: str,
    task: str,
    runs: Sequence[Run],
    decided: Sequence[np.ndarray],
    prepared: PreparedCohort,
    minutes: float = 0.0,
) -> Row:
    """A row from what was said of all videos: ``decided`` holds probabilities, float64 (V, K), by run."""
    labels, groups = encode_task(prepared.table, task), prepared.table["group_id"].to_numpy()
    sides: dict[str, list[HeldOut]] = {"test": [], "val": []}
    for run, probabilities in zip(runs, decided, strict=True):
        check_same_videos(run, prepared)
        for split, side in sides.items():
            rows = np.flatnonzero((run.splits == split) & (labels >= 0))
            side.append(HeldOut(labels[rows], probabilities[rows], groups[rows], rows))
    held_out, validated = map(tuple, sides.values())
    classes = classes_of(prepared.table, task)
    return Row(features, classifier, task, held_out, validated, classes, tuple(runs), minutes)


def decide_end_to_end(runs: Sequence[Run], prepared: PreparedCohort) -> Row:
    """The decisions of networks trained for a task, one run per fold."""
    features = Kind.PRETRAINED if runs[0].spec.starts_from else Kind.END_TO_END
    decided, minutes = [run.probabilities for run in runs], float(np.mean([run.minutes for run in runs]))
    return make_row(features, NETWORK, runs[0].spec.task, runs, decided, prepared, minutes)


def decide_with_experts(
    given: Sequence[Run] | ExpertInput,
    task: str,
    study: Study,
    *,
    experts: Sequence[str] = EXPERT_NAMES,
    label_fraction: float = 1.0,
    shuffled: bool = False,
) -> list[Row]:
    """Fit experts and let them decide a task.

    Experts see the training videos of each run, are chosen on its validation videos and decide on its test videos. What
    was fitted before with the same code and data is read back.

    Args:
        given: Runs whose features or biomarkers are handed over, one per fold, or another input.
        task: A key of ``TASKS``, or a task of one's own.
        study: The cohort they are about.
        experts: Which of ``EXPERT_NAMES``.
        label_fraction: Share of the training patients whose labels are used, see ``targets.keep_fraction``.
        shuffled: Deal the training and validation labels anew among the videos: what is then found is chance.

    Returns:
        One row per expert.
    """
    given = given if isinstance(given, ExpertInput) else take_input(given, task)
    work = [(name, k) for name in experts for k in range(len(given.runs))]
    asked = [(name, given, k, task, study, label_fraction, shuffled) for name, k in work]
    done = side_by_side(_let_decide, asked, study.jobs)
    results = dict(zip(work, done, strict=True))
    features, rows = Kind.SHUFFLED if shuffled else given.features, []
    for name in experts:
        decided, minutes = zip(*(results[name, k] for k in range(len(given.runs))), strict=True)
        rows.append(make_row(features, name, task, given.runs, decided, study, float(np.mean(minutes))))
    return rows


def choose_by_validation(rows: Sequence[Row], metric: str = "auc") -> Row:
    """Fold by fold, the decisions of the row that validated best there; of equally good ones the first.

    Best by what rows are judged by, see ``judge_validation``. Its classifier names the choice of each fold.
    """
    folds = range(len(rows[0].held_out))
    best = [max(rows, key=lambda row, k=k: judge_validation(*row.validated[k][:2], metric)) for k in folds]
    return replace(
        rows[0],
        classifier=" / ".join(row.classifier for row in best),
        held_out=tuple(row.held_out[k] for k, row in enumerate(best)),
        validated=tuple(row.validated[k] for k, row in enumerate(best)),
        minutes=float(np.mean([row.minutes for row in best])),
    )


def accuracy(held_out: HeldOut) -> float:
    """Share of right decisions, in [0, 1]."""
    return float(np.mean(held_out.probabilities.argmax(1) == held_out.labels))


def fit_experts(run: Run, task: str, prepared: PreparedCohort, experts: Sequence[str] = EXPERT_NAMES) -> list[Expert]:
    """Fit experts on what a run hands over, on its training videos, each chosen on its validation videos."""
    check_same_videos(run, prepared)
    labels = encode_task(prepared.table, task)
    return [_fit(name, run, expert_input(run), labels, task, prepared) for name in experts]


def _fit(name: str, run: Run, values: np.ndarray, labels: np.ndarray, task: str, prepared: PreparedCohort) -> Expert:
    groups, n_classes = prepared.table["group_id"].to_numpy(), len(classes_of(prepared.table, task))
    train, val = ((run.splits == split) & (labels >= 0) for split in ("train", "val"))
    known = (values[train], labels[train], groups[train], values[val], labels[val])
    return fit_expert(name, *known, n_classes=n_classes, seed=run.spec.entropy, fits=prepared.profile.fits)


def _let_decide(
    name: str, given: ExpertInput, k: int, task: str, prepared: PreparedCohort, label_fraction: float, shuffled: bool
) -> tuple[np.ndarray, float]:
    """Probabilities for all videos (V, K) and the minutes of fitting; kept in the folder of run ``k``."""
    run, values = given.runs[k], given.values[k]
    check_same_videos(run, prepared)
    labels = _labels_to_learn(run, task, prepared, label_fraction, shuffled)
    kind = Kind.SHUFFLED if shuffled else given.features
    kind = kind if label_fraction == 1 else f"{kind}_share_{label_fraction:g}"
    path = name_decisions(f"experts/{kind}", name, run, task, prepared, values, labels)
    timing = path.with_suffix(".timing.json")
    if not path.exists():
        began = time.perf_counter()
        probabilities = _fit(name, run, values, labels, task, prepared).predict_probabilities(values)
        write_json({"seconds": round(time.perf_counter() - began, 3)}, timing)
        write_predictions(probabilities, run.predictions["video_id"], path)
    return read_predictions(path), json.loads(timing.read_text(encoding="utf-8"))["seconds"] / 60


def name_decisions(start: str, expert: str, run: Run, task: str, prepared: PreparedCohort, *arrays: np.ndarray) -> Path:
    """Where decisions of an expert are kept in a run's folder: named by all that decides them."""
    content = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
    code, library = code_fingerprint(*EXPERT_CODE), version("scikit-learn")
    known = text_sha256(content, code, library, classes_of(prepared.table, task), prepared.profile.fits)
    return run.folder / f"{start}-{task}-{expert.replace(' ', '_')}-{known[:12]}.csv"


def _labels_to_learn(run: Run, task: str, prepared: PreparedCohort, share: float, shuffled: bool) -> np.ndarray:
    """Class indices of all videos, int64 (V,); -1 for training videos whose label is not used."""
    labels = encode_task(prepared.table, task)
    if share < 1:
        training = np.flatnonzero((run.splits == "train") & (labels >= 0))
        kept = keep_fraction(prepared.table, training, share, run.spec.seed)
        labels[np.setdiff1d(training, kept)] = -1
    if shuffled:
        for split in ("train", "val"):
            rows = np.flatnonzero((run.splits == split) & (labels >= 0))
            labels[rows] = np.random.default_rng([run.spec.seed, run.spec.fold]).permutation(labels[rows])
    return labels
