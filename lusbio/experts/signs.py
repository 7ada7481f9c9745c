"""Experts on measured signs, alone and together with what a network found.

There are more signs than patients in small cohorts, so they are put on the scale of ranks, and the classifiers are held
back. Which signs are looked at is chosen on inner folds: those of the run's folds that it is not tested on take turns.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import QuantileTransformer
from threadpoolctl import threadpool_limits

from lusbio.cohorts.targets import classes_of, encode_task
from lusbio.errors import LusbioError
from lusbio.experts.classifiers import Expert
from lusbio.experts.rows import CHOSEN, Row, make_row, name_decisions
from lusbio.files import build_folder, code_fingerprint, text_sha256, write_csv, write_json
from lusbio.runs.parallel import side_by_side
from lusbio.runs.predict import read_predictions, write_predictions
from lusbio.runs.spec import PreparedCohort, Run
from lusbio.runs.study import Study
from lusbio.signs.measure import SIGN_NAMES, SIGNS, measure_video
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.metrics import judge_validation
from lusbio.vocabulary import WITH_SIGNS, Kind

SIGN_CODE = ("signs/lines.py", "signs/measure.py", "videos.py")
"""The files that decide what is measured."""

SETS = {
    "all signs": ("pleura", "below", "horizontal", "vertical", "texture", "light", "motion"),
    "lines and texture": ("horizontal", "vertical", "texture"),
    "pleura": ("pleura", "below"),
}
"""Groups of ``SIGNS`` to choose from. (Engineering choice, as all that follows here.)"""

WEIGHTS = (0.5, 0.25, 0.75)
"""Shares of the signs' say beside a network to choose from; of equally good ones the first."""


def take_signs(prepared: PreparedCohort, jobs: int = 1) -> np.ndarray:
    """The signs of a cohort's videos, float64 (V, S), NaN where there is nothing to measure; measured once and kept."""
    known = text_sha256(prepared.data, code_fingerprint(*SIGN_CODE), SIGN_NAMES)
    path = build_folder("signs", f"{prepared.cohort.name}-{known[:12]}.csv")
    if not path.exists():
        found = side_by_side(measure_video, [(video,) for video in prepared.cohort.video_paths()], jobs)
        write_csv(pd.DataFrame(found, columns=SIGN_NAMES), path)
    return pd.read_csv(path).to_numpy(np.float64)


def find_folds(prepared: PreparedCohort) -> np.ndarray:
    """The fold of each video, int (V,)."""
    return prepared.table["group_id"].map(prepared.folds.set_index("group_id")["fold"]).to_numpy()


def make_sign_model(chosen: str, *, seed: int = 0, trees: bool = True) -> Pipeline:
    """An unfitted classifier: logistic regression, and the mean of it and a forest of random trees.

    Args:
        chosen: A key of ``SETS``.
        seed: Of the trees.
        trees: False leaves them out, as where sets are compared.
    """
    columns = [k for k, sign in enumerate(SIGNS) if sign.group in SETS[chosen]]
    linear = LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
    forest = ExtraTreesClassifier(200, min_samples_leaf=3, class_weight="balanced", random_state=seed)
    return make_pipeline(
        make_column_transformer(("passthrough", columns)),
        SimpleImputer(strategy="median", keep_empty_features=True),
        QuantileTransformer(n_quantiles=50, output_distribution="normal"),
        VotingClassifier([("linear", linear), ("trees", forest)], voting="soft") if trees else linear,
    )


def fit_signs(values: np.ndarray, labels: np.ndarray, chosen: str, n_classes: int, **settings) -> Expert:
    """Fit the model on videos with a label: values (V, S), class indices (V,), -1 where unknown."""
    known = labels >= 0
    if len(np.unique(labels[known])) < 2:
        raise LusbioError("the videos to learn from have fewer than two classes")
    model = make_sign_model(chosen, **settings)
    n_quantiles = min(model.named_steps["quantiletransformer"].n_quantiles, int(known.sum()))
    with threadpool_limits(1):
        model.set_params(quantiletransformer__n_quantiles=n_quantiles).fit(values[known], labels[known])
    return Expert(chosen, model, n_classes, 0.0, 0)


def predict_signs(expert: Expert, values: np.ndarray) -> np.ndarray:
    """Probabilities of all classes (V, K), of signs (V, S) that may be NaN."""
    probabilities = np.zeros((len(values), expert.n_classes))
    with threadpool_limits(1):
        probabilities[:, expert.model.classes_] = expert.model.predict_proba(values)
    return probabilities


