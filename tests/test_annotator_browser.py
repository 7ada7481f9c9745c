"""The annotator in a real browser, as a page and in JupyterLab, on real videos and on numbered ones."""

import contextlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lusbio.cli import main
from lusbio.cohorts.table import read_table
from lusbio.files import ROOT
from lusbio.labelling.ratings import rating_problems, read_log, read_ratings

CHROMIUM = shutil.which("chromium")
MISSING = [
    name for name in ("playwright", "axe_playwright_python", "voila", "psutil") if not importlib.util.find_spec(name)
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
SUFFIXES = (".mp4", ".mov", ".avi", ".mpeg", ".gif")
PATIENCE_MS = 180_000
SHOWN = "document.querySelector('.lusbio-annotator .counter')?.textContent.startsWith('frame')"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


# --- videos ---


@pytest.fixture
def real(tmp_path, data_folder) -> Path:
    """20 real videos of all formats, with ids, patients and file names that tell."""
    found = sorted(path for path in data_folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    by_suffix = [[path for path in found if path.suffix.lower() == suffix] for suffix in SUFFIXES]
    chosen = [paths[k] for k in range(20) for paths in by_suffix if k < len(paths)][:20]
    folder = tmp_path / "diagnosed"
    (folder / "clips").mkdir(parents=True)
    rows = []
    for k, path in enumerate(chosen):
        shutil.copy(path, folder / "clips" / f"secretfile{k}{path.suffix}")
        row = {
            "video_id": f"secretid{k}",
            "patient_id": f"secretpatient{k // 2}",
            "path": f"clips/secretfile{k}{path.suffix}",
        }
        rows.append(row | {"depth_mm": 60.0 if k % 2 else None, "disease": "COVID pneumonia"})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder


def make_numbered(folder: Path, videos: int = 3, frames: int = 40) -> Path:
    """Stills that hold their number: eight bright or dark fields, the lowest bit on the left."""
    rows = []
    for k in range(videos):
        bits = (np.arange(frames)[:, None] >> np.arange(8)) & 1
        film = np.repeat(np.repeat((bits * 200 + 20)[:, None], 120, axis=1), 20, axis=2).astype(np.uint8)
        (folder / "videos").mkdir(parents=True, exist_ok=True)
        np.save(folder / "videos" / f"v{k}.npy", film)
        rows.append({"video_id": f"v{k}", "patient_id": f"p{k}", "path": f"videos/v{k}.npy", "fps": 20, "depth_mm": 50})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder


@pytest.fixture
def numbered(tmp_path) -> Path:
    return make_numbered(tmp_path / "numbered")


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory, browser):
    """A page that several tests look at, one after the other, and where its videos are."""
    folder = make_numbered(tmp_path_factory.mktemp("numbered"))
    with label_page(folder, "r1", "--new-rater", "--repeats", "0") as (address, _):
        page = open_page(browser, address)
        yield page, folder
        page.close()


READ_NUMBER = """() => {
  const canvas = document.querySelector('.film canvas:not(.ruler)');
  const pixels = canvas.getContext('2d').getImageData(0, 60, canvas.width, 1).data;
  let number = 0;
  for (let bit = 0; bit < 8; bit++) number += pixels[4 * (20 * bit + 10)] > 120 ? 2 ** bit : 0;
  return [number, document.querySelector('.counter').textContent];
}"""


SETTLED = """() => new Promise((done) => {
  const counter = document.querySelector('.counter');
  let text = counter.textContent, drawn = 0;
  requestAnimationFrame(function look() {
    drawn = counter.textContent === text ? drawn + 1 : 0;
    text = counter.textContent;
    drawn < 30 ? requestAnimationFrame(look) : done();
  });
})"""
"""Wait until the film shows the frame where it was stopped: what is not decoded yet is drawn when it is."""


# --- servers ---


@contextlib.contextmanager
def running(command: list[str], **environment) -> Iterator[subprocess.Popen]:
    """A server with all it started, ended afterwards."""
    import psutil

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([sys.executable, "-m", *command], env=environment, **pipes)
    try:
        yield process
    finally:
        family = (
            [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else [process]
        )
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                member.kill()
        process.wait()
        process.stdout.close()


def find_kernels(server: subprocess.Popen) -> list[int]:
    import psutil

    family = psutil.Process(server.pid).children(recursive=True)
    return [
        one.pid for one in sorted(family, key=lambda one: one.create_time()) if "ipykernel_launcher" in one.cmdline()
    ]


@contextlib.contextmanager
def label_page(folder: Path, rater: str, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """``lusbio label``: the address of its page, and its process."""
    with running(["lusbio.cli", "label", str(folder), "--rater", rater, "--no-browser", *options]) as server:
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), address + server.stdout.read()
        wait_for_port(int(address.split(":")[2].split("/")[0]))
        yield address, server


def wait_for_port(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError("the server did not start")


def open_page(browser, address: str, **viewport):
    page = browser.new_page(viewport={"width": 1280, "height": 900} | viewport)
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_function(SHOWN)
    return page


def place(page) -> str:
    return page.text_content(".lusbio-annotator .count")


def state(page) -> str:
    return page.text_content(".lusbio-annotator .state")


def wait_for_state(page, text: str) -> None:
    page.wait_for_function(
        "text => document.querySelector('.lusbio-annotator .state').textContent.includes(text)", arg=text
    )


def rate_by_keys(page, rng: np.random.Generator) -> None:
    """Fill in a whole sheet by keyboard, some of it at random, and save it."""
    before = place(page)
    page.keyboard.press(str(rng.integers(2, 4)))  # weak or bold waits for flags
    page.keyboard.press("4" if rng.random() < 0.5 else "ArrowDown")
    if page.evaluate("document.querySelectorAll('fieldset.current legend')[0].textContent") == "A-lines":
        page.keyboard.press("j")
    keys = ["1"] if rng.random() < 0.5 else ["2", "2"]  # no B-lines set the origin
    for key in [*keys, *rng.choice(["1", "2", "3", "u"], 6), str(rng.integers(0, 4)), "Enter"]:
        page.keyboard.press(str(key))
    page.wait_for_function(
        "text => document.querySelector('.lusbio-annotator .count').textContent !== text "
        "&& (document.querySelector('.lusbio-annotator.done, .lusbio-annotator.broken') || " + SHOWN + ")",
        arg=before,
    )


# --- two people label 20 real videos ---


def test_two_people_label_twenty_real_videos_at_once_while_a_kernel_is_killed(real, browser, tmp_path):
    sent, answered, rng = [], set(), np.random.default_rng(0)
    trainee = label_page(real, "r1", "--new-rater", "--role", "trainee", "--experience", "6 months")
    specialist = label_page(real, "r2", "--new-rater", "--role", "specialist", "--experience", "20 years")
    with trainee as (address1, _), specialist as (address2, server2):
        pages = []
        for address in (address1, address2):
            page = browser.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("response", lambda response: answered.add(response.url))
            page.on("websocket", lambda ws: ws.on("framereceived", lambda data: sent.append(data)))
            sent.append(page.goto(address).body())
            pages.append(page)
        for page in pages:
            page.wait_for_function(SHOWN)
        for k in range(22):  # two of them are repeats
            for page in pages:
                rate_by_keys(page, rng)
            if k == 7:
                os.kill(find_kernels(server2)[-1], signal.SIGKILL)
                pages[1].keyboard.press("2")
                wait_for_state(pages[1], "NOT SAVED")
                assert len(read_ratings(real / "ratings").query("rater == 'r2'")) == 8
                pages[1].reload()
                pages[1].wait_for_function(SHOWN)
                assert place(pages[1]) == "9 of 22"
        shown = [page.content() for page in pages]
        assert [place(page) for page in pages] == ["All 22 are labelled"] * 2
        for page in pages:
            page.close()
    ratings = read_ratings(real / "ratings")
    assert ratings.groupby(["rater", "repeat"]).size().tolist() == [20, 2, 20, 2] and rating_problems(real) == []
    assert ratings["usable"].all() and (ratings["seconds"] > 0).all()
    # Nothing that tells, neither on the page nor in what was sent to it.
    heard = b"".join(data if isinstance(data, bytes) else data.encode() for data in [*sent, *shown])
    assert len(heard) > 10e6
    for secret in (b"secretid", b"secretpatient", b"secretfile", b"COVID", b"diagnosed", str(tmp_path).encode()):
        assert secret not in heard, secret
    # What voila's template asks for elsewhere got no answer.
    assert {url for url in answered if not url.startswith(("http://127.0.0.1", "data:", "blob:"))} == set()
    # And what they said is a cohort.
    command = ["merge", str(real), "--trainee", "r1", "--specialist", "r2", "--out", str(real / "labelled.csv")]
    assert main(command) == 0
    table = read_table(real / "labelled.csv")
    assert table["lung_severity"].notna().all() and table["specialist_lung_severity"].notna().all()


def test_twenty_real_videos_are_labelled_by_keyboard_alone_in_jupyterlab(real, browser, tmp_path):
    from lusbio.labelling.page import NOTEBOOK

    code = (
        f"from lusbio.labelling.annotator import Annotator\nAnnotator({str(real)!r}, 'r1', repeats=0.0, new_rater=True)"
    )
    cells = [
        NOTEBOOK["cells"][0] | {"id": f"cell-{k}", "source": text} for k, text in enumerate((code, "1 + 1", "2 + 2"))
    ]
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "label.ipynb").write_text(json.dumps(NOTEBOOK | {"cells": cells}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [f"--ServerApp.port={port}", "--IdentityProvider.token=t", f"--ServerApp.root_dir={tmp_path / 'lab'}"]
    options += [
        "--allow-root",
        "--no-browser",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with running(["jupyterlab", *options], JUPYTERLAB_SETTINGS_DIR=str(tmp_path / "settings")) as server:
        import threading

        threading.Thread(target=server.stdout.read, daemon=True).start()
        wait_for_port(port)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://127.0.0.1:{port}/lab/tree/label.ipynb?token=t")
        page.locator(".jp-Notebook .jp-CodeCell").first.click()
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(SHOWN)
        rng = np.random.default_rng(1)
        for key in ("x", "x", "d", "d", "a", "b"):  # Jupyter cuts cells with these; the annotator knows x alone
            page.keyboard.press(key)
        for _ in range(20):
            rate_by_keys(page, rng)
        assert place(page) == "All 20 are labelled"
        assert page.locator(".jp-Notebook .jp-CodeCell").count() == 3
        page.keyboard.press("Control+s")
        page.close()
    assert len(read_ratings(real / "ratings")) == 20
    # What JupyterLab wrote of it holds no frame.
    assert len((tmp_path / "lab" / "label.ipynb").read_text()) < 20_000


# --- nothing is lost ---


def test_ticks_survive_a_reload_two_windows_know_of_each_other_and_a_full_disk_is_said(numbered, browser):
    with label_page(numbered, "r1", "--new-rater", "--repeats", "0") as (address, server):
        page = open_page(browser, address)
        for key in ("3", "4", "5", "ArrowDown", "u"):
            page.keyboard.press(key)
        wait_for_state(page, "Ticks kept")
        page.reload()
        page.wait_for_function(SHOWN)
        assert page.locator("input:checked").evaluate_all("all => all.map(one => one.value)") == [
            *("a_lines_bold", "a_lines_stacked", "a_lines_wide", "unsure")
        ]
        # The disk is full, and then it is not.
        kernel = find_kernels(server)[-1]
        limits = resource.prlimit(kernel, resource.RLIMIT_FSIZE)
        resource.prlimit(kernel, resource.RLIMIT_FSIZE, (100, limits[1]))
        for key in "u" * 8:
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        wait_for_state(page, "NOT SAVED")
        assert place(page) == "1 of 3" and read_ratings(numbered / "ratings").empty
        assert page.locator("input:checked").count() == 12
        resource.prlimit(kernel, resource.RLIMIT_FSIZE, limits)
        page.wait_for_function("document.querySelector('.count').textContent === '2 of 3'")
        assert len(read_ratings(numbered / "ratings")) == 1
        # Another window of the same rater goes on, and this one is over.
        other = open_page(browser, address)
        assert place(other) == "2 of 3"
        page.keyboard.press("u")
        wait_for_state(page, "continued in another window")
        other.keyboard.press("u")
        wait_for_state(other, "Ticks kept")
        page.close()
        other.close()
    sessions, ratings, problems = read_log(numbered / "ratings" / "r1.jsonl")
    assert (len(ratings), problems) == (1, []) and len(sessions) == 4


def test_killed_kernels_lose_nothing_that_was_said_to_be_saved(numbered, browser):
    make_numbered(numbered, videos=30, frames=3)
    rng = np.random.default_rng(0)
    with label_page(numbered, "r1", "--new-rater", "--repeats", "0") as (address, server):
        page = open_page(browser, address)
        for _ in range(3):
            saved = 0
            for _ in range(int(rng.integers(1, 4))):
                for key in "u" * 10:
                    page.keyboard.press(key)
                page.keyboard.press("Enter")
                time.sleep(rng.uniform(0, 0.2))
            acknowledged = int(place(page).split()[0]) - 1
            os.kill(find_kernels(server)[-1], signal.SIGKILL)
            page.keyboard.press("2")
            wait_for_state(page, "NOT SAVED")
            saved = len(read_ratings(numbered / "ratings"))
            assert acknowledged <= saved and read_log(numbered / "ratings" / "r1.jsonl")[2] == []
            page.reload()
            page.wait_for_function(SHOWN)
            assert place(page) == f"{saved + 1} of 30"
        page.close()


# --- what is seen ---


def test_every_frame_is_the_one_that_it_says(looked_at):
    page, _ = looked_at
    page.wait_for_function("document.querySelector('.counter').textContent === 'frame 40 of 40'")  # all have come
    page.keyboard.press("Space")
    page.evaluate(SETTLED)
    rng, wrong = np.random.default_rng(0), []
    at, _ = page.evaluate(READ_NUMBER)
    for key in rng.choice(["ArrowRight", "ArrowLeft"], 150, p=[0.6, 0.4]):
        at = (at + (1 if key == "ArrowRight" else -1)) % 40
        page.keyboard.press(str(key))
        page.wait_for_function(f"document.querySelector('.counter').textContent === 'frame {at + 1} of 40'")
        number, _ = page.evaluate(READ_NUMBER)
        wrong += [(at, number)] * (number != at)
    assert wrong == []
    page.keyboard.press("Space")
    for _ in range(30):  # also while it plays
        number, text = page.evaluate(READ_NUMBER)
        assert text == f"frame {number + 1} of 40"
        time.sleep(0.03)


def test_nothing_is_asked_of_another_machine(looked_at):
    page, _ = looked_at
    blocked = """address => new Promise((done) => {
      document.addEventListener('securitypolicyviolation', (event) => done(event.blockedURI), { once: true });
      %s
      setTimeout(() => done('let out'), 10000);
    })"""
    for attempt in ("fetch(address).catch(() => 0);", "new Image().src = address;"):
        assert "://example.org" in page.evaluate(blocked % attempt, "https://example.org/"), attempt


def test_everybody_can_use_it_on_every_screen(looked_at):
    from axe_playwright_python.sync_playwright import Axe

    page, _ = looked_at
    for width in (320, 768, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        inside = page.evaluate(
            "[...document.querySelectorAll('.lusbio-annotator, .lusbio-annotator *')].filter("
            "one => one.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert inside == 0, width
        film, ruler = (page.locator(f".film canvas{which}").bounding_box() for which in (":not(.ruler)", ".ruler"))
        assert (film["y"], film["height"]) == (ruler["y"], ruler["height"]) and film["height"] > 50
        assert film["width"] / film["height"] == pytest.approx(160 / 120, rel=0.02)
    found = Axe().run(page, context=".lusbio-annotator")
    assert found.response["violations"] == [], found.generate_report()
    assert any(check["id"] == "color-contrast" for check in found.response["passes"])
    assert page.locator("fieldset").count() == page.locator("fieldset > legend").count() == 10
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert page.evaluate("document.activeElement.closest('.lusbio-annotator') !== null") and outline == "2px"


def test_keys_do_what_the_list_of_keys_says(looked_at):
    page, folder = looked_at
    page.focus(".lusbio-annotator")
    ticked = "[...document.querySelectorAll('.sheet input:checked')].map(one => one.value)"
    current = "document.querySelector('fieldset.current legend').textContent"
    page.keyboard.press("4")
    assert "only beside weak or bold" in page.text_content(".note")
    for key in ("1", "1"):
        page.keyboard.press(key)
    assert page.evaluate(ticked) == ["a_lines_none", "b_lines_none", "b_line_origin_na"]
    assert page.evaluate(current) == "Pleural thickness"
    page.keyboard.press("k")
    page.keyboard.press("2")
    assert "no origin" in page.text_content(".note")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("3")
    assert page.evaluate(ticked) == ["a_lines_none", "b_lines_some"]
    page.keyboard.press("Control+z")
    assert page.evaluate(ticked) == ["a_lines_none", "b_lines_none", "b_line_origin_na"]
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.keyboard.press("Backspace")
    assert "a_lines_none" not in page.evaluate(ticked)
    page.keyboard.press("Enter")
    assert page.evaluate(current) == "A-lines" and "A-lines is open" in page.text_content(".note")
    page.keyboard.press("?")
    assert page.locator(".help table").is_visible()
    page.keyboard.press("m")
    page.keyboard.type("x marks 1 spot")
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    assert page.locator(".ends input:checked").count() == 1
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.count').textContent === '2 of 3'")
    page.keyboard.press("Shift+Enter")
    page.wait_for_function("document.querySelector('.count').textContent === '1 of 3'")
    assert page.locator("textarea").input_value() == "x marks 1 spot"
    (row,) = read_ratings(folder / "ratings").to_dict("records")
    assert not row["usable"] and row["comment"] == "x marks 1 spot"
    # By mouse and touch as well: a label is as good as its box.
    page.keyboard.press("x")
    page.get_by_text("bold").click()
    page.wait_for_function(f"{ticked}.includes('a_lines_bold')")
