"""The paper on one page: ``build/<profile>/<cohort>/paper.html``, what a reader opens after ``make paper``.

``python -m lusbio.publish.page --profile laptop --cohort synthetic`` writes it. It computes nothing: it
shows what lies in the figures folder, and says what does not. The same files give the same bytes.
What stands on it in which order is ``page.toml``, its frame ``page.html``, its looks ``page.css``.
"""

import argparse
import base64
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from lusbio.cohorts.load import cohort_name
from lusbio.errors import LusbioError
from lusbio.files import build_folder, figures_folder, to_markdown, write_json, write_text
from lusbio.publish.markdown import find_origins, render_markdown
from lusbio.publish.run_notebook import run_command
from lusbio.vocabulary import ARTEFACTS

SECTIONS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["sections"]
"""Headings and the artefacts below them, in the paper's order; what no section names goes into a last one, "More"."""


def build_page(profile: str, cohort: str) -> str:
    """The whole page as HTML; needs no other file and no network.

    Args:
        profile: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        cohort: The cohort's name, as in the path of its figures.

    Raises:
        LusbioError: If the figures folder has no ``run.json``: nothing has run there.
    """
    folder = figures_folder(profile, cohort)
    run, timing = _read_json(folder / "run.json"), _read_json(folder / "timing.json")
    if not run:
        command = f"make paper PROFILE={profile} COHORT={cohort}"
        raise LusbioError(f"{folder} has no run.json: run {command}, or read in its notebooks why nothing was trained")
    files, private = _find_files(folder), _find_files(build_folder(profile, cohort, "frames"))
    found = {name: private.get(name, {}) | files.get(name, {}) for name in files | private}
    kind = "simulated" if run["simulated"] else "real"
    sections = [part for part in SECTIONS if found.keys() & part["artefacts"] or kind not in part.get("optional", ())]
    if others := sorted(files.keys() - {"verdict"}.union(*(section["artefacts"] for section in sections))):
        sections.append({"anchor": "more", "title": "More", "artefacts": others})
    common, verdict = _shared_origin(folder, run), files.get("verdict", {})
    return _make_template().render(
        profile=profile,
        cohort=cohort,
        run=run,
        timing=timing,
        minutes=_sum_minutes(timing["runs"]) if timing.get("runs") else "",
        verdicts=pd.read_csv(verdict[".csv"]).to_dict("records") if ".csv" in verdict else None,
        verdict_origins=find_origins(verdict[".md"].read_text(encoding="utf-8")) if ".md" in verdict else [],
        verdict_note=ARTEFACTS["verdict"].note,
        common_origin=common,
        sections=sections,
        artefacts={name: _show_artefact(name, its_files, common) for name, its_files in found.items()},
        left_out=run.get("left_out", {}),
        notebooks=sorted(path.stem for path in build_folder(profile, cohort, "notebooks").glob("*.html")),
    )


def _make_template() -> Template:
    """The frame of the page, ``page.html``."""
    blocks = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, **blocks)
    environment.filters |= {"e": escape, "listed": _list_names, "marked": lambda text: render_markdown(text)[1]}
    return environment.get_template("page.html")


