"""From decisions about videos to decisions about patients, and patients left out."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lusbio.errors import LusbioError
from lusbio.experts.rows import Row
from lusbio.statistics.bootstrap import HeldOut
from lusbio.vocabulary import ON_ALL_PLACES


def share_places(row: Row) -> Row:
    """Half of a video's probabilities its own, half the mean over all videos of the same patient.

    The places of a chest fall ill together. No label is used, only which videos are of one patient.

    Source: engineering choice, tried with other levers on inner folds (``experiments/lever_ladder.py``).
    """
    return replace(_change(row, _share_within), features=ON_ALL_PLACES[row.features])


def aggregate_patients(row: Row) -> Row:
    """One decision per patient and run: the mean of the probabilities of the patient's videos."""
    return _change(row, average_patients)


def average_patients(videos: HeldOut) -> HeldOut:
    """Mean probabilities over the videos of each patient (group); ``rows`` are those of the patients' first videos.

    Raises:
        LusbioError: If videos of a patient have different labels.
    """
    names, first, of_video = np.unique(videos.groups, return_index=True, return_inverse=True)
    if (videos.labels != videos.labels[first][of_video]).any():
        raise LusbioError("videos of a patient have different labels: this task is not about patients")
    means = _mean_by(of_video, videos.probabilities).round(12)  # so that equal ones stay equal
    return HeldOut(videos.labels[first], means, names, videos.rows[first])


def leave_out(row: Row, groups: Sequence[str]) -> Row:
    """A row without the test videos of some patients; runs that no other patient was tested in are gone."""
    kept = [(videos, ~np.isin(videos.groups, groups)) for videos in row.held_out]
    return replace(row, held_out=tuple(videos.keep(others) for videos, others in kept if others.any()))


def _share_within(videos: HeldOut) -> HeldOut:
    _, of_video = np.unique(videos.groups, return_inverse=True)
    means = _mean_by(of_video, videos.probabilities)[of_video]
    return videos._replace(probabilities=(videos.probabilities + means) / 2)


def _mean_by(index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of the rows of ``values`` (V, K) that share an index: one row per index."""
    sums = np.zeros((index.max() + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums / np.bincount(index)[:, None]


def _change(row: Row, change: Callable[[HeldOut], HeldOut]) -> Row:
    return replace(row, held_out=tuple(map(change, row.held_out)), validated=tuple(map(change, row.validated)))
