"""Evaluation keys on the wire: each key is one message, so an upload resumes at any key."""

from collections.abc import Mapping

import numpy as np

from he_runtime.errors import WireError
from he_runtime.evaluation_key import EvaluationKey
from he_runtime.wire.bits import pack_row, unpack_row
from he_runtime.wire.message import EVALUATION_KEY, Binding, peek, read_frame, write_frame
from he_runtime.wire.sizes import SEED_BYTES, evaluation_key_body_bytes, packed_bytes


def write_evaluation_key(key: EvaluationKey, binding: Binding) -> bytes:
    """One message."""
    parameters = binding.parameters
    primes = parameters.primes[: key.level + 1] + parameters.special_primes
    parts = []
    for seed, rows in key.digits:
        parts.append(seed)
        parts.extend(pack_row(row, prime.bit_length()) for row, prime in zip(rows, primes, strict=True))
    return write_frame(binding, EVALUATION_KEY, key.level, key.galois_element, 0.0, b"".join(parts))


def read_evaluation_key(content: bytes | memoryview, binding: Binding, wanted: Mapping[int, int]) -> EvaluationKey:
    """Check and read one message. `wanted`: Galois element -> level; any other key, or level, is refused."""
    parameters = binding.parameters
    kind, level, element = peek(content)
    if kind != EVALUATION_KEY:
        raise WireError("wrong_kind", "expected an evaluation key")
    if element not in wanted:
        raise WireError("unwanted_key", f"Galois element {element} is not among the {len(wanted)} keys of the program")
    if wanted[element] != level:
        raise WireError(
            "wrong_level", f"the key of Galois element {element} is wanted at level {wanted[element]}, not {level}"
        )
    frame = read_frame(content, binding, EVALUATION_KEY, evaluation_key_body_bytes(parameters, level))
    if frame.scale != 0.0:
        raise WireError("wrong_scale", "a key has no scale; the field must be 0")
    primes = parameters.primes[: level + 1] + parameters.special_primes
    digits = []
    offset = 0
    for _ in range(parameters.digit_count(level)):
        seed = bytes(frame.body[offset : offset + SEED_BYTES])
        offset += SEED_BYTES
        rows = np.empty((len(primes), parameters.ring_degree), np.uint64)
        for index, prime in enumerate(primes):
            size = packed_bytes(parameters.ring_degree, prime.bit_length())
            rows[index] = unpack_row(frame.body[offset : offset + size], parameters.ring_degree, prime)
            offset += size
        digits.append((seed, rows))
    return EvaluationKey(element, level, tuple(digits))
