"""The paper itself, in miniature: every notebook on a toy cohort, as `make smoke` runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support, roc_auc_score

ROOT = Path(__file__).resolve().parents[1]
CLASSES = {
    "lung_severity": ["0", "1", "2", "3"],
    "sf_ratio": [">430", "275-430", "180-275", "<180"],
    "disease": [
        "healthy",
        "COVID pneumonia",
        "interstitial lung disease",
        "asthma/COPD exacerbation",
        "cardiogenic pulmonary edema",
        "other lung disease",
        "other non-lung disease",
    ],
}
"""Spelled out: the numbers are recomputed without the package."""


def make_smoke(folder: Path, jobs: int) -> Path:
    """Run `make smoke` with everything it makes in a folder; returns where its tables lie."""
    environment = {**os.environ, "LUSBIO_BUILD": str(folder / "build"), "LUSBIO_FIGURES": str(folder / "figures")}
    for variable in ("MAKEFLAGS", "LUSBIO_DATA"):  # with real patients at hand the paper has more to show
        environment.pop(variable, None)
    command = ["make", "--no-print-directory", "smoke", f"PYTHON={sys.executable}", f"JOBS={jobs}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "figures" / "smoke" / "synthetic"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    return make_smoke(tmp_path_factory.mktemp("first"), jobs=1)  # the other core has the other tests


TABLES = [
    "table1",
    "table2",
    "table4",
    "table5",
    "table6",
    "table7",
    "raters",
    "biomarker_aucs",
    "differences",
    "verdict",
    "measured_signs",
    "cost",
    "confusion",
    "kappa",
    "operating_points",
    "calibration",
    "reliability",
    "label_efficiency",
    "importance",
    "simulator_targets",
    "dense_pixels",
    "dense_segmentation",
    "dense_transfer",
    "dense_differences",
    "dense_cost",
    "dense_verdict",
    "change",
    "change_differences",
    "change_distance",
    "change_verdict",
    "pretraining",
    "pretraining_differences",
    "pretraining_drift",
    "pretraining_segmentation",
    "pretraining_verdict",
]
FIGURES = [
    "fig1",
    "fig2",
    "fig3",
    "fig4",
    "table1",
    "table6",
    "learning_curves",
    "biomarker_aucs",
    "agreement",
    "cost",
    "confusion",
    "reliability",
    "label_efficiency",
    "importance",
    "contact_sheet",
    "simulator_layers",
    "dense_segmentation",
    "dense_frames",
    "dense_transfer",
    "dense_routes",
    "dense_cost",
    "change_distance",
    "change_patient",
    "change_thresholds",
    "pretraining",
    "pretraining_error",
    "pretraining_frames",
]


def test_make_smoke_makes_every_table_and_figure(smoke):
    tables = {f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md")}
    figures = {f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "pdf")}
    assert {path.name for path in smoke.iterdir()} == {*tables, *figures, "run.json", "timing.json"}


def test_every_cell_of_table1_is_a_number_with_an_interval_around_it(smoke):
    table = pd.read_csv(smoke / "table1.csv")
    networks, experts = (3 + 1, 7 * (3 + 3 + 1 + 2 + 3))  # end to end, biomarkers, pretrained, severity's, crossed
    baselines, signs = 3 * 4, 3 * 2  # alone, and together with biomarkers
    assert len(table) == 2 * (networks + experts + signs + baselines)
    assert table.drop(columns=["published_mean", "published_sd"]).notna().all(axis=None)
    assert ((table["ci_low"] <= table["ci_high"]) & table["mean"].between(0, 100)).all()
    assert table["published_mean"].notna().sum() == 134
    assert "**Simulated**" in (smoke / "table1.md").read_text() and "`smoke`" in (smoke / "table1.md").read_text()


def recompute(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The metrics of a task by scikit-learn; one-vs-one AUC over the classes that are there."""
    present = np.unique(labels)
    kept = probabilities[:, present]
    if len(present) < probabilities.shape[1]:
        total = kept.sum(1, keepdims=True)
        kept = np.where(total > 0, kept / np.where(total > 0, total, 1), 1 / len(present)).round(12)
    if len(present) == 2:
        auc = roc_auc_score(labels == present[1], kept[:, 1])
    else:
        auc = roc_auc_score(labels, kept, multi_class="ovo", average="weighted", labels=present)
    decided = probabilities.argmax(1)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, decided, average="weighted", zero_division=0)
    return {"accuracy": recall, "precision": precision, "f1": f1, "auc": auc}


