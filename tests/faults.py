"""Mutated files through decode, check, score and import, in numbers: ``python tests/faults.py`` writes docs/faults.md.

Each batch runs in a process of its own, so that a crash costs one batch. A file ends in *numbers* (frames, rows,
scores), in a *sentence* (an error that says what is wrong), or in what must not be: a traceback.
"""

import contextlib
import io
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd
from helpers import CODECS, TINY, hospital_frames, make_small_cohort, moving_bar, silent, write_container, write_dicom
from PIL import Image

from lusbio.cli import main as lusbio
from lusbio.cohorts.table import write_table
from lusbio.errors import LusbioError
from lusbio.files import ROOT, to_markdown, write_text
from lusbio.videos import STILL_SUFFIXES, read_video

PER_FORMAT, TABLES, MODELS, OBJECTS = 50, 100, 100, 200


SIGNS = np.frombuffer(b'0123456789,,,"\n-.eNap_/; \0', np.uint8)
"""What stands in tables, and what should not."""


def mutate(path: Path, number: int, signs: np.ndarray | None = None) -> Path:
    """Change, insert or remove bytes anywhere in a file, or cut it off; every second file keeps its length."""
    rng, content = np.random.default_rng(number), bytearray(path.read_bytes())
    for _ in range(1 + number % 8):
        place = int(rng.integers(0, len(content) if number % 3 else max(1, len(content) // 10)))  # often at its head
        removed, added = (1, 1) if number % 2 else rng.integers(0, 9, 2)
        new = rng.bytes(int(added)) if signs is None else rng.choice(signs, int(added)).tobytes()
        content[place : place + int(removed)] = new
    path.write_bytes(content[: int(rng.integers(1, len(content)))] if number % 7 == 0 else content)
    return path


def write_video(path: Path) -> Path:
    """A good video of the type that its suffix says."""
    if path.suffix == ".dcm":
        return write_dicom(path, hospital_frames(20), compression=("none", "jpeg")[path.stem.endswith("jpeg")])
    if path.suffix == ".npy":
        np.save(path, moving_bar())
        return path
    if path.suffix in STILL_SUFFIXES:
        Image.fromarray(moving_bar(1)[0]).save(path)
        return path
    return write_container(path)


def command(*words: object) -> bool:
    """Whether a command ended in numbers (True) or in a sentence."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        return lusbio(list(map(str, words))) == 0


def batches(folder: Path) -> Iterator[tuple[str, Callable, list[tuple]]]:
    """What is tried: a name, a function that returns whether it ended in numbers, and its arguments."""
    (folder / "videos").mkdir()
    for name in [*CODECS, ".npy", ".dcm", "-jpeg.dcm", ".png", ".jpg", ".tif"]:
        original = write_video(folder / f"original{name}")
        files = [folder / "videos" / f"{number}{name}" for number in range(PER_FORMAT)]
        for number, file in enumerate(files):
            mutate(shutil.copy(original, file), number)
        yield f"decode, {name}", read_video, [(file, 32) for file in files]
    cohort = make_small_cohort(folder / "cohort", patients=4)
    write_table(cohort.table, cohort.folder / "cohort.csv")
    copies = [shutil.copytree(cohort.folder, folder / "tables" / str(number)) for number in range(TABLES)]
    for number, copy in enumerate(copies):
        mutate(copy / "cohort.csv", number, SIGNS)
    yield "check, tables", command, [("check", copy) for copy in copies]
    models = [shutil.copytree(folder / "model", folder / "models" / str(number)) for number in range(MODELS)]
    for number, copy in enumerate(models):
        files = sorted(path for path in copy.iterdir() if path.suffix != ".md")
        mutate(files[number % len(files)], number)
    video = cohort.video_paths()[0]
    yield "score, model folders", command, [("score", video, "--model", copy) for copy in models]
    for number in range(OBJECTS):
        kind = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR")[number % 5]
        place = folder / "objects" / str(number) / "IM"
        mutate(write_dicom(place, hospital_frames(), kind=kind, compression=("none", "rle")[number % 2]), number)
    places = [folder / "objects" / str(number) for number in range(OBJECTS)]
    yield "import, DICOM", command, [("import", place, "--out", f"{place}-out") for place in places]
    yield "score, all mutated videos at once", command, [("score", folder / "videos", "--model", folder / "model")]


def try_all(run: Callable, cases: list[tuple]) -> dict:
    """Outcomes, the slowest case in seconds, and the most memory of the process in MB."""
    counts, slowest = dict.fromkeys(("numbers", "sentence", "traceback"), 0), 0.0
    for case in cases:
        began = time.process_time()
        try:
            counts["numbers" if run(*case) is not False else "sentence"] += 1
        except LusbioError:
            counts["sentence"] += 1
        except Exception as error:  # what must not be; it is shown
            counts["traceback"] += 1
            print(case, type(error), error, file=sys.stderr)
        slowest = max(slowest, time.process_time() - began)
    return counts | {
        "slowest, s of CPU": slowest,
        "memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def train_model(folder: Path) -> None:
    """A tiny model folder."""
    from lusbio.runs.spec import prepare_cohort
    from lusbio.runs.study import as_study
    from lusbio.scoring.final_model import train_final

    study = as_study(prepare_cohort(make_small_cohort(folder / "learnt"), TINY, protocol="final"))
    train_final(study, folder / "model", silent)


def main() -> None:
    """Try everything and write the table."""
    fork, rows = multiprocessing.get_context("fork"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LUSBIO_BUILD"] = str(folder / "build")
        with ProcessPoolExecutor(1, fork) as pool:
            pool.submit(train_model, folder).result()
        for what, run, cases in batches(folder):
            with ProcessPoolExecutor(1, fork) as pool:
                try:
                    found = pool.submit(try_all, run, cases).result()
                except BrokenProcessPool:
                    found = {"traceback": len(cases)}
            rows.append({"what": what, "files": len(cases), **found})
            print(rows[-1], flush=True)
    write_page("Mutated files", __doc__, pd.DataFrame(rows).fillna(0), "faults.md")


def write_page(title: str, explained: str, table: pd.DataFrame, name: str) -> None:
    """A table into docs/, below what a module says of itself after its first line."""
    text = "\n\n".join(" ".join(part.split()) for part in explained.strip().split("\n\n")[1:])
    write_text(f"# {title}\n\n{text}\n\n{to_markdown(table)}\n", ROOT / "docs" / name)


if __name__ == "__main__":
    main()
