"""A short answer: the few coefficients that hold the result, and the top bits of what decrypts them.

Slots that repeat with period J are a polynomial in X^(N/2J): 2J of its coefficients are not zero. Decrypting coefficient k of
c0 + c1·s needs coefficient k of c0 and all of c1, so only 2J coefficients of c0 are sent; the others stay at the server. Of every
coefficient as many of the lowest bits are left out as move a slot by no more than ANSWER_ERROR.
"""

import math

import numpy as np
from numpy.typing import NDArray

from he_runtime.errors import WireError
from he_runtime.parameters import Parameters
from he_runtime.wire.bits import pack_row, unpack_row
from he_runtime.wire.ciphertext_frames import SCALE_TOLERANCE
from he_runtime.wire.message import OVERHEAD_BYTES, RESULT_CIPHERTEXT, Binding, read_frame, write_frame
from he_runtime.wire.sizes import packed_bytes

ANSWER_ERROR = 2.0**-17
"""Standard deviation of a slot's error by what is left out: below the noise of the program."""
Rows = NDArray[np.uint64]


def answer_bytes(parameters: Parameters, period: int) -> int:
    """One answer on the wire."""
    return OVERHEAD_BYTES + _body_bytes(parameters, period)


def _body_bytes(parameters: Parameters, period: int) -> int:
    bits = parameters.primes[0].bit_length() - _dropped_bits(parameters, period)
    return packed_bytes(2 * period, bits) + packed_bytes(parameters.ring_degree, bits)


def write_answer(coefficients: Rows, period: int, scale: float, binding: Binding) -> bytes:
    """One message. coefficients: uint64 [2, N] below q0, not transformed; period: slots after which the result repeats."""
    parameters = binding.parameters
    dropped = _dropped_bits(parameters, period)
    bits, step = parameters.primes[0].bit_length() - dropped, parameters.ring_degree // (2 * period)
    kept, whole = (part >> np.uint64(dropped) for part in (coefficients[0, ::step], coefficients[1]))
    body = pack_row(kept, bits) + pack_row(whole, bits)
    return write_frame(binding, RESULT_CIPHERTEXT, 0, 0, scale, body)


def read_answer(content: bytes, period: int, scale: float, binding: Binding) -> Rows:
    """Check and read: uint64 [2, N] below q0, the coefficients of c0 that were not sent zero."""
    parameters = binding.parameters
    frame = read_frame(content, binding, RESULT_CIPHERTEXT, _body_bytes(parameters, period))
    if frame.level != 0 or frame.galois_element != 0:
        raise WireError("wrong_level", f"an answer at level {frame.level}; expected level 0")
    if not abs(frame.scale - scale) <= scale * SCALE_TOLERANCE:
        raise WireError("wrong_scale", f"an answer of scale {frame.scale!r}; the program gives {scale!r}")
    dropped = _dropped_bits(parameters, period)
    first = packed_bytes(2 * period, parameters.primes[0].bit_length() - dropped)
    coefficients = np.zeros((2, parameters.ring_degree), np.uint64)
    step = parameters.ring_degree // (2 * period)
    coefficients[0, ::step] = _restored(frame.body[:first], 2 * period, parameters, dropped)
    coefficients[1] = _restored(frame.body[first:], parameters.ring_degree, parameters, dropped)
    return coefficients


def _dropped_bits(parameters: Parameters, period: int) -> int:
    """Bits left out of a coefficient for a result of that period.

    d bits are an error of variance 4^d/12. A coefficient of c1·s sums some 2N/3 of them, as many as the ternary s has that are
    not zero; a slot sums 2J coefficients.
    """
    errors = math.sqrt(2 * period * parameters.ring_degree * 2 / 3 / 12)
    return max(1, int(ANSWER_ERROR * parameters.answer_scale / errors)).bit_length() - 1


def _restored(content: memoryview, count: int, parameters: Parameters, dropped: int) -> Rows:
    """The middle of the interval that the bits left out leave open."""
    prime = parameters.primes[0]
    top = unpack_row(content, count, (prime >> dropped) + 1, bits=prime.bit_length() - dropped)
    return np.minimum((top << np.uint64(dropped)) + np.uint64((1 << dropped) // 2), np.uint64(prime - 1))
