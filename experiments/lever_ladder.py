"""What helps on real patients? One lever at a time, on inner folds of COVID-BLUES; no test patient is looked at.

Every rung trains on the training patients of a few run folds and is judged on their validation patients, with the
weights of the last epoch, so that nothing is chosen there. All of it takes long, so it runs only when asked to; what is
there already is not repeated:

    LUSBIO_DATA=FOLDER .venv/bin/python experiments/lever_ladder.py --run
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from _levers import SignsToo, crop_to_sector, earth_movers_loss, fill_in_what_is_hidden, learn_signs, tell_videos_apart
from pytorch_lightning.callbacks import Callback

from lusbio.cohorts.targets import encode_task
from lusbio.experts.signs import take_signs
from lusbio.files import Table, atomic_path, build_folder, code_fingerprint, text_sha256
from lusbio.network import clips, training
from lusbio.network.sign_targets import keep_depth, standardise_signs
from lusbio.profiles import PROFILES, TrainingSettings, find_profile
from lusbio.runs import assembly
from lusbio.runs.masked import choose_unlabelled
from lusbio.runs.predict import predict_cohort
from lusbio.runs.spec import Own, PreparedCohort, Run, RunSpec, prepare_cohort
from lusbio.runs.study import Study, open_study
from lusbio.statistics.bootstrap import HeldOut, estimate, paired_difference
from lusbio.statistics.metrics import finding_auc, task_metrics
from lusbio.videos import DecodedVideo, FrameCache
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, SEVERITY, group_names

FOLDS = (0, 1)
"""Run folds whose validation patients judge; those patients are tested in run folds 1 and 2."""

FINDINGS = {name: BIOMARKER_NAMES.index(group_names(name)[0]) for name in ("A-lines", "B-lines")}
"""What biomarker networks are asked: the position of "none" by group of findings."""

CLIPS = (2, 8)
"""Clips of a video that a prediction averages: as the profile has it, and more."""

FEW = 1 / 8
"""Share of the training patients whose labels are used where there are few."""

UNITS = {"frames": "frames", "image_size": "pixels"}
"""What settings count, in words."""

LEVERS = "../experiments/_levers.py"
"""The file whose code decides numbers, besides the package's."""


@dataclass(frozen=True)
class Rung:
    """One lever.

    Attributes:
        name: One or a few words.
        change: What is different from the rung it is compared with, in words; of settings, ``say_change`` finds them.
        task: What is trained.
        start: ``"scratch"``, ``"simulated"``, or what begins there and first learns without labels from all training
            videos: ``"self-supervised"``, ``"masked"`` or ``"signs"``.
        training: Other settings than the profile's.
        label_fraction: Share of the training patients whose labels are used.
        signs_too: Whether measured signs are targets beside the labels.
        cropped: Whether frames are cut to the bounding box of the sector.
        augment: Another augmentation than the package's.
        loss: Another loss.
    """

    name: str
    change: str = ""
    task: str = BIOMARKER_TASK
    start: str = "simulated"
    training: tuple[tuple[str, int], ...] = ()
    label_fraction: float = 1.0
    signs_too: bool = False
    cropped: bool = False
    augment: Callable | None = None
    loss: Callable | None = None

    @property
    def against(self) -> str | None:
        """Name of the rung that it differs from in one thing."""
        scratch, simulated, few = NAMES[self.task]
        if self.name in (scratch, simulated):
            return None if self.name == scratch else scratch
        return few if self.label_fraction < 1 and self.name != few else simulated

    @property
    def own(self) -> Own:
        """What stands in place of the package's parts."""
        return Own(loss=self.loss, augment=self.augment)

    def change_settings(self, usual: TrainingSettings) -> TrainingSettings:
        """Its settings, in place of the usual ones."""
        return replace(usual, **dict(self.training))

    def say_change(self, usual: TrainingSettings) -> str:
        """What is different, in words; of settings, beside the usual ones."""
        told = [f"{value} {UNITS[name]} instead of {getattr(usual, name)}" for name, value in self.training]
        return ", ".join(told) or self.change


# --- the ladder ---

NAMES = {
    BIOMARKER_TASK: ("from scratch", "from simulated", "from simulated, 1/8 of the labels"),
    SEVERITY: ("severity from scratch", "severity from simulated", "severity from simulated, 1/8 of the labels"),
}
"""The rungs that others are compared with, by task; the last one is the reference of those with as few labels."""

