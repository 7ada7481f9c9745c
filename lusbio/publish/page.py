"""The paper on one page: ``build/<profile>/<cohort>/paper.html``, what a reader opens after ``make paper``.

``python -m lusbio.publish.page --profile laptop --cohort synthetic`` writes it. It computes nothing: it
shows what lies in the figures folder, and says what does not. The same files give the same bytes.
"""

import argparse
import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import pandas as pd
from PIL import Image

from lusbio.cohorts.folder import cohort_name
from lusbio.errors import LusbioError
from lusbio.files import build_folder, figures_folder, write_json, write_text
from lusbio.publish.markdown import find_origins, render_markdown
from lusbio.publish.page_contents import ABOUT_ONE_COHORT, CAPTIONS, SECTIONS, Section
from lusbio.report.tables import to_markdown

VERDICT_CLASSES = {"beats": "good", "matches": "good", "worse": "bad"}


def build_page(profile: str, cohort: str) -> str:
    """The whole page as HTML; needs no other file and no network.

    Args:
        profile: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        cohort: The cohort's name, as in the path of its figures.

    Returns:
        The page.

    Raises:
        LusbioError: If the figures folder has no ``run.json``: nothing has run there.
    """
    check_there_are_results(profile, cohort)
    folder = figures_folder(profile, cohort)
    run = _read_json(folder / "run.json")
    places = (folder, build_folder(profile, cohort, "frames"))
    notebooks = sorted(path.stem for path in build_folder(profile, cohort, "notebooks").glob("*.html"))
    common = _shared_origin(folder, run)
    sections = _find_sections(folder, places, run["simulated"])
    parts = [
        _head(run, _read_json(folder / "timing.json"), profile, cohort),
        _verdicts(folder, common),
        _HOW,
        _contents(sections, notebooks, places),
        *(_section(section, places, notebooks, common, run.get("left_out", {})) for section in sections),
        _foot(run),
    ]
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    return _PAGE.format(title=escape(f"lusbio: the paper, {profile}, {cohort}"), style=style, body="\n".join(parts))


def check_there_are_results(profile: str, cohort: str) -> None:
    """Raise unless notebook 02 has written what all numbers of a profile and cohort rest on."""
    folder = figures_folder(profile, cohort)
    if not (folder / "run.json").is_file():
        raise LusbioError(f"{folder} has no run.json: run make paper PROFILE={profile} COHORT={cohort} first")


def note_times(profile: str, cohort: str) -> None:
    """Put the minutes that each executed notebook took into ``timing.json``, beside those of the runs.

    A notebook that finds its work done is quick, so the longest time counts as long as the runs are the
    same: the one in which the work was done.

    Args:
        profile: As for ``build_page``.
        cohort: As for ``build_page``.
    """
    path, known = figures_folder(profile, cohort) / "timing.json", build_folder(profile, cohort, "times.json")
    timing, before = _read_json(path), _read_json(known)
    runs = [run.get("run") for run in timing["runs"]]
    times = before["notebooks"] if before.get("runs") == runs else {}
    for notebook in sorted(build_folder(profile, cohort, "notebooks").glob("*.ipynb")):
        seconds = _read_json(notebook)["metadata"].get("papermill", {}).get("duration")
        if seconds is not None and not notebook.stem.endswith(".running"):
            times[notebook.stem] = max(round(seconds / 60, 2), times.get(notebook.stem, 0.0))
    if times:
        write_json({"runs": runs, "notebooks": times}, known)
        whole = {"minutes_of_all_notebooks": round(sum(times.values()), 2), "notebooks": times}
        write_json(timing | whole, path)


def _find_sections(folder: Path, places: Sequence[Path], simulated: bool) -> list[Section]:
    """``SECTIONS``, and after them whatever else lies in the folder, so that nothing is lost."""
    sections = [
        s
        for s in SECTIONS
        if s.anchor not in ABOUT_ONE_COHORT
        or (s.anchor == "simulator" and simulated)
        or any(_files(a, places) for a in s.artefacts)
    ]
    named = {name for section in sections for name in section.artefacts} | {"verdict"}
    found = {path.stem for path in folder.iterdir() if path.suffix in (".png", ".md", ".csv")}
    others = tuple(sorted(name for name in found - named if not name.startswith(".")))
    return [*sections, Section("more", "More", others)] if others else sections


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_HOW = """<section class="how" id="how">
<div class="sample"><b>69.0</b> ± 1.3<br><span>[63.9, 74.2]</span> <i>(81.5 ± 1.0)</i></div>
<ul><li><b>mean ± SD</b> over the runs (population SD), in percent unless a table says otherwise</li>
<li>[95 % interval], from drawing patients anew</li>
<li>(<b>published</b> mean ± SD): the paper's private cohort, so other patients than here</li>
<li>a dash: not defined here. The sample is made up.</li></ul></section>"""


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _shared_origin(folder: Path, run: dict) -> str:
    """The origin that most tables share and that the top of the page tells: not repeated below."""
    start, end = "Simulated" if run["simulated"] else "Real", f"commit {run['commit']}"
    lines = [line for path in sorted(folder.glob("*.md")) for line in find_origins(path.read_text(encoding="utf-8"))]
    told = Counter(line for line in lines if line.startswith(start) and line.endswith(end))
    return told.most_common(1)[0][0] if told else ""


