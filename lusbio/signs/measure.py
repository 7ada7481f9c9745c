"""Numbers from the lines of a video: how whole the pleura is, what repeats it, what runs down from it, how lungs look.

Each function yields names and values of one group of ``SIGNS``. Lengths are shares of the imaged depth.
"""

import csv
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

from lusbio.files import PACKAGE
from lusbio.signs import lines
from lusbio.signs.lines import ABOVE, BRIGHTER, FAINT, LONG, RIDGE, ROWS, Scene, list_runs
from lusbio.videos import read_video

Sign = namedtuple("Sign", "name group unit meaning")
"""A number that is measured; of unit ``"length"`` as a share of the imaged depth, from the skin to the bottom."""

with (PACKAGE / "words" / "signs.csv").open(encoding="utf-8", newline="") as _file:
    SIGNS: tuple[Sign, ...] = tuple(Sign(**row) for row in csv.DictReader(_file))
"""All signs, in the order of what is measured; they stand in ``words/signs.csv``."""

SIGN_NAMES: tuple[str, ...] = tuple(sign.name for sign in SIGNS)
"""Their names, in the same order."""

BANDS = {"near": (4, 20), "middle": (20, 44), "deep": (44, 84)}
"""Rows below the pleural line, of 128."""

Found = Iterator[tuple[str, float]]


def measure_video(path: Path) -> np.ndarray:
    """The signs of a video file, see ``measure_signs``; raises what ``decode_video`` raises."""
    frames, info = read_video(path, lines.SIZE)
    return measure_signs(frames, info.width / info.height)


def measure_signs(frames: np.ndarray, aspect: float = 1.0) -> np.ndarray:
    """All signs of a video.

    Args:
        frames: uint8 (N, H, W), of any size; small ones blur what is fine.
        aspect: Width by height of the image before it was resized, of square pixels.

    Returns:
        float64 in the order of ``SIGNS``; NaN where the image ends above what would be measured.
    """
    scene = lines.find_scene(frames)
    shares = {"length": 1 / (ROWS - scene.top), "width": aspect * ROWS / lines.COLUMNS / (ROWS - scene.top)}
    found = dict(pair for group in GROUPS for pair in group(scene, **shares))
    return np.array([found[name] for name in SIGN_NAMES], dtype=np.float64)


def tabulate_signs(values: np.ndarray, depth_mm: float) -> pd.DataFrame:
    """Signs (S,) for people, by name: ``value, unit, meaning``; lengths in mm, or shares where the depth is NaN."""
    table = pd.DataFrame(SIGNS).assign(value=values)
    lengths, unknown = table["unit"] == "length", np.isnan(depth_mm)
    table.loc[lengths, "unit"] = "of the depth" if unknown else "mm"
    table.loc[lengths, "value"] *= 1.0 if unknown else depth_mm
    return table.set_index("name")[["value", "unit", "meaning"]]


def _pleura(scene: Scene, length: float, width: float) -> Found:
    """The pleural line: where it is, how smooth, strong, whole and thick, in single frames and in the mean of all."""
    fine, across = length / 2, width * lines.COLUMNS / lines.SIZE
    bend, tilt, _ = np.polyfit(np.linspace(-1, 1, len(scene.path)), scene.path, 2, w=np.sqrt(scene.strength + 1e-3))
    yield "pleura_depth", (scene.depth - scene.top) * length
    yield "pleura_tilt", 2 * abs(tilt) * length
    yield "pleura_bend", bend * length
    bright = np.interp(np.linspace(0, 1, scene.strip.shape[2]), np.linspace(0, 1, len(scene.open)), scene.open) > 0.5
    for name, strip in (("", scene.strip), ("_mean", scene.strip_mean[None])):
        ridge = -ndi.gaussian_filter(strip, (0, 1.5, 1.5), order=(0, 2, 0))[:, ABOVE - 6 : ABOVE + 7]
        row, strength = ridge.argmax(1), ridge.max(1)
        off = row - ndi.gaussian_filter1d(row.astype(float), 8, axis=1)
        faint = strength < FAINT * np.median(strength, axis=1, keepdims=True)
        faint = ndi.binary_closing(np.pad(faint, ((0, 0), (9, 9))), np.ones((1, 9)))[:, 9:-9]  # not split by specks
        gaps = [np.diff(list_runs(one)) for one in faint]
        yield f"pleura_roughness{name}", off[:, bright].std() * fine
        yield f"pleura_ridge{name}", strength[:, bright].mean()
        yield f"pleura_unevenness{name}", (strength.std(1) / (strength.mean(1) + 1e-3)).mean()
        yield f"pleura_broken{name}", np.mean([gap.sum() for gap in gaps]) / strength.shape[1]
        yield f"pleura_longest_break{name}", np.mean([gap.max(initial=0) for gap in gaps]) * across
        yield f"pleura_breaks{name}", np.mean([(gap > 2).sum() for gap in gaps])
    smooth = ndi.gaussian_filter(scene.strip, (0, 1.0, 1.0))
    line, under = smooth[:, ABOVE - 6 : ABOVE + 7].max(1), smooth[:, ABOVE + 8 : ABOVE + 18].mean(1)
    thick = (smooth[:, : ABOVE + 12] > (line + under)[:, None] / 2).sum(1)
    yield "pleura_thickness", thick[:, bright].mean() * fine
    yield "pleura_grey", line[:, bright].mean()
    yield "pleura_drop", (line - under)[:, bright].mean()
    yield "pleura_above", (line - smooth[:, : ABOVE - 6].mean(1))[:, bright].mean()


