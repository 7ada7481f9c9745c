"""What the paper did not report: how far off decisions on ordered classes are, and how sure they may be.

Rows in, ``Table`` out; numbers x 100, intervals over patients.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.experts.inputs import expert_input
from lusbio.experts.rows import Row, fit_experts
from lusbio.files import Table
from lusbio.report.cells import format_value, in_words, lay_out, name_row, show_intervals
from lusbio.report.decisions import list_decisions, make_confusion, take_classes
from lusbio.report.tables import runs_of
from lusbio.runs.study import Study
from lusbio.scoring.explain import describe_tree_path
from lusbio.statistics.bootstrap import (
    Estimate,
    HeldOut,
    draw_group_counts,
    estimate,
    find_strata,
    paired_difference,
    percentile_interval,
)
from lusbio.statistics.metrics import bin_equally, calibration, calibration_error, divide, rater_agreement
from lusbio.vocabulary import TASKS, kind_words, title_of


def list_confusion(rows: Sequence[Row]) -> Table:
    """``make_confusion`` of several rows: ``features, classifier, task, true, decided, videos``, one line per cell."""
    parts = [make_confusion(row).stack().rename("videos").reset_index().assign(**name_row(row)) for row in rows]
    cells = pd.concat(parts, ignore_index=True)
    cells = cells[["features", "classifier", "task", "true", "decided", "videos"]]
    return Table(cells, in_words(cells[cells["videos"] > 0]), runs=runs_of(rows))


def make_kappas(rows: Sequence[Row], draws: int) -> Table:
    """Agreement with the labels where classes are ordered, so that a mistake by three grades is not one by one.

    Args:
        rows: Ways to decide; those of tasks without an order are left out.
        draws: Draws of patients behind an interval.

    Returns:
        One line per row: ``features, classifier, task``, and the metrics of ``rater_agreement`` with ``_low`` and
        ``_high``; x 100, on test videos, mean over runs.
    """
    rows = [row for row in rows if row.task in TASKS and TASKS[row.task].ordered]
    found = [name_row(row) | lay_out(estimate(take_classes(row), draws, rater_agreement)) for row in rows]
    return Table(pd.DataFrame(found), show_intervals(pd.DataFrame(found)), runs=runs_of(rows))


def make_calibration(rows: Sequence[Row], draws: int, seed: int = 0) -> Table:
    """Whether probabilities mean what they say.

    Args:
        rows: Ways to decide.
        draws: Draws of patients behind an interval, and of outcomes behind ``ece_by_chance``.
        seed: Of the draws.

    Returns:
        One line per row, x 100, mean over runs: ``features, classifier, task``; with ``_low`` and ``_high``: ``brier``
        (0 to 200, lower is better), ``overconfidence`` (mean confidence minus the share that is right), and ``gain``,
        by how much ``brier`` is lower than that of always saying how common each class was among the run's validation
        videos; ``ece``, the expected calibration error, and ``ece_by_chance``, what it would be with these confidences
        if each were exactly right (and videos of a patient were independent, so it is a low guess).
    """
    lines = []
    for row in rows:
        constant = [_forecast_prevalence(*pair) for pair in zip(row.held_out, row.validated, strict=True)]
        *gain, _ = paired_difference(constant, row.held_out, draws, calibration, seed)["brier"]
        found = estimate(row.held_out, draws, calibration, seed) | {"gain": Estimate(*gain)}
        errors = [_calibration_errors(held_out, min(draws, 200), seed) for held_out in row.held_out]
        ece, by_chance = 100 * np.mean(errors, axis=0)
        lines.append(name_row(row) | lay_out(found) | {"ece": ece, "ece_by_chance": by_chance})
    cells = pd.DataFrame(lines)
    return Table(cells, show_intervals(cells), runs=runs_of(rows))


def _forecast_prevalence(held_out: HeldOut, validated: HeldOut) -> HeldOut:
    """The forecast that knows nothing of a video."""
    prevalence = np.bincount(validated.labels, minlength=held_out.probabilities.shape[1]) / len(validated.labels)
    return held_out._replace(probabilities=np.tile(prevalence, (len(held_out.labels), 1)))


def _calibration_errors(held_out: HeldOut, draws: int, seed: int) -> tuple[float, float]:
    """The expected calibration error, and its mean if outcomes came exactly as often as the confidences say."""
    confidence, decided = held_out.probabilities.max(axis=1), held_out.probabilities.argmax(axis=1)
    drawn = np.random.default_rng(seed).random((draws, len(confidence))) < confidence
    chance = np.mean([calibration_error(confidence, outcome) for outcome in drawn])
    return calibration_error(confidence, decided == held_out.labels), float(chance)


def describe_calibration(cells: pd.DataFrame) -> list[str]:
    """Who is too sure, and whether probabilities beat knowing how common classes are: a sentence per row."""
    sentences = []
    for row in cells.itertuples():
        low, high = row.overconfidence_low, row.overconfidence_high
        sure = "too sure" if low > 0 else "not sure enough" if high < 0 else "about as sure as right"
        better = "better" if row.gain_low > 0 else "worse" if row.gain_high < 0 else "not clearly better"
        sentences.append(
            f"{title_of(row.task)}, {kind_words(row.features)}: {sure} "
            f"({format_value(row.overconfidence, low, high, sign='+')}); as a forecast {better} than knowing only how "
            "common each class is."
        )
    return sentences


def make_reliability(rows: Sequence[Row], draws: int, seed: int = 0) -> Table:
    """Reliability curves: how often a decision is right, by how sure it was. Test videos of all runs together.

    Args:
        rows: Ways to decide.
        draws: Draws of patients behind an interval.
        seed: Of the draws.

    Returns:
        One line per bin of about as many videos: ``task, route`` (the features), ``classifier, bin_mean`` (mean
        confidence), ``observed`` (share that is right), ``low, high`` (its interval), as fractions; ``count``
        (decisions in the bin, a video counting once per run that tested it).
    """
    lines = []
    for row in rows:
        said, strata = list_decisions(row), find_strata([held_out.groups for held_out in row.held_out])
        weights = draw_group_counts(said["group"], draws, seed, strata)
        names = {"task": row.task, "route": row.features, "classifier": row.classifier}
        for _, inside in said.groupby(bin_equally(said["confidence"])):
            right, drawn = (inside["true"] == inside["decided"]).to_numpy(), weights[:, inside.index]
            low, high = percentile_interval(divide(drawn @ right, drawn.sum(axis=1)))
            numbers = {"bin_mean": inside["confidence"].mean(), "observed": right.mean(), "low": low, "high": high}
            lines.append(names | numbers | {"count": len(inside)})
    cells = pd.DataFrame(lines)
    observed = [format_value(line.observed, line.low, line.high, decimals=2) for line in cells.itertuples()]
    shown = cells.assign(bin_mean=cells["bin_mean"].map("{:.2f}".format), observed=observed)
    shown = shown.drop(columns=["low", "high"]).rename(columns={"route": "features", "bin_mean": "confidence"})
    return Table(cells, in_words(shown), runs=runs_of(rows))


def explain_one_video(row: Row, study: Study) -> str:
    """Why a tree decides as it does: its questions about the first test video of the first run, as Markdown."""
    run, first = row.runs[0], row.held_out[0]
    (tree,) = fit_experts(run, row.task, study, ["DT"])
    biomarkers = expert_input(run)[first.rows[0]]
    decided = row.classes[tree.predict_probabilities(biomarkers[None]).argmax()]
    because = "\n".join(f"- {line}" for line in describe_tree_path(tree, biomarkers))
    labelled = row.classes[first.labels[0]]
    return f"{title_of(row.task)}: decided **{decided}**, labelled {labelled}, because of\n\n{because}"
