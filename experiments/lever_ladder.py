"""What helps on real patients? One lever at a time, on inner folds of COVID-BLUES; no test patient is looked at.

Every rung trains on the training patients of a few run folds and is judged on their validation patients, with the
weights of the last epoch, so that nothing is chosen there. About ten minutes a rung on one core, so it runs only
when asked to; what is there already is not repeated:

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
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback

from lusbio.cohorts.targets import encode_task
from lusbio.files import Table, atomic_path, build_folder, text_sha256
from lusbio.network import USUAL_BACKBONE, clips, masking, training
from lusbio.profiles import PROFILES
from lusbio.runs import assembly
from lusbio.runs.masked import measure_pixels
from lusbio.runs.predict import predict_cohort
from lusbio.runs.spec import Own, PreparedCohort, Run, prepare_cohort, training_code
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

HIDDEN_BLOCK = 16
"""Sides of hidden blocks are multiples of this many pixels."""

DARK = 8 / 255
"""A row or column whose brightest mean pixel is darker lies outside the sector."""


@dataclass(frozen=True)
class Rung:
    """One lever.

    Attributes:
        name: One or a few words.
        change: What is different from the rung it is compared with, in words.
        task: What is trained.
        start: ``"scratch"``, ``"simulated"``, ``"self-supervised"`` or ``"masked"`` (both begin with the second).
        training: Other settings than the profile's.
        cropped: Whether frames are cut to the bounding box of the sector.
        augment: Another augmentation than the package's.
        loss: Another loss.
    """

    name: str
    change: str
    task: str = BIOMARKER_TASK
    start: str = "simulated"
    training: tuple[tuple[str, int], ...] = ()
    cropped: bool = False
    augment: Callable | None = None
    loss: Callable | None = None

    @property
    def against(self) -> str | None:
        """Name of the rung that it differs from in one thing."""
        scratch, simulated = NAMES[self.task]
        return None if self.name == scratch else scratch if self.name == simulated else simulated


# --- the levers ---


def keep_depth(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Augmentation that leaves depth alone: A-lines keep their distances, B-lines stay upright.

    Args:
        batch: float (B, T, 1, H, W), range [0, 1].
        generator: On the CPU.

    Returns:
        The same shape: mirrored, shifted sideways by up to 5 %, brightened as in the paper, and brightened
        or darkened by up to 20 % along a line or a bow in depth, each with probability 0.5.
    """
    maps, brightness = clips.draw_augmentation(len(batch), generator)
    flip, shift = torch.sign(maps[:, 0, 0]), maps[:, 0, 2]
    kept = torch.zeros_like(maps)
    kept[:, 0, 0], kept[:, 0, 2], kept[:, 1, 1] = flip, shift, 1
    moved = clips.apply_augmentation(batch, kept.to(batch.device), brightness.to(batch.device))
    slope, bow = 0.2 * (torch.rand(2, len(batch), 1, generator=generator) * 2 - 1)
    happens = torch.rand(len(batch), 1, generator=generator) < 0.5
    depth = torch.linspace(-1, 1, batch.shape[-2])
    gain = torch.where(happens, 1 + slope * depth + bow * (depth**2 - 0.5), 1.0)
    return (moved * gain[:, None, None, :, None].to(batch.device)).clamp(0, 1)


