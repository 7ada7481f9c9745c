"""Experts: light scikit-learn classifiers from biomarkers (or features) to a task.

Everything that could flatter an expert happens inside: the training set is oversampled after the
split, several fits are made, and the one that is kept is chosen on the validation videos.
"""

import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sklearn
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from lusbio.cohorts.splits import oversample
from lusbio.errors import LusbioError
from lusbio.files import atomic_path
from lusbio.statistics.metrics import judge_validation

EXPERT_NAMES = ("DT", "SVM", "RF", "AB", "NN", "MLP", "MLP large")
"""The paper's seven: decision tree, support vector machine, random forest, AdaBoost, nearest
neighbours, and two multi-layer perceptrons."""

FOREST = "RF leaves of 4"
"""A random forest that does not split fewer than four videos off, as behind the simulator's targets."""

LOGISTIC = "LR"
"""A logistic regression on standardised features: what is said of a network's features without asking more of them."""

TRUSTED_TYPES = {
    *("sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration"),
    *("sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.neighbors._kd_tree.KDTree"),
    *("sklearn.neural_network._stochastic_optimizers.AdamOptimizer", "sklearn.tree._tree.Tree"),
    *("sklearn.utils._bunch.Bunch", "numpy.dtype"),
}
"""What a saved expert may hold besides what skops trusts by itself: the insides of the seven, and of those on signs."""

Splits = list[tuple[np.ndarray, np.ndarray]]


def make_expert(name: str, seed: int, calibration: int | Splits = 5) -> ClassifierMixin:
    """An unfitted classifier with scikit-learn's defaults, as in the paper.

    Nothing is scaled: biomarker probabilities share the range [0, 1]. ``"MLP large"`` asks for an
    adaptive learning rate as the paper does; scikit-learn uses it only with plain SGD, so with the
    default optimiser, Adam, it changes nothing.

    Args:
        name: One of ``EXPERT_NAMES``, ``FOREST`` or ``LOGISTIC``.
        seed: 0 to 2**32 - 1. The support vector machine and nearest neighbours do not use it.
        calibration: Folds by which the support vector machine's scores are turned into
            probabilities: a number, or (train, test) rows that keep groups together.

    Returns:
        A classifier with ``fit`` and ``predict_proba``.

    Raises:
        ValueError: If there is no such expert.

    Source:
        Gare et al. 2022, Section 3. ``SVC(probability=True)``, which the paper used, is deprecated;
        this is scikit-learn's replacement.
    """
    experts = {
        "DT": DecisionTreeClassifier(random_state=seed),
        "SVM": CalibratedClassifierCV(SVC(), ensemble=False, cv=calibration),
        "RF": RandomForestClassifier(random_state=seed),
        FOREST: RandomForestClassifier(min_samples_leaf=4, random_state=seed),
        LOGISTIC: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)),
        "AB": AdaBoostClassifier(random_state=seed),
        "NN": KNeighborsClassifier(),
        "MLP": MLPClassifier(random_state=seed),
        "MLP large": MLPClassifier((128, 64, 32), learning_rate="adaptive", random_state=seed),
    }
    if name not in experts:
        raise ValueError(f"expert {name!r} is not one of {', '.join(EXPERT_NAMES)}")
    return experts[name]


