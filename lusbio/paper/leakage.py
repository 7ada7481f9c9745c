"""How splits lie: one throw-away model on POCOVID, split five ways, from frames to whole sources.

Nothing changes from rung to rung but which pictures are held out together. A wrong split is written down as what it
claims: a cohort whose table says that every video is a person of its own. No check of the package is weakened for it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.model_selection import BaseCrossValidator, GroupKFold, LeaveOneGroupOut, cross_val_predict
from threadpoolctl import threadpool_limits

from lusbio.cohorts import pocovid
from lusbio.cohorts.load import load_cohort
from lusbio.cohorts.targets import classes_of
from lusbio.errors import LusbioError, NothingToDo
from lusbio.experts.baselines import make_throwaway_model, pool_pixels
from lusbio.files import read_words
from lusbio.profiles import find_profile
from lusbio.report.cells import METRIC_TITLES, measure_cells, say_cell, say_side, subtract_cells, widen
from lusbio.runs.origin import describe_making
from lusbio.runs.spec import Run, check_same_videos, prepare_cohort
from lusbio.runs.study import Study, as_study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import defined_mean, divide, measure, restrict_probabilities, task_metrics
from lusbio.statistics.within_sources import measure_severity
from lusbio.vocabulary import DISEASE, SEVERITY, TASKS, Kind, kind_words

PROBE = "convex"
"""Only videos of one probe: the other would be one more thing to recognise a diagnosis by."""

RUNGS = read_words("rungs.toml")
"""What is held out together, in words: ``frame, video, patient, group, source``, each stricter than the one before."""

RUNGS_OF = {Kind.PIXELS: tuple(RUNGS), Kind.FILES: tuple(RUNGS)[1:], Kind.SOURCE_NAME: tuple(RUNGS)[1:-1]}
"""What the throw-away model decides from, and where that is tried: all frames of a video have one file, and the name of
a new source tells nothing."""

N_FOLDS, REPEATS = 5, 10
"""Folds of every rung but the last, and how often they are dealt anew: one deal may be lucky."""

Decided = dict[tuple[str, str], list[HeldOut]]
"""By (features, rung): all videos, each decided while it was held out; one entry per deal of the folds. Groups are the
conservative ones on every rung: intervals are over them."""


# --- what the ladder is climbed with ---


class LadderVideos(NamedTuple):
    """Videos with a known answer, made small, and what ties them together.

    Attributes:
        task: ``DISEASE`` or ``SEVERITY``.
        rows: Rows of the cohort's table, int64 (V,).
        labels: Class indices, int64 (V,).
        classes: Names of the K classes that occur.
        pixels: float64 (V, F, 196), in [0, 1]: F frames of each video, pooled to 14 x 14.
        files: One row per video: ``width, height, fps, frames, container``.
        units: One row per video: ``video, patient, group, source``, text, from the finest to the coarsest.
    """

    task: str
    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    pixels: np.ndarray
    files: pd.DataFrame
    units: pd.DataFrame

    def hold_out(self, probabilities: np.ndarray) -> HeldOut:
        """What was decided of all videos, float64 (V, K), with what is true."""
        return HeldOut(self.labels, probabilities, self.units["group"].to_numpy())


def open_videos(profile: str, jobs: int = 1) -> Study:
    """The convex videos of POCOVID, decoded and dealt into folds by conservative group.

    Raises:
        NothingToDo: If there are none to speak of; says how to get them.
    """
    settings = find_profile(profile)
    try:
        cohort = load_cohort(pocovid.NAME, settings, jobs)
        table = cohort.table[(cohort.table["probe"] == PROBE) & cohort.table[DISEASE].notna()]
        prepared = prepare_cohort(replace(cohort, table=table), settings, jobs, protocol="cross")
    except LusbioError as error:
        raise NothingToDo(f"No ladder: it needs POCOVID. {error}") from error
    if table[DISEASE].nunique() < 2:
        raise NothingToDo(f"No ladder: the {len(table)} {PROBE} videos of POCOVID have one diagnosis here.")
    return as_study(prepared, jobs)


def pretend_videos_are_patients(study: Study) -> Study:
    """The same videos, dealt into folds one by one: what a split by video claims, written into the table.

    Returns:
        A cohort of another name, so that nobody takes its runs for honest ones; its rows are in the same order.
    """
    claimed = study.table.assign(patient_id=study.table["video_id"], group_id=study.table["video_id"])
    cohort = replace(study.cohort, name=f"{study.cohort.name}_split_by_video", table=claimed)
    return as_study(prepare_cohort(cohort, study.profile, study.jobs, study.protocol), study.jobs)


def take_diagnosis(study: Study) -> LadderVideos:
    """What the ladder is about: healthy, COVID, or another disease of the lung."""
    return _take(DISEASE, study.table[DISEASE], classes_of(study.table, DISEASE), study)


def take_severity(study: Study) -> LadderVideos:
    """The same for severity, none (0) against some (1-3), where it is known; the notebook ends where both are not."""
    none, *more = TASKS[SEVERITY].classes
    some, severity = f"{more[0]}-{more[-1]}", study.table[SEVERITY]
    answers = severity.where((severity == none) | severity.isna(), some)
    if answers.nunique() < 2:
        reason = f"No ladder of severity: no two of these videos differ in it ({none} or {some})."
        study.end_here(reason, "leakage_severity")
    return _take(SEVERITY, answers, (none, some), study)


def _take(task: str, answers: pd.Series, classes: Sequence[str], study: Study) -> LadderVideos:
    """The rows with an answer."""
    rows = np.flatnonzero(answers.notna())
    known = pd.Categorical(answers.iloc[rows], categories=list(classes)).remove_unused_categories()
    table = study.table.iloc[rows]
    paths = [study.cohort.folder / path for path in table["path"]]
    pixels, small = pool_pixels(paths, study.jobs)
    files = pd.DataFrame([video.info for video in small])[["width", "height", "fps", "frames"]].astype(np.float64)
    files["container"] = [path.suffix.lower() for path in paths]
    units = table[["video_id", "patient_id", "group_id"]].set_axis(["video", "patient", "group"], axis=1)
    units = units.assign(source=pocovid.find_sources(units["group"].to_numpy())).reset_index(drop=True)
    labels, classes = known.codes.astype(np.int64), tuple(known.categories)
    return LadderVideos(task, rows, labels, classes, pixels.reshape(*pixels.shape[:2], -1), files, units)


# --- rung by rung ---


def deal_folds(rung: str, repeats: int = REPEATS) -> list[BaseCrossValidator]:
    """How a rung holds out: scikit-learn's splitters, one per deal; they take ``find_units`` as ``groups``.

    One source at a time can be left out in one way only.
    """
    if rung == "source":
        return [LeaveOneGroupOut()]
    return [GroupKFold(N_FOLDS, shuffle=True, random_state=deal) for deal in range(repeats)]


def find_units(videos: LadderVideos, rung: str, frames: int) -> np.ndarray:
    """What is not torn apart on a rung: the unit of every frame, (V * frames,), video after video."""
    if rung == "frame":
        return np.arange(len(videos.labels) * frames)
    return np.repeat(videos.units[rung].to_numpy(), frames)


def cross_validate(videos: LadderVideos, features: str, rung: str, repeats: int = REPEATS) -> list[np.ndarray]:
    """Decide every frame of every video by a model that has not seen its unit.

    Args:
        videos: What is decided on.
        features: A key of ``RUNGS_OF``.
        rung: A key of ``RUNGS``, or another column of ``videos.units``.
        repeats: Deals of the folds.

    Returns:
        One array per deal, float64 (V, F, K); F is 1 unless it decides from pixels.

    Raises:
        LusbioError: If there are too few units, or nothing to learn from those that are left.
    """
    pixels = videos.pixels.reshape(-1, videos.pixels.shape[-1])  # (V * F, 196)
    inputs = {Kind.PIXELS: pixels, Kind.FILES: videos.files, Kind.SOURCE_NAME: videos.units[["source"]]}[features]
    frames = len(inputs) // len(videos.labels)
    labels, units = np.repeat(videos.labels, frames), find_units(videos, rung, frames)
    model, decided = make_throwaway_model(features), []
    for folds in deal_folds(rung, repeats):
        check_learnable(labels, units, folds, rung)
        with warnings.catch_warnings(), threadpool_limits(1):
            # A class that lives in one unit is unknown to the model that decides on it: probability 0.
            warnings.filterwarnings("ignore", message="Number of classes in .*fold")
            found = cross_val_predict(model, inputs, labels, groups=units, cv=folds, method="predict_proba")
        decided.append(found.reshape(len(videos.labels), frames, -1))
    return decided


def check_learnable(labels: np.ndarray, units: np.ndarray, folds: BaseCrossValidator, rung: str) -> None:
    """Raise a ``LusbioError`` if there are fewer units than folds, or a training part has one class."""
    count, least, split = len(np.unique(units)), 2 if rung == "source" else N_FOLDS, f"split by {RUNGS.get(rung, rung)}"
    if count < least:
        raise LusbioError(f"{split}: there are {count}, at least {least} are needed")
    if any(len(np.unique(labels[train])) < 2 for train, _ in folds.split(labels, groups=units)):
        raise LusbioError(f"{split}: without one part a single class is left to learn")


def evaluate_splits(
    videos: LadderVideos, features: str, rungs: Sequence[str] = (), repeats: int = REPEATS
) -> tuple[Decided, list[str]]:
    """One throw-away model on several rungs, none for all of ``RUNGS_OF``; a video is the mean of its frames.

    Returns:
        Decisions; and a line for each rung that these videos are too few for.
    """
    decided, reasons = {}, []
    for rung in rungs or RUNGS_OF[features]:
        try:
            found = cross_validate(videos, features, rung, repeats)
            decided[features, rung] = [videos.hold_out(of_frames.mean(axis=1)) for of_frames in found]
        except LusbioError as error:
            reasons.append(f"{features.replace('_', ' ')}, {error}")
    return decided, reasons


def decide_by_frequency(videos: LadderVideos) -> Decided:
    """Everybody gets the class frequencies: what a number is worth that nothing was learnt for."""
    shares = np.bincount(videos.labels) / len(videos.labels)
    return {(Kind.MAJORITY, "—"): [videos.hold_out(np.tile(shares, (len(videos.labels), 1)))]}


def decide_by_known_source(videos: LadderVideos) -> Decided:
    """Class frequencies of a video's source, read off the very videos that are judged: a baseline, not a rival."""
    of_class = pd.DataFrame(np.eye(len(videos.classes))[videos.labels])
    shares = of_class.groupby(videos.units["source"]).transform("mean").to_numpy()
    return {(Kind.SOURCE_ONLY, "—"): [videos.hold_out(shares)]}


