"""All ways to decide that the paper compares: the rows of Table 1, of Table 6, and the two that everything turns on."""

from dataclasses import replace
from functools import partial

from lusbio.cohorts.load import FRESH, FRESH_OF
from lusbio.experts.baselines import decide_baselines
from lusbio.experts.inputs import crossfit_biomarkers
from lusbio.experts.other_cohort import decide_both_ways_elsewhere
from lusbio.experts.rows import CHOSEN, Row, choose_by_validation, decide_end_to_end, decide_with_experts
from lusbio.experts.signs import decide_with_signs, fuse_with_signs
from lusbio.network import OTHER_BACKBONE, USUAL_BACKBONE
from lusbio.runs.plan import HALF, list_other_backbone, list_pretrained
from lusbio.runs.predict import predict_each
from lusbio.runs.spec import find_runs
from lusbio.runs.study import Study
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY, Kind


def decide_all(study: Study) -> list[Row]:
    """The rows of Table 1, in the paper's order, then cross-fitted biomarkers, measured signs and the baselines.

    Every task that the cohort has labels for; networks pretrained on biomarkers where ``plan.find_left_out`` leaves
    them in. A ``LusbioError`` if a run is not finished.
    """
    biomarkers = study.runs(BIOMARKER_TASK)
    networks = {task: study.runs(task) for task in study.tasks}
    rows = []
    for task, runs in networks.items():
        rows += [decide_end_to_end(runs, study), *decide_with_experts(runs, task, study)]
    for task in study.tasks:
        rows += decide_with_experts(biomarkers, task, study)
    if SEVERITY in study.tasks:
        if runs := find_runs(list_pretrained(study, study.tasks)):
            rows += [decide_end_to_end(runs, study), *decide_with_experts(runs, SEVERITY, study)]
        for task in study.tasks:
            if task != SEVERITY:
                rows += decide_with_experts(networks[SEVERITY], task, study)
    if study.protocol == "paper":
        crossfitted = crossfit_biomarkers(biomarkers, study)
        rows += [row for task in study.tasks for row in decide_with_experts(crossfitted, task, study)]
    for task in study.tasks:
        signs = decide_with_signs(biomarkers, task, study)
        experts = [row for row in rows if (row.features, row.task) == (Kind.BIOMARKERS, task)]
        rows += [signs, fuse_with_signs(signs, replace(choose_by_validation(experts), classifier=CHOSEN))]
    return rows + [row for task in study.tasks for row in decide_baselines(biomarkers, task, study)]


def decide_both_ways(task: str, study: Study, budget: float = 1.0, metric: str = "auc") -> list[Row]:
    """The end-to-end network and the biomarker experts, of each run the expert that did best on validation videos.

    ``budget`` is that of both routes, see ``RunSpec``; what is best is said by ``metric``.
    """
    biomarkers, networks = (study.runs(name, budget=budget) for name in (BIOMARKER_TASK, task))
    experts = choose_by_validation(decide_with_experts(biomarkers, task, study), metric)
    return [decide_end_to_end(networks, study), experts]


def decide_for_verdict(study: Study) -> dict[float, list[Row]]:
    """Both routes, task by task, with all and with half of the epochs, on the patients that the verdict is about.

    Patients of the default cohort can be had without end, so there the verdict is about fresh ones, enough to tell;
    elsewhere about the test patients.

    Returns:
        By share of the epochs, 1.0 first: of each task the end-to-end network and the chosen biomarker experts.
    """
    budgets, decide = (1.0, HALF), partial(decide_both_ways, study=study)
    if study.cohort.name == FRESH_OF:
        fresh, names = study.open_other(FRESH), (BIOMARKER_TASK, *study.tasks)
        runs = [run for budget in budgets for name in names for run in study.runs(name, budget=budget)]
        predict_each(runs, fresh, study.jobs)  # all at once; below they are read
        decide = partial(decide_both_ways_elsewhere, home=study, other=fresh)
    return {budget: [row for task in study.tasks for row in decide(task, budget=budget)] for budget in budgets}


def decide_backbones(study: Study) -> dict[str, list[Row]]:
    """The rows of Table 6: both backbones, on the tasks and folds that the other one was trained for.

    Returns:
        Rows by backbone, the usual one first: networks, experts on their features, experts on biomarkers.

    Raises:
        LusbioError: If a run is not finished.
    """
    other = list_other_backbone(study)
    kept = {(spec.task, spec.fold) for spec in other}
    tasks = list(dict.fromkeys(spec.task for spec in other))
    usual = [spec for task in tasks for spec in study.specs(task, seed=0) if (spec.task, spec.fold) in kept]
    found = {}
    for backbone, specs in ((USUAL_BACKBONE, usual), (OTHER_BACKBONE, other)):
        runs = {task: find_runs([spec for spec in specs if spec.task == task]) for task in tasks}
        rows = []
        for task in (task for task in tasks if task != BIOMARKER_TASK):
            rows += [decide_end_to_end(runs[task], study), *decide_with_experts(runs[task], task, study)]
            rows += decide_with_experts(runs[BIOMARKER_TASK], task, study)
        found[backbone] = rows
    return found
