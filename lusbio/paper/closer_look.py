"""What the paper did not report: where decisions err, at which threshold to use them, and how sure they may be.

Data frames from ``Decisions``; numbers x 100, intervals over patients. Everything that is chosen (a
threshold, an expert) is chosen on validation videos.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.errors import LusbioError
from lusbio.experts.rows import (
    NETWORK,
    Decisions,
    FoldResult,
    choose_by_validation,
    decide_end_to_end,
    decide_with_experts,
)
from lusbio.report.tables import FEATURE_TITLES
from lusbio.runs.spec import PreparedCohort, Run, find_runs
from lusbio.statistics.bootstrap import (
    Estimate,
    Tested,
    agreement,
    draw_group_counts,
    estimate,
    find_strata,
    paired_difference,
    percentile_interval,
)
from lusbio.statistics.metrics import bin_equally, calibration_error, choose_threshold
from lusbio.statistics.weighted_metrics import weighted_calibration, weighted_detection
from lusbio.vocabulary import title_of

POSITIVE_CLASSES: dict[str, tuple[int, ...]] = {"lung_severity": (2, 3), "sf_ratio": (2, 3), "disease": (1,)}
"""The yes-or-no question within each task, by the classes that mean yes: severity 2 or 3; S/F of 275 or
less, the paper's two worst ranges; COVID pneumonia. (Engineering choice.)"""

ORDERED_TASKS = ("lung_severity", "sf_ratio")
"""Tasks whose classes go from mild to severe."""

NAMES = ["features", "classifier", "task"]


def route_title(decisions: Decisions) -> str:
    """A row's name in a sentence: ``"end-to-end network"``, ``"RF on biomarkers"``, ``"experts on biomarkers"``."""
    features = FEATURE_TITLES.get(decisions.features, decisions.features.replace("_", " "))
    if decisions.classifier == NETWORK:
        return f"{features} network"
    if " / " in decisions.classifier:
        return f"experts on {features}"
    return f"{decisions.classifier} on {features}"


def decide_both_ways(
    task: str, prepared: PreparedCohort, initial_weights: str, jobs: int = 1
) -> tuple[list[Run], list[Decisions]]:
    """The end-to-end network and the biomarker experts, of each run the expert that did best on validation videos.

    Args:
        task: A task that the cohort has labels for.
        prepared: The cohort.
        initial_weights: Of the runs, see ``RunSpec``.
        jobs: Fits at a time.

    Returns:
        The finished runs, and the two rows in this order.

    Raises:
        LusbioError: If runs are not trained yet.
    """
    runs = find_runs(prepared.specs(BIOMARKER_TASK, initial_weights))
    networks = find_runs(prepared.specs(task, initial_weights))
    experts = choose_by_validation(decide_with_experts(runs, task, prepared, jobs))
    return [*runs, *networks], [decide_end_to_end(networks, prepared), experts]


def format_interval(value: float, low: float, high: float) -> str:
    """A value with its interval, one decimal, e.g. ``"71.0 [50.7, 82.0]"``; an em dash where it is undefined."""
    if np.isnan(value):
        return "—"
    value, low, high = (round(number, 1) + 0.0 for number in (value, low, high))  # + 0 turns -0.0 into 0.0
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def show_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """A table as people read it: a column with ``_low`` and ``_high`` beside it becomes ``value [low, high]``.

    Args:
        table: From one of the functions of this module, or of ``agreement``.

    Returns:
        The same rows, words instead of names.
    """
    shown = table.copy()
    for name in [name for name in table if f"{name}_low" in table]:
        bounds = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
        shown[name] = [format_interval(*numbers) for numbers in bounds]
        shown = shown.drop(columns=[f"{name}_low", f"{name}_high"])
    shown[shown.select_dtypes("number").columns] = shown.select_dtypes("number").round(1)
    if "task" in shown:
        shown["task"] = shown["task"].map(title_of)
    return shown.replace({"features": FEATURE_TITLES}).rename(columns=lambda name: name.replace("_", " "))


# --- operating points ---


def find_positive_classes(task: str, n_classes: int) -> tuple[int, ...]:
    """The classes that mean yes in a task's yes-or-no question.

    Args:
        task: A key of ``POSITIVE_CLASSES``, or any task of two classes, whose second means yes.
        n_classes: Classes of the task.

    Returns:
        Class indices.

    Raises:
        LusbioError: If the task has more classes and nobody said which mean yes.
    """
    if task in POSITIVE_CLASSES:
        return POSITIVE_CLASSES[task]
    if n_classes == 2:
        return (1,)
    raise LusbioError(f"task {task!r} has {n_classes} classes and no entry in POSITIVE_CLASSES: which mean yes?")


