"""LayerNorm and what replaces it. Modules map [..., hidden] to the same shape.

The replacements are affine in each row, so they fold into the neighbouring matrices and cost no level. A
polynomial of the variance was tried and diverges on rare inputs; a fixed scale cannot.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import nn
from torch.nn import functional

from approx.facts import DEVIATION_DOMAIN, Facts
from approx.replacement import Replacement, Shape

_OF = "row's deviation over the calibrated one (mean within 0.1 of it)"


class ExactNorm(Replacement):
    """LayerNorm: γ∘(x - mean)/sqrt(variance + ε) + β."""

    facts = Facts(
        DEVIATION_DOMAIN,
        _OF,
        None,
        None,
        0,
        "in the clear only",
        "γ∘(x - mean)/sqrt(variance + ε) + β",
        "Ba, Kiros and Hinton 2016",
    )

    def __init__(self, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.epsilon = epsilon

    @classmethod
    def for_shape(cls, shape: Shape) -> Self:
        """With the layer's width and ε."""
        return cls(shape.hidden, shape.norm_epsilon)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As stated."""
        return functional.layer_norm(inputs, self.weight.shape, self.weight, self.bias, self.epsilon)


class AffineNorm(Replacement):
    """γ∘x + β: THE-X's replacement."""

    facts = Facts(
        DEVIATION_DOMAIN,
        _OF,
        1,
        0,
        0,
        "in the clear only",
        "γ∘x + β; γ and β from the exact norm and calibration's mean of 1/σ, then distilled from the exact norm's model",
        "THE-X, Chen et al. 2022, section 3.1",
    )

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.bias = nn.Parameter(torch.zeros(hidden))

    @classmethod
    def for_shape(cls, shape: Shape) -> Self:
        """With the layer's width."""
        return cls(shape.hidden)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As stated."""
        return self.weight * inputs + self.bias

    @torch.no_grad()
    def fit(self, exact: ExactNorm, inputs: torch.Tensor) -> None:
        """γ·mean(1/σ), and β less the mean's part, as the mean is not subtracted."""
        self.weight.copy_(exact.weight * _mean_inverse_deviation(exact, inputs))
        self.bias.copy_(exact.bias - self.weight * inputs.mean())


class CentredAffineNorm(AffineNorm):
    """γ∘(x - mean(x)) + β: the mean is still subtracted, exactly; only the variance is taken as constant."""

    facts = Facts(
        DEVIATION_DOMAIN,
        _OF,
        1,
        0,
        0,
        "one round",
        "γ∘(x - mean(x)) + β; γ and β from the exact norm and calibration's mean of 1/σ, then distilled",
        "AffineNorm with the mean subtracted; compare BatchLN, Powerformer, Park et al. 2024",
    )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As stated."""
        return self.weight * (inputs - inputs.mean(dim=-1, keepdim=True)) + self.bias

    @torch.no_grad()
    def fit(self, exact: ExactNorm, inputs: torch.Tensor) -> None:
        """γ·mean(1/σ) and β."""
        self.weight.copy_(exact.weight * _mean_inverse_deviation(exact, inputs))
        self.bias.copy_(exact.bias)


class ConstantVarianceNorm(AffineNorm):
    """γ∘(x - mean(x))/σ₀ + β with the exact norm's γ and β, and σ₀ a constant that calibration sets and training leaves."""

    facts = Facts(
        DEVIATION_DOMAIN,
        _OF,
        1,
        0,
        0,
        "in the clear only",
        "γ∘(x - mean(x))/σ₀ + β; γ and β are the exact norm's, 1/σ₀ is calibration's mean of 1/σ, not trained",
        "fixed statistics as in FHE-BERT-Tiny, Rovida and Leporati 2024, with the mean exact",
    )

    deviation: torch.Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As stated."""
        return self.weight * (inputs - inputs.mean(dim=-1, keepdim=True)) / self.deviation + self.bias

    @torch.no_grad()
    def fit(self, exact: ExactNorm, inputs: torch.Tensor) -> None:
        """σ₀, and copies of γ and β."""
        self.weight.copy_(exact.weight)
        self.bias.copy_(exact.bias)
        self.deviation.copy_(1 / _mean_inverse_deviation(exact, inputs))

    def as_centred_affine(self) -> CentredAffineNorm:
        """The same map with σ₀ in γ: the form that bundles hold."""
        folded = CentredAffineNorm(len(self.weight)).to(self.weight)
        with torch.no_grad():
            folded.weight.copy_(self.weight / self.deviation)
            folded.bias.copy_(self.bias)
        return folded


@torch.no_grad()
def fit_norm(module: AffineNorm, exact: ExactNorm, inputs: torch.Tensor) -> None:
    """Start the replacement from the exact norm and from what reaches it on calibration text, inputs [samples, hidden]."""
    module.fit(exact, inputs)


def _mean_inverse_deviation(exact: ExactNorm, inputs: torch.Tensor) -> torch.Tensor:
    return (1 / (inputs.var(dim=-1, unbiased=False) + exact.epsilon).sqrt()).mean()
