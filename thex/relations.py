"""Self-attention relations of a teacher as targets for a student of any width: MiniLM and MiniLMv2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional

Vectors = Literal["query", "key", "value"]
RELATIONS: dict[str, tuple[tuple[Vectors, Vectors], ...]] = {
    "minilm": (("query", "key"), ("value", "value")),
    "minilmv2": (("query", "query"), ("key", "key"), ("value", "value")),
}
"""Which scaled dot products are compared. MiniLM: the last layer's attention and its value relation (Wang et al. 2020,
equations 5 to 8). MiniLMv2: query, key and value relations of an upper layer (Wang et al. 2021, equations 4 to 6)."""


def relation_logits(left: torch.Tensor, right: torch.Tensor, heads: int) -> torch.Tensor:
    """left·rightᵀ/sqrt(d) in each of `heads` slices of width d: [batch, tokens, features] -> [batch, heads, tokens, tokens].

    MiniLMv2 concatenates the vectors of all attention heads and cuts them anew, so `heads` is free of both models'
    numbers of attention heads. Raises ValueError when heads does not divide the features.
    """
    batch, tokens, features = left.shape
    if features % heads:
        raise ValueError(f"{heads} relation heads do not divide {features} features: choose a common divisor")

    def cut(vectors: torch.Tensor) -> torch.Tensor:
        return vectors.reshape(batch, tokens, heads, features // heads).transpose(1, 2)

    return cut(left) @ cut(right).transpose(-1, -2) / math.sqrt(features // heads)


def relation_loss(
    student: dict[Vectors, torch.Tensor],
    teacher: dict[Vectors, torch.Tensor],
    mask: torch.Tensor,
    heads: int,
    pairs: Sequence[tuple[Vectors, Vectors]],
) -> torch.Tensor:
    """Mean KL(teacher relation || student relation) over heads and real rows, summed over the pairs; a scalar.

    student, teacher: vectors [batch, tokens, features], features may differ. mask [batch, tokens], 1 for real tokens.
    Computed in float32 whatever the vectors' type.
    """
    hidden_keys = (mask == 0)[:, None, None, :]
    total = torch.zeros((), device=mask.device)
    for left, right in pairs:
        wanted, found = (
            functional.log_softmax(
                relation_logits(side[left].float(), side[right].float(), heads).masked_fill(hidden_keys, -1e4), dim=-1
            )
            for side in (teacher, student)
        )
        divergence = (wanted.exp() * (wanted - found)).sum(dim=-1)  # [batch, heads, rows]
        total = total + (divergence * mask[:, None, :]).sum() / (heads * mask.sum())
    return total
