"""Fits of functions of one variable against what theory promises of them, errors evaluated by mpmath."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from approx.functions import Array, gelu, tanh
from approx.polynomial_fits import Fit, chebyshev_grid, density_of, least_squares, minimax

DEGREES = st.integers(0, 8)
INTERVALS = st.tuples(st.floats(-8, 4), st.floats(0.5, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))
FUNCTIONS = {
    gelu: lambda x: x * mpmath.ncdf(x),
    tanh: mpmath.tanh,
    np.exp: mpmath.exp,
}


def exact_error(fit: Fit, reference: object, x: float) -> float:
    """function - polynomial at x in 30 digits, the polynomial from its powers of x."""
    with mpmath.workdps(30):
        return float(reference(mpmath.mpf(x)) - mpmath.polyval([mpmath.mpf(c) for c in fit.powers()], mpmath.mpf(x)))


@settings(max_examples=30)
@given(
    st.lists(st.floats(-3, 3).filter(lambda c: c == 0 or abs(c) > 1e-3), min_size=1, max_size=7),
    INTERVALS,
    st.booleans(),
)
def test_a_polynomial_is_its_own_fit(coefficients: list[float], domain: tuple[float, float], weighted: bool) -> None:
    degree = len(coefficients) - 1

    def function(x: Array) -> Array:
        return np.polyval(coefficients, x)

    def bump(x: Array) -> Array:
        return np.exp(-((x - domain[0]) ** 2) / 8)

    x = np.linspace(*domain, 101)
    # Rounding of a Chebyshev series of condition below 1e3, relative to the terms that cancel in the power form.
    tolerance = 1e-10 * (1 + np.polyval(np.abs(coefficients), np.abs(x)).max())
    for fit in (least_squares(function, domain, degree, bump if weighted else None), minimax(function, domain, degree)):
        assert np.abs(fit.polynomial(x) - function(x)).max() < tolerance


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("domain", [(-3.0, 3.0), (-1.5, 4.0)])
def test_minimax_errors_alternate_and_are_level(function: object, degree: int, domain: tuple[float, float]) -> None:
    fit = minimax(function, domain, degree)
    assert len(fit.extrema) == degree + 2
    assert all(np.diff(fit.extrema) > 0)
    errors = np.array([exact_error(fit, FUNCTIONS[function], x) for x in fit.extrema])
    level = np.abs(errors).mean()
    assert np.abs(errors) == pytest.approx(np.full(degree + 2, level), rel=1e-6)
    assert all(errors[1:] * errors[:-1] < 0)
    everywhere = [abs(exact_error(fit, FUNCTIONS[function], x)) for x in np.linspace(*domain, 173)]
    assert max(everywhere) <= level * (1 + 1e-6)


@settings(max_examples=25)
@given(st.sampled_from(list(FUNCTIONS)), INTERVALS, DEGREES)
def test_no_fit_has_a_smaller_largest_error_than_minimax(
    function: object, domain: tuple[float, float], degree: int
) -> None:
    best = minimax(function, domain, degree).largest_error(function)
    rounding = 2e-11 * (np.abs(function(np.array(domain))).max() + 1)
    assert best <= least_squares(function, domain, degree).largest_error(function) * (1 + 1e-6) + rounding
    if degree:
        assert best <= minimax(function, domain, degree - 1).largest_error(function) * (1 + 1e-6) + rounding


@pytest.mark.parametrize("degree", [1, 2, 5, 9])
def test_the_next_power_has_the_error_that_chebyshev_found(degree: int) -> None:
    # min over p of degree n-1 of max |xⁿ - p| on [-1, 1] is 2^(1-n), by T_n.
    fit = minimax(lambda x: x ** (degree + 1), (-1, 1), degree)
    assert fit.largest_error(lambda x: x ** (degree + 1)) == pytest.approx(2.0**-degree, rel=1e-8)


def test_a_weighted_minimax_levels_the_weighted_error() -> None:
    def weight(x: Array) -> Array:
        return np.exp(-(x**2) / 8) + 0.05

    fit = minimax(gelu, (-5, 5), 4, weight)
    errors = np.array([exact_error(fit, FUNCTIONS[gelu], x) * float(weight(np.array(x))) for x in fit.extrema])
    assert np.abs(errors) == pytest.approx(np.full(6, np.abs(errors).mean()), rel=1e-6)
    x = chebyshev_grid((-5, 5), 1001)
    plain = minimax(gelu, (-5, 5), 4)
    for each, limit in ((fit, 1 + 1e-6), (plain, 10)):
        assert (np.abs(gelu(x) - each.polynomial(x)) * weight(x)).max() <= np.abs(errors).mean() * limit
    near = np.abs(x) < 1
    assert np.abs(gelu(x) - fit.polynomial(x))[near].max() < np.abs(gelu(x) - plain.polynomial(x))[near].max()


def test_least_squares_leaves_an_error_orthogonal_to_all_powers() -> None:
    # The normal equations, integrated by another rule.
    def density(x: Array) -> Array:
        return np.exp(-(x**2) / 2)

    fit = least_squares(gelu, (-4, 4), 4, density)
    for power in range(5):
        moment, _ = quad(lambda x, k=power: (gelu(x) - fit.polynomial(x)) * density(x) * x**k, -4, 4, epsabs=1e-12)
        assert abs(moment) < 1e-9


def test_a_density_of_samples_draws_the_fit_to_them() -> None:
    samples = np.random.default_rng(1).normal(1, 0.3, 4000)
    density = density_of(samples)
    x = np.linspace(-1, 3, 400)
    assert np.trapezoid(density(x), x) == pytest.approx(1, abs=0.01)
    flat, drawn = least_squares(gelu, (-4, 4), 2), least_squares(gelu, (-4, 4), 2, density)
    there = np.linspace(0.5, 1.5, 50)
    assert (
        np.abs(drawn.polynomial(there) - gelu(there)).max() < 0.1 * np.abs(flat.polynomial(there) - gelu(there)).max()
    )


def test_bad_requests_are_refused_in_one_line() -> None:
    for fit in (least_squares, minimax):
        with pytest.raises(ValueError, match="low < high"):
            fit(gelu, (1, 1), 2)
        with pytest.raises(ValueError, match="at least 0, got -1"):
            fit(gelu, (0, 1), -1)
    with pytest.raises(ValueError, match="negative nowhere"):
        least_squares(gelu, (0, 1), 2, lambda x: x - 0.5)
    with pytest.raises(ValueError, match="must be positive"):
        minimax(gelu, (-1, 1), 2, lambda x: x)
    with pytest.raises(ValueError, match="not finite"):
        minimax(lambda x: np.where(x > 0, np.log(np.abs(x) + (x <= 0)), np.nan), (-1, 1), 3)
