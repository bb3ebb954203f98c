"""1/x on an interval [low, high] of positive numbers, by products and sums alone.

The polynomial of degree d with the smallest largest relative error is known in closed form. x·r(x) - 1 has degree d + 1
and is -1 at x = 0; among such polynomials, Chebyshev's T of degree d + 1, moved to the interval and divided by its value at
0, deviates least from zero there. With y(x) = (2x - high - low)/(high - low) and t = -y(0) = (high + low)/(high - low):

    r(x) = (1 - T_{d+1}(y(x)) / T_{d+1}(-t)) / x,    largest relative error 1/T_{d+1}(t).
"""

from __future__ import annotations

import math

from numpy.polynomial import Chebyshev

from approx.functions import Array


def chebyshev_reciprocal(low: float, high: float, degree: int) -> Chebyshev:
    """r as above, a Chebyshev series of degree + 1 coefficients on [low, high]. ValueError unless 0 < low < high."""
    _check(low, high)
    top = Chebyshev.basis(degree + 1, domain=[low, high])

    def reciprocal(x: Array) -> Array:
        return (1 - top(x) / top(0.0)) / x

    # It is a polynomial of this degree, so interpolation at degree + 1 points reproduces it.
    return Chebyshev.interpolate(reciprocal, degree, domain=[low, high])


def largest_relative_error(low: float, high: float, degree: int, iterations: int = 0) -> float:
    """max |x·r(x) - 1| over [low, high]; each Newton step r·(2 - x·r) squares it, as 1 - x·r' = (1 - x·r)²."""
    _check(low, high)
    t = (high + low) / (high - low)
    return float(1 / math.cosh((degree + 1) * math.acosh(t))) ** (2**iterations)


def _check(low: float, high: float) -> None:
    if not 0 < low < high < math.inf:
        raise ValueError(f"a reciprocal needs an interval with 0 < low < high, got [{low}, {high}]")
