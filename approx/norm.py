"""LayerNorm and what replaces it. Modules map [..., hidden] to the same shape.

Both replacements are affine in each row, so they fold into the neighbouring matrices and cost no level. A
polynomial of the variance was tried and diverges on rare inputs; a fixed scale cannot.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from approx.facts import Facts


class ExactNorm(nn.Module):
    """LayerNorm: γ∘(x - mean)/sqrt(variance + ε) + β."""

    facts = Facts("all reals", 0, -1, "exact", "Ba, Kiros and Hinton 2016")

    def __init__(self, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.epsilon = epsilon

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As stated."""
        return functional.layer_norm(inputs, self.weight.shape, self.weight, self.bias, self.epsilon)


class AffineNorm(nn.Module):
    """γ∘x + β: THE-X's replacement."""

    facts = Facts("variance near its calibrated mean", 1, 0, "fitted, then distilled", "THE-X, Chen et al. 2022, 3.1")

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As stated."""
        return self.weight * inputs + self.bias


class CentredAffineNorm(AffineNorm):
    """γ∘(x - mean(x)) + β: the mean is still subtracted, exactly; only the variance is taken as constant."""

    facts = Facts(
        "variance near its calibrated mean", 1, 0, "fitted, then distilled", "AffineNorm with the mean subtracted"
    )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As stated."""
        return self.weight * (inputs - inputs.mean(dim=-1, keepdim=True)) + self.bias


@torch.no_grad()
def fit_norm(module: AffineNorm, exact: ExactNorm, inputs: torch.Tensor) -> None:
    """Start the replacement from the exact norm: γ·mean(1/σ) and β (less the mean's part if it is not subtracted).

    inputs: [samples, hidden], what reaches the norm on calibration text.
    """
    deviation = (inputs.var(dim=-1, unbiased=False) + exact.epsilon).sqrt()
    module.weight.copy_(exact.weight * (1 / deviation).mean())
    module.bias.copy_(exact.bias)
    if not isinstance(module, CentredAffineNorm):
        module.bias.sub_(module.weight * inputs.mean())
