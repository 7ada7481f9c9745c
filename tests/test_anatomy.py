"""Scenes: everything labelled stays in the image, apart from everything else, at all times."""

import numpy as np
import pytest

from lusbio.simulation.anatomy import fluid_mm, image_top_mm, lobe, lung_depth, pleura_depth
from lusbio.simulation.appearance import example_scene
from lusbio.simulation.constants import B_LINE_SPACING_MM
from lusbio.simulation.patients import Findings, biomarkers_of, grade_of
from lusbio.simulation.placement import build_scene
from lusbio.simulation.population import simulate_recordings
from lusbio.vocabulary import BIOMARKER_NAMES


@pytest.fixture(scope="module", params=["linear", "convex"])
def scenes(request):
    recordings = simulate_recordings(189, 1, request.param)
    return [build_scene(r.findings, r.patient, r.zone, r.generator(3)) for r in recordings]


def test_every_finding_is_placed_once(scenes):
    for scene in scenes:
        f = scene.findings
        assert len(scene.b_lines) == f.b_lines
        for spots, widths in (
            (scene.indents, f.indents_mm),
            (scene.breaks, f.breaks_mm),
            (scene.consolidations, f.consolidations_mm),
            (scene.bands, f.coalescent_mm),
        ):
            assert [spot.width_mm for spot in spots] == list(widths)
        assert (scene.a_window is not None) == bool(f.a_lines)


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_motion_and_anatomy_do_not_know_the_findings(probe):
    same = []
    for r in simulate_recordings(189, 1, probe):
        shown, healthy = (build_scene(f, r.patient, r.zone, r.generator(3)) for f in (r.findings, Findings(20.0)))
        same.append((shown.motion, shown.tilt, shown.bend_mm) == (healthy.motion, healthy.tilt, healthy.bend_mm))
        same[-1] &= len(shown.ribs) == len(healthy.ribs)
    assert np.mean(same) > 0.94  # in the others not even the narrowest findings have room beside them


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_findings_that_had_to_give_are_labelled_the_same(probe):
    narrower = 0
    for r in simulate_recordings(189, 1, probe):
        found, depth = build_scene(r.findings, r.patient, r.zone, r.generator(3)).findings, r.patient.device.depth_mm
        assert biomarkers_of(found, depth) == biomarkers_of(r.findings, depth)
        assert grade_of(found) == grade_of(r.findings)
        narrower += found != r.findings
    assert narrower > 20


def test_findings_stay_in_the_image_while_the_lung_slides(scenes):
    for scene in scenes:
        reach, half = scene.motion.reach_mm, scene.width_mm / 2
        for spot in (*scene.indents, *scene.breaks, *scene.consolidations, *scene.bands):
            assert abs(spot.x_mm) + spot.width_mm / 2 + reach <= half + 1e-6
        for spot in scene.b_lines:
            assert abs(spot.x_mm) + reach <= half
        if scene.a_window:
            assert abs(scene.a_window.x_mm) + scene.a_window.width_mm / 2 <= half + 1e-6


def test_the_square_image_cuts_off_no_finding_of_a_wide_sector():
    for r in simulate_recordings(189, 1, "convex"):
        scene = build_scene(r.findings, r.patient, r.zone, r.generator(3))
        radius, device = r.patient.device.radius_mm + r.findings.pleura_mm, r.patient.device
        half_image = (device.radius_mm + device.depth_mm - image_top_mm(device)) / 2
        for spot in (*scene.indents, *scene.breaks, *scene.consolidations, *scene.bands, *scene.b_lines):
            width = 0 if spot in scene.b_lines else spot.width_mm / 2
            assert radius * np.sin((abs(spot.x_mm) + width + scene.motion.reach_mm) / radius) <= half_image


def test_ribs_never_hide_a_finding(scenes):
    for scene in scenes:
        for rib in scene.ribs:
            side = np.sign(rib.x_mm)
            inner = abs(rib.x_mm) - rib.width_mm / 2
            spots = (*scene.indents, *scene.breaks, *scene.consolidations, *scene.bands, *scene.b_lines)
            for spot in spots:
                width = 0 if spot in scene.b_lines else spot.width_mm / 2
                assert side * spot.x_mm + width + scene.motion.reach_mm <= inner + 1e-6


