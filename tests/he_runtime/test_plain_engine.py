import numpy as np
import pytest

from he_runtime.engines.plain import PlainEngine
from he_runtime.errors import KeyMissingError, PlanError, RangeError
from he_runtime.parameters import make_parameters
from he_runtime.program import galois_element

PARAMETERS = make_parameters(1024, 3, insecure_test=True)
SCALE = PARAMETERS.scale


def vector(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=PARAMETERS.slots)


def test_a_wrap_around_the_modulus_is_an_error_and_not_a_wrong_number() -> None:
    engine = PlainEngine(PARAMETERS)
    engine.encrypt(vector() * 50, 0, SCALE)
    with pytest.raises(RangeError, match="wraps around the 45-bit modulus of level 0"):
        engine.encrypt(vector() * 1000, 0, SCALE)
    fits = engine.encrypt(vector() * 1000, 1, SCALE)
    with pytest.raises(RangeError, match="wraps around"):
        engine.drop(fits, 0)
    with pytest.raises(RangeError):
        engine.encrypt(vector() * np.nan, 3, SCALE)


def test_levels_and_scales_are_kept_exactly() -> None:
    engine = PlainEngine(PARAMETERS)
    a = engine.encrypt(vector(), 3, SCALE)
    product = engine.product_sum([a], [a])
    assert (product.level, product.scale) == (3, SCALE * SCALE)
    rescaled = engine.rescale(product)
    assert (rescaled.level, rescaled.scale) == (2, SCALE * SCALE / PARAMETERS.primes[3])
    with pytest.raises(PlanError, match="operands at levels"):
        engine.add(a, rescaled)
    with pytest.raises(PlanError, match="of scales"):
        engine.add(engine.drop(a, 2), rescaled)
    with pytest.raises(PlanError, match="rescale at level 0"):
        engine.rescale(engine.drop(a, 0))


def test_a_rotation_needs_its_key_at_its_level() -> None:
    element = galois_element(5, PARAMETERS)
    engine = PlainEngine(PARAMETERS, keys={element: 2})
    a = engine.encrypt(vector(), 3, SCALE)
    low = engine.drop(a, 2)
    np.testing.assert_array_equal(engine.rotate(low, [5])[0].slots, np.roll(low.slots, -5))
    assert engine.rotate(a, [0]) == [a]
    with pytest.raises(KeyMissingError, match="rotation by 5 at level 3: its key reaches level 2"):
        engine.rotate(a, [5])
    with pytest.raises(KeyMissingError, match="rotation by 6"):
        engine.rotate(low, [6])
    with pytest.raises(KeyMissingError, match="relinearisation"):
        engine.product_sum([a], [a])


def test_noise_is_of_the_size_that_its_formula_says() -> None:
    quiet, noisy = PlainEngine(PARAMETERS), PlainEngine(PARAMETERS, noise=True, seed=3)
    fresh = noisy.encrypt(vector(), 3, SCALE).slots - quiet.encrypt(vector(), 3, SCALE).slots
    expected = 3.2 * np.sqrt(PARAMETERS.ring_degree) / SCALE
    # 512 samples: the deviation is within 5 standard errors, 5/sqrt(2·512), of its expectation.
    assert abs(fresh.std() / expected - 1) < 5 / np.sqrt(2 * len(fresh))
