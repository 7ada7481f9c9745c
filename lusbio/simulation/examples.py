"""Each of the 38 biomarkers on its own, and a scene taken apart: for contact sheets and notebooks."""

import numpy as np

from lusbio.simulation import artifacts
from lusbio.simulation.anatomy import Scene
from lusbio.simulation.constants import HEALTHY
from lusbio.simulation.findings import Findings
from lusbio.simulation.masks import render_masks
from lusbio.simulation.patients import Device, Patient
from lusbio.simulation.placement import build_scene
from lusbio.simulation.scan_grid import ScanConverter, make_grid
from lusbio.simulation.scanner import compress, echo_db, make_textures, render_video
from lusbio.vocabulary import BIOMARKER_NAMES

SIZED_MM = {"none": (), "few": (3.5,), "multiple": (2.5, 3.0, 2.0, 2.8), "medium": (7.5,), "large": (13.0,)}
"""Widths that stand for the size options."""


def example_scene(biomarker: str, *, probe: str = "linear", seed: int = 0) -> Scene:
    """A scene that shows one biomarker and otherwise as little as it can.

    Args:
        biomarker: One of the vocabulary's 38 names.
        probe: ``"linear"`` or ``"convex"``.
        seed: Of everything that is random.

    Returns:
        The scene, for ``scanner.render_video``.

    Raises:
        KeyError: If there is no such biomarker.

    Example:
        >>> example_scene("b_lines_few").findings.b_lines
        2
    """
    device = example_device(probe)
    patient = Patient(
        index=1,
        disease=HEALTHY,
        traits=frozenset(),
        a_profile_only=True,
        aeration_loss=0.0,
        sf_value=460.0,
        wall_mm=18.0,
        breaths_hz=0.28,
        beats_hz=1.2,
        device=device,
    )
    return build_scene(example_findings(biomarker, device.depth_mm), patient, "R1", np.random.default_rng(seed))


def example_device(probe: str = "linear") -> Device:
    """A scanner with ordinary settings.

    Args:
        probe: ``"linear"`` or ``"convex"``.

    Returns:
        The device.
    """
    linear = probe == "linear"
    return Device(
        probe=probe,
        depth_mm=50.0 if linear else 100.0,
        width_mm=44.0 if linear else 60.0,
        radius_mm=0.0 if linear else 52.0,
        fps=30.0,
        frequency_mhz=9.0 if linear else 3.5,
        dynamic_range_db=62.0,
        gain_db=0.0,
        tgc_db=(0.0, 0.0, 0.0),
        persistence=0.1,
        smoothing_px=0.9,
        haze_db=-9.0 if linear else -5.0,
        fade_db=13.0 if linear else 26.0,
        noise_db=-28.0,
    )


def example_findings(biomarker: str, depth_mm: float) -> Findings:
    """Findings that amount to one biomarker.

    Args:
        biomarker: One of the vocabulary's 38 names.
        depth_mm: Depth of the image.

    Returns:
        The findings.

    Raises:
        KeyError: If there is no such biomarker.
    """
    if biomarker not in BIOMARKER_NAMES:
        raise KeyError(f"no biomarker {biomarker!r}; the vocabulary lists {len(BIOMARKER_NAMES)}")
    group, _, option = biomarker.rpartition("_")
    third = 0.31 * depth_mm if depth_mm < 80 else 18.0
    if group in ("pleural_indent", "pleural_break", "consolidation"):
        return Findings(third, **{f"{group.removeprefix('pleural_')}s_mm": SIZED_MM[option]})
    special: dict[str, dict] = {
        "a_lines_weak": {"a_lines": 1, "a_line_copies": 1, "a_line_width_mm": 16.0},
        "a_lines_bold": {"a_lines": 2, "a_line_copies": 1, "a_line_width_mm": 16.0},
        "a_lines_stacked": {"pleura_mm": 0.8 * third, "a_lines": 2, "a_line_copies": 2, "a_line_width_mm": 16.0},
        "a_lines_wide": {"a_lines": 2, "a_line_copies": 1, "a_line_width_mm": 28.0},
        "b_lines_few": {"b_lines": 2},
        "b_lines_some": {"b_lines": 5},
        "b_lines_many": {"b_lines": 2, "coalescent_mm": (9.0,)},
        "b_lines_white": {"white": True},
        "b_line_origin_pleura": {"b_lines": 3},
        "b_line_origin_sub_pleura": {"b_lines": 3, "b_origin_mm": 6.0},
        "pleural_thickness_2_3mm": {"thickness_mm": 2.5},
        "pleural_thickness_4_5mm": {"thickness_mm": 4.5},
        "pleural_thickness_over_5mm": {"thickness_mm": 6.0},
        "pleural_location_middle": {"pleura_mm": 0.48 * depth_mm},
        "pleural_location_bottom": {"pleura_mm": 0.75 * depth_mm},
        "effusion_small": {"effusion_mm": 3.2},
        "effusion_large": {"effusion_mm": 9.0},
    }
    return Findings(**{"pleura_mm": third, **special.get(biomarker, {})})


def take_apart(scene: Scene, size: int) -> dict[str, np.ndarray]:
    """The steps from a scene to a frame.

    Args:
        scene: The scene.
        size: Height and width in pixels.

    Returns:
        uint8 (size, size) by name, in order: the masks of what there is, the echo without speckle,
        with speckle, and the frame with gain, smoothing and persistence.
    """
    grid = make_grid(scene, size)
    convert = ScanConverter(scene, grid, size)
    view = artifacts.view_scene(scene, grid.x, grid.z, 0.0)
    masks = render_masks(scene, size, 0)
    steps = {name.replace("_", " "): np.uint8(255) * mask for name, mask in masks.items() if mask.any()}
    for name, speckle in (("echo, no speckle", False), ("with speckle", True)):
        textures = make_textures(scene, grid, speckle)
        db = echo_db(scene, view, grid, textures, np.random.default_rng(0))
        steps[name] = convert(compress(scene, db))
    return steps | {"the frame": render_video(scene, size, 1)[0]}