def earth_movers_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared distance of cumulative distributions (B, K), summed over grades; a scalar.

    Source: Hou, Yu and Samaras 2016, "Squared Earth Mover's Distance-based Loss".
    """
    true = F.one_hot(targets, logits.shape[1]).float().cumsum(1)
    return (logits.softmax(1).cumsum(1) - true).square().sum(1).mean()


def crop_to_sector(frames: np.ndarray, size: int) -> np.ndarray:
    """Cut off what is black in the mean frame, and bring the rest to a size.

    Args:
        frames: uint8 (N, H, W).
        size: Height and width of the result.

    Returns:
        uint8 (N, size, size).
    """
    mean = frames.mean(axis=0) / 255
    rows, columns = (np.flatnonzero(mean.max(axis=axis) > DARK) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return crop_to_sector(np.maximum(frames, 255), size)  # a black video stays whole
    inside = torch.from_numpy(np.array(frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))
    resized = F.interpolate(inside[:, None].float(), size=(size, size), mode="bilinear", antialias=True)
    return resized[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()


def tell_videos_apart(module: training.VideoModule, data: clips.ClipDataModule, steps: int = 160) -> None:
    """Pretrain a network on its training videos without labels: two clips of a video are alike, others are not.

    Args:
        module: Its network is changed.
        data: Its training rows are used, nothing else.
        steps: Of 16 videos each.

    Source: Chen et al. 2020, "SimCLR", normalised temperature-scaled cross-entropy, temperature 0.1.
    """
    rows = np.unique(data.sampler.rows)
    first, last = torch.nn.Linear(module.network.n_features, 128), torch.nn.Linear(128, 64)
    projection = torch.nn.Sequential(first, torch.nn.ReLU(), last)
    optimiser = torch.optim.Adam([*module.network.parameters(), *projection.parameters()], lr=3e-4)
    rng, generator = np.random.default_rng(module.seed), torch.Generator().manual_seed(module.seed)
    module.network.train()
    for _ in range(steps):
        drawn = np.tile(rng.choice(rows, size=16, replace=False), 2)
        starts = rng.integers(0, data.sampler.strides[drawn])
        batch = data.dataset.__getitems__(list(zip(drawn.tolist(), starts.tolist(), strict=True)))
        seen = clips.augment_clips(training.to_unit_range(batch["clips"]), generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=training.choose_precision(torch.device("cpu")) != "32-true"):
            vectors = F.normalize(projection(module.network.features(seen)).float(), dim=1)
        likeness = (vectors @ vectors.T / 0.1).masked_fill(torch.eye(len(vectors), dtype=torch.bool), -torch.inf)
        loss = F.cross_entropy(likeness, torch.arange(len(vectors)).roll(16))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def fill_in_what_is_hidden(module: training.VideoModule, data: clips.ClipDataModule, steps: int = 160) -> None:
    """Pretrain a network on its training videos without labels: say what is hidden, see ``network/masking.py``.

    Args:
        module: Its network is changed, but for the last layer.
        data: Its training rows are used, nothing else.
        steps: Of 16 videos each.
    """
    rows = np.unique(data.sampler.rows)
    network, own = masking.make_reconstructor(USUAL_BACKBONE, module.settings), module.network.state_dict()
    kept = {name: value for name, value in own.items() if not name.startswith("fc.")}
    network.load_state_dict(network.state_dict() | kept)
    mean, sd = measure_pixels([data.dataset.videos[row] for row in rows])
    network.pixels.mean.fill_(mean)
    network.pixels.sd.fill_(sd)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4)
    rng, generator = np.random.default_rng(module.seed), torch.Generator().manual_seed(module.seed)
    network.train()
    for _ in range(steps):
        drawn = rng.choice(rows, size=16, replace=False)
        starts = rng.integers(0, data.sampler.strides[drawn])
        batch = data.dataset.__getitems__(list(zip(drawn.tolist(), starts.tolist(), strict=True)))
        views = masking.draw_views(training.to_unit_range(batch["clips"]), generator)
        seen, hidden = masking.corrupt(views, generator, HIDDEN_BLOCK, network.pixels)
        with torch.autocast("cpu", torch.bfloat16, enabled=training.choose_precision(torch.device("cpu")) != "32-true"):
            said = network(seen)
        loss = masking.masked_l1(said.float(), network.pixels(views), hidden)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    module.network.load_state_dict(own | {name: network.state_dict()[name] for name in kept})


# --- the ladder ---

NAMES = {
    BIOMARKER_TASK: ("from scratch", "from simulated"),
    SEVERITY: ("severity from scratch", "severity from simulated"),
}
"""The two rungs that others are compared with, by task."""

RUNGS = (
    Rung("from scratch", "random weights", start="scratch"),
    Rung("from simulated", "starts from a network of simulated convex patients"),
    Rung("cropped to the sector", "black borders cut off", cropped=True),
    Rung("depth kept", "no zoom, no rotation, sideways shifts only, gain by depth", augment=keep_depth),
    Rung("15 frames", "15 frames instead of 8", training=(("frames", 15),)),
    Rung("self-supervised", "first learns to tell the training videos apart, without labels", start="self-supervised"),
    Rung("hidden parts", "first fills in hidden parts of the training videos, without labels", start="masked"),
    Rung("112 pixels", "112 pixels instead of 64", training=(("image_size", 112),)),
    Rung("severity from scratch", "random weights", task=SEVERITY, start="scratch"),
    Rung("severity from simulated", "starts from a network of simulated convex patients", task=SEVERITY),
    Rung(
        "severity, hidden parts",
        "first fills in hidden parts of the training videos, without labels",
        task=SEVERITY,
        start="masked",
    ),
    Rung(
        "ordinal loss",
        "distance of cumulative distributions instead of cross-entropy",
        task=SEVERITY,
        loss=earth_movers_loss,
    ),
)


# --- climbing ---


class LastEpoch(Callback):
    """Predicts the validation videos with the weights of the last epoch, whichever epoch was best."""

    def __init__(self, rows: np.ndarray, data: clips.ClipDataModule):
        self.rows, self.data, self.probabilities = rows, data, {}

    def on_train_end(self, trainer, pl_module) -> None:
        """Keep probabilities by number of clips."""
        for n_clips in CLIPS:
            loader = clips.evaluation_loader(self.data.dataset, self.rows, n_clips)
            self.probabilities[n_clips] = training.predict(pl_module, loader, device=torch.device("cpu"))[0]


def prepare_rung(rung: Rung, real: Study) -> PreparedCohort:
    """The patients as a rung sees them."""
    settings = replace(real.profile.training, **dict(rung.training))
    prepared = prepare_cohort(real.cohort, replace(real.profile, training=settings))
    if rung.cropped:
        larger = FrameCache(build_folder("cache"), 2 * settings.image_size).prepare(prepared.cohort.video_paths())
        videos = [DecodedVideo(crop_to_sector(video.load(), settings.image_size)) for video in larger]
        prepared = replace(prepared, videos=videos)
    return prepared


def train_rung(rung: Rung, fold: int, real: Study, simulated: Sequence[Run]) -> Path:
    """Train a rung on one fold; what is there already is not repeated.

    ``Study.train`` would keep the epoch that did best on the patients who judge here; so the same parts are put
    together one step lower, and the last epoch is looked at.

    Args:
        rung: The rung.
        fold: Run fold.
        real: The patients.
        simulated: Biomarker runs of simulated patients, by fold.

    Returns:
        The file with the validation rows and their probabilities.
    """
    own = Own(loss=rung.loss, augment=rung.augment)
    usual = real.specs(rung.task)[fold]
    start = usual.initial_weights if rung.start == "scratch" else f"run:{simulated[fold].folder.name}"
    code = training_code(USUAL_BACKBONE), own.name
    mark = text_sha256(real.profile.name, rung.name, rung.training, rung.start, fold, start, real.data, code)
    path = build_folder("ladder", f"{mark[:12]}-fold{fold}.npz")
    if path.exists():
        return path
    with training.one_thread():
        prepared = prepare_rung(rung, real)
        spec = prepared.specs(rung.task, initial_weights=start, own=own.name)[fold]
        rows, targets, _ = assembly.choose_rows(spec, prepared)
        module, data, _ = assembly.assemble(spec, prepared, rows, targets, own)
        if rung.start == "self-supervised":
            tell_videos_apart(module, data)
        if rung.start == "masked":
            fill_in_what_is_hidden(module, data)
        watch, folder = LastEpoch(rows["val"], data), path.with_suffix("")
        folder.mkdir(parents=True, exist_ok=True)
        training.fit(module, data, folder, device=torch.device("cpu"), callbacks=[watch])
        training.remove_checkpoints(folder)
        folder.rmdir()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, rows=rows["val"], **{f"clips_{n}": p for n, p in watch.probabilities.items()})
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
    "over patients. Kept would be a lever whose gain has an interval that excludes 0."
)


def climb(real: Study, simulated: Sequence[Run]) -> pd.DataFrame:
    """Train and judge every rung."""
    work = [(rung, fold) for rung in RUNGS for fold in FOLDS]
    done = joblib.Parallel(n_jobs=real.jobs, return_as="generator")(
        joblib.delayed(train_rung)(rung, fold, real, simulated) for rung, fold in work
    )
    paths: dict[str, list[Path]] = {}
    rows = []
    for (rung, fold), path in zip(work, done, strict=True):
        paths.setdefault(rung.name, []).append(path)
        if fold == FOLDS[-1]:
            answers = read_answers(paths[rung.name])
            reference = read_answers(paths[rung.against]) if rung.against else None
            rows += judge(rung.name, rung.change, answers, reference, rung.task, real)
            for row in rows[-2:]:
                print({k: v if isinstance(v, str | int) else round(v, 1) for k, v in row.items()}, flush=True)
    return pd.DataFrame(rows + judge_without_training(paths, simulated, real))


def main() -> None:
    """Climb, and write ``lever_ladder.csv`` and ``.md`` beside the tables of COVID-BLUES."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="about ten minutes a rung on one core")
    parser.add_argument("--profile", default="laptop", choices=PROFILES, help="smoke: only to see that it works")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if not options.run:
        print(f"{len(RUNGS)} rungs, {len(FOLDS)} trainings each: run with --run")
        return
    real = open_study(options.profile, "covid_blues", options.jobs)
    simulated = open_study(options.profile, "synthetic_convex", options.jobs).train(BIOMARKER_TASK)
    table = climb(real, simulated)
    print(real.publish("lever_ladder", Table(table, note=NOTE, runs=tuple(simulated))))


if __name__ == "__main__":
    main()
