"""Evaluation keys for hybrid key switching, made at the client from SEAL's own encryptions of zero.

SEAL cannot make keys with several special primes, so for each digit it encrypts zero modulo QP and the client adds P·s' to the
rows of the digit's primes, s' being the key to switch from. This is the standard construction; all randomness is SEAL's.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from he_runtime.evaluation_key import EvaluationKey
from he_runtime.kernels.arithmetic import centred, multiply, reduce
from he_runtime.kernels.compiling import kernel
from he_runtime.kernels.transform import automorphism
from he_runtime.program import RELINEARISATION
from he_runtime.seal import SealClient, SecretKey

Rows = NDArray[np.uint64]


def make_evaluation_keys(client: SealClient, key: SecretKey, wanted: Mapping[int, int]) -> Iterator[EvaluationKey]:
    """One key at a time, so that memory stays flat and an upload can start at once. wanted: Galois element -> level."""
    parameters = client.parameters
    secret = client.secret_rows(key)
    encryptor = client.encryptor(key)
    product = math.prod(parameters.special_primes)
    for element, level in wanted.items():
        source = _switched_secret(secret, element, client)
        digits = []
        for j in range(parameters.digit_count(level)):
            zero = client.encrypt_zero(encryptor)
            if zero.seed is None:
                raise RuntimeError("SEAL gave an encryption without a seed; this version of TenSEAL is not supported")
            rows = zero.rows[0].copy()
            start = j * parameters.digit_size
            for t in range(start, min(start + parameters.digit_size, len(parameters.primes))):
                p = parameters.primes[t]
                _add_scaled(source[t], float(centred(product, p)), float(p), rows[t])
            kept = np.concatenate([rows[: level + 1], rows[len(parameters.primes) :]])
            digits.append((zero.seed, kept))
        yield EvaluationKey(element, level, tuple(digits))


def _switched_secret(secret: Rows, element: int, client: SealClient) -> Rows:
    """s(X^g), or s² for relinearisation: transformed rows, all primes."""
    if element == RELINEARISATION:
        squared = np.empty_like(secret)
        for t, p in enumerate(client.parameters.all_primes):
            _square(secret[t], float(p), squared[t])
        return squared
    return secret[:, automorphism(element, client.parameters.ring_degree)]


@kernel
def _square(x: Rows, p: float, out: Rows) -> None:
    for i in range(x.shape[0]):
        value = reduce(multiply(float(x[i]), float(x[i]), p, 1.0 / p), p, 1.0 / p)
        out[i] = np.uint64(value + p if value < 0 else value)


@kernel
def _add_scaled(x: Rows, factor: float, p: float, out: Rows) -> None:
    """out += factor·x mod p, canonical."""
    for i in range(x.shape[0]):
        value = reduce(multiply(float(x[i]), factor, p, 1.0 / p) + float(out[i]), p, 1.0 / p)
        out[i] = np.uint64(value + p if value < 0 else value)
