"""The companion about pretraining without labels: what it is worth for tasks, with few labels, and under drift.

Every way to decide is a ``Row`` on the same test patients; those that learnt from a share of the labels stand beside
those that had all of them. Numbers x 100, intervals over patients.

Source: Anwar et al. 2022, "SPCXR" (arXiv 2211.12944), whose text holds no table; its claims stand in
``words/pretraining.toml``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from lusbio.cohorts import covid_blues
from lusbio.cohorts.label_maps import PAINTED, read_label_maps
from lusbio.cohorts.load import SYNTHETIC, load_cohort
from lusbio.cohorts.splits import run_folds
from lusbio.cohorts.targets import encode_task, keep_fraction, select_rows
from lusbio.errors import LusbioError
from lusbio.experts import baselines, rows
from lusbio.experts.classifiers import LOGISTIC
from lusbio.experts.inputs import ExpertInput
from lusbio.experts.rows import Row
from lusbio.files import Table, read_words
from lusbio.network import VIT
from lusbio.profiles import find_profile
from lusbio.report import cells as of_cells
from lusbio.report import segmentation
from lusbio.report.compare import compare_budgets, explain_verdict, judge_claim
from lusbio.report.segmentation import ALL_THREE, PixelRuns
from lusbio.report.tables import TABLE1_METRICS, runs_of
from lusbio.runs import predict
from lusbio.runs.masked import pretrain_masked
from lusbio.runs.mixed_cohort import SIMULATED, keep_real, mix_cohorts
from lusbio.runs.parallel import side_by_side
from lusbio.runs.pixel_training import FRAMES, LABELS, name_task, train_on_pixels
from lusbio.runs.plan import HALF, start_from
from lusbio.runs.spec import Run, RunSpec, prepare_cohort
from lusbio.runs.study import Study, as_study, open_study
from lusbio.simulation import constants
from lusbio.statistics import bootstrap
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import task_metrics
from lusbio.statistics.segmentation import segmentation_metrics
from lusbio.videos import DecodedVideo
from lusbio.vocabulary import DISEASE, SEVERITY, TASKS, Kind, title_of

WORDS = read_words("pretraining.toml")
"""Sizes by profile, SPCXR's claims, and what verdicts mean."""

STARTS = (Kind.UNTRAINED, Kind.MASKED)
"""What a training for a task starts from: the network as it was made, and as it was after the pretraining."""

FROZEN = {Kind.UNTRAINED: Kind.UNTRAINED_FROZEN, Kind.MASKED: Kind.MASKED_FROZEN}
"""The same where nothing but a logistic regression learns the task."""

PAIRS = {
    "fine-tuned minus from scratch": (Kind.MASKED, Kind.UNTRAINED),
    "frozen minus random, frozen": (Kind.MASKED_FROZEN, Kind.UNTRAINED_FROZEN),
}
"""What is compared, first minus second."""

GAINS_DB, RANGE_DB = (-6, 6), float(np.mean(constants.DYNAMIC_RANGE_DB))
"""By how much somebody turns the gain at the test, and decibels between black and white, as scanners show them."""

RECODED = {
    "screening": (SEVERITY, {"0": "grade 0", "1": "grades 1-3", "2": "grades 1-3", "3": "grades 1-3"}),
    "diagnosis": (
        DISEASE,
        {name: name for name in TASKS[DISEASE].classes[:2]} | dict.fromkeys(TASKS[DISEASE].classes[2:6], "other lung"),
    ),
}
"""Tasks besides severity: whose column they are read off, and what its values become; others are unknown."""


# --- what is trained ---