@pytest.fixture(scope="module")
def cohort(smoke) -> pd.DataFrame:
    path = smoke.parents[2] / "build/cohorts/synthetic/smoke/cohort.csv"
    return pd.read_csv(path, dtype=str).set_index("video_id")


def finished_runs(smoke: Path) -> list[tuple[Path, dict, pd.DataFrame]]:
    """Folder, run.json and predictions of the runs behind Table 1."""
    found = []
    for folder in sorted((smoke.parents[2] / "build" / "runs").iterdir()):
        info = json.loads((folder / "run.json").read_text())
        spec = info["spec"]
        usual = (spec["cohort"], spec["backbone"]) == ("synthetic", "tsm_resnet18")
        if usual and spec["label_fraction"] == spec["budget"] == 1:
            found.append((folder, info, pd.read_csv(folder / "predictions.csv", dtype={"video_id": str})))
    return found


@pytest.fixture(scope="module")
def recomputed(smoke, cohort) -> dict[tuple[str, str, str], list[dict[str, float]]]:
    """Metrics of every run by (features, classifier, task): pandas and scikit-learn, nothing of the package."""
    rows: dict = {}
    for folder, info, own in finished_runs(smoke):
        task, features = info["spec"]["task"], "end_to_end"
        if info["spec"]["initial_weights"].startswith("run:"):
            features = "pretrained_on_biomarkers"
        found = [] if task == "biomarkers" else [(features, "E2E", task, own)]
        for path in sorted((folder / "experts").glob("*.csv")):
            features, task, name, _ = path.stem.split("-")
            if "_share_" not in features:
                found.append((features, name.replace("_", " "), task, pd.read_csv(path, dtype={"video_id": str})))
        tested = own["split"].to_numpy() == "test"
        for *key, predictions in found:
            labels = cohort.loc[own["video_id"], key[2]].map(CLASSES[key[2]].index).to_numpy()[tested]
            values = recompute(labels, predictions.filter(regex=r"^p_").to_numpy()[tested])
            rows.setdefault(tuple(key), []).append(values)
    return rows


@pytest.mark.parametrize("name", ["table1", "table7"])
def test_reproduced_numbers_follow_from_the_predictions_of_the_runs(smoke, recomputed, name):
    table = pd.read_csv(smoke / f"{name}.csv").query("features not in ('majority', 'signs_and_biomarkers')")
    assert set(zip(table["features"], table["classifier"], table["task"], strict=True)) <= set(recomputed)
    for cell in table.itertuples():
        values = [100 * run[cell.metric] for run in recomputed[cell.features, cell.classifier, cell.task]]
        assert len(values) == 3
        assert cell.mean == pytest.approx(np.mean(values), abs=1e-6), cell
        assert cell.sd == pytest.approx(np.std(values), abs=1e-6), cell


def test_table2_follows_from_the_predictions_of_the_biomarker_networks(smoke, cohort):
    runs = []
    for _, info, own in finished_runs(smoke):
        if info["spec"]["task"] != "biomarkers":
            continue
        kept = np.array([name not in info["masked"] for name in info["spec"]["outputs"]])
        rows = (own["split"] == "test").to_numpy()
        names = np.array(info["spec"]["outputs"])[kept]
        labels = cohort.loc[own["video_id"], names].astype(float).to_numpy()[rows].astype(int)
        p = own.filter(regex=r"^p_").to_numpy()[rows][:, kept]
        said = (p > 0.5).astype(int)
        scores = precision_recall_fscore_support(labels, said, average="weighted", zero_division=0)[:3]
        both = [k for k in range(labels.shape[1]) if len(set(labels[:, k])) == 2]
        runs.append(
            {
                "element_accuracy": (labels == said).mean(),
                "exact_match": (labels == said).all(1).mean(),
                **dict(zip(("weighted_precision", "weighted_recall", "weighted_f1"), scores, strict=True)),
                "mean_auc": np.mean([roc_auc_score(labels[:, k], p[:, k]) for k in both]),
            }
        )
    table = pd.read_csv(smoke / "table2.csv").set_index("metric")
    assert len(runs) == 3 and set(table.index) == set(runs[0])
    for metric in table.index:
        assert table.loc[metric, "mean"] == pytest.approx(100 * np.mean([run[metric] for run in runs]), abs=1e-6)


