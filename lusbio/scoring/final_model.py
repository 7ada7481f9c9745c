"""One network and its experts for use on people whom nobody has labelled: everybody known is learnt from."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from lusbio.cohorts.load import SYNTHETIC
from lusbio.cohorts.targets import encode_task
from lusbio.errors import LusbioError
from lusbio.experts.classifiers import Expert, save_expert
from lusbio.experts.inputs import expert_input
from lusbio.experts.rows import fit_experts
from lusbio.experts.signs import choose_signs, find_folds, fit_signs, predict_signs, take_signs
from lusbio.files import PACKAGE, write_json, write_text
from lusbio.runs.mixed_cohort import find_one_sided, keep_real, list_mixed_runs, mix_cohorts
from lusbio.runs.predict import WEIGHTS_FILE, Model, load_network
from lusbio.runs.spec import Run, Say, labels_of
from lusbio.runs.study import Study, open_study
from lusbio.scoring.score import CARD_FILE, NOTICES, find_never_learnt
from lusbio.statistics.metrics import biomarker_aucs, biomarker_metrics, task_metrics
from lusbio.vocabulary import BIOMARKER_NAMES, BIOMARKER_TASK, TASKS, group_names

LIMITS = " ".join((PACKAGE / "words" / "limits.txt").read_text(encoding="utf-8").split())
"""What every card says of its model, in one line."""


def train_final(study: Study, folder: Path, say: Say = print) -> dict:
    """Fit the biomarker network and the experts with nobody held out for testing, for use on others.

    A fifth of the patients chooses the fit and, per task, the expert, with a plateau schedule the epoch too; everybody
    else is trained on. What the card says of quality is measured on that fifth: it is optimistic, and the tables of the
    paper, from patients that nothing was chosen on, are what to quote.

    Real patients rarely have labels of all 38 biomarkers. Where some are missing, the network learns from simulated
    patients with the same probe too (``mixed_cohort``), and the experts see biomarkers that nobody had to label.

    Args:
        study: Opened with protocol ``"final"``.
        folder: The model folder to write: weights as float16, experts, the card for people (``README.md``) and, last,
            for programs (``card.json``).
        say: Takes lines of progress.

    Returns:
        The content of ``card.json``.

    Raises:
        LusbioError: If there is nothing to learn.
    """
    if reason := study.unlearnable.get(BIOMARKER_TASK):
        raise LusbioError(f"cohort {study.cohort.name!r}: {reason}")
    folder.mkdir(parents=True, exist_ok=True)  # before the training, which takes long, not after it
    (folder / CARD_FILE).unlink(missing_ok=True)
    unlabelled = [] if study.cohort.simulated else find_one_sided(study.table)
    run = _train_mixed(study, say) if unlabelled else study.train(BIOMARKER_TASK, say=say)[0]
    experts = {}
    for task in study.tasks:
        expert, quality = _find_best_expert(run, task, study)
        save_expert(expert, folder / f"{task}.skops")
        classes = list(TASKS[task].classes)
        never = [classes[k] for k in find_never_learnt(expert)]
        experts[task] = {"expert": expert.name, "classes": classes, "never_learnt": never, "validation": quality}
    _write_half(run, folder / WEIGHTS_FILE)
    used = run.predictions["split"].value_counts().sort_index()
    card = {
        "cohort": study.cohort.name,
        "simulated": study.cohort.simulated,
        "notes": list(study.cohort.notes),
        "videos": {split: int(n) for split, n in used.items()},
        "run": run.folder.name,
        "network": asdict(run.spec),
        "initial_weights": run.info["initial_weights"],
        "masked": run.info["masked"],
        "simulated_only": [name for name in unlabelled if name not in run.info["masked"]],
        "validation": _measure_biomarkers(run, study),
        "experts": experts,
        "signs": {} if study.cohort.simulated else _fit_signs(run, study, folder),
        "limits": LIMITS,
        "versions": run.info["versions"],
    }
    write_text(describe_model(card), folder / "README.md")
    write_json(card, folder / CARD_FILE)
    return card


def _write_half(run: Run, path: Path) -> None:
    """The weights of a run's network as float16: half the bytes; what it says moves in the third decimal."""
    from lusbio.network.weights import save_weights

    save_weights(load_network(Model.of_run(run)).half(), path)


