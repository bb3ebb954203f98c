"""Replacements by operation and name, so that a configuration file can choose them."""

from __future__ import annotations

from collections.abc import Mapping

from approx.activation import (
    ExactGelu,
    LeastSquaresActivation,
    MinimaxActivation,
    QuadraticActivation,
    QuarticActivation,
    Relu,
)
from approx.exponential_softmax import ExponentialSoftmax, NewtonSoftmax
from approx.norm import AffineNorm, CentredAffineNorm, ConstantVarianceNorm, ExactNorm
from approx.pooler import LinearPooler, OddPooler, QuinticPooler, TanhPooler
from approx.power_softmax import ConstantPowerSoftmax, PowerSoftmax
from approx.replacement import Replacement, Shape
from approx.softmax import (
    CentredQuadraticSoftmax,
    ExactSoftmax,
    LinearSoftmax,
    QuadraticSoftmax,
    TheXCubicSoftmax,
    TheXSoftmax,
)

__all__ = ["ACTIVATION", "NORM", "OPERATIONS", "POOLER", "SOFTMAX", "Shape", "build", "find", "names"]

SOFTMAX: dict[str, type[Replacement]] = {
    "exact": ExactSoftmax,
    "quadratic": QuadraticSoftmax,
    "quadratic_centred": CentredQuadraticSoftmax,
    "linear": LinearSoftmax,
    "power_length": PowerSoftmax,
    "power_constant": ConstantPowerSoftmax,
    "exp_chebyshev": ExponentialSoftmax,
    "exp_newton": NewtonSoftmax,
    "thex_formula": TheXSoftmax,
    "thex_code": TheXCubicSoftmax,
}
ACTIVATION: dict[str, type[Replacement]] = {
    "exact": ExactGelu,
    "relu": Relu,
    "quadratic": QuadraticActivation,
    "quartic": QuarticActivation,
    "minimax": MinimaxActivation,
    "least_squares": LeastSquaresActivation,
}
NORM: dict[str, type[Replacement]] = {
    "exact": ExactNorm,
    "affine": AffineNorm,
    "affine_centred": CentredAffineNorm,
    "constant_variance": ConstantVarianceNorm,
}
POOLER: dict[str, type[Replacement]] = {
    "exact": TanhPooler,
    "linear": LinearPooler,
    "cubic": OddPooler,
    "quintic": QuinticPooler,
}
OPERATIONS: Mapping[str, Mapping[str, type[Replacement]]] = {
    "softmax": SOFTMAX,
    "activation": ACTIVATION,
    "norm": NORM,
    "pooler": POOLER,
}


def find(operation: str, name: str) -> type[Replacement]:
    """The replacement of that operation and name; ValueError names those there are."""
    if operation not in OPERATIONS:
        raise ValueError(f"unknown operation {operation!r}: expected one of {', '.join(OPERATIONS)}")
    table = OPERATIONS[operation]
    if name not in table:
        raise ValueError(f"unknown {operation} {name!r}: expected one of {', '.join(table)}")
    return table[name]


def names() -> list[tuple[str, str]]:
    """Every (operation, name), in the order of the tables."""
    return [(operation, name) for operation, table in OPERATIONS.items() for name in table]


def build(operation: str, name: str, shape: Shape) -> Replacement:
    """A fresh module; ValueError, naming those there are, for an unknown operation or name."""
    return find(operation, name).for_shape(shape)
