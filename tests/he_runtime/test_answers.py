"""Short answers: what they leave out moves a slot by what they say, whatever the period, and sizes are right."""

import numpy as np
import pytest

from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.parameters import ChainShape, Parameters, make_parameters
from he_runtime.seal import SealClient
from he_runtime.wire.answers import ANSWER_ERROR, answer_bytes, read_answer, write_answer
from he_runtime.wire.message import Binding

CHAINS = [
    make_parameters(8192, 2),
    make_parameters(8192, 2, insecure_test=True, shape=ChainShape(scale_bits=30, digit_size=2)),
]


@pytest.mark.parametrize("period", [2, 256, 4096])
@pytest.mark.parametrize("parameters", CHAINS, ids=["scale 36", "scale 30"])
def test_what_is_left_out_moves_a_slot_by_no_more_than_is_said_and_by_no_less_than_half(
    parameters: Parameters, period: int
) -> None:
    client, binding = SealClient(parameters), Binding(parameters, "0" * 64)
    secret, engine, scale = client.generate_secret_key(), NumbaEngine(parameters), parameters.answer_scale
    errors = []
    for trial in range(max(1, 512 // period)):
        random = np.random.default_rng(trial)
        values = np.tile(random.normal(size=period) + 1j * random.normal(size=period), parameters.slots // period)
        sealed = client.encrypt(secret, values, 0, scale)
        assert sealed.seed is not None
        whole = engine.to_coefficients(engine.from_seeded(sealed.seed, sealed.rows[0], scale))
        message = write_answer(whole, period, scale, binding)
        assert len(message) == answer_bytes(parameters, period)
        short, step = read_answer(message, period, scale, binding), parameters.ring_degree // (2 * period)
        exact, found = (client.decrypt_coefficients(secret, of)[::step] for of in (whole, short))
        errors.append((found - exact) / scale)
    # A slot sums 2J coefficients, turned.
    deviation = np.sqrt(2 * period * np.mean(np.square(errors)))
    assert 0.45 * ANSWER_ERROR < deviation < 1.1 * ANSWER_ERROR
