"""The default cohort: simulated patients, whose truth is known. One more source of videos, not a special case."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from lusbio.cohorts.table import Cohort, read_table, write_table
from lusbio.errors import CohortError, LusbioError, refuse
from lusbio.files import code_fingerprint, text_sha256, write_csv, write_json
from lusbio.simulation import constants
from lusbio.simulation.anatomy import Scene
from lusbio.simulation.patients import Recording
from lusbio.simulation.placement import build_scene
from lusbio.simulation.population import simulate_recordings
from lusbio.simulation.raters import trainee_table, truth_table
from lusbio.simulation.scanner import render_video
from lusbio.videos import can_encode, write_frames
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

TABLES = ("cohort.csv", "truth.csv")

_MODULES = ("constants", "patients", "population", "raters", "anatomy", "artifacts", "placement", "scanner")
_CODE = tuple(f"simulation/{name}.py" for name in _MODULES)
"""What decides labels and pixels, with the tables of ``simulation.constants``: a change there makes cohorts anew."""


def simulate_cohort(
    folder: Path, patients: int, size: int, frames: Sequence[int], seed: int = 0, probe: str = "linear", jobs: int = 1
) -> Cohort:
    """Make a synthetic cohort, or read it where it is complete already.

    Every video depends on nothing but the parameters and its own number, so any number of workers, in any order, give
    the same bytes. A killed call is taken up where it stopped; other parameters or another version of the simulator
    make the cohort anew. On a machine without av the videos are arrays instead of mp4 files; such a cohort stays as it
    is when its folder is copied to a machine with av, so that the runs that came with it can be read there.

    Args:
        folder: Where ``cohort.csv``, ``truth.csv``, ``simulation.json`` and ``videos/`` go.
        patients: How many; 189 have 718 videos.
        size: Height and width of the videos in pixels, even.
        frames: Fewest and most frames of a video.
        seed: Decides everything; 0 or more.
        probe: ``"linear"`` or ``"convex"``.
        jobs: Worker processes.

    Returns:
        The cohort, labelled by the simulated trainee, with its truth.

    Raises:
        LusbioError: If a parameter is out of range.
        CohortError: If the folder holds videos that the simulator did not make.
    """
    if size < 16 or size % 2:
        raise LusbioError(f"size is {size}, expected an even number of at least 16 pixels")
    if not 1 <= frames[0] <= frames[1]:
        raise LusbioError(f"frames is {frames}, expected fewest and most, at least 1")
    folder = Path(folder)
    recordings = simulate_recordings(patients, seed, probe)
    asked = {"patients": patients, "seed": seed, "probe": probe, "size": size, "frames": list(frames)}
    parameters = {"code": code_fingerprint(*_CODE), "tables": text_sha256(constants.TABLES)[:12], **asked}
    arrays = _read_parameters(folder) == parameters | {"suffix": ".npy"}
    suffix = ".mp4" if can_encode() and not arrays else ".npy"
    _prepare_folder(folder, parameters | {"suffix": suffix})
    paths = {r.video_id: folder / "videos" / f"{r.video_id}{suffix}" for r in recordings}
    missing = [r for r in recordings if not paths[r.video_id].is_file()]
    if missing or not all((folder / name).is_file() for name in TABLES):
        _render_all(missing, paths, size, frames, jobs)
        write_csv(truth_table(recordings), folder / "truth.csv")
        write_table(trainee_table(recordings, suffix), folder / "cohort.csv")
    return read_synthetic(folder)


def _prepare_folder(folder: Path, parameters: dict) -> None:
    """Keep what was made with the same parameters; clear what was made with others."""
    before = _read_parameters(folder)
    if before == parameters:
        return
    old = [path for suffix in (".mp4", ".npy") for path in (folder / "videos").glob(f"*{suffix}")]
    tables = [name for name in TABLES if (folder / name).exists()]
    if (old or tables) and before is None:
        held = ", ".join([*tables, f"{len(old)} videos"] if old else tables)
        raise CohortError(folder, [f"holds {held} but no simulation.json: not made by the simulator, not overwritten"])
    for path in [*(folder / name for name in tables), *old]:
        path.unlink()
    write_json(parameters, folder / "simulation.json")


def _read_parameters(folder: Path) -> dict | None:
    """What the cohort of a folder was made with, if it says."""
    notes = folder / "simulation.json"
    return json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else None


def _render_all(recordings: list[Recording], paths: dict, size: int, frames: Sequence[int], jobs: int) -> None:
    from joblib import Parallel, delayed, parallel_config

    tasks = (delayed(render_recording)(r, paths[r.video_id], size, frames) for r in recordings)
    with parallel_config("loky", inner_max_num_threads=1):
        done = Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
        _wait_for(done, len(recordings))


def render_recording(recording: Recording, path: Path, size: int, frames: Sequence[int]) -> None:
    """Draw one video and write it.

    Args:
        recording: The video to draw.
        path: The file to write (mp4 or npy); it appears only when complete.
        size: Height and width in pixels.
        frames: Fewest and most frames; how many it gets is drawn from the video's own seed.
    """
    scene = scene_of(recording)
    count = int(recording.generator(4).integers(frames[0], frames[1] + 1))
    write_frames(render_video(scene, size, count), path, recording.patient.device.fps)


def scene_of(recording: Recording) -> Scene:
    """The scene that the video of a recording shows."""
    return build_scene(recording.findings, recording.patient, recording.zone, recording.generator(3))


def _wait_for(results: Iterator, total: int) -> None:
    """Until all are there: with a bar where a person watches, elsewhere with a line for every tenth."""
    from tqdm import tqdm

    watched = sys.stderr.isatty()
    bar = tqdm(results, "simulating", total, unit="video", leave=False, disable=not watched)
    for done, _ in enumerate(bar, start=1):
        if not watched and done * 10 // total > (done - 1) * 10 // total:
            print(f"simulating: {done} of {total} videos", file=sys.stderr, flush=True)


def read_synthetic(folder: Path) -> Cohort:
    """Read a cohort that ``simulate_cohort`` made.

    Returns:
        The cohort, named ``"synthetic"`` (linear probe) or ``"synthetic_convex"``, with its truth.

    Raises:
        CohortError: If it is incomplete; names what is missing.
    """
    folder = Path(folder)
    missing = [name for name in ("simulation.json", *TABLES) if not (folder / name).is_file()]
    refuse(folder, [f"no {name}; `lusbio simulate` makes or completes the cohort" for name in missing])
    parameters = _read_parameters(folder)
    table = read_table(folder / "cohort.csv")
    lost = [path for path in table["path"] if not (folder / path).is_file()]
    refuse(folder, [f"{path} is missing; `lusbio simulate` completes the cohort" for path in lost])
    types = dict.fromkeys(["video_id", *TASKS], str) | dict.fromkeys(BIOMARKER_NAMES, "float64")
    truth = pd.read_csv(folder / "truth.csv", dtype=types)
    name = "synthetic" if parameters["probe"] == "linear" else "synthetic_convex"
    return Cohort(name, table, folder, simulated=True, truth=truth, notes=(f"simulated, seed {parameters['seed']}",))