RANDOM, SIMULATED = "random weights", "starts from a network of simulated convex patients"
FEWER = "labels of 1/8 of the training patients instead of all"
HIDDEN = "first fills in hidden parts of the training videos, without labels"
SIGNS = "first learns to predict the measured signs of the training videos, without labels"
ORDINAL = "distance of cumulative distributions instead of cross-entropy"

RUNGS = (
    Rung("from scratch", RANDOM, start="scratch"),
    Rung("from simulated", SIMULATED),
    Rung("cropped to the sector", "black borders cut off", cropped=True),
    Rung("depth kept", "no zoom, no rotation, sideways shifts only, gain by depth", augment=keep_depth),
    *(Rung(f"{frames} frames", training=(("frames", frames),)) for frames in (8, 15)),
    *(Rung(f"{pixels} pixels", training=(("image_size", pixels),)) for pixels in (64, 112)),
    Rung("self-supervised", "first learns to tell the training videos apart, without labels", start="self-supervised"),
    Rung("hidden parts", HIDDEN, start="masked"),
    Rung("signs first", SIGNS, start="signs"),
    Rung("signs too", "learns to predict the measured signs beside the biomarkers", signs_too=True),
    Rung("from simulated, 1/8 of the labels", FEWER, label_fraction=FEW),
    Rung("hidden parts, 1/8 of the labels", HIDDEN, start="masked", label_fraction=FEW),
    Rung("severity from scratch", RANDOM, task=SEVERITY, start="scratch"),
    Rung("severity from simulated", SIMULATED, task=SEVERITY),
    Rung("severity, hidden parts", HIDDEN, task=SEVERITY, start="masked"),
    Rung("severity, signs first", SIGNS, task=SEVERITY, start="signs"),
    Rung("severity from simulated, 1/8 of the labels", FEWER, task=SEVERITY, label_fraction=FEW),
    Rung("severity, hidden parts, 1/8 of the labels", HIDDEN, task=SEVERITY, start="masked", label_fraction=FEW),
    Rung("ordinal loss", ORDINAL, task=SEVERITY, loss=earth_movers_loss),
)


def list_rungs(usual: TrainingSettings) -> list[Rung]:
    """The rungs that change something at a profile's settings."""
    return [rung for rung in RUNGS if not rung.training or rung.change_settings(usual) != usual]


# --- climbing ---


class LastEpoch(Callback):
    """Predicts the validation videos with the weights of the last epoch, whichever epoch was best."""

    def __init__(self, data: clips.ClipDataModule):
        self.data, self.probabilities = data, {}

    def on_train_end(self, trainer, pl_module) -> None:
        """Keep probabilities by number of clips."""
        for n_clips in CLIPS:
            loader = clips.evaluation_loader(self.data.dataset, self.data.validation_rows, n_clips)
            self.probabilities[n_clips] = training.predict(pl_module, loader, device=torch.device("cpu"))[0]


def prepare_rung(rung: Rung, real: Study) -> PreparedCohort:
    """The patients as a rung sees them."""
    settings = rung.change_settings(real.profile.training)
    prepared = prepare_cohort(real.cohort, replace(real.profile, training=settings))
    if rung.cropped:
        larger = FrameCache(build_folder("cache"), 2 * settings.image_size).prepare(prepared.cohort.video_paths())
        videos = [DecodedVideo(crop_to_sector(video.load(), settings.image_size)) for video in larger]
        prepared = replace(prepared, videos=videos)
    return prepared


def describe_training(rung: Rung, fold: int, real: Study, simulated: Sequence[Run]) -> RunSpec:
    """A rung's training in one fold, but for what it learns without labels and what is cropped."""
    start = {} if rung.start == "scratch" else {"initial_weights": f"run:{simulated[fold].folder.name}"}
    settings = rung.change_settings(real.profile.training)
    changes = {"training": settings, "label_fraction": rung.label_fraction, "own": rung.own.name}
    return real.specs(rung.task, **changes, **start)[fold]