def test_findings_do_not_overlap(scenes):
    for scene in scenes:
        blocks = sorted(
            (s.x_mm - s.width_mm / 2, s.x_mm + s.width_mm / 2)
            for s in (*scene.indents, *scene.breaks, *scene.consolidations, *scene.bands)
        )
        assert all(a[1] < b[0] for a, b in zip(blocks, blocks[1:], strict=False))
        if scene.a_window:
            low, high = (scene.a_window.x_mm + sign * scene.a_window.width_mm / 2 for sign in (-1, 1))
            for start, end in blocks:
                assert end + scene.motion.reach_mm <= low + 1e-6 or start - scene.motion.reach_mm >= high - 1e-6


def test_b_lines_can_be_counted(scenes):
    close = 0
    for scene in scenes:
        x = np.array([spot.x_mm for spot in scene.b_lines])
        if len(x) > 1:
            assert np.diff(x).min() > 1.7
            close += np.diff(x).min() < B_LINE_SPACING_MM
        for spot in (*scene.consolidations, *scene.bands):
            assert not len(x) or np.abs(x - spot.x_mm).min() > spot.width_mm / 2
    assert close < 0.02 * len(scenes)


def test_repetitions_of_the_pleural_line_stay_above_the_bottom(scenes):
    for scene in scenes:
        if scene.a_window:
            x = scene.a_window.x_mm + np.linspace(-0.5, 0.5, 9) * scene.a_window.width_mm
            deepest = max(pleura_depth(scene, x, t).min() for t in np.linspace(0, 6, 25))
            assert (scene.findings.a_line_copies + 1) * deepest < scene.device.depth_mm


def test_the_pleura_is_where_the_label_says(scenes):
    for scene in scenes:
        times = np.linspace(0, 1 / scene.motion.breaths_hz, 40, endpoint=False)
        middle = np.mean([pleura_depth(scene, np.zeros(1), t)[0] for t in times])
        assert middle == pytest.approx(scene.findings.pleura_mm, abs=0.02)


def test_fluid_stays_on_its_side_of_5_mm(scenes):
    for scene in scenes:
        if scene.findings.effusion_mm:
            clear = np.array([fluid_mm(scene, t) for t in np.linspace(0, 6, 50)]) - 0.8
            assert (clear > 5).all() if scene.findings.effusion_mm > 5 else (clear < 5).all()
            assert np.mean(clear) == pytest.approx(scene.findings.effusion_mm, rel=0.06)


def test_sliding_moves_indents_and_not_the_chest_wall():
    scene = example_scene("pleural_indent_medium")
    x = np.linspace(-20, 20, 801)
    deepest = []
    for seconds in (0.0, 0.9):
        bump = lung_depth(scene, x, seconds) - pleura_depth(scene, x, seconds)
        deepest.append(x[bump.argmax()] - scene.motion.slide(seconds))
    assert deepest[0] == pytest.approx(deepest[1], abs=0.2)
    assert scene.motion.slide(0.0) != scene.motion.slide(0.9)


def test_a_lobe_is_as_wide_as_it_says():
    x = np.linspace(-10, 10, 20001)
    assert np.ptp(x[lobe(x, 6.0) >= 0.5]) == pytest.approx(6.0, abs=0.01)


def test_basal_lungs_slide_more():
    recordings = [r for r in simulate_recordings(189, 0) if not r.findings.indents_mm and not r.findings.breaks_mm]
    slide = {True: [], False: []}
    for r in recordings:
        slide[r.zone.endswith("3")].append(build_scene(r.findings, r.patient, r.zone, r.generator(3)).motion.slide_mm)
    assert np.median(slide[True]) > np.median(slide[False]) + 2


@pytest.mark.parametrize("biomarker", BIOMARKER_NAMES)
def test_every_biomarker_has_an_example_that_shows_it(biomarker):
    for probe in ("linear", "convex"):
        scene = example_scene(biomarker, probe=probe)
        assert biomarkers_of(scene.findings, scene.device.depth_mm)[biomarker] == 1
