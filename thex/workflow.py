"""The workflow: fine-tune, then a recipe's stages, then calibrate and export; each stage resumes and leaves its metrics.

Under the work directory:

    teachers/<task>/                                the larger encoder's logits
    <encoder>/<task>/seed-<k>/finetune/             the exact student
    <encoder>/<task>/seed-<k>/<recipe>/<stage>/     model.safetensors and metrics.json after each stage
    <encoder>/<task>/seed-<k>/<recipe>/calibrate/   weights as shipped, ranges, final metrics
    <encoder>/<task>/seed-<k>/<recipe>/bundle/      what an operator serves, if the runtime evaluates the replacements

A stage whose metrics.json carries the identity it should have (a digest of everything that leads to it) is not run again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from thex.bundle import exportable, write_bundle
from thex.calibration import compare_with_ranges, largest_by_text, measure_ranges
from thex.config import Facts
from thex.data import Encoded, encode, length_weighted_subset, load_tokenizer
from thex.encoder import EXACT, REPLACED, Encoder, Ratios
from thex.evaluation import predict
from thex.hostile import hostile_cases
from thex.metrics import agreement, score
from thex.precision import choose_device
from thex.progress import Progress, silent
from thex.provenance import provenance
from thex.recipes import Recipe, Stage, ratios
from thex.stages import Lesson, learn, start_replacements
from thex.starting import Start, starting_point
from thex.tasks import Task, read_split, task_of
from thex.teachers import TeacherConfig, teacher_logits

SUBSET_CAP, SUBSET_POWER = 20, 1.3  # see length_weighted_subset: long texts teach more a minute
SUBSET_SEED = 0  # one subset for all seeds: the teacher answers it once
WATCHED = ("score", "preactivation", "activation", "output")


class RunConfig(Facts):
    """One model. encoder: a BERT checkpoint (directory, hub id, packaged name), or "2x128" for a fresh encoder of that many
    layers and features. teacher: None learns from labels and the exact student alone. train_texts: 0 means all."""

    encoder: str
    recipe: Recipe
    seed: int = 0
    teacher: TeacherConfig | None = TeacherConfig()
    train_texts: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Run:
    """What all stages share."""

    config: RunConfig
    task: Task
    start: Start
    device: torch.device
    train: Encoded
    dev: Encoded
    directory: Path
    work: Path
    progress: Progress


def run_recipe(
    config: RunConfig, data: Path, work: Path, bundle: Path | None = None, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Run the stages that are missing; the metrics of all, in order, the last of step "calibrate".

    bundle: where the bundle goes instead of the run's own directory. ValueError for data that is not a task's.
    """
    run = _prepare(config, data, work, progress)
    recipe = config.recipe
    chosen = length_weighted_subset(run.train, recipe.sentences, SUBSET_CAP, SUBSET_POWER, SUBSET_SEED)
    subset = run.train.subset(chosen)
    teacher: torch.Tensor | None = None
    if config.teacher is not None:
        teacher = teacher_logits(
            config.teacher, run.task, subset, run.dev, work / "teachers" / run.task.name, progress, run.device
        )
    lesson = Lesson(recipe, subset, teacher, None, config.seed, run.device, progress)
    base = _identity({
        "task": run.task.name, "encoder": run.start.digest, "seed": config.seed, "texts": len(run.train),
        "sentences": recipe.sentences, "positions": recipe.positions, "batch": recipe.batch, "dropout": recipe.dropout,
        "bounds": recipe.range_bounds.model_dump(),
        "teacher": config.teacher.model_dump() if config.teacher is not None else None,
    })  # fmt: skip
    exact = run.start.encoder.to(run.device)
    identity = _identity({"before": base, "stage": recipe.finetune.model_dump()})
    rows = [
        _stage(
            run,
            recipe.finetune,
            "finetune",
            identity,
            exact,
            EXACT,
            None,
            lambda: learn(exact, recipe.finetune, (), lesson),
        )
    ]
    exact_dev = predict(exact.eval(), run.dev, EXACT)
    lesson = Lesson(recipe, subset, teacher, exact, config.seed, run.device, progress)
    model = Encoder(exact.config, recipe.replacements).to(run.device)
    model.load_state_dict({**model.state_dict(), **_exact_part(exact)})
    start_replacements(model, lesson)
    identity = _identity({"before": identity, "replacements": recipe.replacements.model_dump()})
    for number, stage in enumerate(recipe.stages):
        before = recipe.replaced_after(number)
        identity = _identity({"before": identity, "stage": stage.model_dump()})
        place = f"{recipe.name}/{stage.name}"

        def work_of(stage: Stage = stage, before: Any = before) -> None:
            learn(model, stage, before, lesson)

        rows.append(_stage(run, stage, place, identity, model, ratios(before, stage, 1.0), exact_dev, work_of))
    rows.append(_calibrate(run, model, exact, exact_dev, identity, bundle))
    return rows


def _prepare(config: RunConfig, data: Path, work: Path, progress: Progress) -> Run:
    task = task_of(data)
    recipe = config.recipe
    start = starting_point(config.encoder, config.seed, task, recipe.positions, recipe.dropout, config.teacher)
    tokenizer = load_tokenizer(start.tokenizer, recipe.positions)
    examples = read_split(task, data, "train")
    if config.train_texts:
        examples = examples[: config.train_texts]
    train, dev = encode(tokenizer, examples), encode(tokenizer, read_split(task, data, "dev"))
    start.prepare(train, recipe.positions)
    directory = work / start.name / task.name / f"seed-{config.seed}"
    return Run(config, task, start, choose_device(config.device), train, dev, directory, work, progress)


