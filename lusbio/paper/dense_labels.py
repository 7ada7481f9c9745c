"""Companion 1: what labels of pixels, dense or sparse, teach a network, and what it then knows of diagnosis.

Source: arXiv 2201.10166 ("Dense Pixel-Labeling for Reverse-Transfer and Diagnostic Learning"), of which the abstract is
at hand; its tables are not. What it claims is tested, its cells are not repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pandas as pd

from lusbio.cohorts import pocovid
from lusbio.cohorts.label_maps import PAINTED, LabelMaps, spread_frames, take_frames
from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.targets import encode_task, keep_fraction
from lusbio.experts.baselines import decide_by_majority, decide_linearly, share_by_source, take_pooled_pixels
from lusbio.experts.inputs import ExpertInput, take_input
from lusbio.experts.rows import Row, choose_by_validation, decide_end_to_end, decide_with_experts, make_row
from lusbio.files import Table, read_words
from lusbio.network import UNET
from lusbio.profiles import TrainingSettings
from lusbio.report.cells import format_value, measure_cells, name_row, subtract_cells, widen
from lusbio.report.compare import explain_verdict, judge_claim
from lusbio.report.segmentation import ALL_THREE, PixelRuns, say_patients, say_signed
from lusbio.report.tables import runs_of
from lusbio.runs.mixed_cohort import SIMULATED
from lusbio.runs.parallel import side_by_side
from lusbio.runs.pixel_training import FRAMES, LABELS, as_labels, name_task, predict_maps, train_on_pixels
from lusbio.runs.plan import start_from
from lusbio.runs.spec import Run, RunSpec
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import estimate, holm, paired_difference
from lusbio.statistics.segmentation import segmentation_metrics
from lusbio.vocabulary import BIOMARKER_TASK, DISEASE, PIXEL_CLASSES, SEVERITY, TASKS, Kind

WORDS = read_words("dense_labels.toml")

DIAGNOSIS = "diagnosis"
HEALTHY, COVID, *LUNG, _ = TASKS[DISEASE].classes
DIAGNOSES = {HEALTHY: "healthy", COVID: "COVID"} | dict.fromkeys(LUNG, "other lung disease")
"""The three diagnoses of the task, by disease; diseases outside the lung have none."""

STARTS = {"none": Kind.END_TO_END, "sparse": Kind.FROM_SPARSE, "dense": Kind.FROM_DENSE}
"""What a class training starts from, and the kind of its row."""

SHARES = {"sparse": Kind.SPARSE_SHARES, "dense": Kind.DENSE_SHARES, "true": Kind.TRUE_SHARES}
"""Whose label maps experts read the shares of classes from."""

SEGMENTATION_PAIRS = {"dense minus sparse": ("dense", "sparse"), "jittered minus dense": ("jittered", "dense")}
"""What is told apart of pixel trainings, first minus second."""


@dataclass(frozen=True)
class Sizes:
    """How big the companion is; what the entries mean stands in ``words/dense_labels.toml``."""

    folds: int
    few: int
    shares: tuple[float, ...]
    few_tasks: tuple[str, ...]
    few_shares: tuple[float, ...]
    experts: tuple[str, ...]
    rates: tuple[float, ...]
    head: str
    pixels: TrainingSettings
    classes: TrainingSettings


def find_sizes(study: Study) -> Sizes:
    """How big it is at the profile of a study."""
    usual, words = study.profile.training, dict(WORDS[study.profile.name])
    settings = {name: replace(usual, **words.pop(name)) for name in ("pixels", "classes")}
    return Sizes(**words, **settings)


def add_diagnosis(study: Study) -> Study:
    """The study with the task ``DIAGNOSIS``; where diseases are unknown the notebook ends."""
    values = study.table[DISEASE].map(DIAGNOSES)
    if values.nunique() < 2:
        study.end_here(f"Nothing to do: the table of {study.cohort.name!r} names fewer than two diagnoses.")
    return study.with_task(DIAGNOSIS, tuple(dict.fromkeys(DIAGNOSES.values())), values)


def _list_folds(study: Study, sizes: Sizes) -> list[int]:
    """Of the paper's protocol some folds, which share their test patients; of the other, all."""
    folds = list(run_folds(study.protocol))
    return folds[: sizes.folds] if study.protocol == "paper" else folds


