"""From scene to pixels: speckle, repetition at the pleural depth, counts in the image, reproducibility."""

import numpy as np
import pytest

from lusbio.simulation import artifacts
from lusbio.simulation.anatomy import Spot, make_grid
from lusbio.simulation.appearance import example_scene
from lusbio.simulation.constants import INTERNAL_SIZE
from lusbio.simulation.placement import build_scene
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.scanner import compress, echo_db, make_speckle, make_textures, render_video
from lusbio.vocabulary import BIOMARKER_NAMES


def frame_db(scene, size=224, seconds=0.0, speckle=True):
    """Echo level of one moment on the grid, before gain, persistence and smoothing; grid; textures."""
    grid = make_grid(scene, size)
    textures = make_textures(scene, grid, speckle)
    view = artifacts.view_scene(scene, grid.x, grid.z, seconds)
    return echo_db(scene, view, grid, textures, np.random.default_rng(0)), grid, textures


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_muscle_shows_fully_developed_speckle(probe):
    ratios, spreads = [], []
    for seed in range(8):
        scene = example_scene("pleural_location_middle", probe=probe, seed=seed)
        scene = scene._replace(motion=scene.motion._replace(drift_mm=0.0), ribs=())
        db, _, textures = frame_db(scene)
        muscle = db[textures.muscle]
        envelope = 10 ** (muscle / 20)
        ratios.append(envelope.mean() / envelope.std())
        spreads.append(muscle.std())
    assert 1.7 <= np.mean(ratios) <= 2.0
    assert np.mean(spreads) == pytest.approx(5.6, abs=0.6)


def test_speckle_is_rayleigh_distributed():
    envelope = np.abs(make_speckle((400, 400), (1.0, 2.0), np.random.default_rng(0)))
    assert envelope.mean() / envelope.std() == pytest.approx(1.91, abs=0.05)
    assert (20 * np.log10(envelope)).std() == pytest.approx(5.57, abs=0.15)
    assert np.mean(envelope**2) == pytest.approx(1, abs=1e-3)


