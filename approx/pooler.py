"""The function after the pooler's matrix: tanh, or nothing. Modules map [batch, hidden] to the same shape."""

from __future__ import annotations

import torch
from torch import nn

from approx.facts import Facts


class TanhPooler(nn.Module):
    """tanh, as BERT."""

    facts = Facts("all reals", 0, -1, "exact", "Devlin et al. 2019")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """tanh(x)."""
        return torch.tanh(inputs)


class LinearPooler(nn.Module):
    """The identity: the pooler's matrix then folds into the classifier's."""

    facts = Facts("|x| < 1 for 0.24 of error", 1, 0, "|x - tanh(x)|, distilled away", "folding")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """x itself."""
        return inputs
