"""Pretraining on label maps: which patients' pixels are labelled, and the training that learns from them."""

from collections.abc import Callable

import numpy as np

from lusbio.cohorts.label_maps import read_label_maps
from lusbio.errors import LusbioError
from lusbio.runs.spec import PreparedCohort, Run, RunSpec
from lusbio.vocabulary import PIXEL_CLASSES, SPARSE_CLASSES, SPARSE_OF_DENSE

DECIDING = (
    *("network/pixels.py", "network/pretraining.py", "network/vit.py", "simulation/masks.py", "cohorts/label_maps.py"),
)
"""Files that decide the numbers besides this one and the network's."""

FRAMES = 8
"""Labelled frames of a video."""

VIDEOS = 4
"""Least number of videos of a patient whose pixels are labelled, where few patients are. (Engineering choice.)"""

JITTERED = "jittered"
"""Dense labels whose edges are not exact; a network that learnt from them is judged by exact ones."""

LABELS = {"dense": PIXEL_CLASSES, "sparse": SPARSE_CLASSES, JITTERED: PIXEL_CLASSES}
"""The classes of each kind of labels."""

MERGED = {"dense": SPARSE_OF_DENSE, "sparse": tuple(range(len(SPARSE_CLASSES))), JITTERED: SPARSE_OF_DENSE}
"""What each of them is as a sparse class."""


def as_labels(maps: np.ndarray, labels: str) -> np.ndarray:
    """Dense maps as dense or sparse ones: the same pixels, other names."""
    return np.asarray(SPARSE_OF_DENSE, np.uint8)[maps] if labels == "sparse" else maps


def jitter_edges(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Maps whose edges lie up to a pixel off: each pixel takes the class of itself or of one of its eight neighbours.

    Args:
        maps: uint8 (..., H, W).
        rng: Where the draws come from.

    Returns:
        The same shape.
    """
    height, width = maps.shape[-2:]
    rows, columns = np.indices((height, width), np.int16) + rng.integers(-1, 2, (2, height, width), np.int16)
    return maps[..., rows.clip(0, height - 1), columns.clip(0, width - 1)]


def name_task(labels: str, patients: int) -> str:
    """What a pixel training is called, e.g. ``"dense_pixels_of_4"``, or ``"sparse_pixels"`` of all patients (0)."""
    return f"{labels}_pixels" + (f"_of_{patients}" if patients else "")


def read_task(task: str) -> tuple[str, int]:
    """The labels and the number of patients that ``name_task`` put into a name."""
    labels, _, patients = task.replace("_pixels", "").partition("_of_")
    return labels, int(patients or 0)


def train_on_pixels(transformer: str = "") -> Callable:
    """What ``study.train(..., assemble=...)`` takes: learn label maps.

    Which labels, and of how many patients, stands in the task's name, see ``name_task``. Images, steps and seeds are
    the same whatever the labels.

    Args:
        transformer: A key of ``vit.SIZES``; else a U-Net learns.
    """

    def assemble(spec: RunSpec, prepared: PreparedCohort) -> tuple:
        import torch

        from lusbio.network.pixels import PixelDataset, PixelModule, balance_classes
        from lusbio.network.pretraining import make_clips

        labels, patients = read_task(spec.task)
        known = read_label_maps(prepared.cohort, prepared.videos, FRAMES)
        splits = prepared.splits(spec.fold).to_numpy()
        train, val = (np.flatnonzero(splits == split) for split in ("train", "val"))
        train = choose_labelled(prepared, train, known.maps, patients, spec.entropy)
        maps = as_labels(known.maps, labels)
        if labels == JITTERED:
            maps = np.stack([jitter_edges(one, np.random.default_rng([spec.entropy, k])) for k, one in enumerate(maps)])
        rows = {"train": train, "val": val}
        data = make_clips(PixelDataset(known.frames, maps), rows, spec)
        torch.manual_seed(spec.entropy)
        weights = balance_classes(maps[train], MERGED[labels])
        sizes = {"settings": spec.training, "steps_per_epoch": len(data.train_dataloader()), "seed": spec.entropy}
        module = PixelModule(make_labeller(spec, transformer), weights, MERGED[labels], **sizes)
        return module, data, rows

    return assemble


def make_labeller(spec: RunSpec, transformer: str = ""):
    """A network with random weights that labels pixels: a ``vit.ViTLabeller``, or a ``unet.UNet``."""
    from lusbio.network.unet import UNet
    from lusbio.network.vit import ViTLabeller

    if transformer:
        return ViTLabeller(len(spec.outputs), size=spec.training.image_size, name=transformer)
    return UNet(len(spec.outputs), spec.training.width)


def choose_labelled(
    prepared: PreparedCohort, rows: np.ndarray, maps: np.ndarray, patients: int, seed: int
) -> np.ndarray:
    """Rows of the training patients whose pixels are labelled.

    Few patients are drawn among those with at least ``VIDEOS`` videos in which there are A-lines, B-lines and both
    kinds of region, or who come closest, so that together they show every class; where they never do, among all.

    Args:
        prepared: The cohort.
        rows: Training rows.
        maps: uint8 (V, n, H, W), dense.
        patients: How many; 0 for all.
        seed: Of the draw.

    Raises:
        LusbioError: If the maps of the training patients, or of any few of them, lack a class; names it.
    """
    shown = np.array([np.isin(range(len(PIXEL_CLASSES)), maps[row]) for row in rows])  # (R, 7)
    _check_shown(shown, "of the training patients")
    if not patients:
        return rows
    of_row = prepared.table["patient_id"].to_numpy()[rows]
    names = np.unique(of_row)
    wanted = [PIXEL_CLASSES.index(name) for name in ("A-line", "B-line", "region, healthy", "region, unhealthy")]
    by_patient = np.array([shown[of_row == name].any(0) for name in names])
    met = by_patient[:, wanted].sum(1) + ([(of_row == name).sum() >= VIDEOS for name in names])
    rng = np.random.default_rng([seed, patients])
    for closeness in (met, met * 0):
        for _ in range(200):
            order = rng.permutation(len(names))
            drawn = order[np.argsort(-closeness[order], kind="stable")][:patients]
            if by_patient[drawn].any(0).all():
                return rows[np.isin(of_row, names[drawn])]
    _check_shown(by_patient[drawn], f"of the {patients} training patients that were drawn")
    return rows[:0]  # never: the last draw lacks a class


def _check_shown(shown: np.ndarray, whose: str) -> None:
    absent = [name for name, there in zip(PIXEL_CLASSES, shown.any(0), strict=True) if not there]
    if absent:
        raise LusbioError(f"no label map {whose} shows {'; '.join(absent)}: a network cannot learn it")


def predict_maps(run: Run, frames: np.ndarray, transformer: str = "") -> np.ndarray:
    """What a finished pixel training says of frames, uint8 (V, n, H, W): positions in its classes, the same shape."""
    from lusbio.network.pixels import label_frames
    from lusbio.network.training import choose_device, one_thread
    from lusbio.network.weights import load_weights

    network = make_labeller(run.spec, transformer)
    load_weights(network, run.folder / "weights.safetensors")
    with one_thread():
        return label_frames(network, frames, choose_device())
