"""Worse, the same or better, decided from what is different between two videos of a patient."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lusbio.errors import LusbioError
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.change import BETTER, WORSE, classify_change
from lusbio.statistics.metrics import judge_validation

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""What C of the logistic regression is chosen from. (Engineering choice.)"""


class Units(NamedTuple):
    """Pairs as they are counted: one by one, or all places of a patient together.

    Attributes:
        of_pair: Unit of each pair, int (P,); -1 where the change is unknown, such pairs are left out.
        change: Change of health of each unit, its mean over pairs, (U,).
        groups: Group of each unit, (U,).
        splits: ``train``, ``val`` or ``test`` of each unit, (U,).
    """

    of_pair: np.ndarray
    change: np.ndarray
    groups: np.ndarray
    splits: np.ndarray

    def average(self, differences: np.ndarray) -> np.ndarray:
        """Mean over the pairs of each unit: (P, ...) -> (U, ...)."""
        known = self.of_pair >= 0
        return pd.DataFrame(differences[known].reshape(known.sum(), -1)).groupby(self.of_pair[known]).mean().to_numpy()

    def hold_out(self, threshold: float, decided: np.ndarray) -> HeldOut:
        """Test units, as ``change_metrics`` takes them, from class and score (U, 2) of all units."""
        true, test = np.column_stack([classify_change(self.change, threshold), self.change]), self.splits == "test"
        return HeldOut(true[test], decided[test], self.groups[test])


def count_units(change: np.ndarray, groups: np.ndarray, splits: np.ndarray, *, by_patient: bool) -> Units:
    """The units of pairs whose change (P,) is known, in the order of the pairs."""
    keys = pd.Series(groups if by_patient else np.arange(len(change))).where(~np.isnan(change))
    of_pair = pd.factorize(keys)[0]
    known = np.flatnonzero(of_pair >= 0)
    first = known[np.unique(of_pair[known], return_index=True)[1]]
    units = Units(of_pair, change, groups[first], splits[first])
    return units._replace(change=units.average(change)[:, 0])


def decide_change(differences: np.ndarray, units: Units, threshold: float, *, shuffled: bool = False) -> HeldOut:
    """A logistic regression from what is different (U, F) to worse, same or better.

    Args:
        differences: Of every unit, e.g. of features.
        units: Training units teach, validation units choose C, test units are decided.
        threshold: Largest change that is the same.
        shuffled: Deal the changes of training and validation units anew: what is then found is chance.

    Returns:
        The test units; the score is the probability of better minus that of worse.

    Raises:
        LusbioError: If the training units are of one class only.
    """
    labels = classify_change(units.change, threshold).astype(int)
    train, val = (units.splits == split for split in ("train", "val"))
    if shuffled:
        for part in (train, val):
            labels[part] = np.random.default_rng(0).permutation(labels[part])
    if len(set(labels[train])) < 2:
        raise LusbioError(f"{train.sum()} training pairs are all of one class at a threshold of {threshold:g}")
    said = [_predict(_fit(differences[train], labels[train], strength), differences) for strength in STRENGTHS]
    p = max(said, key=lambda p: judge_validation(labels[val], p[val]))
    return units.hold_out(threshold, np.column_stack([p.argmax(axis=1), p[:, BETTER] - p[:, WORSE]]))


def _fit(differences: np.ndarray, labels: np.ndarray, strength: float) -> Pipeline:
    regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
    with threadpool_limits(1):
        return make_pipeline(StandardScaler(), regression).fit(differences, labels)


def _predict(model: Pipeline, differences: np.ndarray) -> np.ndarray:
    p = np.zeros((len(differences), 3))
    p[:, model.classes_] = model.predict_proba(differences)
    return p


def decide_by_score(differences: np.ndarray, units: Units, threshold: float) -> HeldOut:
    """The difference of a score of health itself, (U, 1), in its own unit: nothing is learnt from pairs."""
    return units.hold_out(
        threshold, np.column_stack([classify_change(differences[:, 0], threshold), differences[:, 0]])
    )


def decide_by_frequency(units: Units, threshold: float) -> HeldOut:
    """Everybody gets the most frequent class of the training units."""
    labels = classify_change(units.change, threshold).astype(int)[units.splits == "train"]
    return units.hold_out(threshold, np.tile([float(np.bincount(labels).argmax()), 0.0], (len(units.groups), 1)))
