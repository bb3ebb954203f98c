"""Noise of each operation of the numba engine, SEAL's keys and encryptions, against the formulas of tests/tolerances.py.

Inputs have fixed seeds; keys and errors are SEAL's own randomness. Where an operation is measured alone, what it is given is
decrypted too, so that only the noise that it adds itself is left. One small insecure ring, and N=8192 as it would be used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from he_runtime.client_keys import make_evaluation_keys
from he_runtime.engines.numba_engine import NumbaCiphertext, NumbaEngine
from he_runtime.engines.plain import PlainCiphertext, PlainEngine
from he_runtime.evaluation_key import EvaluationKey
from he_runtime.kernels.transform import make_tables
from he_runtime.parameters import Parameters, make_parameters
from he_runtime.program import RELINEARISATION, conjugation_element, galois_element
from he_runtime.seal import SealClient, SecretKey
from tests.tolerances import (
    DEVIATIONS,
    SEAL_ERROR_VARIANCE,
    band,
    encoding,
    fresh,
    key_errors,
    key_switching,
    reach,
    rounding,
    worst_inputs,
)

SMALL = make_parameters(1024, 4, insecure_test=True)
REAL = make_parameters(8192, 2)
TRIALS = {SMALL.ring_degree: 16, REAL.ring_degree: 4}
STEP, LARGEST = 5, 8.0
DOUBLE = 2e-13  # what decoding in float64 leaves of values up to a hundred


@dataclass(frozen=True)
class Rig:
    parameters: Parameters
    client: SealClient
    secret: SecretKey
    engine: NumbaEngine

    def encrypt(self, values: np.ndarray, level: int | None = None, scale: float | None = None) -> NumbaCiphertext:
        level = self.parameters.maximum_level if level is None else level
        scale = self.parameters.scale if scale is None else scale
        sealed = self.client.encrypt(self.secret, values, level, scale)
        assert sealed.seed is not None
        return self.engine.from_seeded(sealed.seed, sealed.rows[0], scale)

    def decrypt(self, ciphertext: NumbaCiphertext) -> np.ndarray:
        return self.client.decrypt_complex(self.secret, self.engine.to_rows(ciphertext), ciphertext.scale)

    def values(self, trial: int, largest: float = 1.0) -> np.ndarray:
        """Complex slots, none above `largest` in either part."""
        random = np.random.default_rng([self.parameters.ring_degree, trial])
        real, imaginary = random.uniform(-largest, largest, (2, self.parameters.slots))
        return real + 1j * imaginary


@cache
def rig_of(ring_degree: int) -> Rig:
    parameters = {p.ring_degree: p for p in (SMALL, REAL)}[ring_degree]
    client = SealClient(parameters)
    secret = client.generate_secret_key()
    engine = NumbaEngine(parameters)
    elements = (RELINEARISATION, conjugation_element(parameters), *(galois_element(s, parameters) for s in (1, STEP)))
    for key in make_evaluation_keys(client, secret, dict.fromkeys(elements, parameters.maximum_level)):
        engine.load_key(key.galois_element, key.level, key.digits)
    return Rig(parameters, client, secret, engine)


@pytest.fixture(params=[SMALL.ring_degree, REAL.ring_degree], ids=lambda degree: f"N={degree}")
def rig(request: pytest.FixtureRequest) -> Rig:
    return rig_of(request.param)


def check(
    rig: Rig, error_of: Callable[[int], np.ndarray], variance: Any, *, with_secret: bool, independent: int | None = None
) -> None:
    """Mean square of the errors, each over its slot's variance, within the band; the largest below the reach.

    independent: slots of one trial that are independent of each other, where that is not all of them.
    """
    trials = TRIALS[rig.parameters.ring_degree]
    deviations = np.concatenate([np.abs(error_of(trial)) / np.sqrt(variance) for trial in range(trials)])
    samples = trials * (independent or rig.parameters.slots)
    assert np.mean(deviations**2) == pytest.approx(1, abs=band(rig.parameters, samples, with_secret=with_secret))
    assert deviations.max() < reach(len(deviations), with_secret=with_secret)


def test_fresh_encryptions(rig: Rig) -> None:
    def error(trial: int) -> np.ndarray:
        values = rig.values(trial)
        return rig.decrypt(rig.encrypt(values)) - values

    check(rig, error, fresh(rig.parameters, rig.parameters.scale), with_secret=False)


def test_sums_add_their_noise_and_none_of_their_own(rig: Rig) -> None:
    def error(trial: int) -> np.ndarray:
        values = [rig.values(2 * trial), rig.values(2 * trial + 1)]
        a, b = (rig.encrypt(v) for v in values)
        total = rig.decrypt(rig.engine.add(a, b))
        np.testing.assert_allclose(total, rig.decrypt(a) + rig.decrypt(b), rtol=0, atol=DOUBLE)
        return total - values[0] - values[1]

    check(rig, error, 2 * fresh(rig.parameters, rig.parameters.scale), with_secret=False)


@pytest.mark.parametrize("period", [64, None], ids=["period 64", "full"])
def test_products_with_plaintexts_add_the_rounding_of_the_weights(rig: Rig, period: int | None) -> None:
    plain_scale, slots = 2.0**20, rig.parameters.slots
    level, period = rig.parameters.maximum_level, period or slots

    def error(trial: int) -> np.ndarray:
        a, weights = rig.encrypt(rig.values(trial)), rig.values(100 + trial)[:period]
        product = rig.engine.weighted_sum([a], [rig.engine.encode(weights, level, plain_scale)])
        known = rig.decrypt(a)
        return (rig.decrypt(product) - known * np.resize(weights, slots)) / known

    check(rig, error, encoding(period, plain_scale), with_secret=False, independent=period)


def test_products_of_ciphertexts_add_a_key_switch(rig: Rig) -> None:
    """At a scale so small that the noise of relinearising shows in float64: at the usual one it is 2^-72."""
    scale = 2.0**20

    def error(trial: int) -> np.ndarray:
        a, b = (rig.encrypt(rig.values(2 * trial + i), scale=scale) for i in range(2))
        return rig.decrypt(rig.engine.product_sum([a], [b])) - rig.decrypt(a) * rig.decrypt(b)

    check(rig, error, key_switching(rig.parameters, rig.parameters.maximum_level, scale**2), with_secret=True)


def test_rescaled_products_add_one_rounding(rig: Rig) -> None:
    """Division by P and by the last prime at once: rounded once, not twice."""
    after = rig.parameters.scale**2 / rig.parameters.primes[-1]

    def error(trial: int) -> np.ndarray:
        a, b = (rig.encrypt(rig.values(2 * trial + i)) for i in range(2))
        return rig.decrypt(rig.engine.multiply([a], [b])) - rig.decrypt(a) * rig.decrypt(b)

    check(rig, error, rounding(rig.parameters, after), with_secret=True)


def test_rescaling_rounds(rig: Rig) -> None:
    def error(trial: int) -> np.ndarray:
        a = rig.encrypt(rig.values(trial), scale=2.0**60)
        return rig.decrypt(rig.engine.rescale(a)) - rig.decrypt(a)

    check(rig, error, rounding(rig.parameters, 2.0**60 / rig.parameters.primes[-1]), with_secret=True)


def test_linear_transforms_round_once_whatever_their_number_of_steps(rig: Rig) -> None:
    level, period = rig.parameters.maximum_level, 16
    plain_scale = float(rig.parameters.primes[-1])  # so that the scale stays

    def error(trial: int) -> np.ndarray:
        a, tables = rig.encrypt(rig.values(trial)), rig.values(100 + trial)[: 4 * period].reshape(2, 2, period)
        encoded = rig.engine.encode_table(tables, level, plain_scale)
        (out,) = rig.engine.linear_transforms([a], [[encoded]], (0, 1), STEP)
        known, expected = rig.decrypt(a), np.zeros(rig.parameters.slots, np.complex128)
        for giant, diagonals in enumerate(tables):
            for baby, diagonal in enumerate(diagonals):
                turned = np.roll(known, -baby) * np.resize(diagonal, len(known))
                expected += np.roll(turned, -giant * STEP)
        return rig.decrypt(out) - expected

    check(rig, error, rounding(rig.parameters, rig.parameters.scale), with_secret=True)


@pytest.mark.parametrize("level", [0, 1, None], ids=["level 0", "level 1", "highest"])
@pytest.mark.parametrize("element", ["rotate", "conjugate"])
def test_key_switches_at_any_level(rig: Rig, element: str, level: int | None) -> None:
    level = rig.parameters.maximum_level if level is None else level

    def error(trial: int) -> np.ndarray:
        a = rig.encrypt(rig.values(trial), level)
        if element == "rotate":
            (switched,), expected = rig.engine.rotate(a, [STEP]), np.roll(rig.decrypt(a), -STEP)
        else:
            switched, expected = rig.engine.conjugate(a), rig.decrypt(a).conj()
        return rig.decrypt(switched) - expected

    check(rig, error, key_switching(rig.parameters, level, rig.parameters.scale), with_secret=True)


def coarse(parameters: Parameters, key: EvaluationKey, deviation: float) -> tuple[EvaluationKey, list[float]]:
    """The key with normal errors of that deviation on top of SEAL's, and each digit's variance of both together."""
    random = np.random.default_rng(17)
    tables = make_tables(parameters.all_primes, parameters.ring_degree)
    rows = [*range(key.level + 1), *range(parameters.maximum_level + 1, len(parameters.all_primes))]
    digits, variances = [], []
    for seed, b_rows in key.digits:
        errors = np.rint(random.normal(scale=deviation, size=parameters.ring_degree))
        changed = b_rows.copy()
        for index, row in enumerate(rows):
            p, x = parameters.all_primes[row], errors.copy()
            tables.forward(x, row)
            changed[index] = (b_rows[index] + np.mod(x, float(p)).astype(np.uint64)) % np.uint64(p)
        digits.append((seed, changed))
        variances.append(float(np.mean(errors**2)) + SEAL_ERROR_VARIANCE)
    return replace(key, digits=tuple(digits)), variances


@pytest.mark.parametrize("level", [1, None], ids=["level 1", "highest"])
def test_errors_of_keys_grow_by_digits_over_the_special_primes(rig: Rig, level: int | None) -> None:
    """They drown in rounding by design, so the key gets errors so large that they are a hundred times the rounding's variance."""
    parameters, scale = rig.parameters, rig.parameters.scale
    level = parameters.maximum_level if level is None else level
    unit = key_errors(parameters, level, scale, [1.0] * parameters.digit_count(level))
    deviation = math.sqrt(100 * rounding(parameters, scale) / unit)
    element = galois_element(STEP, parameters)
    (key,) = make_evaluation_keys(rig.client, rig.secret, {element: parameters.maximum_level})
    key, variances = coarse(parameters, key, deviation)
    engine = rig.engine.without_keys()
    engine.load_key(key.galois_element, key.level, key.digits)

    def error(trial: int) -> np.ndarray:
        a = rig.encrypt(rig.values(trial), level)
        return rig.decrypt(engine.rotate(a, [STEP])[0]) - np.roll(rig.decrypt(a), -STEP)

    variance = key_switching(parameters, level, scale, variances[: parameters.digit_count(level)])
    assert variance > 50 * key_switching(parameters, level, scale)
    check(rig, error, variance, with_secret=True)


