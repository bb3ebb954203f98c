"""Softmax over attention scores, and the replacements that training fits or that THE-X proposed.

Every module maps scores S [batch, heads, queries, keys] and a key mask m [batch, keys] (1 real, 0 padding) to
weights P of the shape of S, zero at padding. n is the number of real tokens of each text. See also approx.power_softmax and
approx.exponential_softmax.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from approx.clamping import SOFTMAX_FLOOR, away_from_zero
from approx.facts import SCORE_DOMAIN, Facts
from approx.least_squares import fit_polynomial
from approx.reciprocal_network import SUM_UNIT, ReciprocalFit, learn_reciprocal, reciprocal_network
from approx.replacement import Replacement, Shape


def mask_over_count(mask: torch.Tensor) -> torch.Tensor:
    """m/n, shaped [batch, 1, 1, keys]: the client knows it and may send it encrypted, so nothing divides."""
    return (mask / mask.sum(dim=1, keepdim=True))[:, None, None, :]


class Softmax(Replacement):
    """What maps scores and a mask to attention weights."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    @classmethod
    def for_shape(cls, shape: Shape) -> Self:
        """With the layer's heads."""
        return cls(shape.heads)

    def argument(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """What the polynomial is evaluated on, of the shape of scores: here the scores."""
        return scores

    def fit(self, scores: torch.Tensor, weights: torch.Tensor, _counts: torch.Tensor | None = None, /) -> None:
        """Set what is fitted by calibration values, as `fit_softmax` hands them; nothing here."""


class ExactSoftmax(Softmax):
    """softmax(S) over real keys."""

    facts = Facts(
        SCORE_DOMAIN, "score", None, None, 0, "in the clear only", "exp(S)·m / Σ exp(S)·m", "Vaswani et al. 2017"
    )

    def __init__(self, heads: int = 1) -> None:
        super().__init__(heads)

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P = exp(S)·m / Σ exp(S)·m."""
        return torch.softmax(scores.masked_fill(mask[:, None, None, :] == 0, float("-inf")), dim=-1)


class QuadraticSoftmax(Softmax):
    """P = (a·S² + b·S + c)·m/n with (a, b, c) per head; |a| >= 1e-3 (see approx.clamping)."""

    facts = Facts(
        SCORE_DOMAIN,
        "score",
        2,
        2,
        0,
        "one round",
        "(a·S² + b·S + c)·m/n; (a, b, c) per head by least squares of n·P on calibration scores, then trained",
        "without division; compare 2Quad, MPCFormer, Li et al. 2023",
    )

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self.raw = nn.Parameter(torch.tensor([[0.5, 1.0, 1.0]]).repeat(heads, 1))

    def coefficients(self) -> torch.Tensor:
        """[heads, 3] = (a, b, c) as evaluated, a kept away from zero."""
        return torch.cat([away_from_zero(self.raw[:, :1], SOFTMAX_FLOOR), self.raw[:, 1:]], dim=1)

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P as stated."""
        a, b, c = (column[None, :, None, None] for column in self.coefficients().unbind(1))
        scores = self.argument(scores, mask)
        return ((a * scores + b) * scores + c) * mask_over_count(mask)

    @torch.no_grad()
    def fit(self, scores: torch.Tensor, weights: torch.Tensor, _counts: torch.Tensor | None = None, /) -> None:
        """Least squares of n·P, a head at a time."""
        self.raw.copy_(fit_polynomial(scores, weights, 2))


class CentredQuadraticSoftmax(QuadraticSoftmax):
    """P = (a·D² + b·D + c)·m/n with D = S less its mean over the row's real keys, and (a, b, c) per head.

    A softmax does not change when all scores of a row grow alike, as they do when all keys of a text have something in common;
    a polynomial of S does, one of D does not. D is what centred keys give (k_j less the text's mean key), so no square is
    spent on it. A row adds up to a times the variance of its scores, and c.
    """

    facts = Facts(
        SCORE_DOMAIN,
        "score",
        2,
        3,
        0,
        "one round",
        "(a·D² + b·D + c)·m/n, D = S - Σ S·m/n; (a, b, c) per head by least squares of n·P on calibration scores, then trained",
        "QuadraticSoftmax, with the invariance of softmax",
    )

    def argument(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """D."""
        return scores - (scores * mask_over_count(mask)).sum(dim=-1, keepdim=True)


class LinearSoftmax(Softmax):
    """P = (b·S + c)·m/n with (b, c) per head."""

    facts = Facts(
        SCORE_DOMAIN,
        "score",
        1,
        1,
        0,
        "one round",
        "(b·S + c)·m/n; (b, c) per head by least squares of n·P on calibration scores, then trained",
        "QuadraticSoftmax with a = 0",
    )

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self.raw = nn.Parameter(torch.tensor([[1.0, 1.0]]).repeat(heads, 1))

    def coefficients(self) -> torch.Tensor:
        """[heads, 3] = (0, b, c)."""
        return torch.cat([torch.zeros_like(self.raw[:, :1]), self.raw], dim=1)

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P as stated."""
        b, c = (column[None, :, None, None] for column in self.raw.unbind(1))
        return (b * scores + c) * mask_over_count(mask)

    @torch.no_grad()
    def fit(self, scores: torch.Tensor, weights: torch.Tensor, _counts: torch.Tensor | None = None, /) -> None:
        """Least squares of n·P, a head at a time."""
        self.raw.copy_(fit_polynomial(scores, weights, 1))


class TheXSoftmax(Softmax):
    """THE-X's estimate by its formula: P = S·m·T(Σ x), x = ReLU((S/2 + 1)³)·m, T a ReLU network that learned 1/s.

    The numerator is the score itself, as the formula has it: weights may be negative, and do not add up to 1. The
    only public code has x there: `TheXCubicSoftmax`. docs/approximations.md compares the two.
    For study: three comparisons (client round trips) a layer, and no bundle carries it. T is fitted by
    `fit_reciprocal` and frozen.
    """

    facts = Facts(
        SCORE_DOMAIN,
        "score",
        None,
        2,
        3,
        "needs client",
        "S·m·T(Σ ReLU((S/2 + 1)³)·m); T, two hidden ReLU layers of 64, pre-trained on sums of [0.5, 4000], then frozen",
        "THE-X, Chen et al. 2022, section 3.1, the formula",
    )

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self.reciprocal = reciprocal_network()

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P as stated."""
        real = mask[:, None, None, :]
        powers = torch.relu((scores / 2 + 1) ** 3) * real
        inverse: torch.Tensor = self.reciprocal(powers.sum(dim=-1, keepdim=True) / SUM_UNIT)
        return self._numerator(scores * real, powers) * inverse

    def _numerator(self, scores: torch.Tensor, powers: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return scores


class TheXCubicSoftmax(TheXSoftmax):
    """THE-X's estimate as the only public code has it: P = x·T(Σ x), x = ReLU((S/2 + 1)³)·m.

    A normalised cubic: weights are never negative where T is positive, and add up to 1 as far as T is 1/s.
    """

    facts = Facts(
        SCORE_DOMAIN,
        "score",
        None,
        2,
        3,
        "needs client",
        "x·T(Σ x), x = ReLU((S/2 + 1)³)·m; T as for thex_formula",
        "THE-X's estimate as in silencrown/THE-X-TenSeal, which departs from the formula that it quotes",
    )

    def _numerator(self, scores: torch.Tensor, powers: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return powers


def fit_reciprocal(module: TheXSoftmax, steps: int = 1500, seed: int = 0) -> ReciprocalFit:
    """Pre-train and freeze the module's T (see approx.reciprocal_network); how well it inverts sums it has not seen."""
    return learn_reciprocal(module.reciprocal, steps, seed)


@torch.no_grad()
def fit_softmax(
    module: Softmax, scores: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor | None = None
) -> None:
    """Set the module's coefficients from the exact softmax's values; modules without coefficients stay as they are.

    scores, weights: [heads, samples], of real pairs only, scores as the module's `argument` makes them; weights are exact
    softmax times n. counts [samples]: the n of each pair, which a denominator that does not know n is fitted with.
    """
    module.fit(scores, weights, counts)
