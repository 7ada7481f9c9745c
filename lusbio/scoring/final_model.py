"""One network and its experts for use on people whom nobody has labelled: everybody known is learnt from."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lusbio.cohorts.load import SYNTHETIC, load_cohort
from lusbio.cohorts.targets import BIOMARKER_TASK, encode_task
from lusbio.errors import LusbioError
from lusbio.experts.classifiers import Expert, save_expert
from lusbio.experts.inputs import handed_over
from lusbio.experts.rows import fit_experts
from lusbio.files import build_folder, write_json
from lusbio.runs.mixed_cohort import find_one_sided, keep_real, list_mixed_runs, mix_cohorts
from lusbio.runs.plan import find_tasks
from lusbio.runs.spec import PreparedCohort, Run, labels_of, prepare_cohort
from lusbio.runs.train import execute_many
from lusbio.scoring.score import CARD_FILE, WEIGHTS_FILE, find_never_learnt
from lusbio.statistics.metrics import biomarker_metrics, task_metrics
from lusbio.vocabulary import TASKS

LIMITS = (
    "For research only; not a medical device. Trained on one cohort: probabilities do not carry over to other "
    "probes, presets or populations without a check. Biomarkers listed as masked, and classes listed as never "
    "learnt, have no probability: empty is not zero. Biomarkers listed as simulated only were learnt from simulated "
    "patients alone. Quality under validation is of the patients that the epoch and the experts were chosen on: "
    "optimistic."
)


def train_final(
    prepared: PreparedCohort, folder: Path, initial_weights: str, jobs: int = 1, say: Callable[[str], None] = print
) -> dict:
    """Fit the biomarker network and the experts with nobody held out for testing, for use on others.

    A fifth of the patients chooses the epoch, the fit and, per task, the expert; everybody else is
    trained on. What the card says of quality is measured on that fifth: it is optimistic, and the
    tables of the paper, from patients that nothing was chosen on, are what to quote.

    Real patients rarely have labels of all 38 biomarkers. Where some are missing, the network also learns from
    simulated patients with the same probe (``mixed``), and the experts see biomarkers that nobody had to label.

    Args:
        prepared: A cohort prepared with protocol ``"final"``.
        folder: The model folder to write; ``card.json`` comes last.
        initial_weights: See ``RunSpec``.
        jobs: Videos that are simulated or decoded at a time, where there are simulated patients to make.
        say: Takes lines of progress.

    Returns:
        The content of ``card.json``.

    Raises:
        LusbioError: If there is nothing to learn.
    """
    learnable, reasons = find_tasks(prepared)
    if BIOMARKER_TASK not in learnable:
        raise LusbioError(f"cohort {prepared.cohort.name!r}: {reasons[BIOMARKER_TASK]}")
    folder.mkdir(parents=True, exist_ok=True)  # before the training, which takes long, not after it
    (folder / CARD_FILE).unlink(missing_ok=True)
    unlabelled = [] if prepared.cohort.simulated else find_one_sided(prepared.cohort.table)
    if unlabelled:
        run = _train_mixed(prepared, initial_weights, jobs, say)
    else:
        (run,) = execute_many(prepared.specs(BIOMARKER_TASK, initial_weights), prepared, say=say)
    experts = {}
    for task in learnable[1:]:
        expert, quality = _best_expert(run, task, prepared)
        save_expert(expert, folder / f"{task}.skops")
        never = [TASKS[task].classes[k] for k in find_never_learnt(expert)]
        experts[task] = {
            "expert": expert.name,
            "classes": list(TASKS[task].classes),
            "never_learnt": never,
            "validation": quality,
        }
    (folder / WEIGHTS_FILE).write_bytes((run.folder / WEIGHTS_FILE).read_bytes())
    used = run.predictions["split"].value_counts().sort_index()
    card = {
        "cohort": prepared.cohort.name,
        "simulated": prepared.cohort.simulated,
        "notes": list(prepared.cohort.notes),
        "videos": {split: int(n) for split, n in used.items()},
        "run": run.folder.name,
        "network": asdict(run.spec),
        "initial_weights": run.info["initial_weights"],
        "masked": run.info["masked"],
        "simulated_only": [name for name in unlabelled if name not in run.info["masked"]],
        "validation": _biomarker_quality(run, prepared),
        "experts": experts,
        "limits": LIMITS,
        "versions": run.info["versions"],
    }
    write_json(card, folder / CARD_FILE)
    return card


def _train_mixed(prepared: PreparedCohort, initial_weights: str, jobs: int, say: Callable[[str], None]) -> Run:
    """A network that learnt from simulated patients and then from both; its predictions for the real ones."""
    convex = (prepared.cohort.table["probe"] == "convex").mean() >= 0.5
    (name,) = (name for name, probe in SYNTHETIC.items() if (probe == "convex") == convex)
    say(f"biomarkers that have no labels here are learnt from simulated patients, {name}")
    simulated = prepare_cohort(load_cohort(name, prepared.profile, jobs), prepared.profile, jobs)
    mixed = mix_cohorts(prepared, simulated)
    (spec,) = list_mixed_runs(mixed, simulated, initial_weights)
    first = [s for s in simulated.specs(BIOMARKER_TASK, initial_weights) if s.run_id == spec.starts_from]
    execute_many(first, simulated, say=say)
    (run,) = execute_many([spec], mixed, say=say)
    return keep_real(run, mixed)


def _best_expert(run: Run, task: str, prepared: PreparedCohort) -> tuple[Expert, dict[str, float]]:
    """The expert with the best validation AUC of all seven; its validation metrics, and on whom.

    Probabilities are handed out, so ranks count: by accuracy a tree may win that knows 0 and 1 only. Equal or
    undefined AUC: the more accurate one.
    """
    features, labels = handed_over(run), encode_task(prepared.cohort.table, task)
    val = (run.splits == "val") & (labels >= 0)
    fitted = fit_experts(run, task, prepared)
    measured = [task_metrics(labels[val], expert.predict_probabilities(features[val])) for expert in fitted]
    ranks = [(np.nan_to_num(metrics["auc"], nan=-1), metrics["accuracy"]) for metrics in measured]
    chosen = ranks.index(max(ranks))
    best, metrics = fitted[chosen], measured[chosen]
    quality = {name: round(metrics[name], 4) for name in ("auc", "accuracy", "f1")}
    majority = round(float(np.bincount(labels[val]).max() / val.sum()), 4)  # what always saying the same would get
    patients = int(prepared.cohort.table["patient_id"][val].nunique())
    return best, {**quality, "majority_accuracy": majority, "videos": int(val.sum()), "patients": patients}


def _biomarker_quality(run: Run, prepared: PreparedCohort) -> dict[str, float]:
    labels = labels_of(run, prepared)
    rows = (run.splits == "val") & ~np.isnan(labels).all(1)
    return {k: round(float(v), 4) for k, v in biomarker_metrics(labels[rows], run.probabilities[rows]).items()}


def default_model_folder(cohort: str, profile: str) -> Path:
    """Where ``lusbio train --final`` writes unless told otherwise."""
    return build_folder("models", f"{cohort}-{profile}")
