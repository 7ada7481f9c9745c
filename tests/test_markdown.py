import re

import pandas as pd
import pytest

from lusbio.files import to_markdown
from lusbio.publish.markdown import find_origins, render_markdown

ORIGIN = "**Simulated** patients, cohort `mine` (4 videos, 2 patients) · profile `smoke` · commit `abc1234`"
GRID = f"""\
# Table 1: three tasks

{ORIGIN}

| features | classifier | Lung severity, AUC | Lung severity, Accuracy | S/F ratio, AUC |
| --- | --- | --- | --- | --- |
| end-to-end | E2E | 69.0 ± 1.3 [63.9, 74.2] (81.5 ± 1.0) | 46.7 ± 3.1 [40.3, 53.4] | — |
| end-to-end | RF | 68.0 ± 1.3 [63.9, 74.2] | 46.7 ± 3.1 [40.3, 53.4] | 50.0 ± 0.1 [49.0, 51.0] |
| biomarkers | RF | 61.0 ± 1.3 [63.9, 74.2] | 46.7 ± 3.1 [40.3, 53.4] | 50.0 ± 0.1 [49.0, 51.0] |
| biomarkers | DT | 60.0 ± 1.3 [63.9, 74.2] | 46.7 ± 3.1 [40.3, 53.4] | 50.0 ± 0.1 [49.0, 51.0] |

Percent.
"""


def cells(html):
    return [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", html, re.DOTALL)]


def test_every_cell_is_there_and_only_groups_are_said_once():
    title, html = render_markdown(GRID)
    assert title == "Table 1: three tasks"
    assert cells(html)[:6] == ["classifier", "Lung severity", "S/F ratio", "AUC", "Accuracy", "AUC"]
    assert cells(html).count("end-to-end") == cells(html).count("biomarkers") == 1
    assert html.index("end-to-end") < html.index("E2E") < html.index(">biomarkers<") < html.index(">DT<")
    assert html.count('class="cell"') == 11 and cells(html).count("—") == 1


def test_a_column_without_a_metric_stands_beside_those_with_one():
    lines = [
        f"{line} {'Train (min)' if 'features' in line else '---' if '---' in line else '2.50 (194)'} |"
        if line.startswith("|")
        else line
        for line in GRID.splitlines()
    ]
    html = render_markdown("\n".join(lines))[1]
    head = html[html.index("<thead>") : html.index("</thead>")]
    assert '<th rowspan="2">Train (min)</th></tr>' in head and '<th colspan="2">Lung severity</th>' in head
    assert cells(head) == ["classifier", "Lung severity", "S/F ratio", "Train (min)", "AUC", "Accuracy", "AUC"]
    assert html.count('<td class="number">2.50 (194)</td>') == 4


def test_a_row_without_a_classifier_keeps_the_groups():
    anchor = "| anchor | — | 50.0 ± 0.0 [50.0, 50.0] | 44.0 ± 0.0 [27.3, 59.9] | — |\n"
    _, html = render_markdown(GRID.replace("\nPercent.", 2 * anchor + "\nPercent."))
    assert cells(html).count("end-to-end") == 1 and html.count('class="group"') == 3


def test_a_cell_has_its_interval_and_its_published_number_apart():
    html = render_markdown(GRID)[1]
    assert "<b>69.0</b> ± 1.3<br><span>[63.9, 74.2]</span> <i>(81.5 ± 1.0)</i></td>" in html
    assert "<b>68.0</b> ± 1.3<br><span>[63.9, 74.2]</span></td>" in html


def test_an_origin_told_elsewhere_is_not_repeated():
    (origin,) = find_origins(GRID)
    assert origin.startswith("Simulated patients") and origin.endswith("commit abc1234")
    assert "abc1234" in render_markdown(GRID)[1]
    assert "abc1234" not in render_markdown(GRID, origin)[1]
    assert "abc1234" in render_markdown(GRID, origin.replace("smoke", "laptop"))[1]
    assert '<p class="note">Percent.</p>' in render_markdown(GRID, origin)[1]


def test_one_row_per_group_needs_no_groups():
    text = (
        "| rater | videos | agreement |\n|---|---|---|\n"
        "| trainee | 9 | 56.0 [50.0, 62.0] |\n| network | 9 | 50.0 [40.0, 60.0] |"
    )
    html = render_markdown(text)[1]
    assert cells(html)[:3] == ["rater", "videos", "agreement"] and "group" not in html
    assert '<td class="number">9</td>' in html


@pytest.mark.parametrize(("rows", "folded"), [(50, False), (51, True)])
def test_long_plain_tables_are_folded_away(rows, folded):
    text = "| a | b |\n| --- | --- |\n" + "| x | 1.5 |\n" * rows
    assert ("<details>" in render_markdown(text)[1]) is folded
    assert render_markdown(text)[1].count("<td") == 2 * rows


def test_markup_in_data_is_shown_not_obeyed():
    table = pd.DataFrame({"a_name": ["<script>x</script>"], "b": ["1|2"]})
    title, html = render_markdown("# <b>\n\n" + to_markdown(table) + "\n\n<img src=x>")
    assert "<script" not in html and "<img" not in html
    assert "1|2" in html and "a name" in html and title == "<b>"


def test_whatever_else_markdown_has_is_kept():
    html = render_markdown("# T\n\n## Part\n\n- one\n- `two`\n\n| a |\n| --- |\n| 1 |\n\n| c |\n| --- |\n| 2 |")[1]
    assert "<h2>Part</h2>" in html and "<li>one</li>" in html and html.count("<table") == 2