@pytest.mark.parametrize("name", worst_inputs(8, 1))
def test_worst_inputs_have_the_noise_of_the_formulas_in_every_slot(rig: Rig, name: str) -> None:
    """Encrypt, multiply, relinearise, rescale, rotate: a·e_b + b·e_a, a rounding, and a key switch."""
    parameters, scale = rig.parameters, rig.parameters.scale
    a, b = worst_inputs(parameters.slots, LARGEST)[name], rig.values(7, LARGEST)
    after = scale**2 / parameters.primes[-1]

    def error(_trial: int) -> np.ndarray:
        product = rig.engine.multiply([rig.encrypt(a)], [rig.encrypt(b)])
        return rig.decrypt(rig.engine.rotate(product, [STEP])[0]) - np.roll(a * b, -STEP)

    variance = (
        (np.abs(a) ** 2 + np.abs(b) ** 2) * fresh(parameters, scale)
        + rounding(parameters, after)
        + key_switching(parameters, parameters.maximum_level - 1, after)
    )
    check(rig, error, np.roll(variance, -STEP), with_secret=True)


def test_the_simulator_has_no_less_noise_than_the_formulas(rig: Rig) -> None:
    """Nor more than four times the variance: it takes two roundings for a key switch."""
    parameters, scale = rig.parameters, rig.parameters.scale
    engine = PlainEngine(parameters, noise=True)
    exact = PlainCiphertext(rig.values(0), parameters.maximum_level, scale)
    encrypted = engine.encrypt(exact.slots, exact.level, scale).slots - exact.slots
    rescaled = engine.rescale(exact).slots - exact.slots
    rotated = engine.rotate(exact, [STEP])[0].slots - np.roll(exact.slots, -STEP)
    allowed = DEVIATIONS * math.sqrt(2 / parameters.slots)  # its noise is real: half as many samples
    for errors, variance, least, most in (
        (encrypted, fresh(parameters, scale), 0.95, 1.0),  # of a Gaussian of 3.2, for which SEAL's 3.24 stands in
        (rescaled, rounding(parameters, scale / parameters.primes[-1]), 1.0, 1.0),
        (rotated, key_switching(parameters, exact.level, scale), 1.0, 4.0),
    ):
        assert least - allowed < np.mean(np.abs(errors) ** 2) / variance < most * (1 + allowed)


@pytest.mark.parametrize("repetitions", [1, 4])
def test_the_simulator_rounds_plaintexts_as_the_formula_does(rig: Rig, repetitions: int) -> None:
    scale, period = 2.0**20, rig.parameters.slots // repetitions
    engine, values = PlainEngine(rig.parameters, noise=True), np.zeros(period)
    errors = engine.encode(values, rig.parameters.maximum_level, scale).values
    assert np.mean(errors**2) / encoding(period, scale) == pytest.approx(1, abs=DEVIATIONS * math.sqrt(2 / period))
