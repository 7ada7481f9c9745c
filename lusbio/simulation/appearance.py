"""What the simulator's images look like: each biomarker on its own, a scene taken apart, numbers beside real videos."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lusbio.files import read_words
from lusbio.simulation.anatomy import ScanConverter, Scene, make_grid
from lusbio.simulation.artifacts import render_masks, view_scene
from lusbio.simulation.constants import HEALTHY
from lusbio.simulation.patients import Device, Findings, Patient
from lusbio.simulation.placement import build_scene
from lusbio.simulation.scanner import compress, echo_db, make_textures, render_video
from lusbio.vocabulary import BIOMARKER_NAMES

DEVICES = {
    "linear": Device("linear", 50.0, width_mm=44.0, radius_mm=0.0, frequency_mhz=9.0, haze_db=-9.0, fade_db=13.0),
    "convex": Device("convex", 100.0, width_mm=60.0, radius_mm=52.0, frequency_mhz=3.5, haze_db=-5.0, fade_db=26.0),
}
"""A scanner of either kind with ordinary settings."""
SHOWN = read_words("examples.toml")
"""Findings that amount to one biomarker, by its name, where a healthy lung alone does not."""


def example_scene(biomarker: str, *, probe: str = "linear", seed: int = 0) -> Scene:
    """A scene that shows one of the vocabulary's 38 biomarkers and otherwise as little as it can.

    Raises:
        KeyError: If there is no such biomarker.

    Example:
        >>> example_scene("b_lines_few").findings.b_lines
        2
    """
    if biomarker not in BIOMARKER_NAMES:
        raise KeyError(f"no biomarker {biomarker!r}; the vocabulary lists {len(BIOMARKER_NAMES)}")
    device = DEVICES[probe]
    top = 0.31 if probe == "linear" else 0.18
    share = {"pleural_location_middle": 0.48, "pleural_location_bottom": 0.75}.get(biomarker, top)
    pleura = share * device.depth_mm * (0.8 if biomarker == "a_lines_stacked" else 1.0)
    patient = Patient(1, HEALTHY, frozenset(), True, 0.0, 460.0, 18.0, breaths_hz=0.28, beats_hz=1.2, device=device)
    return build_scene(Findings(pleura, **SHOWN.get(biomarker, {})), patient, "R1", np.random.default_rng(seed))


def take_apart(scene: Scene, size: int) -> dict[str, np.ndarray]:
    """The steps from a scene to a frame.

    Returns:
        uint8 (size, size) by name, in order: the masks of what there is, the echo without speckle,
        with speckle, and the frame with gain, smoothing and persistence.
    """
    grid = make_grid(scene, size)
    convert, view = ScanConverter(scene, grid, size), view_scene(scene, grid.x, grid.z, 0.0)
    masks = render_masks(scene, size, 0)
    steps = {name.replace("_", " "): np.uint8(255) * mask for name, mask in masks.items() if mask.any()}
    for name, speckle in (("echo, no speckle", False), ("with speckle", True)):
        db = echo_db(scene, view, grid, make_textures(scene, grid, speckle), np.random.default_rng(0))
        steps[name] = convert(compress(scene, db))
    return steps | {"the frame": render_video(scene, size, 1)[0]}


def measure_speckle(scene: Scene, size: int = 224) -> dict[str, float]:
    """First-order statistics of the speckle in muscle, before gain, compression and persistence.

    Args:
        scene: Any scene with muscle in view.
        size: Pixels of the video that the grid is made for.

    Returns:
        ``mean_to_sd`` of the envelope and ``log_sd_db`` of its logarithm; fully developed speckle has 1.91 and 5.57.

    Source: Burckhardt 1978, for the two values.
    """
    still = scene._replace(motion=scene.motion._replace(drift_mm=0.0), ribs=())
    grid = make_grid(still, size)
    textures = make_textures(still, grid)
    view = view_scene(still, grid.x, grid.z, 0.0)
    muscle = echo_db(still, view, grid, textures, np.random.default_rng(0))[textures.muscle]
    envelope = 10 ** (muscle / 20)
    return {"mean_to_sd": float(envelope.mean() / envelope.std()), "log_sd_db": float(muscle.std())}


def count_greys(videos: Sequence[np.ndarray]) -> pd.DataFrame:
    """How often each grey level occurs, black borders left out.

    Args:
        videos: Each uint8 (N, H, W).

    Returns:
        Columns ``grey`` (middle of 32 bins, 0 to 255) and ``share`` (per bin, mean over videos).
    """
    seen = [frames[:, frames.max(0) > 0] for frames in videos]  # the rest is outside the field of view
    counts = np.array([np.histogram(levels, bins=32, range=(0, 256))[0] for levels in seen])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return pd.DataFrame({"grey": np.arange(4.0, 256, 8), "share": shares.mean(0)})


def measure_spectrum(videos: Sequence[np.ndarray]) -> pd.DataFrame:
    """Power over spatial frequency, rings of the two-dimensional spectrum of the middle frames.

    Args:
        videos: Each uint8 (N, S, S), all of one size.

    Returns:
        Columns ``cycles_per_pixel`` (0 to 0.5) and ``power_db`` (mean over videos, highest is 0).
    """
    size = videos[0].shape[-1]
    window = np.outer(np.hanning(size), np.hanning(size))
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(size)] * 2))
    rings = np.digitize(frequency, np.linspace(0, 0.5, size // 4 + 1)) - 1
    inside = rings < size // 4
    frames = [v[len(v) // 2].astype(np.float64) for v in videos]
    power = [np.abs(np.fft.fft2((frame - frame.mean()) * window)) ** 2 for frame in frames]
    total = np.bincount(rings[inside], np.mean(power, 0)[inside]) / np.bincount(rings[inside])
    centres = (np.arange(size // 4) + 0.5) * 0.5 / (size // 4)
    share = np.maximum(total / max(total.max(), 1e-9), 1e-9)  # an even frame has no power at all
    return pd.DataFrame({"cycles_per_pixel": centres, "power_db": 10 * np.log10(share)})


def describe_video(frames: np.ndarray) -> np.ndarray:
    """A video as 83 plain numbers that say how it looks, not what it shows.

    Args:
        frames: uint8 (N, S, S), S a multiple of 8.

    Returns:
        float64 (83,): the mean frame in 8 x 8 blocks, 16 spectral rings, and mean, spread and
        change over time of the grey level.
    """
    size = frames.shape[-1]
    blocks = frames.mean(0).reshape(8, size // 8, 8, size // 8).mean((1, 3)).ravel()
    spectrum = measure_spectrum([frames])["power_db"].to_numpy()
    rings = np.interp(np.linspace(0, len(spectrum) - 1, 16), np.arange(len(spectrum)), spectrum)
    change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean() if len(frames) > 1 else 0.0
    return np.concatenate([blocks, rings, [frames.mean(), frames.std(), change]])


def tell_apart(real: Sequence[np.ndarray], simulated: Sequence[np.ndarray], real_groups: Sequence[str]) -> float:
    """How well plain statistics tell real videos from simulated ones.

    Args:
        real: Real videos, each uint8 (N, S, S).
        simulated: Simulated ones, as many or more; as many are used.
        real_groups: Group of each real video; simulated ones count as groups of their own.

    Returns:
        AUC of a logistic regression on ``describe_video``, five folds by group: 0.5 is "cannot be
        told apart", 1 is "always".
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    simulated = simulated[: len(real)]
    features = np.array([describe_video(frames) for frames in [*real, *simulated]])
    is_real = np.repeat([1, 0], [len(real), len(simulated)])
    groups = [*real_groups, *(f"simulated {k}" for k in range(len(simulated)))]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    scores = cross_val_predict(model, features, is_real, groups=groups, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(is_real, scores))
