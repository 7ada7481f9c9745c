"""One moment of a scene taken apart: what is drawn where, and what the scanner makes of it."""

import numpy as np

from lusbio.simulation import artifacts
from lusbio.simulation.anatomy import Scene
from lusbio.simulation.grid import ScanConverter, make_grid
from lusbio.simulation.masks import render_masks
from lusbio.simulation.scanner import compress, echo_db, make_textures, render_video


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
