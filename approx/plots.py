"""Figures of replacements: function and fit over the domain with the data's histogram, the error below; PNG with its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from approx.calibration_values import CalibrationValues, standard_values
from approx.catalogue import Entry, fitted
from approx.measuring import Curve, curve

BINS = 60
DOTS_PER_INCH = 100


def plot(entry: Entry, directory: Path, values: CalibrationValues | None = None) -> tuple[Path, Path]:
    """Write <operation>-<name>.png and, with every number in it, .json into the directory; their paths.

    values: those that the entry was made with (standard ones if None). The JSON holds the entry's row, `x`, `exact`,
    `replaced`, `error` (replaced - exact), and the histogram's `edges` and `counts`.
    """
    values = values if values is not None else standard_values()
    replaced, exact = (fitted(entry.operation, name, values) for name in (entry.name, "exact"))
    drawn = curve(entry.operation, replaced, exact, values)
    counts, edges = np.histogram(drawn.samples, bins=BINS, range=entry.errors.domain)
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{entry.operation}-{entry.name}"
    image, numbers = directory / f"{stem}.png", directory / f"{stem}.json"
    _draw(entry, drawn, counts, edges).savefig(image, dpi=DOTS_PER_INCH)
    document: dict[str, Any] = {
        **entry.as_row(), "variable": drawn.of, "value": drawn.value, "x": drawn.x.tolist(), "exact": drawn.exact.tolist(),
        "replaced": drawn.replaced.tolist(), "error": (drawn.replaced - drawn.exact).tolist(), "edges": edges.tolist(),
        "counts": counts.tolist(),
    }  # fmt: skip
    numbers.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return image, numbers


def _draw(entry: Entry, drawn: Curve, counts: np.ndarray, edges: np.ndarray) -> Figure:
    # A Figure of its own draws with Agg, needs no display, and leaves pyplot's state alone.
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    data = above.twinx()
    data.stairs(counts, edges, fill=True, color="tab:gray", alpha=0.25)
    data.set_yticks([])
    data.set_ylabel("values seen", color="tab:gray", fontsize=8)
    above.set_zorder(data.get_zorder() + 1)
    above.patch.set_visible(False)
    above.plot(drawn.x, drawn.exact, color="black", linewidth=1, label="exact")
    above.plot(drawn.x, drawn.replaced, color="tab:blue", linestyle="--", label=entry.name)
    above.set_ylabel(drawn.value)
    above.legend()
    above.set_title(
        f"{entry.operation}: {entry.name}, largest error {entry.errors.largest:.3g}, usual {entry.errors.usual:.3g}",
        fontsize=10,
    )
    below.plot(drawn.x, drawn.replaced - drawn.exact, color="tab:red")
    below.axhline(0, color="black", linewidth=0.5)
    below.set_ylabel("error")
    below.set_xlabel(drawn.of)
    return figure
