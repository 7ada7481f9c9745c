"""Do the rates of the literature come out? Target against realised, over many cohorts of labels (nothing is drawn).

``targets.csv`` is what the specification asks for, as lowest and highest value. Sources: Gare et al. 2022 (shares, 56 %
agreement), COVID-BLUES (within-patient correlation, rates per severity), the simulator's specification (the others).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import ndtr
from scipy.stats import spearmanr

from lusbio.simulation import constants as c
from lusbio.simulation.patients import Recording
from lusbio.simulation.placement import build_scene
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import SPECIALIST, TRAINEE, rate_biomarkers, rate_severity, truth_table
from lusbio.vocabulary import BIOMARKER_GROUPS, BIOMARKER_NAMES, TASKS, group_names

TOLERANCE = 0.05
COVID_BLUES_MIX = {c.HEALTHY: 10, c.COVID: 33, c.OTHER_LUNG: 20}
"""Patients by disease in COVID-BLUES: the mix its rates per video belong to."""


def summarise_targets(
    seeds: Iterable[int] = range(20), *, patients: int = 189, anchors: bool = True, jobs: int = 1
) -> pd.DataFrame:
    """Target against realised for every rate the label model was fixed by.

    Rates per patient are of the truth; rates per video, priors of severity and agreements are of the raters, as in the
    sources. The anchors are random forests on biomarkers, four folds by patient, scored per video against the trainee.

    Args:
        seeds: One cohort of labels each.
        patients: Patients per cohort.
        anchors: Whether to fit the anchors, which takes four seconds per cohort instead of a third of one.
        jobs: Cohorts at a time.

    Returns:
        One row per quantity: ``group, quantity, low, high`` (the target), ``mean, sd`` over cohorts, ``within`` (the
        mean is inside the target, give or take .05; empty where there is no target).
    """
    measured = pd.DataFrame(Parallel(jobs)(delayed(_measure_labels)(patients, seed, anchors) for seed in seeds))
    rates = pd.DataFrame({"mean": measured.mean(), "sd": measured.std(ddof=0)}).rename_axis(["group", "quantity"])
    table = pd.read_csv(Path(__file__).with_name("targets.csv")).merge(rates.reset_index(), how="right")
    met = table["mean"].between(table["low"] - TOLERANCE, table["high"] + TOLERANCE)
    return table.assign(within=met.astype(object).where(table["low"].notna()))


def _measure_labels(patients: int, seed: int, anchors: bool) -> pd.Series:
    """All quantities of ``summarise_targets`` in one cohort, by group and quantity."""
    recordings = simulate_recordings(patients, seed)
    known = pd.DataFrame({"patient": r.patient.index, "sf_value": r.patient.sf_value} for r in recordings)
    truth = truth_table(recordings).join(known)
    trainee, specialist = (
        pd.DataFrame(rate_biomarkers(r, who) | {"severity": int(rate_severity(r, who))} for r in recordings)
        for who in (TRAINEE, SPECIALIST)
    )
    people, severity = truth.groupby("patient").first(), trainee["severity"]
    apart = (severity - specialist["severity"]).abs()
    sf = spearmanr(severity.groupby(truth["patient"]).mean(), people["sf_value"])
    values = {
        "severity prior": _shares(severity.astype(str), "lung_severity"),
        "S/F prior": _shares(people["sf_ratio"], "sf_ratio"),
        "disease prior": _shares(people["disease"], "disease"),
        "within-patient correlation": {"severity": intraclass_correlation(severity, truth["patient"])},
        **_rates_by_severity(trainee, truth["disease"], people["disease"]),
        **_rates_by_disease(truth, people["disease"]),
        "S/F": {"Spearman with mean severity": sf.statistic},
        "trainee against specialist": {"exact": (apart == 0).mean(), "within one grade": (apart <= 1).mean()},
        "trainee from exact truth": {"accuracy": _best_accuracy(recordings)},
        "kappa, trainee against truth": _kappas(trainee, truth),
        "kappa, trainee against specialist": _kappas(trainee, specialist),
        **(_anchors(truth, trainee, recordings) if anchors else {}),
        "mean severity (trainee)": severity.groupby(truth["disease"]).mean().to_dict(),
    }
    return pd.Series({(group, name): float(value) for group, part in values.items() for name, value in part.items()})


def _shares(labels: pd.Series, task: str) -> dict[str, float]:
    return labels.value_counts(normalize=True).reindex(TASKS[task].classes, fill_value=0.0).to_dict()


def intraclass_correlation(values: pd.Series, groups: pd.Series) -> float:
    """One-way random-effects intraclass correlation, ICC(1), with groups of unequal size.

    Args:
        values: Numbers.
        groups: Which group each belongs to; at least two groups, one of them with two values.

    Returns:
        Share of the variance that lies between groups; slightly negative by chance when there is none.
    """
    table = values.astype(float).groupby(groups.to_numpy())
    sizes, means, total = table.size(), table.mean(), len(values)
    between = (sizes * (means - values.mean()) ** 2).sum() / (len(sizes) - 1)
    within = table.apply(lambda v: ((v - v.mean()) ** 2).sum()).sum() / (total - len(sizes))
    size = (total - (sizes**2).sum() / total) / (len(sizes) - 1)
    return float((between - within) / (between + (size - 1) * within))


def _present(labels: pd.DataFrame) -> pd.DataFrame:
    """1 where anything but the first option of a group ("none", or normal) was ticked; and so for the whole pleura."""
    seen = pd.DataFrame({group: 1 - labels[group_names(group)[0]].astype(int) for group in BIOMARKER_GROUPS})
    return seen.assign(**{"irregular pleura": seen["pleural indent"] | seen["pleural break"]})


def _rates_by_severity(trainee: pd.DataFrame, disease: pd.Series, of_patient: pd.Series) -> dict[str, dict]:
    """P(A-lines) and P(B-lines) by severity, all by the trainee, videos weighted to COVID-BLUES' mix of patients."""
    patients, present = of_patient.value_counts(), _present(trainee)
    weight = disease.map({name: n / patients.get(name, 1) for name, n in COVID_BLUES_MIX.items()}).fillna(0.0)
    weights = pd.DataFrame({str(grade): weight * (trainee["severity"] == grade) for grade in range(4)})
    shown = {group: weights.mul(present[group], axis=0).sum() for group in ("A-lines", "B-lines")}
    return {f"P({group} | severity)": (sums / weights.sum()).to_dict() for group, sums in shown.items()}


