"""From a scene to pixels: speckle, envelope, gain, log compression, persistence.

Speckle is made once per video, in the coordinates of what carries it, and moves with it: the chest wall
is stretched by respiration, the lung slides.
"""

from collections import namedtuple

import numpy as np
from scipy.ndimage import gaussian_filter

from lusbio.simulation import artifacts
from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import Grid, ScanConverter, Scene, make_grid
from lusbio.simulation.artifacts import View

Textures = namedtuple("Textures", "wall lung mirror sheen noise pad gain muscle")
"""What stays the same over a video.

Attributes:
    wall: Chest wall at rest, complex64 (Z, X).
    lung: Speckle of the lung, complex64, larger than the grid by ``pad`` on each side.
    mirror: Brightness of the chest wall seen again below the pleura, float32 (Z, X).
    sheen: Brightness of the pleural line along the lung, float32 (1, X + 2 pad), about 1.
    noise: Electronic noise, complex64, larger than the grid.
    pad: Rows and columns.
    gain: Gain error and contact, in decibels, float32 (Z, X).
    muscle: Where there is muscle without sheets, bool (Z, X).
"""


def make_textures(scene: Scene, grid: Grid, speckle: bool = True) -> Textures:
    """Speckle, chest wall and gain of a video.

    Args:
        scene: The scene.
        grid: Its grid.
        speckle: False gives every scatterer the same phase and strength: echogenicity without noise, to measure on.
    """
    rng = np.random.default_rng(scene.seed[2])
    rows, columns = len(grid.z), grid.x.shape[1]
    pad = (int(scene.motion.drift_mm / grid.dz) + 3, int(scene.motion.reach_mm / grid.dx) + 3)
    wide = (rows + 2 * pad[0], columns + 2 * pad[1])
    wave_mm = c.SOUND_MM_PER_US / scene.device.frequency_mhz
    psf = np.maximum(np.array(c.PSF[scene.device.probe]) * wave_mm / (grid.dz, grid.dx), (0.6, 0.7))
    tissue, sheets, muscle = _draw_tissue(scene, grid.x, grid.z)
    wall = make_speckle((rows, columns), psf, rng)
    lung = make_speckle(wide, psf * (1, c.LUNG_STREAK), rng)
    along = np.arange(wide[1], dtype=np.float32)[None] * grid.dx
    sheen = c.SHEEN_DB * _wave(along, 10, rng)
    cloud = gaussian_filter(rng.standard_normal(wide, dtype=np.float32), (3.0 / grid.dz, 1.5 / grid.dx))
    cloud = c.CLOUD_DB * (cloud / cloud.std() + _wave(along, 12, rng))
    noise = make_speckle((rows + 64, columns + 64), (0.6, 0.6), rng)
    mirror = np.zeros((rows, columns), np.float32)
    if speckle:
        down = round(scene.findings.pleura_mm / grid.dz)
        soft = gaussian_filter(tissue + sheets, (0.8 / grid.dz, 2.0 / grid.dx))
        taper = np.clip((1 - np.arange(down, dtype=np.float32)[:, None] / down) / 0.6, 0, 1)
        mirror[down : 2 * down] = (_amplitude(c.MIRROR_DB) * soft[:down] * taper)[: rows - down]
    else:
        wall, lung, noise = np.ones_like(wall), np.ones_like(lung), np.zeros_like(noise)
        sheen, cloud = np.zeros_like(sheen), np.zeros_like(cloud)
    wall = (tissue * wall + sheets * (0.7 + 0.4 * wall)).astype(np.complex64)
    lung *= _amplitude(cloud)
    return Textures(wall, lung, mirror, _amplitude(sheen), noise, pad, _draw_gain(scene, grid, rng), muscle)


