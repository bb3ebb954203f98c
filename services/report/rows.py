"""Running what is missing, and one row for each task, recipe, seed and step."""

from __future__ import annotations

import itertools
import json
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from he_runtime.bundle import Bundle
from he_runtime.explain import explain
from he_runtime.planner import plan_bundle
from services.answering import MODES
from services.evaluation import NothingToMeasureError, answered, evaluate
from thex.metrics import score
from thex.progress import Progress
from thex.recipes import Recipe
from thex.runs import NotFinishedError, RunConfig
from thex.starting import encoder_name
from thex.tasks import Task, read_split, task_of
from thex.teachers import TeacherConfig
from thex.workflow import identity_of_run, run_recipe

Row = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a report covers. data: GLUE's root. simulated, encrypted: examples of each bundle, 0 for none, None for all."""

    data: Path
    work: Path
    tasks: tuple[str, ...]
    encoders: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    teacher: TeacherConfig | None
    simulated: int | None
    encrypted: int | None
    device: str = "auto"
    threads: int = 2
    added: tuple[Path, ...] = ()
    """results.json files of other reports, of other machines say: the rows of a run that is wanted here are taken from there, if
    its recipe, encoder, teacher, seed and data are the same by digest.
    Its simulated and encrypted examples are those it has there."""
    only_finished: bool = False
    """Leave out runs that have not reached their last step, and examples that are not answered yet, instead of running them."""

    def runs(self) -> Iterator[tuple[str, str, int, Recipe]]:
        """(task, encoder, seed, recipe), all tasks of a seed before the next seed: a stopped report is whole as far as it got."""
        for encoder, seed, task, recipe in itertools.product(self.encoders, self.seeds, self.tasks, self.recipes):
            yield task, encoder, seed, recipe


@dataclass
class Collected:
    """What a report shows. left_out: a line for each run, or mode of one, that has no rows, and why."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def collect(wanted: Wanted, progress: Progress, save: Callable[[Collected], None]) -> Collected:
    """All rows; runs what is missing. save is called with what is there after every run.

    ValueError for a task without data, and for runs that would have the same name, before anything is run.
    """
    _check(wanted)
    collected, elsewhere = Collected(), _read_added(wanted.added)
    for task, encoder, seed, recipe in wanted.runs():
        config = RunConfig(encoder=encoder, recipe=recipe, seed=seed, teacher=wanted.teacher, device=wanted.device)
        try:
            if not _take(wanted, config, wanted.data / task, elsewhere, collected):
                _run(wanted, config, wanted.data / task, progress, collected)
        except NotFinishedError as error:  # only where nothing may run
            collected.left_out.append(f"{_name(task, config)}: {error}")
        save(collected)
    return collected


def _check(wanted: Wanted) -> None:
    for task in wanted.tasks:
        read_split(task_of(wanted.data / task), wanted.data / task, "dev")
    names = Counter(
        f"{task}, {encoder_name(encoder)}, {recipe.name}, seed {seed}" for task, encoder, seed, recipe in wanted.runs()
    )
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(
            f"two runs would be called {twice[0]!r}: "
            "give encoders' directories and recipes names of their own, and each seed once"
        )


def _read_added(files: tuple[Path, ...]) -> dict[str, list[Row]]:
    """Rows by the identity of the run they are of; ValueError for a file that is not a report's."""
    runs: dict[str, list[Row]] = {}
    for file in files:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            rows = [{"machine": document["machine"].get("processor"), **row} for row in document["rows"]]
            key = operator.itemgetter("task", "encoder", "recipe", "seed")
            for _, of_run in itertools.groupby(rows, key):
                found = list(of_run)
                runs.update({row["identity"]: found for row in found if "identity" in row})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is not a results.json of `thex report`: {error!r}") from None
    return runs


def _take(wanted: Wanted, config: RunConfig, data: Path, elsewhere: dict[str, list[Row]], collected: Collected) -> bool:
    """Whether the run's rows came from another report."""
    rows = elsewhere.get(identity_of_run(config, data, wanted.work)) if elsewhere else None
    collected.rows += rows or []
    return rows is not None


def _name(task: str, config: RunConfig) -> str:
    return f"{task}, {Path(config.encoder).name}, {config.recipe.name}, seed {config.seed}"


