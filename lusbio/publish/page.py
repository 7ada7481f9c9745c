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
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import pandas as pd
from PIL import Image

from lusbio.cohorts.folder import cohort_name
from lusbio.errors import LusbioError
from lusbio.files import build_folder, figures_folder, to_markdown, write_json, write_text
from lusbio.publish.markdown import find_origins, render_markdown
from lusbio.publish.run_notebook import ended_in_two_lines
from lusbio.vocabulary import ARTEFACTS

VERDICT_CLASSES = {"beats": "good", "matches": "good", "worse": "bad"}
SUFFIXES = (".png", ".md", ".csv")


class Section(NamedTuple):
    """A heading of the page and the artefacts below it.

    Attributes:
        anchor: What a link to it ends in.
        title: The heading.
        artefacts: Names without suffix; each may have a PNG, a Markdown and a CSV file.
        notebook: Which one makes the first artefact.
        needs: What else it takes, for readers of a page without it.
        optional: Whether it is left out where nothing of it is there.
    """

    anchor: str
    title: str
    artefacts: Sequence[str]
    notebook: str = ""
    needs: str = ""
    optional: bool = False


with Path(__file__).with_suffix(".toml").open("rb") as _file:
    SECTIONS = tuple(Section(**section) for section in tomllib.load(_file)["sections"])
"""In the paper's order; what no section names goes into a last one, "More"."""


def build_page(profile: str, cohort: str) -> str:
    """The whole page as HTML; needs no other file and no network.

    Args:
        profile: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        cohort: The cohort's name, as in the path of its figures.

    Raises:
        LusbioError: If the figures folder has no ``run.json``: nothing has run there.
    """
    folder = figures_folder(profile, cohort)
    if not (folder / "run.json").is_file():
        raise LusbioError(f"{folder} has no run.json: run make paper PROFILE={profile} COHORT={cohort} first")
    run, timing = _read_json(folder / "run.json"), _read_json(folder / "timing.json")
    files, private = _find_files(folder), _find_files(build_folder(profile, cohort, "frames"))
    found = {name: private.get(name, {}) | files.get(name, {}) for name in [*files, *private]}
    sections = [
        section
        for section in SECTIONS
        if not section.optional
        or found.keys() & section.artefacts
        or (section.anchor == "simulator" and run["simulated"])
    ]
    if others := sorted(files.keys() - {"verdict"}.union(*(section.artefacts for section in sections))):
        sections.append(Section("more", "More", others))
    common = _shared_origin(folder, run)
    notebooks = sorted(path.stem for path in build_folder(profile, cohort, "notebooks").glob("*.html"))
    pages = {name: f'<a href="notebooks/{escape(name)}.html">{escape(name)}</a>' for name in notebooks}
    kind = "simulated" if run["simulated"] else "real"
    return Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8")).substitute(
        profile=escape(profile),
        cohort=escape(cohort),
        style=Path(__file__).with_suffix(".css").read_text(encoding="utf-8"),
        kind=kind,
        Kind=kind.capitalize(),
        facts=_facts(run, timing, profile, cohort),
        notes=escape("; ".join(run["notes"])) + ". " if run["notes"] else "",
        minutes=_minutes(timing.get("runs")),
        verdicts=_verdicts(folder, common),
        links=" ".join(_link(section, found) for section in sections),
        notebooks=" ".join(pages.values()) or "none beside this page",
        sections="\n".join(_section(section, found, pages, common, run.get("left_out", {})) for section in sections),
        foot=escape(_foot(run)),
    )


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
        if path.suffix in SUFFIXES:
            found.setdefault(path.stem, {})[path.suffix] = path
    return found


def _shared_origin(folder: Path, run: dict) -> str:
    """The origin that most tables share and that the top of the page tells: not repeated below."""
    start, end = "Simulated" if run["simulated"] else "Real", f"commit {run['commit']}"
    lines = [line for path in sorted(folder.glob("*.md")) for line in find_origins(path.read_text(encoding="utf-8"))]
    told = Counter(line for line in lines if line.startswith(start) and line.endswith(end))
    return told.most_common(1)[0][0] if told else ""


def _facts(run: dict, timing: dict, profile: str, cohort: str) -> str:
    """Where the numbers come from, as the items of a list."""
    size, commit, weights = run["profile"]["training"], run["commit"], set(run["initial_weights"].values())
    if len(weights) > 1:
        weights = [f"{backbone} {name}" for backbone, name in run["initial_weights"].items()]
    facts = {
        "cohort": f"{cohort}: {run['videos']} videos, {run['patients']} patients",
        "profile": f"{profile}: {size['frames']} frames of {size['image_size']} x {size['image_size']}, "
        f"{size['epochs']} epochs",
        "commit": commit + (", with changes not committed" if commit.endswith("+") else ""),
        "device": f"{'; '.join(run['devices'])} ({', '.join(run['precision'])})",
        "training": f"{timing['minutes']:.1f} minutes, {len(timing['runs'])} runs" if timing else "not known",
        "initial weights": ", ".join(weights),
    }
    for key, value in timing.items():
        if key != "minutes" and isinstance(value, int | float):
            facts[key.replace("_", " ")] = f"{value:g}"
    return "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())


