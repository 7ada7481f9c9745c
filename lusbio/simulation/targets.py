"""Do the rates of the literature come out? Target against realised, over many cohorts of labels (nothing is drawn)."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import spearmanr

from lusbio.simulation import constants as c
from lusbio.simulation.patients import Recording
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import SPECIALIST, TRAINEE, rate_biomarkers, rate_severity, truth_table
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS, group_names

TOLERANCE = 0.05
COVID_BLUES_MIX = {c.HEALTHY: 10, c.COVID: 33, c.OTHER_LUNG: 20}
"""Patients by disease in COVID-BLUES: the mix its rates per video belong to."""

TARGETS: dict[tuple[str, str], tuple[float, float]] = {
    **{("severity prior", k): (v, v) for k, v in zip("0123", (0.35, 0.25, 0.25, 0.15), strict=True)},
    **{("S/F prior", k): (v, v) for k, v in zip(TASKS["sf_ratio"].classes, (0.4, 0.3, 0.2, 0.1), strict=True)},
    **{("disease prior", disease): (rates.prior, rates.prior) for disease, rates in c.RATES.items()},
    ("within-patient correlation", "severity"): (0.35, 0.35),
    **{("P(A-lines | severity)", k): (v, v) for k, v in zip("0123", (0.78, 0.81, 0.63, 0.31), strict=True)},
    **{("P(B-lines | severity)", k): (v, v) for k, v in zip("0123", (0.39, 0.82, 0.78, 0.67), strict=True)},
    (c.EDEMA, "B-lines"): (1.0, 1.0),
    (c.EDEMA, "abnormal pleura"): (0.25, 0.25),
    (c.EDEMA, "effusion"): (0.95, 0.95),
    (c.EDEMA, "consolidation"): (0.0, 0.0),
    (c.ILD, "B-lines"): (0.80, 0.80),
    (c.ILD, "thick pleura"): (0.56, 0.56),
    (c.ILD, "irregular pleura"): (0.78, 0.78),
    (c.AIRWAY, "A-profile only"): (0.78, 0.94),
    (c.COVID, "B-lines"): (0.97, 0.97),
    (c.COVID, "abnormal pleura"): (0.70, 0.70),
    (c.COVID, "thick pleura"): (0.54, 0.54),
    (c.COVID, "consolidation"): (0.39, 0.39),
    (c.COVID, "effusion"): (0.14, 0.14),
    (c.OTHER_LUNG, "abnormal pleura"): (1.0, 1.0),
    (c.OTHER_LUNG, "consolidation"): (0.83, 0.83),
    (c.OTHER_LUNG, "effusion"): (0.67, 0.67),
    (c.HEALTHY, "A-profile only"): (0.5, 1.0),
    (c.NON_LUNG, "A-profile only"): (0.5, 1.0),
    ("S/F", "Spearman with mean severity"): (-0.5, -0.3),
    ("trainee against specialist", "exact"): (0.56, 0.56),
    ("trainee against specialist", "within one grade"): (0.97, 0.97),
    ("trainee from exact truth", "accuracy"): (0.80, 0.80),
    **{
        ("kappa, trainee against truth", k): (v, v)
        for k, v in {
            "A-lines": 0.9,
            "B-lines": 0.9,
            "consolidation": 0.75,
            "effusion": 0.7,
            "pleural abnormality": 0.7,
            "pleural thickness": 0.5,
        }.items()
    },
    **{
        ("kappa, trainee against specialist", k): (v, v)
        for k, v in {
            "A-lines": 0.8,
            "B-lines": 0.8,
            "consolidation": 0.57,
            "effusion": 0.5,
            "pleural abnormality": 0.5,
            "pleural thickness": 0.23,
        }.items()
    },
    ("oracle (true biomarkers)", "severity accuracy"): (0.70, 0.80),
    ("oracle (true biomarkers)", "S/F AUC"): (0.57, 0.65),
    ("oracle (true biomarkers)", "disease accuracy"): (0.40, 0.50),
}
"""What the specification asks for, as lowest and highest value. Sources: Gare et al. 2022 (shares, 56 % agreement),
COVID-BLUES (within-patient correlation, rates per severity), the simulator's specification (the others)."""


