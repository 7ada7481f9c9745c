"""The Markdown of tables as HTML: intervals and published numbers on lines of their own, rows in groups."""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

import mistune

CELL = re.compile(r"^(\S+)( ± \S+)? (\[[^\]]+\])(?: (\(.+\)))?$")
NUMBER = re.compile(r"^[-+−]?[\d.,]+( ?%)?( \([\d.,]+\))?$|^—$")
HEADINGS = {"auc": "AUC", "sd": "SD", "ci_low": "from (95 %)", "ci_high": "to (95 %)"}

_PARSE = mistune.create_markdown(renderer=None, plugins=["table"])
_RENDER = mistune.HTMLRenderer(escape=True)


def render_markdown(text: str, common: str = "", longest: int = 50) -> tuple[str, str]:
    """What stands in a table's Markdown file, as HTML.

    Args:
        text: Markdown: a title, where the numbers come from, tables, notes.
        common: An origin that need not be repeated; see ``find_origins``.
        longest: Rows after which a plain table is folded away.

    Returns:
        The title as plain text, empty where there is none, and the rest as HTML. Markup within the
        Markdown is shown, not obeyed.
    """
    tokens, state = _PARSE.parse(text)
    title, parts = "", []
    for token in tokens:
        if token["type"] == "heading" and not title:
            title = _plain(token)
        elif token["type"] == "table":
            parts.append(_table(token, state, longest))
        elif token["type"] != "paragraph":
            parts.append(_RENDER.render_tokens([token], state))
        elif _plain(token) != common:
            kind = "origin" if _is_origin(_plain(token)) else "note"
            parts.append(f'<p class="{kind}">{_RENDER.render_tokens(token["children"], state)}</p>')
    return title, "\n".join(parts)


def _plain(token: dict) -> str:
    return token.get("raw", "") + "".join(map(_plain, token.get("children", [])))


def find_origins(text: str) -> list[str]:
    """The lines of a Markdown text that say what the numbers come from, as plain text."""
    return list(filter(_is_origin, map(_plain, _PARSE.parse(text)[0])))


def _is_origin(text: str) -> bool:
    return "commit " in text and " patients" in text


def _table(token: dict, state: mistune.BlockState, longest: int) -> str:
    """A table; where its cells are ``mean ± sd [interval] (published)``, in groups by its first column."""
    rows = [token["children"][0], *(row for body in token["children"][1:] for row in body["children"])]
    head, *body = [[_RENDER.render_tokens(cell["children"], state) for cell in row["children"]] for row in rows]
    if not any(CELL.match(cell) for row in body for cell in row):
        table = _box(_head(head, len(head)), (_row(row, n_heads=0) for row in body), "")
        return f"<details><summary>{len(body)} rows</summary>{table}</details>" if len(body) > longest else table
    columns = list(zip(*body, strict=True))
    values = [any(map(CELL.match, cells)) or all(map(NUMBER.match, cells)) for cells in columns]
    n_heads = values.index(True)
    if n_heads < 2 or 2 * len(set(columns[0])) > len(body):
        return _box(_head(head, n_heads), (_row(row, n_heads) for row in body), "grid")
    lines = []
    for group, members in groupby(body, key=lambda row: row[0]):
        lines.append(f'<tr class="group"><th colspan="{len(head) - 1}"><b>{group}</b></th></tr>')
        lines += [_row(row[1:], n_heads - 1) for row in members]
    return _box(_head(head[1:], n_heads - 1), lines, "grid")


def _box(head: str, rows: Iterable[str], kind: str) -> str:
    body = "\n".join(rows)
    return f'<div class="box"><table class="{kind}"><thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _head(names: Sequence[str], n_heads: int) -> str:
    """Two lines where columns are named ``task, metric``: tasks above, metrics below. No comma, no task."""
    pairs = [("", "", name) if k < n_heads else name.rpartition(", ") for k, name in enumerate(names)]
    if not any(task for task, _, _ in pairs):
        plain = [HEADINGS.get(name, name.replace("_", " ")) for name in names]
        return f"<tr>{''.join(f'<th>{name}</th>' for name in plain)}</tr>"
    above = []
    for task, members in groupby(pairs, key=lambda pair: pair[0]):
        metrics = [metric for *_, metric in members]
        whole = [f'<th rowspan="2">{name}</th>' for name in metrics]
        above += [f'<th colspan="{len(metrics)}">{task}</th>'] if task else whole
    below = "".join(f"<th>{metric}</th>" for task, _, metric in pairs if task)
    return f"<tr>{''.join(above)}</tr><tr>{below}</tr>"


def _row(cells: Sequence[str], n_heads: int) -> str:
    heads = "".join(f'<th scope="row">{cell}</th>' for cell in cells[:n_heads])
    return f"<tr>{heads}{''.join(map(_cell, cells[n_heads:]))}</tr>"


def _cell(text: str) -> str:
    """Mean, interval and published on a line each."""
    if match := CELL.match(text):
        mean, sd, interval, published = match.groups(default="")
        below = f" <i>{published}</i>" if published else ""
        return f'<td class="cell"><b>{mean}</b>{sd}<br><span>{interval}</span>{below}</td>'
    kind = "number" if NUMBER.match(text) else "long" if len(text) > 40 else "text"
    return f'<td class="{kind}">{text}</td>'
