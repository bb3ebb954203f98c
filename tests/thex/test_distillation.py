"""Losses against what they say in numpy."""

import numpy as np
import pytest
import torch

from thex.config import RangeBounds
from thex.distillation import RANGE_SCALE, first_token_loss, hidden_loss, range_penalty, spread_penalty
from thex.recorder import Recorder
from thex.stages import bounded

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])


def recorded(**points: torch.Tensor) -> Recorder:
    recorder = Recorder()
    for name, tensor in points.items():
        recorder.record(name, -1 if name == "embedding" else 0, tensor)
    return recorder


def test_the_spread_is_of_real_tokens_and_of_no_scale() -> None:
    first, second = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).split(1)
    residual = torch.cat([first, second])
    real = residual.numpy()[MASK.numpy() > 0].std(axis=-1, ddof=1)
    wanted = real.var(ddof=1) / real.mean() ** 2
    even = torch.tensor([1.0, -1.0] * 4).expand(2, 3, 8)
    found = spread_penalty(recorded(residual=residual, output_residual=even), MASK, 1)
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    scaled = spread_penalty(recorded(residual=100 * residual, output_residual=7 * even), MASK, 1)
    assert float(scaled) == pytest.approx(float(found), rel=1e-5)


def test_hidden_states_count_relative_to_their_size_and_the_first_token_to_its_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    points = ("attention_output", "normed", "output")
    exact = {point: torch.randn(2, 3, 8, generator=generator) for point in points}
    found = {point: tensor + torch.randn(2, 3, 8, generator=generator) for point, tensor in exact.items()}
    real = MASK.numpy() > 0
    of_all, of_first = 0.0, 0.0
    for point, weight in zip(points, (0.5, 1.0, 1.0), strict=True):
        wanted, error = exact[point].numpy(), (found[point] - exact[point]).numpy()
        of_all += weight * np.square(error[real]).sum() / np.square(wanted[real]).sum()
        of_first += weight * np.square(error[:, 0]).sum() / (2 * wanted[:, 0].var(axis=0)).sum()
    assert float(hidden_loss(recorded(**found), recorded(**exact), MASK, 1)) == pytest.approx(of_all, rel=1e-5)
    assert float(first_token_loss(recorded(**found), recorded(**exact), 1)) == pytest.approx(of_first, rel=1e-5)
    alone = {
        point: tensor[:1] for point, tensor in exact.items()
    }  # one text varies in nothing: a share of its size instead
    off = {point: 1.1 * tensor for point, tensor in alone.items()}
    assert float(first_token_loss(recorded(**off), recorded(**alone), 1)) == pytest.approx(
        2.5 * 0.1**2 / 0.01, rel=1e-4
    )


def test_the_range_penalty_is_the_mean_squared_excess() -> None:
    bounds = RangeBounds(score=1.0, preactivation=2.0, hidden=3.0)
    values = torch.tensor([[[0.5, -4.0], [3.5, 1.0]]])
    found = range_penalty(
        recorded(embedding=values, score=values, preactivation=values, normed=values, output=values), bounds, 1
    )
    excess = [np.square(np.maximum(np.abs(values.numpy()) - bound, 0)).mean() for bound in (1, 2, 3, 3)]
    assert float(found) == pytest.approx(RANGE_SCALE * sum(excess), rel=1e-6)


def test_a_bounded_penalty_still_pulls() -> None:
    for size in (1.0, 1e3, 1e9):
        penalty = torch.tensor(size, requires_grad=True)
        result = bounded(penalty, 50.0)
        result.backward()
        assert float(result.detach()) == pytest.approx(size if size <= 50 else 50 * (1 + np.log(size / 50)), rel=1e-5)
        assert float(penalty.grad) == pytest.approx(min(1.0, 50 / size), rel=1e-5)
    assert float(bounded(torch.tensor(float("inf")), 50.0)) == 0