def _below(scene: Scene, **_: float) -> Found:
    """Just below the pleural line: dark and bright spots, as consolidations make them, and unevenness."""
    for name, size in (("small", 2.0), ("large", 5.0)):
        curved = size**2 * ndi.gaussian_laplace(scene.strip_mean, size)[ABOVE + 5 : ABOVE + 35]
        yield f"dark_spots_{name}", np.percentile(curved, 99)
        yield f"bright_spots_{name}", np.percentile(-curved, 99)
        yield f"patches_{name}", curved.std()
    yield "beneath_unevenness", ndi.gaussian_filter(scene.strip_mean, 1.0)[ABOVE + 8 : ABOVE + 24].mean(0).std()


def _repetitions(scene: Scene, length: float, width: float) -> Found:
    """Horizontal lines: where repetitions of the pleural line belong, and anywhere."""
    repeated = lines.find_repetitions(scene)
    yield from zip(("repetition_1", "repetition_2"), repeated.rises, strict=True)
    yield "repetition_distance", repeated.distance * length
    yield "repetition_width", np.isfinite(repeated.rows[0]).sum() * width if np.isfinite(repeated.rises[0]) else np.nan
    curved = -ndi.gaussian_filter(scene.frames, (0, 1.0, 5.0), order=(0, 2, 0))
    still = curved.mean(0)[None]
    yield from ((f"horizontal_amount_{band}", _mean(np.maximum(_cut(still, scene, band), 0))) for band in BANDS)
    curved, still = (maps[:, scene.depth + 18 : min(scene.depth + 72, ROWS - 3)] for maps in (curved, still))
    highest = still[0].max(1)
    peaks = (highest[1:-1] > highest[2:]) & (highest[1:-1] > highest[:-2])
    yield "horizontal_lines", (peaks & (highest[1:-1] > 2.5 * RIDGE)).sum()
    yield "horizontal_strength", still.max()
    yield "horizontal_strength_single", curved.max((1, 2)).mean()
    yield "horizontal_dark", -still.min()
    yield "horizontal_width", (still[0] > RIDGE).sum(1).max() * width
    yield "horizontal_still", _log_ratio(still.std(), (curved - still).std(), 1e-4)
    profile = scene.frames[:, scene.depth + 4 : ROWS - 3].mean((0, 2))
    profile = ndi.gaussian_filter1d(profile, 1.0) - ndi.gaussian_filter1d(profile, 5.0)
    likeness = np.correlate(profile, profile, "full")[len(profile) - 1 :]
    yield "horizontal_again", likeness[12:50].max(initial=0) / (likeness[0] + 1e-9)


def _streaks(scene: Scene, width: float, **_: float) -> Found:
    """Vertical streaks, in single moments, and what they do over time."""
    brighter = lines.find_streaks(scene)
    lengths, across = (brighter > BRIGHTER).mean(1), brighter.mean(1)  # (T, C)
    runs = [np.diff(list_runs(one)) for one in lengths > LONG]
    yield "streak_length", np.sort(lengths, axis=1)[:, -3:].mean()
    yield "streaks", np.mean([len(of_frame) for of_frame in runs])
    yield "streak_width", np.mean([of_frame.max(initial=0) for of_frame in runs]) * width
    yield "streak_coverage", (lengths > LONG).any(0).mean()
    yield "streak_unbroken", ndi.uniform_filter1d(brighter, 12, axis=1).min(1).max(1).mean()
    yield "streak_contrast", across.max(1).mean()
    yield "streak_still", across.mean(0).std()
    yield "streak_motion", (across - across.mean(0)).std()
    yield "columns_spread", scene.frames[:, scene.depth + 14 : scene.depth + 80].mean((0, 1)).std()


