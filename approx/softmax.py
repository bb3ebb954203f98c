"""Softmax over attention scores, and what replaces it.

Every module maps scores S [batch, heads, queries, keys] and a key mask m [batch, keys] (1 real, 0 padding) to
weights P of the shape of S, zero at padding. n is the number of real tokens of each text.
"""

from __future__ import annotations

import torch
from torch import nn

from approx.clamping import SOFTMAX_FLOOR, away_from_zero
from approx.facts import Facts
from approx.least_squares import fit_polynomial


def mask_over_count(mask: torch.Tensor) -> torch.Tensor:
    """m/n, shaped [batch, 1, 1, keys]: the client knows it and may send it encrypted, so nothing divides."""
    return (mask / mask.sum(dim=1, keepdim=True))[:, None, None, :]


class ExactSoftmax(nn.Module):
    """softmax(S) over real keys."""

    facts = Facts("all reals", 0, -1, "exact", "Vaswani et al. 2017")

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P = exp(S)·m / Σ exp(S)·m."""
        return torch.softmax(scores.masked_fill(mask[:, None, None, :] == 0, float("-inf")), dim=-1)


class QuadraticSoftmax(nn.Module):
    """P = (a·S² + b·S + c)·m/n with (a, b, c) per head; |a| >= 1e-3 (see approx.clamping)."""

    facts = Facts(
        "|S| < 8 on calibrated models",
        2,
        2,
        "fitted: least squares on calibration scores, then distilled",
        "per-head least squares without division; compare THE-X, Chen et al. 2022, section 3.1",
    )

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor([[0.5, 1.0, 1.0]]).repeat(heads, 1))

    def coefficients(self) -> torch.Tensor:
        """[heads, 3] = (a, b, c) as evaluated, a kept away from zero."""
        return torch.cat([away_from_zero(self.raw[:, :1], SOFTMAX_FLOOR), self.raw[:, 1:]], dim=1)

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P as stated."""
        a, b, c = (column[None, :, None, None] for column in self.coefficients().unbind(1))
        return ((a * scores + b) * scores + c) * mask_over_count(mask)


class LinearSoftmax(nn.Module):
    """P = (b·S + c)·m/n with (b, c) per head."""

    facts = Facts("|S| < 8 on calibrated models", 1, 1, "fitted, then distilled", "QuadraticSoftmax with a = 0")

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor([[1.0, 1.0]]).repeat(heads, 1))

    def coefficients(self) -> torch.Tensor:
        """[heads, 3] = (0, b, c)."""
        return torch.cat([torch.zeros_like(self.raw[:, :1]), self.raw], dim=1)

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P as stated."""
        b, c = (column[None, :, None, None] for column in self.raw.unbind(1))
        return (b * scores + c) * mask_over_count(mask)


class TheXSoftmax(nn.Module):
    """THE-X as published: x = ReLU((S/2 + 1)³)·m, P = x·T(Σ x), T a small ReLU network that learned 1/s.

    For study: it needs comparisons (a client round trip) and no bundle carries it. T is fitted by
    `fit_reciprocal` and frozen.
    """

    facts = Facts(
        "Σ x in [0.5, 400]", 0, -1, "T: a few percent of 1/s on its domain", "THE-X, Chen et al. 2022, section 3.1"
    )

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.reciprocal = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.reciprocal.requires_grad_(requires_grad=False)

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P as stated; the network sees sums divided by 50."""
        powers = torch.relu((scores / 2 + 1) ** 3) * mask[:, None, None, :]
        return powers * self.reciprocal(powers.sum(dim=-1, keepdim=True) / 50)


def fit_reciprocal(module: TheXSoftmax, steps: int = 1500, seed: int = 0) -> float:
    """Fit T on log-uniform sums of [0.5, 400], minimising the relative error (T(s)·s - 1)²; returns its last mean."""
    generator = torch.Generator().manual_seed(seed)
    module.reciprocal.requires_grad_(requires_grad=True)
    optimizer = torch.optim.Adam(module.reciprocal.parameters(), lr=3e-3)
    value = float("nan")
    for _ in range(steps):
        sums = 0.5 * 800 ** torch.rand(512, 1, generator=generator)
        loss = ((module.reciprocal(sums / 50) * sums - 1) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        value = float(loss.detach())
    module.reciprocal.requires_grad_(requires_grad=False)
    return value


@torch.no_grad()
def fit_softmax(module: QuadraticSoftmax | LinearSoftmax, scores: torch.Tensor, weights: torch.Tensor) -> None:
    """Set the coefficients to the least-squares fit of n·P by scores, a head at a time.

    scores, weights: [heads, samples], of real pairs only; weights are exact softmax times n.
    """
    degree = module.raw.shape[1] - 1
    module.raw.copy_(fit_polynomial(scores, weights, degree))