def assemble_rung(
    rung: Rung, spec: RunSpec, real: Study, signs: np.ndarray
) -> tuple[training.VideoModule, clips.ClipDataModule]:
    """A rung's network when it begins to learn from labels, and its clips; signs of all videos (V, S)."""
    prepared = prepare_rung(rung, real)
    rows, targets, _ = assembly.choose_rows(spec, prepared)
    module, data, _ = assembly.assemble(spec, prepared, rows, targets, rung.own)
    everyone = choose_unlabelled(spec, prepared)["train"]
    standard = standardise_signs(signs, everyone)
    if rung.start == "self-supervised":
        tell_videos_apart(module, data, everyone)
    elif rung.start == "masked":
        fill_in_what_is_hidden(module, data, everyone)
    elif rung.start == "signs":
        learn_signs(module, data, everyone, standard)
    return SignsToo(module, standard) if rung.signs_too else module, data


def train_rung(rung: Rung, fold: int, real: Study, simulated: Sequence[Run], signs: np.ndarray) -> Path:
    """Train a rung on one fold; what is there already is not repeated.

    ``Study.train`` would keep the epoch that did best on the patients who judge here; so the same parts are put
    together one step lower, and the last epoch is looked at.

    Args:
        rung: The rung.
        fold: Run fold.
        real: The patients.
        simulated: Biomarker runs of simulated patients, by fold.
        signs: Measured in the videos, (V, S).

    Returns:
        The file with the validation rows and their probabilities.
    """
    spec = describe_training(rung, fold, real, simulated)
    known = signs.tolist() if rung.start == "signs" or rung.signs_too else None
    parts = (spec.run_id, rung.name, rung.start, rung.cropped, rung.signs_too, known, code_fingerprint(LEVERS))
    path = build_folder("ladder", f"{text_sha256(*parts)[:12]}-fold{fold}.npz")
    if path.exists():
        return path
    with training.one_thread():
        module, data = assemble_rung(rung, spec, real, signs)
        watch, folder = LastEpoch(data), path.with_suffix("")
        folder.mkdir(parents=True, exist_ok=True)
        training.fit(module, data, folder, device=torch.device("cpu"), callbacks=[watch])
        training.remove_checkpoints(folder)
        folder.rmdir()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, rows=data.validation_rows, **{f"clips_{n}": p for n, p in watch.probabilities.items()})
    return path


# --- judging ---

Answer = tuple[np.ndarray, np.ndarray]
"""Validation rows of a fold and probabilities."""


def read_answers(paths: Sequence[Path], n_clips: int = CLIPS[0]) -> list[Answer]:
    """What a rung said, fold by fold."""
    found = [np.load(path) for path in paths]
    return [(each["rows"], each[f"clips_{n_clips}"].astype(np.float64)) for each in found]


def average_patient(answers: Sequence[Answer], groups: np.ndarray) -> list[Answer]:
    """Half the video's own probabilities, half the mean over all places of the same patient."""
    mixed = []
    for rows, probabilities in answers:
        frame = pd.DataFrame(probabilities)
        mean = frame.groupby(groups[rows]).transform("mean").to_numpy()
        mixed.append((rows, (probabilities + mean) / 2))
    return mixed


def judge(
    name: str, change: str, answers: Sequence[Answer], reference: Sequence[Answer] | None, task: str, real: Study
) -> list[dict]:
    """One row per finding, or one for severity: AUC in percent and its difference to a reference, over patients."""
    found, measure = [], task_metrics if task == SEVERITY else finding_auc
    for asked in [SEVERITY] if task == SEVERITY else FINDINGS:
        held_out = select(answers, asked, real)
        auc = estimate(held_out, real.draws, measure)["auc"]
        row = {"lever": name, "change": change, "asked": asked}
        row |= {"auc": 100 * auc.value, "ci_low": 100 * auc.low, "ci_high": 100 * auc.high}
        if reference is not None:
            gain = paired_difference(held_out, select(reference, asked, real), real.draws, measure)["auc"]
            row |= {"gain": 100 * gain.value, "gain_low": 100 * gain.low, "gain_high": 100 * gain.high}
        patients = len({group for run in held_out for group in run.groups})
        found.append(row | {"videos": sum(len(run.labels) for run in held_out), "patients": patients})
    return found


def select(answers: Sequence[Answer], asked: str, real: Study) -> list[HeldOut]:
    """The validation videos with a known label, fold by fold."""
    if asked == SEVERITY:
        labels = encode_task(real.table, SEVERITY)
    else:
        none = real.table[BIOMARKER_NAMES[FINDINGS[asked]]]
        labels = np.where(none.notna(), none == 0, -1).astype(int)
    groups, held_out = real.table["group_id"].to_numpy(), []
    for rows, probabilities in answers:
        scores = probabilities if asked == SEVERITY else 1 - probabilities[:, FINDINGS[asked]]
        held_out.append(HeldOut(labels[rows], scores, groups[rows]).keep(labels[rows] >= 0))
    return held_out