def describe_model(card: dict) -> str:
    """The model card for people, as Markdown with Hugging Face's header; every number in it is from ``card.json``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = {"loader": FileSystemLoader(Path(__file__).parent), "undefined": StrictUndefined}
    page = Environment(**loader, trim_blocks=True, lstrip_blocks=True).get_template("card.md")
    return page.render(card, notice=NOTICES[card["simulated"]], tasks=TASKS, n_biomarkers=len(BIOMARKER_NAMES)) + "\n"


def _train_mixed(study: Study, say: Say) -> Run:
    """A network that learnt from simulated patients and then from both; its predictions for the real ones."""
    convex = (study.table["probe"] == "convex").mean() >= 0.5
    (name,) = (name for name, probe in SYNTHETIC.items() if (probe == "convex") == convex)
    say(f"biomarkers that have no labels here are learnt from simulated patients, {name}")
    simulated = open_study(study.profile.name, name, study.jobs)
    mixed = mix_cohorts(study, simulated)
    spec = list_mixed_runs(mixed)[0]
    simulated.train([one for one in simulated.specs(BIOMARKER_TASK) if one.run_id == spec.starts_from], say=say)
    (run,) = mixed.train([spec], say=say)
    return keep_real(run, mixed)


def _find_best_expert(run: Run, task: str, study: Study) -> tuple[Expert, dict[str, float]]:
    """The expert with the best validation AUC of all seven; its validation metrics, and on whom.

    Probabilities are handed out, so ranks count: by accuracy a tree may win that knows 0 and 1 only. Equal or undefined
    AUC: the more accurate one.
    """
    features, labels = expert_input(run), encode_task(study.table, task)
    val = (run.splits == "val") & (labels >= 0)
    fitted = fit_experts(run, task, study)
    measured = [task_metrics(labels[val], expert.predict_probabilities(features[val])) for expert in fitted]
    ranks = [(np.nan_to_num(metrics["auc"], nan=-1), metrics["accuracy"]) for metrics in measured]
    chosen = ranks.index(max(ranks))
    quality = {name: round(measured[chosen][name], 4) for name in ("auc", "accuracy", "f1")}
    majority = round(float(np.bincount(labels[val]).max() / val.sum()), 4)  # what always saying the same would get
    size = {"videos": int(val.sum()), "patients": study.table["patient_id"][val].nunique()}
    return fitted[chosen], quality | {"majority_accuracy": majority} | size


def _fit_signs(run: Run, study: Study, folder: Path) -> dict[str, dict]:
    """Experts on measured signs for A-lines and B-lines, as far as they are labelled; one that helps is taken.

    Returns:
        By biomarker the signs that are looked at, the AUC of network, signs and the mean of both on the patients that
        choose, and whether the mean is taken. An expert that is taken is saved under the name of the biomarker.
    """
    values, told, choosing = take_signs(study, study.jobs), {}, run.splits == "val"
    for name in (*group_names("A-lines"), *group_names("B-lines")):
        labels = study.table[name].fillna(-1).astype(int).to_numpy()
        val = choosing & (labels >= 0)
        if name in run.info["masked"] or len(set(labels[~choosing]) - {-1}) < 2 or len(set(labels[val])) < 2:
            continue
        chosen = choose_signs(values, labels, find_folds(study), 2)
        expert = fit_signs(values[~choosing], labels[~choosing], chosen, 2)
        found = run.probabilities[val, BIOMARKER_NAMES.index(name)], predict_signs(expert, values[val])[:, 1]
        said = {"network": found[0], "signs": found[1], "both": np.mean(found, axis=0)}
        aucs = {who: task_metrics(labels[val], np.column_stack([1 - p, p]))["auc"] for who, p in said.items()}
        told[name] = {"from": chosen, "validation": {who: round(auc, 4) for who, auc in aucs.items()}}
        told[name]["taken"] = bool(aucs["both"] > aucs["network"])
        if told[name]["taken"]:
            save_expert(fit_signs(values, labels, chosen, 2), folder / f"{name}.skops")
    return told


def _measure_biomarkers(run: Run, study: Study) -> dict[str, float]:
    labels = labels_of(run, study)
    rows = (run.splits == "val") & ~np.isnan(labels).all(1)
    known, said = labels[rows], run.probabilities[rows]
    quality = {name: round(value, 4) for name, value in biomarker_metrics(known, said).items()}
    return quality | {"aucs": int(biomarker_aucs(known, said)["auc"].notna().sum())}
