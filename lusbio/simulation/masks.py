"""Where each finding is in a frame: exact masks, at the resolution of the image."""

import numpy as np

from lusbio.simulation import artifacts
from lusbio.simulation.anatomy import Scene
from lusbio.simulation.scan_grid import ScanConverter, make_grid

MASKS = (
    "a_line",
    "b_line",
    "pleural_line_healthy",
    "pleural_line_unhealthy",
    "sub_pleural_healthy",
    "sub_pleural_unhealthy",
    "consolidation",
    "effusion",
)
SUB_PLEURAL_MM = 8.0
"""Depth of the region below the pleural line that counts as sub-pleural (engineering choice)."""


def render_masks(scene: Scene, size: int, frame: int) -> dict[str, np.ndarray]:
    """Masks of one frame of the video that ``scanner.render_video`` draws.

    The pleural line is unhealthy where it is thick (2 mm or more), indented, broken, or above a consolidation; the
    region below it is unhealthy where the line is, or where a B-line starts.

    Args:
        scene: The scene.
        size: Height and width in pixels.
        frame: Which frame.

    Returns:
        bool (size, size) by name, all of ``MASKS``.
    """
    grid = make_grid(scene, size)
    convert = ScanConverter(scene, grid, size)
    view = artifacts.view_scene(scene, grid.x, grid.z, frame / scene.device.fps)
    shape = (len(grid.z), grid.x.shape[1])
    beams, _ = artifacts.b_lines(scene, view)
    inside = artifacts.consolidations(scene, view)[0]
    line = artifacts.pleural_line(scene, view)
    thickness = scene.findings.thickness_mm
    under = view.z - view.lung - np.float32(thickness)
    region = ((under > 0) & (under < SUB_PLEURAL_MM)).astype(np.float32)
    sick_line = np.maximum.reduce(
        [
            artifacts.breaks(scene, view),
            artifacts.indents(scene, view),
            inside.max(axis=0, keepdims=True),
            np.full_like(view.x, float(thickness >= 2)),
        ]
    )
    sick_region = np.maximum(sick_line, beams.max(axis=0, keepdims=True))
    a_lines = [a * (1 - beams) for a in artifacts.a_lines(scene, view)]
    maps = {
        "a_line": np.maximum.reduce([np.zeros(shape, np.float32), *a_lines]),
        "b_line": beams,
        "pleural_line_healthy": line * (sick_line < 0.5),
        "pleural_line_unhealthy": line * (sick_line >= 0.5),
        "sub_pleural_healthy": region * (sick_region < 0.5),
        "sub_pleural_unhealthy": region * (sick_region >= 0.5),
        "consolidation": inside,
        "effusion": artifacts.effusion(scene, view),
    }
    shadow = artifacts.ribs(scene, view)[1] if scene.ribs else np.zeros(shape, np.float32)
    return {name: convert(np.float32(255) * maps[name] * (shadow < 0.5)) > 127 for name in MASKS}