def summarise_targets(seeds: Iterable[int] = range(20), *, patients: int = 189, anchors: bool = True) -> pd.DataFrame:
    """Target against realised for every rate the label model was fixed by.

    Rates per patient are of the truth; rates per video, priors of severity and agreements are of the raters, as in the
    sources. The anchors are random forests on biomarkers, four folds by patient, scored per video against the trainee.

    Args:
        seeds: One cohort of labels each.
        patients: Patients per cohort.
        anchors: Whether to fit the anchors, which takes three seconds per cohort instead of a third of one.

    Returns:
        One row per quantity: ``group, quantity, low, high`` (the target), ``mean, sd`` over cohorts, ``within`` (the
        mean is inside the target, give or take .05; empty where there is no target).
    """
    measured = pd.DataFrame([measure_labels(simulate_recordings(patients, seed), anchors) for seed in seeds])
    rows = []
    for key in measured.columns:
        low, high = TARGETS.get(key, (np.nan, np.nan))
        mean, sd = measured[key].mean(), measured[key].std(ddof=0)
        within = np.nan if np.isnan(low) else bool(low - TOLERANCE <= mean <= high + TOLERANCE)
        rows.append((*key, low, high, mean, sd, within))
    return pd.DataFrame(rows, columns=["group", "quantity", "low", "high", "mean", "sd", "within"])


def measure_labels(recordings: Sequence[Recording], anchors: bool = True) -> dict[tuple[str, str], float]:
    """All quantities of ``summarise_targets`` in one cohort.

    Args:
        recordings: Its videos.
        anchors: Whether to fit the anchors.

    Returns:
        Value by group and quantity.
    """
    truth = truth_table(recordings).assign(patient=[r.patient.index for r in recordings])
    trainee, specialist = (
        pd.DataFrame([rate_biomarkers(r, rater) for r in recordings]).assign(
            severity=[int(rate_severity(r, rater)) for r in recordings]
        )
        for rater in (TRAINEE, SPECIALIST)
    )
    people = truth.groupby("patient").first()
    values = {
        **_shares("severity prior", trainee["severity"].astype(str), TASKS["lung_severity"].classes),
        **_shares("S/F prior", people["sf_ratio"], TASKS["sf_ratio"].classes),
        **_shares("disease prior", people["disease"], TASKS["disease"].classes),
        ("within-patient correlation", "severity"): intraclass_correlation(trainee["severity"], truth["patient"]),
        **_rates_by_severity(trainee, truth["disease"], truth["patient"]),
        **_rates_by_disease(truth),
        **_sf_correlation(recordings, trainee["severity"]),
        **_severity_agreement(recordings, trainee["severity"], specialist["severity"]),
        **_kappas("kappa, trainee against truth", trainee, truth),
        **_kappas("kappa, trainee against specialist", trainee, specialist),
        **(_anchors(truth, trainee) if anchors else {}),
    }
    means = trainee["severity"].groupby(truth["disease"]).mean()
    return values | {("mean severity (trainee)", disease): float(means[disease]) for disease in means.index}


def _shares(group: str, labels: pd.Series, classes: Sequence[str]) -> dict:
    return {(group, name): float((labels == name).mean()) for name in classes}


def intraclass_correlation(values: pd.Series, groups: pd.Series) -> float:
    """One-way random-effects intraclass correlation, ICC(1), with groups of unequal size.

    Args:
        values: Numbers.
        groups: Which group each belongs to; at least two groups, one of them with two values.

    Returns:
        Share of the variance that lies between groups; slightly negative by chance when there is none.
    """
    table = pd.DataFrame({"value": values.to_numpy(float), "group": groups.to_numpy()}).groupby("group")["value"]
    sizes, means, total = table.size(), table.mean(), len(values)
    between = float((sizes * (means - values.mean()) ** 2).sum() / (len(sizes) - 1))
    within = float(table.apply(lambda v: ((v - v.mean()) ** 2).sum()).sum() / (total - len(sizes)))
    size = (total - (sizes**2).sum() / total) / (len(sizes) - 1)
    return (between - within) / (between + (size - 1) * within)


def _rates_by_severity(trainee: pd.DataFrame, disease: pd.Series, patient: pd.Series) -> dict:
    """P(A-lines) and P(B-lines) by severity, all by the trainee, videos weighted to COVID-BLUES' mix of patients."""
    patients = patient.groupby(disease).nunique()
    weight = disease.map({name: n / patients.get(name, 1) for name, n in COVID_BLUES_MIX.items()}).fillna(0.0)
    rates = {}
    for group in ("A-lines", "B-lines"):
        present = 1 - trainee[group_names(group)[0]]
        for grade in range(4):
            w = weight * (trainee["severity"] == grade)
            rates[f"P({group} | severity)", str(grade)] = float((w * present).sum() / w.sum()) if w.sum() else np.nan
    return rates