def find_labelled(study: Study) -> Study:
    """Whose pixels are labelled: these patients', where maps are exact or painted, else the simulated convex cohort's.

    A network of simulated patients says nothing reliable about pixels of real frames; it is where trainings start.
    """
    if study.cohort.simulated or (study.cohort.folder / PAINTED).is_dir():
        return study
    return study.open_other(SIMULATED)


def list_tasks(study: Study) -> list[str]:
    """Diagnosis, and of simulated patients severity."""
    return [DIAGNOSIS, SEVERITY] if study.cohort.simulated else [DIAGNOSIS]


# --- trainings ---


def train_pixels(labelled: Study, sizes: Sizes, ways: Sequence[tuple[str, int]]) -> PixelRuns:
    """Train U-Nets on label maps, by labels and number of patients: same images, steps and seeds."""
    settings = {"backbone": UNET, "initial_weights": "scratch", "training": sizes.pixels, "seed": 0}
    specs = {way: labelled.specs(name_task(*way), outputs=LABELS[way[0]], **settings)[: sizes.folds] for way in ways}
    runs = iter(labelled.train(list(chain(*specs.values())), assemble=train_on_pixels()))
    return {way: [next(runs) for _ in of_way] for way, of_way in specs.items()}


def list_class_specs(study: Study, sizes: Sizes, pixel_runs: PixelRuns, task: str) -> dict[tuple, list[RunSpec]]:
    """Class trainings of a task by start, patients and share of the labels: the same steps and rate for all."""
    folds, shares = _list_folds(study, sizes), sizes.shares if study.cohort.simulated else (1.0,)
    settings = {"backbone": UNET, "initial_weights": "scratch", "training": sizes.classes, "seed": 0}
    found = {}
    for share in shares:
        specs = [spec for spec in study.specs(task, label_fraction=share, **settings) if spec.fold in folds]
        found["none", 0, share] = specs
        for (labels, patients), runs in pixel_runs.items():
            if patients == 0 or (study.cohort.simulated and task in sizes.few_tasks and share in sizes.few_shares):
                found[labels, patients, share] = start_from([run.spec for run in runs], specs)
    return found


def train_classifiers(study: Study, sizes: Sizes, pixel_runs: PixelRuns, task: str) -> dict[tuple, Row]:
    """Train them, each fold at the rate that validates best, and let them decide: rows by (kind, patients, share)."""
    from lusbio.network.unet import unet_classifier

    listed = list_class_specs(study, sizes, pixel_runs, task)
    tried = {
        key: [
            [replace(spec, training=replace(spec.training, learning_rate=rate)) for spec in specs]
            for rate in sizes.rates
        ]
        for key, specs in listed.items()
    }
    by_classes = {}
    for key in tried:
        by_classes.setdefault(count_pixel_classes(sizes.head, key[0]), []).append(key)
    found, rows = {}, {}
    for n_classes, keys in by_classes.items():
        every = [spec for key in keys for specs in tried[key] for spec in specs]
        runs = iter(study.train(every, network=unet_classifier(sizes.classes.width, n_classes)))
        found |= {key: [[next(runs) for _ in specs] for specs in tried[key]] for key in keys}
    for labels, patients, share in tried:
        by_fold = zip(*found[labels, patients, share], strict=True)
        own = [max(of_fold, key=lambda run: run.info["val_accuracy"]) for of_fold in by_fold]
        rows[STARTS[labels], patients, share] = replace(decide_end_to_end(own, study), features=STARTS[labels])
    return rows


def count_pixel_classes(head: str, labels: str) -> int:
    """How many classes of pixels a classifier's head sees: with ``"maps"`` those of its start, else 0."""
    return len(LABELS.get(labels, LABELS["dense"])) if head == "maps" else 0


# --- what experts read off maps ---


