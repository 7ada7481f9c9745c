"""Seconds that a rater waits: for the first frame, the next video, a step, an acknowledgement, a long list."""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from _measure import Finding, report

from lusbio.labelling.annotator import Annotator
from lusbio.labelling.ratings import RatingLog
from lusbio.labelling.sheet import GROUPS, encode_answers
from lusbio.videos import encode_video

VIDEOS, FRAMES, SIDE, MANY = 6, 100, 640, 10_000
UNSURE = dict.fromkeys(GROUPS)


def make_folder(folder: Path, videos: int) -> Path:
    """Videos of noise that moves, as large as the annotator shows them; where there are many, rows share files."""
    rng, files = np.random.default_rng(0), min(videos, VIDEOS)
    for k in range(files):
        speckle = rng.integers(0, 160, (SIDE // 4, SIDE // 4), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        frames = np.stack([np.roll(speckle, shift, axis=0) for shift in range(FRAMES)])
        encode_video(frames, folder / f"v{k}.mp4", 25)
    rows = [{"video_id": f"v{k}", "patient_id": f"p{k // 2}", "path": f"v{k % files}.mp4"} for k in range(videos)]
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder


def time_python(folder: Path) -> dict[str, list[float]]:
    """Seconds within the kernel: from the call to the first frame, to the next video, to an acknowledgement."""
    heard: list[tuple[str, float]] = []
    start = time.perf_counter()
    annotator = Annotator(folder, "python", new_rater=True, repeats=0.0)
    annotator.send = lambda content, buffers=None: heard.append((content["say"], time.perf_counter()))

    def tell(do: str, **message) -> None:
        annotator._hear(None, {"do": do, "request": 1, "comment": "", "seconds": 0, "usable": True} | message, [])

    def seconds_to(what: str, since: float) -> float:
        return next(moment for say, moment in heard if say == what and moment > since) - since

    tell("open")
    found = {"first frame": [seconds_to("frames", start)], "next video": [], "acknowledgement": []}
    for number in range(1, VIDEOS):
        time.sleep(2)  # somebody looks, and the next one is read meanwhile
        since = time.perf_counter()
        tell("tick", number=number, answers={})
        found["acknowledgement"].append(seconds_to("kept", since))
        since = time.perf_counter()
        tell("save", number=number, answers=UNSURE)
        found["acknowledgement"].append(seconds_to("saved", since))
        found["next video"].append(seconds_to("frames", since))
    return found


def time_page(folder: Path) -> dict[str, list[float]]:
    """Seconds in a browser: from ``lusbio label`` to the first frame, and from a key to the frame it asks for."""
    import shutil
    import subprocess
    import sys

    from playwright.sync_api import Error, sync_playwright

    shown = "document.querySelector('.lusbio-annotator .counter')?.textContent.startsWith('frame')"
    step = """async () => {
      const root = document.querySelector('.lusbio-annotator'), counter = root.querySelector('.counter'), took = [];
      root.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
      await new Promise((done) => setTimeout(done, 3000));
      for (let k = 0; k < 60; k++) {
        const before = counter.textContent, since = performance.now();
        root.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
        while (counter.textContent === before) await new Promise(requestAnimationFrame);
        took.push((performance.now() - since) / 1000);
      }
      return took; }"""
    start = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "lusbio.cli",
        "label",
        str(folder),
        "--rater",
        "page",
        "--new-rater",
        "--no-browser",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = server.stdout.readline().strip()
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu"]
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            page = browser.new_page()
            while True:
                try:
                    page.goto(address)
                    break
                except Error:  # it does not listen yet
                    time.sleep(0.05)
            page.wait_for_function(shown, timeout=120_000)
            found = {"page": [time.perf_counter() - start], "step": page.evaluate(step)}
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return found


def time_many(folder: Path) -> float:
    """Seconds to open a long list of videos of which all are rated."""
    rating = {"sha256": None, "repeat": 0, "usable": True, **encode_answers(UNSURE), "seconds": 1.0, "comment": ""}
    log = RatingLog(folder / "ratings", "many", new_rater=True, repeats=0.0)
    log.append(*({"position": k + 1, "video_id": f"v{k}"} | rating for k in range(MANY)))
    start = time.perf_counter()
    Annotator(folder, "many")
    return time.perf_counter() - start


def main() -> None:
    """Time all of it, once each or by the median, and report."""
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        folder = make_folder(Path(small), VIDEOS)
        found = time_python(folder) | time_page(folder)
        many = time_many(make_folder(Path(large), MANY))
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    goals = {"first frame": 1.5, "page": 8, "next video": 0.2, "step": 0.016, "acknowledgement": 0.1}
    words = {"first frame": "cell to first frame, in Python", "page": "lusbio label to first frame, in chromium"}
    lines = [Finding(words.get(name, name), middle[name], "s", goals[name], at_least=False) for name in goals]
    lines.append(Finding(f"open {MANY:,} videos with as many ratings", many, "s", 2, at_least=False))
    report("annotator", lines, seconds=found)


if __name__ == "__main__":
    main()