def _draw_tissue(scene: Scene, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    flat = z - scene.sag(x) * np.clip(z / muscle, 0, 1)  # layers follow the pleura, the skin does not
    wavy = flat - rng.uniform(0.1, 0.6) * _wave(x, 40, rng) - rng.normal(0, 0.03) * x
    lean = rng.normal(0, 0.05)
    streaks = c.STREAK_DB * _blobs(x, flat + lean * x, (0.4, 2.6), rng)
    muscle_db = c.MUSCLE_DB + streaks - 4.0 * np.exp(-(((flat - muscle + 0.7) / 0.6) ** 2))
    db = np.where(wavy < fat, c.FAT_DB + 2 * _blobs(x, z, (1.5, 4.0), rng), muscle_db)
    db = np.where(z < skin, c.SKIN_DB + 3 * np.sin(z * 2 * np.pi / 0.7), db)
    # Sheets: middle, the depth it follows, slope, height of its waves, level (dB), thickness (mm), whole or in part.
    lines: list[tuple] = [(fat, wavy, 0.0, 0.0, (12, 18), (0.3, 0.5), True)]
    lines.append((fat + rng.uniform(0.6, 1.6), wavy, 0.0, 0.1, (8, 16), (0.25, 0.45), True))
    lines += [
        (rng.uniform(skin + 0.5, fat), flat, rng.normal(0, 0.04), rng.uniform(0.1, 0.8), (4, 15), (0.2, 0.45), False)
        for _ in range(1 + rng.poisson(max(fat - skin, 0) / 2.5))
    ]
    lines += [
        (rng.uniform(fat + 0.5, muscle - 0.8), flat, -lean, 0.15, (0, 11), (0.16, 0.35), False)
        for _ in range(rng.poisson((muscle - fat) * 2.0))
    ]
    sheets = np.zeros(db.shape, np.float32)
    for centre, depth, slope, height, level_db, thickness_mm, whole in lines:
        off = depth - (centre + slope * x + height * _wave(x, 35, rng))
        level = rng.uniform(*level_db) + 3 * _wave(x, 14, rng)
        ends = 1.0 if whole else np.exp(-(((x - rng.uniform(x.min(), x.max())) / rng.uniform(5, 30)) ** 4))
        sheets += (10 ** (level / 20) * ends * np.exp(-((off / rng.uniform(*thickness_mm)) ** 2))).astype(np.float32)
    is_muscle = (wavy > fat + 1.0) & (flat < muscle - 2) & (sheets < 0.1)
    return _amplitude(db), sheets, is_muscle


def _amplitude(db: float | np.ndarray) -> np.float32 | np.ndarray:
    """What decibels are as a factor of the echo, float32."""
    return np.float32(10 ** (db / 20))


def _wave(x: np.ndarray, period_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random curve at places ``x``, about in [-1, 1], with waves of about ``period_mm``."""
    waves = rng.uniform(0.6, 1.6, 3) * 2 * np.pi / period_mm
    return sum(np.sin(k * x + phase) for k, phase in zip(waves, rng.uniform(0, 2 * np.pi, 3), strict=True)) / 1.7


def _blobs(x: np.ndarray, z: np.ndarray, size_mm: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit SD with blobs of a size (axial, lateral), looked up at (z, x) to the nearest sample."""
    step = min(size_mm) / 3
    shape = int(np.ptp(z) / step) + 2, int(np.ptp(x) / step) + 2
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), [s / step / 2 for s in size_mm])
    noise /= noise.std()
    return noise[((z - z.min()) / step).astype(int), ((x - x.min()) / step).astype(int)]


