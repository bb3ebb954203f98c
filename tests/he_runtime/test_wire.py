"""Wire formats: round trips, and every way of being wrong refused with its reason before anything is computed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he_runtime.errors import WireError
from he_runtime.evaluation_key import EvaluationKey
from he_runtime.parameters import make_parameters
from he_runtime.wire.bits import pack_row, unpack_row
from he_runtime.wire.ciphertexts import (
    SeededCiphertext,
    read_input_ciphertext,
    read_result_ciphertext,
    write_input_ciphertext,
    write_result_ciphertext,
)
from he_runtime.wire.evaluation_keys import read_evaluation_key, write_evaluation_key
from he_runtime.wire.message import Binding, write_frame
from he_runtime.wire.sizes import evaluation_key_bytes, input_ciphertext_bytes, packed_bytes, result_ciphertext_bytes

PARAMETERS = make_parameters(16, 2, insecure_test=True)
BINDING = Binding(PARAMETERS, "ab" * 32)
SCALE = PARAMETERS.scale


def rows(primes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.stack([generator.integers(0, prime, PARAMETERS.ring_degree, dtype=np.uint64) for prime in primes])


def fresh(seed: int = 0) -> SeededCiphertext:
    return SeededCiphertext(bytes(range(64)), rows(PARAMETERS.primes, seed), SCALE)


def key(level: int = 1, element: int = 3) -> EvaluationKey:
    primes = PARAMETERS.primes[: level + 1] + PARAMETERS.special_primes
    digits = tuple((bytes([j] * 64), rows(primes, j)) for j in range(PARAMETERS.digit_count(level)))
    return EvaluationKey(element, level, digits)


@given(st.integers(2, 46), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_bits_round_trip(bits: int, count: int, seed: int) -> None:
    prime = (1 << bits) - 1
    row = np.random.default_rng(seed).integers(0, prime, count, dtype=np.uint64)
    packed = pack_row(row, bits)
    assert len(packed) == packed_bytes(count, bits)
    np.testing.assert_array_equal(unpack_row(memoryview(packed), count, prime), row)


def test_ciphertexts_round_trip_in_their_exact_size() -> None:
    message = write_input_ciphertext(fresh(), BINDING)
    assert len(message) == input_ciphertext_bytes(PARAMETERS, 2)
    read = read_input_ciphertext(message, BINDING, 2, SCALE)
    assert (read.seed, read.scale) == (fresh().seed, SCALE)
    np.testing.assert_array_equal(read.rows, fresh().rows)
    both = np.stack([rows(PARAMETERS.primes[:1], 1), rows(PARAMETERS.primes[:1], 2)])
    answer = write_result_ciphertext(both, SCALE, BINDING)
    assert len(answer) == result_ciphertext_bytes(PARAMETERS, 0)
    np.testing.assert_array_equal(read_result_ciphertext(answer, BINDING, 0, SCALE), both)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_keys_round_trip_in_their_exact_size(level: int) -> None:
    message = write_evaluation_key(key(level), BINDING)
    assert len(message) == evaluation_key_bytes(PARAMETERS, level)
    read = read_evaluation_key(message, BINDING, {3: level})
    assert (read.galois_element, read.level) == (3, level)
    for (seed, values), (read_seed, read_values) in zip(key(level).digits, read.digits, strict=True):
        assert seed == read_seed
        np.testing.assert_array_equal(values, read_values)


def refused(content: bytes, **changes: object) -> str:
    arguments = {"binding": BINDING, "level": 2, "scale": SCALE, **changes}
    with pytest.raises(WireError) as caught:
        read_input_ciphertext(content, **arguments)
    assert str(caught.value)
    return caught.value.reason


def test_truncation_at_every_byte_is_refused() -> None:
    message = write_input_ciphertext(fresh(), BINDING)
    reasons = {refused(message[:length]) for length in range(len(message))}
    assert reasons == {"truncated", "bad_magic"}  # nothing at all has no magic


def test_every_flipped_byte_is_refused() -> None:
    message = bytearray(write_input_ciphertext(fresh(), BINDING))
    for index in range(len(message)):
        message[index] ^= 0x40
        assert refused(bytes(message)) in {
            *("bad_magic", "wrong_version", "wrong_kind", "wrong_parameters", "wrong_program", "digest_mismatch"),
        }
        message[index] ^= 0x40


def test_each_defect_has_its_reason() -> None:
    message = write_input_ciphertext(fresh(), BINDING)
    other = make_parameters(16, 2, insecure_test=True)
    assert other == PARAMETERS
    assert refused(message + b"x") == "trailing_bytes"
    assert refused(message, binding=Binding(PARAMETERS, "cd" * 32)) == "wrong_program"
    assert refused(message, scale=2 * SCALE) == "wrong_scale"
    assert refused(write_evaluation_key(key(), BINDING)[: len(message)]) in {"wrong_kind", "truncated"}
    assert refused(b"THEXSECR" + message[8:]) == "secret_key_refused"
    assert refused(b"\x5e\xa1\x10\x04" + message[4:]) == "secret_key_refused"
    assert refused(b"PK\x03\x04" + message[4:]) == "bad_magic"
    for scale in (float("nan"), float("inf"), -1.0, 0.0, 2.0**900):
        hostile = write_input_ciphertext(SeededCiphertext(fresh().seed, fresh().rows, scale), BINDING)
        assert refused(hostile) == "wrong_scale"


def test_residues_must_be_below_their_prime() -> None:
    values = fresh().rows.copy()
    values[1, 5] = PARAMETERS.primes[1]
    assert (
        refused(write_input_ciphertext(SeededCiphertext(fresh().seed, values, SCALE), BINDING))
        == "residue_out_of_range"
    )


def test_keys_that_the_program_does_not_want_are_refused() -> None:
    message = write_evaluation_key(key(1, 3), BINDING)
    for wanted, reason in (({5: 1}, "unwanted_key"), ({3: 2}, "wrong_level"), ({}, "unwanted_key")):
        with pytest.raises(WireError) as caught:
            read_evaluation_key(message, BINDING, wanted)
        assert caught.value.reason == reason
    with pytest.raises(WireError) as caught:
        read_evaluation_key(write_input_ciphertext(fresh(), BINDING), BINDING, {3: 1})
    assert caught.value.reason == "wrong_kind"


@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(content: bytes) -> None:
    with pytest.raises(WireError):
        read_input_ciphertext(content, BINDING, 2, SCALE)
    with pytest.raises(WireError):
        read_evaluation_key(content, BINDING, {3: 1})


@given(st.integers(1, 3), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=400))
def test_well_framed_garbage_is_refused(kind: int, level: int, element: int, body: bytes) -> None:
    message = write_frame(BINDING, kind, level, element, SCALE, body)
    with pytest.raises(WireError):
        read_input_ciphertext(message, BINDING, 2, SCALE)
