"""From a scene to pixels: speckle, envelope, gain, log compression, persistence.

Speckle is made once per video, in the coordinates of what carries it, and moves with it: the chest wall
is stretched by respiration, the lung slides.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lusbio.simulation import artifacts
from lusbio.simulation import constants as c
from lusbio.simulation.anatomy import Scene
from lusbio.simulation.scan_grid import Grid, ScanConverter, make_grid
from lusbio.simulation.tissue import draw_tissue, wave


@dataclass
class Textures:
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

    wall: np.ndarray
    lung: np.ndarray
    mirror: np.ndarray
    sheen: np.ndarray
    noise: np.ndarray
    pad: tuple[int, int]
    gain: np.ndarray
    muscle: np.ndarray


def make_textures(scene: Scene, grid: Grid, speckle: bool = True) -> Textures:
    """Speckle, chest wall and gain of a video.

    Args:
        scene: The scene.
        grid: Its grid.
        speckle: False gives every scatterer the same phase and strength: echogenicity without noise, to measure on.

    Returns:
        The textures.
    """
    rng = np.random.default_rng(scene.seed[2])
    rows, columns = grid.z.shape[0], grid.x.shape[1]
    reach = scene.motion.slide_mm / 2 + scene.motion.beat_mm
    pad = (int(scene.motion.drift_mm / grid.dz) + 3, int(reach / grid.dx) + 3)
    wide = (rows + 2 * pad[0], columns + 2 * pad[1])
    wave_mm = c.SOUND_MM_PER_US / scene.device.frequency_mhz
    along_beam, across = c.PSF[scene.device.probe]
    psf = (max(along_beam * wave_mm / grid.dz, 0.6), max(across * wave_mm / grid.dx, 0.7))
    amplitude, sheets, muscle = draw_tissue(scene, grid.x, grid.z)
    wall_speckle = make_speckle((rows, columns), psf, rng)
    lung = make_speckle(wide, (psf[0], c.LUNG_STREAK * psf[1]), rng)
    along = np.arange(wide[1], dtype=np.float32)[None] * grid.dx
    sheen = c.SHEEN_DB * wave(along, 10, rng)
    cloud = gaussian_filter(rng.standard_normal(wide, dtype=np.float32), (3.0 / grid.dz, 1.5 / grid.dx))
    cloud = c.CLOUD_DB * (cloud / cloud.std() + wave(along, 12, rng))
    noise = make_speckle((rows + 64, columns + 64), (0.6, 0.6), rng)
    if not speckle:
        wall_speckle, lung, noise = np.ones_like(wall_speckle), np.ones_like(lung), np.zeros_like(noise)
        sheen, cloud = np.zeros_like(sheen), np.zeros_like(cloud)
    lung *= (10 ** (cloud / 20)).astype(np.float32)
    wall = (amplitude * wall_speckle + sheets * (0.7 + 0.4 * wall_speckle)).astype(np.complex64)
    down = round(scene.findings.pleura_mm / grid.dz)
    mirror = np.zeros((rows, columns), np.float32)
    if speckle:
        soft = gaussian_filter(amplitude + sheets, (0.8 / grid.dz, 2.0 / grid.dx))
        taper = np.clip((1 - np.arange(down, dtype=np.float32)[:, None] / down) / 0.6, 0, 1)
        mirror[down : 2 * down] = (_amplitude(c.MIRROR_DB) * soft[:down] * taper)[: rows - down]
    sheen = (10 ** (sheen / 20)).astype(np.float32)
    return Textures(wall, lung, mirror, sheen, noise, pad, _draw_gain(scene, grid, rng), muscle)


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
        gain = gain + c.CONVEX_BEAM_DB * wave(grid.x, 18, rng) * share
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
    textures = make_textures(scene, grid, speckle)
    convert = ScanConverter(scene, grid, size)
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


def echo_db(scene: Scene, view: artifacts.View, grid: Grid, textures: Textures, rng: np.random.Generator) -> np.ndarray:
    """Envelope of the echoes of one moment, before gain.

    Args:
        scene: The scene.
        view: The moment.
        grid: The grid.
        textures: Of the video.
        rng: For the electronic noise.

    Returns:
        float32 (Z, X), decibels about muscle.
    """
    wall = _move_wall(scene, view, grid, textures.wall)
    lung, sheen = _move_lung(scene, view, grid, textures)
    below = artifacts.ramp(view.z - view.pleura, 0.3)
    level, specular = _lung_levels(scene, view, sheen, textures.mirror)
    field = wall * (1 - below) + lung * (level * below)
    field += specular * (np.float32(0.6) + np.float32(0.4) * lung)
    row, column = rng.integers(0, 64, 2)
    shape = (view.z.shape[0], view.x.shape[1])
    rise = 10 ** ((scene.device.noise_db + 10 * (view.z / scene.device.depth_mm - 1)) / 20)
    field += textures.noise[row : row + shape[0], column : column + shape[1]] * rise.astype(np.float32)
    _, shadow = artifacts.ribs(scene, view) if scene.ribs else (None, None)
    power = field.real**2 + field.imag**2
    if shadow is not None:
        power *= (1 - (1 - _amplitude(c.SHADOW_DB[scene.device.probe])) * shadow) ** 2
    return 10 * np.log10(power + np.float32(1e-6))


def _amplitude(db: float) -> np.float32:
    return np.float32(10 ** (db / 20))


def _lung_levels(
    scene: Scene, view: artifacts.View, sheen: np.ndarray, mirror: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude that multiplies the lung's speckle, and what is added as sheets, both (Z, X)."""
    depth, probe = scene.device.depth_mm, scene.device.probe
    under = view.z - view.lung
    fade = np.exp(np.clip(under, 0, None) * np.float32(-scene.device.fade_db / 8.686 / (0.7 * depth)))
    haze_db = scene.device.haze_db
    level = _amplitude(haze_db) * fade + mirror
    specular = np.zeros(level.shape, np.float32)
    beams, beam_db = artifacts.b_lines(scene, view)
    clear = 1 - beams
    for copy, line in enumerate(artifacts.a_lines(scene, view), start=1):
        about_haze = c.A_LINE_DB[probe][scene.findings.a_lines] - c.A_LINE_STEP_DB * (copy - 1)
        strength = _amplitude(haze_db + about_haze)
        specular += strength * fade * line * clear * sheen
    level = level * clear
    level += _amplitude(c.COMET_DB) * artifacts.comet_tails(scene, view) * clear
    base = c.WHITE_LUNG_DB if scene.findings.white else c.B_LINE_DB[probe] + 1.5 * scene.motion.swell(view.seconds)
    ring = 1 + np.float32(0.2) * np.sin(under * np.float32(2 * np.pi / 1.3))
    lasting = fade ** np.float32(c.B_LINE_FADE[probe])
    level += 10 ** ((np.float32(base) + beam_db) / 20) * ring * beams * lasting
    level = _add_airless(scene, view, level, fade * clear)
    if scene.findings.effusion_mm:
        specular += _amplitude(c.PLEURA_DB[probe] - 6) * artifacts.parietal_line(scene, view)
    specular += _amplitude(c.PLEURA_DB[probe]) * artifacts.pleural_line(scene, view) * sheen
    if scene.ribs:
        specular += _amplitude(c.PLEURA_DB[probe] - 4) * artifacts.ribs(scene, view)[0]
    return level, specular


