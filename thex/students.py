"""Small students whose embeddings begin as a projection of a larger encoder's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from thex.config import EncoderConfig, Replacements
from thex.encoder import Encoder

UNSEEN = 0.05  # counts added to every token, so that unseen ones keep a little say in the projection


def token_counts(texts: Iterable[list[int]], vocabulary: int) -> torch.Tensor:
    """How often each token occurs, float64 [vocabulary]."""
    counter: Counter[int] = Counter()
    for ids in texts:
        counter.update(ids)
    counts = torch.zeros(vocabulary, dtype=torch.float64)
    for token, count in counter.items():
        counts[token] = count
    return counts


def principal_projection(
    embeddings: torch.Tensor, counts: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean [hidden], projection [hidden, width] and the share of variance kept, weighted by sqrt(count).

    The square root lies between every token alike and every occurrence alike. Full vocabulary: nothing is pruned.
    """
    weights = (counts + UNSEEN).sqrt()
    weights = (weights / weights.sum())[:, None]
    points = embeddings.double()
    mean = (points * weights).sum(dim=0)
    centred = points - mean
    values, vectors = torch.linalg.eigh((centred * weights).T @ centred)
    kept = float(values[-width:].sum() / values.sum())
    return mean.to(embeddings.dtype), vectors[:, -width:].to(embeddings.dtype), kept


@torch.no_grad()
def new_student(config: EncoderConfig, replacements: Replacements, seed: int) -> Encoder:
    """A freshly initialised student; the caller's global generator is left seeded with seed."""
    torch.manual_seed(seed)
    student = Encoder(config, replacements)
    for module in student.modules():
        if isinstance(module, nn.Linear) and module is not student.classifier:
            if module.weight.requires_grad:
                nn.init.normal_(module.weight, std=0.05)
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    nn.init.normal_(student.word.weight)
    nn.init.zeros_(student.token_type.weight)
    return student


@torch.no_grad()
def copy_embeddings(student: Encoder, teacher: Encoder, counts: torch.Tensor) -> float:
    """Fill the student's word and position embeddings from the teacher's by PCA; returns the share kept.

    Words are scaled to unit deviation; positions to half of that, which keeps words dominant at the start.
    Raises ValueError when vocabularies differ or the teacher is smaller.
    """
    own, other = student.config, teacher.config
    if own.vocabulary != other.vocabulary or own.hidden > other.hidden or own.positions > other.positions:
        raise ValueError("a student needs its teacher's vocabulary and at most its width and positions")
    mean, projection, kept = principal_projection(teacher.word.weight, counts, own.hidden)
    words = (teacher.word.weight - mean) @ projection
    scale = 1 / words[counts > 0].std()
    student.word.weight.copy_(words * scale)
    positions = teacher.position.weight[: own.positions]
    student.position.weight.copy_((positions - positions.mean(dim=0)) @ projection * scale * 0.5)
    return kept