def open_frames(profile: str, cohort: str, jobs: int = 1) -> tuple[Study, list[str]]:
    """A cohort as frames of the size that this companion takes, with the tasks that it can teach.

    Returns:
        The study, and the names of the tasks; where there are none the notebook ends.
    """
    usual = find_profile(profile)
    sized = replace(usual, training=replace(usual.training, **WORDS[profile]["frames"]))
    study = add_tasks(as_study(prepare_cohort(load_cohort(cohort, sized, jobs), sized, jobs), jobs))
    tasks = [
        name for name in (SEVERITY, *RECODED) if name in {*study.tasks, *study.table.columns.intersection(RECODED)}
    ]
    if not tasks:
        reasons = "; ".join(
            f"{task}: {study.unlearnable[task]}" for task in (SEVERITY, DISEASE) if task in study.unlearnable
        )
        study.end_here(f"Nothing to do: cohort {study.cohort.name!r} teaches none of the tasks. {reasons}")
    return study, tasks


def add_tasks(study: Study) -> Study:
    """The study with those of ``RECODED`` that each of its folds can learn."""
    for name, (column, meaning) in RECODED.items():
        try:
            asked = study.with_task(name, tuple(dict.fromkeys(meaning.values())), study.table[column].map(meaning))
            for fold in run_folds(study.protocol):
                select_rows(asked.table, asked.splits(fold), name)
            study = asked
        except LusbioError:
            continue  # too few labels: the table does without this task
    return study


def list_folds(study: Study) -> Sequence[int]:
    """The run folds that are asked, as many as the profile says; of real patients each has others to test."""
    folds = "folds" if study.protocol == "paper" else "real_folds"
    return run_folds(study.protocol)[: WORDS[study.profile.name][folds]]


def list_shares(study: Study, task: str) -> list[float]:
    """The shares of the profile that leave two classes to learn in every fold, from few to all."""
    labels, kept = encode_task(study.table, task), []
    for share in WORDS[study.profile.name]["shares"]:
        of_folds = [np.flatnonzero((study.splits(fold) == "train") & (labels >= 0)) for fold in list_folds(study)]
        if all(len(set(labels[keep_fraction(study.table, rows, share, 0)])) > 1 for rows in of_folds):
            kept.append(share)
    return kept


def in_folds(specs: Sequence[RunSpec], study: Study) -> list[RunSpec]:
    """Those of ``list_folds``."""
    return [spec for spec in specs if spec.fold in list_folds(study)]


Starts = dict[tuple[Kind, float], list[Run]]
"""Runs to start from, one per fold, by what they are and their share of the epochs."""


def pretrain(study: Study) -> Starts:
    """Pretrain a transformer on training videos, also with half of the epochs; and keep one that learnt nothing.

    Real patients of COVID-BLUES are joined by as many simulated videos.
    """
    sizes, home = WORDS[study.profile.name], study
    if study.cohort.name == covid_blues.NAME:
        home = mix_cohorts(study, open_frames(study.profile.name, SIMULATED, study.jobs)[0])
    learnt = replace(study.profile.training, **sizes["masked"])
    still = replace(learnt, epochs=1, clips_per_epoch=4 * learnt.batch_size, learning_rate=0.0, schedule="one_cycle")
    wanted = {(Kind.MASKED, 1.0): learnt, (Kind.MASKED, HALF): learnt, (Kind.UNTRAINED, 1.0): still}
    names, usual = {Kind.MASKED: "masked", Kind.UNTRAINED: "untrained"}, {"outputs": (), "backbone": VIT, "seed": 0}
    specs = {
        (kind, budget): in_folds(
            home.specs(names[kind], training=settings, budget=budget, initial_weights="scratch", **usual), study
        )
        for (kind, budget), settings in wanted.items()
    }
    assemble = pretrain_masked(sizes["backbone"], sizes["align"], sizes["decay"])
    runs = home.train([spec for of_one in specs.values() for spec in of_one], assemble=assemble)
    runs = iter(runs if home is study else [keep_real(run, home) for run in runs])
    return {key: [next(runs) for _ in of_one] for key, of_one in specs.items()}