def _identity(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _exact_part(exact: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in exact.state_dict().items() if ".replaced." not in name}


def _stage(
    run: Run,
    stage: Stage,
    place: str,
    identity: str,
    model: Encoder,
    after: Ratios,
    exact_dev: torch.Tensor | None,
    work: Callable[[], None],
) -> dict[str, Any]:
    """Load the stage's result if it is there and of this identity; else do its work, measure, and keep it."""
    directory = run.directory / place
    kept = _kept(directory / "metrics.json", identity)
    if kept is not None:
        model.load_state_dict(load_file(directory / "model.safetensors", device=str(run.device)))
        return kept
    started = time.monotonic()
    torch.manual_seed(run.config.seed)
    work()
    model.eval()
    row = {
        "identity": identity,
        "step": stage.name,
        **_measured(run, model, after, exact_dev),
        "seconds": round(time.monotonic() - started, 1),
    }
    _keep(directory, model, row)
    return row


def _kept(path: Path, identity: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return row if row["identity"] == identity else None


def _keep(directory: Path, model: Encoder, row: dict[str, Any]) -> None:
    """Weights first, metrics last: a stage with metrics is whole."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.json").unlink(missing_ok=True)
    save_file(
        {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()},
        directory / "model.safetensors",
    )
    partial = directory / "metrics.part"
    partial.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    partial.replace(directory / "metrics.json")


def _measured(run: Run, model: Encoder, after: Ratios, exact_dev: torch.Tensor | None) -> dict[str, Any]:
    """Metrics on the dev file, agreement with the exact student, and the largest values of each layer."""
    logits = predict(model, run.dev, after)
    largest = largest_by_text(model, run.dev, after)
    return {
        "task": run.task.name,
        "encoder": run.start.name,
        "recipe": run.config.recipe.name,
        "seed": run.config.seed,
        "metrics": _scores(run, logits),
        "agreement_exact": None if exact_dev is None else _agreement(run, logits, exact_dev),
        "largest": {
            point: [round(float(largest[point, layer].max()), 3) for layer in range(model.config.layers)]
            for point in WATCHED
        },
        "count": len(run.dev),
    }


def _scores(run: Run, logits: torch.Tensor) -> dict[str, float]:
    finite = torch.nan_to_num(logits, nan=0.0, posinf=0.0, neginf=0.0)
    return {name: round(value, 3) for name, value in score(run.task, finite.numpy(), run.dev.labels.numpy()).items()}


def _agreement(run: Run, logits: torch.Tensor, exact_dev: torch.Tensor) -> float:
    finite = torch.nan_to_num(logits, nan=0.0, posinf=0.0, neginf=0.0)
    return round(agreement(run.task, finite.numpy(), exact_dev.numpy(), run.dev.labels.numpy()), 3)


def _calibrate(
    run: Run, model: Encoder, exact: Encoder, exact_dev: torch.Tensor, identity: str, bundle: Path | None
) -> dict[str, Any]:
    """Round to what is shipped, measure ranges, compare dev and hostile inputs with them, and write the bundle."""
    recipe = run.config.recipe
    identity = _identity({
        "before": identity, "margin": recipe.range_margin, "sentences": recipe.calibration_sentences,
        "buckets": recipe.buckets,
    })  # fmt: skip
    directory = run.directory / recipe.name / "calibrate"
    target = bundle if bundle is not None else directory.parent / "bundle"
    kept = _kept(directory / "metrics.json", identity)
    if kept is not None and (not kept["exported"] or target.exists()):
        return kept
    started = time.monotonic()
    for each in (model, exact):
        round_to_half(each)
    fully = recipe.replaced_after(len(recipe.stages))
    after = ratios(fully, Stage(name="calibrate"), 1.0)
    row: dict[str, Any] = {"identity": identity, "step": "calibrate", **_measured(run, model, after, exact_dev)}
    row |= {"exact": _scores(run, predict(exact, run.dev, EXACT)), "exported": False}
    if after == REPLACED:
        ranges = measure_ranges(model, run.train, recipe.calibration_sentences, recipe.range_margin, run.config.seed)
        row["ranges"] = ranges
        row["dev_ranges"] = compare_with_ranges(model, run.dev, ranges)
        row["hostile_ranges"] = {
            name: compare_with_ranges(model, texts, ranges)
            for name, texts in hostile_cases(
                load_tokenizer(run.start.tokenizer, recipe.positions), recipe.positions
            ).items()
        }
        refusal = exportable(model, run.task)
        row["not_exported_because"] = refusal
        if refusal is None:
            row["exported"] = True
            main = next(iter(row["metrics"]))
            figures = {
                "count": len(run.dev), "metric": main, "exact": round(row["exact"][main], 2),
                "replaced": round(row["metrics"][main], 2), "agreement": round(row["agreement_exact"], 2),
                "out_of_range": row["dev_ranges"]["outside"],
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
    row["seconds"] = round(time.monotonic() - started, 1)
    _keep(directory, model, row)
    return row


@torch.no_grad()
def round_to_half(model: Encoder) -> None:
    """What is shipped is float16, so what is measured is, too. Coefficients are rounded as evaluated, behind their floor."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
