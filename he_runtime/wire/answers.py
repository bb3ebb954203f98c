"""A short answer: the few coefficients that hold the result, and the top bits of what decrypts them.

Slots that repeat with period J are a polynomial in X^(N/2J): 2J of its coefficients are not zero. Decrypting coefficient k of
c0 + c1·s needs coefficient k of c0 and all of c1, so only 2J coefficients of c0 are sent; the others stay at the server. Of every
coefficient the lowest bits are left out: an error of at most 2^-(ANSWER_BITS+1)·q0 each, far below the noise of the program.
"""

import numpy as np
from numpy.typing import NDArray

from he_runtime.errors import WireError
from he_runtime.parameters import Parameters
from he_runtime.wire.bits import pack_row, unpack_row
from he_runtime.wire.ciphertext_frames import SCALE_TOLERANCE
from he_runtime.wire.message import OVERHEAD_BYTES, RESULT_CIPHERTEXT, Binding, read_frame, write_frame
from he_runtime.wire.sizes import packed_bytes

ANSWER_BITS = 32
Rows = NDArray[np.uint64]


def answer_bytes(parameters: Parameters, period: int) -> int:
    """One answer on the wire."""
    return OVERHEAD_BYTES + _body_bytes(parameters, period)


def _body_bytes(parameters: Parameters, period: int) -> int:
    return packed_bytes(2 * period, ANSWER_BITS) + packed_bytes(parameters.ring_degree, ANSWER_BITS)


def write_answer(coefficients: Rows, period: int, scale: float, binding: Binding) -> bytes:
    """One message. coefficients: uint64 [2, N] below q0, not transformed; period: slots after which the result repeats."""
    dropped = np.uint64(_dropped_bits(binding.parameters))
    step = binding.parameters.ring_degree // (2 * period)
    kept, whole = coefficients[0, ::step] >> dropped, coefficients[1] >> dropped
    body = pack_row(kept, ANSWER_BITS) + pack_row(whole, ANSWER_BITS)
    return write_frame(binding, RESULT_CIPHERTEXT, 0, 0, scale, body)


def read_answer(content: bytes, period: int, scale: float, binding: Binding) -> Rows:
    """Check and read: uint64 [2, N] below q0, the coefficients of c0 that were not sent zero."""
    parameters = binding.parameters
    frame = read_frame(content, binding, RESULT_CIPHERTEXT, _body_bytes(parameters, period))
    if frame.level != 0 or frame.galois_element != 0:
        raise WireError("wrong_level", f"an answer at level {frame.level}; expected level 0")
    if not abs(frame.scale - scale) <= scale * SCALE_TOLERANCE:
        raise WireError("wrong_scale", f"an answer of scale {frame.scale!r}; the program gives {scale!r}")
    first = packed_bytes(2 * period, ANSWER_BITS)
    coefficients = np.zeros((2, parameters.ring_degree), np.uint64)
    step = parameters.ring_degree // (2 * period)
    coefficients[0, ::step] = _restored(frame.body[:first], 2 * period, parameters)
    coefficients[1] = _restored(frame.body[first:], parameters.ring_degree, parameters)
    return coefficients


def _dropped_bits(parameters: Parameters) -> int:
    return parameters.primes[0].bit_length() - ANSWER_BITS


def _restored(content: memoryview, count: int, parameters: Parameters) -> Rows:
    """The middle of the interval that the bits left out leave open."""
    dropped, prime = _dropped_bits(parameters), parameters.primes[0]
    top = unpack_row(content, count, (prime >> dropped) + 1, bits=ANSWER_BITS)
    return np.minimum((top << np.uint64(dropped)) + np.uint64(1 << (dropped - 1)), np.uint64(prime - 1))