def _texture(scene: Scene, **_: float) -> Found:
    """Whether the image changes rather along the depth or across it, whatever the gain."""
    for name, frames in (("", scene.frames.mean(0)[None]), ("_single", scene.single)):
        for size, sigma in (("fine", 0.7), ("coarse", 3.0)):
            slopes = [ndi.gaussian_filter(frames, (0, sigma, sigma), order=order) for order in ((0, 1, 0), (0, 0, 1))]
            for band in ("near", "deep"):
                energies = [_mean(_cut(slope**2, scene, band)) for slope in slopes]  # along the depth, and across
                yield f"texture_{size}_{band}{name}", _log_ratio(*energies, 1e-6)
    grains = scene.single - ndi.gaussian_filter(scene.single, (0, 2, 2))
    for band in ("near", "middle"):
        part = _cut(grains, scene, band)
        yield f"grains_along_{band}", _mean(part[:, 1:] * part[:, :-1]) / (_mean(part**2) + 1e-8)
        yield f"grains_across_{band}", _mean(part[:, :, 1:] * part[:, :, :-1]) / (_mean(part**2) + 1e-8)


def _light(scene: Scene, **_: float) -> Found:
    """Grey levels, and how they fade with depth where it is bright and elsewhere."""
    mean = scene.frames.mean(0)
    field = mean[scene.depth + 14 : min(scene.depth + 84, ROWS - 2)]
    order = field.mean(0).argsort()
    usual = order[len(order) // 3 : 2 * len(order) // 3]
    for name, columns in (("bright", order[-max(3, len(order) // 6) :]), ("usual", usual)):
        yield f"fade_{name}", np.polyfit(np.arange(len(field)) / ROWS, field[:, columns].mean(1), 1)[0]
        yield f"bottom_{name}", field[-10:, columns].mean()
    above = mean[scene.top : max(scene.depth - 3, scene.top + 4)].mean()
    yield from ((f"grey_{band}", _mean(_cut(mean[None], scene, band)) - above) for band in BANDS)
    yield "grey_above", above
    yield "dark_share", (field < 0.06).mean()


def _motion(scene: Scene, length: float, **_: float) -> Found:
    """How the image changes over time: the line's place and its pattern along the lung, and the lung itself."""
    yield "pleura_jitter", scene.strip[:, ABOVE - 6 : ABOVE + 7].argmax(1).std(0).mean() * length / 2
    line = scene.strip[:, ABOVE - 3 : ABOVE + 4].max(1)
    yield "pleura_sliding", 1 - _correlate(line - line.mean(0), 1)
    yield "flicker", _mean(_cut(scene.frames.std(0)[None], scene, "near"))
    field = scene.frames[:, scene.depth : scene.depth + 84].reshape(len(scene.frames), -1)
    field = field - field.mean(1, keepdims=True)
    yield from ((name, _correlate(field, lag)) for name, lag in (("likeness_next", 1), ("likeness_later", 10)))


def _cut(maps: np.ndarray, scene: Scene, band: str) -> np.ndarray:
    """Rows of maps (N, 128, C) in one of the ``BANDS``; none where fewer than four are in the image."""
    first, last = (min(scene.depth + row, ROWS - 3) for row in BANDS[band])
    return maps[:, first : last if last - first >= 4 else first]


def _mean(values: np.ndarray) -> float:
    return values.mean() if values.size else np.nan


def _log_ratio(first: float, second: float, least: float) -> float:
    return np.log((first + least) / (second + least))


def _correlate(series: np.ndarray, lag: int) -> float:
    """Mean correlation of rows (T, F) with those ``lag`` later, or as late as there are; 1 of a single row."""
    lag = min(lag, len(series) - 1)
    if not lag:
        return 1.0
    one, other = series[:-lag], series[lag:]
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(1) / (norms + 1e-6)).mean())


GROUPS = (_pleura, _below, _repetitions, _streaks, _texture, _light, _motion)
"""All that is measured, group by group."""
