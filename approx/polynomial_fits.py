"""Polynomials for a function of one variable on an interval: least squares under a density, and minimax.

Both work in Chebyshev polynomials of the interval, in float64: powers of x would lose digits from degree 10 on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial.legendre import leggauss

from approx.functions import Array

Function = Callable[[Array], Array]
GRID = 4001
QUADRATURE = 400
EXCHANGES = 60
LEVELLED = 1e-9  # the largest error exceeds the levelled one by less than this part of it
ROUNDING = (
    1e-11  # errors below this part of the largest value are float64's: the function's, and those of solving for p
)


@dataclass(frozen=True)
class Fit:
    """A polynomial on its interval. extrema: where a minimax fit's error alternates, rising; empty for least squares."""

    polynomial: Chebyshev
    extrema: tuple[float, ...] = ()

    @property
    def domain(self) -> tuple[float, float]:
        """The interval."""
        low, high = self.polynomial.domain
        return float(low), float(high)

    def powers(self) -> Array:
        """Coefficients of powers of x, highest degree first, as many as the degree asks for."""
        found = self.polynomial.convert(kind=Polynomial).coef
        coefficients = np.zeros(len(self.polynomial.coef))  # conversion drops leading zeros
        coefficients[: len(found)] = found
        return coefficients[::-1].copy()

    def largest_error(self, function: Function) -> float:
        """max |function - polynomial| over a dense grid of the interval."""
        x = chebyshev_grid(self.domain, GRID)
        return float(np.abs(function(x) - self.polynomial(x)).max())


def chebyshev_grid(domain: tuple[float, float], points: int) -> Array:
    """Points of the interval, both ends included, denser towards the ends, where polynomial errors turn fastest."""
    low, high = domain
    return (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, np.pi, points))


def least_squares(function: Function, domain: tuple[float, float], degree: int, density: Function | None = None) -> Fit:
    """The polynomial that minimises ∫ (function - p)²·density over the interval (density 1 if None).

    By Gauss-Legendre quadrature, exact where function²·density is a polynomial of degree below 800. ValueError for an empty
    interval, a negative degree, or a density that is negative somewhere or zero at more nodes than it may be.
    """
    _check(domain, degree)
    nodes, weights = leggauss(QUADRATURE)
    x = (domain[0] + domain[1]) / 2 + (domain[1] - domain[0]) / 2 * nodes
    if density is not None:
        weights = weights * density(x)
    if (weights < 0).any() or np.count_nonzero(weights) <= degree:
        raise ValueError(f"the density must be positive at more than {degree} points of {domain}, and negative nowhere")
    return Fit(Chebyshev.fit(x, function(x), degree, domain=list(domain), w=np.sqrt(weights)))


def minimax(function: Function, domain: tuple[float, float], degree: int, weight: Function | None = None) -> Fit:
    """The polynomial that minimises max weight·|function - p| over the interval (weight 1 if None).

    Remez's exchange: solve for a p whose weighted errors at degree + 2 points are ±E, move the points to the extrema of
    the error, repeat until no error exceeds E. Chebyshev's theorem makes the levelled p the only best one.
    ValueError for an empty interval, a negative degree, a weight that is not positive, a function that is not finite on
    the interval, or an exchange that does not settle. Good to 1e-9 of the largest error, or 1e-11 of the largest value.
    """
    _check(domain, degree)
    if not np.isfinite(function(chebyshev_grid(domain, GRID))).all():
        raise ValueError(f"the function is not finite on all of {domain}")
    weigh = weight if weight is not None else np.ones_like
    x = chebyshev_grid(domain, GRID)
    if not (weigh(x) > 0).all():
        raise ValueError(f"the weight of a minimax fit must be positive on all of {domain}")
    scale = float(np.abs(function(x) * weigh(x)).max()) or 1.0
    # Points off the symmetric places: on those, an even function is interpolated and the first errors are all zero.
    angles = np.pi * (np.arange(degree + 2) + 0.25) / (degree + 2)
    reference = (domain[0] + domain[1]) / 2 - (domain[1] - domain[0]) / 2 * np.cos(angles)
    for _ in range(EXCHANGES):
        polynomial, level = _levelled(function, weigh, reference, domain, degree)

        def error(at: Array, polynomial: Chebyshev = polynomial) -> Array:
            return (function(at) - polynomial(at)) * weigh(at)

        extrema = _extrema(error, x)
        largest = float(np.abs(error(extrema)).max())
        if largest <= level * (1 + LEVELLED) + ROUNDING * scale:
            return Fit(polynomial, tuple(_alternating(error, extrema, degree + 2).tolist()))
        reference = _alternating(error, extrema, degree + 2)
        if len(reference) < degree + 2:
            break
    raise ValueError(f"no minimax polynomial of degree {degree} was found on {domain} in {EXCHANGES} exchanges")


def density_of(samples: Array, most: int = 5000) -> Function:
    """A smooth density of samples (Gaussian kernels on at most so many of them), to weigh fits by."""
    from scipy.stats import gaussian_kde  # takes most of a second to import

    flat = np.asarray(samples, np.float64).reshape(-1)
    kernels = gaussian_kde(flat[:: max(1, len(flat) // most)])
    return lambda x: np.asarray(kernels(x), np.float64)


def _check(domain: tuple[float, float], degree: int) -> None:
    if not (np.isfinite(domain).all() and domain[0] < domain[1]):
        raise ValueError(f"a fit needs an interval (low, high) with low < high, got {domain}")
    if degree < 0:
        raise ValueError(f"the degree of a polynomial is at least 0, got {degree}")


def _levelled(
    function: Function, weigh: Function, reference: Array, domain: tuple[float, float], degree: int
) -> tuple[Chebyshev, float]:
    """p and |E| with (function - p)·weight = ±E in turn at the reference."""
    basis = np.stack([Chebyshev.basis(k, domain=list(domain))(reference) for k in range(degree + 1)], axis=1)
    signs = (-1.0) ** np.arange(degree + 2) / weigh(reference)
    solution = np.linalg.solve(np.column_stack([basis, signs]), function(reference))
    return Chebyshev(solution[:-1], domain=list(domain)), abs(float(solution[-1]))


def _extrema(error: Function, x: Array) -> Array:
    """The largest |error| of each stretch of one sign, refined between grid points; signs alternate along them."""
    values = error(x)
    starts = np.flatnonzero(np.diff(np.signbit(values))) + 1
    tops = np.array([stretch[np.abs(values[stretch]).argmax()] for stretch in np.split(np.arange(len(x)), starts)])
    inner = tops.clip(1, len(x) - 2)
    # The vertex of the parabola through the top and its neighbours; the error is evaluated there, not on the parabola.
    left, right = x[inner - 1] - x[inner], x[inner + 1] - x[inner]
    rise, fall = values[inner - 1] - values[inner], values[inner + 1] - values[inner]
    bend = rise * right - fall * left
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = x[inner] + (rise * right**2 - fall * left**2) / (2 * bend)
    inside = (tops == inner) & (vertex > x[inner - 1]) & (vertex < x[inner + 1])
    refined = np.where(inside, vertex, x[tops])
    return np.where(np.abs(error(refined)) > np.abs(values[tops]), refined, x[tops])


def _alternating(error: Function, extrema: Array, wanted: int) -> Array:
    """As many neighbouring extrema as wanted: the smaller end goes until no more are left over."""
    kept = extrema
    while len(kept) > wanted:
        first, last = np.abs(error(kept[[0, -1]]))
        kept = kept[1:] if first < last else kept[:-1]
    return kept
