"""The site: README and what it links to, the paper with its executed notebooks, the API, cards and checklists.

``make site`` calls it after ``make paper``. The pages load nothing from the network; links that lead nowhere fail it.
"""

import argparse
import json
import re
import shutil
import sys
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mistune
import pandas as pd
from jinja2 import Environment, StrictUndefined

from lusbio.errors import LusbioError
from lusbio.files import ROOT, build_folder, to_markdown, write_json, write_text
from lusbio.profiles import find_profile
from lusbio.vocabulary import BIOMARKER_NAMES, TASKS

STARTS = ("README.md", "CONTRIBUTING.md", "docs/datasheet.md", "docs/reporting.md", "docs/times.md", "model/README.md")
"""Where the crawl for pages begins; what is not here is left out."""

NAMES = {"README.html": "Start", "paper/paper.html": "The paper", "api/lusbio.html": "API"}
NAMES |= {"docs/datasheet.html": "Data sheet", "docs/reporting.html": "Checklists", "model/README.html": "Model card"}
NAMES |= {"docs/times.html": "How long it takes", "CONTRIBUTING.html": "Contributing"}

COLAB = ("00_start_here", "90_your_task")
"""Notebooks that run in Colab as they are; each starts with ``INSTALL`` there."""

INSTALL = """\
import importlib.util
import subprocess
import sys
from importlib.metadata import version

if "google.colab" in sys.modules and importlib.util.find_spec("lusbio") is None:
    kept = [f"{{name}}=={{version(name)}}" for name in ("torch", "numpy")]  # others would not fit this machine
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "lusbio @ git+https://github.com/{repository}", *kept], check=True)"""

FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>lusbio: {title}</title><link rel="stylesheet" href="{up}page.css">
<style>pre {{ overflow-x: auto; background: var(--panel); padding: 10px; border-radius: 6px; }}
pre code {{ background: none; padding: 0; }} img {{ max-width: 100%; height: auto; }}</style></head>
<body><main><nav>{menu}</nav>
{body}
<footer>Research only; not a medical device.</footer></main></body></html>
"""


def build_site(site: Path, profile: str, repository: str) -> list[str]:
    """Write the whole site anew.

    Args:
        site: The folder.
        profile: Whose executed notebooks are shown; synthetic cohort.
        repository: ``owner/name`` on GitHub, for Colab's badges; empty for none.

    Returns:
        Links that lead nowhere, ``page: link``.
    """
    paper = build_folder(profile, "synthetic")
    if not (paper / "paper.html").is_file():
        raise LusbioError(f"{paper / 'paper.html'}: no such file; run `make paper PROFILE={profile}` first")
    shutil.rmtree(site, ignore_errors=True)
    for page in [paper / "paper.html", *(paper / "notebooks").glob("*.html")]:
        target = site / "paper" / page.relative_to(paper)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target)
    document_package(site / "api")
    shutil.copy(ROOT / "lusbio" / "publish" / "page.css", site)
    write_pages(site, profile, repository)
    redirect = '<!doctype html><meta http-equiv="refresh" content="0; url=README.html"><a href="README.html">lusbio</a>'
    write_text(redirect, site / "index.html")
    return find_broken_links(site)


def document_package(folder: Path) -> None:
    """The API from docstrings, as pdoc makes it."""
    import pdoc

    pdoc.render.configure(docformat="google", search=False, show_source=True)
    pdoc.pdoc("lusbio", output_directory=folder)
    for page in folder.rglob("*.html"):  # it links to private bases, which it does not show
        text = page.read_text(encoding="utf-8")
        write_text(re.sub(r'<a href="[^"]*#_[^"]*"[^>]*>(.*?)</a>', r"\1", text), page)


def read_page(path: Path, profile: str) -> str:
    """The Markdown of a page; those that are made from files are filled in."""
    if path == ROOT / "docs" / "reporting.md":
        table = pd.read_csv(ROOT / "docs" / "reporting.csv", dtype=str)
        tables = [
            f"## {name}\n\n{to_markdown(rows.drop(columns='guideline'))}" for name, rows in table.groupby("guideline")
        ]
        return (path.read_text(encoding="utf-8") + "\n\n".join(tables)).replace("](", "](../")
    text = path.read_text(encoding="utf-8")
    if path == ROOT / "docs" / "datasheet.md":
        run = json.loads((ROOT / "figures" / "laptop" / "synthetic" / "run.json").read_text(encoding="utf-8"))
        known = {"run": run, "profile": find_profile(profile), "tasks": TASKS, "n_biomarkers": len(BIOMARKER_NAMES)}
        text = Environment(undefined=StrictUndefined).from_string(text).render(known)
    if path == ROOT / "docs" / "times.md":
        text += to_markdown(list_times())
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)


def list_times() -> pd.DataFrame:
    """Minutes of every notebook, a column for each ``timing.json`` that is committed."""
    columns = {}
    for file in sorted(ROOT.glob("figures/*/*/timing.json")):
        minutes = json.loads(file.read_text(encoding="utf-8")).get("notebooks", {})
        run = json.loads(file.with_name("run.json").read_text(encoding="utf-8"))
        columns[f"{run['profile']['name']}, {run['cohort']}: {'; '.join(run['devices'])}"] = pd.Series(minutes)
    return pd.DataFrame(columns).sort_index().rename_axis("notebook").reset_index()


def write_pages(site: Path, profile: str, repository: str) -> None:
    """Every Markdown page that the first ones lead to, and the files that they show or point at."""
    todo = [ROOT / name for name in STARTS if (ROOT / name).is_file()]
    seen = set(todo)
    badges = write_colab(site, repository) if repository else ""
    while todo:
        source = todo.pop()
        target = site / source.relative_to(ROOT).with_suffix(".html")
        up = "../" * len(source.relative_to(ROOT).parent.parts)
        html = mistune.html(read_page(source, profile))

        def follow(match: re.Match, source: Path = source, up: str = up) -> str:
            attribute, link = match[1], unescape(match[2])
            address, found = resolve(link, source, site)
            if found is not None and found not in seen:
                seen.add(found)
                todo.append(found)
            return f'{attribute}="{escape(up + address if address != link else link)}"'

        html = re.sub(r'(href|src)="([^"]*)"', follow, html)
        html = re.sub(r"<h([1-4])>(.*?)</h\1>", lambda m: f'<h{m[1]} id="{_anchor(m[2])}">{m[2]}</h{m[1]}>', html)
        html = html.replace("<table>", '<div class="box"><table>').replace("</table>", "</table></div>")
        here = target.relative_to(site).as_posix()
        html = html.replace("<pre>", '<div class="box"><pre>').replace("</pre>", "</pre></div>")
        menu = " ".join(
            f"<b>{name}</b>" if path == here else f'<a href="{up}{path}">{name}</a>'
            for path, name in NAMES.items()
            if path.startswith(("paper/", "api/")) or (ROOT / path).with_suffix(".md").is_file()
        )
        html = html.replace("</h1>", f"</h1>\n{badges}", 1) if source.name == "README.md" and not up else html
        title = re.search(r"<h1[^>]*>(.*?)</h1>", html)
        write_text(FRAME.format(title=title[1] if title else here, up=up, menu=menu, body=html), target)


def _anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"<[^>]+>", "", unescape(heading)).lower()).replace(" ", "-")


def resolve(link: str, source: Path, site: Path) -> tuple[str, Path | None]:
    """Where a link of a page of the repository leads on the site.

    Returns:
        The address from the site's root (elsewhere: the link itself), and a page that has to be written for it.
    """
    parts = urlsplit(link)
    if parts.scheme or not parts.path:
        return link, None
    path = (source.parent / unquote(parts.path)).resolve()
    if not path.exists() or not path.is_relative_to(ROOT):
        return link, None  # found to be broken afterwards
    name, anchor = path.relative_to(ROOT).as_posix(), f"#{parts.fragment}" if parts.fragment else ""
    if path.suffix == ".ipynb":
        executed = f"paper/notebooks/{path.stem}.html"
        if (site / executed).is_file():
            return executed, None
    elif path.suffix == ".py" and name.startswith("lusbio/"):
        return f"api/{name.removesuffix('.py').removesuffix('/__init__')}.html{anchor}", None
    elif path.is_dir() and (path / "__init__.py").is_file():
        return f"api/{name}.html", None
    elif path.suffix == ".md":
        return f"{name.removesuffix('.md')}.html{anchor}", path
    if path.is_dir():
        return _list_folder(path, name, site), None
    (site / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, site / name)
    return name, None


def _list_folder(path: Path, name: str, site: Path) -> str:
    """A folder without a page of its own: what is in it."""
    items = "".join(f"<li>{escape(file.name)}</li>" for file in sorted(path.glob("[!._]*")))
    body = f"<h1>{escape(name)}</h1><ul>{items}</ul>"
    up = "../" * (name.count("/") + 1)
    menu = f'<a href="{up}README.html">Start</a>'
    write_text(FRAME.format(title=escape(name), up=up, menu=menu, body=body), site / name / "index.html")
    return f"{name}/index.html"


def write_colab(site: Path, repository: str) -> str:
    """The notebooks for Colab, with the install cell, and the HTML of their badges."""
    links = []
    for name in COLAB:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        cell = {"cell_type": "code", "id": "install", "metadata": {}, "execution_count": None, "outputs": []}
        notebook["cells"].insert(1, cell | {"source": INSTALL.format(repository=repository)})
        write_json(notebook, site / "colab" / f"{name}.ipynb")
        address = f"https://colab.research.google.com/github/{repository}/blob/gh-pages/colab/{name}.ipynb"
        links.append(f'<a href="{address}">{name} in Colab</a>')
    return f"<p>{' · '.join(links)}</p>"


class _Page(HTMLParser):
    """What a page links to, and the anchors it has."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        self.links += [found[key] for key in ("href", "src") if found.get(key)]


def find_broken_links(site: Path) -> list[str]:
    """Links to files or anchors that are not there, and pictures, styles and scripts from elsewhere."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors | {""} if target in pages else {parts.fragment}
            if not target.is_file() or not anchors & {parts.fragment, unquote(parts.fragment)}:
                broken.append(f"{path.relative_to(site)}: {link}")
    return sorted(set(broken))


def main() -> int:
    """The command line: 0 when every link leads somewhere."""
    parser = argparse.ArgumentParser(description="Write the site to build/site.")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--repository", default="", help="owner/name on GitHub, for links to Colab")
    options = parser.parse_args()
    site = build_folder("site").resolve()
    try:
        broken = build_site(site, options.profile, options.repository)
    except LusbioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        *broken, f"{site / 'index.html'}: {len(list(site.rglob('*.html')))} pages, {len(broken)} broken links", sep="\n"
    )
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
