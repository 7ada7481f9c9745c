"""The paper in miniature while everything goes wrong: ``python tests/interruptions.py`` writes docs/interruptions.md.

On Linux, as root. Each row is `make paper PROFILE=smoke` in a build folder of its own: several tries that
are disturbed, and at the end the same command undisturbed. *Equal* counts papers that came to their end with the tables
of one that nothing disturbed, byte for byte but for columns of measured minutes. *Sentence* counts tries that ended
with a line that names the way out, and without a traceback. *Neither* counts what must not be.

*Killed* is by SIGKILL, every process, those with a session of their own too, at moments that a seed decides.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from faults import write_page

from lusbio.files import ROOT

WHAT = ("paper",)
"""What make makes, in miniature."""

KILLS, KILLS_OF_A_PAPER, SEED = 30, 10, 0

LONGEST = 0.2
"""The longest time to a kill, as a share of an undisturbed paper."""

LARGEST_FILES = (2_000, 50_000, 400_000)
"""Bytes that a file may have, one try each."""

DISKS = (0.01, 0.2, 0.7)
"""Sizes of a disk as shares of what the paper needs, one try each."""

FILES_OF_RUNS = ("weights.safetensors", "predictions.csv", "features.npy", "run.json", "timing.json")

RENAME_S = 0.05
"""How long a rename takes on a slow disk."""

SLOW = f"""
import os, time
def slow(rename):
    def renamed(*given, **named):
        time.sleep({RENAME_S})
        return rename(*given, **named)
    return renamed