def _files(name: str, places: Sequence[Path]) -> dict[str, Path]:
    """The files of an artefact by suffix; of two places, the first that has it."""
    found = {}
    for place in reversed(places):
        found |= {s: p for s in (".png", ".md", ".csv") if (p := place / f"{name}{s}").is_file()}
    return found


def _head(run: dict, timing: dict, profile: str, cohort: str) -> str:
    """Title, banner and where the numbers come from."""
    kind = "simulated" if run["simulated"] else "real"
    settings = run["profile"].get("training", run["profile"])
    trained = f"{timing['minutes']:.1f} minutes, {len(timing['runs'])} runs" if timing else "not known"
    facts = {
        "cohort": f"{cohort}: {run['videos']} videos, {run['patients']} patients",
        "profile": f"{profile}: {settings['frames']} frames of {settings['image_size']} x {settings['image_size']}, "
        f"{settings['epochs']} epochs",
        "commit": run["commit"] + (", with changes not committed" if run["commit"].endswith("+") else ""),
        "device": "; ".join(run["devices"]) + f" ({', '.join(run['precision'])})",
        "training": trained,
        "initial weights": _weights(run["initial_weights"]),
    } | {
        key.replace("_", " "): f"{value:g}"
        for key, value in timing.items()
        if isinstance(value, int | float) and key != "minutes"
    }
    notes = escape("; ".join(run["notes"])) + ". " if run["notes"] else ""
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return (
        "<h1>Learning Generic Lung Ultrasound Biomarkers for Decoupling Feature Extraction from Downstream Tasks</h1>\n"
        '<p>Gare et al. 2022 (<a href="https://arxiv.org/abs/2206.08398">arXiv 2206.08398</a>), reproduced: '
        "every table and figure in the paper's order, published beside reproduced.</p>\n"
        f'<div class="banner {kind}">{kind.capitalize()} patients</div>\n<dl class="facts">{listed}</dl>\n'
        f'<p class="small">{notes}Numbers with another origin say so below their heading.</p>'
        + _minutes(timing.get("runs", []))
    )


def _weights(names: dict[str, str]) -> str:
    """What networks started from; by backbone where that differs."""
    if len(set(names.values())) > 1:
        return ", ".join(f"{backbone} {name}" for backbone, name in names.items())
    return ", ".join(sorted(set(names.values())))


def _minutes(runs: Sequence[dict]) -> str:
    """Minutes by kind of run and task, folded away."""
    if not runs or "kind" not in runs[0]:
        return ""
    by_kind = pd.DataFrame(runs).groupby(["kind", "task"], sort=False)["minutes"]
    table = by_kind.agg(["size", "sum"]).reset_index().set_axis(["kind", "task", "runs", "minutes"], axis=1)
    shown = render_markdown(to_markdown(table))[1]
    return f"<details><summary>Minutes of training</summary>{shown}</details>"


def _verdicts(folder: Path, common: str) -> str:
    """The headline: a card per task, and its origin if it is another one; says so where nothing is concluded yet."""
    path, told = folder / "verdict.csv", folder / "verdict.md"
    if not path.is_file():
        return '<p class="missing">No verdict here yet: notebook 03_experts writes it.</p>'
    cards = [
        f'<div class="verdict {VERDICT_CLASSES.get(row.verdict, "open")}">{escape(str(row.title))}'
        f"<b>{escape(str(row.verdict))}</b><p>{escape(str(row.sentence))}</p></div>"
        for row in pd.read_csv(path).itertuples()
    ]
    origins = find_origins(told.read_text(encoding="utf-8")) if told.is_file() else []
    other = "".join(f'<p class="origin">{escape(line)}</p>' for line in origins if line != common)
    return (
        '<p class="small">Do experts on biomarkers match or beat a network trained end to end for the task?</p>\n'
        f'{other}<div class="verdicts">{"".join(cards)}</div>'
    )


