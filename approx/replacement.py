"""What all replacements have in common: facts, and how one is made for a layer of a certain shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from approx.facts import Facts


@dataclass(frozen=True)
class Shape:
    """What a replacement may need to know of the layer it serves."""

    hidden: int
    heads: int
    intermediate: int
    norm_epsilon: float


class Replacement(nn.Module):
    """An operation of the encoder, exact or replaced. Follows its inputs' device and dtype as every torch module does."""

    facts: ClassVar[Facts]

    @classmethod
    def for_shape(cls, _shape: Shape) -> Self:
        """A fresh one, for a layer of that shape, with coefficients that make sense before any calibration."""
        return cls()
