"""Label maps: exact where patients are simulated, checked where people painted them."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY, small_study

from lusbio.cohorts.label_maps import read_label_maps, spread_frames
from lusbio.cohorts.load import load_cohort
from lusbio.cohorts.synthetic import scene_of
from lusbio.errors import CohortError
from lusbio.runs.pixel_training import as_labels
from lusbio.runs.spec import prepare_cohort
from lusbio.simulation.artifacts import render_masks
from lusbio.simulation.masks import label_map
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.scanner import render_video
from lusbio.vocabulary import PIXEL_CLASSES

SIZE = 64
A, B, HEALTHY_LINE, SICK_LINE, HEALTHY, SICK = range(1, 7)


@pytest.fixture(scope="module", params=["linear", "convex"])
def scenes(request):
    return [scene_of(recording) for recording in simulate_recordings(12, 0, request.param)]


def test_maps_are_of_the_size_and_hold_known_classes(scenes):
    maps = np.stack([label_map(scene, SIZE, 0) for scene in scenes])
    assert maps.shape[1:] == (SIZE, SIZE) and maps.dtype == np.uint8
    assert np.unique(maps).tolist() == list(range(len(PIXEL_CLASSES)))


def test_structures_are_where_the_eight_masks_have_them(scenes):
    pairs = {"a_line": A, "b_line": B, "pleural_line_healthy": HEALTHY_LINE, "pleural_line_unhealthy": SICK_LINE}
    for scene in scenes[:12]:
        masks, labels = render_masks(scene, SIZE, 3), label_map(scene, SIZE, 3)
        for name, number in pairs.items():
            assert (masks[name] | (labels != number)).all(), name
        over = np.isin(labels, (HEALTHY_LINE, SICK_LINE))
        assert (np.isin(labels, (A, B)) | over | ~(masks["a_line"] | masks["b_line"])).all()


def test_the_region_is_unhealthy_at_every_consolidation_and_under_b_lines(scenes):
    sick = [scene for scene in scenes if scene.consolidations]
    assert sick
    for scene in sick:
        inside = render_masks(scene, SIZE, 0)["consolidation"]
        assert np.isin(label_map(scene, SIZE, 0)[inside], (SICK, A, B, HEALTHY_LINE, SICK_LINE)).all()
    plain = next(scene for scene in scenes if not scene.findings.b_lines and not scene.findings.white)
    assert not (label_map(plain._replace(b_lines=(), bands=()), SIZE, 0) == B).any()


def test_the_map_follows_a_scene_that_is_shifted():
    scene = next(s for s in map(scene_of, simulate_recordings(12, 0, "linear")) if s.b_lines and not s.findings.white)
    one = scene._replace(bands=(), consolidations=(), ribs=(), b_lines=(scene.b_lines[0]._replace(x_mm=-2.0),))
    shifted = one._replace(b_lines=(one.b_lines[0]._replace(x_mm=3.0),))
    columns = [np.flatnonzero((label_map(each, 224, 0) == B).any(0)) for each in (one, shifted)]
    shift = (columns[1].mean() - columns[0].mean()) * scene.device.depth_mm / 224
    assert shift == pytest.approx(5.0, abs=0.5)


def test_map_k_is_of_frame_k():
    """The bright pleural line of each frame lies where the map has it, while the scene moves."""
    scene = next(s for s in map(scene_of, simulate_recordings(12, 0, "linear")) if s.findings.thickness_mm >= 2)
    video = render_video(scene, 96, 6)
    for frame in (0, 5):
        line = label_map(scene, 96, frame) == SICK_LINE
        assert video[frame][line].mean() > video[frame].mean() + 40


def test_sparse_maps_are_dense_ones_with_other_names():
    dense = np.arange(7, dtype=np.uint8).reshape(1, 7)
    assert as_labels(dense, "sparse").tolist() == [[0, 1, 2, 3, 3, 0, 0]]
    assert as_labels(dense, "dense") is dense


def test_frames_are_spread_and_those_of_a_short_video_repeat():
    class Video:
        def __init__(self, n_frames):
            self.n_frames = n_frames

    assert spread_frames([Video(12), Video(2)], 4).tolist() == [[0, 3, 6, 9], [0, 0, 1, 1]]


def test_a_simulated_cohort_has_maps_of_its_frames_whatever_the_number_of_jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBIO_BUILD", str(tmp_path / "one"))
    profile = replace(TINY, patients=10)
    prepared = prepare_cohort(load_cohort("synthetic", profile), profile)
    known = read_label_maps(prepared.cohort, prepared.videos, 2)
    assert known.maps.shape == known.frames.shape == (len(prepared.videos), 2, 32, 32)
    by_id = {recording.video_id: recording for recording in simulate_recordings(10, 0, "linear")}
    row = len(prepared.videos) // 2
    scene = scene_of(by_id[prepared.table["video_id"][row]])
    assert (known.maps[row, 1] == label_map(scene, 32, int(known.numbers[row, 1]))).all()
    assert (known.frames[row, 1] == prepared.videos[row].load()[known.numbers[row, 1]]).all()
    for path in (tmp_path / "one" / "label_maps").iterdir():
        path.unlink()
    assert (read_label_maps(prepared.cohort, prepared.videos, 2, jobs=2).maps == known.maps).all()


def paint(study, change=lambda name, maps: maps):
    for name, video in zip(study.table["video_id"], study.videos, strict=True):
        maps = change(name, np.full(video.load().shape, 6, np.uint8))
        path = study.cohort.folder / "masks" / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, maps)


def test_maps_that_people_painted_are_read(tmp_path):
    study = small_study(tmp_path, simulated=False, patients=12)
    paint(study)
    known = read_label_maps(study.cohort, study.videos, 3)
    assert known.maps.shape == (24, 3, 32, 32) and (known.maps == 6).all()


def test_a_cohort_without_maps_is_told_what_to_give(tmp_path):
    study = small_study(tmp_path, simulated=False, patients=12)
    with pytest.raises(CohortError, match=r"no label maps of 24 of 24 videos .*give `masks/<video_id>.npy`, uint8"):
        read_label_maps(study.cohort, study.videos, 3)


def test_maps_of_another_size_and_unknown_classes_are_all_named(tmp_path):
    study = small_study(tmp_path, simulated=False, patients=12)
    wrong = {"p0_v0": lambda maps: maps[:, ::2], "p1_v0": lambda maps: maps + 1, "p2_v0": lambda maps: maps / 2}
    paint(study, lambda name, maps: wrong.get(name, lambda same: same)(maps))
    with pytest.raises(CohortError) as caught:
        read_label_maps(study.cohort, study.videos, 3)
    text = str(caught.value)
    assert "masks/p0_v0.npy is uint8 (6, 16, 32), expected uint8 (6, 32, 32): one map a frame" in text
    assert "masks/p1_v0.npy holds the value 7, expected 0 to 6: background, A-line" in text
    assert "masks/p2_v0.npy is float64" in text and len(caught.value.problems) == 3
