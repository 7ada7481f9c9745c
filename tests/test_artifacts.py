"""What is drawn, measured back: numbers, widths, thicknesses and depths equal the label."""

import numpy as np
import pytest

from lusbio.simulation import artifacts
from lusbio.simulation.anatomy import Spot
from lusbio.simulation.appearance import example_scene
from lusbio.simulation.patients import choices_of, sized_choice
from lusbio.simulation.placement import build_scene
from lusbio.simulation.population import simulate_recordings

FINE_MM = 0.05
REGIONS = [f"{region}_{state}" for region in ("pleural_line", "sub_pleural") for state in ("healthy", "unhealthy")]


def fine_view(scene, seconds=0.4):
    """A view on a grid much finer than any image's."""
    half, depth = scene.width_mm / 2, scene.device.depth_mm
    x = np.arange(-half, half, FINE_MM, dtype=np.float32)[None]
    z = np.arange(0, depth, FINE_MM, dtype=np.float32)[:, None]
    return artifacts.view_scene(scene, x, z, seconds)


def runs(row):
    """Lengths of the runs of True in a row, in millimetres, and their number."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(int)))
    return (edges[1::2] - edges[::2]) * FINE_MM


@pytest.fixture(scope="module")
def scenes():
    recordings = simulate_recordings(60, 2)[::3]
    return [build_scene(r.findings, r.patient, r.zone, r.generator(3)) for r in recordings]


def test_separate_b_lines_can_be_counted(scenes):
    for scene in scenes:
        if scene.b_lines and not scene.bands:
            view = fine_view(scene)
            bottom = artifacts.b_lines(scene, view)[0][-1]
            assert len(runs(bottom > 0.5)) == scene.findings.b_lines


def test_the_wide_b_lines_of_a_convex_probe_can_be_counted_too():
    recordings = [r for r in simulate_recordings(60, 2, "convex") if r.findings.b_lines > 1][:20]
    for r in recordings:
        scene = build_scene(r.findings, r.patient, r.zone, r.generator(3))._replace(bands=())
        bottom = artifacts.b_lines(scene, fine_view(scene))[0][-1]
        assert len(runs(bottom > 0.5)) == scene.findings.b_lines


def test_b_lines_reach_from_their_origin_to_the_bottom_without_fading():
    for name, origin in (("b_line_origin_pleura", 0.0), ("b_line_origin_sub_pleura", 6.0)):
        scene = example_scene(name)
        view = fine_view(scene)
        column = artifacts.b_lines(scene, view)[0][:, np.argmax(artifacts.b_lines(scene, view)[0][-1])]
        start = np.argmax(column > 0.5) * FINE_MM - float(view.lung.mean())
        assert start == pytest.approx(origin + 0.5 * scene.findings.thickness_mm, abs=0.4)
        assert column[-1] == column.max()


def test_merged_b_lines_are_as_wide_as_labelled_and_white_lung_fills_the_field():
    scene = example_scene("b_lines_many")
    widths = runs(artifacts.b_lines(scene, fine_view(scene))[0][-1] > 0.5)
    assert max(widths) == pytest.approx(scene.findings.coalescent_mm[0], abs=0.2)
    scene = example_scene("b_lines_white")
    coverage, level = artifacts.b_lines(scene, fine_view(scene))
    assert (coverage[-1] == 1).all()
    assert (level == 0).all()


def test_the_pleural_line_is_as_thick_as_labelled(scenes):
    for scene in scenes:
        view = fine_view(scene)
        clear = np.abs(artifacts.breaks(scene, view)[0]) < 0.01
        thickness = (artifacts.pleural_line(scene, view)[:, clear] > 0.5).sum(axis=0) * FINE_MM
        assert np.median(thickness) == pytest.approx(scene.findings.thickness_mm, abs=0.1)
        measured = scene.findings._replace(thickness_mm=float(np.median(thickness)))
        options = [choices_of(findings, 50)["pleural thickness"] for findings in (measured, scene.findings)]
        assert options[0] == options[1]


def test_the_pleural_line_lies_at_the_labelled_depth(scenes):
    for scene in scenes:
        view = fine_view(scene)
        middle = view.pleura[0, view.pleura.shape[1] // 2] - scene.motion.drift(view.seconds)
        assert middle == pytest.approx(scene.findings.pleura_mm, abs=0.05)


def test_breaks_are_as_many_and_as_wide_as_labelled(scenes):
    for scene in [*scenes, example_scene("pleural_break_multiple")]:
        widths = runs(artifacts.breaks(scene, fine_view(scene))[0] > 0.5)
        assert sorted(widths) == pytest.approx(sorted(scene.findings.breaks_mm), abs=0.15)
        assert sized_choice(tuple(widths)) == sized_choice(scene.findings.breaks_mm)


def test_a_break_leaves_no_echo_of_the_line():
    scene = example_scene("pleural_break_medium")
    view = fine_view(scene)
    gap = artifacts.breaks(scene, view)[0] > 0.99
    assert artifacts.pleural_line(scene, view)[:, gap].max() < 0.02


def test_indents_are_as_many_and_as_wide_as_labelled(scenes):
    for scene in [*scenes, example_scene("pleural_indent_multiple")]:
        widths = runs(artifacts.indents(scene, fine_view(scene))[0] > 0.5)
        assert sorted(widths) == pytest.approx(sorted(scene.findings.indents_mm), abs=0.15)
        for spot in scene.indents:
            assert 0.5 <= spot.height_mm <= 2.5


def test_consolidations_are_as_many_and_as_wide_as_labelled(scenes):
    for scene in [*scenes, example_scene("consolidation_multiple"), example_scene("consolidation_large")]:
        view = fine_view(scene)
        inside = artifacts.consolidations(scene, view)[0]
        widths = runs((inside > 0.5).any(axis=0))
        assert len(widths) == len(scene.findings.consolidations_mm)
        assert sorted(widths) == pytest.approx(sorted(scene.findings.consolidations_mm), abs=0.6)


def test_large_consolidations_hold_air_and_small_ones_do_not():
    for name, has_air in (("consolidation_large", True), ("consolidation_few", False)):
        scene = example_scene(name)
        assert (artifacts.consolidations(scene, fine_view(scene))[3].max() > 0.5) == has_air


def test_fluid_is_as_thick_as_labelled_and_full_width(scenes):
    for scene in [*scenes, example_scene("effusion_small"), example_scene("effusion_large")]:
        thickness = (artifacts.effusion(scene, fine_view(scene)) > 0.5).sum(axis=0) * FINE_MM
        assert np.median(thickness) == pytest.approx(scene.findings.effusion_mm, rel=0.12, abs=0.05)
        measured = scene.findings._replace(effusion_mm=float(np.median(thickness)))
        assert choices_of(measured, 50)["effusion"] == choices_of(scene.findings, 50)["effusion"]


def test_a_lines_repeat_the_pleura_at_multiples_of_its_depth():
    scene = example_scene("a_lines_stacked")
    view = fine_view(scene)
    maps = artifacts.a_lines(scene, view)
    assert len(maps) == scene.findings.a_line_copies == 2
    middle = int(np.argmax(maps[0].max(axis=0)))
    line = artifacts.pleural_line(scene, view)[:, middle].argmax()
    for copy, coverage in enumerate(maps, start=1):
        top = float(view.pleura[0, middle]) * copy
        assert (coverage[:, middle].argmax() - line) * FINE_MM == pytest.approx(top, abs=0.4)


def test_wide_a_lines_are_wider_than_2_cm_and_others_are_not(scenes):
    for scene in [*scenes, example_scene("a_lines_wide"), example_scene("a_lines_bold")]:
        for coverage in artifacts.a_lines(scene, fine_view(scene)):
            width = (coverage.max(axis=0) > 0.5).sum() * FINE_MM
            assert (width > 20) == (scene.findings.a_line_width_mm > 20)
            assert width == pytest.approx(scene.findings.a_line_width_mm, abs=0.3)


def test_comet_tails_fade_before_the_bottom():
    scene = example_scene("b_lines_none")._replace(comets=(Spot(0.0, 0.6, 8.0),))
    view = fine_view(scene)
    tails = artifacts.comet_tails(scene, view)
    assert tails.max() > 0.5
    assert tails[view.z[:, 0] > view.lung.max() + 15].max() == 0
    assert artifacts.b_lines(scene, view)[0].max() == 0


def test_absent_findings_leave_empty_maps():
    scene = example_scene("effusion_none")
    view = fine_view(scene)
    assert artifacts.a_lines(scene, view) == []
    for coverage in (
        artifacts.b_lines(scene, view)[0],
        artifacts.effusion(scene, view),
        artifacts.consolidations(scene, view)[0],
        artifacts.breaks(scene, view),
        artifacts.indents(scene, view),
    ):
        assert coverage.max() == 0


def test_masks_show_exactly_the_findings_a_scene_has():
    present = {
        "a_lines_bold": "a_line",
        "b_lines_some": "b_line",
        "consolidation_large": "consolidation",
        "effusion_large": "effusion",
        "pleural_thickness_4_5mm": "pleural_line_unhealthy",
    }
    for biomarker, name in present.items():
        masks = artifacts.render_masks(example_scene(biomarker), 96, 1)
        assert list(masks) == ["a_line", "b_line", *REGIONS, "consolidation", "effusion"]
        assert masks[name].any(), biomarker
        others = {"a_line", "b_line", "consolidation", "effusion"} - {name}
        assert not any(masks[other].any() for other in others), biomarker


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_healthy_and_unhealthy_masks_do_not_overlap(probe):
    masks = artifacts.render_masks(example_scene("pleural_indent_large", probe=probe), 224, 0)
    for region in ("pleural_line", "sub_pleural"):
        assert masks[f"{region}_healthy"].any()
        assert masks[f"{region}_unhealthy"].any()
        both = masks[f"{region}_healthy"] & masks[f"{region}_unhealthy"]
        assert both.sum() <= 0.05 * masks[f"{region}_unhealthy"].sum()
