"""Ciphertexts on the wire: fresh ones as a seed and half the rows, results whole."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.wire.bits import pack_row, unpack_row
from he_runtime.wire.ciphertext_frames import check_level_and_scale
from he_runtime.wire.message import FRESH_CIPHERTEXT, RESULT_CIPHERTEXT, Binding, read_frame, write_frame
from he_runtime.wire.sizes import SEED_BYTES, input_ciphertext_body_bytes, packed_bytes, result_ciphertext_body_bytes

Rows = NDArray[np.uint64]


@dataclass(frozen=True)
class SeededCiphertext:
    """A fresh encryption: rows uint64 [level+1, N] of its first part, and the seed that the second expands from."""

    seed: bytes
    rows: Rows
    scale: float


def write_input_ciphertext(ciphertext: SeededCiphertext, binding: Binding) -> bytes:
    """One message."""
    level = len(ciphertext.rows) - 1
    body = ciphertext.seed + _pack(ciphertext.rows, binding)
    return write_frame(binding, FRESH_CIPHERTEXT, level, 0, ciphertext.scale, body)


def read_input_ciphertext(content: bytes | memoryview, binding: Binding, level: int, scale: float) -> SeededCiphertext:
    """Check and read a fresh ciphertext, which must have this level and scale."""
    frame = read_frame(content, binding, FRESH_CIPHERTEXT, input_ciphertext_body_bytes(binding.parameters, level))
    check_level_and_scale(frame, level, scale)
    seed, packed = bytes(frame.body[:SEED_BYTES]), frame.body[SEED_BYTES:]
    return SeededCiphertext(seed, _unpack(packed, binding, level), frame.scale)


def write_result_ciphertext(rows: Rows, scale: float, binding: Binding) -> bytes:
    """One message. rows: uint64 [2, level+1, N], canonical."""
    body = _pack(rows[0], binding) + _pack(rows[1], binding)
    return write_frame(binding, RESULT_CIPHERTEXT, rows.shape[1] - 1, 0, scale, body)


def read_result_ciphertext(content: bytes | memoryview, binding: Binding, level: int, scale: float) -> Rows:
    """Check and read a result: uint64 [2, level+1, N]."""
    frame = read_frame(content, binding, RESULT_CIPHERTEXT, result_ciphertext_body_bytes(binding.parameters, level))
    check_level_and_scale(frame, level, scale)
    half = len(frame.body) // 2
    return np.stack([_unpack(frame.body[:half], binding, level), _unpack(frame.body[half:], binding, level)])


def _pack(rows: Rows, binding: Binding) -> bytes:
    primes = binding.parameters.primes[: len(rows)]
    return b"".join(pack_row(row, prime.bit_length()) for row, prime in zip(rows, primes, strict=True))


def _unpack(content: memoryview, binding: Binding, level: int) -> Rows:
    parameters = binding.parameters
    rows = np.empty((level + 1, parameters.ring_degree), np.uint64)
    offset = 0
    for index, prime in enumerate(parameters.primes[: level + 1]):
        size = packed_bytes(parameters.ring_degree, prime.bit_length())
        rows[index] = unpack_row(content[offset : offset + size], parameters.ring_degree, prime)
        offset += size
    return rows