def describe_shares(maps: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of each class in a video's frames, mean and most, float64 (V, 2 K): all that experts see of maps."""
    from lusbio.network.pixels import describe_maps

    return describe_maps(maps, n_classes).astype(np.float64)


def take_shares(study: Study, runs: Sequence[Run], pixel_runs: Sequence[Run], labels: str, own: bool) -> ExpertInput:
    """The pixel shares of predicted maps as an input for experts.

    Args:
        study: Whose videos.
        runs: Whose splits are followed.
        pixel_runs: What labels the pixels of fold k: run k, counted round.
        labels: ``"dense"`` or ``"sparse"``.
        own: Whether these runs are about this study, and have kept its shares already.
    """
    values = [run.features for run in pixel_runs]
    if not own:
        frames = take_frames(study.videos, spread_frames(study.videos, FRAMES))
        maps = side_by_side(predict_maps, [(run, frames) for run in pixel_runs], study.jobs)
        values = [describe_shares(one, len(LABELS[labels])) for one in maps]
    by_fold = [np.asarray(values[k % len(values)], np.float64) for k in range(len(runs))]
    return ExpertInput(SHARES[labels], tuple(runs), tuple(by_fold))


def decide_on_shares(given: ExpertInput, task: str, study: Study, sizes: Sizes, shares: Sequence[float]) -> list[Row]:
    """Experts on pixel shares, by share of the labels: of each run the expert that validated best."""
    found = []
    for share in shares:
        rows = decide_with_experts(given, task, study, experts=sizes.experts, label_fraction=share)
        found.append(choose_by_validation(rows))
    return found


def decide_by_route(
    study: Study, labelled: Study, sizes: Sizes, pixel_runs: PixelRuns, known: LabelMaps, task: str
) -> dict[tuple, Row]:
    """All routes to a task, rows by (kind, patients, share): networks, experts on shares, and baselines."""
    rows, own = train_classifiers(study, sizes, pixel_runs, task), study.cohort.name == labelled.cohort.name
    runs = rows[Kind.END_TO_END, 0, 1.0].runs
    shares = list(dict.fromkeys(share for _, _, share in rows))
    given = {way: take_shares(study, runs, of_way, way[0], own) for way, of_way in pixel_runs.items()}
    if own:
        true = describe_shares(known.maps, len(PIXEL_CLASSES))
        given["true", 0] = ExpertInput(Kind.TRUE_SHARES, tuple(runs), (true,) * len(runs))
    for (labels, patients), one in given.items():
        for share, row in zip(shares, decide_on_shares(one, task, study, sizes, shares), strict=True):
            rows[SHARES[labels], patients, share] = row
    rows[Kind.MAJORITY, 0, 1.0] = decide_by_majority(runs, task, study)
    rows[Kind.PIXELS, 0, 1.0] = decide_linearly(take_pooled_pixels(runs, study), task, study)
    if study.cohort.name == pocovid.NAME:
        shares = [share_by_source(task, study)] * len(runs)
        rows[Kind.SOURCE_ONLY, 0, 1.0] = make_row(Kind.SOURCE_ONLY, "—", task, runs, shares, study)
    return rows


# --- how rare is what matters ---


def make_pixel_shares(labelled: Study, known: LabelMaps, rows: np.ndarray) -> Table:
    """What share of the pixels each class has, here in some videos and in the published samples, in percent."""
    lines = []
    for labels, published in WORDS["published"].items():
        classes = LABELS[labels]
        counts = np.bincount(as_labels(known.maps[rows], labels).ravel(), minlength=len(classes))
        found = pd.Series(100 * counts / counts.sum(), classes)
        if labels == "dense":  # the samples do not tell healthy from unhealthy pleura
            pleura = [name for name in classes if name.startswith("pleura")]
            found = pd.concat([found.drop(pleura), pd.Series({"pleura": found[pleura].sum()})])
        lines += [(labels, name, share, published[name]) for name, share in found.items()]
    cells = pd.DataFrame(lines, columns=["labels", "class", "percent", "published"])
    return Table(cells, origin=labelled.origin())


# --- tables of the transfer ---


def make_transfer(rows: Mapping[str, Mapping[tuple, Row]], draws: int) -> Table:
    """How well each route decides, by task, share of the labels, and whose pixels are labelled."""
    named = []
    for of_task in rows.values():
        for (_, patients, share), row in of_task.items():
            named.append((name_row(row) | {"patients": patients, "share": share}, row.held_out))
    cells = measure_cells(named, draws, metrics=("auc", "accuracy", "f1"))
    said = cells.assign(patients=cells["patients"].map(say_patients), share=cells["share"].map("{:.3g}".format))
    said.loc[~said["features"].isin([*STARTS.values(), *SHARES.values()]), "patients"] = "—"
    said.loc[said["features"] == Kind.END_TO_END, "patients"] = "—"
    shown = widen(
        said.assign(classifier=said["classifier"].str.split(" / ").str[0]),
        ["features", "classifier", "patients", "share"],
        say_signed,
    )
    return Table(cells, shown, runs=runs_of(row for of_task in rows.values() for row in of_task.values()))


COMPARISONS = {
    "dense minus none": (Kind.FROM_DENSE, Kind.END_TO_END),
    "sparse minus none": (Kind.FROM_SPARSE, Kind.END_TO_END),
    "dense minus sparse": (Kind.FROM_DENSE, Kind.FROM_SPARSE),
    "experts on dense shares minus none": (Kind.DENSE_SHARES, Kind.END_TO_END),
    "experts on sparse shares minus none": (Kind.SPARSE_SHARES, Kind.END_TO_END),
}
"""Ways to decide that are told apart, first minus second."""


def make_differences(rows: Mapping[str, Mapping[tuple, Row]], draws: int) -> Table:
    """Paired differences of AUC on the same patients."""
    named, used = [], []
    for task, of_task in rows.items():
        for name, (first, second) in COMPARISONS.items():
            for (kind, patients, share), row in of_task.items():
                other = of_task.get((second, 0 if second == Kind.END_TO_END else patients, share))
                if kind == first and other is not None:
                    names = {"comparison": name, "patients": patients, "task": task, "share": share}
                    named.append((names, row.held_out, other.held_out))
                    used += [row, other]
    cells = subtract_cells(named, draws, metrics=["auc"])
    said = cells.assign(patients=cells["patients"].map(say_patients), share=cells["share"].map("{:.3g}".format))
    return Table(cells, widen(said, ["comparison", "patients", "share"], say_signed), runs=runs_of(used))


# --- verdicts ---


def give_verdicts(
    counts: Mapping[tuple, list], of_task: Mapping[tuple, Row], labelled: Study, known: LabelMaps, runs: PixelRuns
) -> Table:
    """The three claims of the paper, each tested: difference, interval, Holm over the claims, verdict.

    Args:
        counts: From ``hold_out_all``.
        of_task: Rows of the diagnosis, from ``decide_by_route``.
        labelled: Whose pixels are labelled.
        known: Its label maps.
        runs: The pixel trainings; the claim about them is that of few patients, as in the paper.
    """
    few = max(patients for _, patients in runs)
    none, sparse, dense = (of_task[kind, 0, 1.0] for kind in STARTS.values())
    both = (*sparse.held_out, *dense.held_out), (*none.held_out, *none.held_out)
    alarms = counts["dense", few, ALL_THREE], counts["sparse", few, ALL_THREE]
    asked = {
        "C1": ("false_alarms", -1, *alarms, segmentation_metrics, _see_nothing(runs, few, known)),
        "C2": ("auc", 1, *both, None, _by_chance((none, sparse, dense), labelled.draws)),
        "C3": ("auc", 1, dense.held_out, sparse.held_out, None, _by_chance((sparse, dense), labelled.draws)),
    }
    lines = []
    for claim, (metric, side, first, second, measure, chance) in asked.items():
        given = {} if measure is None else {"measure": measure}
        found = paired_difference(first, second, labelled.draws, **given)[metric]
        value, low, high = (100 * number for number in (found.value, found.low, found.high))
        lines.append((claim, CLAIMS[claim], metric, value, low, high, found.p_value, side, chance))
    columns = ["claim", "what", "metric", "difference", "ci_low", "ci_high", "p_value", "side", "chance"]
    cells = pd.DataFrame(lines, columns=columns).assign(p_holm=lambda table: holm(table["p_value"]))
    judged = [judge_claim(row.difference * row.side, row.p_holm, chance=row.chance) for row in cells.itertuples()]
    cells = cells.assign(verdict=judged, meaning=[explain_verdict(verdict) for verdict in judged])
    said = [format_value(row.difference, row.ci_low, row.ci_high, sign="+") for row in cells.itertuples()]
    shown = cells[["claim", "what", "verdict", "meaning"]].assign(difference=said)
    shown["p (Holm)"] = cells["p_holm"].map(lambda p: format_value(p, decimals=3))
    note = f"C1 is about the pixels of cohort `{labelled.cohort.name}`, which are simulated or painted."
    return Table(cells.drop(columns="side"), shown, note, runs=runs_of((none, sparse, dense)))


CLAIMS = {
    "C1": "Dense labels give fewer false alarms (dense minus sparse, pixels of few patients, mean over structures)",
    "C2": "Pretrained on segmentation beats not pretrained (mean of dense and sparse minus none, AUC of diagnosis)",
    "C3": "Pretrained on dense labels is best (dense minus sparse, AUC of diagnosis)",
}
"""What the paper claims, and the difference that it is tested by."""


def _by_chance(rows: Sequence[Row], draws: int) -> bool:
    """Whether a network is not above chance on its own validation patients: the rule of notebook 03."""
    return not all(estimate(row.validated, draws)["auc"].low > 0.5 for row in rows)


def _see_nothing(runs: PixelRuns, few: int, known: LabelMaps) -> bool:
    """Whether a pixel training validates no better than who claims every class everywhere: a Dice of 2 s / (1 + s)."""
    shares = np.bincount(as_labels(known.maps[::5], "sparse").ravel(), minlength=4)[1:] / known.maps[::5].size
    blind = float(np.mean(2 * shares / (1 + shares)))
    return any(run.info["val_accuracy"] <= blind for way in (("dense", few), ("sparse", few)) for run in runs[way])


# --- what labels cost ---


def decide_on_boxes(study: Study, sizes: Sizes) -> dict[float, Row]:
    """Experts on biomarkers, whose labels are 38 boxes a video, decide severity: rows by share of the grades.

    Where severity is not among what is asked, or whose patients are real, the notebook ends.
    """
    if SEVERITY not in list_tasks(study):
        study.end_here("What labels cost is asked of simulated patients only.", "dense_cost", "dense_routes")
    folds = _list_folds(study, sizes)
    runs = study.train([spec for spec in study.specs(BIOMARKER_TASK, seed=0) if spec.fold in folds])
    given = take_input(runs, SEVERITY)
    rows = decide_on_shares(given, SEVERITY, study, sizes, sizes.shares)
    return dict(zip(sizes.shares, rows, strict=True))


def make_cost(
    of_task: Mapping[tuple, Row],
    biomarkers: Mapping[float, Row],
    pixel_runs: PixelRuns,
    minutes: Mapping[str, float],
    study: Study,
) -> Table:
    """AUC of severity beside the minutes that labellers take for what each route learns from.

    Args:
        of_task: Rows of severity, from ``decide_by_route``.
        biomarkers: Experts on the biomarkers of a network, by share of the severity labels.
        pixel_runs: The pixel trainings.
        minutes: A labeller's, per video, by ``grade``, ``boxes`` (38 of them), ``sparse`` and ``dense``: an assumption.
        study: The cohort.

    Returns:
        Columns ``features, patients, share, minutes, auc, auc_low, auc_high``. Labels of validation patients, which
        every route needs to choose, are not counted.
    """
    run = of_task[Kind.END_TO_END, 0, 1.0].runs[0]
    training = np.flatnonzero((run.splits == "train") & (encode_task(study.table, SEVERITY) >= 0))
    kinds = {kind: labels for names in (STARTS, SHARES) for labels, kind in names.items()}
    listed = {key: row for key, row in of_task.items() if kinds.get(key[0], "true") != "true"}
    listed |= {(Kind.BIOMARKERS, 0, share): row for share, row in biomarkers.items()}
    lines = []
    for (kind, patients, share), row in listed.items():
        spent = minutes["grade"] * len(keep_fraction(study.table, training, share, run.spec.seed))
        if kind == Kind.BIOMARKERS:
            spent += minutes["boxes"] * len(training)
        elif (labels := kinds[kind]) != "none":
            spent += minutes[labels] * pixel_runs[labels, patients][0].info["trained_on"]
        auc = estimate(row.held_out, study.draws)["auc"]
        lines.append((kind, patients, share, spent, 100 * auc.value, 100 * auc.low, 100 * auc.high))
    columns = ["features", "patients", "share", "minutes", "auc", "auc_low", "auc_high"]
    cells = pd.DataFrame(lines, columns=columns).sort_values("minutes", ignore_index=True)
    said = [format_value(row.auc, row.auc_low, row.auc_high) for row in cells.itertuples()]
    shown = cells.assign(
        features=[kind.words for kind in cells["features"]],
        patients=[
            say_patients(row.patients) if kinds.get(row.features, "none") != "none" else "—"
            for row in cells.itertuples()
        ],
        share=cells["share"].map("{:.3g}".format),
        hours=(cells["minutes"] / 60).map("{:.1f}".format),
        AUC=said,
    )
    assumed = ", ".join(f"{what} {value:g}" for what, value in minutes.items())
    note = f"Assumed minutes of a labeller per video: {assumed}; boxes are ticked, one per biomarker."
    return Table(cells, shown[["features", "patients", "share", "hours", "AUC"]], note, runs=runs_of(listed.values()))