def _foot(run: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    seeds = ", ".join(map(str, run["seeds"]))
    return f"Data {run['data']} · protocol {run['protocol']} · seed {seeds} · {versions}"


def _minutes(runs: Sequence[dict] | None) -> str:
    """Minutes by kind of run and task, folded away."""
    if not runs:
        return ""
    by_kind = pd.DataFrame(runs).groupby(["kind", "task"], sort=False)["minutes"]
    table = by_kind.agg(["size", "sum"]).reset_index().set_axis(["kind", "task", "runs", "minutes"], axis=1)
    return _folded("Minutes of training", render_markdown(to_markdown(table))[1])


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _missing(text: str) -> str:
    return f'<p class="missing">{text}</p>'


def _verdicts(folder: Path, common: str) -> str:
    """The headline: a card per task, and its origin if it is another one; says so where nothing is concluded yet."""
    path, told = folder / "verdict.csv", folder / "verdict.md"
    if not path.is_file():
        return _missing("No verdict here yet: notebook 03_experts writes it.")
    cards = [
        f'<div class="verdict {VERDICT_CLASSES.get(row.verdict, "open")}">{escape(row.title)}'
        f"<b>{escape(row.verdict)}</b><p>{escape(row.sentence)}</p></div>"
        for row in pd.read_csv(path).itertuples()
    ]
    origins = find_origins(told.read_text(encoding="utf-8")) if told.is_file() else []
    other = "".join(f'<p class="origin">{escape(line)}</p>' for line in origins if line != common)
    return (
        '<p class="small">Do experts on biomarkers match or beat a network trained end to end for the task?</p>\n'
        f'{other}<div class="verdicts">{"".join(cards)}</div>'
    )


def _link(section: Section, found: dict) -> str:
    """A link to a section; grey where nothing of it is here."""
    absent = "" if found.keys() & section.artefacts else " class=absent"
    return f'<a href="#{section.anchor}"{absent}>{escape(section.title)}</a>'


def _section(section: Section, found: dict, pages: dict[str, str], common: str, left_out: dict[str, str]) -> str:
    """A heading and its artefacts, or what is missing and who makes it; or why it was left out."""
    parts = [_heading(2, section.anchor, section.title)]
    if section.notebook in pages:
        parts.append(f'<p class="small">made by notebook {pages[section.notebook]}</p>')
    parts += [_artefact(name, found[name], common) for name in section.artefacts if name in found]
    absent = [name for name in section.artefacts if name not in found]
    if missing := [name for name in absent if name not in left_out]:
        need = f"; it needs {section.needs}" if section.needs else ""
        parts.append(_missing(f"Not here: {_listed(missing)}. Notebook {section.notebook} makes it{need}."))
    parts += [_missing(escape(left_out[name]).replace("`", "")) for name in absent if name in left_out]
    return "\n".join(["<section>", *parts, "</section>"])


def _listed(names: Iterable[str]) -> str:
    """``["table3", "learning_curves"]`` as a reader says it."""
    words = ", ".join(name[0].upper() + name[1:] for name in names).replace("_", " ")
    return re.sub(r"\bTable(?=\d)", "Table ", re.sub(r"\bFig(?=\d)", "Fig. ", words))


def _heading(level: int, anchor: str, title: str) -> str:
    return f'<h{level} id="{escape(anchor)}"><a href="#{escape(anchor)}">{escape(title)}</a></h{level}>'


def _artefact(name: str, files: dict[str, Path], common: str) -> str:
    """Figure and table of one name; figures stand above tables, but below the paper's own tables."""
    title, parts, first = name.replace("_", " "), [], name.startswith("table")
    if ".md" in files:
        longest = 15 if ".png" in files and not first else 50
        title, table = render_markdown(files[".md"].read_text(encoding="utf-8"), common, longest)
        parts.append(table)
    elif ".csv" in files:
        values = pd.read_csv(files[".csv"])
        table = render_markdown(to_markdown(values), common)[1]
        parts.append(_folded(f"{name}.csv, {len(values)} rows", table))
    if ".png" in files:
        caption = ARTEFACTS[name].caption if name in ARTEFACTS else ""
        parts.insert(len(parts) if first else 0, _figure(files[".png"], caption))
    if not re.fullmatch(r"(fig|table)\d", name):  # those have the heading of their section
        parts.insert(0, _heading(3, name, title[0].upper() + title[1:]))
    return "\n".join(filter(None, parts))


def _figure(path: Path, caption: str) -> str:
    """A picture within the page, at the size it was drawn for (160 dots per inch)."""
    with Image.open(path) as image:
        width, height = (round(n * 96 / 160) for n in image.size)
    wide = " wide" if width > 640 else ""
    data = base64.b64encode(path.read_bytes()).decode()
    alt = escape(caption or path.stem.replace("_", " "))
    image = f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{alt}">'
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="box{wide}">{image}</div>{below}</figure>'


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
    plain = re.fullmatch(r"[A-Za-z0-9_-]+", options.cohort)
    cohort = options.cohort if plain else cohort_name(Path(options.cohort))
    path = build_folder(options.profile, cohort, "paper.html")
    try:
        with ended_in_two_lines("the page", options.profile, options.cohort):
            note_times(options.profile, cohort)
            write_text(build_page(options.profile, cohort), path)
    except LusbioError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
