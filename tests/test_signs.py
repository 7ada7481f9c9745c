"""Measured signs, on simulated videos, where the truth is known."""

import functools

import numpy as np
import pytest

from lusbio.signs import lines
from lusbio.signs.measure import GROUPS, SIGN_NAMES, SIGNS, measure_signs, tabulate_signs
from lusbio.simulation.appearance import DEVICES
from lusbio.simulation.constants import HEALTHY
from lusbio.simulation.patients import Findings, Patient
from lusbio.simulation.placement import build_scene
from lusbio.simulation.scanner import render_video

PROBES = ("linear", "convex")
PLEURA_MM = {"linear": 12.0, "convex": 20.0}


@functools.cache
def simulate(probe: str, **findings) -> np.ndarray:
    """Frames of a patient who differs from others in findings only."""
    device = DEVICES[probe]
    patient = Patient(1, HEALTHY, frozenset(), True, 0.0, 460.0, 9.0, breaths_hz=0.28, beats_hz=1.2, device=device)
    shown = Findings(findings.pop("pleura_mm", PLEURA_MM[probe]), **findings)
    scenes = (build_scene(shown, patient, "R1", np.random.default_rng(seed)) for seed in range(50))
    scene = next(
        scene for scene in scenes if all(abs(spot.x_mm) < 5 for spot in scene.breaks)
    )  # within what is looked at
    return render_video(scene, 160, 10)


def measured(probe: str, **findings) -> dict[str, float]:
    """Signs by name, in mm."""
    return tabulate_signs(measure_signs(simulate(probe, **findings)), DEVICES[probe].depth_mm)["value"].to_dict()


def test_every_sign_has_words_and_is_measured_once():
    assert len(set(SIGN_NAMES)) == len(SIGNS) == len(measure_signs(simulate("linear")))
    assert all(sign.meaning and sign.unit for sign in SIGNS)
    scene = lines.find_scene(simulate("linear"))
    found = [name for group in GROUPS for name, _ in group(scene, length=1, width=1)]
    assert len(found) == len(set(found)) and set(found) == set(SIGN_NAMES)


@pytest.mark.parametrize(
    ("probe", "pleura_mm"), [("linear", 10.0), ("linear", 18.0), ("convex", 20.0), ("convex", 30.0)]
)
def test_a_pleura_drawn_at_a_depth_is_found_there(probe, pleura_mm):
    assert measured(probe, pleura_mm=pleura_mm)["pleura_depth"] == pytest.approx(pleura_mm, rel=0.1, abs=0.8)


@pytest.mark.parametrize("probe", PROBES)
def test_a_lines_stand_at_twice_the_depth_and_raise_their_signs(probe):
    none, some = measured(probe), measured(probe, a_lines=2, a_line_copies=2, a_line_width_mm=24.0)
    for name in ("repetition_1", "horizontal_strength", "horizontal_width"):
        assert some[name] > 1.2 * none[name], name
    assert some["repetition_distance"] == pytest.approx(PLEURA_MM[probe], rel=0.15)
    assert some["pleura_depth"] == pytest.approx(none["pleura_depth"], abs=1.0)
    assert some["streaks"] <= none["streaks"] + 0.5 and abs(some["pleura_broken"] - none["pleura_broken"]) < 0.1


def test_the_more_b_lines_the_more_streaks_and_merged_ones_are_wider():
    counts = [measured("linear", b_lines=n)["streaks"] for n in (0, 2, 5)]
    assert counts[0] < 0.7 < counts[1] < counts[2]
    few, merged = (measured("linear", **found) for found in ({"b_lines": 2}, {"coalescent_mm": (9.0,)}))
    assert merged["streak_width"] > 1.5 * few["streak_width"] > 0


def test_b_lines_of_a_convex_probe_raise_their_signs():
    none, some = measured("convex"), measured("convex", b_lines=5)
    for name in ("streak_contrast", "streak_length", "columns_spread"):
        assert some[name] > 1.1 * none[name], name


def test_a_break_is_as_wide_as_it_was_drawn():
    whole = measured("linear")
    for width_mm in (4.0, 6.0):
        broken = measured("linear", breaks_mm=(width_mm,))
        assert broken["pleura_longest_break_mean"] == pytest.approx(width_mm, abs=1.2)
        assert broken["pleura_broken"] > whole["pleura_broken"]
    assert whole["pleura_longest_break"] < 1
    assert measured("linear", breaks_mm=(9.0,))["pleura_longest_break_mean"] > 4  # of wide ones a part is bridged


def test_a_thick_pleura_is_thicker():
    thickness = [measured("linear", thickness_mm=mm)["pleura_thickness"] for mm in (0.7, 2.5)]
    assert thickness[1] > thickness[0] + 0.8


def test_lines_to_draw_lie_on_what_is_there():
    found = lines.find_lines(simulate("linear", a_lines=2, a_line_copies=2, a_line_width_mm=24.0))
    assert found.depth * 50 == pytest.approx(12, abs=1.5) and found.seen.mean() > 0.8
    assert np.nanmedian(found.repetitions[0]) * 50 == pytest.approx(24, abs=2)
    assert len(lines.find_lines(simulate("linear", b_lines=2)).streaks) >= 1


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 96, 96), (50, 300, 200)])
@pytest.mark.parametrize("grey", [0, 255, None])
def test_whatever_the_size_and_the_content_numbers_come_out(shape, grey):
    frames = np.random.default_rng(0).integers(0, 256, shape) if grey is None else np.full(shape, grey)
    values = measure_signs(frames.astype(np.uint8), aspect=1.5)
    assert values.shape == (len(SIGNS),) and not np.isinf(values).any() and np.isnan(values).mean() < 0.2
    assert np.array_equal(values, measure_signs(frames.astype(np.uint8), aspect=1.5), equal_nan=True)


def test_where_the_depth_is_unknown_lengths_stay_shares():
    values = np.full(len(SIGNS), 0.1)
    shares, mm = tabulate_signs(values, np.nan), tabulate_signs(values, 50.0)
    assert mm.loc["pleura_depth", "value"] == pytest.approx(5) and mm.loc["pleura_depth", "unit"] == "mm"
    assert shares.loc["pleura_depth", "value"] == pytest.approx(0.1) and "mm" not in set(shares["unit"])
    assert mm.loc["pleura_broken", "value"] == pytest.approx(0.1)
