"""The function after the pooler's matrix: tanh, and what replaces it. Modules map [batch, hidden] to the same shape."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from approx.facts import POOLED_DOMAIN, Facts, depth_of_power
from approx.functions import tanh
from approx.polynomial_fits import minimax
from approx.replacement import Replacement


class Pooler(Replacement):
    """What maps the pooler's pre-activations to the classifier's input."""

    def fit(self, inputs: torch.Tensor) -> None:
        """Set what is fitted to tanh on calibration values [samples, hidden]; nothing here."""


class TanhPooler(Pooler):
    """tanh, as BERT."""

    facts = Facts(POOLED_DOMAIN, "pooler's input", None, None, 0, "in the clear only", "tanh(x)", "Devlin et al. 2019")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """tanh(x)."""
        return torch.tanh(inputs)


class LinearPooler(Pooler):
    """The identity: the pooler's matrix then folds into the classifier's."""

    facts = Facts(
        POOLED_DOMAIN, "pooler's input", 1, 0, 0, "one round", "x; its distance from tanh is distilled away", "folding"
    )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """x itself."""
        return inputs


class OddPooler(Pooler):
    """x·(c1 + c3·x²), odd as tanh is: minimax at first, least squares on calibration values after `fit`, then trained."""

    degree: ClassVar[int] = 3
    facts = Facts(
        POOLED_DOMAIN,
        "pooler's input",
        3,
        depth_of_power(3),
        0,
        "in the clear only",
        "c3·x³ + c1·x; odd minimax polynomial, or least squares on calibration values, then trained",
        "Remez 1934",
    )

    def __init__(self) -> None:
        super().__init__()
        powers = minimax(tanh, POOLED_DOMAIN, self.degree).powers()
        # On a symmetric interval the best polynomial of an odd function is odd: its even powers are rounding.
        self.raw = nn.Parameter(torch.tensor(powers[::2].tolist()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The polynomial."""
        squared = inputs * inputs
        result = self.raw[0].expand_as(inputs)
        for coefficient in self.raw[1:]:
            result = result * squared + coefficient
        return result * inputs

    @torch.no_grad()
    def fit(self, inputs: torch.Tensor) -> None:
        """Least squares of tanh by odd powers, over all values. ValueError with fewer values than coefficients."""
        values = inputs.double().reshape(-1).cpu()
        if len(values) < len(self.raw):
            raise ValueError(
                f"{len(values)} values cannot determine {len(self.raw)} coefficients: calibrate on more text"
            )
        powers = torch.stack([values**exponent for exponent in range(self.degree, 0, -2)], dim=1)
        solution = torch.linalg.lstsq(powers, torch.tanh(values)[:, None], driver="gelsd").solution
        self.raw.copy_(solution.squeeze(1))


class QuinticPooler(OddPooler):
    """x·(c1 + c3·x² + c5·x⁴)."""

    degree = 5
    facts = Facts(
        POOLED_DOMAIN,
        "pooler's input",
        5,
        depth_of_power(5),
        0,
        "in the clear only",
        "c5·x⁵ + c3·x³ + c1·x; as cubic",
        "Remez 1934",
    )


@torch.no_grad()
def fit_pooler(module: Pooler, inputs: torch.Tensor) -> None:
    """Fit the module to tanh on inputs [samples, hidden]; modules without coefficients stay as they are."""
    module.fit(inputs)
