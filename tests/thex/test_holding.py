"""Rows that run away: held so that every layer keeps a gradient, free below the limit, and never in a model that is shipped."""

import math
import random

import pytest
import torch

from thex.config import EncoderConfig, Replacements
from thex.data import Encoded, pad
from thex.encoder import EXACT, REPLACED, Encoder
from thex.holding import FREE, HELD_POINTS, MOST, HoldingRecorder, row_limits
from thex.recorder import Recorder

CONFIG = EncoderConfig(
    vocabulary=40, layers=4, hidden=16, heads=2, intermediate=32, positions=12, pooling="mean", head=False, labels=16
)
QUADRATIC = Replacements(softmax="quadratic", activation="quadratic", norm="affine_centred", pooler="linear")


def texts(count: int = 12) -> Encoded:
    generator = random.Random(0)
    ids = [[generator.randrange(40) for _ in range(3 + number % 8)] for number in range(count)]
    return Encoded(ids, [[0] * len(row) for row in ids], torch.zeros(count))


def test_limits_are_the_exact_encoders_largest_rows() -> None:
    torch.manual_seed(0)
    exact, data = Encoder(CONFIG, QUADRATIC).eval(), texts()
    limits = row_limits(exact, data, 0)
    assert set(limits) == {(point, layer) for point in HELD_POINTS for layer in range(4)}
    recorder = Recorder()
    batch = pad(data, range(len(data)), torch.device("cpu"))
    exact(batch.ids, batch.mask, batch.types, EXACT, recorder)
    for key, limit in limits.items():
        rows = recorder[key][batch.mask > 0].detach()
        assert limit == pytest.approx(float(rows.square().mean(dim=1).sqrt().max()), rel=1e-4)


def test_small_rows_are_free_and_large_ones_pay_by_their_logarithm() -> None:
    recorder = HoldingRecorder(limits={("normed", 0): 2.0})
    small = torch.full((2, 3, 4), 2.0 * FREE * 0.99)
    assert torch.equal(recorder.hold("normed", 0, small), small)
    assert recorder.penalty == 0
    for size in (1e3, 1e18):
        recorder = HoldingRecorder(limits={("normed", 0): 2.0})
        large = small.clone()
        large[0, 1] = size
        held = recorder.hold("normed", 0, large)
        torch.testing.assert_close(held[0, 1], torch.full((4,), MOST * 2.0))
        assert torch.equal(held[1], large[1])
        excess = math.log(size / (FREE * 2.0))
        # One of six rows, and the largest row of one of two texts.
        assert float(recorder.penalty) == pytest.approx(2 * excess / 6 + excess / 2, rel=1e-4)


def test_a_model_that_overflows_still_learns_when_it_is_held() -> None:
    """Four layers of squares end in millions or in no number; held, all gradients are finite, and going along them helps."""
    torch.manual_seed(0)
    model, data = Encoder(CONFIG, QUADRATIC), texts()
    limits = row_limits(model.eval(), data, 0)
    with torch.no_grad():
        for layer in model.layers:
            layer.up.weight.mul_(200.0)
    batch = pad(data, range(len(data)), torch.device("cpu"))

    def held() -> torch.Tensor:
        recorder = HoldingRecorder(limits=limits)
        model(batch.ids, batch.mask, batch.types, REPLACED, recorder)
        return recorder.penalty

    free = model(batch.ids, batch.mask, batch.types, REPLACED)
    assert not free.isfinite().all() or free.abs().max() > 1e6
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    first = held()
    for _ in range(60):
        optimiser.zero_grad()
        penalty = held()
        penalty.backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in found)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    assert held() < 0.3 * first
