"""Right messages of every kind on a ring of 16, small enough to be cut at every byte, and the readers that meet them first."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from he_runtime.evaluation_key import EvaluationKey
from he_runtime.wire.answers import read_answer, write_answer
from he_runtime.wire.ciphertexts import (
    SeededCiphertext,
    read_input_ciphertext,
    read_result_ciphertext,
    write_input_ciphertext,
    write_result_ciphertext,
)
from he_runtime.wire.evaluation_keys import read_evaluation_key, write_evaluation_key
from tests.services.served import BINDING, KEYS, PARAMETERS

PERIOD, LEVEL, ELEMENT = 2, 2, 3
HEAD_BYTES = 96
Reader = Callable[[bytes], Any]


def _rows(primes: tuple[int, ...], seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.stack([generator.integers(0, prime, PARAMETERS.ring_degree, dtype=np.uint64) for prime in primes])


def right_messages() -> dict[str, bytes]:
    """Kind -> a message that its reader takes."""
    primes = PARAMETERS.primes
    seed = bytes(range(64))
    key_primes = primes[: KEYS[ELEMENT] + 1] + PARAMETERS.special_primes
    digits = tuple((seed, _rows(key_primes, j)) for j in range(PARAMETERS.digit_count(KEYS[ELEMENT])))
    fresh = SeededCiphertext(seed, _rows(primes, 7), PARAMETERS.scale)
    result = np.stack([_rows(primes[:1], 8), _rows(primes[:1], 9)])
    return {
        "key": write_evaluation_key(EvaluationKey(ELEMENT, KEYS[ELEMENT], digits), BINDING),
        "fresh": write_input_ciphertext(fresh, BINDING),
        "result": write_result_ciphertext(result, PARAMETERS.scale, BINDING),
        "answer": write_answer(result[:, 0], PERIOD, PARAMETERS.scale, BINDING),
    }


READERS: Mapping[str, Reader] = {
    "key": lambda content: read_evaluation_key(content, BINDING, KEYS),
    "fresh": lambda content: read_input_ciphertext(content, BINDING, LEVEL, PARAMETERS.scale),
    "result": lambda content: read_result_ciphertext(content, BINDING, 0, PARAMETERS.scale),
    "answer": lambda content: read_answer(content, PERIOD, PARAMETERS.scale, BINDING),
}

HEAD = struct.Struct("<8sHHIQd32s32s")
FIELDS = ("magic", "version", "kind", "level", "element", "scale", "parameters", "program")
