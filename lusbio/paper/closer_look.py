"""What the paper did not report: how far off and how sure decisions are, what they rest on, and how few labels do.

Rows in, ``Table`` out; numbers x 100, intervals over patients and runs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lusbio.experts.classifiers import Expert
from lusbio.experts.inputs import expert_input
from lusbio.experts.rows import Row, choose_by_validation, decide_end_to_end, decide_with_experts, fit_experts
from lusbio.files import Table
from lusbio.report.cells import format_value, in_words, lay_out, measure_cells, name_row, say_side, show_intervals
from lusbio.report.decisions import list_decisions, make_confusion, take_classes
from lusbio.report.tables import TABLE1_METRICS, runs_of
from lusbio.runs.parallel import side_by_side
from lusbio.runs.plan import FEWER_LABELS, choose_efficiency_task, list_with_fewer_labels
from lusbio.runs.spec import find_runs
from lusbio.runs.study import Study
from lusbio.scoring.explain import describe_tree_path
from lusbio.statistics import bootstrap, metrics
from lusbio.statistics.bootstrap import HeldOut, estimate, percentile_interval
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_TASK, BIOMARKERS, TASKS, Kind, kind_words, title_of

REPEATS = 5
"""Permutations per run and set of columns. (Engineering choice.)"""

UNITS = [("group", group, group, [b.index for b in BIOMARKERS if b.group == group]) for group in BIOMARKER_GROUPS]
UNITS += [("biomarker", b.group, b.name, [b.index]) for b in BIOMARKERS]
"""What is permuted: level, group, name, and its columns among the 38."""


# --- how far off, how sure ---


def list_confusion(rows: Sequence[Row]) -> Table:
    """``make_confusion`` of several rows: ``features, classifier, task, true, decided, videos``, one line per cell."""
    parts = [make_confusion(row).stack().rename("videos").reset_index().assign(**name_row(row)) for row in rows]
    cells = pd.concat(parts, ignore_index=True)[["features", "classifier", "task", "true", "decided", "videos"]]
    return Table(cells, in_words(cells[cells["videos"] > 0]), runs=runs_of(rows))


def make_kappas(rows: Sequence[Row], draws: int) -> Table:
    """Agreement with the labels where classes are ordered, so that a mistake by three grades is not one by one.

    Rows of tasks without an order are left out.

    Returns:
        One line per row: ``features, classifier, task``, and the metrics of ``rater_agreement`` with ``_low`` and
        ``_high``; x 100, on test videos, mean over runs.
    """
    rows = [row for row in rows if row.task in TASKS and TASKS[row.task].ordered]
    found = [name_row(row) | lay_out(estimate(take_classes(row), draws, metrics.rater_agreement)) for row in rows]
    cells = pd.DataFrame(found)
    return Table(cells, show_intervals(cells), runs=runs_of(rows))


def make_calibration(rows: Sequence[Row], draws: int) -> Table:
    """Whether probabilities mean what they say.

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
        gain = bootstrap.paired_difference(constant, row.held_out, draws, metrics.calibration)["brier"]
        found = estimate(row.held_out, draws, metrics.calibration) | {"gain": gain}
        errors = [_calibration_errors(held_out, min(draws, 200)) for held_out in row.held_out]
        ece, by_chance = 100 * np.mean(errors, axis=0)
        lines.append(name_row(row) | lay_out(found) | {"ece": ece, "ece_by_chance": by_chance})
    cells = pd.DataFrame(lines)
    return Table(cells, show_intervals(cells), runs=runs_of(rows))


def _forecast_prevalence(held_out: HeldOut, validated: HeldOut) -> HeldOut:
    """The forecast that knows nothing of a video."""
    prevalence = np.bincount(validated.labels, minlength=held_out.probabilities.shape[1]) / len(validated.labels)
    return held_out._replace(probabilities=np.tile(prevalence, (len(held_out.labels), 1)))


def _calibration_errors(held_out: HeldOut, draws: int) -> tuple[float, float]:
    """The expected calibration error, and its mean if outcomes came exactly as often as the confidences say."""
    confidence, decided = held_out.probabilities.max(axis=1), held_out.probabilities.argmax(axis=1)
    drawn = np.random.default_rng(0).random((draws, len(confidence))) < confidence
    chance = np.mean([metrics.calibration_error(confidence, outcome) for outcome in drawn])
    return metrics.calibration_error(confidence, decided == held_out.labels), float(chance)