def decide_by_network(runs: Sequence[Run], study: Study, rung: str, videos: LadderVideos) -> Decided:
    """What end-to-end networks say of the videos that they held out, among the classes that occur.

    Args:
        runs: All run folds, for the task of the videos.
        study: The cohort they were trained on.
        rung: What that cohort's folds hold out together.
        videos: The same videos, with their conservative groups.

    Raises:
        LusbioError: If the videos differ, or one was held out by none of the runs, or by several.
    """
    for run in runs:
        check_same_videos(run, study)
    if study.table["video_id"].iloc[videos.rows].tolist() != videos.units["video"].tolist():
        raise LusbioError(f"cohort {study.cohort.name!r} and the ladder are about other videos")
    held_out = np.array([run.splits == "test" for run in runs])[:, videos.rows]  # (runs, V)
    if (held_out.sum(axis=0) != 1).any():
        raise LusbioError(f"these {len(runs)} runs do not hold out every video once")
    decided = np.array([run.probabilities for run in runs])[held_out.argmax(axis=0), videos.rows]  # (V, K)
    occurs = np.isin(classes_of(study.table, videos.task), videos.classes)
    return {(Kind.END_TO_END, rung): [videos.hold_out(restrict_probabilities(decided, occurs))]}


# --- numbers: how much each rung loses, why, and what an interval over the wrong unit hides ---


