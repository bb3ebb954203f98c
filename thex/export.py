"""The end of every recipe: weights as shipped, ranges with their margin, and the bundle."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from thex.bundle import exportable, write_bundle
from thex.bundle_directory import manifest_digest
from thex.calibration import HELD, HOSTILE_TEXTS, OverflowedError, compare_with_ranges, measure_ranges
from thex.data import Encoded, load_tokenizer
from thex.encoder import EXACT, REPLACED, Encoder
from thex.evaluation import predict
from thex.hostile import hostile_cases
from thex.provenance import provenance
from thex.recipes import Stage, ratios
from thex.runs import Run, identity_of, keep, kept_metrics, measured, scores


def calibrate_and_export(
    run: Run, model: Encoder, exact: Encoder, exact_dev: torch.Tensor, identity: str, bundle: Path | None
) -> dict[str, Any]:
    """Round to what is shipped, measure ranges, compare dev and hostile inputs with them, and write the bundle."""
    recipe = run.config.recipe
    directory = run.directory / recipe.name / "calibrate"
    target = bundle if bundle is not None else directory.parent / "bundle"
    kept = kept_metrics(directory / "metrics.json", identity)
    if kept is not None and (not kept["exported"] or kept.get("manifest") == manifest_digest(target)):
        return kept
    run.may_run(f"{recipe.name}/calibrate")
    started = time.monotonic()
    for each in (model, exact):
        round_to_half(each)
    fully = recipe.replaced_after(len(recipe.stages))
    after = ratios(fully, Stage(name="calibrate"), 1.0)
    row: dict[str, Any] = {"identity": identity, "step": "calibrate", **measured(run, model, after, exact_dev)}
    row |= {"exact": scores(run, predict(exact, run.dev, EXACT)), "exported": False}
    if after == REPLACED:
        row |= _export(run, model, exact, row, target, _hostile(run))
    row["seconds"] = round(time.monotonic() - started, 1)
    keep(directory, model, row)
    return row


def calibrate_identity(run: Run, before: str) -> str:
    """Of the last step, given the identity of the one before."""
    recipe = run.config.recipe
    return identity_of({
        "before": before, "margin": recipe.range_margin, "sentences": recipe.calibration_sentences, "held": HELD,
        "buckets": recipe.buckets, "hostile_texts": HOSTILE_TEXTS,
        "hostile": {name: texts.ids for name, texts in _hostile(run).items()},
        **({"outputs": "as long as the exact encoder's"} if run.task.kind == "embedding" else {}),
    })  # fmt: skip


def _hostile(run: Run) -> dict[str, Encoded]:
    positions = run.config.recipe.positions
    return hostile_cases(load_tokenizer(run.start.tokenizer, positions), positions, run.start.encoder.config.vocabulary)


def _export(
    run: Run, model: Encoder, exact: Encoder, row: dict[str, Any], target: Path, odd: dict[str, Encoded]
) -> dict[str, Any]:
    """Ranges, how dev and hostile texts use them, and the bundle or the reason why there is none."""
    recipe = run.config.recipe
    try:
        own = exact if run.task.kind == "embedding" else None
        ranges = measure_ranges(
            model, run.train, recipe.calibration_sentences, recipe.range_margin, run.config.seed, own
        )
    except OverflowedError as error:
        return {"exported": False, "not_exported_because": str(error)}
    found: dict[str, Any] = {
        "ranges": ranges,
        "dev_ranges": compare_with_ranges(model, run.dev, ranges),
        "hostile_ranges": {name: compare_with_ranges(model, texts, ranges) for name, texts in odd.items()},
        "not_exported_because": exportable(model, run.task),
    }
    if found["not_exported_because"] is not None:
        return found
    main = next(iter(row["metrics"]))
    figures = {
        "count": len(run.dev), "metric": main, "exact": round(row["exact"][main], 2),
        "replaced": round(row["metrics"][main], 2), "agreement": round(row["agreement_exact"], 2),
        "out_of_range": found["dev_ranges"]["outside"],
    }  # fmt: skip
    write_bundle(
        target,
        model,
        run.task,
        f"{run.task.name.lower()}-{run.start.name}",
        recipe.buckets,
        ranges,
        {"dev": figures},
        provenance(json.loads(run.config.model_dump_json()), run.device),
        run.start.tokenizer,
    )
    return {**found, "exported": True, "manifest": manifest_digest(target)}


@torch.no_grad()
def round_to_half(model: Encoder) -> None:
    """What is shipped is float16, so what is measured is, too. Coefficients are rounded as evaluated, behind their floor."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
