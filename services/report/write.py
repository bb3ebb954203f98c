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
from thex.atomic import write_text

Row = dict[str, Any]
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{border-bottom:1px solid #ccc;padding:.25rem .6rem;text-align:left}img{max-width:100%}"
)


RESULTS, RUNNING = "results.json", "results.running.json"
"""What a report is made of, and the same while runs are missing: what a finished one says is not lost to a stopped one."""
MOST_LINES = 12
"""Of what is left out, for a person to read: lists of encoders, tasks, recipes and seeds multiply."""


def write_results(
    rows: Sequence[Row], left_out: Sequence[str], facts: dict[str, Any], directory: Path, name: str = RESULTS
) -> None:
    """The file, whole or as before. left_out: what is wanted and not there, a line each."""
    document = {**facts, "left_out": list(left_out), "rows": list(rows)}
    write_text(directory / name, json.dumps(document, indent=1) + "\n")


def write_report(rows: Sequence[Row], left_out: Sequence[str], facts: dict[str, Any], directory: Path) -> list[Path]:
    """All files; their paths. ValueError without rows."""
    if not rows:
        raise ValueError("there are no rows to report")
    write_results(rows, left_out, facts, directory)
    (directory / RUNNING).unlink(missing_ok=True)
    figures = draw(rows, directory)
    markdown, page = [f"# {_title(rows)}", "", _origin(rows, facts)], [f"<h1>{html.escape(_title(rows))}</h1>"]
    page.append(f"<p>{html.escape(_origin(rows, facts))}</p>")
    for title, table_of in SECTIONS.items():
        table = table_of(rows)
        if len(table) == 1:
            continue
        markdown += ["", f"## {title}", "", EXPLANATIONS[title], "", *_markdown(table)]
        page += [f"<h2>{html.escape(title)}</h2><p>{html.escape(EXPLANATIONS[title])}</p>", _html(table)]
    if left_out:
        lines = list(left_out)
        if len(lines) > MOST_LINES:
            lines = [f"{len(lines)} of what was wanted is not there: {RESULTS} says which, and why."]
        markdown += ["", "## Left out", "", *(f"- {line}" for line in lines)]
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
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
    return [directory / RESULTS, directory / "report.md", directory / "report.html", *figures]


def _title(rows: Sequence[Row]) -> str:
    return f"Every step measured: {', '.join(dict.fromkeys(row['task'] for row in rows))}"


def _origin(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    written = f"Written by `{facts['command']}` on {machine['cores']} cores of {machine['processor']}."
    others = sorted({str(row["machine"]) for row in rows if row.get("machine")} - {machine["processor"]})
    return f"{written} Some rows were made on {', '.join(others)}." if others else written


def _markdown(table: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return [lines[0], "|" + "---|" * len(table[0]), *lines[1:]]


def _html(table: list[list[str]]) -> str:
    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + row(table[0], "th") + "".join(row(cells, "td") for cells in table[1:]) + "</table>"