@measure
def measure_diagnosis(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``accuracy``, ``balanced_accuracy`` and the ``auc`` of ``task_metrics``.

    Balanced accuracy is the mean, over the classes that have weight, of the share that is right.
    """
    found = task_metrics(labels, probabilities, weights)
    of_class = labels[:, None] == np.arange(probabilities.shape[1])
    right = of_class & (probabilities.argmax(axis=1) == labels)[:, None]
    recall = divide(weights @ right, weights @ of_class)  # (D, K)
    return {"accuracy": found["accuracy"], "balanced_accuracy": defined_mean(recall.T), "auc": found["auc"]}


def measure_ladder(decided: Decided, videos: LadderVideos, draws: int) -> pd.DataFrame:
    """Every way to decide on every rung, in the order in which they come.

    Returns:
        Columns ``features, rung, task, n_videos, n_units, metric, mean, sd, ci_low, ci_high``, in percent; mean and SD
        are over deals of the folds, intervals over conservative groups, ``n_units`` is how many there are to hold out.
    """
    of_severity = measure_severity(videos.units["source"].to_numpy()), ("zero_auc", "zero_auc_within_sources")
    asked = (measure_diagnosis, None) if videos.task == DISEASE else of_severity
    count = {"frame": videos.pixels[..., 0].size} | videos.units.nunique().to_dict()
    about = {"task": videos.task, "n_videos": len(videos.labels)}
    named = [
        ({"features": features, "rung": rung, **about, "n_units": count.get(rung)}, held_out)
        for (features, rung), held_out in decided.items()
    ]
    return measure_cells(named, draws, *asked)


def measure_falls(decided: Decided, draws: int) -> pd.DataFrame:
    """What is lost from each rung to the next, on the same videos and the same draws.

    Returns:
        Columns ``features, rung, next_rung`` and those of ``subtract_cells``: points, below 0 for a fall.
    """
    pairs = []
    for features in dict.fromkeys(features for features, _ in decided):
        for rung, following in pairwise(rung for rung in RUNGS if (features, rung) in decided):
            after, before = decided[features, following], decided[features, rung]
            deals = max(len(after), len(before))  # where there is one deal only, it meets each of the others
            names = {"features": features, "rung": rung, "next_rung": following}
            pairs.append((names, after * (deals // len(after)), before * (deals // len(before))))
    return subtract_cells(pairs, draws, measure_diagnosis)


def compare_intervals(held_out: Sequence[HeldOut], videos: LadderVideos, draws: int) -> pd.DataFrame:
    """The interval of one and the same accuracy, drawn over videos, ids, groups and sources.

    Returns:
        One row per unit: ``drawn, units``, those of ``measure_cells``, and the ``width`` of the interval.
    """
    named = [
        ({"drawn": name, "units": owners.nunique()}, [one._replace(groups=owners.to_numpy()) for one in held_out])
        for name, owners in videos.units.rename(columns={**RUNGS, "source": "source"}).items()
    ]
    cells = measure_cells(named, draws, measure_diagnosis, ["accuracy"])
    return cells.assign(width=cells["ci_high"] - cells["ci_low"])


def find_lookalikes(videos: LadderVideos) -> pd.DataFrame:
    """Whom a held-out frame resembles most among the frames left to train on, rung by rung.

    Returns:
        Percent of frames. Index: titles of rungs. Columns: the closest tie to the training frame that is nearest in
        pixels: the same video, patient, group or source, or none of these (elsewhere).
    """
    n_frames = videos.pixels.shape[1]
    pixels = videos.pixels.reshape(-1, videos.pixels.shape[-1])  # (V * F, 196)
    distances = cdist(pixels, pixels)
    owners = {f"same {unit}": find_units(videos, unit, n_frames) for unit in reversed(videos.units.columns)}
    shares = {}
    for rung, title in RUNGS.items():
        closest = np.full(len(pixels), "elsewhere", dtype=object)
        for train, test in deal_folds(rung)[0].split(pixels, groups=find_units(videos, rung, n_frames)):
            twins = train[distances[np.ix_(test, train)].argmin(axis=1)]
            for tie, owner in owners.items():  # from the loosest to the closest
                closest[test[owner[twins] == owner[test]]] = tie
        shares[title] = 100 * pd.Series(closest).value_counts(normalize=True)
    return pd.DataFrame(shares, index=[*reversed(owners), "elsewhere"]).T.fillna(0.0)


# --- what people read ---


def widen_ladder(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of ``measure_ladder`` as people read them: a row per way to decide and rung, a column per metric."""
    units = cells["n_units"].map("{:.0f}".format, na_action="ignore").fillna("—")
    cells = cells.assign(rung=cells["rung"].replace(RUNGS), n_units=units)
    wide = widen(cells, ["features", "rung", "n_units"], heading=lambda cell: METRIC_TITLES[cell["metric"]])
    return wide.rename(columns={"features": "decided from", "rung": "split by", "n_units": "of these"})


def describe_videos(videos: LadderVideos, study: Study, runs: Sequence[Run] = ()) -> str:
    """The line above a table: how many videos were used, of how many, and what decided."""
    units = videos.units
    counts = units["group"].groupby(videos.labels).agg(["size", "nunique"]).to_numpy()
    classes = ", ".join(f"{name}: {n} in {groups}" for name, (n, groups) in zip(videos.classes, counts, strict=True))
    used = (
        f"**Real** patients, cohort `{study.cohort.name}`: {len(units)} {PROBE} videos of {units['group'].nunique()} "
        f"conservative groups ({classes}) and {units['source'].nunique()} sources"
    )
    return " · ".join([used, *study.cohort.present, *describe_making(study, runs)])


def describe_ladder(ladder: pd.DataFrame, falls: pd.DataFrame) -> list[str]:
    """What the ladder says, in sentences, whichever way it goes.

    Args:
        ladder: From ``measure_ladder``, of diagnosis, with class frequencies.
        falls: From ``measure_falls``.

    Returns:
        A sentence for the whole ladder, one per step of pixels and of the network, one for what needs no picture.
    """
    accuracy = {(row.features, row.rung): row for row in ladder[ladder["metric"] == "accuracy"].itertuples()}
    pixels = [row for row in accuracy.values() if row.features == Kind.PIXELS]
    first, last = (f"{say_cell(row, decimals=0)} split by {RUNGS[row.rung]}" for row in (pixels[0], pixels[-1]))
    always = f"always the most frequent class: {accuracy[Kind.MAJORITY, '—'].mean:.0f}"
    sentences = [f"One model, {pixels[0].n_videos} videos, accuracy: {first}, {last}; {always}."]
    rise, fall = (f"a {what}, and the interval excludes 0" for what in ("rise", "fall"))
    shown = (falls["metric"] == "balanced_accuracy") & falls["features"].isin([Kind.PIXELS, Kind.END_TO_END])
    for step in falls[shown].itertuples():
        verdict = say_side(step.ci_low, step.ci_high, rise, fall, "no difference that these videos could show")
        way = f"{kind_words(step.features).capitalize()}, from {RUNGS[step.rung]} to {RUNGS[step.next_rung]}"
        sentences.append(f"{way}: balanced accuracy {say_cell(step, '+', 0)} points, {verdict}.")
    without = [kind for kind in (Kind.SOURCE_NAME, Kind.FILES) if (kind, "video") in accuracy]
    blind = [f"{kind.words} {say_cell(accuracy[kind, 'video'], decimals=0)}" for kind in without]
    return [*sentences, f"Without a picture, split by video, accuracy: {', '.join(blind)}."]


def describe_severity(ladder: pd.DataFrame, videos: LadderVideos) -> list[str]:
    """What severity looks like across and within sources, in sentences.

    Args:
        ladder: From ``measure_ladder``, of severity, with the known source.
        videos: What it is about.

    Returns:
        A sentence on the source, and one per rung.
    """
    cells = {(row.features, row.rung, row.metric): row for row in ladder.itertuples()}
    counts = pd.crosstab(videos.units["source"], videos.labels)
    pairs = counts.prod(axis=1)
    source = cells[Kind.SOURCE_ONLY, "—", "zero_auc"]
    sentences = [
        f"Severity {' against '.join(videos.classes)}, {source.n_videos} videos: {(pairs > 0).sum()} of {len(counts)} "
        f"sources have both, with {pairs.sum()} pairs of videos. The source alone is worth an AUC of {source.mean:.0f} "
        "over all pairs; within sources it is worth 50, by definition."
    ]
    for rung in [rung for features, rung, metric in cells if (features, metric) == (Kind.PIXELS, "zero_auc")]:
        over_all = say_cell(cells[Kind.PIXELS, rung, "zero_auc"], decimals=0)
        within = say_cell(cells[Kind.PIXELS, rung, "zero_auc_within_sources"], decimals=0)
        split = f"{Kind.PIXELS.words.capitalize()}, split by {RUNGS[rung]}"
        sentences.append(f"{split}: {over_all} over all pairs, {within} within sources.")
    return sentences
