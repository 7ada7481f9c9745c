"""What a row decided, video by video, and what that means in use: what is taken for what, found and missed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.errors import LusbioError
from lusbio.experts.rows import Row
from lusbio.files import Table
from lusbio.report.cells import lay_out, name_row, show_intervals
from lusbio.report.tables import runs_of
from lusbio.statistics.bootstrap import HeldOut, estimate
from lusbio.statistics.metrics import choose_threshold, detection
from lusbio.vocabulary import TASKS, title_of


def take_classes(row: Row) -> list[HeldOut]:
    """The test videos of each run with the decided class, int64 (V,), in place of its probabilities."""
    return [held_out._replace(probabilities=held_out.probabilities.argmax(axis=1)) for held_out in row.held_out]


def list_decisions(row: Row) -> pd.DataFrame:
    """Every decision on a test video, the runs one after the other.

    Returns:
        Columns ``video`` (row of the cohort's table), ``group``, ``true`` and ``decided`` (names of classes, categories
        in order), ``confidence`` (probability of the decided class), ``weight``: one over the number of runs that
        tested the video, so that the weights of a video sum to 1.
    """
    labels, probabilities, groups, videos = map(np.concatenate, zip(*row.held_out, strict=True))
    true, decided = (pd.Categorical.from_codes(k, row.classes) for k in (labels, probabilities.argmax(axis=1)))
    said = {"video": videos, "group": groups, "true": true, "decided": decided, "confidence": probabilities.max(axis=1)}
    return pd.DataFrame(said).assign(weight=lambda table: 1 / table.groupby("video")["video"].transform("size"))


def make_confusion(row: Row) -> pd.DataFrame:
    """How many videos of each class were decided to be what.

    Every test video counts once: where several runs tested it, each of them counts in part. So rows sum to the videos
    of a class, and cells need not be whole.

    Returns:
        Videos, float64; index ``true``, columns ``decided``, both with the names of all classes.
    """
    return list_decisions(row).groupby(["true", "decided"], observed=False)["weight"].sum().unstack()


def find_positive_classes(task: str, n_classes: int) -> tuple[int, ...]:
    """The classes that mean yes in a task's yes-or-no question, as indices; of a task of one's own the second of two.

    A ``LusbioError`` if such a task has more classes, and so nobody said which mean yes.
    """
    if task in TASKS:
        return TASKS[task].positive
    if n_classes == 2:
        return (1,)
    raise LusbioError(f"task {task!r} has {n_classes} classes and none of them is known to mean yes")


def make_operating_points(rows: Sequence[Row], draws: int) -> Table:
    """Sensitivity and specificity on test videos, at the threshold that was best on validation videos.

    A video is called positive where the probabilities of the positive classes together reach the threshold of its run.
    The threshold maximises sensitivity + specificity on the run's validation videos.

    Args:
        rows: Ways to decide.
        draws: Draws of patients and runs behind an interval.

    Returns:
        One line per row: ``features, classifier, task, question``; ``sensitivity`` and ``specificity`` with ``_low``
        and ``_high``, ``threshold, threshold_sd``, in percent, mean over runs.
    """
    lines = []
    for row in rows:
        yes = find_positive_classes(row.task, len(row.classes))
        thresholds = [choose_threshold(*_as_question(validated, yes)) for validated in row.validated]
        asked = [(*_as_question(held_out, yes), held_out.groups) for held_out in row.held_out]
        pairs = zip(asked, thresholds, strict=True)
        runs = [HeldOut(positive, scores >= threshold, groups) for (positive, scores, groups), threshold in pairs]
        question = f"{title_of(row.task)}: {' or '.join(row.classes[k] for k in yes)}"
        chosen = {"threshold": 100 * np.mean(thresholds), "threshold_sd": 100 * np.std(thresholds)}
        lines.append(name_row(row) | {"question": question} | lay_out(estimate(runs, draws, detection)) | chosen)
    cells = pd.DataFrame(lines)
    return Table(cells, show_intervals(cells), runs=runs_of(rows))


def _as_question(held_out: HeldOut, yes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Whether the answer is yes, bool (V,), and its probability, float64 (V,)."""
    return np.isin(held_out.labels, yes), held_out.probabilities[:, list(yes)].sum(axis=1)
