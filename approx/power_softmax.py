"""Power softmax: an even power of the shifted score for exp, and a constant where softmax has a sum.

(S + 4)⁴/4⁴ = (1 + S/4)⁴ is exp(S) to first order and never negative. True division by the row's sum (Zimerman et al. 2024)
costs a reciprocal of many levels; here the denominator is learned, as in BPMax (Powerformer, Park et al. 2024).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from approx.facts import SCORE_DOMAIN, Facts
from approx.softmax import Softmax, mask_over_count

POWER = 4
HIGHEST_SHIFT = 16.0
_REFERENCE_TOKENS = 32


class PowerSoftmax(Softmax):
    """P = g·(S + c)⁴·m/n, the shift c and the gain g per head: the denominator n/g grows with the length."""

    divides_by_length: ClassVar[bool] = True
    facts = Facts(
        SCORE_DOMAIN,
        "score",
        POWER,
        3,
        0,
        "in the clear only",
        "g·(S + c)⁴·m/n; c by a search of [0, 16] and g by least squares of n·P on calibration scores, then trained",
        "Power-Softmax, Zimerman et al. 2024, with a learned denominator as BPMax, Park et al. 2024",
    )

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        gain = 1 / POWER**POWER / (1 if self.divides_by_length else _REFERENCE_TOKENS)
        self.shift = nn.Parameter(torch.full((heads,), float(POWER)))
        self.gain = nn.Parameter(torch.full((heads,), gain))

    def forward(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """P as stated."""
        shift, gain = (parameter[None, :, None, None] for parameter in (self.shift, self.gain))
        share = mask_over_count(mask) if self.divides_by_length else mask[:, None, None, :]
        squared = (scores + shift) ** 2
        return gain * squared * squared * share

    @torch.no_grad()
    def fit(self, scores: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor | None = None, /) -> None:
        """The shift and gain of least squares, a head at a time: for each shift the best gain is known.

        ValueError where the denominator is a constant and counts are missing.
        """
        if not self.divides_by_length:
            if counts is None:
                raise ValueError(
                    "a constant denominator is fitted with the number of tokens of every pair: pass counts"
                )
            weights = weights / counts
        for head, (points, targets) in enumerate(zip(_float64(scores), _float64(weights), strict=True)):

            def gain(shift: float, points: np.ndarray = points, targets: np.ndarray = targets) -> float:
                powers = (points + shift) ** POWER
                return float(powers @ targets / (powers @ powers))

            def loss(shift: float, points: np.ndarray = points, targets: np.ndarray = targets) -> float:
                return float(((gain(shift) * (points + shift) ** POWER - targets) ** 2).mean())

            best = minimize_scalar(loss, bounds=(0.0, HIGHEST_SHIFT), method="bounded").x
            self.shift[head], self.gain[head] = float(best), gain(best)


class ConstantPowerSoftmax(PowerSoftmax):
    """P = g·(S + c)⁴·m: the denominator 1/g is the same for all lengths, so rows of long texts add up to more."""

    divides_by_length = False
    facts = Facts(
        SCORE_DOMAIN,
        "score",
        POWER,
        3,
        0,
        "in the clear only",
        "g·(S + c)⁴·m; as power_length, fitted to P instead of n·P",
        "BPMax, Powerformer, Park et al. 2024, with an even power",
    )


def _float64(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray(tensor.double().cpu().numpy())