def _rates_by_disease(truth: pd.DataFrame) -> dict:
    """Per patient, in any video."""
    none = {g: 1 - truth[group_names(g)[0]] for g in ("B-lines", "effusion", "consolidation", "pleural thickness")}
    irregular = 1 - truth[group_names("pleural indent")[0]] * truth[group_names("pleural break")[0]]
    many = truth[list(group_names("B-lines")[2:])].max(axis=1)
    any_ = (
        pd.DataFrame(
            {
                "B-lines": none["B-lines"],
                "effusion": none["effusion"],
                "consolidation": none["consolidation"],
                "thick pleura": none["pleural thickness"],
                "irregular pleura": irregular,
                "abnormal pleura": np.maximum(irregular, none["pleural thickness"]),
                "more": np.maximum.reduce(
                    [
                        many,
                        irregular,
                        none["consolidation"],
                        none["effusion"],
                        (truth["lung_severity"] != "0").astype(int),
                    ]
                ),
            }
        )
        .groupby(truth["patient"])
        .max()
    )
    any_["A-profile only"] = 1 - any_.pop("more")
    rates = any_.groupby(truth.groupby("patient")["disease"].first()).mean()
    return {(disease, finding): float(rates.loc[disease, finding]) for disease in rates.index for finding in rates}


def _sf_correlation(recordings: Sequence[Recording], severity: pd.Series) -> dict:
    mean = severity.groupby([r.patient.index for r in recordings]).mean()
    value = {r.patient.index: r.patient.sf_value for r in recordings}
    return {("S/F", "Spearman with mean severity"): float(spearmanr(mean, [value[i] for i in mean.index]).statistic)}


def _severity_agreement(recordings: Sequence[Recording], trainee: pd.Series, specialist: pd.Series) -> dict:
    apart = (trainee - specialist).abs()
    centre = np.array([r.severity for r in recordings])[:, None] + TRAINEE.bias
    edges = ndtr((np.array([-np.inf, 0.5, 1.5, 2.5, np.inf]) - centre) / TRAINEE.sd)
    return {
        ("trainee against specialist", "exact"): float((apart == 0).mean()),
        ("trainee against specialist", "within one grade"): float((apart <= 1).mean()),
        ("trainee from exact truth", "accuracy"): float(np.diff(edges, axis=1).max(axis=1).mean()),
    }


def _kappas(name: str, one: pd.DataFrame, other: pd.DataFrame) -> dict:
    """Cohen's kappa: of presence, except for the four options of thickness."""
    from sklearn.metrics import cohen_kappa_score

    def option(table: pd.DataFrame, group: str) -> np.ndarray:
        return table[list(group_names(group))].to_numpy().argmax(axis=1)

    def present(table: pd.DataFrame, group: str) -> np.ndarray:
        return 1 - table[group_names(group)[0]].to_numpy().astype(int)

    def abnormal(table: pd.DataFrame) -> np.ndarray:
        return present(table, "pleural indent") | present(table, "pleural break")

    pairs = {g: (present(one, g), present(other, g)) for g in ("A-lines", "B-lines", "consolidation", "effusion")}
    pairs["pleural abnormality"] = (abnormal(one), abnormal(other))
    pairs["pleural thickness"] = (option(one, "pleural thickness"), option(other, "pleural thickness"))
    return {(name, key): float(cohen_kappa_score(*pair)) for key, pair in pairs.items()}


def _anchors(truth: pd.DataFrame, trainee: pd.DataFrame) -> dict:
    """Random forests on true, rated and shuffled biomarkers: what experts can reach, and chance."""
    names = list(BIOMARKER_NAMES)
    tasks = {"severity": trainee["severity"].astype(str), "S/F": truth["sf_ratio"], "disease": truth["disease"]}
    shuffled = trainee[names].sample(frac=1, random_state=0).to_numpy()
    inputs = {
        "oracle (true biomarkers)": truth[names].to_numpy(),
        "trainee's biomarkers": trainee[names].to_numpy(),
        "shuffled biomarkers": shuffled,
    }
    values = {}
    for source, x in inputs.items():
        for task, y in tasks.items():
            accuracy, auc = score_forest(x, y.to_numpy(), truth["patient"].to_numpy())
            values[source, f"{task} accuracy"], values[source, f"{task} AUC"] = accuracy, auc
    return values


def score_forest(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Accuracy and AUC of a random forest in four folds that share no group.

    Args:
        x: Features, (videos, K).
        y: Classes, (videos,).
        groups: Patient of each video, (videos,).

    Returns:
        Accuracy; AUC (one against one, weighted by support), of all folds together.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    forest = RandomForestClassifier(100, min_samples_leaf=4, random_state=0)
    folds = GroupKFold(4, shuffle=True, random_state=0)
    p = cross_val_predict(forest, x, y, groups=groups, cv=folds, method="predict_proba")
    classes = np.unique(y)
    accuracy = float((classes[p.argmax(axis=1)] == y).mean())
    return accuracy, float(roc_auc_score(y, p, multi_class="ovo", average="weighted", labels=classes))