def note_times(profile: str, cohort: str) -> None:
    """Put the minutes that each executed notebook took into ``timing.json``, beside those of the runs.

    A notebook that finds its work done is quick, so the longest time counts as long as the runs are the
    same: the one in which the work was done.
    """
    path, known = figures_folder(profile, cohort) / "timing.json", build_folder(profile, cohort, "times.json")
    timing, before = _read_json(path), _read_json(known)
    runs = [run.get("run") for run in timing.get("runs", [])]
    times = before["notebooks"] if before.get("runs") == runs else {}
    for notebook in sorted(build_folder(profile, cohort, "notebooks").glob("*.ipynb")):
        seconds = _read_json(notebook)["metadata"].get("papermill", {}).get("duration")
        if seconds is not None and not notebook.stem.endswith(".running"):
            times[notebook.stem] = max(round(seconds / 60, 2), times.get(notebook.stem, 0.0))
    if timing and times:
        write_json({"runs": runs, "notebooks": times}, known)
        whole = {"minutes_of_all_notebooks": round(sum(times.values()), 2), "notebooks": times}
        write_json(timing | whole, path)


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _find_files(folder: Path) -> dict[str, dict[str, Path]]:
    """The files of each artefact, by its name and their suffix."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix in (".png", ".md", ".csv"):
            found.setdefault(path.stem, {})[path.suffix] = path
    return found


def _shared_origin(folder: Path, run: dict) -> str:
    """The origin that most tables share and that the top of the page tells: not repeated below."""
    start, end = "Simulated" if run["simulated"] else "Real", f"commit {run['commit']}"
    lines = [line for path in sorted(folder.glob("*.md")) for line in find_origins(path.read_text(encoding="utf-8"))]
    told = [line for line in lines if line.startswith(start) and line.endswith(end)]
    return max(told, key=told.count, default="")


def _sum_minutes(runs: Sequence[dict]) -> str:
    """Minutes by kind of run and task, as a table."""
    by_kind = pd.DataFrame(runs).groupby(["kind", "task"], sort=False)["minutes"].agg(runs="size", minutes="sum")
    return render_markdown(to_markdown(by_kind.reset_index()))[1]


def _list_names(names: Iterable[str]) -> str:
    """``["table3", "learning_curves"]`` as a reader says it."""
    words = ", ".join(name[0].upper() + name[1:] for name in names).replace("_", " ")
    return re.sub(r"\bTable(?=\d)", "Table ", re.sub(r"\bFig(?=\d)", "Fig. ", words))


def _show_artefact(name: str, files: dict[str, Path], common: str) -> dict:
    """Figure and table of one name; figures stand above tables, but below the paper's own tables.

    Returns:
        ``title``, empty where the section's heading says it; ``table`` (HTML) with its ``rows`` where it is a CSV file
        alone; ``picture``, ``picture_last``.
    """
    title, table, rows, of_paper = name.replace("_", " "), "", None, name.startswith("table")
    if ".md" in files:
        longest = 15 if ".png" in files and not of_paper else 50
        title, table = render_markdown(files[".md"].read_text(encoding="utf-8"), common, longest)
    elif ".csv" in files:
        values = pd.read_csv(files[".csv"])
        table, rows = render_markdown(to_markdown(values), common)[1], len(values)
    heading = "" if re.fullmatch(r"(fig|table)\d", name) else title[:1].upper() + title[1:]
    picture = _show_picture(name, files[".png"]) if ".png" in files else None
    return {"title": heading, "table": table, "rows": rows, "picture": picture, "picture_last": of_paper}


def _show_picture(name: str, path: Path) -> dict:
    """A picture's bytes and its caption, at the size it was drawn for (160 dots per inch)."""
    with Image.open(path) as image:
        width, height = (round(n * 96 / 160) for n in image.size)
    data, caption = base64.b64encode(path.read_bytes()).decode(), ARTEFACTS[name].caption if name in ARTEFACTS else ""
    return {"data": data, "width": width, "height": height, "caption": caption}


def main(arguments: list[str] | None = None) -> int:
    """The command line: write the page of one profile and cohort, and print its path.

    Args:
        arguments: What follows ``python -m lusbio.publish.page``; None means the process's own.

    Returns:
        0 when the page is written, 1 after a LusbioError, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m lusbio.publish.page", description="Write the paper's page.")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--cohort", default="synthetic", help="its name, or its folder")
    options = parser.parse_args(arguments)
    cohort = options.cohort if re.fullmatch(r"[A-Za-z0-9_-]+", options.cohort) else cohort_name(Path(options.cohort))

    def write_page() -> None:
        path = build_folder(options.profile, cohort, "paper.html")
        note_times(options.profile, cohort)
        write_text(build_page(options.profile, cohort), path)
        print(path)

    return run_command(write_page, "the page", options.profile, options.cohort)


if __name__ == "__main__":
    sys.exit(main())