def _add_airless(scene: Scene, view: artifacts.View, level: np.ndarray, fade: np.ndarray) -> np.ndarray:
    """Put consolidations and fluid, and the enhancement below them, into the lung's amplitude."""
    if scene.consolidations:
        inside, border, far, air = artifacts.consolidations(scene, view)
        # Darker than the haze around it, so that it can be told, but within the range of tissue.
        darker = max(scene.device.haze_db - 4, c.CONSOLIDATION_DB[0] - 2)
        tissue = _amplitude(min(scene.consolidations[0].level_db, darker))
        level = level * (1 - inside) + tissue * inside + _amplitude(c.SHRED_DB) * border
        level += _amplitude(scene.device.haze_db + c.CONSOLIDATION_ENHANCES_DB) * far * fade
        level += _amplitude(c.AIR_DB) * air
    if scene.findings.effusion_mm:
        fluid = artifacts.effusion(scene, view)
        level = np.where(view.z > view.lung, level * _amplitude(c.FLUID_ENHANCES_DB), level)
        level = level * (1 - fluid) + _amplitude(c.FLUID_DB) * fluid
    return level


def _move_wall(scene: Scene, view: artifacts.View, grid: Grid, wall: np.ndarray) -> np.ndarray:
    """The chest wall stretched in depth, so that it ends where the pleura is now."""
    stretch = scene.findings.pleura_mm / (scene.findings.pleura_mm + scene.motion.drift(view.seconds))
    rows = np.clip((np.arange(len(wall)) + 0.5) * stretch - 0.5, 0, len(wall) - 1.001)
    upper = rows.astype(int)
    share = (rows - upper).astype(np.float32)[:, None]
    return wall[upper] * (1 - share) + wall[upper + 1] * share


def _move_lung(scene: Scene, view: artifacts.View, grid: Grid, textures: Textures) -> tuple[np.ndarray, np.ndarray]:
    """The lung's speckle and the sheen of its line, shifted by sliding and drift."""
    down = textures.pad[0] - scene.motion.drift(view.seconds) / grid.dz
    right = textures.pad[1] - scene.motion.slide(view.seconds) / grid.dx
    row, column = int(np.floor(down)), int(np.floor(right))
    a, b = np.float32(down - row), np.float32(right - column)
    part = textures.lung[row : row + view.z.shape[0] + 1, column : column + view.x.shape[1] + 1]
    part = part[:-1] * (1 - a) + part[1:] * a
    sheen = textures.sheen[:, column : column + view.x.shape[1]]
    return part[:, :-1] * (1 - b) + part[:, 1:] * b, sheen


def compress(scene: Scene, db: np.ndarray) -> np.ndarray:
    """Log compression: decibels to grey.

    Args:
        scene: For the dynamic range.
        db: Echo level about muscle, any shape.

    Returns:
        float32, 0 (black) to 255 (white).
    """
    white_db, range_db = np.float32(c.WHITE_DB[scene.device.probe]), np.float32(scene.device.dynamic_range_db)
    share = np.clip((db - white_db) / range_db + 1, 0, 1)
    return np.float32(255) * share ** np.float32(c.GREY_CURVE)