def test_table4_follows_from_the_grades_of_the_specialist(smoke, cohort):
    table = pd.read_csv(smoke / "table4.csv").set_index(["rater", "metric"])["value"]
    found = {"trainee": [], "end_to_end": []}
    for _, info, own in finished_runs(smoke):
        if info["spec"]["task"] == "lung_severity" and not info["spec"]["initial_weights"].startswith("run:"):
            rows = (own["split"] == "test").to_numpy()
            tested = cohort.loc[own["video_id"]][rows]
            specialist = tested["specialist_lung_severity"].astype(int)
            said = own.filter(regex=r"^p_").to_numpy()[rows].argmax(1)
            for rater, grades in {"trainee": tested["lung_severity"].astype(int), "end_to_end": said}.items():
                quadratic = cohen_kappa_score(specialist, grades, weights="quadratic")
                kappas = cohen_kappa_score(specialist, grades), quadratic
                found[rater].append(((specialist.to_numpy() == np.asarray(grades)).mean(), *kappas))
    for rater, values in found.items():
        for metric, value in zip(("agreement", "kappa", "quadratic_kappa"), np.mean(values, axis=0), strict=True):
            assert table[rater, metric] == pytest.approx(100 * value, abs=1e-6), (rater, metric)


def test_the_page_of_the_paper_holds_every_table_and_figure(smoke):
    page = (smoke.parents[2] / "build/smoke/synthetic/paper.html").read_text()
    for number in range(1, 8):
        assert f"Table {number}" in page
    for number in range(1, 5):
        assert f"Fig. {number}" in page
    assert "Simulated patients" in page and 'src="http' not in page and page.count("data:image/png") >= len(FIGURES)


def test_executed_notebooks_are_pages_that_need_no_network(smoke):
    pages = list((smoke.parents[2] / "build" / "smoke" / "synthetic" / "notebooks").glob("*.html"))
    # 90 trains by itself, 07 is about COVID-BLUES, 09 about POCOVID, and in 20 people label.
    assert len(pages) == len(list((ROOT / "notebooks").glob("*.ipynb"))) - 4
    for page in pages:
        text = page.read_text()
        assert 'src="http' not in text and 'href="http' not in text.replace('href="https://arxiv.org', "")


def without_minutes(path: Path) -> bytes:
    """The content of a file; of Table 1 without its last column, the minutes of training."""
    if path.stem != "table1" or path.suffix not in (".csv", ".md"):
        return path.read_bytes()
    ends = {".csv": re.compile(rb",[^,\n]*$", re.MULTILINE), ".md": re.compile(rb"\|[^|\n]*\|$", re.MULTILINE)}
    return ends[path.suffix].sub(b"", path.read_bytes())


@pytest.mark.slow
def test_two_smoke_papers_are_equal_byte_by_byte_however_many_work_on_them(smoke, tmp_path):
    again = make_smoke(tmp_path, jobs=2)
    for path in sorted(smoke.iterdir()):
        if path.stem not in ("timing", "cost"):  # minutes
            assert without_minutes(path) == without_minutes(again / path.name), path.name


@pytest.mark.slow
def test_a_student_adds_a_task_of_their_own(smoke):
    """Notebook 90 trains by itself, so it is no part of the paper; here it finds the runs of the paper."""
    build = smoke.parents[2] / "build"
    environment = {**os.environ, "LUSBIO_BUILD": str(build), "LUSBIO_FIGURES": str(smoke.parents[1])}
    output = build / "90_your_task.ipynb"
    command = [
        sys.executable,
        "-m",
        "lusbio.publish.run_notebook",
        "notebooks/90_your_task.ipynb",
        "--output",
        str(output),
        "--profile",
        "smoke",
        "--jobs",
        "2",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    cards = (build / "runs").glob("more_than_nasal_cannula-*/run.json")
    parts = [json.loads(card.read_text())["spec"]["own"] for card in cards]
    assert len(parts) == 6 and sum(part.startswith("loss-") for part in parts) == 3
