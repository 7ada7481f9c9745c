"""Milliseconds per simulated frame, by size and probe, beside the time it takes to encode it."""

import tempfile
import time
from pathlib import Path

from lusbio.simulation.placement import build_scene
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.scanner import render_video
from lusbio.videos import encode_video

VIDEOS, FRAMES = 6, 30


def main() -> None:
    """Render and encode a few videos of each kind, single-threaded, and print a table."""
    print("probe    pixels  render ms/frame  encode ms/frame")
    for probe in ("linear", "convex"):
        recordings = simulate_recordings(12, seed=1, probe=probe)[:VIDEOS]
        for size in (64, 96, 224):
            rendering = encoding = 0.0
            for recording in recordings:
                scene = build_scene(recording.findings, recording.patient, recording.zone, recording.generator(3))
                start = time.perf_counter()
                video = render_video(scene, size, FRAMES)
                rendering += time.perf_counter() - start
                start = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    encode_video(video, Path(folder) / "video.mp4", recording.patient.device.fps)
                encoding += time.perf_counter() - start
            count = VIDEOS * FRAMES / 1000
            print(f"{probe:<8} {size:>6}  {rendering / count:>15.1f}  {encoding / count:>15.1f}")


if __name__ == "__main__":
    main()
