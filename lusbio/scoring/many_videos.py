"""Many videos that are looked at once: a few at a time, decoded, shown to a network and forgotten."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lusbio.errors import CohortError, VideoError
from lusbio.videos import VIDEO_SUFFIXES, decode_video

WORKERS = 8
"""Most videos in memory at a time. With the paper's clips a network takes a few hundred megabytes for
each, so that a machine with many cores must not take one per core. (Engineering choice.)"""


def check_files(paths: Iterable[Path]) -> None:
    """Refuse files that need not be decoded to see that they are no videos.

    Args:
        paths: Video files.

    Raises:
        CohortError: With one line for every file that is missing, empty or of another type.
    """
    broken = []
    for path in paths:
        if not path.is_file() or path.suffix.lower() not in VIDEO_SUFFIXES or not path.stat().st_size:
            try:
                decode_video(path, 1)  # says which of the three it is
            except VideoError as error:
                broken.append(str(error))
    if broken:
        raise CohortError("videos", broken)


def look_at_each(
    paths: Iterable[Path], size: int, look: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray | VideoError]:
    """Decode videos and do something with the frames of each, on all cores.

    A thread decodes a video, looks at it and forgets the frames; meanwhile others look at other
    videos. Each computes with one thread of torch, so that what is found in a video depends neither
    on the videos beside it nor on the number of cores. They take turns at decoding, which is short
    beside a network and in parallel costs several times as much: ``decode_video`` holds off garbage
    collections that hold up everybody, and two at once get in each other's way.

    Args:
        paths: Video files; any number of them.
        size: Height and width of the frames, in pixels.
        look: Takes frames, uint8 (N, size, size), in a thread of its own; what it returns is kept.

    Yields:
        What ``look`` made of each video, or why it does not decode, in the order of ``paths``.
    """
    import torch

    from lusbio.network.training import one_thread

    turn = threading.Lock()

    def decode_and_look(path: Path) -> np.ndarray | VideoError:
        try:
            with turn:
                frames = decode_video(path, size)
        except VideoError as error:
            return error
        return look(frames)

    workers = min(os.cpu_count() or 1, WORKERS)
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        coming: deque[Future] = deque()
        for path in paths:
            coming.append(pool.submit(decode_and_look, path))
            if len(coming) == 2 * workers:  # as many wait as are looked at: nobody idles when one is long
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
