"""Lines in a video: the pleural line, horizontal ones that repeat it, vertical ones that run down from it."""

from collections import namedtuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage as ndi

SIZE, FRAMES = 256, 48
"""Height and width to which a video is decoded, and how many of its frames are looked at, evenly spaced."""

ROWS, COLUMNS = 128, 96
"""The smaller image that lines are searched in; distances are in its rows and columns unless said otherwise."""

MIDDLE = 0.66
"""Share of the width that is looked at: a sector is imaged there at all depths."""

SINGLE = 12
"""Frames that are looked at one by one, where the mean over all would hide what moves."""

BLACK = 8 / 255
"""Whatever never gets brighter is not part of the image."""

HIGHEST, LOWEST = 0.04, 0.6
"""Where the pleural line is looked for, as shares of the imaged depth."""

STEP, STEP_COST = 3, 0.08
"""Most rows that the line moves from one column to the next, and what each costs."""

BRIDGE, ASIDE = 41, 0.75
"""Where the path leaves its median over so many columns for something of less than this share of the line's median
strength, it has found another layer, and the line is broken there: it is bridged."""

FAINT = 0.4
"""Share of its median strength below which the pleural line is broken."""

ABOVE, BELOW = 12, 48
"""Rows of ``Scene.strip`` above and below the line, at full size."""

RIDGE = 0.004
"""Least curvature, in grey per row squared, of a horizontal line that counts."""

HIDDEN = 24
"""Most rows of the chest wall that may be cut off above the image."""

BRIGHTER, LONG = 0.03, 0.6
"""How much brighter than what is beside it a vertical streak is, in grey; and the share of the depth below the line
from which on it counts as one."""

Scene = namedtuple("Scene", "frames single path strength columns top depth open strip strip_mean")
"""A video with its pleural line.

Attributes:
    frames: float32 (T, 128, C), in [0, 1]: the columns in which there is tissue.
    single: Some of them, (S, 128, C).
    path: Row of the pleural line in each column, int (C,).
    strength: Of its ridge, (C,), about 1 where it is clear.
    columns: Which of the 96 they are, int (C,).
    top: Row of the skin.
    depth: Row of the line, one for all columns: the median, weighted by strength.
    open: Columns that no rib shades, bool (C,).
    strip: Single frames along the line, float32 (S, 60, K), at full size: 12 rows above it to 48 below.
    strip_mean: The mean of all frames there, (60, K).
"""

Repetitions = namedtuple("Repetitions", "distance rises rows")
"""Horizontal lines that repeat the pleural line, once and twice.

Attributes:
    distance: Rows from one to the next.
    rises: How much more of a ridge there is where each belongs than above it, (2,); NaN below the image.
    rows: Row of each repetition, (2, C); NaN in columns that do not show it.
"""

Lines = namedtuple("Lines", "columns pleura seen top depth repetitions streaks")
"""What there is to draw on a frame. Places are shares of its width and height.

Attributes:
    columns: Of the places below, (C,), from left to right.
    pleura: Height of the pleural line, (C,).
    seen: Where it is there and not broken, bool (C,).
    top: Height of the skin.
    depth: From there to the pleural line, as a share of the imaged depth.
    repetitions: Heights of the horizontal lines that repeat it once and twice, (2, C); NaN where there is none.
    streaks: Left and right edges of the vertical streaks that most frames show.
"""


def find_scene(frames: np.ndarray) -> Scene:
    """Find the pleural line of a video: uint8 (N, H, W), of any size."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    fine = _resize(frames[chosen], SIZE, SIZE)
    small = _resize(fine, ROWS, COLUMNS).astype(np.float32) / 255
    imaged = small.max(0) > BLACK
    edge = round((1 - MIDDLE) / 2 * COLUMNS)
    columns = edge + np.flatnonzero(imaged[ROWS // 12 : ROWS // 6, edge : COLUMNS - edge].mean(0) > 0.5)
    columns = columns if len(columns) >= COLUMNS // 4 else np.arange(edge, COLUMNS - edge)
    top = int(np.median(imaged[:, columns].argmax(0)))
    small = np.ascontiguousarray(small[:, :, columns])
    mean, some = small.mean(0), np.unique(np.linspace(0, len(small) - 1, SINGLE).round().astype(int))
    path, strength = find_pleura(mean, top)
    shade = np.array([mean[row + 8 : row + 48, k].mean() for k, row in enumerate(path)])
    is_open, order = shade >= np.percentile(shade, 40), np.argsort(path)
    weights = ((strength + 1e-3) * np.where(is_open, 1.0, 0.15))[order].cumsum()
    depth = int(path[order][np.searchsorted(weights, weights[-1] / 2)])
    strip = _cut_strip(fine, path, columns)
    return Scene(
        small, small[some], path, strength, columns, top, depth, is_open, strip[some], strip.mean(0, dtype=np.float32)
    )


def _resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames (N, H, W) in another size, averaged where they get smaller."""
    from PIL import Image

    if frames.shape[1:] == (height, width):
        return frames
    how = Image.Resampling.BOX if height <= frames.shape[1] else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), how)) for frame in frames])


