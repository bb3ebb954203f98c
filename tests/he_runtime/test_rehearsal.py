"""A program run on zeros before there are clients."""

import numpy as np
import pytest

from he_runtime.bundle import Pooling, Softmax
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.errors import KeyMissingError
from he_runtime.execution import encode_constants
from he_runtime.rehearsal import rehearse
from tests.he_runtime.test_lowering import tiny_plan
from tests.random_models import random_weights


def test_a_rehearsal_needs_no_keys_and_leaves_none() -> None:
    plan = tiny_plan(random_weights(1, 8, 2, 16), (4,))
    program, engine = plan.programs[4], NumbaEngine(plan.parameters)
    outputs = rehearse(program, engine, encode_constants(program, engine), plan.keys)
    assert outputs.keys() == program.outputs.keys()
    assert engine.memory_bytes() == 0
    zeros = np.zeros((2, plan.levels + 1, plan.parameters.ring_degree), np.uint64)
    with pytest.raises(KeyMissingError):
        engine.rotate(engine.from_rows(zeros, plan.parameters.scale), [1])


@pytest.mark.parametrize("bucket", [4, 8])  # tokens in one ciphertext, and in two, which are one inside matrix products
@pytest.mark.parametrize("softmax", ["quadratic", "quadratic_centred", "linear"])
@pytest.mark.parametrize(("heads", "pooling"), [(2, "first"), (3, "first"), (3, "mean"), (4, "mean")])
def test_our_engine_takes_every_kind_of_program(heads: int, pooling: Pooling, softmax: Softmax, bucket: int) -> None:
    """The simulator, which other tests run programs on, may ask less of scales and levels than this engine does.

    Heads in two groups, the last of them with its key beside its query (3) or without (4).
    """
    weights = random_weights(3, 4 * heads, heads, 16, softmax=softmax, pooling=pooling)
    plan = tiny_plan(weights, (bucket,), 256, "hadamard sums")
    program, engine = plan.programs[bucket], NumbaEngine(plan.parameters)
    outputs = rehearse(program, engine, encode_constants(program, engine), plan.keys)
    for name, value in program.outputs.items():
        assert (engine.level(outputs[name]), engine.scale(outputs[name])) == (value.level, pytest.approx(value.scale))
