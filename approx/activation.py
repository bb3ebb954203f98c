"""The feed-forward activation: GELU, and what replaces it. Modules map [..., neurons] to the same shape."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from approx.clamping import ACTIVATION_FLOOR, away_from_zero
from approx.facts import Facts
from approx.least_squares import fit_polynomial


class ExactGelu(nn.Module):
    """GELU by the error function, as BERT uses it."""

    facts = Facts("all reals", 0, -1, "exact", "Hendrycks and Gimpel 2016")

    def forward(self, preactivation: torch.Tensor) -> torch.Tensor:
        """t·Φ(t)."""
        return functional.gelu(preactivation)


class Relu(nn.Module):
    """ReLU, THE-X's replacement of GELU: needs a comparison, so a client round trip."""

    facts = Facts("all reals", 0, -1, "at most 0.17 from GELU", "THE-X, Chen et al. 2022, section 3.1")

    def forward(self, preactivation: torch.Tensor) -> torch.Tensor:
        """max(t, 0)."""
        return torch.relu(preactivation)


class QuadraticActivation(nn.Module):
    """g2·t² + g1·t + g0 with its own coefficients for each neuron; |g2| >= 1e-2 (see approx.clamping)."""

    facts = Facts(
        "|t| < 8 on calibrated models",
        2,
        1,
        "fitted: least squares a neuron, then distilled",
        "per-neuron least squares",
    )

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor([[0.125, 0.5, 0.25]]).repeat(neurons, 1))

    def coefficients(self) -> torch.Tensor:
        """[neurons, 3] = (g2, g1, g0) as evaluated, g2 kept away from zero."""
        return torch.cat([away_from_zero(self.raw[:, :1], ACTIVATION_FLOOR), self.raw[:, 1:]], dim=1)

    def forward(self, preactivation: torch.Tensor) -> torch.Tensor:
        """The polynomial, by Horner's rule."""
        g2, g1, g0 = self.coefficients().unbind(1)
        return (g2 * preactivation + g1) * preactivation + g0


@torch.no_grad()
def fit_activation(module: QuadraticActivation, preactivations: torch.Tensor) -> None:
    """Set the coefficients to the least-squares fit of GELU on preactivations [samples, neurons]."""
    points = preactivations.transpose(0, 1)
    module.raw.copy_(fit_polynomial(points, functional.gelu(points), 2))
