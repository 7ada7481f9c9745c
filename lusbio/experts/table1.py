"""All routes to a decision that the paper compares, and the anchors they are measured by: the rows of Table 1."""

from collections.abc import Sequence

from lusbio.cohorts.targets import BIOMARKER_TASK
from lusbio.experts.inputs import crossfit_biomarkers, take_rated_biomarkers
from lusbio.experts.rows import ANCHOR_EXPERT, Decisions, decide_by_majority, decide_end_to_end, decide_with_experts
from lusbio.runs.plan import (
    OTHER_BACKBONE,
    PRETRAINED_TASK,
    USUAL_BACKBONE,
    find_tasks,
    list_other_backbone,
    list_pretrained,
)
from lusbio.runs.spec import PreparedCohort, Run, find_runs


def decide_all(prepared: PreparedCohort, initial_weights: str, jobs: int = 1) -> list[Decisions]:
    """The rows of Table 1, in the paper's order, then cross-fitted biomarkers and the anchors.

    Args:
        prepared: The cohort.
        initial_weights: Of its finished runs, see ``RunSpec``.
        jobs: Fits at a time.

    Returns:
        One row's decisions each; every task that the cohort has labels for. Networks pretrained on biomarkers
        where ``grid.find_left_out`` leaves them in.

    Raises:
        LusbioError: If a run is not finished.
    """
    tasks = [task for task in find_tasks(prepared)[0] if task != BIOMARKER_TASK]
    biomarkers = find_runs(prepared.specs(BIOMARKER_TASK, initial_weights))
    networks = {task: find_runs(prepared.specs(task, initial_weights)) for task in tasks}
    rows = []
    for task, runs in networks.items():
        rows += [decide_end_to_end(runs, prepared), *decide_with_experts(runs, task, prepared, jobs)]
    for task in tasks:
        rows += decide_with_experts(biomarkers, task, prepared, jobs)
    if PRETRAINED_TASK in tasks:
        if runs := find_runs(list_pretrained(prepared, tasks, initial_weights)):
            rows += [decide_end_to_end(runs, prepared), *decide_with_experts(runs, PRETRAINED_TASK, prepared, jobs)]
        for task in tasks:
            if task != PRETRAINED_TASK:
                rows += decide_with_experts(networks[PRETRAINED_TASK], task, prepared, jobs)
    if prepared.protocol == "paper":
        evidence = crossfit_biomarkers(biomarkers, prepared)
        for task in tasks:
            rows += decide_with_experts(evidence, task, prepared, jobs)
    return rows + [row for task in tasks for row in decide_anchors(biomarkers, task, prepared, jobs)]


def decide_backbones(
    prepared: PreparedCohort, initial_weights: dict[str, str], jobs: int = 1
) -> dict[str, list[Decisions]]:
    """The rows of Table 6: both backbones, on the tasks and folds that the other one was trained for.

    Args:
        prepared: The cohort.
        initial_weights: By backbone.
        jobs: Fits at a time.

    Returns:
        Rows by backbone, the usual one first: networks, experts on their features, experts on biomarkers.

    Raises:
        LusbioError: If a run is not finished.
    """
    other = list_other_backbone(prepared, initial_weights[OTHER_BACKBONE])
    kept = {(spec.task, spec.fold) for spec in other}
    usual = [
        spec
        for task in dict.fromkeys(spec.task for spec in other)
        for spec in prepared.specs(task, initial_weights[USUAL_BACKBONE])
        if (spec.task, spec.fold) in kept
    ]
    found = {}
    for backbone, of_backbone in ((USUAL_BACKBONE, usual), (OTHER_BACKBONE, other)):
        runs = find_runs(of_backbone)
        biomarkers = [run for run in runs if run.spec.task == BIOMARKER_TASK]
        rows = []
        for task in dict.fromkeys(run.spec.task for run in runs if run.spec.task != BIOMARKER_TASK):
            networks = [run for run in runs if run.spec.task == task]
            rows += [decide_end_to_end(networks, prepared), *decide_with_experts(networks, task, prepared, jobs)]
            rows += decide_with_experts(biomarkers, task, prepared, jobs)
        found[backbone] = rows
    return found


def decide_anchors(
    biomarker_runs: Sequence[Run], task: str, prepared: PreparedCohort, jobs: int = 1
) -> list[Decisions]:
    """What perfect biomarkers would bring, and what knowing nothing brings.

    Args:
        biomarker_runs: Their splits are followed, and shuffled labels are learnt from their biomarkers.
        task: A key of ``TASKS``.
        prepared: The cohort.
        jobs: Fits at a time.

    Returns:
        Experts on the true biomarkers (simulated patients only) and on the rater's (0.5 where unknown),
        experts on shuffled labels, and the class frequencies of the training patients.
    """
    rated = [take_rated_biomarkers(biomarker_runs, prepared, true=False)]
    if prepared.cohort.truth is not None:
        rated.insert(0, take_rated_biomarkers(biomarker_runs, prepared, true=True))
    alone = {"experts": [ANCHOR_EXPERT]}
    rows = [row for evidence in rated for row in decide_with_experts(evidence, task, prepared, jobs, **alone)]
    rows += decide_with_experts(biomarker_runs, task, prepared, jobs, shuffled=True, **alone)
    return [*rows, decide_by_majority(biomarker_runs, task, prepared)]
