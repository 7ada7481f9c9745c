"""How much network does the synthetic cohort need? AUC of held-out patients against seconds of one thread.

Trainings of many sizes on cohorts of other seeds than the default one, so that the default cohort is met once, when
everything is chosen. A first round tries one thing at a time in one fold; what is written in ``FINAL`` is repeated with
more seeds and folds. Weights are those of the last epoch, so no patient that judges has chosen anything. What is
there already is not repeated:

    .venv/bin/python experiments/frontier.py --run --jobs 2
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lusbio.cohorts.synthetic import simulate_cohort
from lusbio.cohorts.targets import encode_task
from lusbio.files import Table, build_folder, text_sha256, write_json
from lusbio.network import USUAL_BACKBONE, clips, training
from lusbio.network.tsm import TSMResNet18
from lusbio.profiles import TrainingSettings, find_profile
from lusbio.report.figures import use_style
from lusbio.runs import assembly
from lusbio.runs.origin import describe_making
from lusbio.runs.spec import Own, PreparedCohort, prepare_cohort, training_code
from lusbio.runs.study import open_study
from lusbio.statistics.metrics import biomarker_metrics, task_metrics
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY, Kind

ROUTES = BIOMARKER_TASK, SEVERITY

PIXELS = 128
"""Of the videos; frames are scaled down from there."""


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        width: Channels of the first stage.
        image_size: Pixels.
        frames: Of a clip.
        epochs: Of ``clips_per_epoch`` clips each.
        clips_per_epoch: Clips of an epoch.
        batch_size: Clips of a batch.
        learning_rate: Adam's peak learning rate.
        schedule: As in ``TrainingSettings``.
        dropout: Before the last layer.
        augment: Strength of the augmentation; 1 is the paper's, 0 is none.
        smoothing: Of labels: probability mass given to what is not the label.
        decay: Of weights, AdamW's.
        average: Decay of the moving average of weights, by step; 0 is none.
        balance: Power of (absent / present) by which the rare value of a biomarker counts more.
        pool: Over time.
    """

    width: int = 16
    image_size: int = 64
    frames: int = 8
    epochs: int = 12
    clips_per_epoch: int = 320
    batch_size: int = 8
    learning_rate: float = 1e-3
    schedule: str = "one_cycle"
    dropout: float = 0.5
    augment: float = 1.0
    smoothing: float = 0.0
    decay: float = 0.0
    average: float = 0.0
    balance: float = 0.0
    pool: str = "max"

    @property
    def words(self) -> str:
        """What differs from the start, e.g. ``"width 32, epochs 24"``."""
        usual = asdict(Setting())
        changed = {name: value for name, value in asdict(self).items() if value != usual[name]}
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changed.items()) or "start"


def list_first_round() -> list[Setting]:
    """The grid of size and length; one thing at a time from the start; what helped, together; wider networks."""
    start = Setting()
    sizes = [replace(start, image_size=size, epochs=epochs) for size in (64, 96) for epochs in (12, 24)]
    levers = [
        replace(start, frames=4),
        replace(start, learning_rate=2e-3),
        replace(start, batch_size=16, learning_rate=2e-3),
        *(replace(start, dropout=dropout) for dropout in (0.0, 0.2)),
        *(replace(start, augment=augment) for augment in (0.0, 0.5)),
        replace(start, average=0.98),
        replace(start, pool="mean"),
        replace(start, decay=0.05),
    ]
    best = replace(start, pool="mean")
    together = [
        *(replace(best, dropout=0.2), replace(best, learning_rate=2e-3), replace(best, image_size=96)),
        *(replace(best, image_size=96, frames=4, epochs=epochs) for epochs in (12, 24)),
    ]
    rest = [
        replace(start, smoothing=0.1),
        replace(start, balance=0.5),
        replace(start, schedule="plateau"),
        replace(start, epochs=6),
    ]
    wider = [replace(CHOSEN, width=width) for width in (24, 32, 48, 64)]
    return [*sizes, *levers, *together, *rest, *wider]


CHOSEN = Setting(pool="mean", image_size=96, frames=4, epochs=16)
"""The laptop profile."""

FINAL = (Setting(), *(replace(CHOSEN, epochs=epochs) for epochs in (12, 16, 24)))
"""What is tried on other patients and in another fold as well."""


# --- the levers ---


