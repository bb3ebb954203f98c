"""1/x by polynomials against the closed form of their error, and the network that THE-X teaches it."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from approx.exponential_softmax import NewtonSoftmax
from approx.reciprocal import chebyshev_reciprocal, largest_relative_error
from approx.reciprocal_network import HIGHEST_SUM, LOWEST_SUM, SUM_UNIT
from approx.softmax import TheXCubicSoftmax, TheXSoftmax, fit_reciprocal


@settings(max_examples=30)
@given(st.floats(0.05, 10), st.floats(1.5, 40), st.integers(0, 9))
def test_the_largest_relative_error_is_the_closed_form_and_is_level(low: float, ratio: float, degree: int) -> None:
    high = low * ratio
    series = chebyshev_reciprocal(low, high, degree)
    with mpmath.workdps(30):
        t = mpmath.mpf(high + low) / mpmath.mpf(high - low)
        closed = float(1 / mpmath.chebyt(degree + 1, t))
    assert largest_relative_error(low, high, degree) == pytest.approx(closed, rel=1e-9)
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, np.pi, 2001))
    error = x * series(x) - 1
    assert np.abs(error).max() == pytest.approx(closed, rel=1e-4, abs=1e-12)
    # Level errors of alternating sign at degree + 2 points: the extrema of T_{degree+1}.
    turns = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * np.arange(degree + 2) / (degree + 1))
    assert np.abs(turns * series(turns) - 1) == pytest.approx(np.full(degree + 2, closed), rel=1e-6, abs=1e-12)


def test_no_other_polynomial_of_the_degree_does_better() -> None:
    # The best one on a grid, by linear programming: minimise e with -e <= x·p(x) - 1 <= e.
    low, high, degree = 0.5, 4.0, 3
    x = np.linspace(low, high, 800)
    powers = np.stack([x ** (k + 1) for k in range(degree + 1)], axis=1)
    ones = np.ones((len(x), 1))
    best = linprog(
        [0] * (degree + 1) + [1],
        A_ub=np.block([[powers, -ones], [-powers, -ones]]),
        b_ub=np.concatenate([np.ones(len(x)), -np.ones(len(x))]),
        bounds=[(None, None)] * (degree + 2),
    )
    assert best.fun == pytest.approx(largest_relative_error(low, high, degree), rel=1e-3)


def test_each_newton_step_squares_the_error() -> None:
    x = torch.linspace(1 / 3, 3, 1001, dtype=torch.float64)
    for steps in range(4):
        module = type("Steps", (NewtonSoftmax,), {"newton_steps": steps})(1).double()
        error = (module.reciprocal(x[None, None, :, None])[0, 0, :, 0] * x - 1).abs().max()
        # float32 coefficients: 6e-8 of the start's relative error.
        assert float(error) == pytest.approx(largest_relative_error(1 / 3, 3, 1, steps), rel=1e-5)


def test_intervals_that_hold_zero_are_refused() -> None:
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, float("inf"))):
        with pytest.raises(ValueError, match="0 < low < high"):
            chebyshev_reciprocal(low, high, 3)
        with pytest.raises(ValueError, match="0 < low < high"):
            largest_relative_error(low, high, 3)


@pytest.mark.parametrize("kind", [TheXSoftmax, TheXCubicSoftmax])
def test_t_learns_a_reciprocal_says_how_well_and_is_frozen(kind: type[TheXSoftmax]) -> None:
    module = kind(2)
    found = fit_reciprocal(module, steps=600, seed=3)
    # Sums drawn here, in another way than for training or validation.
    sums = (
        torch.from_numpy(np.random.default_rng(0).uniform(np.log(LOWEST_SUM), np.log(HIGHEST_SUM), 3000)).exp().float()
    )
    error = (module.reciprocal(sums[:, None] / SUM_UNIT)[:, 0] * sums - 1).abs()
    assert float(error.mean()) == pytest.approx(found.mean_error, rel=0.15)
    assert float(error.max()) <= found.largest_error * 1.05
    assert found.mean_error < 0.1
    assert not any(parameter.requires_grad for parameter in module.parameters())
    again = kind(2)
    assert fit_reciprocal(again, steps=600, seed=3) == found
    fewer = kind(2)
    assert fit_reciprocal(fewer, steps=20, seed=3).mean_error > 3 * found.mean_error
