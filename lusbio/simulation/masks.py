"""What a labeller would paint: one class for every pixel of a frame.

The classes are those of ``vocabulary.PIXEL_CLASSES``, dense: whatever is not background has a name.
"""

from functools import reduce

import numpy as np

from lusbio.simulation import artifacts
from lusbio.simulation.anatomy import ScanConverter, Scene, make_grid
from lusbio.vocabulary import PIXEL_CLASSES


def label_map(scene: Scene, size: int, frame: int) -> np.ndarray:
    """The exact dense labels of one frame of the video that ``scanner.render_video`` draws, at its resolution.

    The pleural line is unhealthy where it is thick (2 mm or more), indented, broken, or above a consolidation, as in
    ``artifacts.render_masks``. The region below it reaches the bottom of the image, and is unhealthy where the line is,
    where a B-line starts, and in consolidations and fluid. Where two lie over each other, the later class of the order
    region, A-line, B-line, pleural line is painted.

    Args:
        scene: The scene.
        size: Height and width in pixels.
        frame: Number of the frame, from 0.

    Returns:
        uint8 (size, size), positions in ``PIXEL_CLASSES``.

    Source: arXiv 2201.10166 for dense and sparse labels of A-lines, B-lines and pleural line; what exactly is painted
        is read off published figures, and an engineering choice.
    """
    grid = make_grid(scene, size)
    convert = ScanConverter(scene, grid, size)
    view = artifacts.view_scene(scene, grid.x, grid.z, frame / scene.device.fps)
    beams, inside = artifacts.b_lines(scene, view)[0], artifacts.consolidations(scene, view)[0]
    line, fluid = artifacts.pleural_line(scene, view), artifacts.effusion(scene, view)
    a_lines = reduce(np.maximum, artifacts.a_lines(scene, view), artifacts.empty_map(view)) * (1 - beams)
    sick = [artifacts.breaks(scene, view), artifacts.indents(scene, view), inside.max(axis=0, keepdims=True)]
    sick_line = (np.maximum.reduce(sick) >= 0.5) | (scene.findings.thickness_mm >= 2)
    below = view.z - view.lung > scene.findings.thickness_mm
    sick_region = np.maximum(inside, fluid)
    sick_region = np.maximum(sick_region, below & (sick_line | (beams.max(axis=0, keepdims=True) >= 0.5)))
    painted = {
        "region, healthy": below,
        "region, unhealthy": sick_region,
        "A-line": a_lines,
        "B-line": beams,
        "pleura, healthy": line * ~sick_line,
        "pleura, unhealthy": line * sick_line,
    }
    lit, labels = np.float32(255) * (artifacts.ribs(scene, view)[1] < 0.5), np.zeros((size, size), np.uint8)
    for name, part in painted.items():
        if part.any():
            labels[convert(part * lit) > 127] = PIXEL_CLASSES.index(name)
    return labels
