"""Gradual replacement: a weighted sum of the exact operation and its replacement."""

from __future__ import annotations

import torch
from torch import nn


class Blended(nn.Module):
    """ratio·replaced(x) + (1 - ratio)·exact(x); at 0 and 1 only the one that counts is evaluated."""

    def __init__(self, exact: nn.Module, replaced: nn.Module) -> None:
        super().__init__()
        self.exact = exact
        self.replaced = replaced

    def forward(self, ratio: float, *inputs: torch.Tensor) -> torch.Tensor:
        """The blend. Raises ValueError for a ratio outside [0, 1]."""
        if not 0 <= ratio <= 1:
            raise ValueError(f"a blending ratio lies in [0, 1], got {ratio}")
        if ratio == 0:
            exact: torch.Tensor = self.exact(*inputs)
            return exact
        replaced: torch.Tensor = self.replaced(*inputs)
        if ratio == 1:
            return replaced
        return ratio * replaced + (1 - ratio) * self.exact(*inputs)