def make_operating_points(decisions: Sequence[Decisions], draws: int, seed: int = 0) -> pd.DataFrame:
    """Sensitivity and specificity on test videos, at the threshold that was best on validation videos.

    A video is called positive where the probabilities of the positive classes together reach the
    threshold of its run. The threshold maximises sensitivity + specificity on the run's validation videos.

    Args:
        decisions: The rows.
        draws: Draws of patients behind an interval.
        seed: Of the draws.

    Returns:
        One row per decision: ``features, classifier, task, question, sensitivity, sensitivity_low,
        sensitivity_high, specificity, specificity_low, specificity_high, threshold, threshold_sd``; all but the
        names in percent, mean over runs.
    """
    rows = []
    for row in decisions:
        yes = find_positive_classes(row.task, len(row.classes))
        thresholds = [choose_threshold(*_as_question(validated, yes)) for validated in row.validated]
        runs: list[Tested] = []
        for fold, threshold in zip(row.folds, thresholds, strict=True):
            positive, scores = _as_question(fold, yes)
            runs.append((positive, scores >= threshold, fold.groups))
        found = estimate(runs, draws, seed, weighted_detection)
        numbers = _with_bounds(found)
        rows.append(
            {
                "features": row.features,
                "classifier": row.classifier,
                "task": row.task,
                "question": f"{title_of(row.task)}: {' or '.join(row.classes[k] for k in yes)}",
                **numbers,
                "threshold": 100 * np.mean(thresholds),
                "threshold_sd": 100 * np.std(thresholds),
            }
        )
    return pd.DataFrame(rows)