def test_row_profiles_of_a_line_videos_repeat_at_the_pleural_depth():
    hits = total = 0
    for r in simulate_recordings(189, 0)[::3]:
        f = r.findings
        if f.a_lines == 2 and f.a_line_width_mm > 20:
            scene = build_scene(f, r.patient, r.zone, r.generator(3))
            frames = render_video(scene, 224, 3).astype(float)
            grid = make_grid(scene, 224)
            left = (224 - grid.x.shape[1]) // 2
            columns = left + np.flatnonzero(np.abs(grid.x[0] - scene.a_window.x_mm) < 8)
            profile = frames[:, :, columns].mean((0, 2))
            profile = profile - np.convolve(np.pad(profile, 12, mode="edge"), np.ones(25) / 25, "valid")
            # What lies above the pleura does not repeat: correlate the line with what is below it.
            d = int(f.pleura_mm / grid.dz)
            line = profile[d - 6 : d + 12]
            lags = np.arange(d // 2, 224 - d - 12)
            scores = [np.dot(line, profile[d - 6 + lag : d + 12 + lag]) for lag in lags]
            total += 1
            hits += abs(lags[int(np.argmax(scores))] * grid.dz - f.pleura_mm) < 1.5
    assert total >= 10
    assert hits >= 0.85 * total


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_b_lines_outlast_the_lung_beside_them(probe):
    scene = example_scene("b_lines_few", probe=probe)._replace(comets=(), ribs=())
    db, grid, _ = frame_db(scene, speckle=False)
    on_lung = grid.x[0] - scene.motion.slide(0.0)
    b_line = np.argmin(np.abs(on_lung - scene.b_lines[0].x_mm))
    beside = np.argmax(np.abs(on_lung[:, None] - [spot.x_mm for spot in scene.b_lines]).min(axis=1))
    upper, lower = (np.flatnonzero(grid.z[:, 0] > share * grid.z[-1, 0])[:8] for share in (0.6, 0.9))
    loss = db[upper].mean(axis=0) - db[lower].mean(axis=0)
    assert loss[b_line] < 0.6 * loss[beside]


def test_b_lines_can_be_counted_in_an_image_without_noise():
    for name, count in (("b_lines_none", 0), ("b_lines_few", 2), ("b_lines_some", 5)):
        scene = example_scene(name)._replace(comets=(), ribs=())
        image = render_video(scene, 224, 2, speckle=False)[1]
        grid = make_grid(scene, 224)
        left = (224 - grid.x.shape[1]) // 2
        row = image[-20:, left : left + grid.x.shape[1]].mean(axis=0)
        bright = row > row.min() + 0.5 * max(row.max() - row.min(), 20)
        assert np.sum(np.diff(bright.astype(int), prepend=0) == 1) == count


def test_b_lines_erase_a_lines_where_they_pass():
    a_only = example_scene("a_lines_wide")._replace(comets=(), ribs=())
    x = a_only.a_window.x_mm
    crossed = a_only._replace(b_lines=(Spot(x, 1.2),))
    (db, grid, _), (db_a, _, _) = frame_db(crossed, speckle=False), frame_db(a_only, speckle=False)
    column = int(np.abs(grid.x[0] - x - crossed.motion.slide(0)).argmin())
    rows = slice(int(1.8 * a_only.findings.pleura_mm / grid.dz), int(2.3 * a_only.findings.pleura_mm / grid.dz))
    assert np.ptp(db_a[rows, column]) > 8
    assert np.ptp(db[rows, column]) < 4.5


def test_fluid_is_the_darkest_and_the_pleura_the_brightest():
    scene = example_scene("effusion_large")._replace(ribs=())
    db, grid, _ = frame_db(scene)
    view = artifacts.view_scene(scene, grid.x, grid.z, 0.0)
    fluid = artifacts.effusion(scene, view) > 0.99
    line = artifacts.pleural_line(scene, view) > 0.9
    assert np.median(db[fluid]) < -18
    assert 15 < np.median(db[line]) < 32


def test_consolidation_is_8_to_15_db_below_muscle():
    scene = example_scene("consolidation_large")._replace(ribs=())
    db, grid, _ = frame_db(scene, speckle=False)
    inside, _, _, air = artifacts.consolidations(scene, artifacts.view_scene(scene, grid.x, grid.z, 0.0))
    assert -17.5 < np.median(db[(inside > 0.99) & (air < 0.01)]) < -7.5


def test_videos_have_the_asked_shape_and_are_reproducible():
    scene = example_scene("b_lines_some", seed=3)
    for size in (64, 96, 224):
        video = render_video(scene, size, 3)
        assert video.shape == (3, size, size)
        assert video.dtype == np.uint8
        assert make_grid(scene, size).size % size == 0
        assert make_grid(scene, size).size >= INTERNAL_SIZE
    np.testing.assert_array_equal(render_video(scene, 64, 3), render_video(scene, 64, 3))


def test_a_longer_video_starts_like_a_shorter_one():
    scene = example_scene("a_lines_bold")
    np.testing.assert_array_equal(render_video(scene, 64, 5)[:2], render_video(scene, 64, 2))


def test_the_lung_moves_and_speckle_moves_with_it():
    scene = example_scene("b_lines_few")._replace(comets=())
    scene = scene._replace(motion=scene.motion._replace(slide_mm=6.0, drift_mm=0.0, breaths_hz=0.3, phase=0.0))
    first, _, _ = frame_db(scene, seconds=0.0)
    later, grid, _ = frame_db(scene, seconds=0.6)
    shift = round((scene.motion.slide(0.6) - scene.motion.slide(0.0)) / grid.dx)
    rows = slice(int((scene.findings.pleura_mm + 3) / grid.dz), int(0.8 * len(first)))
    moved = np.corrcoef(first[rows, 40:100].ravel(), later[rows, 40 + shift : 100 + shift].ravel())[0, 1]
    still = np.corrcoef(first[rows, 40:100].ravel(), later[rows, 40:100].ravel())[0, 1]
    assert moved > still + 0.2


def test_a_convex_image_is_a_sector_and_a_linear_one_a_rectangle():
    convex = render_video(example_scene("b_lines_white", probe="convex"), 96, 1)[0]
    assert convex[-1, 0] == convex[-1, -1] == convex[0, 0] == convex[16, 0] == 0
    assert convex[80, 48] > 0
    scene = example_scene("b_lines_white")
    linear = render_video(scene, 96, 1)[0]
    black = (linear == 0).all(axis=0).sum()
    assert black == pytest.approx(96 * (1 - scene.width_mm / scene.device.depth_mm), abs=2)


def test_grey_grows_with_echo_and_stays_in_range():
    grey = compress(example_scene("a_lines_none"), np.linspace(-100, 60, 500, dtype=np.float32))
    assert (np.diff(grey) >= 0).all()
    assert grey.min() == 0
    assert grey.max() == 255


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_every_example_renders(probe):
    for name in BIOMARKER_NAMES:
        video = render_video(example_scene(name, probe=probe), 32, 1)
        assert 5 < video.mean() < 150, name
