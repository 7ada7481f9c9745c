import numpy as np

from lusbio.simulation.appearance import example_scene, take_apart
from lusbio.simulation.scanner import render_video


def test_steps_show_what_the_scene_has_and_nothing_else():
    assert "b line" in take_apart(example_scene("b_lines_some"), 64)
    assert "effusion" in take_apart(example_scene("effusion_large"), 64)
    names = set(take_apart(example_scene("a_lines_bold"), 64))
    assert {"pleural line healthy", "a line"} <= names and not names & {"b line", "effusion", "consolidation"}


def test_the_last_step_is_the_frame():
    scene = example_scene("consolidation_medium")
    steps = take_apart(scene, 64)
    np.testing.assert_array_equal(steps["the frame"], render_video(scene, 64, 1)[0])
    assert list(steps)[-3:] == ["echo, no speckle", "with speckle", "the frame"]
