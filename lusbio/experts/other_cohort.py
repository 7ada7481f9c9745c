"""What the networks and experts of one cohort decide on the videos of another, as they are: nothing is retrained.

Networks, experts and the choice among experts come from the training cohort alone; the labels of the other
cohort only judge. Predictions are kept in the folders of the runs.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from lusbio.cohorts import pocovid
from lusbio.cohorts.load import load_cohort
from lusbio.cohorts.targets import BIOMARKER_TASK, encode_task
from lusbio.errors import LusbioError
from lusbio.experts.inputs import fill_masked, handed_over
from lusbio.experts.rows import (
    EXPERT_CODE,
    Decisions,
    FoldResult,
    choose_by_validation,
    decide_by_majority,
    decide_end_to_end,
    decide_with_experts,
    fit_experts,
)
from lusbio.files import code_fingerprint, write_csv
from lusbio.runs.mixed_cohort import MIXED
from lusbio.runs.plan import find_tasks
from lusbio.runs.spec import PreparedCohort, Run, find_runs, prepare_cohort
from lusbio.scoring.score import Model, predict_videos

TASK = "lung_severity"
"""What is decided."""

CLIPS = 2
"""Clips per video of the other cohort. Source: the authors' practice."""

CHOSEN = "validated best"
"""In each run the expert that did best on validation patients of the training cohort."""


@dataclass(frozen=True)
class Elsewhere:
    """What one cohort's networks decided on another cohort's videos.

    Attributes:
        home: The cohort that everything was learnt from.
        other: The cohort that is tested on.
        runs: All runs behind the decisions: end-to-end networks, then biomarker networks.
        rows: End-to-end, the experts, the chosen experts, where there are mixed networks the same of theirs, class
            frequencies of the training videos. ``folds``, one per run, are of all videos of ``other`` with a
            severity; ``validated`` are of ``home``.
        chosen: Which expert on biomarkers was chosen, run by run, e.g. ``"RF / DT / RF"``.
    """

    home: PreparedCohort
    other: PreparedCohort
    runs: tuple[Run, ...]
    rows: tuple[Decisions, ...]
    chosen: str


def find_other_cohort(home: PreparedCohort, jobs: int = 1) -> tuple[PreparedCohort | None, str]:
    """POCOVID, decoded at the size that a cohort's networks take; or why there is nothing to test on.

    Args:
        home: The cohort that networks were trained on.
        jobs: Videos that are decoded at a time.

    Returns:
        The other cohort and an empty text; or None and the reason, with how to mend it.
    """
    if home.cohort.name == pocovid.NAME:
        return None, f"No Table 3: a test of `{pocovid.NAME}` on itself is no generalization."
    if TASK not in find_tasks(home)[0]:
        return None, f"No Table 3: cohort `{home.cohort.name}` has too few severities to learn."
    try:
        other = prepare_cohort(load_cohort(pocovid.NAME, home.profile, jobs), home.profile, jobs)
    except LusbioError as error:
        return None, f"No Table 3: it needs POCOVID. {error}"
    if other.cohort.table[TASK].isna().all():
        return None, f"No Table 3: none of the {len(other.videos)} videos of POCOVID has a severity here."
    return other, ""


def decide_elsewhere(
    home: PreparedCohort, other: PreparedCohort, initial_weights: str, jobs: int = 1, *, mixed: Sequence[Run] = ()
) -> Elsewhere:
    """Decide the severity of another cohort's videos with the networks and experts of one's own.

    Args:
        home: The cohort that networks were trained on.
        other: From ``find_other_cohort``.
        initial_weights: Of the finished runs, see ``RunSpec``.
        jobs: Fits at a time.
        mixed: From ``mixed.find_mixed_runs``. Their experts learn from patients of ``home`` as well.

    Returns:
        The decisions and what they rest on. The labels of ``other`` only judge.

    Raises:
        LusbioError: If a run is not finished.
    """
    networks, biomarkers = (find_runs(home.specs(task, initial_weights)) for task in (TASK, BIOMARKER_TASK))
    end_to_end = judge_elsewhere(
        decide_end_to_end(networks, home), [predict_cohort(run, other) for run in networks], other
    )
    experts, chosen = _decide_with_experts(biomarkers, home, other, jobs)
    if mixed:
        of_mixed = _decide_with_experts(mixed, home, other, jobs)[0]
        experts += [replace(row, features=MIXED) for row in of_mixed]
    majority = decide_by_majority(biomarkers, TASK, home)
    everybody = [np.tile(fold.probabilities[0], (len(other.videos), 1)) for fold in majority.validated]
    frequencies = judge_elsewhere(majority, everybody, other)
    rows = (end_to_end, *experts, frequencies)
    return Elsewhere(home, other, (*networks, *biomarkers, *mixed), rows, chosen)