def augment_by(strength: float, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The paper's augmentation, its ranges multiplied by a strength; batch (B, T, 1, H, W) in [0, 1]."""
    maps, brightness = clips.draw_augmentation(len(batch), generator)
    flip = torch.sign(maps[:, :1, :1]) * torch.tensor([[1.0, 0, 0], [0, 0, 0]]) + torch.tensor([[0.0, 0, 0], [0, 1, 0]])
    maps = flip + strength * (maps - flip)  # between a mirror (or nothing) and the whole map, or beyond
    return clips.apply_augmentation(batch, maps.to(batch.device), 1 + strength * (brightness.to(batch.device) - 1))


def smooth_loss(
    smoothing: float, weights: torch.Tensor | None, logits: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of classes (B,) or known biomarkers (B, 38), with smoothed labels, present ones weighted (38,)."""
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    known = ~targets.isnan()
    smooth = targets.nan_to_num() * (1 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none", pos_weight=weights)
    return (losses * known).sum() / known.sum().clamp(min=1)


class TrialModule(training.VideoModule):
    """A training with weight decay."""

    decay = 0.0

    def configure_optimizers(self) -> dict:
        """AdamW in place of Adam; without decay they are the same."""
        parts = super().configure_optimizers()
        for group in parts["optimizer"].param_groups:
            group["weight_decay"], group["decoupled_weight_decay"] = self.decay, True
        return parts


# --- trials ---


def open_cohort(seed: int, image_size: int, jobs: int = 1) -> PreparedCohort:
    """Simulated patients of a seed of their own, as many as in the paper, at some size."""
    laptop = find_profile("laptop")
    folder = build_folder("frontier", f"cohort_{seed}")
    cohort = simulate_cohort(folder, laptop.patients, PIXELS, laptop.video_frames, seed=seed, jobs=jobs)
    settings = replace(laptop.training, image_size=image_size)
    return prepare_cohort(cohort, replace(laptop, training=settings), jobs)


def run_trial(setting: Setting, task: str, seed: int, fold: int) -> dict:
    """Train once and judge by the patients who are not trained on; what is there already is read."""
    prepared = open_cohort(seed, setting.image_size)
    mark = text_sha256(asdict(setting), task, seed, fold, prepared.data, training_code(USUAL_BACKBONE))[:16]
    path = build_folder("frontier", "trials", f"{mark}.json")
    if path.exists():
        return json.loads(path.read_text())
    with training.one_thread():
        found = _train_and_judge(setting, task, seed, fold, prepared, path.with_suffix(""))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json({**asdict(setting), "task": task, "seed": seed, "fold": fold, **found}, path)
    return json.loads(path.read_text())


def _train_and_judge(setting: Setting, task: str, seed: int, fold: int, prepared: PreparedCohort, folder: Path) -> dict:
    shared = {field.name for field in fields(TrainingSettings)} & set(asdict(setting))
    known = {name: getattr(setting, name) for name in shared}
    spec = prepared.specs(task, training=replace(prepared.profile.training, **known), seed=seed)[fold]
    rows, targets, _ = assembly.choose_rows(spec, prepared)
    weights = None
    if task == BIOMARKER_TASK and setting.balance:
        present = torch.from_numpy(np.nanmean(targets[rows["train"]], axis=0))
        weights = ((1 - present) / present).pow(setting.balance).nan_to_num(1.0)
    make = partial(TSMResNet18, width=setting.width, dropout=setting.dropout, pool=setting.pool)
    loss, augment = partial(smooth_loss, setting.smoothing, weights), partial(augment_by, setting.augment)
    module, data, _ = assembly.assemble(spec, prepared, rows, targets, Own(make, loss, augment))
    module.__class__, module.decay = TrialModule, setting.decay
    callbacks = [EMAWeightAveraging(decay=setting.average)] if setting.average else []
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was killed: its seconds would be too few
    folder.mkdir(parents=True)
    start = time.process_time()
    last = KeepLast()
    training.fit(module, data, folder, device=torch.device("cpu"), callbacks=[*callbacks, last])
    seconds = time.process_time() - start
    module.network.load_state_dict(last.weights)
    probabilities, _ = assembly.predict_all(module, data, spec, torch.device("cpu"))
    training.remove_checkpoints(folder)
    folder.rmdir()
    splits = prepared.splits(fold).to_numpy()
    return {"seconds": round(seconds, 1), **_judge(probabilities, targets, splits, task, prepared)}


class KeepLast(Callback):
    """Keeps the weights of the end, those of a moving average where there is one."""

    def on_train_end(self, trainer, pl_module) -> None:
        """Keep them."""
        self.weights = {name: value.clone() for name, value in pl_module.network.state_dict().items()}


def _judge(
    probabilities: np.ndarray, targets: np.ndarray, splits: np.ndarray, task: str, prepared: PreparedCohort
) -> dict:
    held_out, known = splits != "train", encode_task(prepared.table, SEVERITY)
    if task == SEVERITY:
        return {key: 100 * task_metrics(known[held_out], probabilities[held_out])[key] for key in ("auc", "accuracy")}
    labels = np.where(np.isnan(targets).all(0), np.nan, targets)
    auc = 100 * biomarker_metrics(labels[held_out], probabilities[held_out])["mean_auc"]
    odds = np.log(probabilities.clip(1e-4, 1 - 1e-4) / (1 - probabilities.clip(1e-4, 1 - 1e-4)))
    train = splits == "train"
    expert = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000))
    expert.fit(odds[train], known[train])
    return {"auc": auc, "expert_auc": 100 * task_metrics(known[held_out], expert.predict_proba(odds[held_out]))["auc"]}


def summarise(trials: Sequence[dict]) -> pd.DataFrame:
    """One row per setting, means over cohorts and folds.

    Returns:
        ``setting, trials`` (of each route), ``seconds`` of one thread and training; AUC of held-out patients, percent:
        ``biomarkers`` (mean over them), ``expert`` (severity from them), ``end_to_end`` (severity), each with
        ``_error``, the standard error of the mean.
    """
    frame = pd.DataFrame(trials)
    names = list(asdict(Setting()))
    frame["setting"] = [Setting(**{name: trial[name] for name in names}).words for trial in trials]
    rows = []
    for setting, of_one in frame.groupby("setting", sort=False):
        of_biomarkers, end_to_end = (of_one[of_one["task"] == task] for task in (BIOMARKER_TASK, SEVERITY))
        row = {"setting": setting, "trials": len(of_biomarkers), "seconds": of_one["seconds"].mean()}
        measured = {
            "biomarkers": of_biomarkers["auc"],
            "expert": of_biomarkers["expert_auc"],
            "end_to_end": end_to_end["auc"],
        }
        for name, aucs in measured.items():
            row |= {name: aucs.mean(), f"{name}_error": aucs.sem()}
        rows.append(row)
    return pd.DataFrame(rows)


NOTE = (
    "How much network the synthetic cohort needs: means over trainings of cohorts of other seeds than the default one. "
    "Seconds: of one thread, per training. AUC in percent of patients that were not trained on, weights of the last "
    "epoch, with the standard error over trainings: of biomarkers (mean over them), of severity decided from them by a "
    "logistic regression, of severity decided end to end."
)


SECONDS = (20, 50, 100, 200, 400)
"""What is written on the axis."""


def plot_frontier(cells: pd.DataFrame, *, ax) -> Axes:
    """AUC against seconds of one thread, a dot per setting and route."""
    for column, kind in (("expert", Kind.BIOMARKERS), ("end_to_end", Kind.END_TO_END)):
        errors = {"yerr": cells[f"{column}_error"], "elinewidth": 0.5}
        ax.errorbar(cells["seconds"], cells[column], fmt="o", color=kind.colour, label=kind.words, **errors)
    ax.set(xscale="log", xlabel="seconds of one thread, per training", ylabel="AUC of severity, %")
    ax.minorticks_off()
    ax.set_xticks(SECONDS, map(str, SECONDS))
    ax.legend()
    return ax


def main() -> None:
    """Try what is missing, and write ``frontier.csv``, ``.md`` and a picture beside the tables of the cohort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="about an hour on two cores")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    tried = [(setting, seed, fold) for setting in FINAL for seed in (1, 2) for fold in (0, 1)]
    tried += [(setting, 1, 0) for setting in list_first_round()]
    work = [(setting, task, seed, fold) for setting, seed, fold in dict.fromkeys(tried) for task in ROUTES]
    if not options.run:
        print(f"{len(work)} trainings, about a minute each: run with --run")
        return
    for seed, size in sorted({(seed, setting.image_size) for setting, _, seed, _ in work}):
        open_cohort(seed, size, options.jobs)
    done = []
    for trial in joblib.Parallel(options.jobs, return_as="generator")(joblib.delayed(run_trial)(*one) for one in work):
        done.append(trial)
        if len(done) % 2 == 0:
            print(summarise(done[-2:]).round(1).to_string(header=len(done) == 2, index=False), flush=True)
    study, cells = open_study("laptop", "synthetic", options.jobs), summarise(done)
    seeds = ", ".join(map(str, sorted({trial["seed"] for trial in done})))
    whose = f"**Simulated** patients, {study.profile.patients} each of the seeds {seeds}"
    origin = " · ".join([whose, *describe_making(study, ())])
    print(study.publish("frontier", Table(cells, note=NOTE, origin=origin)))
    use_style()
    fig, ax = plt.subplots(figsize=(6, 4))
    plot_frontier(cells, ax=ax)
    study.publish("frontier", fig)


if __name__ == "__main__":
    main()
