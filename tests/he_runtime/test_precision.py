"""The statistics of precision on vectors whose bits are known, and on a program."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he_runtime.engines.plain import PlainEngine
from he_runtime.execution import encode_constants, run
from he_runtime.precision import (
    MAXIMUM_BITS,
    Bits,
    precision,
    precision_by_layer,
    precision_by_stage,
    stage_results,
    with_stage_results,
)
from he_runtime.program import Program
from tests.he_runtime.test_lowering import tiny_plan
from tests.random_models import random_weights


def test_bits_of_known_errors() -> None:
    bits = Bits.of(np.array([2.0**-10, -(2.0**-20), 2.0**-30, 2.0**-40]))
    assert bits == Bits(10.0, 25.0, 25.0, 40.0, math.sqrt(125))


def test_no_error_counts_as_what_float64_knows() -> None:
    assert Bits.of(np.zeros(3)) == Bits(MAXIMUM_BITS, MAXIMUM_BITS, MAXIMUM_BITS, MAXIMUM_BITS, 0.0)
    assert Bits.of(np.array([0.0, 0.5])).minimum == 1.0


def test_both_parts_make_the_modulus() -> None:
    """3-4-5 triangles: forgetting either part, or adding one twice, gives other bits."""
    unit = 2.0**-20
    found = precision(np.array([1 + 3 * unit + 4j * unit, 1 - 3 * unit - 4j * unit]), np.array([1.0, 1.0]))
    assert found.real.mean == pytest.approx(20 - math.log2(3))
    assert found.imaginary.mean == pytest.approx(18)
    assert found.modulus.minimum == found.modulus.maximum == pytest.approx(20 - math.log2(5))
    assert found.largest_error == found.root_mean_square_error == pytest.approx(5 * unit)
    assert (found.slots, found.largest_value) == (2, 1.0)


@pytest.mark.parametrize("part", [1, 1j])
def test_an_error_in_one_part_alone_is_the_modulus(part: complex) -> None:
    found = precision(np.full(4, part * 2.0**-7), np.zeros(4))
    clean, dirty = (found.imaginary, found.real) if part == 1 else (found.real, found.imaginary)
    assert (clean.minimum, dirty.minimum, dirty.maximum, found.modulus.mean) == (MAXIMUM_BITS, 7.0, 7.0, 7.0)


@given(st.lists(st.complex_numbers(max_magnitude=1e3, min_magnitude=1e-9), min_size=1, max_size=20), st.integers(-8, 8))
def test_errors_twice_as_large_have_one_bit_less(errors: list[complex], exponent: int) -> None:
    error, zero = np.array(errors), np.zeros(len(errors))
    once, scaled = precision(error, zero), precision(error * 2.0**exponent, zero)
    for name in ("minimum", "mean", "median", "maximum"):
        assert getattr(scaled.modulus, name) == pytest.approx(getattr(once.modulus, name) - exponent, abs=1e-9)
    # Up to the rounding of a mean of equal numbers.
    assert once.modulus.minimum - 1e-9 <= once.modulus.mean <= once.modulus.maximum + 1e-9
    assert once.modulus.minimum <= min(once.real.minimum, once.imaginary.minimum) + 1e-9


@pytest.mark.parametrize(
    ("measured", "expected"), [(np.zeros(2), np.zeros(3)), (np.zeros(0), np.zeros(0)), (np.array([np.nan]), np.ones(1))]
)
def test_what_cannot_be_compared_is_refused(measured: np.ndarray, expected: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"cannot be compared|not finite"):
        precision(measured, expected)


def slots_of(program: Program, *, noise: bool) -> dict[str, np.ndarray]:
    engine = PlainEngine(program.parameters, noise=noise)
    text = np.random.default_rng(3).uniform(-1, 1, program.parameters.slots)
    inputs = {name: engine.encrypt(text, value.level, value.scale) for name, value in program.inputs.items()}
    return {
        name: value.slots for name, value in run(program, engine, encode_constants(program, engine), inputs).items()
    }


def test_every_stage_of_a_program_is_compared() -> None:
    weights = random_weights(2, 8, 2, 16)
    program = tiny_plan(weights, (4,)).programs[4]
    observed, results = with_stage_results(program), stage_results(program)
    assert observed.operations == program.operations
    exact, noisy = slots_of(observed, noise=False), slots_of(observed, noise=True)
    stages = precision_by_stage(results, noisy, exact)
    assert set(stages) == {operation.stage for operation in program.operations}
    (logits,) = program.outputs.values()
    assert results[-1].output.endswith(f"/{logits.identity}")
    np.testing.assert_array_equal(exact[results[-1].output], slots_of(program, noise=False)["logits"])
    layers = precision_by_layer(results, noisy, exact)
    assert {"layer 1", "layer 2"} <= set(layers)
    assert sum(found.slots for found in layers.values()) == sum(found.slots for found in stages.values())
    # Noise of the simulator is about 2^-20 at this scale of 2^36; an exact copy has none.
    assert all(10 < found.modulus.mean < 36 for found in stages.values())
    assert all(found.largest_error == 0 for found in precision_by_stage(results, exact, exact).values())