def describe_calibration(cells: pd.DataFrame) -> list[str]:
    """Who is too sure, and whether probabilities beat knowing how common classes are: a sentence per row."""
    sentences = []
    for row in cells.itertuples():
        low, high = row.overconfidence_low, row.overconfidence_high
        sure = say_side(low, high, "too sure", "not sure enough", "about as sure as right")
        better = say_side(row.gain_low, row.gain_high, "better", "worse", "not clearly better")
        sure += f" ({format_value(row.overconfidence, low, high, sign='+')})"
        forecast = f"as a forecast {better} than knowing only how common each class is"
        sentences.append(f"{title_of(row.task)}, {kind_words(row.features)}: {sure}; {forecast}.")
    return sentences


def make_reliability(rows: Sequence[Row], draws: int) -> Table:
    """Reliability curves: how often a decision is right, by how sure it was. Test videos of all runs together.

    Returns:
        One line per bin of about as many videos: ``task, route`` (the features), ``classifier, bin_mean`` (mean
        confidence), ``observed`` (share that is right), ``low, high`` (its interval), as fractions; ``count``
        (decisions in the bin, a video counting once per run that tested it).
    """
    lines = []
    for row in rows:
        said, (weights, times) = list_decisions(row), bootstrap.draw_runs(row.held_out, draws, seed=0)
        weights = weights * times.repeat([len(held_out.groups) for held_out in row.held_out], axis=1)
        names = {"task": row.task, "route": row.features, "classifier": row.classifier}
        for _, inside in said.groupby(metrics.bin_equally(said["confidence"])):
            right, drawn = (inside["true"] == inside["decided"]).to_numpy(), weights[:, inside.index]
            low, high = percentile_interval(metrics.divide(drawn @ right, drawn.sum(axis=1)))
            numbers = {"bin_mean": inside["confidence"].mean(), "observed": right.mean(), "low": low, "high": high}
            lines.append(names | numbers | {"count": len(inside)})
    cells = pd.DataFrame(lines)
    observed = [format_value(line.observed, line.low, line.high, decimals=2) for line in cells.itertuples()]
    shown = cells.assign(bin_mean=cells["bin_mean"].map("{:.2f}".format), observed=observed)
    shown = shown.drop(columns=["low", "high"]).rename(columns={"route": "features", "bin_mean": "confidence"})
    return Table(cells, in_words(shown), runs=runs_of(rows))


# --- what decisions rest on ---


def make_importance(rows: Sequence[Row], study: Study) -> Table:
    """The drop in AUC when biomarkers are dealt anew among the test videos.

    Asked are the experts that made the decisions, fitted again. The options of a group exclude each other, so an expert
    that loses one reads it off the others: first whole groups are permuted, all their columns by the same permutation,
    then single biomarkers, which says less.

    Args:
        rows: Of experts on biomarkers, chosen run by run (``choose_by_validation``) or the same in all, one per task.
        study: The cohort they are about.

    Returns:
        For each row one line per group (``level`` is ``"group"``) and per biomarker (``"biomarker"``): ``task, level,
        group, biomarker`` (its name, or the group's), ``mean, sd`` of the drop over runs and repeats, ``auc`` of the
        experts unharmed, mean over runs; percentage points. A drop below 0 is noise.

    Source:
        Breiman 2001, "Random forests"; on patients held out, as in scikit-learn's ``permutation_importance``.
    """
    cells = pd.concat([_permute_all(row, study) for row in rows], ignore_index=True)
    groups = cells[cells["level"] == "group"].drop(columns=["level", "group"])
    return Table(cells, in_words(groups), runs=runs_of(rows))


def _permute_all(row: Row, study: Study) -> pd.DataFrame:
    names = row.classifier.split(" / ") if " / " in row.classifier else [row.classifier] * len(row.runs)
    work = [(name, row, k, study) for k, (name, _) in enumerate(zip(names, row.runs, strict=True))]
    aucs, drops = zip(*side_by_side(_permute_run, work, study.jobs), strict=True)
    found = 100 * np.concatenate(drops, axis=1)  # (units, runs * repeats)
    cells = pd.DataFrame([(row.task, *names) for *names, _ in UNITS], columns=["task", "level", "group", "biomarker"])
    return cells.assign(mean=np.nanmean(found, axis=1), sd=np.nanstd(found, axis=1), auc=100 * np.nanmean(aucs))


def _permute_run(name: str, row: Row, k: int, study: Study) -> tuple[float, np.ndarray]:
    """``permute_columns`` of the expert of run ``k`` on its test videos."""
    (expert,) = fit_experts(row.runs[k], row.task, study, [name])
    tested, columns = row.held_out[k], [unit[3] for unit in UNITS]
    return permute_columns(expert, expert_input(row.runs[k])[tested.rows], tested.labels, columns, REPEATS, [0, k])