class Arm(NamedTuple):
    """Trainings for a task.

    Attributes:
        start: One of ``STARTS``.
        task: Its name.
        share: Of the labels.
        budget: Share of the epochs, also of the pretraining.
    """

    start: Kind
    task: str
    share: float
    budget: float = 1.0


Tuned = dict[Arm, list[Run]]
"""Runs by arm, one per fold."""


def tune(study: Study, tasks: Sequence[str], starts: Starts) -> Tuned:
    """Train for every task with every share of the labels from both starts; of the first task also half as long.

    All at the same rate, or each, fold by fold, at the rate of the profile that does best on validation videos.
    """
    from lusbio.network.vit import vit_classifier

    sizes, settings = WORDS[study.profile.name], study.profile.training
    arms = [Arm(start, task, share) for task in tasks for share in list_shares(study, task) for start in STARTS]
    few = list_shares(study, tasks[0])[0]
    arms += [Arm(start, tasks[0], share, HALF) for share in dict.fromkeys((few, 1.0)) for start in STARTS]
    specs = [_list_tuned(arm, rate, study, starts) for arm in arms for rate in sizes["rates"]]
    network = vit_classifier(sizes["backbone"], settings.image_size)
    runs = iter(study.train([spec for of_one in specs for spec in of_one], network=network))
    found = {}
    for arm in arms:
        by_rate = [[next(runs) for _ in list_folds(study)] for _ in sizes["rates"]]
        found[arm] = [max(of_fold, key=lambda run: run.info["val_accuracy"]) for of_fold in zip(*by_rate, strict=True)]
    return found


def _list_tuned(arm: Arm, rate: float, study: Study, starts: Starts) -> list[RunSpec]:
    given = starts[arm.start, arm.budget if arm.start == Kind.MASKED else 1.0]
    training = replace(study.profile.training, **WORDS[study.profile.name]["tuned"], learning_rate=rate)
    usual = {"backbone": VIT, "initial_weights": "scratch", "seed": 0, "label_fraction": arm.share}
    then = in_folds(study.specs(arm.task, training=training, budget=arm.budget, **usual), study)
    return start_from([run.spec for run in given], then)


# --- what is decided ---


def decide_tuned(arm: Arm, tuned: Tuned, study: Study) -> Row:
    """What the networks of an arm decide."""
    return replace(rows.decide_end_to_end(tuned[arm], study), features=arm.start)


def decide_all(study: Study, tasks: Sequence[str], starts: Starts, tuned: Tuned) -> dict[float, list[Row]]:
    """All ways to decide all tasks, by share of the labels: both starts fine-tuned and frozen, pixels, frequencies."""
    given = [ExpertInput(FROZEN[start], *_take_features(starts[start, 1.0])) for start in STARTS]
    given.append(baselines.take_pooled_pixels(starts[Kind.UNTRAINED, 1.0], study))
    found = {}
    for task in tasks:
        for share in list_shares(study, task):
            found.setdefault(share, []).extend(decide_tuned(Arm(start, task, share), tuned, study) for start in STARTS)
            for one in given:
                found[share] += rows.decide_with_experts(one, task, study, experts=[LOGISTIC], label_fraction=share)
        found[1.0].append(baselines.decide_by_majority(starts[Kind.UNTRAINED, 1.0], task, study))
    return dict(sorted(found.items()))


def _take_features(runs: Sequence[Run]) -> tuple:
    return tuple(runs), tuple(run.features.astype(np.float64) for run in runs)


def decide_usual(cohort: str, study: Study, task: str) -> dict[float, list[Row]]:
    """The network of the paper, trained on clips of its own size, by share of the labels: to compare with, roughly."""
    larger = add_tasks(open_study(study.profile.name, cohort, study.jobs))
    shares = list_shares(study, task)
    specs = [in_folds(larger.specs(task, label_fraction=share, seed=0), study) for share in shares]
    runs = iter(larger.train([spec for of_one in specs for spec in of_one]))
    by_share = [[next(runs) for _ in of_one] for of_one in specs]
    return {share: [rows.decide_end_to_end(of_one, larger)] for share, of_one in zip(shares, by_share, strict=True)}


