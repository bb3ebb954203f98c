"""Algebra that every softmax promises, on random scores and masks, against formulas in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from approx.exponential_softmax import ExponentialSoftmax, NewtonSoftmax
from approx.power_softmax import ConstantPowerSoftmax, PowerSoftmax
from approx.registry import SOFTMAX, Shape, build
from approx.softmax import (
    ExactSoftmax,
    LinearSoftmax,
    QuadraticSoftmax,
    TheXCubicSoftmax,
    TheXSoftmax,
    fit_reciprocal,
    fit_softmax,
)

HEADS = 2
NAMES = st.sampled_from(sorted(SOFTMAX))


def made(name: str) -> torch.nn.Module:
    return build("softmax", name, Shape(8, HEADS, 8, 1e-12)).double()


@st.composite
def attention(draw: st.DrawFn, largest: float = 4.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [batch, heads, queries, keys] and a mask with at least one real key a text."""
    batch, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scores = (2 * torch.rand(batch, HEADS, tokens, tokens, generator=generator, dtype=torch.float64) - 1) * largest
    lengths = [draw(st.integers(1, tokens)) for _ in range(batch)]
    return scores, torch.tensor([[float(key < length) for key in range(tokens)] for length in lengths]).double()


@settings(max_examples=60)
@given(NAMES, attention())
def test_padding_has_no_weight_and_no_influence(name: str, drawn: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores, mask = drawn
    module = made(name)
    weights = module(scores, mask)
    padding = (mask == 0)[:, None, None, :].expand_as(weights)
    assert weights.shape == scores.shape
    assert (weights[padding] == 0).all()
    changed = torch.where(padding, torch.full_like(scores, 3.5), scores)
    assert torch.equal(module(changed, mask), weights)


@settings(max_examples=60)
@given(NAMES, attention(), st.randoms(use_true_random=False))
def test_the_order_of_the_keys_does_not_matter(name: str, drawn: tuple, random: object) -> None:
    scores, mask = drawn
    order = list(range(scores.shape[-1]))
    random.shuffle(order)
    module = made(name)
    # float64 sums in another order.
    torch.testing.assert_close(
        module(scores[..., order], mask[:, order]), module(scores, mask)[..., order], rtol=1e-10, atol=1e-10
    )


@settings(max_examples=40)
@given(attention())
def test_exact_rows_add_up_to_one(drawn: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores, mask = drawn
    weights = ExactSoftmax()(scores, mask)
    assert weights.sum(-1).numpy() == pytest.approx(np.ones(weights.shape[:-1]), abs=1e-12)


@settings(max_examples=60)
@given(
    st.sampled_from(["quadratic", "quadratic_centred", "linear", "power_length", "power_constant"]),
    attention(),
    st.integers(0, 99),
)
def test_rows_add_up_to_the_mean_of_the_polynomial(name: str, drawn: tuple, seed: int) -> None:
    scores, mask = drawn
    module = made(name)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    weights = module(scores, mask).detach().numpy()
    for text in range(len(scores)):
        real = mask[text].numpy() > 0
        for head in range(HEADS):
            s = scores[text, head].numpy()[:, real]
            if name == "quadratic_centred":
                s = s - s.mean(axis=1, keepdims=True)
            if name.startswith("power"):
                value = float(module.gain[head].detach()) * (s + float(module.shift[head].detach())) ** 4
            else:
                value = np.polyval(module.coefficients()[head].detach().numpy(), s)
            promised = value.sum(axis=1) if name == "power_constant" else value.mean(axis=1)
            assert weights[text, head].sum(axis=1) == pytest.approx(promised, rel=1e-9, abs=1e-9)
            if name.startswith("power"):
                assert (weights >= 0).all()


@settings(max_examples=40)
@given(st.sampled_from(["exact", "quadratic_centred"]), attention(), st.floats(-4, 4))
def test_what_all_scores_of_a_row_have_in_common_changes_nothing(name: str, drawn: tuple, largest: float) -> None:
    scores, mask = drawn
    module = made(name)
    common = largest * torch.linspace(-1, 1, scores.shape[2], dtype=torch.float64)[:, None]
    torch.testing.assert_close(module(scores + common, mask), module(scores, mask), rtol=1e-9, atol=1e-9)


def test_centred_scores_are_fitted_to_what_they_are_evaluated_on() -> None:
    """On rows that differ by a constant the fit of centred scores is as good as without it; that of the scores is not."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(1, HEADS, 300, 24, generator=generator, dtype=torch.float64)
    moved = rows + torch.randn(1, HEADS, 300, 1, generator=generator, dtype=torch.float64)
    mask = torch.ones(1, 24, dtype=torch.float64)

    def error(name: str, scores: torch.Tensor) -> float:
        module = made(name)
        exact = ExactSoftmax()(scores, mask)
        argument = module.argument(scores, mask)[0].reshape(HEADS, -1)
        fit_softmax(module, argument, 24 * exact[0].reshape(HEADS, -1))
        return float((module(scores, mask) - exact).square().mean().sqrt().detach())

    assert error("quadratic_centred", moved) == pytest.approx(error("quadratic_centred", rows), rel=1e-9)
    assert error("quadratic_centred", rows) < error("quadratic", rows) < 0.8 * error("quadratic", moved)


@settings(max_examples=60)
@given(st.sampled_from([ExponentialSoftmax, NewtonSoftmax]), attention(), st.floats(0.05, 0.9), st.floats(1.1, 20))
def test_exponential_rows_add_up_to_one_while_their_mean_is_in_the_interval(
    kind: type[ExponentialSoftmax], drawn: tuple, low: float, high: float
) -> None:
    scores, mask = drawn
    module = kind(HEADS).double()
    for head in range(HEADS):
        module.set_interval(head, low, high)
    means = module.means(scores, mask)[..., 0]
    sums = module(scores, mask).sum(-1)
    inside = (means >= low) & (means <= high)
    assert ((sums - 1).abs()[inside] <= module.row_error(0) * (1 + 1e-9) + 1e-9).all()
    weights = module(scores, mask)
    assert (weights[inside] >= 0).all()
    assert (module.exponential(scores) <= scores.exp()).all()


def test_outside_its_interval_the_polynomial_reciprocal_is_no_reciprocal() -> None:
    module = ExponentialSoftmax(1).double()
    low, high = module.interval[0].tolist()
    means = torch.tensor([low / 4, 2 * high], dtype=torch.float64)[None, None, :, None]
    error = (module.reciprocal(means) * means - 1).abs()
    assert (error > 10 * module.row_error(0)).all()


@settings(max_examples=30)
@given(attention())
def test_both_readings_of_the_x_share_the_row_factor_and_differ_in_the_numerator(drawn: tuple) -> None:
    scores, mask = drawn
    formula, code = TheXSoftmax(HEADS).double(), TheXCubicSoftmax(HEADS).double()
    code.load_state_dict(formula.state_dict())
    real = mask.numpy()[:, None, None, :]
    cubes = np.maximum((scores.numpy() / 2 + 1) ** 3, 0) * real
    total = torch.from_numpy(cubes.sum(-1, keepdims=True))
    factor = formula.reciprocal(total / 50).numpy()
    assert formula(scores, mask).numpy() == pytest.approx(scores.numpy() * real * factor, rel=1e-9, abs=1e-12)
    assert code(scores, mask).numpy() == pytest.approx(cubes * factor, rel=1e-9, abs=1e-12)


def test_the_codes_rows_add_up_to_one_as_far_as_t_is_a_reciprocal_and_the_formulas_do_not() -> None:
    code, formula = TheXCubicSoftmax(1), TheXSoftmax(1)
    found = fit_reciprocal(code, steps=800)
    formula.load_state_dict(code.state_dict())
    scores = torch.randn(1, 1, 500, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 16)
    # Validation and rows are different sums: a tenth more than the largest error that validation saw.
    assert (code(scores, mask).sum(-1) - 1).abs().max() <= 1.1 * found.largest_error
    assert formula(scores, mask).min() < 0
    assert (formula(scores, mask).sum(-1) - 1).abs().max() > 0.5


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_fits_recover_what_made_the_weights(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(HEADS, 400, generator=generator, dtype=torch.float64)
    counts = torch.randint(2, 40, (400,), generator=generator).double()
    for kind in (QuadraticSoftmax, LinearSoftmax, PowerSoftmax, ConstantPowerSoftmax):
        source, fitted = kind(HEADS).double(), kind(HEADS).double()
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
            if isinstance(source, PowerSoftmax):
                weights = source.gain[:, None] * (scores + source.shift[:, None]) ** 4
                weights = weights if source.divides_by_length else weights * counts
            else:
                powers = torch.stack([scores**2, scores, torch.ones_like(scores)], -1)
                weights = (powers * source.coefficients()[:, None, :]).sum(-1)
        fit_softmax(fitted, scores, weights, counts)
        for name, parameter in fitted.named_parameters():
            # The shift is found by a bounded search, to 1e-5 of its interval.
            torch.testing.assert_close(parameter, source.get_parameter(name), rtol=2e-4, atol=2e-4)


def test_the_power_fit_is_where_a_free_search_ends_too() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 3000, generator=generator, dtype=torch.float64)
    weights = scores.exp() / np.exp(0.5)
    module = PowerSoftmax(1).double()
    fit_softmax(module, scores, weights)

    def loss(found: np.ndarray) -> float:
        return float(((found[1] * (scores[0].numpy() + found[0]) ** 4 - weights[0].numpy()) ** 2).mean())

    free = minimize(
        loss, [4.0, 1 / 256], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000}
    )
    ours = np.array([float(module.shift[0].detach()), float(module.gain[0].detach())])
    assert loss(ours) == pytest.approx(free.fun, rel=1e-4)


def test_a_constant_denominator_is_not_fitted_without_lengths() -> None:
    values = torch.rand(1, 50, dtype=torch.float64)
    with pytest.raises(ValueError, match="pass counts"):
        fit_softmax(ConstantPowerSoftmax(1), values, values)


def test_the_fitted_interval_covers_the_rows_it_was_fitted_on() -> None:
    scores = 1.3 * torch.randn(1, HEADS, 200, 24, generator=torch.Generator().manual_seed(5))
    mask = torch.ones(1, 24)
    pairs = scores[0].reshape(HEADS, -1)
    weights = (torch.softmax(scores, -1) * 24)[0].reshape(HEADS, -1)
    module = ExponentialSoftmax(HEADS)
    fit_softmax(module, pairs, weights)
    means = module.means(scores, mask)[0, :, :, 0]
    for head in range(HEADS):
        low, high = module.interval[head].tolist()
        assert low <= float(means[head].min()) <= float(means[head].max()) <= high
    # Weights that underflow leave the interval as the others say.
    lost = weights.clone()
    lost[:, :7] = 0
    again = ExponentialSoftmax(HEADS)
    fit_softmax(again, pairs, lost)
    assert torch.allclose(again.interval, module.interval, rtol=0.3)
    # float32 evaluates a Chebyshev series of 16 terms.
    assert (module(scores, mask).sum(-1) - 1).abs().max() <= max(module.row_error(0), module.row_error(1)) + 1e-5
