"""Softmax by a low-degree exponential and a polynomial reciprocal of its mean over the row.

exp(S) ≈ (1 + S/8)⁸ by three squarings; μ = Σ e·m/n is the row's mean, and P = e·m/n · r(μ) with r a polynomial for 1/μ on an
interval that calibration sets for each head. On the interval a row adds up to μ·r(μ), within `row_error` of 1; outside of it
r diverges, so the interval is the range to watch.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from approx.facts import SCORE_DOMAIN, Facts
from approx.reciprocal import chebyshev_reciprocal, largest_relative_error
from approx.softmax import Softmax, mask_over_count

SQUARINGS = 3
FIRST_INTERVAL = (1 / 3, 3.0)
MARGIN = 1.25


class ExponentialSoftmax(Softmax):
    """With the Chebyshev reciprocal of degree 15: 4 levels for 1/μ, and a far smaller error than Newton's 6 give."""

    reciprocal_degree: ClassVar[int] = 15
    newton_steps: ClassVar[int] = 0
    facts = Facts(
        SCORE_DOMAIN,
        "score (row's mean of exp within the calibrated interval, [1/3, 3] before)",
        2**SQUARINGS,
        9,
        0,
        "in the clear only",
        "e·m/n·r(Σ e·m/n), e = (1 + S/8)⁸, r the polynomial of degree 15 with the smallest relative error for 1/μ",
        "exp by squarings as in NEXUS, Zhang et al. 2024; reciprocal by Chebyshev's extremal polynomial",
    )

    interval: torch.Tensor
    series: torch.Tensor

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self.register_buffer("interval", torch.zeros(heads, 2))
        self.register_buffer("series", torch.zeros(heads, self.reciprocal_degree + 1))
        for head in range(heads):
            self.set_interval(head, *FIRST_INTERVAL)

    @torch.no_grad()
    def set_interval(self, head: int, low: float, high: float) -> None:
        """Take 1/μ of a head on [low, high]; ValueError unless 0 < low < high."""
        coefficients = chebyshev_reciprocal(low, high, self.reciprocal_degree).coef
        self.interval[head] = torch.tensor([low, high], dtype=torch.float64)
        self.series[head] = torch.from_numpy(coefficients)

    def row_error(self, head: int) -> float:
        """How far a row's sum may be from 1 while its mean is in the head's interval (before float rounding)."""
        low, high = self.interval[head].tolist()
        return largest_relative_error(low, high, self.reciprocal_degree, self.newton_steps)

    def exponential(self, scores: torch.Tensor) -> torch.Tensor:
        """(1 + S/8)⁸, at most exp(S) for S > -8."""
        result = 1 + scores / 2**SQUARINGS
        for _ in range(SQUARINGS):
            result = result * result
        return result

    def means(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """μ [batch, heads, queries, 1]."""
        return (self.exponential(scores) * mask_over_count(mask)).sum(dim=-1, keepdim=True)

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P as stated."""
        shares = self.exponential(scores) * mask_over_count(mask)
        return shares * self.reciprocal(shares.sum(dim=-1, keepdim=True))

    def reciprocal(self, means: torch.Tensor) -> torch.Tensor:
        """r(μ), of the shape of means [batch, heads, queries, 1]: Clenshaw's rule, then Newton's steps if there are any."""
        low, high = (end[None, :, None, None] for end in self.interval.unbind(1))
        y = (2 * means - low - high) / (high - low)
        later = torch.zeros_like(means)
        result = torch.zeros_like(means)
        for coefficient in self.series.flip(1).unbind(1)[:-1]:
            result, later = 2 * y * result - later + coefficient[None, :, None, None], result
        result = y * result - later + self.series[:, 0][None, :, None, None]
        for _ in range(self.newton_steps):
            result = result * (2 - means * result)
        return result

    @torch.no_grad()
    def fit(self, scores: torch.Tensor, weights: torch.Tensor, _counts: torch.Tensor | None = None, /) -> None:
        """Set each head's interval to the means that calibration rows have, with MARGIN to both sides.

        A pair tells its row's mean of exp: exp(S)/(n·P). (1 + S/8)⁸ has a smaller mean, by at most its smallest ratio
        to exp on the scores seen (those beyond the domain count as its ends), which moves the lower end further down.
        """
        points = scores.double()
        # A weight too small for its dtype tells nothing: its row's other pairs do.
        means = torch.where(weights > 0, points.exp() / weights.double(), float("nan"))
        inside = points.clamp(*SCORE_DOMAIN)
        ratio = (self.exponential(inside) / inside.exp()).amin(dim=1)
        lows = means.nan_to_num(torch.inf).amin(dim=1) * ratio / MARGIN
        highs = means.nan_to_num(0.0).amax(dim=1) * MARGIN
        for head, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
            self.set_interval(head, low, high)


class NewtonSoftmax(ExponentialSoftmax):
    """With Newton's iteration r·(2 - μ·r) from the best linear start, three times: 6 levels for 1/μ."""

    reciprocal_degree = 1
    newton_steps = 3
    facts = Facts(
        SCORE_DOMAIN,
        "score (row's mean of exp within the calibrated interval, [1/3, 3] before)",
        2**SQUARINGS,
        11,
        0,
        "in the clear only",
        "as exp_chebyshev, with 1/μ by three steps r·(2 - μ·r) from the linear r of smallest relative error",
        "Newton's iteration, as bootstrapped evaluations divide (NEXUS, Zhang et al. 2024)",
    )
