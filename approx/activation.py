"""The feed-forward activation: GELU, and what replaces it. Modules map [..., neurons] to the same shape."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from approx.clamping import ACTIVATION_FLOOR, away_from_zero
from approx.facts import PREACTIVATION_DOMAIN, Facts
from approx.functions import gelu
from approx.least_squares import fit_polynomial
from approx.polynomial_fits import Fit, minimax
from approx.replacement import Replacement, Shape


class Activation(Replacement):
    """What maps pre-activations to activations."""

    def fit(self, preactivations: torch.Tensor) -> None:
        """Set what is fitted to GELU on calibration values [samples, neurons]; nothing here."""


class ExactGelu(Activation):
    """GELU by the error function, as BERT uses it."""

    facts = Facts(
        PREACTIVATION_DOMAIN,
        "pre-activation",
        None,
        None,
        0,
        "in the clear only",
        "t·Φ(t)",
        "Hendrycks and Gimpel 2016",
    )

    def forward(self, preactivation: torch.Tensor) -> torch.Tensor:
        """t·Φ(t)."""
        return functional.gelu(preactivation)


class Relu(Activation):
    """ReLU, THE-X's replacement of GELU: needs a comparison, so a client round trip."""

    facts = Facts(
        PREACTIVATION_DOMAIN,
        "pre-activation",
        None,
        0,
        1,
        "needs client",
        "max(t, 0)",
        "THE-X, Chen et al. 2022, section 3.1",
    )

    def forward(self, preactivation: torch.Tensor) -> torch.Tensor:
        """max(t, 0)."""
        return torch.relu(preactivation)


class QuadraticActivation(Activation):
    """g2·t² + g1·t + g0 with its own coefficients for each neuron; |g2| >= 1e-2 (see approx.clamping)."""

    facts = Facts(
        PREACTIVATION_DOMAIN,
        "pre-activation",
        2,
        1,
        0,
        "one round",
        "g2·t² + g1·t + g0; per neuron by least squares on calibration values, then trained",
        "per neuron where Quad, MPCFormer, Li et al. 2023, has one polynomial for all",
    )

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor([[0.125, 0.5, 0.25]]).repeat(neurons, 1))

    @classmethod
    def for_shape(cls, shape: Shape) -> Self:
        """A polynomial for each neuron."""
        return cls(shape.intermediate)

    def coefficients(self) -> torch.Tensor:
        """[neurons, 3] = (g2, g1, g0) as evaluated, g2 kept away from zero."""
        return torch.cat([away_from_zero(self.raw[:, :1], ACTIVATION_FLOOR), self.raw[:, 1:]], dim=1)

    def forward(self, preactivation: torch.Tensor) -> torch.Tensor:
        """The polynomial, by Horner's rule."""
        g2, g1, g0 = self.coefficients().unbind(1)
        return (g2 * preactivation + g1) * preactivation + g0

    @torch.no_grad()
    def fit(self, preactivations: torch.Tensor) -> None:
        """Least squares, a neuron at a time."""
        points = preactivations.transpose(0, 1)
        self.raw.copy_(fit_polynomial(points, functional.gelu(points), 2))


class QuarticActivation(Activation):
    """A polynomial of degree 4 with its own coefficients for each neuron."""

    facts = Facts(
        PREACTIVATION_DOMAIN,
        "pre-activation",
        4,
        2,
        0,
        "in the clear only",
        "g4·t⁴ + ... + g0; per neuron by least squares on calibration values, then trained",
        "QuadraticActivation with two degrees more",
    )

    def __init__(self, neurons: int) -> None:
        super().__init__()
        start = torch.from_numpy(minimax(gelu, PREACTIVATION_DOMAIN, 4).powers()).to(torch.get_default_dtype())
        self.raw = nn.Parameter(start.repeat(neurons, 1))

    @classmethod
    def for_shape(cls, shape: Shape) -> Self:
        """A polynomial for each neuron."""
        return cls(shape.intermediate)

    def forward(self, preactivation: torch.Tensor) -> torch.Tensor:
        """The polynomial, by Horner's rule."""
        return _horner(self.raw.unbind(1), preactivation)

    @torch.no_grad()
    def fit(self, preactivations: torch.Tensor) -> None:
        """Least squares, a neuron at a time."""
        points = preactivations.transpose(0, 1)
        self.raw.copy_(fit_polynomial(points, functional.gelu(points), 4))


class MinimaxActivation(Activation):
    """One polynomial of degree 4 for the whole layer, with the smallest largest error on the interval that calibration saw."""

    degree = 4
    facts = Facts(
        PREACTIVATION_DOMAIN,
        "pre-activation",
        degree,
        2,
        0,
        "in the clear only",
        "g4·t⁴ + ... + g0; Remez on the interval of the layer's calibration values, then trained",
        "Remez 1934; degree and interval as Zimerman et al. 2024 choose them, lower",
    )

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(self.degree + 1))
        self.take(minimax(gelu, PREACTIVATION_DOMAIN, self.degree))

    @torch.no_grad()
    def take(self, fit: Fit) -> None:
        """Use a fit's coefficients, whichever way it was made; ValueError for another degree."""
        if len(fit.powers()) != self.degree + 1:
            raise ValueError(f"expected a polynomial of degree {self.degree}, got one of {len(fit.powers()) - 1}")
        self.raw.copy_(torch.from_numpy(fit.powers()))

    def forward(self, preactivation: torch.Tensor) -> torch.Tensor:
        """The polynomial, by Horner's rule."""
        return _horner(self.raw.unbind(0), preactivation)

    def fit(self, preactivations: torch.Tensor) -> None:
        """Minimax from the smallest to the largest value seen."""
        seen = preactivations.double()
        self.take(minimax(gelu, (float(seen.min()), float(seen.max())), self.degree))


class LeastSquaresActivation(MinimaxActivation):
    """One polynomial of degree 4 for the whole layer, with the smallest mean square error under calibration's distribution."""

    facts = Facts(
        PREACTIVATION_DOMAIN,
        "pre-activation",
        4,
        2,
        0,
        "in the clear only",
        "g4·t⁴ + ... + g0; least squares over the layer's calibration values, then trained",
        "the values are the density: frequent ones count more",
    )

    def fit(self, preactivations: torch.Tensor) -> None:
        """Least squares over all values of all neurons."""
        seen = np.asarray(preactivations.double().cpu().numpy()).reshape(-1)
        domain = [float(seen.min()), float(seen.max())]
        self.take(Fit(np.polynomial.Chebyshev.fit(seen, gelu(seen), self.degree, domain=domain)))


@torch.no_grad()
def fit_activation(module: Activation, preactivations: torch.Tensor) -> None:
    """Fit the module to GELU on preactivations [samples, neurons]; modules without coefficients stay as they are."""
    module.fit(preactivations)


def _horner(coefficients: tuple[torch.Tensor, ...], t: torch.Tensor) -> torch.Tensor:
    """Highest degree first; each coefficient a scalar or [neurons]."""
    result = coefficients[0] * t + coefficients[1]
    for coefficient in coefficients[2:]:
        result = result * t + coefficient
    return result
