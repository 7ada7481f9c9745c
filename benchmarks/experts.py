"""Seven experts, three fits each, on 38 biomarkers of as many videos as the paper has."""

import statistics
import time

import numpy as np
from _measure import Finding, report, time_in_turn

from lusbio.cohorts.targets import encode_task
from lusbio.experts.classifiers import EXPERT_NAMES, fit_expert
from lusbio.report.cells import read_published_minutes
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import trainee_table
from lusbio.vocabulary import BIOMARKER_NAMES, SEVERITY, TASKS

FITS, ROUNDS = 3, 2
PATIENTS = {"training": 189, "validation": 36}
"""189 simulated patients have 718 videos."""


def make_input(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Biomarkers as a network would give them: what the simulated trainee ticked, made unsure.

    Args:
        split: A key of ``PATIENTS``.

    Returns:
        Probabilities float64 (V, 38), classes int64 (V,) and groups (V,).
    """
    seed = list(PATIENTS).index(split)
    table = trainee_table(simulate_recordings(PATIENTS[split], seed))
    ticks = table[list(BIOMARKER_NAMES)].to_numpy(np.float64)
    logits = 3 * (ticks - 0.5) + 1.5 * np.random.default_rng(seed).standard_normal(ticks.shape)
    return 1 / (1 + np.exp(-logits)), encode_task(table, SEVERITY), table["group_id"].to_numpy()


def main() -> None:
    """Measure, print and write."""
    features, labels, groups = make_input("training")
    val_features, val_labels, _ = make_input("validation")
    classes = len(TASKS[SEVERITY].classes)

    def fit(name: str) -> None:
        fit_expert(name, features, labels, groups, val_features, val_labels, n_classes=classes, fits=FITS)

    # Fits have one thread, so the seconds that it computed are those they take where nothing else runs.
    blocks = {name: lambda name=name: fit(name) for name in EXPERT_NAMES}
    seconds = time_in_turn(blocks, ROUNDS, warmups=0, clock=time.process_time)
    findings = [Finding(f"{name}, {FITS} fits", statistics.median(seconds[name]), "s") for name in EXPERT_NAMES]
    total = statistics.median(map(sum, zip(*seconds.values(), strict=True)))
    published = read_published_minutes()
    minutes = published[published.index.get_level_values("classifier").isin(EXPERT_NAMES)].sum()
    findings += [
        Finding(f"all seven, {len(labels)} videos, on one core", total, "s", 10, at_least=False),
        Finding(f"the paper's {minutes:g} minutes against that", 60 * minutes / total, "x"),
    ]
    report("experts", findings, seconds=seconds)


if __name__ == "__main__":
    main()
