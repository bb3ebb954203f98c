"""The rows of a report as tables: means and deviations over seeds, in the order of the workflow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
STEPS = ("exact", "activation", "softmax", "norm", "distil", "calibrate", "simulated", "encrypted")
TITLES = {
    "exact": "exact", "activation": "+ReLU/poly", "softmax": "+softmax", "norm": "+LayerNorm", "distil": "distilled",
    "calibrate": "rounded", "simulated": "simulated", "encrypted": "encrypted",
}  # fmt: skip
BEYOND_MAJORITY = 1.0
"""An exact student no more than this above the majority answer proves nothing."""


def groups(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """(encoder, task, recipe) in the order of the rows."""
    return list(dict.fromkeys((row["encoder"], row["task"], row["recipe"]) for row in rows))


def steps(rows: Sequence[Row]) -> list[str]:
    """The steps that occur: the known ones in order, then others as they come."""
    found = list(dict.fromkeys(row["step"] for row in rows))
    return [step for step in STEPS if step in found] + [step for step in found if step not in STEPS]


def of(rows: Sequence[Row], group: tuple[str, str, str], step: str) -> list[Row]:
    """The rows of a group at a step, one a seed."""
    return [row for row in rows if (row["encoder"], row["task"], row["recipe"]) == group and row["step"] == step]


def spread(values: Sequence[float]) -> str:
    """Mean, and with two or more seeds the sample standard deviation."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    return f"{mean:z.2f}" if len(values) == 1 else f"{mean:z.2f} ± {statistics.stdev(values):.2f}"


def by_step(rows: Sequence[Row]) -> list[list[str]]:
    """Task by step, a header row first. Sampled steps carry their count."""
    shown = steps(rows)
    table = [["encoder", "task", "recipe", "metric", "seeds", *(TITLES.get(step, step) for step in shown), "drop"]]
    for group in groups(rows):
        first, last = of(rows, group, "exact"), of(rows, group, "calibrate")
        cells = []
        for step in shown:
            found = of(rows, group, step)
            cells.append(spread([row["value"] for row in found]) + _sample(found, first[0]["count"]))
        encoder, task, recipe = group
        drop = spread([row["drop"] for row in last])
        table.append([encoder, task, recipe, first[0]["metric"], str(len(first)), *cells, drop])
    return table


def _sample(found: Sequence[Row], whole: int) -> str:
    """What share of the dev file's examples a step was measured on, where it is not all of them."""
    counts = sorted({row["count"] for row in found})
    if counts in ([], [whole]):
        return ""
    return f" (of {counts[0]})" if len(counts) == 1 else f" (of {counts[0]} to {counts[-1]})"


def mean_drops(rows: Sequence[Row]) -> list[list[str]]:
    """Mean and largest drop over tasks of each encoder and recipe, a header row first."""
    table = [["encoder", "recipe", "tasks", "mean drop", "largest drop", "tasks that prove nothing"]]
    for encoder, recipe in dict.fromkeys((row["encoder"], row["recipe"]) for row in rows):
        drops, empty = {}, []
        for group in groups(rows):
            last = of(rows, group, "calibrate")
            if (group[0], group[2]) != (encoder, recipe) or not last:
                continue
            drops[group[1]] = statistics.fmean(row["drop"] for row in last)
            exact = of(rows, group, "exact")
            proves_from = exact[0].get("majority", -math.inf) + BEYOND_MAJORITY
            if statistics.fmean(row["value"] for row in exact) <= proves_from:
                empty.append(group[1])
        if drops:
            worst = max(drops, key=drops.__getitem__)
            table.append([
                encoder, recipe, str(len(drops)), f"{statistics.fmean(drops.values()):z.2f}",
                f"{drops[worst]:z.2f} ({worst})", ", ".join(empty) or "none",
            ])  # fmt: skip
    return table