def _as_question(fold: FoldResult, yes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Whether the answer is yes, bool (V,), and its probability, float64 (V,)."""
    return np.isin(fold.labels, yes), fold.probabilities[:, list(yes)].sum(axis=1)


# --- calibration ---


def make_calibration(decisions: Sequence[Decisions], draws: int, seed: int = 0) -> pd.DataFrame:
    """Whether probabilities mean what they say.

    Args:
        decisions: The rows.
        draws: Draws of patients behind an interval, and of outcomes behind ``ece_by_chance``.
        seed: Of the draws.

    Returns:
        One row per decision, x 100, mean over runs: ``features, classifier, task``; with ``_low`` and ``_high``:
        ``brier`` (0 to 200, lower is better), ``overconfidence`` (mean confidence minus the share that is
        right), and ``gain``, by how much ``brier`` is lower than that of always saying how common each class
        was among the run's validation videos; ``ece``, the expected calibration
        error, and ``ece_by_chance``, what it would be with these confidences if each were exactly right (and
        videos of a patient were independent, so it is a low guess).
    """
    rows = []
    for row in decisions:
        runs = [(fold.labels, fold.probabilities, fold.groups) for fold in row.folds]
        constant = [_forecast_prevalence(*pair) for pair in zip(row.folds, row.validated, strict=True)]
        gain = paired_difference(constant, runs, draws, seed, weighted_calibration)["brier"]
        found = estimate(runs, draws, seed, weighted_calibration)
        found["gain"] = Estimate(gain.value, gain.low, gain.high)
        errors = [_calibration_errors(fold, min(draws, 200), seed) for fold in row.folds]
        rows.append(
            {
                "features": row.features,
                "classifier": row.classifier,
                "task": row.task,
                **_with_bounds(found),
                **dict(zip(("ece", "ece_by_chance"), 100 * np.mean(errors, axis=0), strict=True)),
            }
        )
    return pd.DataFrame(rows)


def describe_calibration(table: pd.DataFrame) -> list[str]:
    """Who is too sure, and whether probabilities beat knowing how common classes are.

    Args:
        table: From ``make_calibration``.

    Returns:
        A sentence per row.
    """
    sentences = []
    for row in table.itertuples():
        low, high = row.overconfidence_low, row.overconfidence_high
        how = f"{row.overconfidence:+.1f} [{low:+.1f}, {high:+.1f}]"
        sure = "too sure" if low > 0 else "not sure enough" if high < 0 else "about as sure as right"
        better = "better" if row.gain_low > 0 else "worse" if row.gain_high < 0 else "not clearly better"
        sentences.append(
            f"{title_of(row.task)}, {FEATURE_TITLES.get(row.features, row.features)}: {sure} ({how}); as a forecast "
            f"{better} than knowing only how common each class is."
        )
    return sentences


def _forecast_prevalence(fold: FoldResult, validated: FoldResult) -> Tested:
    """The forecast that knows nothing of a video."""
    prevalence = np.bincount(validated.labels, minlength=fold.probabilities.shape[1]) / len(validated.labels)
    return fold.labels, np.tile(prevalence, (len(fold.labels), 1)), fold.groups


def _calibration_errors(fold: FoldResult, draws: int, seed: int) -> tuple[float, float]:
    """The expected calibration error, and its mean if outcomes came exactly as often as the confidences say."""
    confidence, right = _confidence(fold)
    drawn = np.random.default_rng(seed).random((draws, len(right))) < confidence
    chance = np.mean([calibration_error(confidence, outcome) for outcome in drawn])
    return calibration_error(confidence, right), float(chance)


def _confidence(fold: FoldResult) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the decided class, and whether it was the true one."""
    return fold.probabilities.max(axis=1), fold.probabilities.argmax(axis=1) == fold.labels


def make_reliability(decisions: Sequence[Decisions], draws: int, seed: int = 0) -> pd.DataFrame:
    """Reliability curves: how often a decision is right, by how sure it was. Test videos of all runs together.

    Args:
        decisions: The rows.
        draws: Draws of patients behind an interval.
        seed: Of the draws.

    Returns:
        One row per bin of about as many videos: ``task, route`` (the features), ``classifier, bin_mean`` (mean
        confidence), ``observed`` (share that is right), ``low, high`` (its interval), as fractions; ``count``
        (decisions in the bin, a video counting once per run that tested it).
    """
    rows = []
    for row in decisions:
        confidence, right = np.concatenate([_confidence(fold) for fold in row.folds], axis=1)
        groups = np.concatenate([fold.groups for fold in row.folds])
        weights = draw_group_counts(groups, draws, seed, find_strata([fold.groups for fold in row.folds]))
        bins = bin_equally(confidence)
        for number in range(bins.max() + 1):
            inside = bins == number
            kept = weights[:, inside]
            kept = kept[kept.sum(axis=1) > 0]
            low, high = percentile_interval((kept @ right[inside]) / kept.sum(axis=1))
            rows.append(
                {
                    "task": row.task,
                    "route": row.features,
                    "classifier": row.classifier,
                    "bin_mean": confidence[inside].mean(),
                    "observed": right[inside].mean(),
                    "low": low,
                    "high": high,
                    "count": int(inside.sum()),
                }
            )
    return pd.DataFrame(rows)


# --- mistakes ---


def make_kappas(decisions: Sequence[Decisions], draws: int, seed: int = 0) -> pd.DataFrame:
    """Agreement with the labels where classes are ordered, so that a mistake by three grades is not one by one.

    Args:
        decisions: Rows of a task whose classes are ordered: lung severity, or S/F.
        draws: Draws of patients behind an interval.
        seed: Of the draws.

    Returns:
        One row per decision: ``features, classifier, task``, and ``agreement, within_one, kappa,
        quadratic_kappa`` with ``_low`` and ``_high``; x 100, on test videos, mean over runs.
    """
    rows = []
    for row in decisions:
        runs = [(fold.labels, fold.probabilities.argmax(axis=1), fold.groups) for fold in row.folds]
        names = dict(zip(NAMES, (row.features, row.classifier, row.task), strict=True))
        rows.append(names | _with_bounds(agreement(runs, draws, seed)))
    return pd.DataFrame(rows)


def make_confusion(decisions: Decisions) -> pd.DataFrame:
    """How many videos of each class were decided to be what.

    Every test video counts once: where several runs tested it, each of them counts in part. So rows sum to the
    videos of a class, and cells need not be whole.

    Args:
        decisions: One row of Table 1.

    Returns:
        Videos, float64; index ``true``, columns ``decided``, both with the names of all classes.
    """
    classes = list(decisions.classes)
    videos = pd.Series(np.concatenate([fold.rows for fold in decisions.folds]))
    share = 1 / videos.map(videos.value_counts()).to_numpy()
    true = np.concatenate([fold.labels for fold in decisions.folds])
    decided = np.concatenate([fold.probabilities.argmax(axis=1) for fold in decisions.folds])
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (true, decided), share)
    return pd.DataFrame(counts, pd.Index(classes, name="true"), pd.Index(classes, name="decided"))


def list_confusion(decisions: Sequence[Decisions]) -> pd.DataFrame:
    """``make_confusion`` of several rows, one line per cell.

    Args:
        decisions: Rows of Table 1.

    Returns:
        Columns ``features, classifier, task, true, decided, videos``.
    """
    parts = []
    for row in decisions:
        cells = make_confusion(row).stack().rename("videos").reset_index()
        names = (row.features, row.classifier, row.task)
        parts.append(cells.assign(**dict(zip(NAMES, names, strict=True)))[[*NAMES, "true", "decided", "videos"]])
    return pd.concat(parts, ignore_index=True)


def _with_bounds(found: Mapping[str, Estimate]) -> dict[str, float]:
    """Estimates as columns, x 100: the value under its name, its interval as ``_low`` and ``_high``."""
    return {
        f"{name}{end}": 100 * number
        for name, interval in found.items()
        for end, number in zip(("", "_low", "_high"), interval, strict=True)
    }