def predict_cohort(run: Run, other: PreparedCohort, n_clips: int = CLIPS) -> np.ndarray:
    """What a run's network says of the videos of another cohort; kept in the run's folder.

    Args:
        run: A finished run, of biomarkers or end to end.
        other: A cohort decoded at the size the run was trained with.
        n_clips: Clips per video, averaged.

    Returns:
        Probabilities, float64 (V, K): 38 biomarkers, NaN where never learnt, or the classes of the task.

    Raises:
        LusbioError: If the frames have another size.
    """
    sizes = run.spec.training.image_size, other.profile.training.image_size
    if sizes[0] != sizes[1]:
        raise LusbioError(
            f"run {run.folder.name} and cohort {other.cohort.name!r} differ in frame size: {sizes[0]} and {sizes[1]}"
        )
    path = run.folder / "elsewhere" / f"{other.cohort.name}-{other.data}-{n_clips}clips.csv"
    if not path.exists():
        from lusbio.network.training import one_thread

        model = Model(run.folder, run.spec, tuple(run.info["masked"]), {})
        with one_thread():
            probabilities = predict_videos(other.videos, model, n_clips)
        _write_predictions(probabilities, other, path)
    return _read_predictions(path)


def judge_elsewhere(row: Decisions, decided: Sequence[np.ndarray], other: PreparedCohort) -> Decisions:
    """A row with what was decided on another cohort in place of its test videos.

    Args:
        row: A way to decide.
        decided: Probabilities of all videos of the other cohort by run, float64 (V, K).
        other: The other cohort.

    Returns:
        The row; each fold holds the videos with a known severity.
    """
    table = other.cohort.table
    labels = encode_task(table, TASK)
    known = np.flatnonzero(labels >= 0)
    groups = table["group_id"].to_numpy()[known]
    return replace(row, folds=tuple(FoldResult(known, labels[known], p[known], groups) for p in decided))


def _write_predictions(probabilities: np.ndarray, other: PreparedCohort, path: Path) -> None:
    table = pd.DataFrame({"video_id": other.cohort.table["video_id"]})
    table[[f"p_{k}" for k in range(probabilities.shape[1])]] = probabilities
    write_csv(table, path)


def _read_predictions(path: Path) -> np.ndarray:
    return pd.read_csv(path, dtype={"video_id": str}).drop(columns="video_id").to_numpy(np.float64)


def _decide_with_experts(
    runs: Sequence[Run], home: PreparedCohort, other: PreparedCohort, jobs: int
) -> tuple[list[Decisions], str]:
    """A row per expert, then that of the chosen ones; and which were chosen."""
    experts = decide_with_experts(runs, TASK, home, jobs)
    decided = _experts_decide(runs, [row.classifier for row in experts], home, other, jobs)
    experts = [judge_elsewhere(row, found, other) for row, found in zip(experts, decided, strict=True)]
    chosen = choose_by_validation(experts)
    return [*experts, replace(chosen, classifier=CHOSEN)], chosen.classifier


def _experts_decide(
    runs: Sequence[Run], names: Sequence[str], home: PreparedCohort, other: PreparedCohort, jobs: int
) -> list[list[np.ndarray]]:
    """Probabilities (V, K) of the other cohort's videos, by expert and run."""
    import joblib

    away = [fill_masked(predict_cohort(run, other)) for run in runs]
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        found = joblib.Parallel(n_jobs=jobs)(
            joblib.delayed(_expert_decides)(name, run, values, home, other)
            for name in names
            for run, values in zip(runs, away, strict=True)
        )
    return [found[k : k + len(runs)] for k in range(0, len(found), len(runs))]


def _expert_decides(name: str, run: Run, away: np.ndarray, home: PreparedCohort, other: PreparedCohort) -> np.ndarray:
    """Fit an expert at home, as for Table 1, and let it decide elsewhere; kept in the run's folder."""
    labels = encode_task(home.cohort.table, TASK)
    arrays = (np.ascontiguousarray(a).tobytes() for a in (handed_over(run), labels, away))
    code = code_fingerprint(*EXPERT_CODE)
    known = json.dumps([hashlib.sha256(b"".join(arrays)).hexdigest(), code, version("scikit-learn")])
    stem = f"{other.cohort.name}-{TASK}-{name.replace(' ', '_')}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
    path = run.folder / "elsewhere" / f"{stem}.csv"
    if not path.exists():
        (expert,) = fit_experts(run, TASK, home, [name])
        _write_predictions(expert.predict_probabilities(away), other, path)
    return _read_predictions(path)
