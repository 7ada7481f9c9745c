"""Each of the 38 biomarkers on its own, and a scene taken apart: for contact sheets and notebooks."""

import numpy as np

from lusbio.simulation.anatomy import ScanConverter, Scene, make_grid
from lusbio.simulation.artifacts import render_masks, view_scene
from lusbio.simulation.constants import HEALTHY
from lusbio.simulation.patients import Device, Findings, Patient
from lusbio.simulation.placement import build_scene
from lusbio.simulation.scanner import compress, echo_db, make_textures, render_video
from lusbio.vocabulary import BIOMARKER_NAMES

DEVICES = {
    "linear": Device("linear", 50.0, width_mm=44.0, radius_mm=0.0, frequency_mhz=9.0, haze_db=-9.0, fade_db=13.0),
    "convex": Device("convex", 100.0, width_mm=60.0, radius_mm=52.0, frequency_mhz=3.5, haze_db=-5.0, fade_db=26.0),
}
"""A scanner of either kind with ordinary settings."""
SIZED_MM = {"none": (), "few": (3.5,), "multiple": (2.5, 3.0, 2.0, 2.8), "medium": (7.5,), "large": (13.0,)}
"""Widths that stand for the size options."""
SHOWN: dict[str, dict] = {
    "a_lines_weak": {"a_lines": 1, "a_line_copies": 1, "a_line_width_mm": 16.0},
    "a_lines_bold": {"a_lines": 2, "a_line_copies": 1, "a_line_width_mm": 16.0},
    "a_lines_stacked": {"a_lines": 2, "a_line_copies": 2, "a_line_width_mm": 16.0},
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
    "effusion_small": {"effusion_mm": 3.2},
    "effusion_large": {"effusion_mm": 9.0},
}
"""Findings that amount to one biomarker, where a healthy lung or widths alone do not."""


def example_scene(biomarker: str, *, probe: str = "linear", seed: int = 0) -> Scene:
    """A scene that shows one of the vocabulary's 38 biomarkers and otherwise as little as it can.

    Raises:
        KeyError: If there is no such biomarker.

    Example:
        >>> example_scene("b_lines_few").findings.b_lines
        2
    """
    if biomarker not in BIOMARKER_NAMES:
        raise KeyError(f"no biomarker {biomarker!r}; the vocabulary lists {len(BIOMARKER_NAMES)}")
    device = DEVICES[probe]
    group, _, option = biomarker.rpartition("_")
    top = 0.31 if probe == "linear" else 0.18
    share = {"pleural_location_middle": 0.48, "pleural_location_bottom": 0.75}.get(biomarker, top)
    pleura = share * device.depth_mm * (0.8 if biomarker == "a_lines_stacked" else 1.0)
    shown = SHOWN.get(biomarker, {})
    if group in ("pleural_indent", "pleural_break", "consolidation"):
        shown = {f"{group.removeprefix('pleural_')}s_mm": SIZED_MM[option]}
    patient = Patient(1, HEALTHY, frozenset(), True, 0.0, 460.0, 18.0, breaths_hz=0.28, beats_hz=1.2, device=device)
    return build_scene(Findings(pleura, **shown), patient, "R1", np.random.default_rng(seed))


def take_apart(scene: Scene, size: int) -> dict[str, np.ndarray]:
    """The steps from a scene to a frame.

    Returns:
        uint8 (size, size) by name, in order: the masks of what there is, the echo without speckle,
        with speckle, and the frame with gain, smoothing and persistence.
    """
    grid = make_grid(scene, size)
    convert, view = ScanConverter(scene, grid, size), view_scene(scene, grid.x, grid.z, 0.0)
    masks = render_masks(scene, size, 0)
    steps = {name.replace("_", " "): np.uint8(255) * mask for name, mask in masks.items() if mask.any()}
    for name, speckle in (("echo, no speckle", False), ("with speckle", True)):
        db = echo_db(scene, view, grid, make_textures(scene, grid, speckle), np.random.default_rng(0))
        steps[name] = convert(compress(scene, db))
    return steps | {"the frame": render_video(scene, size, 1)[0]}
