"""Replacements on a CUDA device, against the CPU."""

import pytest
import torch

from approx.activation import Activation, fit_activation
from approx.exponential_softmax import ExponentialSoftmax
from approx.norm import AffineNorm, ExactNorm, fit_norm
from approx.pooler import Pooler, fit_pooler
from approx.registry import build, names
from approx.replacement import Shape
from approx.softmax import Softmax, TheXSoftmax, fit_reciprocal, fit_softmax

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("operation", "name"), names())
def test_fits_and_values_on_the_device_are_the_cpus(operation: str, name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 2, 6, 6, generator=generator)
    mask = torch.tensor([[1.0] * 6, [1.0] * 4 + [0.0] * 2])
    inputs = torch.randn(50, 8, generator=generator)
    answers = []
    for device in ("cpu", "cuda"):
        module = build(operation, name, Shape(8, 2, 8, 1e-12)).to(device, dtype)
        place = {"device": device, "dtype": dtype}
        x = inputs.to(**place)
        if isinstance(module, TheXSoftmax):
            fit_reciprocal(module, steps=20)
        if isinstance(module, Softmax):
            pairs = torch.randn(2, 300, generator=torch.Generator().manual_seed(1)).to(**place)
            fit_softmax(module, pairs, pairs.exp() / 1.6, torch.full((300,), 6.0, **place))
            answer = module(scores.to(**place), mask.to(**place))
        elif isinstance(module, Activation):
            fit_activation(module, x)
            answer = module(x)
        elif isinstance(module, AffineNorm):
            fit_norm(module, ExactNorm(8, 1e-12).to(**place), x)
            answer = module(x)
        else:
            if isinstance(module, Pooler):
                fit_pooler(module, x)
            answer = module(x)
        assert answer.device.type == device
        assert answer.dtype == dtype
        answers.append(answer.detach().cpu().double())
    # Sums in another order, amplified by the exponential's interval; T's training also rounds differently.
    tolerance = 1e-2 if isinstance(module, TheXSoftmax | ExponentialSoftmax) else 1e-3
    torch.testing.assert_close(answers[0], answers[1], rtol=tolerance, atol=tolerance)