def agreements(rows: Sequence[Row]) -> list[list[str]]:
    """Agreement with the exact student, and of simulated and encrypted answers with the plain replaced model."""
    table = [
        [
            "encoder",
            "task",
            "recipe",
            "with exact, %",
            "step",
            "examples",
            "with plain, %",
            "largest logit error",
            "refused",
        ]
    ]
    for group in groups(rows):
        exact = spread([row["agreement_exact"] for row in of(rows, group, "calibrate")])
        lines = [(step, of(rows, group, step)) for step in ("simulated", "encrypted") if of(rows, group, step)]
        for step, found in lines or [("", [])]:
            error = f"{max(row['max_logit_error'] for row in found):.1e}" if found else ""
            table.append([
                *group, exact, step, str(sum(row["count"] for row in found)) if found else "",
                _pooled(found, "agreement_plain"), error,
                str(sum(row["out_of_range"] for row in found)) if found else "",
            ])  # fmt: skip
    return table


def _pooled(found: Sequence[Row], name: str) -> str:
    """The share over all seeds' examples together."""
    count = sum(row["count"] for row in found)
    return f"{sum(row['count'] * row[name] for row in found) / count:.2f}" if count else ""


def ranges(rows: Sequence[Row]) -> list[list[str]]:
    """Largest share of a calibrated range that dev and hostile texts reach, and how many texts leave one."""
    table = [["encoder", "task", "recipe", "texts", "largest share used", "at", "texts outside"]]
    for group in groups(rows):
        found = [row for row in of(rows, group, "calibrate") if row.get("dev_ranges")]
        if not found:
            continue
        kinds = {"dev": [row["dev_ranges"] for row in found]}
        for row in found:
            for name, seen in row["hostile_ranges"].items():
                kinds.setdefault(name, []).append(seen)
        for kind, seen in kinds.items():
            point, share = max(((p, s) for each in seen for p, s in each["used"].items()), key=lambda item: item[1])
            outside, texts = sum(each["outside"] for each in seen), sum(each["texts"] for each in seen)
            table.append([*group, kind, f"{share:.2f}", point, f"{outside} of {texts}"])
    return table


def costs(rows: Sequence[Row]) -> list[list[str]]:
    """Depth, keys and estimated time where a bundle exists; else why there is none."""
    table = [
        [
            *("encoder", "task", "recipe", "depth", "levels", "ring", "keys, MB"),
            *("one thread, s, by tokens", "no bundle because"),
        ]
    ]
    for group in groups(rows):
        # Seeds differ in weights alone, so that most have one line; what one of them alone cannot do is not hidden.
        lines = dict.fromkeys(_cost(row) for row in of(rows, group, "calibrate"))
        table += [[*group, *line] for line in lines]
    return table


def _cost(row: Row) -> tuple[str, ...]:
    if "depth" not in row:
        return ("", "", "", "", "", row.get("not_exported_because") or "some operations stay exact")
    times = ", ".join(f"{bucket}: {ms / 1000:.1f}" for bucket, ms in row["estimated_milliseconds_one_thread"].items())
    numbers = (row["depth"], row["levels"], row["ring_degree"], round(row["key_bytes"] / 1e6))
    return (*map(str, numbers), times, "")


SECTIONS = {
    "Task by step": by_step,
    "Drop": mean_drops,
    "Agreement": agreements,
    "Ranges": ranges,
    "Depth and cost": costs,
}
EXPLANATIONS = {
    "Task by step": "Main metric on the whole dev file, or on a fixed random sample of the size given; mean ± deviation over "
    "seeds. "
    "The drop is exact less rounded, which is what a bundle holds.",
    "Drop": "A task proves nothing when its exact student is at most one point above the majority answer.",
    "Agreement": "Regression: Pearson correlation with exact; share of scores within 1e-2 of the plain replaced model.",
    "Ranges": "1 is the end of the calibrated range (margin included); texts outside are refused or reported, never silent.",
    "Depth and cost": "Depth is the fewest levels that any lowering needs, levels are the plan's, which may spend more to be "
    "quicker; keys and the planner's estimate for the machine its prices were fitted on.",
}
