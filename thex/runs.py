"""One run's facts, its directory of stages, and what is measured after each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from thex.atomic import replaced, write_text
from thex.calibration import largest_by_text
from thex.config import Facts
from thex.data import Encoded
from thex.encoder import Encoder, Ratios
from thex.evaluation import predict
from thex.metrics import agreement, score
from thex.progress import Progress
from thex.recipes import Recipe
from thex.starting import Start
from thex.tasks import Task
from thex.teachers import TeacherConfig

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


class NotFinishedError(RuntimeError):
    """A stage that would have to run, where nothing may."""


@dataclass(frozen=True)
class Run:
    """What all stages share. only_finished: a stage that is not there raises NotFinishedError instead of running."""

    config: RunConfig
    task: Task
    start: Start
    device: torch.device
    train: Encoded
    dev: Encoded
    directory: Path
    work: Path
    progress: Progress
    only_finished: bool = False

    def may_run(self, stage: str) -> None:
        """NotFinishedError where nothing may run."""
        if self.only_finished:
            raise NotFinishedError(
                f"{self.directory} has no {stage} of this recipe, teacher and data: run the report without --only-finished"
            )


def identity_of(facts: dict[str, Any]) -> str:
    """A digest of all that leads to a result."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def kept_metrics(path: Path, identity: str) -> dict[str, Any] | None:
    """The metrics at path, if they are of that identity."""
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return row if row.get("identity") == identity else None


def keep(directory: Path, model: Encoder, row: dict[str, Any]) -> None:
    """Weights first, metrics last: a stage with metrics is whole."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.json").unlink(missing_ok=True)
    with replaced(directory / "model.safetensors") as partial:
        save_file({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}, partial)
    write_text(directory / "metrics.json", json.dumps(row, indent=2) + "\n")


def measured(run: Run, model: Encoder, after: Ratios, exact_dev: torch.Tensor | None) -> dict[str, Any]:
    """Metrics on the dev file, agreement with the exact student, and the largest values of each layer."""
    logits = predict(model, run.dev, after)
    largest = largest_by_text(model, run.dev, after)
    return {
        "task": run.task.name,
        "encoder": run.start.name,
        "recipe": run.config.recipe.name,
        "seed": run.config.seed,
        "metrics": scores(run, logits),
        "agreement_exact": None if exact_dev is None else _agreement(run, logits, exact_dev),
        "largest": {
            point: [round(float(largest[point, layer].max()), 3) for layer in range(model.config.layers)]
            for point in WATCHED
        },
        "count": len(run.dev),
    }


def scores(run: Run, logits: torch.Tensor) -> dict[str, float]:
    """The task's metrics on the dev file; what is not finite counts as zero."""
    finite = torch.nan_to_num(logits, nan=0.0, posinf=0.0, neginf=0.0)
    return {name: round(value, 3) for name, value in score(run.task, finite.numpy(), run.dev.labels.numpy()).items()}


def _agreement(run: Run, logits: torch.Tensor, exact_dev: torch.Tensor) -> float:
    finite = torch.nan_to_num(logits, nan=0.0, posinf=0.0, neginf=0.0)
    return round(agreement(run.task, finite.numpy(), exact_dev.numpy(), run.dev.labels.numpy()), 3)
