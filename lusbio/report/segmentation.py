"""How well networks label pixels: what they say of test videos, counted, and compared on the same patients."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from lusbio.cohorts.label_maps import LabelMaps
from lusbio.files import Table
from lusbio.report.cells import METRIC_TITLES, format_value, measure_cells, subtract_cells, widen
from lusbio.runs.parallel import side_by_side
from lusbio.runs.pixel_training import as_labels, predict_maps, read_task
from lusbio.runs.spec import Run
from lusbio.runs.study import Study
from lusbio.statistics.bootstrap import HeldOut
from lusbio.statistics.segmentation import count_pixels, segmentation_metrics
from lusbio.vocabulary import PIXEL_CLASSES, SPARSE_CLASSES

ALARM_MM2 = 5.0
"""Area from which on a structure counts as claimed in a frame that has none. (Engineering choice.)"""

USUAL_DEPTH_MM = 50.0
"""Depth of an image whose depth is unknown, for that area."""

ALL_THREE = "all three"
"""The mean over A-line, B-line and pleura, which all kinds of labels have."""

_OF_DENSE = {"A-line": (1,), "B-line": (2,), "pleura": (3, 4)} | {n: (k,) for k, n in enumerate(PIXEL_CLASSES) if k > 2}
STRUCTURES = {
    "sparse": {name: (k,) for k, name in enumerate(SPARSE_CLASSES) if k},
    "dense": _OF_DENSE,
    "jittered": _OF_DENSE,
}
"""The structures that each kind of labels can be judged by, and their positions."""

PixelRuns = Mapping[tuple[Hashable, int], Sequence[Run]]
"""Pixel trainings by what is different about them and number of patients (0: all), one run per fold."""


def find_tested(run: Run) -> np.ndarray:
    """Rows of the table that a run tests."""
    return np.flatnonzero(run.splits == "test")


def predict_tested(
    labelled: Study, pixel_runs: PixelRuns, known: LabelMaps, transformer: str = ""
) -> dict[tuple, list[np.ndarray]]:
    """What each pixel training says of its test videos, uint8 (test videos, n, H, W), one array per run.

    Args:
        labelled: Whose pixels are labelled.
        pixel_runs: The trainings.
        known: Frames and true maps of all videos.
        transformer: What was trained, see ``runs.pixel_training.train_on_pixels``.
    """
    asked = [(run, known.frames[find_tested(run)], transformer) for runs in pixel_runs.values() for run in runs]
    found = iter(side_by_side(predict_maps, asked, labelled.jobs))
    return {way: [next(found) for _ in runs] for way, runs in pixel_runs.items()}


def hold_out(labelled: Study, run: Run, maps: np.ndarray, known: LabelMaps) -> dict[str, HeldOut]:
    """Counts of each structure, and of ``ALL_THREE``, in the test videos of a pixel training.

    Args:
        labelled: Whose videos.
        run: The training.
        maps: What it says of them, from ``predict_tested``.
        known: What is true.
    """
    rows, labels = find_tested(run), read_task(run.spec.task)[0]
    depth_mm = labelled.table["depth_mm"].fillna(USUAL_DEPTH_MM).to_numpy(np.float64)[rows]
    true, least = as_labels(known.maps[rows], labels), ALARM_MM2 / (depth_mm / maps.shape[-1]) ** 2
    counts = {
        name: count_pixels(np.isin(true, places), np.isin(maps, places), least)[:, None]
        for name, places in STRUCTURES[labels].items()
    }
    counts[ALL_THREE] = np.hstack([counts[name] for name in SPARSE_CLASSES[1:]])
    groups, nothing = labelled.table["group_id"].to_numpy()[rows], np.zeros(len(rows), np.int64)
    return {name: HeldOut(nothing, of_name, groups, rows) for name, of_name in counts.items()}


def hold_out_all(labelled: Study, pixel_runs: PixelRuns, predicted: Mapping, known: LabelMaps) -> dict[tuple, list]:
    """Counts by what is different, patients and structure, a ``HeldOut`` per run."""
    found = {}
    for way, runs in pixel_runs.items():
        of_runs = [hold_out(labelled, *one, known) for one in zip(runs, predicted[way], strict=True)]
        found |= {(*way, name): [counts[name] for counts in of_runs] for name in of_runs[0]}
    return found


def make_segmentation(
    counts: Mapping[tuple, list],
    pixel_runs: PixelRuns,
    labelled: Study,
    *,
    by: str = "labels",
    pairs: Mapping[str, tuple] | None = None,
) -> Table:
    """How well structures are labelled, and ``pairs`` on the same patients, first minus second.

    Args:
        counts: From ``hold_out_all``.
        pixel_runs: The trainings.
        labelled: Whose pixels are labelled.
        by: What the trainings differ in, the first column.
        pairs: What is told apart, by name.

    Returns:
        Cells ``<by>, patients, structure, metric, mean, sd, ci_low, ci_high``.
    """
    keys = (by, "patients", "structure")
    named = [(dict(zip(keys, key, strict=True)), held_out) for key, held_out in counts.items()]
    subtracted = [
        (dict(zip(keys, (name, patients, structure), strict=True)), held_out, counts[second, patients, structure])
        for name, (first, second) in (pairs or {}).items()
        for (way, patients, structure), held_out in counts.items()
        if way == first and (second, patients, structure) in counts
    ]
    cells = measure_cells(named, labelled.draws, segmentation_metrics)
    cells = pd.concat([cells, subtract_cells(subtracted, labelled.draws, segmentation_metrics)], ignore_index=True)
    said = cells.assign(patients=cells["patients"].map(say_patients))
    shown = widen(said, keys, say_signed, lambda cell: METRIC_TITLES[cell["metric"]])
    runs = tuple(run for of_way in pixel_runs.values() for run in of_way)
    return Table(cells, shown, origin=labelled.origin(runs), runs=runs)


def say_patients(patients: int) -> str:
    """Whose pixels are labelled, in words."""
    return f"{patients} patients" if patients else "all"


def say_signed(cell: pd.Series) -> str:
    """A cell with its interval; with a sign where it is a difference."""
    sign = "+" if any("minus" in str(value) for value in cell) else ""
    return format_value(cell["mean"], cell["ci_low"], cell["ci_high"], sign=sign)
