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
    """A table of the rows, then every other figure, then the machine."""
    columns = list(dict.fromkeys(name for item in report["rows"] for name in item))
    lines = [f"# {title}", ""]
    if columns:
        lines += [_line(columns), _line(["---", *["---:"] * (len(columns) - 1)])]
        lines += [_line([_shown(item.get(name, "")) for name in columns]) for item in report["rows"]]
        lines.append("")
    figures = {name: value for name, value in report.items() if name not in ("rows", "machine")}
    lines += [f"- {name}: {_shown(value)}" for name, value in _flat(figures).items()]
    machine = ", ".join(f"{name} {_shown(value)}" for name, value in report["machine"].items())
    return "\n".join([*lines, "", f"Measured on: {machine}", ""])


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