@dataclass(frozen=True)
class Expert:
    """A fitted classifier that knows all classes of its task.

    Attributes:
        name: One of ``EXPERT_NAMES``, or ``FOREST``.
        model: The fitted scikit-learn classifier.
        n_classes: K, classes of the task, whether or not they were in the training set.
        validated: In [0, 1], what it was chosen by, see ``judge_validation``.
        fit: Which of the fits it is, 0-based.
    """

    name: str
    model: ClassifierMixin
    n_classes: int
    validated: float
    fit: int

    def predict_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probabilities of all classes.

        Args:
            features: Shape (V, number of features it was fitted on), finite.

        Returns:
            float64, shape (V, K), rows that sum to 1; 0 for classes that were not in the training set.

        Raises:
            LusbioError: If the features have another shape or are not finite.
        """
        features = _check_features(features, "features", width=self.model.n_features_in_)
        probabilities = np.zeros((len(features), self.n_classes))
        probabilities[:, self.model.classes_] = self.model.predict_proba(features)
        return probabilities


def fit_expert(
    name: str,
    features: np.ndarray,
    labels: np.ndarray,
    groups: Sequence,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    *,
    n_classes: int,
    seed: int = 0,
    fits: int = 3,
) -> Expert:
    """Fit an expert several times and keep the fit with the best AUC on the validation videos.

    Each fit oversamples the training videos anew, so that fits differ even where the classifier has
    no randomness of its own. Perceptrons stop after scikit-learn's default of 200 epochs, as in the
    paper; that they have not converged then is expected, and the warning is not passed on.

    Args:
        name: One of ``EXPERT_NAMES``, or ``FOREST``.
        features: Training videos, shape (V, any), finite: 38 probabilities, or a network's features.
        labels: Their class indices, shape (V,), 0 to K-1; NaN where unknown (left out).
        groups: Their groups, shape (V,).
        val_features: Validation videos, shape (W, as above).
        val_labels: Their class indices, shape (W,), NaN where unknown (left out).
        n_classes: K, classes of the task.
        seed: Same seed, same expert.
        fits: How many fits to choose from; of equally good ones the first is kept.

    Returns:
        The expert.

    Raises:
        LusbioError: If arrays do not belong together, fewer than two classes are in the training set, or
            no validation video has a label.
        ValueError: If there is no such expert.

    Source:
        Gare et al. 2022, Section 3: three fits, the best kept. Choosing on validation, never on test,
        is our decision.
    """
    features, labels, known = _take_labelled(features, labels, n_classes, "training")
    val_features, val_labels, _ = _take_labelled(val_features, val_labels, n_classes, "validation", features.shape[1])
    if len(groups) != len(known):
        raise LusbioError(f"{len(groups)} groups for {len(known)} training videos")
    groups, n_known = np.asarray(groups)[known], len(np.unique(labels))
    if n_known < 2 or not len(val_labels):
        found = f"{n_known} classes in the training set and {len(val_labels)} labelled validation videos"
        raise LusbioError(f"{found}; an expert needs at least 2 and 1")
    fitted = []
    for fit in range(fits):
        fit_seed = int(np.random.SeedSequence([seed, fit]).generate_state(1)[0])
        rows = oversample(labels, groups, fit_seed)
        model = make_expert(name, fit_seed, _calibration_splits(labels[rows], groups[rows]) if name == "SVM" else 5)
        with warnings.catch_warnings(), threadpool_limits(1):  # more threads change the last digits
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[rows], labels[rows])
        expert = Expert(name, model, n_classes, 0.0, fit)
        validated = judge_validation(val_labels, expert.predict_probabilities(val_features))
        fitted.append(replace(expert, validated=validated))
    return max(fitted, key=lambda expert: expert.validated)


def _check_features(features: np.ndarray, what: str, width: int | None = None) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or (width is not None and features.shape[1] != width):
        raise LusbioError(f"{what} have shape {features.shape}, expected (V, {width or 'any'})")
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise LusbioError(f"{what} hold {features[row, column]} in row {row}, column {column}, expected finite numbers")
    return features


def _take_labelled(
    features: np.ndarray, labels: np.ndarray, n_classes: int, what: str, width: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and class indices of the videos with a label, and bool (V,): which these are. Checks what is given."""
    features = _check_features(features, f"{what} features", width)
    labels = np.asarray(labels, dtype=np.float64)
    if labels.shape != features.shape[:1]:
        raise LusbioError(f"{what} labels have shape {labels.shape}, expected {features.shape[:1]}")
    known = ~np.isnan(labels)
    if not np.isin(labels[known], np.arange(n_classes)).all():
        raise LusbioError(f"{what} labels hold {np.unique(labels[known])}, expected 0 to {n_classes - 1} or NaN")
    return features[known], labels[known].astype(int), known


def _calibration_splits(labels: np.ndarray, groups: np.ndarray) -> Splits:
    """Up to five folds that keep groups together and leave every class on every training side.

    A class that lives in a single fold (it has one group, say) cannot be split by group; its rows
    are dealt over all folds. This concerns only the scale of the probabilities, not the evaluation.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    n_groups = len(np.unique(groups))
    if sizes.min() < 2:
        raise LusbioError("the training set has one video per class; expert 'SVM' needs at least two of one class")
    n_folds = max(2, min(5, n_groups, sizes.min()))
    fold = np.zeros(len(labels), dtype=int)
    if n_groups > 1:
        for number, (_, held_out) in enumerate(StratifiedGroupKFold(n_folds).split(labels, labels, groups)):
            fold[held_out] = number
    for name in classes:
        rows = np.flatnonzero(labels == name)
        if len(np.unique(fold[rows])) == 1:
            fold[rows] = np.arange(len(rows)) % n_folds
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in np.unique(fold)]


def save_expert(expert: Expert, path: Path) -> None:
    """Write an expert atomically, as a skops file (``*.skops``): no pickle inside."""
    import skops.io  # slow to import, and absent on machines that only train

    with atomic_path(path) as temporary:
        content = {"scikit_learn": sklearn.__version__, **vars(expert)}
        skops.io.dump(content, temporary, compression=zipfile.ZIP_DEFLATED)  # a forest becomes a tenth


def load_expert(path: Path) -> Expert:
    """Read an expert that ``save_expert`` wrote. Nothing but known types is ever built from the file.

    It predicts the same as the one that was saved.

    Raises:
        LusbioError: If the file is missing or is no expert, holds a type that is neither skops' nor in
            ``TRUSTED_TYPES`` (it is named), or comes from another minor version of scikit-learn.
    """
    import skops.io

    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - TRUSTED_TYPES)
        if unknown:
            raise LusbioError(f"{path} holds {', '.join(unknown)}, which is not trusted; nothing was loaded")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)  # checked below, as an error
            content = skops.io.load(path, trusted=sorted(TRUSTED_TYPES))
        version = content.pop("scikit_learn")
        if "validation_accuracy" in content:  # what fits were chosen by before
            content["validated"] = content.pop("validation_accuracy")
        expert = Expert(**content)
    except LusbioError:
        raise
    except Exception as error:  # a broken zip or schema fails in many ways inside skops
        raise LusbioError(f"{path} is not an expert written by save_expert: {error!r}") from error
    if version.split(".")[:2] != sklearn.__version__.split(".")[:2]:
        raise LusbioError(f"{path}: written with scikit-learn {version}, this is {sklearn.__version__}; fit it again")
    return expert