def _contents(sections: Iterable[Section], notebooks: Sequence[str], places: Sequence[Path]) -> str:
    """Links to all sections and to the executed notebooks; what is not here is grey."""
    links = [
        f'<a href="#{s.anchor}"{"" if any(_files(a, places) for a in s.artefacts) else " class=absent"}>'
        f"{escape(s.title)}</a>"
        for s in sections
    ]
    pages = [f'<a href="notebooks/{escape(name)}.html">{escape(name)}</a>' for name in notebooks]
    return (
        f"<nav><b>On this page</b> {' '.join(links)}</nav>\n"
        f"<nav><b>Executed notebooks</b> {' '.join(pages) or 'none beside this page'}</nav>"
    )


def _section(
    section: Section, places: Sequence[Path], notebooks: Sequence[str], common: str, left_out: dict[str, str]
) -> str:
    """A heading and its artefacts, or what is missing and who makes it; or why it was left out."""
    parts = [_heading(2, section.anchor, section.title)]
    if section.notebook in notebooks:
        page = f'<a href="notebooks/{section.notebook}.html">{section.notebook}</a>'
        parts.append(f'<p class="small">made by notebook {page}</p>')
    absent = [name for name in section.artefacts if not _files(name, places)]
    missing = [name for name in absent if name not in left_out]
    for name in section.artefacts:
        if files := _files(name, places):
            parts.append(_artefact(name, files, common, titled=not re.fullmatch(r"(fig|table)\d", name)))
    if missing:
        maker = f" Notebook {section.notebook} makes it" if section.notebook else ""
        need = f"; it needs {section.needs}" if section.needs else ""
        parts.append(f'<p class="missing">Not here: {_listed(missing)}.{maker}{need}{"." if maker else ""}</p>')
    lines = [escape(left_out[name]).replace("`", "") for name in absent if name in left_out]
    parts += [f'<p class="missing">{line}</p>' for line in lines]
    return f"<section>\n{chr(10).join(parts)}\n</section>"


def _listed(names: Iterable[str]) -> str:
    """``["table3", "learning_curves"]`` as a reader says it."""
    words = (re.sub(r"^Fig ?(?=\d)", "Fig. ", name[0].upper() + name[1:]) for name in names)
    words = (re.sub(r"^Table(?=\d)", "Table ", word) for word in words)
    return ", ".join(words).replace("_", " ")


def _heading(level: int, anchor: str, title: str) -> str:
    return f'<h{level} id="{escape(anchor)}"><a href="#{escape(anchor)}">{escape(title)}</a></h{level}>'


def _artefact(name: str, files: dict[str, Path], common: str, *, titled: bool) -> str:
    """Figure and table of one name; figures stand above tables, but below the paper's own tables."""
    title, figure, table = name.replace("_", " "), "", ""
    if ".md" in files:
        beside = ".png" in files and not name.startswith("table")
        title, table = render_markdown(files[".md"].read_text(encoding="utf-8"), common, 15 if beside else 50)
    elif ".csv" in files:
        values = pd.read_csv(files[".csv"])
        table = render_markdown(to_markdown(values), common)[1]
        table = f"<details><summary>{escape(name)}.csv, {len(values)} rows</summary>{table}</details>"
    if ".png" in files:
        figure = _figure(files[".png"], CAPTIONS.get(name, ""))
    parts = [table, figure] if name.startswith("table") else [figure, table]
    heading = [_heading(3, name, title[0].upper() + title[1:])] if titled else []
    return "\n".join([*heading, *filter(None, parts)])


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


def _foot(run: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    seeds = ", ".join(map(str, run["seeds"]))
    facts = f"Data {run['data']} · protocol {run['protocol']} · seed {seeds} · {versions}"
    return f"<footer>{escape(facts)}<br>Research only; not a medical device.</footer>"


def main(arguments: list[str] | None = None) -> int:
    """The command line: write the page of one profile and cohort, and print its path.

    Args:
        arguments: What follows ``python -m lusbio.publish.page``; None means the process's own.

    Returns:
        0 when the page is written, 1 after a LusbioError.
    """
    parser = argparse.ArgumentParser(prog="python -m lusbio.publish.page", description="Write the paper's page.")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--cohort", default="synthetic", help="its name, or its folder")
    options = parser.parse_args(arguments)
    plain = re.fullmatch(r"[A-Za-z0-9_-]+", options.cohort)
    cohort = options.cohort if plain else cohort_name(Path(options.cohort))
    try:
        check_there_are_results(options.profile, cohort)
        note_times(options.profile, cohort)
        page = build_page(options.profile, cohort)
    except LusbioError as error:
        print(error, file=sys.stderr)
        return 1
    path = build_folder(options.profile, cohort, "paper.html")
    write_text(page, path)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
