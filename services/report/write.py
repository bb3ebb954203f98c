"""The files of a report: results.json, report.md, figures, and one HTML page that holds all of it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.report.figures import draw
from services.report.tables import EXPLANATIONS, SECTIONS

Row = dict[str, Any]
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{border-bottom:1px solid #ccc;padding:.25rem .6rem;text-align:left}img{max-width:100%}"
)


def write_results(rows: Sequence[Row], left_out: Sequence[str], facts: dict[str, Any], directory: Path) -> None:
    """results.json, whole or as before. left_out: what is wanted and not there, a line each."""
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "results.part"
    document = {**facts, "left_out": list(left_out), "rows": list(rows)}
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(directory / "results.json")


def write_report(rows: Sequence[Row], left_out: Sequence[str], facts: dict[str, Any], directory: Path) -> list[Path]:
    """All files; their paths. ValueError without rows."""
    if not rows:
        raise ValueError("there are no rows to report")
    write_results(rows, left_out, facts, directory)
    figures = draw(rows, directory)
    markdown, page = [f"# {_title(rows)}", "", _origin(facts)], [f"<h1>{html.escape(_title(rows))}</h1>"]
    page.append(f"<p>{html.escape(_origin(facts))}</p>")
    for title, table_of in SECTIONS.items():
        table = table_of(rows)
        if len(table) == 1:
            continue
        markdown += ["", f"## {title}", "", EXPLANATIONS[title], "", *_markdown(table)]
        page += [f"<h2>{html.escape(title)}</h2><p>{html.escape(EXPLANATIONS[title])}</p>", _html(table)]
    if left_out:
        markdown += ["", "## Left out", "", *(f"- {line}" for line in left_out)]
        items = "".join(f"<li>{html.escape(line)}</li>" for line in left_out)
        page.append(f"<h2>Left out</h2><ul>{items}</ul>")
    for figure in figures:
        markdown += ["", f"![{figure.stem}]({figure.name})"]
        encoded = base64.b64encode(figure.read_bytes()).decode()
        page.append(f'<img alt="{figure.stem}" src="data:image/png;base64,{encoded}">')
    (directory / "report.md").write_text("\n".join(markdown) + "\n", encoding="utf-8")
    (directory / "report.html").write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(_title(rows))}</title><style>{STYLE}</style>"
        + "\n".join(page)
        + "</html>\n",
        encoding="utf-8",
    )
    return [directory / "results.json", directory / "report.md", directory / "report.html", *figures]


def _title(rows: Sequence[Row]) -> str:
    return f"Every step measured: {', '.join(dict.fromkeys(row['task'] for row in rows))}"


def _origin(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    return f"Written by `{facts['command']}` on {machine['cores']} cores of {machine['processor']}."


def _markdown(table: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return [lines[0], "|" + "---|" * len(table[0]), *lines[1:]]


def _html(table: list[list[str]]) -> str:
    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + row(table[0], "th") + "".join(row(cells, "td") for cells in table[1:]) + "</table>"
