"""The chest wall at rest: skin, fat with bright septa, fascia and streaky muscle, in decibels about muscle."""

import numpy as np
from scipy.ndimage import gaussian_filter

from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import Scene


def draw_tissue(scene: Scene, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Echogenicity of the chest wall, in the tissue's own coordinates (no motion).

    Args:
        scene: The scene.
        x: Lateral places, (1, X), in millimetres.
        z: Depths, (Z, 1), in millimetres; what lies below the pleura is more muscle.

    Returns:
        Three maps (Z, X): scattering amplitude, float32 (1 is the mean of muscle); amplitude of specular sheets (septa,
        fascia, fibres), float32; and where there is muscle without a sheet, bool.
    """
    rng = np.random.default_rng(scene.seed[1])
    skin, fat, muscle = scene.wall_mm
    shape = scene.tilt * x + scene.bend_mm * (2 * x / scene.width_mm) ** 2
    flat = z - shape * np.clip(z / muscle, 0, 1)  # layers follow the pleura, the skin does not
    wavy = flat - rng.uniform(0.1, 0.6) * wave(x, 40, rng) - rng.normal(0, 0.03) * x
    in_fat = wavy < fat
    lean = rng.normal(0, 0.05)
    streaks = c.STREAK_DB * _blobs(x, flat + lean * x, (0.4, 2.6), rng)
    muscle_db = c.MUSCLE_DB + streaks - 4.0 * np.exp(-(((flat - muscle + 0.7) / 0.6) ** 2))
    db = np.where(in_fat, c.FAT_DB + 2 * _blobs(x, z, (1.5, 4.0), rng), muscle_db)
    db = np.where(z < skin, c.SKIN_DB + 3 * np.sin(z * 2 * np.pi / 0.7), db)
    sheets = np.zeros(db.shape, np.float32)
    lines: list[tuple] = [(fat, wavy, 0.0, 0.0, (12, 18), (0.3, 0.5), True)]
    lines.append((fat + rng.uniform(0.6, 1.6), wavy, 0.0, 0.1, (8, 16), (0.25, 0.45), True))
    for _ in range(1 + rng.poisson(max(fat - skin, 0) / 2.5)):
        lines.append(
            (
                rng.uniform(skin + 0.5, fat),
                flat,
                rng.normal(0, 0.04),
                rng.uniform(0.1, 0.8),
                (4, 15),
                (0.2, 0.45),
                False,
            )
        )
    for _ in range(rng.poisson((muscle - fat) * 2.0)):
        lines.append((rng.uniform(fat + 0.5, muscle - 0.8), flat, -lean, 0.15, (0, 11), (0.16, 0.35), False))
    for centre, depth, slope, height, level, thickness, whole in lines:
        sheets += _sheet(x, depth, centre + slope * x + height * wave(x, 35, rng), rng, level, thickness, whole)
    is_muscle = (wavy > fat + 1.0) & (flat < muscle - 2) & (sheets < 0.1)
    return (10 ** (db / 20)).astype(np.float32), sheets, is_muscle


def wave(x: np.ndarray, period_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random curve of about unit height.

    Args:
        x: Where, in millimetres, any shape.
        period_mm: Typical length of a wave.
        rng: Source of randomness.

    Returns:
        Values about in [-1, 1], shape of ``x``.
    """
    waves = rng.uniform(0.6, 1.6, 3) * 2 * np.pi / period_mm
    return sum(np.sin(k * x + phase) for k, phase in zip(waves, rng.uniform(0, 2 * np.pi, 3), strict=True)) / 1.7


def _sheet(
    x: np.ndarray,
    depth: np.ndarray,
    centre: np.ndarray,
    rng: np.random.Generator,
    level_db: tuple[float, float],
    thickness_mm: tuple[float, float],
    whole: bool,
) -> np.ndarray:
    """A thin bright sheet along a curve, brighter here and there, and of limited length unless whole."""
    level = rng.uniform(*level_db) + 3 * wave(x, 14, rng)
    ends = 1.0 if whole else np.exp(-(((x - rng.uniform(x.min(), x.max())) / rng.uniform(5, 30)) ** 4))
    near = np.exp(-(((depth - centre) / rng.uniform(*thickness_mm)) ** 2))
    return (10 ** (level / 20) * ends * near).astype(np.float32)


def _blobs(x: np.ndarray, z: np.ndarray, size_mm: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit SD with blobs of a size (axial, lateral), looked up at (z, x) to the nearest sample."""
    z = np.broadcast_to(z, (z.shape[0], x.shape[1]))
    step = min(size_mm) / 3
    rows, columns = int(np.ptp(z) / step) + 2, int(np.ptp(x) / step) + 2
    noise = gaussian_filter(rng.standard_normal((rows, columns), dtype=np.float32), [s / step / 2 for s in size_mm])
    noise /= noise.std()
    row = ((z - z.min()) / step).astype(int)
    column = np.broadcast_to(((x - x.min()) / step).astype(int), row.shape)
    return noise[row, column]
