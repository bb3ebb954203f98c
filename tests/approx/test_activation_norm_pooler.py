"""Activations, norms and poolers against formulas and other solvers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, lsq_linear

from approx.activation import (
    Activation,
    LeastSquaresActivation,
    MinimaxActivation,
    QuadraticActivation,
    QuarticActivation,
    fit_activation,
)
from approx.functions import gelu
from approx.norm import AffineNorm, CentredAffineNorm, ConstantVarianceNorm, ExactNorm, fit_norm
from approx.polynomial_fits import minimax
from approx.pooler import OddPooler, QuinticPooler, fit_pooler


@pytest.mark.parametrize(("kind", "degree"), [(QuadraticActivation, 2), (QuarticActivation, 4)])
def test_neurons_are_fitted_apart_by_least_squares(kind: type[Activation], degree: int) -> None:
    generator = np.random.default_rng(0)
    seen = generator.normal([0, 1, -2], [1, 0.5, 2], (800, 3))
    module = kind(3).double()
    fit_activation(module, torch.from_numpy(seen))
    inputs = generator.normal(0, 1, (40, 3))
    found = module(torch.from_numpy(inputs)).detach().numpy()
    for neuron in range(3):
        powers = np.vander(seen[:, neuron], degree + 1)
        # Bounds so wide that they never bind: another solver of the same least squares.
        wide = lsq_linear(powers, gelu(seen[:, neuron]), bounds=(-1e3, 1e3), tol=1e-14).x
        assert found[:, neuron] == pytest.approx(np.polyval(wide, inputs[:, neuron]), abs=1e-4)


def test_one_polynomial_of_a_layer_is_minimax_on_what_was_seen_or_least_squares_over_it() -> None:
    seen = np.random.default_rng(2).normal(0.3, 1.2, (500, 6))
    best, usual = MinimaxActivation().double(), LeastSquaresActivation().double()
    for module in (best, usual):
        fit_activation(module, torch.from_numpy(seen))
    x = np.linspace(seen.min(), seen.max(), 1500)
    powers = np.vander(x, 5)
    # The best polynomial on a grid by linear programming.
    ones = np.ones((len(x), 1))
    program = linprog(
        [0] * 5 + [1],
        A_ub=np.block([[powers, -ones], [-powers, -ones]]),
        b_ub=np.concatenate([gelu(x), -gelu(x)]),
        bounds=[(None, None)] * 6,
    )

    def on(module: Activation, at: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(at)).detach().numpy()

    assert np.abs(on(best, x) - gelu(x)).max() == pytest.approx(program.fun, rel=1e-3)
    flat = seen.reshape(-1)
    normal = np.polyfit(flat, gelu(flat), 4)
    assert on(usual, x) == pytest.approx(np.polyval(normal, x), abs=1e-9)
    assert ((on(usual, flat) - gelu(flat)) ** 2).mean() <= ((on(best, flat) - gelu(flat)) ** 2).mean()
    assert np.abs(on(best, x) - gelu(x)).max() <= np.abs(on(usual, x) - gelu(x)).max()
    with pytest.raises(ValueError, match="expected a polynomial of degree 4, got one of 2"):
        best.take(minimax(gelu, (-1, 1), 2))


def test_any_fit_can_be_taken() -> None:
    module = MinimaxActivation().double()
    weighted = minimax(gelu, (-5, 5), 4, lambda x: np.exp(-(x**2) / 8) + 0.05)
    module.take(weighted)
    x = np.linspace(-5, 5, 60)
    assert module(torch.from_numpy(x)).detach().numpy() == pytest.approx(weighted.polynomial(x), abs=1e-12)


def rows(seed: int, deviation: float = 1.0) -> torch.Tensor:
    return deviation * torch.randn(50, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_norms_that_subtract_the_mean_ignore_shifts_and_all_replacements_are_affine(
    seed: int, deviation: float, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    exact = ExactNorm(16, 1e-12).double()
    with torch.no_grad():
        exact.weight.copy_(torch.rand(16, generator=generator))
        exact.bias.copy_(torch.randn(16, generator=generator))
    x, y = rows(seed, deviation), rows(seed + 1, deviation)
    for kind in (AffineNorm, CentredAffineNorm, ConstantVarianceNorm):
        module = kind(16).double()
        fit_norm(module, exact, x)
        middle = module((x + y) / 2)
        assert torch.allclose(middle, (module(x) + module(y)) / 2, rtol=1e-9, atol=1e-9)
        if kind is not AffineNorm:
            assert torch.allclose(module(x + shift), module(x), rtol=1e-9, atol=1e-8)


def test_constant_variance_is_exact_where_the_variance_is_the_constant_and_folds_into_gamma() -> None:
    exact = ExactNorm(16, 1e-12).double()
    with torch.no_grad():
        exact.weight.uniform_(0.5, 2)
        exact.bias.normal_()
    x = rows(0)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, unbiased=False, keepdim=True) * 2.5 + 7
    module = ConstantVarianceNorm(16).double()
    fit_norm(module, exact, x)
    assert float(module.deviation) == pytest.approx(2.5)
    assert torch.allclose(module(x), exact(x), atol=1e-9)
    assert torch.allclose(module.as_centred_affine()(x), exact(x), atol=1e-9)
    assert "deviation" not in dict(module.named_parameters())


def test_a_norm_starts_from_the_mean_inverse_deviation() -> None:
    exact, x = ExactNorm(16, 1e-12).double(), rows(3) * torch.linspace(0.5, 2, 50, dtype=torch.float64)[:, None]
    wanted = (1 / x.numpy().std(axis=1)).mean()
    for kind in (AffineNorm, CentredAffineNorm):
        module = kind(16).double()
        fit_norm(module, exact, x)
        assert module.weight.detach().numpy() == pytest.approx(np.full(16, wanted))
        # Over all features and rows, the output's mean is the exact norm's: zero.
        assert float(module(x).detach().mean()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("kind", "degree"), [(OddPooler, 3), (QuinticPooler, 5)])
def test_poolers_are_odd_minimax_first_and_least_squares_after_a_fit(kind: type[OddPooler], degree: int) -> None:
    module = kind().double()
    x = np.linspace(-3, 3, 1001)

    def on(at: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(at)).detach().numpy()

    assert on(-x) == pytest.approx(-on(x), abs=1e-12)
    odd = np.stack([x**k for k in range(degree, 0, -2)], axis=1)
    ones = np.ones((len(x), 1))
    program = linprog(
        [0] * odd.shape[1] + [1],
        A_ub=np.block([[odd, -ones], [-odd, -ones]]),
        b_ub=np.concatenate([np.tanh(x), -np.tanh(x)]),
        bounds=[(None, None)] * (odd.shape[1] + 1),
    )
    assert np.abs(on(x) - np.tanh(x)).max() == pytest.approx(program.fun, rel=1e-3)
    seen = np.random.default_rng(0).normal(0, 0.7, (300, 4))
    fit_pooler(module, torch.from_numpy(seen))
    flat = seen.reshape(-1)
    solved = lsq_linear(np.stack([flat**k for k in range(degree, 0, -2)], axis=1), np.tanh(flat), tol=1e-14).x
    assert on(x) == pytest.approx(odd @ solved, abs=1e-6)
    with pytest.raises(ValueError, match="calibrate on more text"):
        fit_pooler(module, torch.zeros(1, 1))
