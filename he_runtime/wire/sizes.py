"""Exact sizes of messages, for the planner and for every reader. Pure Python: the server's front uses it."""

from he_runtime.parameters import Parameters
from he_runtime.wire.message import OVERHEAD_BYTES

SEED_BYTES = 64


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of one packed row: whole 64-bit words."""
    return 8 * -(-count * bits // 64)


def rows_bytes(parameters: Parameters, primes: tuple[int, ...]) -> int:
    """Packed rows, one for each prime."""
    return sum(packed_bytes(parameters.ring_degree, prime.bit_length()) for prime in primes)


def evaluation_key_body_bytes(parameters: Parameters, level: int) -> int:
    """Body of a key: for each digit a seed and the b rows of q_0..q_level and the special primes."""
    primes = parameters.primes[: level + 1] + parameters.special_primes
    return parameters.digit_count(level) * (SEED_BYTES + rows_bytes(parameters, primes))


def evaluation_key_bytes(parameters: Parameters, level: int) -> int:
    """One key on the wire."""
    return OVERHEAD_BYTES + evaluation_key_body_bytes(parameters, level)


def input_ciphertext_body_bytes(parameters: Parameters, level: int) -> int:
    """Body of a fresh ciphertext: a seed and the rows of its first part."""
    return SEED_BYTES + rows_bytes(parameters, parameters.primes[: level + 1])


def input_ciphertext_bytes(parameters: Parameters, level: int) -> int:
    """One fresh ciphertext on the wire."""
    return OVERHEAD_BYTES + input_ciphertext_body_bytes(parameters, level)


def result_ciphertext_body_bytes(parameters: Parameters, level: int) -> int:
    """Body of a result: the rows of both parts."""
    return 2 * rows_bytes(parameters, parameters.primes[: level + 1])


def result_ciphertext_bytes(parameters: Parameters, level: int) -> int:
    """One result on the wire."""
    return OVERHEAD_BYTES + result_ciphertext_body_bytes(parameters, level)
