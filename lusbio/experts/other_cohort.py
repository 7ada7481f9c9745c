"""What the networks and experts of one cohort decide on the videos of another, as they are: nothing is retrained.

Networks, experts and the choice among experts come from the training cohort alone; the labels of the other cohort only
judge. Predictions are kept in the folders of the runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lusbio.cohorts.targets import encode_task
from lusbio.experts.baselines import decide_by_majority
from lusbio.experts.inputs import expert_input, fill_masked
from lusbio.experts.rows import (
    CHOSEN,
    Row,
    choose_by_validation,
    decide_end_to_end,
    decide_with_experts,
    fit_experts,
    name_decisions,
)
from lusbio.experts.signs import decide_elsewhere_with_signs, decide_with_signs, fuse_with_signs
from lusbio.runs.parallel import side_by_side
from lusbio.runs.predict import predict_each, read_predictions, write_predictions
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import BIOMARKER_TASK, SEVERITY, Kind


@dataclass(frozen=True)
class OtherCohortResult:
    """What one cohort's networks decided on another cohort's videos.

    Attributes:
        home: The cohort that everything was learnt from.
        other: The cohort that is tested on.
        runs: All runs behind the decisions: end-to-end networks, then biomarker networks.
        rows: End-to-end, the experts, the chosen experts, where there are mixed networks the same of theirs, measured
            signs alone and beside each of the chosen experts, class frequencies of the training videos. ``held_out``,
            one per run, are all videos of ``other`` with a severity; ``validated`` are of ``home``.
        chosen: Which expert on biomarkers was chosen, run by run, e.g. ``"RF / DT / RF"``.
    """

    home: Study
    other: Study
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    chosen: str


def decide_other_cohort(home: Study, other: Study, mixed: Sequence[Run] = ()) -> OtherCohortResult:
    """Decide the severity of another cohort's videos with the networks and experts of one's own.

    Args:
        home: The cohort that networks were trained on; its runs are finished.
        other: The other cohort, decoded at the same size. Its labels only judge.
        mixed: From ``mixed_cohort.find_mixed_runs``. Their experts learn from patients of ``home`` as well.
    """
    networks, biomarkers = home.runs(SEVERITY), home.runs(BIOMARKER_TASK)
    end_to_end = _decide_end_to_end(networks, home, other)
    experts, chosen = _decide_with_experts(biomarkers, home, other)
    if mixed:
        experts += [replace(row, features=Kind.MIXED) for row in _decide_with_experts(mixed, home, other)[0]]
    experts += _decide_with_signs(biomarkers, experts, home, other)
    majority = decide_by_majority(biomarkers, SEVERITY, home)
    everybody = [np.tile(videos.probabilities[0], (len(other.videos), 1)) for videos in majority.validated]
    rows = (end_to_end, *experts, judge_other_cohort(majority, everybody, other))
    return OtherCohortResult(home, other, (*networks, *biomarkers, *mixed), rows, chosen)


def decide_both_ways_elsewhere(task: str, home: Study, other: Study, budget: float = 1.0) -> list[Row]:
    """The rows of ``table1.decide_both_ways`` with the videos of another cohort as what is tested.

    Args:
        task: A task that networks of ``home`` were trained for.
        home: Where networks and experts learn and experts are chosen.
        other: The other cohort, decoded at the same size. Its labels only judge.
        budget: See ``RunSpec``, of both routes.
    """
    networks, biomarkers = (home.runs(name, budget=budget) for name in (task, BIOMARKER_TASK))
    chosen = choose_by_validation(decide_with_experts(biomarkers, task, home))
    away = map(fill_masked, predict_each(biomarkers, other, home.jobs))
    named = zip(chosen.classifier.split(" / "), biomarkers, away, strict=True)
    decided = side_by_side(_let_decide, [(*one, task, home, other) for one in named], home.jobs)
    return [_decide_end_to_end(networks, home, other), judge_other_cohort(chosen, decided, other)]


def _decide_end_to_end(networks: Sequence[Run], home: Study, other: Study) -> Row:
    decided = predict_each(networks, other, home.jobs)
    return judge_other_cohort(decide_end_to_end(networks, home), decided, other)


def judge_other_cohort(row: Row, decided: Sequence[np.ndarray], other: PreparedCohort) -> Row:
    """A row with decisions on another cohort, probabilities (V, K) of all its videos by run, as what is tested."""
    labels = encode_task(other.table, row.task)
    known = np.flatnonzero(labels >= 0)
    groups = other.table["group_id"].to_numpy()[known]
    return replace(row, held_out=tuple(HeldOut(labels[known], p[known], groups, known) for p in decided))


def _decide_with_experts(runs: Sequence[Run], home: Study, other: Study) -> tuple[list[Row], str]:
    """A row per expert, then that of the chosen ones; and which were chosen."""
    experts = decide_with_experts(runs, SEVERITY, home)
    away = map(fill_masked, predict_each(runs, other, home.jobs))
    pairs = list(zip(runs, away, strict=True))
    work = [(row.classifier, *pair, SEVERITY, home, other) for row in experts for pair in pairs]
    found = side_by_side(_let_decide, work, home.jobs)
    decided = [found[k : k + len(runs)] for k in range(0, len(found), len(runs))]
    experts = [judge_other_cohort(row, by_run, other) for row, by_run in zip(experts, decided, strict=True)]
    chosen = choose_by_validation(experts)
    return [*experts, replace(chosen, classifier=CHOSEN)], chosen.classifier


def _decide_with_signs(runs: Sequence[Run], experts: Sequence[Row], home: Study, other: Study) -> list[Row]:
    """Measured signs, and they together with the chosen experts on each kind of biomarkers."""
    elsewhere = decide_elsewhere_with_signs(runs, SEVERITY, home, other)
    signs = judge_other_cohort(decide_with_signs(runs, SEVERITY, home), elsewhere, other)
    return [signs, *(fuse_with_signs(signs, row) for row in experts if row.classifier == CHOSEN)]


def _let_decide(
    name: str, run: Run, away: np.ndarray, task: str, home: PreparedCohort, other: PreparedCohort
) -> np.ndarray:
    """Fit an expert at home, as for Table 1, and let it decide elsewhere; kept in the run's folder."""
    arrays = (expert_input(run), encode_task(home.table, task), away)
    path = name_decisions(f"elsewhere/{other.cohort.name}", name, run, task, home, *arrays)
    if not path.exists():
        (expert,) = fit_experts(run, task, home, [name])
        write_predictions(expert.predict_probabilities(away), other.table["video_id"], path)
    return read_predictions(path)
