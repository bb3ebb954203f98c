"""Intermediate tensors of a forward pass, asked for by an explicit object instead of hooks."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Recorder:
    """Keeps tensors by (point, layer) of one forward pass; layer is -1 for points outside the layers.

    Points: embedding, query, key, value, score, attention, context, attention_output, residual, normed,
    preactivation, activation, output_residual, output, pooled, logits. Shapes [batch, tokens, features], but
    score and attention [batch, heads, tokens, tokens], and pooled and logits [batch, features]. Rows of padding
    are included: an encrypted row of padding has values, too.
    """

    tensors: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)

    def record(self, point: str, layer: int, tensor: torch.Tensor) -> None:
        """Keep a tensor, with its graph."""
        self.tensors[point, layer] = tensor

    def hold(self, _point: str, _layer: int, tensor: torch.Tensor) -> torch.Tensor:
        """What goes on to the next operation in a tensor's place: the tensor (but see thex.holding)."""
        return tensor

    def __getitem__(self, key: tuple[str, int]) -> torch.Tensor:
        return self.tensors[key]

    @property
    def layers(self) -> int:
        """Number of layers recorded."""
        return 1 + max(layer for _, layer in self.tensors)