def permute_columns(
    expert: Expert, features: np.ndarray, labels: np.ndarray, columns: list[list[int]], repeats: int, seed: int | list
) -> tuple[float, np.ndarray]:
    """How much AUC an expert loses for each set of columns whose values are dealt anew among the videos.

    Args:
        expert: A fitted expert.
        features: What it decides from, shape (V, F).
        labels: Class indices, shape (V,).
        columns: Sets of columns; those of a set are permuted together.
        repeats: R. The same permutations serve every set.
        seed: Of the permutations.

    Returns:
        The AUC unharmed, and the drops, shape (number of sets, R), as fractions.
    """
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(len(features)) for _ in range(repeats)])  # (R, V)
    auc = metrics.task_metrics(labels, expert.predict_probabilities(features))["auc"]
    drops = np.empty((len(columns), repeats))
    for number, chosen in enumerate(columns):
        harmed = np.tile(features, (repeats, 1, 1))  # (R, V, F)
        harmed[:, :, chosen] = features[:, chosen][orders]
        decided = expert.predict_probabilities(harmed.reshape(-1, features.shape[1]))
        by_repeat = decided.reshape(repeats, len(features), -1)
        drops[number] = [auc - metrics.task_metrics(labels, probabilities)["auc"] for probabilities in by_repeat]
    return auc, drops


def describe_importance(cells: pd.DataFrame) -> list[str]:
    """A sentence per task that names the groups a decision rests on, or says that none stands out from the noise."""
    sentences = []
    for task, groups in cells[cells["level"] == "group"].groupby("task", sort=False):
        clear = groups[groups["mean"] > groups["sd"]].nlargest(3, "mean")
        named = ", ".join(f"{row.group} ({row.mean:.1f})" for row in clear.itertuples())
        what = f"rests most on {named}; in brackets the points of AUC lost without it."
        none = "depends on no single group that stands out from the noise."
        sentences.append(f"{title_of(task)} (AUC {groups['auc'].iloc[0]:.1f}) {what if named else none}")
    return sentences


def explain_one_video(row: Row, study: Study) -> str:
    """Why a tree decides as it does: its questions about the first test video of the first run, as Markdown."""
    run, first = row.runs[0], row.held_out[0]
    (tree,) = fit_experts(run, row.task, study, ["DT"])
    biomarkers = expert_input(run)[first.rows[0]]
    decided = row.classes[tree.predict_probabilities(biomarkers[None]).argmax()]
    because = "\n".join(f"- {line}" for line in describe_tree_path(tree, biomarkers))
    labelled = row.classes[first.labels[0]]
    return f"{title_of(row.task)}: decided **{decided}**, labelled {labelled}, because of\n\n{because}"


# --- how few labels do ---


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
        given = [run for run in study.runs(BIOMARKER_TASK, seed=0) if run.spec.fold in folds]
        experts = decide_with_experts(given, task, study, label_fraction=share)
        found[share] = [decide_end_to_end(networks, study), choose_by_validation(experts)]
    return found


def make_label_efficiency(rows: Mapping[float, list[Row]], study: Study) -> Table:
    """How well both routes of ``decide_with_fewer_labels`` decide when only some training patients have the label.

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

    Returns:
        One row per share below 1: ``fraction``, ``end_to_end`` and ``biomarkers`` (AUC lost against all labels),
        ``difference`` (how much less the experts lose), ``ci_low, ci_high`` (all four on the same draws)
        and ``finding``, a sentence. Points of AUC.
    """
    aucs = {share: [_value_and_draws(row, draws) for row in of_share] for share, of_share in rows.items()}
    lines = []
    for share in sorted(aucs)[:-1]:
        network, experts = (whole - fewer for whole, fewer in zip(aucs[1.0], aucs[share], strict=True))
        difference, *drawn = network - experts
        low, high = percentile_interval(np.array(drawn))
        verdict = say_side(low, high, "less", "more", "neither clearly less nor clearly more")
        finding = (
            f"With {100 * share:g} % of the labels, experts on biomarkers lose {experts[0]:.1f} points of AUC and "
            f"end-to-end networks {network[0]:.1f}: {verdict} "
            f"(difference {format_value(difference, low, high, sign='+')})."
        )
        lost = {"fraction": share, Kind.END_TO_END: network[0], Kind.BIOMARKERS: experts[0]}
        lines.append(lost | {"difference": difference, "ci_low": low, "ci_high": high, "finding": finding})
    columns = ["fraction", Kind.END_TO_END, Kind.BIOMARKERS, "difference", "ci_low", "ci_high", "finding"]
    return pd.DataFrame(lines, columns=columns)


def _value_and_draws(row: Row, draws: int) -> np.ndarray:
    """The AUC on the videos as they are, then in each draw: shape (1 + D,), points."""
    value = estimate(row.held_out, draws)["auc"].value
    return 100 * np.append(value, bootstrap.draw_means(row.held_out, draws)["auc"])
