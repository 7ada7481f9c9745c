"""Which biomarkers carry a decision: what an expert loses on test patients when it may not see them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.cohorts.targets import encode_task
from lusbio.experts.classifiers import Expert
from lusbio.experts.inputs import handed_over
from lusbio.experts.rows import Decisions, fit_experts
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.statistics.weighted_metrics import weighted_task_auc
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKERS, title_of

REPEATS = 5
"""Permutations per run and column. (Engineering choice.)"""


def make_importance(
    decisions: Decisions,
    runs: Sequence[Run],
    prepared: PreparedCohort,
    jobs: int = 1,
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> pd.DataFrame:
    """The drop in AUC when biomarkers are dealt anew among the test videos.

    Asked are the experts that made the decisions, fitted again. The options of a group exclude each other,
    so an expert that loses one reads it off the others: first whole groups are permuted, all their columns
    by the same permutation, then single biomarkers, which says less.

    Args:
        decisions: Of experts on biomarkers, chosen run by run (``choose_by_validation``) or the same in all.
        runs: The biomarker runs they decided from, one per fold.
        prepared: The cohort they are about.
        jobs: Runs at a time.
        repeats: Permutations per run.
        seed: Of the permutations.

    Returns:
        One row per group (``level`` is ``"group"``) and per biomarker (``"biomarker"``): ``task, level, group,
        biomarker`` (its name, or the group's), ``mean, sd`` of the drop over runs and repeats, ``auc`` of the
        experts unharmed, mean over runs; percentage points. A drop below 0 is noise.

    Source:
        Breiman 2001, "Random forests"; on patients held out, as in scikit-learn's ``permutation_importance``.
    """
    import joblib

    units = [("group", group, group, [b.index for b in BIOMARKERS if b.group == group]) for group in BIOMARKER_GROUPS]
    units += [("biomarker", b.group, b.name, [b.index]) for b in BIOMARKERS]
    columns = [unit[3] for unit in units]
    names = decisions.classifier.split(" / ")
    names = names * len(runs) if len(names) == 1 else names
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        done = joblib.Parallel(n_jobs=jobs)(
            joblib.delayed(_permute_run)(name, run, decisions.task, prepared, columns, repeats, [seed, number])
            for number, (name, run) in enumerate(zip(names, runs, strict=True))
        )
    aucs, drops = zip(*done, strict=True)
    found = 100 * np.concatenate(drops, axis=1)  # (units, runs * repeats)
    table = pd.DataFrame(units, columns=["level", "group", "biomarker", "columns"]).drop(columns="columns")
    table.insert(0, "task", decisions.task)
    return table.assign(mean=np.nanmean(found, axis=1), sd=np.nanstd(found, axis=1), auc=100 * np.nanmean(aucs))


def _permute_run(
    name: str,
    run: Run,
    task: str,
    prepared: PreparedCohort,
    columns: Sequence[Sequence[int]],
    repeats: int,
    seed: list[int],
) -> tuple[float, np.ndarray]:
    """``permute_columns`` of one run's expert on its test videos."""
    (expert,) = fit_experts(run, task, prepared, [name])
    labels = encode_task(prepared.cohort.table, task)
    test = (run.splits == "test") & (labels >= 0)
    return permute_columns(expert, handed_over(run)[test], labels[test], columns, repeats, seed)


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
    auc = _auc(labels, expert.predict_probabilities(features))
    drops = np.empty((len(columns), repeats))
    for number, chosen in enumerate(columns):
        harmed = np.tile(features, (repeats, 1, 1))  # (R, V, F)
        harmed[:, :, chosen] = features[:, chosen][orders]
        decided = expert.predict_probabilities(harmed.reshape(-1, features.shape[1]))
        by_repeat = decided.reshape(repeats, len(features), -1)
        drops[number] = [auc - _auc(labels, probabilities) for probabilities in by_repeat]
    return auc, drops


def _auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(weighted_task_auc(labels, probabilities, np.ones((1, len(labels))))[0])


def describe_importance(table: pd.DataFrame, most: int = 3) -> str:
    """A sentence that names the groups a decision rests on.

    Args:
        table: From ``make_importance``.
        most: How many to name.

    Returns:
        The groups whose loss costs most, and how many points of AUC; or that none stands out from the noise.
    """
    groups = table[table["level"] == "group"]
    clear = groups[groups["mean"] > groups["sd"]].nlargest(most, "mean")
    task, auc = table["task"].iloc[0], table["auc"].iloc[0]
    if clear.empty:
        return f"{title_of(task)} (AUC {auc:.1f}): no single group stands out from the noise."
    named = ", ".join(f"{row.group} ({row.mean:.1f})" for row in clear.itertuples())
    return f"{title_of(task)} (AUC {auc:.1f}) rests most on {named}; in brackets the points of AUC lost without it."