def judge_without_training(paths: dict[str, list[Path]], simulated: Sequence[Run], real: Study) -> list[dict]:
    """Levers that need no training: more clips, the patient's other places, frozen and adapted together."""
    groups = real.table["group_id"].to_numpy()
    adapted, severity = (read_answers(paths[NAMES[task][1]]) for task in (BIOMARKER_TASK, SEVERITY))
    adapted_more, severity_more = (read_answers(paths[NAMES[task][1]], CLIPS[1]) for task in (BIOMARKER_TASK, SEVERITY))
    frozen = np.nanmean([predict_cohort(run, real, CLIPS[0]) for run in simulated], axis=0)
    alone = [(rows, frozen[rows]) for rows, _ in adapted]
    fused = [(rows, (frozen[rows] + p) / 2) for rows, p in adapted]
    more, per_patient = f"{CLIPS[1]} clips instead of {CLIPS[0]}", "half from the patient's other places"
    tried = [
        ("more clips", more, adapted_more, adapted, BIOMARKER_TASK),
        ("more clips", more, severity_more, severity, SEVERITY),
        ("places together", per_patient, average_patient(adapted, groups), adapted, BIOMARKER_TASK),
        ("places together", per_patient, average_patient(severity, groups), severity, SEVERITY),
        ("frozen", "never saw a real video", alone, adapted, BIOMARKER_TASK),
        ("fused", "mean of frozen and adapted", fused, adapted, BIOMARKER_TASK),
    ]
    return [row for lever in tried for row in judge(*lever, real)]


# --- all of it ---

NOTE = (
    "What helps on real patients. AUC in percent. Validation patients of two run folds, never test patients of the "
    "same run; weights of the last epoch. Gain: paired with the rung that it differs from in one thing. 95 % intervals "
    "over patients. Kept would be a lever whose gain has an interval that excludes 0; of {gains} gains some do by "
    "chance, nothing is corrected for that, and cropping, which does for B-lines alone, was not taken over. What is "
    "learnt without labels is learnt from all training videos, however few have labels."
)


def climb(real: Study, simulated: Sequence[Run]) -> pd.DataFrame:
    """Train and judge every rung."""
    usual = real.profile.training
    work = [(rung, fold) for rung in list_rungs(usual) for fold in FOLDS]
    signs = take_signs(real, real.jobs)
    done = joblib.Parallel(n_jobs=real.jobs, return_as="generator")(
        joblib.delayed(train_rung)(rung, fold, real, simulated, signs) for rung, fold in work
    )
    paths: dict[str, list[Path]] = {}
    rows = []
    for (rung, fold), path in zip(work, done, strict=True):
        paths.setdefault(rung.name, []).append(path)
        if fold == FOLDS[-1]:
            answers = read_answers(paths[rung.name])
            reference = read_answers(paths[rung.against]) if rung.against else None
            judged = judge(rung.name, rung.say_change(usual), answers, reference, rung.task, real)
            for row in judged:
                print({k: v if isinstance(v, str | int) else round(v, 1) for k, v in row.items()}, flush=True)
            rows += judged
    return pd.DataFrame(rows + judge_without_training(paths, simulated, real))


def main() -> None:
    """Climb, and write ``lever_ladder.csv`` and ``.md`` beside the tables of COVID-BLUES."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="train what is not there yet, and write the table")
    parser.add_argument("--profile", default="laptop", choices=PROFILES, help="smoke: only to see that it works")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if not options.run:
        rungs = list_rungs(find_profile(options.profile).training)
        print(f"{len(rungs)} rungs, {len(FOLDS)} trainings each: run with --run")
        return
    real = open_study(options.profile, "covid_blues", options.jobs)
    simulated = open_study(options.profile, "synthetic_convex", options.jobs).train(BIOMARKER_TASK)
    table = climb(real, simulated)
    note = NOTE.format(gains=table["gain"].count())
    print(real.publish("lever_ladder", Table(table, note=note, runs=tuple(simulated))))


if __name__ == "__main__":
    main()