def choose_signs(values: np.ndarray, labels: np.ndarray, folds: np.ndarray, n_classes: int) -> str:
    """The set of signs from which a logistic regression decides best where inner folds take turns to be left out.

    Args:
        values: (V, S), of the patients who may be learnt from and chosen by.
        labels: Class indices (V,), -1 where unknown.
        folds: Inner fold of each video, (V,).
        n_classes: K.
    """
    validated = {}
    for chosen in SETS:
        said = np.zeros((len(values), n_classes))
        for fold in np.unique(folds):
            held_out = folds == fold
            if len(np.unique(labels[~held_out & (labels >= 0)])) > 1:
                expert = fit_signs(values[~held_out], labels[~held_out], chosen, n_classes, trees=False)
                said[held_out] = predict_signs(expert, values[held_out])
        known = (labels >= 0) & (said.sum(1) > 0)
        validated[chosen] = judge_validation(labels[known], said[known]) if known.any() else 0.0
    return max(validated, key=validated.get)


def decide_with_signs(runs: Sequence[Run], task: str, study: Study) -> Row:
    """Let measured signs decide a task: as a row like any other, with the folds of some runs.

    What is tested is decided by a model that learnt from the training and the validation patients of the run, whose
    folds chose the signs. What is validated is decided by one that learnt from the training patients.

    Args:
        runs: Whose splits are followed.
        task: A task of the study's cohort.
        study: The cohort.
    """
    values = take_signs(study, study.jobs)
    done = side_by_side(_let_decide, [(run, values, task, study) for run in runs], study.jobs)
    decided, _, minutes = zip(*done, strict=True)
    return make_row(Kind.SIGNS, CHOSEN, task, runs, decided, study, float(np.mean(minutes)))


def decide_elsewhere_with_signs(runs: Sequence[Run], task: str, study: Study, other: Study) -> list[np.ndarray]:
    """What the same models say of the videos of another cohort: probabilities (V, K) by run."""
    values, away = (take_signs(cohort, study.jobs) for cohort in (study, other))
    done = side_by_side(_let_decide, [(run, values, task, study, away) for run in runs], study.jobs)
    return [elsewhere for _, elsewhere, _ in done]


def _let_decide(
    run: Run, values: np.ndarray, task: str, study: PreparedCohort, away: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Probabilities of all videos (V, K), of those of another cohort, and minutes; the first are kept with the run."""
    labels, n_classes = encode_task(study.table, task), len(classes_of(study.table, task))
    folds = find_folds(study)
    code = np.frombuffer(code_fingerprint("experts/signs.py").encode(), np.uint8)
    path = name_decisions(f"experts/{Kind.SIGNS}", CHOSEN, run, task, study, values, labels, code)
    timing = path.with_suffix(".timing.json")
    if path.exists() and away is None:
        return read_predictions(path), None, json.loads(timing.read_text(encoding="utf-8"))["seconds"] / 60
    began, learnt, seed = time.perf_counter(), run.splits != "test", run.spec.entropy
    chosen = choose_signs(values[learnt], labels[learnt], folds[learnt], n_classes)
    final = fit_signs(values[learnt], labels[learnt], chosen, n_classes, seed=seed)
    first = fit_signs(values[run.splits == "train"], labels[run.splits == "train"], chosen, n_classes, seed=seed)
    decided = np.where((run.splits == "val")[:, None], predict_signs(first, values), predict_signs(final, values))
    seconds = round(time.perf_counter() - began, 3)
    if not path.exists():
        write_json({"seconds": seconds}, timing)
        write_predictions(decided, study.table["video_id"], path)
    return decided, None if away is None else predict_signs(final, away), seconds / 60


def fuse_with_signs(signs: Row, row: Row) -> Row:
    """What measured signs and a row of ``WITH_SIGNS`` say together: a weighted mean of their probabilities.

    Fold by fold the weight is the one of ``WEIGHTS`` that is best on the validation videos, which neither learnt from.
    """
    pairs = zip(signs.validated, row.validated, strict=True)
    weights = [max(WEIGHTS, key=lambda w, pair=pair: _judge(_mix(*pair, w))) for pair in pairs]
    sides = {
        side: tuple(_mix(*pair) for pair in zip(getattr(signs, side), getattr(row, side), weights, strict=True))
        for side in ("held_out", "validated")
    }
    return replace(row, features=WITH_SIGNS[row.features], minutes=signs.minutes + row.minutes, **sides)


def _judge(videos: HeldOut) -> float:
    return judge_validation(videos.labels, videos.probabilities)


def _mix(signs: HeldOut, other: HeldOut, weight: float) -> HeldOut:
    return other._replace(probabilities=weight * signs.probabilities + (1 - weight) * other.probabilities)