def make_speckle(shape: tuple[int, int], psf: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Fully developed speckle: complex Gaussian scatterers blurred by the point-spread function.

    Args:
        shape: Rows and columns.
        psf: SD of the point-spread function along rows and columns, in pixels.
        rng: Source of randomness.

    Returns:
        complex64, mean power 1; its magnitude is Rayleigh distributed.
    """
    parts = [gaussian_filter(rng.standard_normal(shape, dtype=np.float32), psf, mode="wrap") for _ in range(2)]
    field = parts[0] + 1j * parts[1]
    return (field / np.sqrt(np.mean(np.abs(field) ** 2))).astype(np.complex64)


def _draw_gain(scene: Scene, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Gain error with depth, and now and then poor contact towards one edge."""
    device = scene.device
    share = grid.z / device.depth_mm
    gain = device.gain_db + np.interp(share, [0, 0.5, 1], device.tgc_db)
    side, start = rng.choice([-1, 1]), rng.uniform(0.55, 0.9)
    loss = rng.uniform(0, c.CONTACT_LOSS_DB) * (rng.random() < 0.4)
    across = 2 * grid.x / scene.width_mm
    gain = gain - loss * np.clip((side * across - start) / 0.4, 0, 1)
    if device.probe == "convex":  # the outermost beams of a curved array are weak
        gain = gain - c.CONVEX_EDGE_DB * np.clip((np.abs(across) - 0.6) / 0.4, 0, 1) ** 2
        gain = gain + c.CONVEX_BEAM_DB * _wave(grid.x, 18, rng) * share
    return gain.astype(np.float32)


def render_video(scene: Scene, size: int, n_frames: int, *, speckle: bool = True) -> np.ndarray:
    """The video of a scene.

    Args:
        scene: The scene.
        size: Height and width in pixels.
        n_frames: How many frames, at the device's rate.
        speckle: False leaves out speckle, noise and persistence, to measure on.

    Returns:
        uint8 (n_frames, size, size). The depth fills the height; millimetres are the same in both directions.
        At 224 px a linear image has 3.7 to 5.6 px/mm, which resolves every class; at 96 px 1.6 to 2.4 and at 64 px
        1.1 to 1.6, where B-lines (0.6 to 1.3 mm), breaks and indents below 2 mm and a healthy line blur.
    """
    grid = make_grid(scene, size)
    textures, convert = make_textures(scene, grid, speckle), ScanConverter(scene, grid, size)
    rng = np.random.default_rng(scene.seed[3])
    keep = np.float32(scene.device.persistence if speckle else 0.0)
    blur = scene.device.smoothing_px * np.array(c.SMOOTHED[scene.device.probe])
    video, last = np.empty((n_frames, size, size), np.uint8), None
    for k in range(n_frames):
        view = artifacts.view_scene(scene, grid.x, grid.z, k / scene.device.fps)
        grey = compress(scene, echo_db(scene, view, grid, textures, rng) + textures.gain)
        grey = gaussian_filter(grey, blur) if speckle else grey
        last = grey if last is None else (1 - keep) * grey + keep * last
        video[k] = convert(last)
    return video


def echo_db(scene: Scene, view: View, grid: Grid, textures: Textures, rng: np.random.Generator) -> np.ndarray:
    """Envelope of the echoes of one moment, before gain; the generator is for the electronic noise.

    Returns:
        float32 (Z, X), decibels about muscle.
    """
    lung, sheen = _move_lung(scene, view, grid, textures)
    below = artifacts.ramp(view.z - view.pleura, 0.3)
    level, specular = _lung_levels(scene, view, sheen, textures.mirror)
    field = _move_wall(scene, view, textures.wall) * (1 - below) + lung * (level * below)
    field += specular * (np.float32(0.6) + np.float32(0.4) * lung)
    row, column = rng.integers(0, 64, 2)
    rise = _amplitude(scene.device.noise_db + 10 * (view.z / scene.device.depth_mm - 1))
    field += textures.noise[row : row + field.shape[0], column : column + field.shape[1]] * rise
    shade = 1 - _amplitude(c.SHADOW_DB[scene.device.probe])
    power = (field.real**2 + field.imag**2) * (1 - shade * artifacts.ribs(scene, view)[1]) ** 2
    return 10 * np.log10(power + np.float32(1e-6))


def _lung_levels(scene: Scene, view: View, sheen: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude that multiplies the lung's speckle, and what is added as sheets, both (Z, X)."""
    device, probe, findings = scene.device, scene.device.probe, scene.findings
    under = view.z - view.lung
    fade = np.exp(np.clip(under, 0, None) * (-device.fade_db / 8.686 / (0.7 * device.depth_mm)))
    beams, beam_db = artifacts.b_lines(scene, view)
    clear, specular = 1 - beams, artifacts.empty_map(view)
    for copy, line in enumerate(artifacts.a_lines(scene, view)):
        about_haze = c.A_LINE_DB[probe][findings.a_lines] - c.A_LINE_STEP_DB * copy
        specular += _amplitude(device.haze_db + about_haze) * fade * line * clear * sheen
    level = (_amplitude(device.haze_db) * fade + mirror) * clear
    level += _amplitude(c.COMET_DB) * artifacts.comet_tails(scene, view) * clear
    base = c.WHITE_LUNG_DB if findings.white else c.B_LINE_DB[probe] + 1.5 * scene.motion.swell(view.seconds)
    ring = 1 + 0.2 * np.sin(under * (2 * np.pi / 1.3))
    level += 10 ** ((np.float32(base) + beam_db) / 20) * ring * beams * fade ** c.B_LINE_FADE[probe]
    level = _add_airless(scene, view, level, fade * clear)
    if findings.effusion_mm:
        specular += _amplitude(c.PLEURA_DB[probe] - 6) * artifacts.parietal_line(scene, view)
    specular += _amplitude(c.PLEURA_DB[probe]) * artifacts.pleural_line(scene, view) * sheen
    specular += _amplitude(c.PLEURA_DB[probe] - 4) * artifacts.ribs(scene, view)[0]
    return level, specular


def _add_airless(scene: Scene, view: View, level: np.ndarray, fade: np.ndarray) -> np.ndarray:
    """Put consolidations and fluid, and the enhancement below them, into the lung's amplitude."""
    haze_db = scene.device.haze_db
    if scene.consolidations:
        inside, border, far, air = artifacts.consolidations(scene, view)
        # Darker than the haze around it, so that it can be told, but within the range of tissue.
        darker = max(haze_db - 4, c.CONSOLIDATION_DB[0] - 2)
        tissue = _amplitude(min(scene.consolidations[0].level_db, darker))
        level = level * (1 - inside) + tissue * inside + _amplitude(c.SHRED_DB) * border
        level += _amplitude(haze_db + c.CONSOLIDATION_ENHANCES_DB) * far * fade
        level += _amplitude(c.AIR_DB) * air
    if scene.findings.effusion_mm:
        fluid = artifacts.effusion(scene, view)
        level = np.where(view.z > view.lung, level * _amplitude(c.FLUID_ENHANCES_DB), level)
        level = level * (1 - fluid) + _amplitude(c.FLUID_DB) * fluid
    return level


def _move_wall(scene: Scene, view: View, wall: np.ndarray) -> np.ndarray:
    """The chest wall stretched in depth, so that it ends where the pleura is now."""
    stretch = scene.findings.pleura_mm / (scene.findings.pleura_mm + scene.motion.drift(view.seconds))
    rows = np.clip((np.arange(len(wall)) + 0.5) * stretch - 0.5, 0, len(wall) - 1.001)
    upper = rows.astype(int)
    share = (rows - upper).astype(np.float32)[:, None]
    return wall[upper] * (1 - share) + wall[upper + 1] * share


def _move_lung(scene: Scene, view: View, grid: Grid, textures: Textures) -> tuple[np.ndarray, np.ndarray]:
    """The lung's speckle and the sheen of its line, shifted by sliding and drift."""
    down = textures.pad[0] - scene.motion.drift(view.seconds) / grid.dz
    right = textures.pad[1] - scene.motion.slide(view.seconds) / grid.dx
    row, column = int(down), int(right)
    a, b = np.float32(down - row), np.float32(right - column)
    part = textures.lung[row : row + view.z.shape[0] + 1, column : column + view.x.shape[1] + 1]
    part = part[:-1] * (1 - a) + part[1:] * a
    return part[:, :-1] * (1 - b) + part[:, 1:] * b, textures.sheen[:, column : column + view.x.shape[1]]


def compress(scene: Scene, db: np.ndarray) -> np.ndarray:
    """Log compression: decibels about muscle to grey, float32, 0 (black) to 255 (white)."""
    share = np.clip((db - c.WHITE_DB[scene.device.probe]) / scene.device.dynamic_range_db + 1, 0, 1)
    return np.float32(255) * share**c.GREY_CURVE
