import numpy as np
import pytest

from lusbio.simulation.appearance import (
    count_greys,
    describe_video,
    example_scene,
    measure_speckle,
    measure_spectrum,
    tell_apart,
)


def noise(seed: int, level: float = 100.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, 20, (4, 32, 32)).clip(0, 255).astype(np.uint8)


def test_speckle_of_a_scene_is_close_to_rayleigh():
    measured = measure_speckle(example_scene("pleural_location_middle"))
    assert 1.6 < measured["mean_to_sd"] < 2.1 and 5.0 < measured["log_sd_db"] < 6.3


def test_greys_add_up_and_borders_do_not_count():
    framed = np.pad(noise(0), ((0, 0), (8, 8), (8, 8)))
    plain, bordered = count_greys([noise(0)]), count_greys([framed])
    assert plain["share"].sum() == pytest.approx(1)
    np.testing.assert_allclose(plain["share"], bordered["share"])


def test_a_wave_has_its_power_at_its_frequency():
    wave = 100 + 50 * np.sin(2 * np.pi * 0.25 * np.arange(64))
    spectrum = measure_spectrum([np.tile(wave, (1, 64, 1)).astype(np.uint8)])
    assert spectrum["cycles_per_pixel"][spectrum["power_db"].idxmax()] == pytest.approx(0.25, abs=0.02)


def test_equal_sources_cannot_be_told_apart_and_different_ones_can():
    real = [noise(k) for k in range(40)]
    groups = [str(k // 2) for k in range(40)]
    assert 0.3 < tell_apart(real, [noise(100 + k) for k in range(40)], groups) < 0.7
    assert tell_apart(real, [noise(100 + k, level=130) for k in range(40)], groups) > 0.95
    assert describe_video(real[0]).shape == (83,)


def test_a_black_video_is_described_with_numbers():
    described = describe_video(np.zeros((3, 32, 32), np.uint8))
    assert np.isfinite(described).all()
