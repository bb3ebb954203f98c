"""What every benchmark returns: one JSON-ready object with `rows` and `machine`; and the same as Markdown."""

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
Report = dict[str, Any]


def row(name: str, seconds: float, seal_seconds: float | None = None) -> Row:
    """One figure, and where SEAL is beside it, its seconds and how many times ours is faster."""
    if seal_seconds is None:
        return {"name": name, "seconds": seconds}
    return {"name": name, "seconds": seconds, "seal_seconds": seal_seconds, "ratio": seal_seconds / seconds}


def markdown(title: str, report: Report) -> str:
    """A table of the rows, one of every other list of rows, then every other figure, then the machine."""
    lines = [f"# {title}", "", *_table(report["rows"])]
    figures = {name: value for name, value in report.items() if name not in ("rows", "machine")}
    for name, value in figures.items():
        if _is_rows(value):
            lines += [f"## {name}", "", *_table(value)]
    lines += [f"- {name}: {_shown(value)}" for name, value in _flat(figures).items() if not _is_rows(value)]
    machine = ", ".join(f"{name} {_shown(value)}" for name, value in report["machine"].items())
    return "\n".join([*lines, "", f"Measured on: {machine}", ""])


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _table(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys(name for item in rows for name in item))
    head = [_line(columns), _line(["---", *["---:"] * (len(columns) - 1)])]
    return [*head, *(_line([_shown(item.get(name, "")) for name in columns]) for item in rows), ""]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}, "))
        else:
            flat[prefix + name] = value
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(_shown(item) for item in value)
    return str(value)