def pick(found: Sequence[Row], kind: Kind, task: str) -> Row:
    """The row of a kind and task."""
    return next(row for row in found if (row.features, row.task) == (kind, task))


# --- drift ---


def turn_gain(frames: np.ndarray, gain_db: float) -> np.ndarray:
    """Frames as they would be with another gain: greys move along the grey map of a scanner; black stays black.

    The dynamic range and the grey map are the simulator's.
    """
    shares = (np.arange(256) / 255) ** (1 / constants.GREY_CURVE) + gain_db / RANGE_DB
    greys = (255 * shares.clip(0, 1) ** constants.GREY_CURVE).round().astype(np.uint8)
    greys[0] = 0
    return greys[frames]


def list_drifts(study: Study) -> dict[str, tuple[Sequence, int]]:
    """By what is different, the videos and the gain in decibels with which the test patients are seen once more.

    Of the default cohort, that is also the same patients under a curved probe.
    """
    found = {f"gain {gain:+d} dB": (study.videos, gain) for gain in GAINS_DB}
    if SYNTHETIC.get(study.cohort.name) == "linear":
        other = open_frames(study.profile.name, SIMULATED, study.jobs)[0]
        if not study.table["video_id"].equals(other.table["video_id"]):
            raise LusbioError(f"cohorts {study.cohort.name!r} and {SIMULATED!r} are not of the same patients")
        found["convex probe"] = other.videos, 0
    return found


def decide_drifted(found: Sequence[Row], task: str, study: Study) -> dict[str, list[Row]]:
    """What those who learnt from all labels of a task, as they are, decide on test videos that have drifted.

    Args:
        found: With all labels, of ``decide_all``.
        task: The task.
        study: The cohort.

    Returns:
        By drift of ``list_drifts``, both starts fine-tuned, then frozen.
    """
    kept, drifts = [pick(found, kind, task) for kind in (*STARTS, *FROZEN.values())], list_drifts(study)
    pairs = [(drift, row) for drift in drifts for row in kept]
    asked = [(drift, run, tested) for drift, row in pairs for run, tested in zip(row.runs, row.held_out, strict=True)]
    work = [(run, task, *drifts[drift], tested.rows, f"{drift}-{task}", study) for drift, run, tested in asked]
    decided, by_drift = iter(side_by_side(_decide_drifted, work, study.jobs)), {}
    for drift, row in pairs:
        held_out = tuple(tested._replace(probabilities=next(decided)) for tested in row.held_out)
        by_drift.setdefault(drift, []).append(replace(row, held_out=held_out))
    return by_drift


def _decide_drifted(
    run: Run, task: str, videos: Sequence, gain_db: int, tested: np.ndarray, name: str, study: Study
) -> np.ndarray:
    """Probabilities (tested, K) by a network, or by a logistic regression on one that decides nothing; kept."""
    path = run.folder / "elsewhere" / f"{name.replace(' ', '_')}-{study.data}.csv"
    if not path.exists():
        seen = [DecodedVideo(turn_gain(videos[row].load(), gain_db)) for row in tested]
        probabilities, features = look_at(seen, run)
        if not run.spec.outputs:
            (expert,) = rows.fit_experts(run, task, study, [LOGISTIC])
            probabilities = expert.predict_probabilities(features.astype(np.float64))
        predict.write_predictions(probabilities, study.table["video_id"].iloc[tested].tolist(), path)
    return predict.read_predictions(path)


