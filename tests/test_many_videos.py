import gc
import threading
import weakref

import numpy as np
import pytest
from test_videos import broken_files, moving_bar

from lusbio.errors import CohortError, VideoError
from lusbio.scoring.many_videos import check_files, look_at_each
from lusbio.videos import decode_video, encode_video

PATIENCE_S = 60


@pytest.fixture
def paths(tmp_path):
    """Twelve videos of 1 to 12 frames."""
    found = [tmp_path / f"v{k}.npy" for k in range(12)]
    for k, path in enumerate(found):
        np.save(path, np.zeros((k + 1, 16, 16), np.uint8))
    return found


def test_results_come_in_order_whatever_is_ready_first(paths, monkeypatch):
    last_is_seen = threading.Event()

    def look(frames):
        if len(frames) == 1:
            assert last_is_seen.wait(PATIENCE_S)
        last_is_seen.set()
        return len(frames)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert list(look_at_each(paths[:2], 16, look)) == [1, 2]


def test_the_first_result_is_there_before_the_last_video_is_decoded(paths, monkeypatch):
    first_is_there = threading.Event()

    def decode(path, size):
        if path == paths[-1]:
            assert first_is_there.wait(PATIENCE_S)
        return decode_video(path, size)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("lusbio.scoring.many_videos.decode_video", decode)
    results = look_at_each(paths, 16, len)
    assert next(results) == 1
    first_is_there.set()
    assert list(results) == list(range(2, 13))


def test_one_video_is_decoded_while_another_is_looked_at(paths, monkeypatch):
    looking, decoding = threading.Event(), threading.Event()

    def decode(path, size):
        if path == paths[1]:
            assert looking.wait(PATIENCE_S)
            decoding.set()
        return decode_video(path, size)

    def look(frames):
        if len(frames) == 1:
            looking.set()
            assert decoding.wait(PATIENCE_S)
        return len(frames)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("lusbio.scoring.many_videos.decode_video", decode)
    assert list(look_at_each(paths[:2], 16, look)) == [1, 2]


def test_frames_are_forgotten_however_many_videos_there_are(paths, monkeypatch):
    held, most = weakref.WeakSet(), []

    class Frames(np.ndarray):
        """An array that can stand in a set."""

        __hash__ = object.__hash__

    def decode(path, size):
        frames = decode_video(path, size).view(Frames)
        held.add(frames)
        most.append(len(held))
        return frames

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("lusbio.scoring.many_videos.decode_video", decode)
    assert list(look_at_each(paths * 5, 16, len)) == [*range(1, 13)] * 5
    gc.collect()
    assert max(most) <= 4 and not held


def test_broken_videos_are_handed_over_as_errors_in_their_place(paths, tmp_path):
    encode_video(moving_bar(), tmp_path / "good.mp4", 25)
    broken = list(broken_files(tmp_path, tmp_path / "good.mp4").values())
    results = list(look_at_each([*broken, paths[0], *broken], 16, len))
    assert [isinstance(result, VideoError) for result in results] == [
        *[True] * len(broken),
        False,
        *[True] * len(broken),
    ]
    assert all(str(path) in str(error) for path, error in zip(broken, results, strict=False))


def test_what_goes_wrong_while_looking_is_not_taken_for_a_broken_video(paths):
    def look(frames):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(look_at_each(paths, 16, look))


def test_missing_empty_and_foreign_files_are_named_without_decoding(paths, tmp_path, monkeypatch):
    decoded = []

    def decode(path, size):
        decoded.append(path)
        return decode_video(path, size)

    monkeypatch.setattr("lusbio.scoring.many_videos.decode_video", decode)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "notes.txt").write_text("hello")
    bad = [tmp_path / "empty.mp4", tmp_path / "notes.txt", tmp_path / "missing.mp4", tmp_path]
    with pytest.raises(CohortError) as caught:
        check_files([paths[0], *bad, paths[1]])
    assert len(caught.value.problems) == 4 and decoded == bad
    check_files(paths)
