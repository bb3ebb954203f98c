"""A program run on zeros before there are clients."""

import numpy as np
import pytest

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