def look_at(videos: Sequence, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (V, K) and features (V, F) of videos by the network of a run of this companion."""
    import torch

    from lusbio.network import clips, training

    settings = run.spec.training
    dataset = clips.ClipDataset(videos, torch.full((len(videos),), -1), settings.frames)
    loader = clips.evaluation_loader(dataset, np.arange(len(videos)), settings.evaluation_clips)
    with training.one_thread():
        module = training.VideoModule(load_transformer(run), multilabel=False, settings=settings)
        return training.predict(module, loader, device=training.choose_device())


def load_transformer(run: Run):
    """The network of a run, in evaluation mode: a reconstructor, or a classifier where the run decides something."""
    from lusbio.network import masking, vit
    from lusbio.network.weights import load_weights

    name, settings, n_outputs = WORDS[run.spec.profile]["backbone"], run.spec.training, len(run.spec.outputs)
    make = vit.vit_classifier(name, settings.image_size)
    network = make(n_outputs, settings.frames) if n_outputs else masking.make_reconstructor(name, settings)
    load_weights(network, run.folder / predict.WEIGHTS_FILE)
    return network.eval()


# --- pixels ---


def label_pixels(study: Study, starts: Starts) -> PixelRuns:
    """Train on sparse label maps, of few patients and of all, from both starts; nothing where no map is known."""
    if not study.cohort.simulated and not (study.cohort.folder / PAINTED).is_dir():
        return {}
    sizes, name = WORDS[study.profile.name], WORDS[study.profile.name]["backbone"]
    usual = {"backbone": VIT, "initial_weights": "scratch", "seed": 0, "outputs": LABELS["sparse"]}
    usual["training"] = replace(study.profile.training, **sizes["pixels"])
    specs = {
        (start, patients): start_from(
            [run.spec for run in starts[start, 1.0]],
            in_folds(study.specs(name_task("sparse", patients), **usual), study),
        )
        for patients in (sizes["few"], 0)
        for start in STARTS
    }
    asked = [spec for of_one in specs.values() for spec in of_one]
    runs = iter(study.train(asked, assemble=train_on_pixels(name)))
    return {way: [next(runs) for _ in of_one] for way, of_one in specs.items()}


def count_labelled(study: Study, pixel_runs: PixelRuns) -> dict[tuple, list[HeldOut]]:
    """What they say of the structures in test frames, by start, patients and structure: counts, one per run."""
    if not pixel_runs:
        return {}
    known = read_label_maps(study.cohort, study.videos, FRAMES, study.jobs)
    predicted = segmentation.predict_tested(study, pixel_runs, known, WORDS[study.profile.name]["backbone"])
    return segmentation.hold_out_all(study, pixel_runs, predicted, known)


# --- tables ---


def make_pretraining(by_share: Mapping[float, Sequence[Row]], study: Study) -> Table:
    """Every way to decide every task, by share of the labels.

    Returns:
        Cells ``features, task, fraction, patients`` (labelled training patients, mean over folds), ``metric, mean, sd,
        ci_low, ci_high`` in percent.
    """
    pairs = [(share, row) for share, found in by_share.items() for row in found]
    named = [
        ({"features": row.features, "task": row.task} | _count_labelled(row, share, study), row.held_out)
        for share, row in pairs
    ]
    cells = of_cells.measure_cells(named, study.draws, metrics=TABLE1_METRICS)
    cells = pd.concat([of_task for _, of_task in cells.groupby("task", sort=False)], ignore_index=True)
    by, titles = ["task", "fraction", "patients", "features"], of_cells.METRIC_TITLES
    shown = of_cells.widen(cells.assign(task=cells["task"].map(title_of)), by, heading=lambda c: titles[c["metric"]])
    shown["fraction"] = shown["fraction"].map("{:g}".format)
    return Table(cells, shown, runs=runs_of(row for _, row in pairs))


def _count_labelled(row: Row, share: float, study: Study) -> dict[str, float]:
    known = study.table[row.task].notna().to_numpy()
    groups = [study.table["group_id"][known & (run.splits == "train")].nunique() for run in row.runs]
    return {"fraction": share, "patients": float(np.mean(np.ceil(share * np.array(groups))))}


def make_differences(by_share: Mapping[float, Sequence[Row]], study: Study) -> Table:
    """The ``PAIRS``, on the same patients, in points, and relative to the second.

    Returns:
        Cells ``pair, task, fraction, metric, mean, sd, ci_low, ci_high, p_value, relative`` (percent).
    """
    pairs = [
        ({"pair": name, "task": task, "fraction": share}, [pick(found, kind, task).held_out for kind in kinds])
        for share, found in by_share.items()
        for task in dict.fromkeys(row.task for row in found)
        for name, kinds in PAIRS.items()
    ]
    cells = of_cells.subtract_cells([(names, *pair) for names, pair in pairs], study.draws, metrics=TABLE1_METRICS)
    seconds = of_cells.measure_cells([(names, pair[1]) for names, pair in pairs], study.draws, metrics=TABLE1_METRICS)
    cells["relative"] = 100 * cells["mean"] / seconds["mean"]
    texts = {"fraction": cells["fraction"].map("{:g}".format), "p_value": cells["p_value"].map("{:.3f}".format)}
    shown = cells.drop(columns="sd").assign(**texts)
    shown = shown.rename(columns={"mean": "points", "ci_low": "points_low", "ci_high": "points_high"})
    return Table(
        cells, of_cells.show_intervals(shown), runs=runs_of(row for found in by_share.values() for row in found)
    )


def make_drift(found: Sequence[Row], drifted: Mapping[str, Sequence[Row]], study: Study) -> Table:
    """How well a task is decided where test videos have drifted, and what that costs.

    Args:
        found: With all labels, among them those of ``drifted``.
        drifted: From ``decide_drifted``.
        study: The cohort.

    Returns:
        One line per drift and way to decide, by AUC: ``drift, features, task``, and with ``_low`` and ``_high``
        ``auc`` and ``lost``, by how much it is lower than on the videos as they are, by pairs.
    """
    lines = []
    for drift, of_drift in drifted.items():
        for row in of_drift:
            auc, usual = bootstrap.estimate(row.held_out, study.draws)["auc"], pick(found, row.features, row.task)
            lost = bootstrap.paired_difference(usual.held_out, row.held_out, study.draws)["auc"]
            names = {"drift": drift, "features": row.features, "task": row.task}
            lines.append(names | of_cells.lay_out({"auc": auc, "lost": lost}))
    cells = pd.DataFrame(lines)
    return Table(cells, of_cells.show_intervals(cells), runs=runs_of(found))


def make_segmentation(counts: Mapping[tuple, list], pixel_runs: PixelRuns, study: Study) -> Table:
    """How well structures are found from both starts; of patients without label maps a table that says so."""
    if not counts:
        return Table(pd.DataFrame(columns=["features"]), note="No label map is known of these patients.")
    pairs = {"fine-tuned minus from scratch": (Kind.MASKED, Kind.UNTRAINED)}
    return segmentation.make_segmentation(counts, pixel_runs, study, by="features", pairs=pairs)


def judge_claims(
    by_share: Mapping[float, Sequence[Row]],
    drifted: Mapping[str, Sequence[Row]],
    labelled: Mapping[tuple, Sequence[HeldOut]],
    tuned: Tuned,
    study: Study,
) -> Table:
    """SPCXR's claims on the first task, by AUC, and on pixels, by Dice; Holm over those that are asked.

    Whether a difference moves when the budget doubles is asked of the task, with the videos as they are.

    Args:
        by_share: From ``decide_all``.
        drifted: From ``decide_drifted``.
        labelled: From ``segmentation.hold_out_all``, or nothing.
        tuned: From ``tune``.
        study: The cohort.

    Returns:
        One line per claim: ``claim, published, asked, difference, ci_low, ci_high`` (points), ``p_value, p_holm,
        holds`` (whether twice the budget hardly moves it), ``verdict``.
    """
    halved = [arm for arm in tuned if arm.budget == HALF]
    task, shares = halved[0].task, sorted({arm.share for arm in halved})
    gain, holds = {}, {}
    for share in shares:
        whole = [pick(by_share[share], start, task) for start in STARTS]
        half = [decide_tuned(Arm(start, task, share, HALF), tuned, study) for start in STARTS]
        gain[share] = _subtract([row.held_out for row in whole], study.draws)
        holds[share] = bool(compare_budgets({1.0: whole, HALF: half}, study.draws)["holds"].all())
    asked = {"P1": (gain[1.0], holds[1.0])}
    if len(shares) > 1:
        asked["P2"] = gain[shares[0]] - gain[1.0], all(holds.values())
    for drift, found in drifted.items():
        asked[f"P3, {drift}"] = _subtract([row.held_out for row in found[:2]], study.draws), holds[1.0]
    if labelled:
        pixels = [labelled[start, WORDS[study.profile.name]["few"], ALL_THREE] for start in STARTS]
        asked["P4"] = _subtract(pixels, study.draws, "dice", segmentation_metrics), True
    lines = [(name, drawn[0], *bootstrap.describe_draws(drawn[1:]), held) for name, (drawn, held) in asked.items()]
    cells = pd.DataFrame(lines, columns=["claim", "difference", "ci_low", "ci_high", "p_value", "holds"])
    cells = cells.assign(p_holm=bootstrap.holm(cells["p_value"]))
    cells["verdict"] = [judge_claim(line.difference, line.p_holm, moves=not line.holds) for line in cells.itertuples()]
    others = [name for name in WORDS["claims"] if not cells["claim"].str.startswith(name).any()]
    cells = pd.concat([cells, pd.DataFrame({"claim": others, "verdict": "not asked"})], ignore_index=True)
    told = pd.DataFrame([WORDS["claims"][name[:2]] for name in cells["claim"]])
    cells = pd.concat([cells[["claim"]], told, cells.drop(columns="claim")], axis=1)
    texts = {name: cells[name].map(lambda p: of_cells.format_value(p, decimals=3)) for name in ("p_value", "p_holm")}
    shown = cells.assign(**texts).drop(columns="holds")
    shown = shown.rename(columns={"ci_low": "difference_low", "ci_high": "difference_high"})
    meant = "; ".join(f"*{verdict}*: {explain_verdict(verdict)}" for verdict in dict.fromkeys(cells["verdict"]))
    note = f"{title_of(task)}; fewest labels: {shares[0]:g} of them. {meant}."
    return Table(cells, of_cells.show_intervals(shown), note, runs=tuple(run for arm in halved for run in tuned[arm]))


def _subtract(pair: Sequence, draws: int, metric: str = "auc", measure: Callable = task_metrics) -> np.ndarray:
    """A metric of the second minus that of the first, as it is and in each draw, in points: shape (1 + D,)."""
    values = [bootstrap.estimate(held_out, draws, measure)[metric].value for held_out in pair]
    drawn = [bootstrap.draw_means(held_out, draws, measure)[metric] for held_out in pair]
    return 100 * np.append(values[1] - values[0], drawn[1] - drawn[0])


def describe_gain(cells: pd.DataFrame) -> str:
    """What pretraining adds to accuracy with the fewest labels, in a sentence, beside what is published."""
    few = cells[(cells["fraction"] == cells["fraction"].min()) & (cells["metric"] == "accuracy")]
    told = []
    for line in few[few["pair"] == next(iter(PAIRS))].itertuples():
        points = of_cells.format_value(line.mean, line.ci_low, line.ci_high, sign="+")
        told.append(f"{title_of(line.task)} {points} points, which is {line.relative:+.0f} percent")
    return f"Accuracy gained with {few['fraction'].iloc[0]:g} of the labels: {'; '.join(told)}. Published: about 25 %."