def _run(wanted: Wanted, config: RunConfig, data: Path, progress: Progress, collected: Collected) -> None:
    task = task_of(data)
    stages = run_recipe(config, data, wanted.work, progress=progress, only_finished=wanted.only_finished)
    main = next(iter(stages[0]["metrics"]))
    exact = float(stages[0]["metrics"][main])

    def row(step: str, value: float, count: int, **more: Any) -> Row:
        return {
            "task": task.name,
            "encoder": stages[0]["encoder"],
            "recipe": config.recipe.name,
            "seed": config.seed,
            "step": step,
            "metric": main,
            "value": value,
            "count": count,
            **more,
        }

    rows: list[Row] = []
    for stage in stages:
        step = "exact" if stage["step"] == config.recipe.finetune.name else stage["step"]
        extra = {name: stage[name] for name in ("agreement_exact", "largest", "seconds", "metrics")}
        if step == "calibrate":
            extra |= {
                name: stage.get(name)
                for name in ("identity", "ranges", "dev_ranges", "hostile_ranges", "not_exported_because")
            }
        value = float(stage["metrics"][main])
        rows.append(row(step, value, stage["count"], drop=round(exact - value, 3), **extra))
    if task.kind != "embedding":
        rows[0]["majority"] = majority(task, data)
    if stages[-1]["exported"]:
        bundle = wanted.work / stages[0]["encoder"] / task.name / f"seed-{config.seed}" / config.recipe.name / "bundle"
        rows[-1] |= _cost(bundle)
        limits = {"simulate": wanted.simulated, "encrypted": wanted.encrypted}
        for mode in MODES[1:]:
            limit = limits[mode]
            if wanted.only_finished and limit != 0:
                done = answered(bundle, data, mode, wanted.work / "answers")
                limit = done if limit is None else min(limit, done)
                if not done:
                    collected.left_out.append(f"{_name(task.name, config)}, {mode}: no example is answered yet")
            if limit == 0:
                continue
            try:
                found = evaluate(
                    bundle,
                    data,
                    mode,
                    limit=limit,
                    answers=wanted.work / "answers",
                    threads=wanted.threads,
                    progress=lambda done, total, mode=mode: progress(f"{task.name} {mode}", done, total),  # type: ignore[misc]
                )
            except NothingToMeasureError as error:
                collected.left_out.append(f"{_name(task.name, config)}, {mode}: {error}")
                continue
            rows.append(
                row(
                    "simulated" if mode == "simulate" else mode,
                    found["value"],
                    found["count"],
                    plain_on_the_same=found["plain_value"],
                    agreement_plain=found["agree"],
                    max_logit_error=found["max_logit_error"],
                    out_of_range=found["out_of_range"],
                    seconds_per_example=found["seconds_per_example"],
                )
            )
    collected.rows += rows


def majority(task: Task, data: Path) -> float:
    """The main metric on the dev file of always answering the train file's most frequent label (regression: its mean)."""
    if task.kind == "tokens":
        return 0.0  # always O finds no entity
    train = np.array([example.label for example in read_split(task, data, "train")])
    dev = np.array([example.label for example in read_split(task, data, "dev")])
    answer = train.mean(keepdims=True) if task.kind == "regression" else np.bincount(train.astype(int)).astype(float)
    metrics = score(task, np.tile(answer, (len(dev), 1)), dev)
    return round(next(iter(metrics.values())), 3)


def _cost(bundle: Path) -> Row:
    """Depth, levels, keys and the planner's estimate of a query, by bucket.

    depth: the fewest levels that any lowering computes the model with; levels: the plan's, which may spend more to be quicker.
    """
    facts: dict[str, Any] = explain(plan_bundle(Bundle.open(bundle)))
    buckets: dict[str, Any] = facts["buckets"]
    return {
        "depth": min(alternative["levels"] for alternative in facts["alternatives"]),
        "levels": facts["levels"],
        "ring_degree": facts["ring_degree"],
        "key_bytes": facts["key_bytes"],
        "estimated_milliseconds_one_thread": {
            bucket: of["estimated_milliseconds_one_thread"] for bucket, of in buckets.items()
        },
    }