os.replace, os.rename = slow(os.replace), slow(os.rename)
"""
"""A ``sitecustomize.py``, which every Python imports that finds it."""

WAYS_OUT = "LUSBIO_BUILD|ulimit -f|remove this (?:folder|file)|make room"
"""What a sentence that helps says."""


@dataclass
class Place:
    """A folder to make a paper in, and what became of it.

    Attributes:
        folder: Holds ``build``, ``figures`` and ``tmp``.
        tables: Those of an undisturbed paper, by name.
        seconds: Of the undisturbed paper.
        tries: Disturbed commands; those that were killed, and how the others and the papers ended.
    """

    folder: Path
    tables: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    tries: int = 0
    killed: int = 0
    equal: int = 0
    sentence: int = 0
    neither: int = 0

    @property
    def build(self) -> Path:
        """What LUSBIO_BUILD says."""
        return self.folder / "build"

    def start(self, largest: int | None = None, **variables: str) -> subprocess.Popen:
        """Begin to make, with files of at most so many bytes."""
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        places = {"LUSBIO_BUILD": "build", "LUSBIO_FIGURES": "figures", "TMPDIR": "tmp"}
        environment = os.environ | {name: str(self.folder / place) for name, place in places.items()} | variables
        for name in ("MAKEFLAGS", "LUSBIO_DATA"):
            environment.pop(name, None)
        command = ["make", "--no-print-directory", *WHAT, "PROFILE=smoke", f"PYTHON={sys.executable}"]
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
        heard = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        given = {"cwd": ROOT, "env": environment, "text": True, "errors": "replace", **heard}
        return subprocess.Popen(command, preexec_fn=limit if largest else None, start_new_session=True, **given)

    def kill(self) -> None:
        """End every process that was started here, whatever has become of its parents."""
        mark = f"LUSBIO_BUILD={self.build}".encode()
        while found := [process for process in Path("/proc").glob("[0-9]*") if mark in _environment_of(process)]:
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)
            time.sleep(0.02)

    def stop_after(self, seconds: float) -> bool:
        """Make for so many seconds; whether it had to be killed."""
        process = self.start()
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            process.communicate()
            self.tries, self.killed = self.tries + 1, self.killed + 1
        return process.returncode == -signal.SIGKILL

    def disturb(self, **how) -> None:
        """Make, disturbed."""
        self.tries += 1
        self.finish(**how)

    def finish(self, **how) -> None:
        """Make to the end: an equal paper, a sentence, or neither."""
        process = self.start(**how)
        said = process.communicate()[0]
        if not process.returncode:
            self.compare()
        elif helps(said):
            self.sentence += 1
            print(*re.findall(f".*(?:{WAYS_OUT}).*", said)[-1:], flush=True)
        else:
            self.neither += 1
            print(said[-6000:], file=sys.stderr)

    def compare(self) -> None:
        """Count a paper as equal or not, and show what differs."""
        found = self.read_tables()
        others = sorted(name for name in found.keys() | self.tables.keys() if found.get(name) != self.tables.get(name))
        self.equal, self.neither = self.equal + (not others), self.neither + bool(others)
        if others:
            print(f"{self.folder.name}: not as without: {', '.join(others)}", file=sys.stderr)

    def read_tables(self) -> dict[str, str]:
        """Every table, without what a clock has measured."""
        return {path.name: _without_times(path) for path in (self.folder / "figures").rglob("*.csv")}


def helps(said: str) -> bool:
    """Whether what was said names the way out, and no traceback hides it."""
    return bool(re.search(WAYS_OUT, said)) and "Traceback (most" not in said


def _environment_of(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it has ended
        return b""


def _without_times(path: Path) -> str:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    measured = [name for name in table if re.search("minutes|seconds", name)]
    return table.drop(columns=measured).to_csv(index=False) if measured else path.read_text(encoding="utf-8")


@contextmanager
def mounted(place: Place) -> Iterator[Callable[[str], None]]:
    """The build folder as a disk of its own, and what mounts it in another way, e.g. ``"ro"`` or ``"size=3m"``."""
    place.build.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place.build], check=True)
    try:
        yield lambda how: subprocess.run(["mount", "-o", f"remount,{how}", place.build], check=True)
    finally:
        place.kill()
        subprocess.run(["umount", place.build], check=True)


def take_over(place: Place, whole: Place) -> None:
    """What the undisturbed paper left, of which every notebook shall run again."""
    shutil.copytree(whole.build, place.build)
    shutil.rmtree(place.build / "smoke/synthetic/notebooks")


def frames_cut_off(place: Place, whole: Place) -> None:
    """Every second decoded video is cut off."""
    take_over(place, whole)
    for path in sorted((place.build / "cache").glob("*.npy"))[::2]:
        os.truncate(path, path.stat().st_size // 2)
    place.disturb()


def runs_cut_off(place: Place, whole: Place) -> None:
    """A file of a finished run is cut off; then it is removed, as the sentence says."""
    take_over(place, whole)
    for name in ("experts/*.csv", *FILES_OF_RUNS):
        for file in sorted((place.build / "runs").glob(f"biomarkers-fold*/{name}"))[:1]:
            os.truncate(file, file.stat().st_size * 2 // 3)
            place.disturb()
            shutil.rmtree(file.parent)
    place.finish()


def large_files_refused(place: Place, whole: Place) -> None:
    """No file may be larger than a few bytes; then it may."""
    for largest in LARGEST_FILES:
        place.disturb(largest=largest)
    place.finish()


def full_disk(place: Place, whole: Place) -> None:
    """The disk of the build folder is full; then there is room."""
    needed = sum(path.stat().st_size for path in whole.build.rglob("*"))
    with mounted(place) as mount:
        for share in DISKS:
            mount(f"size={int(share * needed)}")
            place.disturb()
        mount("size=8g")
        place.finish()


def read_only(place: Place, whole: Place) -> None:
    """The build folder may not be written, when empty and when half full; then it may."""
    with mounted(place) as mount:
        mount("ro")
        place.disturb()
        mount("rw")
        place.stop_after(place.seconds / 2)
        mount("ro")
        place.disturb()
        mount("rw")
        place.finish()


def two_at_once(place: Place, whole: Place) -> None:
    """Two at once in one build folder."""
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(place.disturb) for _ in range(2)]:
            done.result()


def clock_back(place: Place, whole: Place) -> None:
    """Killed half way, and the clock goes back by a day."""
    place.stop_after(place.seconds / 2)
    tomorrow = time.time() + 24 * 3600
    for path in place.build.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    place.finish()


def slow_renames(place: Place, whole: Place) -> None:
    """A rename takes 0.05 s, as on a disk in the network."""
    custom = place.folder / "custom"
    custom.mkdir()
    (custom / "sitecustomize.py").write_text(SLOW)
    place.disturb(PYTHONPATH=str(custom))


def killed(place: Place, whole: Place) -> None:
    """Killed, several times a paper; then left to end."""
    rng = np.random.default_rng(SEED)
    while place.killed < KILLS:
        for _ in range(min(KILLS_OF_A_PAPER, KILLS - place.killed)):
            if not place.stop_after(rng.uniform(0, LONGEST * place.seconds)):
                break
        place.finish()
        shutil.rmtree(place.folder)


CASES = (
    *(killed, two_at_once, full_disk, read_only, clock_back, slow_renames),
    *(frames_cut_off, runs_cut_off, large_files_refused),
)


def main() -> None:
    """Make a paper undisturbed, try every case, and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        whole, began = Place(Path(name) / "whole"), time.monotonic()
        process = whole.start()
        said = process.communicate()[0]
        if process.returncode:
            sys.exit(said)
        tables, seconds = whole.read_tables(), time.monotonic() - began
        print(f"undisturbed: {len(tables)} tables, {seconds:.0f} s", flush=True)
        for case in CASES:
            place, began = Place(Path(name) / case.__name__, tables, seconds), time.monotonic()
            place.folder.mkdir()
            what = case.__doc__[:-1]
            try:
                case(place, whole)
            except subprocess.CalledProcessError as error:
                what += f" (not tried: no {error.cmd[0]} here)"
            finally:
                place.kill()
            counts = {count: getattr(place, count) for count in ("tries", "killed", "equal", "sentence", "neither")}
            rows.append({"what": what, **counts, "seconds": round(time.monotonic() - began)})
            print(rows[-1], flush=True)
            write_page("Interrupted papers", __doc__, pd.DataFrame(rows), "interruptions.md")


if __name__ == "__main__":
    main()
