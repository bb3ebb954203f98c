"""The evaluator on a small insecure ring, with keys and encryptions made here by hand: encrypt, operate, decrypt, compare.

Key generation, encryption and decryption below use Python integers and their own direct evaluation of slots; only the
transform, tested by itself in test_kernels_transform.py, is shared with what is under test.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from he_runtime.engines.numba_engine import NumbaCiphertext, NumbaEngine
from he_runtime.errors import KeyMissingError, PlanError
from he_runtime.kernels.arithmetic import centred
from he_runtime.kernels.seeds import expand_uniform
from he_runtime.kernels.transform import automorphism, make_tables
from he_runtime.parameters import make_parameters
from he_runtime.program import RELINEARISATION, galois_element

PARAMETERS = make_parameters(1024, 5, insecure_test=True)
DEGREE, SLOTS, LEVEL, SCALE = PARAMETERS.ring_degree, PARAMETERS.slots, PARAMETERS.maximum_level, PARAMETERS.scale
PRIMES = PARAMETERS.all_primes
TABLES = make_tables(PRIMES, DEGREE)
LIMIT = 4.0  # |values| of the tests
ERROR = 8  # largest coefficient of the noise drawn here

# Noise in slots. A polynomial of N independent coefficients of size B reaches about B·sqrt(N)·sqrt(2·ln N) in some slot;
# twice that is never passed. Rounding by a rescale or by the division by P adds 1/2 to c0 and 1/2 times the ternary
# secret to c1: coefficients of about sqrt(N/18) at one standard deviation, six of them taken.
SPREAD = 2 * math.sqrt(DEGREE * 2 * math.log(DEGREE))
FRESH = ERROR * SPREAD / SCALE
ROUNDING = (1 + 6 * math.sqrt(DEGREE / 18)) * SPREAD / SCALE
# P exceeds digits by 2**9 and digits times errors sum over N products; below one rounding by design, doubled here.
SWITCH = 2 * ROUNDING


def to_rows(coefficients: list[int], rows: range) -> np.ndarray:
    out = np.empty((len(rows), DEGREE))
    for k, row in enumerate(rows):
        out[k] = [centred(c, PRIMES[row]) for c in coefficients]
        TABLES.forward(out[k], row)
    return canonical(out, rows)


def canonical(x: np.ndarray, rows: range) -> np.ndarray:
    return np.stack([x[k].astype(np.int64) % PRIMES[row] for k, row in enumerate(rows)]).astype(object)


def modulo(x: np.ndarray, rows: range) -> np.ndarray:
    return np.stack([x[k] % PRIMES[row] for k, row in enumerate(rows)])


@dataclass
class Client:
    """Toy key generation: ternary secret, noise uniform in [-8, 8]. Insecure, for tests."""

    random: np.random.Generator

    def __post_init__(self) -> None:
        self.secret = to_rows([int(x) for x in self.random.integers(-1, 2, DEGREE)], range(len(PRIMES)))

    def small(self, rows: range) -> np.ndarray:
        return to_rows([int(x) for x in self.random.integers(-ERROR, ERROR + 1, DEGREE)], rows)

    def encrypt(self, values: np.ndarray, level: int = LEVEL, scale: float = SCALE) -> np.ndarray:
        rows = range(level + 1)
        exponents = [pow(3, j, 2 * DEGREE) for j in range(SLOTS)]
        turns = np.outer(np.arange(DEGREE), exponents) % (2 * DEGREE)
        polynomial = np.rint(np.cos(np.pi / DEGREE * turns) @ values * 2 / DEGREE * scale)
        a = expand_uniform(self.random.bytes(64), PRIMES[: level + 1], DEGREE).astype(object)
        b = modulo(to_rows([int(c) for c in polynomial], rows) + self.small(rows) - a * self.secret[rows], rows)
        return np.stack([b, a]).astype(np.uint64)

    def decrypt(self, rows: np.ndarray, scale: float) -> np.ndarray:
        count = rows.shape[1]
        phase = modulo(rows[0].astype(object) + rows[1].astype(object) * self.secret[:count], range(count))
        modulus = math.prod(PRIMES[:count])
        total = np.zeros(DEGREE, dtype=object)
        for t in range(count):
            p = PRIMES[t]
            x = phase[t].astype(np.float64)
            TABLES.inverse(x, t, centred(pow(DEGREE, -1, p), p))
            cofactor = modulus // p
            total += x.astype(np.int64).astype(object) * (cofactor * pow(cofactor, -1, p))
        total %= modulus
        near = np.where(total > modulus // 2, total - modulus, total).astype(np.float64) / scale
        # Values at the odd powers of exp(iπ/N), by one FFT of length N; slot j is the one at 3^j.
        every = np.fft.ifft(near * np.exp(1j * np.pi / DEGREE * np.arange(DEGREE))) * DEGREE
        return every[[(pow(3, j, 2 * DEGREE) - 1) // 2 for j in range(SLOTS)]].real

    def key(self, element: int, level: int) -> list[tuple[bytes, np.ndarray]]:
        everything = range(len(PRIMES))
        source = (
            modulo(self.secret * self.secret, everything)
            if element == RELINEARISATION
            else self.secret[:, automorphism(element, DEGREE)]
        )
        special = math.prod(PARAMETERS.special_primes)
        digits = []
        for j in range(PARAMETERS.digit_count(level)):
            seed = self.random.bytes(64)
            b = self.small(everything) - expand_uniform(seed, PRIMES, DEGREE).astype(object) * self.secret
            for t in range(j * PARAMETERS.digit_size, min((j + 1) * PARAMETERS.digit_size, LEVEL + 1)):
                b[t] = b[t] + special * source[t]
            b = modulo(b, everything).astype(np.uint64)
            digits.append((seed, np.concatenate([b[: level + 1], b[LEVEL + 1 :]])))
        return digits


@dataclass
class Setting:
    client: Client
    engine: NumbaEngine

    def encrypt(self, values: np.ndarray, level: int = LEVEL) -> NumbaCiphertext:
        return self.engine.from_rows(self.client.encrypt(values, level), SCALE)

    def error(self, ciphertext: NumbaCiphertext, expected: np.ndarray) -> float:
        got = self.client.decrypt(self.engine.to_rows(ciphertext), ciphertext.scale)
        return float(np.abs(got - expected).max())


@pytest.fixture(scope="module")
def setting() -> Setting:
    client = Client(np.random.default_rng(1))
    engine = NumbaEngine(PARAMETERS)
    for step in (1, 2, 3, SLOTS - 1):
        element = galois_element(step, PARAMETERS)
        engine.load_key(element, LEVEL, client.key(element, LEVEL))
    short = galois_element(7, PARAMETERS)
    engine.load_key(short, 2, client.key(short, 2))
    engine.load_key(RELINEARISATION, LEVEL, client.key(RELINEARISATION, LEVEL))
    return Setting(client, engine)


def values(seed: int, length: int = SLOTS) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-LIMIT, LIMIT, length)


def test_rows_survive_the_engine_and_decrypt(setting: Setting) -> None:
    v = values(0)
    rows = setting.client.encrypt(v)
    ciphertext = setting.engine.from_rows(rows, SCALE)
    assert np.array_equal(setting.engine.to_rows(ciphertext), rows)
    assert setting.error(ciphertext, v) < FRESH


@pytest.mark.parametrize("level", range(LEVEL + 1))
@pytest.mark.parametrize("step", [1, 3, -1])
def test_rotation_at_every_level(setting: Setting, level: int, step: int) -> None:
    """Keys of the full level, cut; every size of last digit."""
    v = values(level)
    (rotated,) = setting.engine.rotate(setting.encrypt(v, level), [step])
    assert rotated.level == level
    assert setting.error(rotated, np.roll(v, -step)) < FRESH + SWITCH


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_key_made_for_a_low_level_serves_the_levels_below(setting: Setting, level: int) -> None:
    v = values(level)
    (rotated,) = setting.engine.rotate(setting.encrypt(v, level), [7])
    assert setting.error(rotated, np.roll(v, -7)) < FRESH + SWITCH


def test_hoisted_rotations_equal_separate_ones(setting: Setting) -> None:
    ciphertext = setting.encrypt(values(2))
    together = setting.engine.rotate(ciphertext, [3, 0, 1, 3])
    assert together[1] is ciphertext
    for step, hoisted in zip([3, 0, 1, 3], together, strict=True):
        (alone,) = setting.engine.rotate(ciphertext, [step])
        assert np.array_equal(setting.engine.to_rows(hoisted), setting.engine.to_rows(alone))


def test_rotations_compose(setting: Setting) -> None:
    v = values(4)
    (one,) = setting.engine.rotate(setting.encrypt(v), [1])
    (three,) = setting.engine.rotate(one, [2])
    assert setting.error(three, np.roll(v, -3)) < FRESH + 2 * SWITCH
    (back,) = setting.engine.rotate(setting.engine.rotate(setting.encrypt(v), [1])[0], [-1])
    assert setting.error(back, v) < FRESH + 2 * SWITCH


@pytest.mark.parametrize("level", [LEVEL, 2, 1])
def test_product_sum_then_rescale(setting: Setting, level: int) -> None:
    pairs = [(values(2 * k), values(2 * k + 1)) for k in range(3)]
    left, right = ([setting.encrypt(pair[side], level) for pair in pairs] for side in (0, 1))
    product = setting.engine.product_sum(left, right)
    assert product.scale == SCALE**2
    rescaled = setting.engine.rescale(product)
    assert rescaled.level == level - 1
    assert rescaled.scale == pytest.approx(SCALE**2 / PARAMETERS.primes[level])
    expected = sum(a * b for a, b in pairs)
    assert setting.error(rescaled, expected) < len(pairs) * 2 * LIMIT * 2 * FRESH + 2 * ROUNDING


@pytest.mark.parametrize("periods", [[SLOTS] * 2, [1, 2], [16] * 4, [16] * 9, [16, SLOTS, 4, 16, 16, 16, 1]])
def test_weighted_sum_over_any_mix_of_periods(setting: Setting, periods: list[int]) -> None:
    terms = [(values(k), values(100 + k, period)) for k, period in enumerate(periods)]
    total = setting.engine.weighted_sum(
        [setting.encrypt(v) for v, _ in terms], [setting.engine.encode(w, LEVEL, SCALE) for _, w in terms]
    )
    expected = sum(v * np.tile(w, SLOTS // len(w)) for v, w in terms)
    bound = len(terms) * LIMIT * 2 * FRESH + ROUNDING
    assert setting.error(setting.engine.rescale(total), expected) < bound


def test_additions_and_drop(setting: Setting) -> None:
    v, w, z = values(5), values(6), values(7, 8)
    engine = setting.engine
    total = engine.add(setting.encrypt(v), setting.encrypt(w))
    total = engine.add_plain(total, engine.encode(z, LEVEL, SCALE))
    dropped = engine.drop(total, 1)
    assert dropped.level == 1
    assert setting.error(dropped, v + w + np.tile(z, SLOTS // 8)) < 3 * FRESH
    (rotated,) = engine.rotate(dropped, [1])
    assert setting.error(rotated, np.roll(v + w + np.tile(z, SLOTS // 8), -1)) < 3 * FRESH + SWITCH


def test_operations_leave_their_arguments_alone(setting: Setting) -> None:
    engine = setting.engine
    a, b, w = setting.encrypt(values(8)), setting.encrypt(values(9)), engine.encode(values(1, 4), LEVEL, SCALE)
    before = a.residues.copy(), b.residues.copy(), w.words.copy()
    engine.rotate(a, [1, 2])
    engine.product_sum([a], [b])
    engine.weighted_sum([a, b], [w, w])
    engine.rescale(a)
    engine.add(a, b)
    engine.add_plain(a, w)
    assert all(np.array_equal(x, y) for x, y in zip(before, (a.residues, b.residues, w.words), strict=True))


def test_threads_get_the_answers_of_one(setting: Setting) -> None:
    ciphertexts = [setting.encrypt(values(k), level) for k, level in enumerate([LEVEL, 2, LEVEL, 1] * 3)]

    def work(ciphertext: NumbaCiphertext) -> np.ndarray:
        rotated = setting.engine.rotate(ciphertext, [1, 2, 3])
        return setting.engine.to_rows(setting.engine.rescale(setting.engine.product_sum(rotated, rotated)))

    alone = [work(ciphertext) for ciphertext in ciphertexts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, ciphertexts))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_rows_shared_out_to_threads_give_the_same_residues(setting: Setting, threads: int) -> None:
    a, b = setting.encrypt(values(0)), setting.encrypt(values(1))
    table = np.random.default_rng(3).normal(size=(3, 3, 16))

    def results(of: NumbaEngine) -> list[np.ndarray]:
        ciphertexts = [
            *of.rotate(a, [1, 3]),
            of.rescale(of.product_sum([a, b, a], [b, b, a])),
            of.multiply([a], [b]),
            of.add(a, b),
            of.combine(a, b, 1),
            of.weighted_sum([a, b], [of.encode(table[0, 0], LEVEL, SCALE)] * 2),
            of.add_plain(a, of.encode(table[0, 0], LEVEL, SCALE)),
            *of.linear_transforms([a], [[of.encode_table(table, LEVEL, SCALE)]], (0, 1, 2), 3),
        ]
        return [of.to_rows(ciphertext) for ciphertext in ciphertexts]

    for one, several in zip(results(setting.engine), results(setting.engine.with_threads(threads)), strict=True):
        assert np.array_equal(one, several)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("periods", [(4, 4), (8, 1), (16, SLOTS)])  # a table of all slots is never compact
def test_compact_tables_give_the_same_residues(setting: Setting, threads: int, periods: tuple[int, int]) -> None:
    ciphertext = setting.encrypt(values(0))
    random = np.random.default_rng(4)
    slots = [random.normal(size=(2, 3, period)) for period in periods]
    slots[0][1, 2] = 0
    encoded = setting.engine.with_threads(threads)
    compact = encoded.without_keys()
    compact.compact_tables, compact._keys = True, encoded._keys
    tables = [[engine.encode_table(of, LEVEL, SCALE) for of in slots] for engine in (encoded, compact)]
    assert tables[1][0].words.size < tables[0][0].words.size / LEVEL
    one, other = (
        engine.linear_transforms([ciphertext], [[table] for table in of], (0, 1, 2), 3)
        for engine, of in zip((encoded, compact), tables, strict=True)
    )
    for a, b in zip(one, other, strict=True):
        assert a.scale == b.scale
        assert np.array_equal(encoded.to_rows(a), encoded.to_rows(b))


@pytest.mark.parametrize("compact", [False, True])
def test_outputs_made_together_or_one_by_one_are_the_same(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, compact: bool
) -> None:
    """Two inputs, three outputs of different numbers of sums; also the sum over inputs of what each gives alone."""
    ciphertexts, random = [setting.encrypt(values(index)) for index in range(2)], np.random.default_rng(5)
    engine = setting.engine.without_keys()
    engine.compact_tables, engine._keys = compact, setting.engine._keys
    slots = [[random.normal(size=(sums, 3, 8)) for _ in ciphertexts] for sums in (2, 1, 2)]
    tables = [[engine.encode_table(of_input, LEVEL, SCALE) for of_input in of_output] for of_output in slots]
    together = engine.linear_transforms(ciphertexts, tables, (0, 1, 2), 3)
    monkeypatch.setattr("he_runtime.engines.linear_transforms.MOST_SUM_BYTES", 1)
    one_by_one = engine.linear_transforms(ciphertexts, tables, (0, 1, 2), 3)
    for a, b in zip(together, one_by_one, strict=True):
        assert np.array_equal(engine.to_rows(a), engine.to_rows(b))
    for place, whole in enumerate(together):
        (first,), (second,) = (
            engine.linear_transforms([ciphertext], [[tables[place][index]]], (0, 1, 2), 3)
            for index, ciphertext in enumerate(ciphertexts)
        )
        # Three divisions round here, one of them both inputs at once.
        added = engine.add(first, second)
        assert setting.error(whole, setting.client.decrypt(engine.to_rows(added), added.scale)) < 3 * ROUNDING


def test_missing_and_short_keys_are_named(setting: Setting) -> None:
    ciphertext = setting.encrypt(values(0))
    with pytest.raises(KeyMissingError, match=r"rotation by 5 at level 5"):
        setting.engine.rotate(ciphertext, [1, 5])
    with pytest.raises(KeyMissingError, match=r"rotation by 7 at level 5.*level 2"):
        setting.engine.rotate(ciphertext, [7])
    with pytest.raises(KeyMissingError, match="relinearisation"):
        setting.engine.without_keys().product_sum([ciphertext], [ciphertext])


def transform(engine: NumbaEngine, a: NumbaCiphertext, values: np.ndarray, steps: tuple[int, ...]) -> object:
    return engine.linear_transforms([a], [[engine.encode_table(values, a.level, SCALE)]], steps, 3)


@pytest.mark.parametrize(
    "operation",
    [
        lambda engine, a, low: engine.add(a, low),
        lambda engine, a, low: engine.product_sum([a], [low]),
        lambda engine, a, _low: engine.add(a, NumbaCiphertext(a.residues, a.scale * 1.001)),
        lambda engine, a, _low: engine.add_plain(a, engine.encode(np.ones(1), LEVEL - 1, SCALE)),
        lambda engine, a, _low: engine.add_plain(a, engine.encode(np.ones(1), LEVEL, 2 * SCALE)),
        lambda engine, a, _low: engine.weighted_sum([a], [engine.encode(np.ones(1), LEVEL - 1, SCALE)]),
        lambda engine, a, _low: engine.rescale(engine.drop(a, 0)),
        lambda engine, _a, low: engine.drop(low, LEVEL),
        lambda engine, _a, _low: engine.encode(np.ones(3), LEVEL, SCALE),
        lambda engine, _a, _low: engine.encode(np.array([np.nan]), LEVEL, SCALE),
        lambda engine, _a, _low: engine.encode(np.array([2.0**20]), LEVEL, SCALE),
        lambda engine, _a, _low: engine.load_key(3, LEVEL, []),
        lambda engine, _a, _low: engine.load_key(3, LEVEL + 1, []),
        lambda engine, _a, _low: engine.encode_table(np.full((1, 2, 1), 1j), LEVEL, SCALE),
        lambda engine, a, _low: transform(engine, a, np.ones((1, 3, 4)), (0, 1)),
        lambda engine, a, _low: transform(engine, a, np.ones((1, 2, 4)), (1, 2)),
        lambda engine, a, _low: transform(engine, a, np.ones((1, 1, 4)), (0,)),
        lambda engine, a, _low: transform(engine, a, np.ones((1, 33, 4)), (0,) * 33),
        lambda engine, _a, low: transform(engine, engine.drop(low, 0), np.ones((1, 2, 4)), (0, 1)),
    ],
)
def test_what_does_not_fit_is_refused(
    setting: Setting, operation: Callable[[NumbaEngine, NumbaCiphertext, NumbaCiphertext], object]
) -> None:
    a = setting.encrypt(values(0))
    with pytest.raises(PlanError):
        operation(setting.engine, a, setting.engine.drop(a, 1))


def test_keys_take_six_bytes_a_word(setting: Setting) -> None:
    specials = len(PARAMETERS.special_primes)
    words = 5 * PARAMETERS.digit_count(LEVEL) * (LEVEL + 1 + specials) + PARAMETERS.digit_count(2) * (3 + specials)
    assert setting.engine.memory_bytes() == words * 2 * DEGREE * 6