def find_pleura(mean: np.ndarray, top: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The path of the pleural line: bright, a ridge, with darkness below, and smooth from column to column.

    Args:
        mean: Mean frame, (128, C), in [0, 1].
        top: Row of the skin.

    Returns:
        Row in each column, int (C,), and the strength of the ridge there.
    """
    s = ndi.gaussian_filter(mean, (1.5, 2.0))
    ridge = np.maximum(-ndi.gaussian_filter1d(s, 1.5, axis=0, order=2), 0)
    under = sliding_window_view(np.pad(s, ((0, 27), (0, 0)), mode="edge"), 21, axis=0)[6 : 6 + len(s)]
    drop = np.maximum(s - 0.5 * under.mean(-1) - 0.5 * under.max(-1), 0)
    parts = ((ridge, 99.5, 1.0), (s, 99, 0.4), (drop, 99, 1.0))
    score = sum(weight * part / (np.percentile(part, most) + 1e-6) for part, most, weight in parts)
    first, last = (top + int(share * (len(s) - top)) for share in (HIGHEST, LOWEST))
    ridge, across = ridge / (np.percentile(ridge, 99.5) + 1e-6), np.arange(mean.shape[1])
    path = first + _trace(score[first:last])
    strength = ridge[path, across]
    aside = np.abs(path - ndi.median_filter(path, BRIDGE)) > 1
    kept = ~(aside & (strength < ASIDE * np.median(strength)))
    path = np.interp(across, across[kept], path[kept]).round().astype(int)
    return path, ridge[path, across]


def _trace(score: np.ndarray) -> np.ndarray:
    """The row in each column of the path with the highest sum of scores, less what its steps cost."""
    n_rows, n_columns = score.shape
    moves = np.arange(-STEP, STEP + 1)
    came_from, total = np.zeros(score.shape, int), score[:, 0]
    for k in range(1, n_columns):
        padded = np.pad(total, STEP, constant_values=-np.inf)
        options = sliding_window_view(padded, 2 * STEP + 1) - STEP_COST * np.abs(moves)
        best = options.argmax(1)
        came_from[:, k], total = np.arange(n_rows) + moves[best], options[np.arange(n_rows), best] + score[:, k]
    path = np.full(n_columns, total.argmax())
    for k in range(n_columns - 1, 0, -1):
        path[k - 1] = came_from[path[k], k]
    return path


def _cut_strip(fine: np.ndarray, path: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Frames at full size along the line, float32 (T, 60, K) in [0, 1]; beyond the image its last row."""
    across = np.arange(int(columns[0] * SIZE / COLUMNS), int((columns[-1] + 1) * SIZE / COLUMNS))
    places = np.interp((across + 0.5) * COLUMNS / SIZE - 0.5, columns, ndi.gaussian_filter1d(path + 0.5, 1.0))
    rows = (places * SIZE / ROWS).astype(int) + np.arange(-ABOVE, BELOW)[:, None]
    return fine[:, rows.clip(0, SIZE - 1), across].astype(np.float32) / 255


def find_repetitions(scene: Scene) -> Repetitions:
    """Look for horizontal lines that echoes between the skin and the pleural line make.

    Part of the chest wall may be cut off above, so their distance is searched: the one that is repeated best.
    """
    curved = -ndi.gaussian_filter(scene.frames.mean(0), (1.0, 4.0), order=(2, 0))
    profile = np.percentile(curved, 88, axis=1)
    shallow = max(scene.depth - scene.top, 4)
    distances = np.arange(shallow, shallow + HIDDEN + 1)
    rises = np.array([[_rise(profile, scene.depth, d, copy) for copy in (1, 2)] for d in distances])
    best = np.nan_to_num(rises).sum(1).argmax()
    rows = np.full((2, len(scene.path)), np.nan)
    for copy in np.flatnonzero(np.isfinite(rises[best])):
        middle = scene.depth + (copy + 1) * distances[best]
        around = curved[middle - 3 : middle + 4]
        rows[copy] = np.where(around.max(0) > RIDGE, middle - 3 + around.argmax(0), np.nan)
    return Repetitions(distances[best], rises[best], rows)


def _rise(profile: np.ndarray, depth: int, distance: int, copy: int) -> float:
    """How much more of a ridge there is where a repetition belongs, within two rows, than between two."""
    middle = depth + copy * distance
    if middle + 4 > len(profile) - 3:
        return np.nan
    return profile[middle - 2 : middle + 3].max() - np.median(profile[middle - distance // 2 : middle + 4])


def find_streaks(scene: Scene) -> np.ndarray:
    """How much brighter each place below the pleural line is than what is beside it, (T, R, C), R rows from 6 on."""
    field = scene.frames[:, scene.depth + 6 : min(scene.depth + 72, ROWS - 2)]
    smooth = ndi.gaussian_filter1d(field, 5.0, axis=1)
    return ndi.gaussian_filter1d(smooth, 0.8, axis=2) - ndi.gaussian_filter1d(smooth, 5.0, axis=2)


def list_runs(mask: np.ndarray) -> np.ndarray:
    """First and one past the last place of every run of True in a mask (C,): int (R, 2).

    Example:
        >>> list_runs(np.array([False, True, True, False, True])).tolist()
        [[1, 3], [4, 5]]
    """
    return np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))).reshape(-1, 2)


def find_lines(frames: np.ndarray) -> Lines:
    """Where the pleural line, its repetitions and vertical streaks are, to be drawn on a frame."""
    scene = find_scene(frames)
    repeated = find_repetitions(scene)
    rows = np.where((repeated.rises > RIDGE)[:, None], repeated.rows, np.nan)
    shown = ((find_streaks(scene) > BRIGHTER).mean(1) > LONG).mean(0) >= 0.5
    streaks = [(scene.columns[a] / COLUMNS, (scene.columns[b - 1] + 1) / COLUMNS) for a, b in list_runs(shown)]
    seen = scene.strength > FAINT * np.median(scene.strength)
    depth = (scene.depth - scene.top) / (ROWS - scene.top)
    across = (scene.columns + 0.5) / COLUMNS
    return Lines(across, (scene.path + 0.5) / ROWS, seen, scene.top / ROWS, depth, (rows + 0.5) / ROWS, streaks)