def _rates_by_disease(truth: pd.DataFrame, of_patient: pd.Series) -> dict[str, dict]:
    """Per patient, in any video."""
    seen = _present(truth).rename(columns={"pleural thickness": "thick pleura"})
    seen["abnormal pleura"] = seen["irregular pleura"] | seen["thick pleura"]
    more = seen[["irregular pleura", "consolidation", "effusion"]].any(axis=1) | (truth["lung_severity"] != "0")
    seen["more"] = more | truth[list(group_names("B-lines")[2:])].any(axis=1)
    any_video = seen.groupby(truth["patient"]).max()
    any_video["A-profile only"] = 1 - any_video["more"]
    names = ["B-lines", "effusion", "consolidation", "thick pleura", "irregular pleura", "abnormal pleura"]
    return any_video[[*names, "A-profile only"]].groupby(of_patient).mean().to_dict("index")


def _best_accuracy(recordings: Sequence[Recording]) -> float:
    """How often somebody who knows the exact severity guesses the trainee's grade."""
    centre = np.array([r.severity for r in recordings])[:, None] + TRAINEE.bias
    edges = ndtr((np.array([-np.inf, 0.5, 1.5, 2.5, np.inf]) - centre) / TRAINEE.sd)
    return np.diff(edges, axis=1).max(axis=1).mean()


def _kappas(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Cohen's kappa: of presence, except for the four options of thickness."""
    from sklearn.metrics import cohen_kappa_score

    a, b = (_present(labels).rename(columns={"irregular pleura": "pleural abnormality"}) for labels in (one, other))
    names = ("A-lines", "B-lines", "consolidation", "effusion", "pleural abnormality")
    kappas = {name: cohen_kappa_score(a[name], b[name]) for name in names}
    options = (labels[list(group_names("pleural thickness"))].to_numpy().argmax(axis=1) for labels in (one, other))
    return kappas | {"pleural thickness": cohen_kappa_score(*options)}


def _anchors(truth: pd.DataFrame, trainee: pd.DataFrame, recordings: Sequence[Recording]) -> dict[str, dict]:
    """Random forests on exact findings, on true, rated and shuffled biomarkers: what they decide, and chance."""
    names = list(BIOMARKER_NAMES)
    tasks = {"severity": trainee["severity"].astype(str), "S/F": truth["sf_ratio"], "disease": truth["disease"]}
    inputs = {
        "exact findings": pd.DataFrame(map(_measure_findings, recordings)),
        "oracle (true biomarkers)": truth[names],
        "trainee's biomarkers": trainee[names],
        "shuffled biomarkers": trainee[names].sample(frac=1, random_state=0),
    }
    values = {}
    for source, x in inputs.items():
        scores = {task: score_forest(x.to_numpy(), y.to_numpy(), truth["patient"]) for task, y in tasks.items()}
        values[source] = {f"{task} {name}": v for task, pair in scores.items() for name, v in pair.items()}
    return values


def _measure_findings(recording: Recording) -> list[float]:
    """All that findings say, in millimetres and counts: of several widths how many, their sum, the largest."""
    numbers = []
    for value in recording.findings:
        numbers += [len(value), sum(value), max(value, default=0.0)] if isinstance(value, tuple) else [float(value)]
    return numbers


def score_nuisance(patients: int, seed: int = 0, probe: str = "linear") -> dict[str, float]:
    """AUC of true severity and disease for a random forest that sees how bodies move and are built, and no finding.

    Args:
        patients: How many are simulated; nothing is drawn.
        seed: Of the cohort.
        probe: ``"linear"`` or ``"convex"``.
    """
    recordings = simulate_recordings(patients, seed, probe)
    scenes = [build_scene(r.findings, r.patient, r.zone, r.generator(3)) for r in recordings]
    ribs = [[sum(rib.x_mm for rib in s.ribs if rib.x_mm * side > 0) for side in (-1, 1)] for s in scenes]
    x = np.array([[*s.motion, s.tilt, s.bend_mm, *places] for s, places in zip(scenes, ribs, strict=True)])
    truth, groups = truth_table(recordings), np.array([r.patient.index for r in recordings])
    return {task: score_forest(x, truth[task].to_numpy(), groups)["AUC"] for task in ("lung_severity", "disease")}


def score_forest(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Accuracy and AUC (one against one, weighted by support) of a random forest in four folds that share no group.

    Args:
        x: Features, (videos, K).
        y: Classes, (videos,).
        groups: Patient of each video, (videos,).
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    forest = RandomForestClassifier(100, min_samples_leaf=4, random_state=0)
    folds = GroupKFold(4, shuffle=True, random_state=0)
    p = cross_val_predict(forest, x, y, groups=groups, cv=folds, method="predict_proba")
    classes = np.unique(y)
    auc = roc_auc_score(y, p, multi_class="ovo", average="weighted", labels=classes)
    return {"accuracy": (classes[p.argmax(axis=1)] == y).mean(), "AUC": auc}
