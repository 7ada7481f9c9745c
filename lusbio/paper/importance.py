"""Which biomarkers carry a decision: what an expert loses on test patients when it may not see them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.cohorts.targets import encode_task
from lusbio.experts.classifiers import Expert
from lusbio.experts.inputs import expert_input
from lusbio.experts.rows import Row, fit_experts
from lusbio.files import Table
from lusbio.report.cells import in_words
from lusbio.report.tables import runs_of
from lusbio.runs.spec import Run
from lusbio.runs.study import Study
from lusbio.statistics.metrics import task_metrics
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKERS, title_of

REPEATS = 5
"""Permutations per run and column. (Engineering choice.)"""

UNITS = [("group", group, group, [b.index for b in BIOMARKERS if b.group == group]) for group in BIOMARKER_GROUPS]
UNITS += [("biomarker", b.group, b.name, [b.index]) for b in BIOMARKERS]
"""What is permuted: level, group, name, and its columns among the 38."""


def make_importance(rows: Sequence[Row], study: Study, *, repeats: int = REPEATS, seed: int = 0) -> Table:
    """The drop in AUC when biomarkers are dealt anew among the test videos.

    Asked are the experts that made the decisions, fitted again. The options of a group exclude each other, so an expert
    that loses one reads it off the others: first whole groups are permuted, all their columns by the same permutation,
    then single biomarkers, which says less.

    Args:
        rows: Of experts on biomarkers, chosen run by run (``choose_by_validation``) or the same in all, one per task.
        study: The cohort they are about.
        repeats: Permutations per run.
        seed: Of the permutations.

    Returns:
        For each row one line per group (``level`` is ``"group"``) and per biomarker (``"biomarker"``): ``task, level,
        group, biomarker`` (its name, or the group's), ``mean, sd`` of the drop over runs and repeats, ``auc`` of the
        experts unharmed, mean over runs; percentage points. A drop below 0 is noise.

    Source:
        Breiman 2001, "Random forests"; on patients held out, as in scikit-learn's ``permutation_importance``.
    """
    cells = pd.concat([_permute_all(row, study, repeats, seed) for row in rows], ignore_index=True)
    groups = cells[cells["level"] == "group"].drop(columns=["level", "group"])
    return Table(cells, in_words(groups), runs=runs_of(rows))


def _permute_all(row: Row, study: Study, repeats: int, seed: int) -> pd.DataFrame:
    import joblib

    names = row.classifier.split(" / ")
    names = names * len(row.runs) if len(names) == 1 else names
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        done = joblib.Parallel(n_jobs=study.jobs)(
            joblib.delayed(_permute_run)(name, run, row.task, study, repeats, [seed, number])
            for number, (name, run) in enumerate(zip(names, row.runs, strict=True))
        )
    aucs, drops = zip(*done, strict=True)
    found = 100 * np.concatenate(drops, axis=1)  # (units, runs * repeats)
    cells = pd.DataFrame([unit[:3] for unit in UNITS], columns=["level", "group", "biomarker"])
    cells.insert(0, "task", row.task)
    return cells.assign(mean=np.nanmean(found, axis=1), sd=np.nanstd(found, axis=1), auc=100 * np.nanmean(aucs))


def _permute_run(
    name: str, run: Run, task: str, study: Study, repeats: int, seed: list[int]
) -> tuple[float, np.ndarray]:
    """``permute_columns`` of one run's expert on its test videos."""
    (expert,) = fit_experts(run, task, study, [name])
    labels = encode_task(study.table, task)
    test = (run.splits == "test") & (labels >= 0)
    return permute_columns(expert, expert_input(run)[test], labels[test], [unit[3] for unit in UNITS], repeats, seed)


def permute_columns(
    expert: Expert,
    features: np.ndarray,
    labels: np.ndarray,
    columns: Sequence[Sequence[int]],
    repeats: int,
    seed: int | list[int],
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
    auc = task_metrics(labels, expert.predict_probabilities(features))["auc"]
    drops = np.empty((len(columns), repeats))
    for number, chosen in enumerate(columns):
        harmed = np.tile(features, (repeats, 1, 1))  # (R, V, F)
        harmed[:, :, chosen] = features[:, chosen][orders]
        decided = expert.predict_probabilities(harmed.reshape(-1, features.shape[1]))
        by_repeat = decided.reshape(repeats, len(features), -1)
        drops[number] = [auc - task_metrics(labels, probabilities)["auc"] for probabilities in by_repeat]
    return auc, drops


def describe_importance(cells: pd.DataFrame, most: int = 3) -> list[str]:
    """A sentence per task that names the groups a decision rests on, or says that none stands out from the noise."""
    sentences = []
    for task, groups in cells[cells["level"] == "group"].groupby("task", sort=False):
        clear = groups[groups["mean"] > groups["sd"]].nlargest(most, "mean")
        named = ", ".join(f"{row.group} ({row.mean:.1f})" for row in clear.itertuples())
        what = f"rests most on {named}; in brackets the points of AUC lost without it."
        none = "depends on no single group that stands out from the noise."
        sentences.append(f"{title_of(task)} (AUC {groups['auc'].iloc[0]:.1f}) {what if named else none}")
    return sentences
