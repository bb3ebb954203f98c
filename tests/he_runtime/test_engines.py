"""One suite for the three engines: plain simulator, numba on residues, SEAL. All start from the same encryptions."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from he_runtime.client_keys import make_evaluation_keys
from he_runtime.engines.interface import quarter_turns
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.engines.plain import PlainEngine
from he_runtime.engines.seal_engine import SealEngine
from he_runtime.errors import KeyMissingError, PlanError
from he_runtime.execution import encode_constants, run
from he_runtime.parameters import ChainShape, make_parameters
from he_runtime.plain_model import logits as plain_logits
from he_runtime.program import RELINEARISATION, conjugation_element, galois_element
from he_runtime.seal import SealClient
from tests.he_runtime.test_lowering import tiny_plan
from tests.random_models import random_text, random_weights
from tests.tolerances import engine_tolerance, seal_engine_tolerance

LEVELS = 4
PARAMETERS = make_parameters(1024, LEVELS, insecure_test=True)
SCALE, SLOTS = PARAMETERS.scale, PARAMETERS.slots
STEPS = (1, 5, 64, -3)
LOW_STEP = 64  # its key reaches level 2 only
TOLERANCE = engine_tolerance(PARAMETERS)  # times the largest operand where operands are multiplied
SEAL_TOLERANCE = seal_engine_tolerance(PARAMETERS)


@dataclass(frozen=True)
class Rig:
    """An engine, and how its ciphertexts are made and read."""

    engine: Any
    encrypt: Any
    decrypt: Any
    tolerance: float


@cache
def rigs() -> dict[str, Rig]:
    client = SealClient(PARAMETERS)
    secret = client.generate_secret_key()
    numba = NumbaEngine(PARAMETERS)
    wanted = {RELINEARISATION: LEVELS, conjugation_element(PARAMETERS): LEVELS}
    for step in STEPS:
        wanted[galois_element(step, PARAMETERS)] = 2 if step == LOW_STEP else LEVELS
    for key in make_evaluation_keys(client, secret, wanted):
        numba.load_key(key.galois_element, key.level, key.digits)
    seal = SealEngine(client, secret, STEPS)
    plain = PlainEngine(PARAMETERS, keys=wanted)

    def encrypt_rows(slots: np.ndarray) -> np.ndarray:
        fresh = client.encrypt(secret, slots, LEVELS, SCALE)
        assert fresh.seed is not None
        return numba.to_rows(numba.from_seeded(fresh.seed, fresh.rows[0], SCALE))

    def read(engine: Any) -> Any:
        return lambda ciphertext: client.decrypt_complex(secret, engine.to_rows(ciphertext), ciphertext.scale)

    return {
        "plain": Rig(
            plain, lambda slots: plain.encrypt(slots, LEVELS, SCALE), lambda ciphertext: ciphertext.slots, TOLERANCE
        ),
        "numba": Rig(numba, lambda slots: numba.from_rows(encrypt_rows(slots), SCALE), read(numba), TOLERANCE),
        "seal": Rig(seal, lambda slots: seal.from_rows(encrypt_rows(slots), SCALE), read(seal), SEAL_TOLERANCE),
    }


@pytest.fixture(params=["plain", "numba", "seal"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return rigs()[request.param]


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, SLOTS)


WORST = {
    "random": vector(7),
    "all ones": np.ones(SLOTS),
    "alternating": np.resize([1.0, -1.0], SLOTS),
    "one spike": np.eye(1, SLOTS, 3)[0],
    "zero": np.zeros(SLOTS),
}


@pytest.mark.parametrize("name", WORST)
def test_rotations(rig: Rig, name: str) -> None:
    slots = WORST[name]
    ciphertext = rig.encrypt(slots)
    steps = [1, 0, 5, -3]
    for step, rotated in zip(steps, rig.engine.rotate(ciphertext, steps), strict=True):
        np.testing.assert_allclose(rig.decrypt(rotated), np.roll(slots, -step), rtol=0, atol=rig.tolerance)
        assert (rig.engine.level(rotated), rig.engine.scale(rotated)) == (LEVELS, SCALE)


def test_rotations_compose(rig: Rig) -> None:
    slots = vector(1)
    (once,) = rig.engine.rotate(rig.encrypt(slots), [5])
    (twice,) = rig.engine.rotate(once, [-3])
    np.testing.assert_allclose(rig.decrypt(twice), np.roll(slots, -2), rtol=0, atol=2 * rig.tolerance)


@pytest.mark.parametrize("name", WORST)
def test_products_of_ciphertexts(rig: Rig, name: str) -> None:
    left, right = WORST[name], vector(2)
    a, b = rig.encrypt(left), rig.encrypt(right)
    total = rig.engine.product_sum([a, b, b], [b, b, a])
    assert rig.engine.scale(total) == SCALE * SCALE
    rescaled = rig.engine.rescale(total)
    assert rig.engine.level(rescaled) == LEVELS - 1
    expected = 2 * left * right + right * right
    np.testing.assert_allclose(rig.decrypt(rescaled), expected, rtol=0, atol=8 * rig.tolerance)


def test_a_rescaled_product_is_a_product_sum_and_a_rescale(rig: Rig) -> None:
    left, right = vector(1), vector(2)
    a, b = rig.encrypt(left), rig.encrypt(right)
    product = rig.engine.multiply([a, b, b], [b, b, a])
    assert rig.engine.level(product) == LEVELS - 1
    assert rig.engine.scale(product) == pytest.approx(SCALE**2 / PARAMETERS.primes[LEVELS])
    expected = 2 * left * right + right * right
    np.testing.assert_allclose(rig.decrypt(product), expected, rtol=0, atol=8 * rig.tolerance)
    with pytest.raises(PlanError, match="at level 0"):
        rig.engine.multiply([rig.engine.drop(a, 0)], [rig.engine.drop(a, 0)])


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
@pytest.mark.parametrize("period", [16, SLOTS])
def test_linear_transforms(rig: Rig, level: int, period: int) -> None:
    """Two inputs of different scales, two outputs of different scales and numbers of giant steps, zero diagonals among them."""
    generator = np.random.default_rng(period)
    slots = [vector(1), vector(2) + 1j * vector(3)]
    inputs = [rig.engine.drop(rig.encrypt(v), level) for v in slots]
    inputs[1] = rig.engine.at_scale(inputs[1], 2 * SCALE)
    slots[1] = slots[1] / 2
    baby_steps, giant_step = (0, 1, -3), 5
    values = [[generator.uniform(-1, 1, (sums, 3, period)) for _ in inputs] for sums in (3, 1)]
    values[0][0][1, 2] = 0.0
    values[0][1][2] = 0.0
    scales = ((SCALE, SCALE / 2), (2 * SCALE, SCALE))
    tables = [
        [rig.engine.encode_table(v, level, scale) for v, scale in zip(row, of_inputs, strict=True)]
        for row, of_inputs in zip(values, scales, strict=True)
    ]
    outputs = rig.engine.linear_transforms(inputs, tables, baby_steps, giant_step)
    for output, row, (scale, _) in zip(outputs, values, scales, strict=True):
        expected = np.zeros(SLOTS, np.complex128)
        for v, table in zip(slots, row, strict=True):
            for giant, diagonals in enumerate(table):
                for step, diagonal in zip(baby_steps, diagonals, strict=True):
                    expected += np.roll(np.roll(v, -step) * np.resize(diagonal, SLOTS), -giant * giant_step)
        assert rig.engine.level(output) == level - 1
        assert rig.engine.scale(output) == pytest.approx(SCALE * scale / PARAMETERS.primes[level])
        # 18 products, each with the error of a rotation or two.
        np.testing.assert_allclose(rig.decrypt(output), expected, rtol=0, atol=36 * rig.tolerance)


@pytest.mark.parametrize("period", [1, 16, 64, SLOTS])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_sums_of_plaintext_products(rig: Rig, period: int, count: int) -> None:
    generator = np.random.default_rng(period + count)
    ciphertexts, plaintexts, expected = [], [], np.zeros(SLOTS)
    for index in range(count):
        slots, weights = vector(index), generator.uniform(-1, 1, period)
        ciphertexts.append(rig.encrypt(slots))
        plaintexts.append(rig.engine.encode(weights, LEVELS, SCALE))
        expected += slots * np.tile(weights, SLOTS // period)
    total = rig.engine.rescale(rig.engine.weighted_sum(ciphertexts, plaintexts))
    np.testing.assert_allclose(rig.decrypt(total), expected, rtol=0, atol=2 * count * rig.tolerance)


def test_sums_drops_and_plaintext_sums(rig: Rig) -> None:
    left, right, constant = vector(3), vector(4), vector(5)[:32]
    a, b = rig.encrypt(left), rig.engine.drop(rig.encrypt(right), 1)
    low = rig.engine.drop(a, 1)
    total = rig.engine.add_plain(rig.engine.add(low, b), rig.engine.encode(constant, 1, SCALE))
    assert rig.engine.level(total) == 1
    expected = left + right + np.tile(constant, SLOTS // 32)
    np.testing.assert_allclose(rig.decrypt(total), expected, rtol=0, atol=3 * rig.tolerance)


def test_operations_leave_their_operands_alone(rig: Rig) -> None:
    slots = vector(6)
    a, b = rig.encrypt(slots), rig.encrypt(vector(8))
    rig.engine.rotate(a, [1, 5])
    rig.engine.rescale(rig.engine.product_sum([a], [b]))
    rig.engine.add(a, b)
    rig.engine.drop(a, 0)
    np.testing.assert_allclose(rig.decrypt(a), slots, rtol=0, atol=rig.tolerance)


def test_what_would_go_silently_wrong_is_refused(rig: Rig) -> None:
    a = rig.encrypt(vector(0))
    low = rig.engine.drop(a, 1)
    with pytest.raises(PlanError, match="operands at levels"):
        rig.engine.add(a, low)
    with pytest.raises(PlanError, match="of scales"):
        rig.engine.add(rig.engine.rescale(rig.engine.product_sum([a], [a])), rig.engine.drop(a, LEVELS - 1))
    with pytest.raises(PlanError, match="rescale at level 0"):
        rig.engine.rescale(rig.engine.drop(a, 0))
    with pytest.raises(PlanError, match="cannot drop"):
        rig.engine.drop(low, 2)
    with pytest.raises(KeyMissingError, match="rotation by 7"):
        rig.engine.rotate(a, [7])
    with pytest.raises(PlanError, match="does not divide"):
        rig.engine.encode(np.ones(3), 1, SCALE)


@pytest.mark.parametrize("name", ["plain", "numba"])
def test_a_truncated_key_serves_its_level_and_no_higher(name: str) -> None:
    rig = rigs()[name]
    slots = vector(9)
    a = rig.encrypt(slots)
    for level in (0, 1, 2):
        (rotated,) = rig.engine.rotate(rig.engine.drop(a, level), [LOW_STEP])
        np.testing.assert_allclose(rig.decrypt(rotated), np.roll(slots, -LOW_STEP), rtol=0, atol=rig.tolerance)
    with pytest.raises(KeyMissingError, match="its key reaches level 2"):
        rig.engine.rotate(a, [LOW_STEP])


def test_numba_and_seal_encode_to_the_same_residues() -> None:
    numba, seal = rigs()["numba"].engine, rigs()["seal"].engine
    zero = np.zeros((2, LEVELS + 1, PARAMETERS.ring_degree), np.uint64)
    weights = vector(11)
    ours = numba.to_rows(numba.add_plain(numba.from_rows(zero, SCALE), numba.encode(weights, LEVELS, SCALE)))
    # SEAL refuses a transparent sum, so add to an encryption and subtract it again.
    base = numba.to_rows(rigs()["numba"].encrypt(vector(12)))
    theirs = seal.to_rows(seal.add_plain(seal.from_rows(base, SCALE), seal.encode(weights, LEVELS, SCALE)))
    primes = np.array(PARAMETERS.primes, np.uint64)[:, None]
    difference = (theirs[0] + primes - base[0]) % primes
    # Both round the same real coefficients; the transforms agree wherever no coefficient lies on a tie of rounding.
    assert (difference == ours[0]).mean() > 0.99 or np.array_equal(difference, ours[0])


def test_one_program_on_three_engines() -> None:
    weights = random_weights(1, 8, 2, 16)
    plan = tiny_plan(weights, (4,))
    program, client_plan = plan.programs[4], plan.client_plan()
    text = random_text(3, 8)
    client = SealClient(plan.parameters)
    secret = client.generate_secret_key()
    numba = NumbaEngine(plan.parameters)
    for key in make_evaluation_keys(client, secret, plan.keys):
        numba.load_key(key.galois_element, key.level, key.digits)
    slots = plan.parameters.slots
    steps = {step for operation in program.operations for step in operation.steps if step % slots}
    seal = SealEngine(client, secret, tuple(steps))
    plain = PlainEngine(plan.parameters, keys=plan.keys)
    inputs: dict[str, dict[str, Any]] = {"plain": {}, "numba": {}, "seal": {}}
    for name, values in client_plan.pack(4, text).items():
        level = program.inputs[name].level
        fresh = client.encrypt(secret, values, level, plan.parameters.scale)
        assert fresh.seed is not None
        inputs["numba"][name] = numba.from_seeded(fresh.seed, fresh.rows[0], plan.parameters.scale)
        inputs["seal"][name] = seal.from_rows(numba.to_rows(inputs["numba"][name]), plan.parameters.scale)
        inputs["plain"][name] = plain.encrypt(values, level, plan.parameters.scale)
    answers = {}
    for name, engine in (("plain", plain), ("numba", numba), ("seal", seal)):
        out = run(program, engine, encode_constants(program, engine), inputs[name])["logits"]
        assert (out.level, out.scale) == (0, pytest.approx(program.outputs["logits"].scale, rel=1e-9))
        decrypted = out.slots if name == "plain" else client.decrypt(secret, engine.to_rows(out), out.scale)
        answers[name] = client_plan.unpack(4, decrypted)
    np.testing.assert_allclose(answers["plain"], plain_logits(weights, text), rtol=0, atol=1e-12)
    # 60 operations on values of size one, each adding at most TOLERANCE/10 (one deviation).
    np.testing.assert_allclose(answers["numba"], answers["plain"], rtol=0, atol=6 * TOLERANCE)
    np.testing.assert_allclose(answers["seal"], answers["plain"], rtol=0, atol=6 * SEAL_TOLERANCE)


def test_conjugation_and_powers_of_i(rig: Rig) -> None:
    a, b = vector(1) + 1j * vector(2), vector(3) - 1j * vector(4)
    left, right = rig.encrypt(a), rig.encrypt(b)
    np.testing.assert_allclose(rig.decrypt(rig.engine.conjugate(left)), a.conj(), rtol=0, atol=rig.tolerance)
    for power in range(4):
        combined = rig.engine.combine(left, right, power)
        np.testing.assert_allclose(
            rig.decrypt(combined), a + quarter_turns(SLOTS, power) * b, rtol=0, atol=rig.tolerance
        )


@pytest.mark.parametrize("length", [1, 2, 64])
def test_complex_plaintexts(rig: Rig, length: int) -> None:
    a, period = vector(1) + 1j * vector(2), (vector(3) + 1j * vector(4))[:length]
    weights = rig.engine.encode(period, LEVELS, SCALE)
    product = rig.engine.rescale(rig.engine.weighted_sum([rig.encrypt(a)], [weights]))
    np.testing.assert_allclose(rig.decrypt(product), a * np.resize(period, SLOTS), rtol=0, atol=2 * rig.tolerance)


def test_another_scale_divides_the_values(rig: Rig) -> None:
    halved = rig.engine.at_scale(rig.encrypt(vector(1)), 2 * SCALE)
    np.testing.assert_allclose(rig.decrypt(halved), vector(1) / 2, rtol=0, atol=rig.tolerance)


@pytest.mark.parametrize(("scale_bits", "digit_size"), [(30, 12), (31, 16), (33, 13), (34, 6), (35, 5)])
def test_chains_of_small_primes_beside_large_special_ones(scale_bits: int, digit_size: int) -> None:
    """What deep models are computed with: a sum that overflows there is wrong by half a modulus, not by noise."""
    parameters = make_parameters(
        1024, 2 * digit_size, insecure_test=True, shape=ChainShape(scale_bits=scale_bits, digit_size=digit_size)
    )
    client, engine, level = SealClient(parameters), NumbaEngine(parameters), parameters.maximum_level
    secret = client.generate_secret_key()
    wanted = {RELINEARISATION: level, galois_element(5, parameters): level}
    for key in make_evaluation_keys(client, secret, wanted):
        engine.load_key(key.galois_element, key.level, key.digits)
    slots, tolerance = vector(1), engine_tolerance(parameters)
    fresh = client.encrypt(secret, slots, level, parameters.scale)
    assert fresh.seed is not None
    ciphertext = engine.from_seeded(fresh.seed, fresh.rows[0], parameters.scale)
    (rotated,) = engine.rotate(ciphertext, [5])
    product = engine.multiply([ciphertext, rotated], [rotated, rotated])
    turned = np.roll(slots, -5)
    for found, expected in ((rotated, turned), (product, slots * turned + turned * turned)):
        decrypted = client.decrypt_complex(secret, engine.to_rows(found), found.scale)
        np.testing.assert_allclose(decrypted, expected, rtol=0, atol=8 * tolerance)
