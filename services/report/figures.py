"""Figures of a report: the metric by step, and how much of the calibrated ranges is used."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.report.tables import STEPS, TITLES, groups, of, steps

Row = dict[str, Any]
DOTS_PER_INCH = 90


def draw(rows: Sequence[Row], directory: Path) -> list[Path]:
    """Write steps.png and, where ranges were measured, ranges.png; their paths."""
    import matplotlib as mpl

    mpl.use("Agg")
    written = [_steps(rows, directory / "steps.png")]
    if any(row.get("dev_ranges") for row in rows):
        written.append(_ranges(rows, directory / "ranges.png"))
    return written


def _panels(count: int, height: float) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * min(count, 4), height * -(-count // 4)), layout="constrained")
    axes = figure.subplots(-(-count // 4), min(count, 4), squeeze=False).flatten()
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes


def _steps(rows: Sequence[Row], path: Path) -> Path:
    panels = list(dict.fromkeys((row["encoder"], row["task"]) for row in rows))
    shown = [step for step in steps(rows) if step in STEPS[:6]]
    figure, axes = _panels(len(panels), 3.2)
    for axis, panel in zip(axes, panels, strict=False):
        for group in groups(rows):
            if group[:2] != panel:
                continue
            points = [(place, of(rows, group, step)) for place, step in enumerate(shown)]
            points = [(place, found) for place, found in points if found]
            means = [statistics.fmean(row["value"] for row in found) for _, found in points]
            (line,) = axis.plot([place for place, _ in points], means, marker="o", label=group[2])
            for place, found in points:
                values = [row["value"] for row in found]
                axis.scatter([place] * len(values), values, color=line.get_color(), alpha=0.35, s=14)
        first = next(row for row in rows if (row["encoder"], row["task"]) == panel)
        if "majority" in first:
            axis.axhline(first["majority"], color="grey", linestyle=":", linewidth=1, label="majority")
        axis.set_xticks(range(len(shown)), [TITLES[step] for step in shown], rotation=30, ha="right", fontsize=8)
        axis.set_title(f"{panel[1]}, {panel[0]}", fontsize=9)
        axis.set_ylabel(first["metric"], fontsize=8)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path


def _ranges(rows: Sequence[Row], path: Path) -> Path:
    measured = [group for group in groups(rows) if any(row.get("dev_ranges") for row in of(rows, group, "calibrate"))]
    figure, axes = _panels(len(measured), 3.0)
    for axis, group in zip(axes, measured, strict=False):
        row = next(row for row in of(rows, group, "calibrate") if row.get("dev_ranges"))
        kinds = {"dev": row["dev_ranges"], **row["hostile_ranges"]}
        points = list(row["dev_ranges"]["used"])
        for kind, seen in kinds.items():
            axis.plot(range(len(points)), [seen["used"][point] for point in points], marker=".", label=kind)
        axis.axhline(1, color="red", linewidth=1)
        axis.set_yscale("log")
        axis.set_xticks(range(len(points)), points, rotation=60, ha="right", fontsize=7)
        axis.set_title(f"{group[1]}, {group[2]}, seed {row['seed']}", fontsize=9)
        axis.set_ylabel("share of the range used", fontsize=8)
        axis.legend(fontsize=6)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path
