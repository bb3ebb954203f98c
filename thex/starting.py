"""Where a student begins: a checkpoint, or a fresh encoder whose embeddings are projected from the teacher's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from thex.checkpoints import PACKAGED_TEACHER, load_checkpoint, locate, weights_digest
from thex.config import NOTHING_REPLACED, EncoderConfig, Pooling
from thex.data import Encoded
from thex.encoder import Encoder
from thex.students import copy_embeddings, new_student, token_counts
from thex.tasks import Task
from thex.teachers import TeacherConfig

FRESH = re.compile(r"(\d+)x(\d+)")
HEAD_SIZE = 64
POOLING: dict[str, Pooling] = {"tokens": "tokens", "embedding": "mean"}
"""Of tasks whose answer is no sequence classifier's."""


def encoder_name(encoder: str) -> str:
    """The name of an encoder's directories: a shape's with "fresh-" before it, a checkpoint's last part."""
    if FRESH.fullmatch(encoder):
        return f"fresh-{encoder}"
    return encoder if encoder == PACKAGED_TEACHER else Path(encoder).name


@dataclass(frozen=True)
class Start:
    """The exact encoder before fine-tuning. name: for directories; digest: of its weights; tokenizer: file.

    teacher: the larger encoder whose embeddings a fresh encoder projects, None for checkpoints.
    """

    name: str
    digest: str
    tokenizer: Path
    encoder: Encoder
    teacher: Encoder | None

    @torch.no_grad()
    def prepare(self, train: Encoded, positions: int) -> None:
        """Fill a fresh encoder's embeddings, and start a regression at the labels' mean: seconds, for fine-tuning alone."""
        if self.teacher is not None:
            counts = token_counts((ids[:positions] for ids in train.ids), self.encoder.config.vocabulary)
            copy_embeddings(self.encoder, self.teacher, counts)
        if isinstance(self.encoder.classifier, nn.Linear) and self.encoder.config.labels == 1:
            self.encoder.classifier.bias.fill_(float(train.labels.mean()))


def starting_point(
    encoder: str, seed: int, task: Task, positions: int, dropout: float, teacher: TeacherConfig | None
) -> Start:
    """See RunConfig.encoder. Raises UnsupportedCheckpointError for a checkpoint that this code cannot reproduce."""
    pooling = POOLING.get(task.kind, "first")
    torch.manual_seed(seed)
    fresh = FRESH.fullmatch(encoder)
    if fresh is None:
        head = task.kind != "embedding"
        labels = task.outputs if head else None
        loaded = load_checkpoint(encoder, pooling=pooling, labels=labels, positions=positions, head=head)
        shape = loaded.config.model_copy(update={"dropout": dropout})
        student = Encoder(shape, NOTHING_REPLACED)
        student.load_state_dict(loaded.state_dict())
        if isinstance(student.classifier, nn.Linear):
            nn.init.normal_(student.classifier.weight, std=0.02)
            nn.init.zeros_(student.classifier.bias)
        directory = locate(encoder)
        return Start(encoder_name(encoder), weights_digest(encoder), directory / "tokenizer.json", student, None)
    if task.kind == "embedding":
        raise ValueError(f"{encoder} is no sentence encoder yet: give a checkpoint, e.g. {PACKAGED_TEACHER}")
    checkpoint = (teacher or TeacherConfig()).checkpoint
    larger = load_checkpoint(checkpoint, pooling="mean")
    layers, hidden = int(fresh[1]), int(fresh[2])
    shape = EncoderConfig(
        vocabulary=larger.config.vocabulary,
        layers=layers,
        hidden=hidden,
        heads=max(1, hidden // HEAD_SIZE),
        intermediate=4 * hidden,
        positions=positions,
        labels=task.outputs,
        pooling=pooling,
        dropout=dropout,
    )
    student = new_student(shape, NOTHING_REPLACED, seed)
    return Start(encoder_name(encoder), f"fresh {encoder}", locate(checkpoint) / "tokenizer.json", student, larger)
