"""Replacements by name, so that a configuration file can choose them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from approx.activation import ExactGelu, QuadraticActivation, Relu
from approx.norm import AffineNorm, CentredAffineNorm, ExactNorm
from approx.pooler import LinearPooler, TanhPooler
from approx.softmax import ExactSoftmax, LinearSoftmax, QuadraticSoftmax, TheXSoftmax

SOFTMAX: dict[str, type[nn.Module]] = {
    "exact": ExactSoftmax,
    "quadratic": QuadraticSoftmax,
    "linear": LinearSoftmax,
    "thex": TheXSoftmax,
}
ACTIVATION: dict[str, type[nn.Module]] = {"exact": ExactGelu, "relu": Relu, "quadratic": QuadraticActivation}
NORM: dict[str, type[nn.Module]] = {"exact": ExactNorm, "affine": AffineNorm, "affine_centred": CentredAffineNorm}
POOLER: dict[str, type[nn.Module]] = {"exact": TanhPooler, "linear": LinearPooler}


@dataclass(frozen=True)
class Shape:
    """What a replacement may need to know of the layer it serves."""

    hidden: int
    heads: int
    intermediate: int
    norm_epsilon: float


def build(operation: str, name: str, shape: Shape) -> nn.Module:
    """A fresh module for operation ("softmax", "activation", "norm", "pooler") and name; ValueError if unknown."""
    tables = {"softmax": SOFTMAX, "activation": ACTIVATION, "norm": NORM, "pooler": POOLER}
    if operation not in tables:
        raise ValueError(f"unknown operation {operation!r}: expected one of {', '.join(tables)}")
    if name not in tables[operation]:
        raise ValueError(f"unknown {operation} {name!r}: expected one of {', '.join(tables[operation])}")
    chosen = tables[operation][name]
    arguments: tuple[float, ...] = ()
    if chosen is ExactNorm:
        arguments = (shape.hidden, shape.norm_epsilon)
    elif operation == "norm":
        arguments = (shape.hidden,)
    elif operation == "softmax" and name != "exact":
        arguments = (shape.heads,)
    elif chosen is QuadraticActivation:
        arguments = (shape.intermediate,)
    return chosen(*arguments)
