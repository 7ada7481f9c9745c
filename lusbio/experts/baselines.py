"""Rows that no network stands behind: what every other row is measured by."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from lusbio.cohorts.pocovid import find_sources
from lusbio.cohorts.targets import classes_of, encode_task
from lusbio.experts.classifiers import FOREST
from lusbio.experts.inputs import ExpertInput, take_rated_biomarkers
from lusbio.experts.rows import Row, decide_with_experts, make_row
from lusbio.files import build_folder
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.runs.study import Study
from lusbio.videos import CachedVideo, FrameCache
from lusbio.vocabulary import Kind

BASELINE_EXPERT, LINEAR = "RF", "LR"
"""The expert of the baselines; named beforehand, not chosen. And the logistic regression. (Engineering choice.)"""

BASELINES = (Kind.TRUE_BIOMARKERS, Kind.TRAINEE_BIOMARKERS, Kind.SHUFFLED, Kind.MAJORITY)
"""Those of Table 1."""

SIZE, FRAMES = 14, 8
"""Height and width that a frame is pooled to; evenly spaced frames of a video. (Engineering choice.)"""


def decide_baselines(biomarker_runs: Sequence[Run], task: str, study: Study) -> list[Row]:
    """A forest on biomarkers as they were drawn and ticked, and what knowing nothing brings.

    The forest is no ceiling: it learns from as few patients as any expert, and a network may see more than 38 findings.

    Args:
        biomarker_runs: Their splits are followed, and shuffled labels are learnt from their biomarkers.
        task: A key of ``TASKS``.
        study: The cohort.

    Returns:
        A forest on the true biomarkers (simulated patients only) and on the rater's (0.5 where unknown), an expert on
        shuffled labels, and the class frequencies of the training patients.
    """
    truths = (True, False) if study.cohort.truth is not None else (False,)
    rated = [take_rated_biomarkers(biomarker_runs, study, true=true) for true in truths]
    rows = [row for given in rated for row in decide_with_experts(given, task, study, experts=[FOREST])]
    rows += decide_with_experts(biomarker_runs, task, study, experts=[BASELINE_EXPERT], shuffled=True)
    return [*rows, decide_by_majority(biomarker_runs, task, study)]


def share_by_source(task: str, prepared: PreparedCohort) -> np.ndarray:
    """How often each class stands among POCOVID's videos of a source: probabilities (V, K), NaN where none is known.

    It is what somebody decides who knows the labels of every source and looks at no video, read off the labels that it
    is judged by: not a rival, but a measure of the confounding.
    """
    labels = encode_task(prepared.table, task)
    of_class = pd.DataFrame(labels[:, None] == np.arange(len(classes_of(prepared.table, task))))
    counts = of_class.groupby(find_sources(prepared.table["group_id"])).transform("sum")
    return counts.div(counts.sum(axis=1), axis=0).to_numpy()


def decide_by_majority(runs: Sequence[Run], task: str, prepared: PreparedCohort) -> Row:
    """Everybody gets the class frequencies of the training videos: what a table's numbers are worth."""
    labels, n_classes = encode_task(prepared.table, task), len(classes_of(prepared.table, task))
    decided = []
    for run in runs:
        counts = np.bincount(labels[(run.splits == "train") & (labels >= 0)], minlength=n_classes)
        decided.append(np.tile(counts / counts.sum(), (len(labels), 1)))
    return make_row(Kind.MAJORITY, "—", task, runs, decided, prepared)


def make_throwaway_model(features: str = Kind.PIXELS) -> Pipeline:
    """An unfitted logistic regression with scikit-learn's defaults; rare classes count as much as frequent ones.

    Args:
        features: ``Kind.PIXELS`` (numbers), ``Kind.FILES`` or ``Kind.SOURCE_NAME``.

    Raises:
        ValueError: If there are no such features.
    """
    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore")
    files = make_column_transformer((numbers, ["width", "height", "fps", "frames"]), (words, ["container"]))
    prepare = {Kind.PIXELS: StandardScaler(), Kind.FILES: files, Kind.SOURCE_NAME: words}
    if features not in prepare:
        raise ValueError(f"features {features!r} are not one of {', '.join(prepare)}")
    return make_pipeline(prepare[features], LogisticRegression(class_weight="balanced", max_iter=5000))


def decide_linearly(given: ExpertInput, task: str, prepared: PreparedCohort) -> Row:
    """The throw-away model, fitted on the training videos of each run."""
    labels, n_classes = encode_task(prepared.table, task), len(classes_of(prepared.table, task))
    decided = []
    for run, values in zip(given.runs, given.values, strict=True):
        rows = (run.splits == "train") & (labels >= 0)
        with threadpool_limits(1):
            model = make_throwaway_model().fit(values[rows], labels[rows])
        probabilities = np.zeros((len(values), n_classes))
        probabilities[:, model.classes_] = model.predict_proba(values)
        decided.append(probabilities)
    return make_row(given.features, LINEAR, task, given.runs, decided, prepared)


def pool_pixels(paths: Sequence, jobs: int = 1) -> tuple[np.ndarray, list[CachedVideo]]:
    """Frames of videos, made very small from the files themselves, so that no profile changes them.

    Returns:
        float64 (V, ``FRAMES``, 14, 14), in [0, 1], and the small videos with what their files say.
    """
    small = FrameCache(build_folder("cache"), SIZE).prepare(paths, jobs)
    taken = [v.load()[np.linspace(0, v.n_frames - 1, FRAMES).round().astype(int)] / 255 for v in small]
    return np.array(taken), small


def take_pooled_pixels(runs: Sequence[Run], study: Study) -> ExpertInput:
    """The mean frame of each video, pooled to 14 x 14, (V, 196), in [0, 1]."""
    frames, _ = pool_pixels(study.cohort.video_paths(), study.jobs)
    values = np.array([of_video.mean(axis=0).ravel() for of_video in frames])
    return ExpertInput(Kind.PIXELS, tuple(runs), (values,) * len(runs))


def take_metadata(runs: Sequence[Run], prepared: PreparedCohort) -> ExpertInput:
    """What is known of a video without its pixels, and without anything that a rater or a doctor said.

    A column per zone, then ``depth_mm``, ``fps`` and the number of frames; -1 where unknown.
    """
    zones = pd.get_dummies(prepared.table["zone"], dtype=np.float64)
    numbers = prepared.table[["depth_mm", "fps"]].assign(frames=[video.n_frames for video in prepared.videos])
    values = np.hstack([zones.to_numpy(), numbers.fillna(-1).to_numpy(np.float64)])
    return ExpertInput(Kind.METADATA, tuple(runs), (values,) * len(runs))
