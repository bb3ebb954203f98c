"""Answers made independent of how they were computed: a fresh encryption of zero is added to each.

The second half of an answer is a function of the client's ciphertexts and the weights, exact modulo q0, from which weights
could be solved for. After adding an encryption of zero under the client's own key it is as good as uniform (ring learning with
errors). The server needs no help for that: row q0 of a key-switching digit other than the first is -a·s + e modulo q0 and
nothing else, because P·s' is added to a digit's own primes only. That is a public key.

What stays is said in SECURITY.md: the noise of the answer, and clients that make their keys badly on purpose.
"""

import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.numba_engine import NumbaCiphertext, NumbaEngine, NumbaPlaintext
from he_runtime.evaluation_key import EvaluationKey
from he_runtime.kernels.seeds import expand_uniform
from he_runtime.kernels.transform import make_tables
from he_runtime.parameters import Parameters

BINOMIAL_BITS = 21
"""SEAL's noise: the difference of two sums of so many random bits, standard deviation 3.24."""


def public_key(keys: Iterable[EvaluationKey], parameters: Parameters) -> NumbaCiphertext | None:
    """An encryption of zero at level 0 that is in the client's evaluation keys; None when no key has a second digit."""
    for key in keys:
        if len(key.digits) > 1:
            seed, rows = key.digits[1]
            uniform = expand_uniform(seed, parameters.all_primes, parameters.ring_degree)
            return NumbaCiphertext(np.stack([rows[:1], uniform[:1]]).astype(np.float64), 1.0)
    return None


def rerandomised(engine: NumbaEngine, answer: NumbaCiphertext, zero: NumbaCiphertext) -> NumbaCiphertext:
    """The answer (at level 0) plus u·zero + (e0, e1) with fresh ternary u and fresh noise; it decrypts to the same numbers.

    Adds noise of about 3.2·sqrt(4N/3), 670 for N=32768: a thousandth of a program's own.
    """
    degree = engine.parameters.ring_degree
    prime = float(engine.parameters.primes[0])
    tables = make_tables(engine.parameters.primes[:1], degree)

    def transformed(coefficients: NDArray[np.int64]) -> NDArray[np.float64]:
        row = coefficients.astype(np.float64)
        tables.forward(row, 0)
        return np.asarray(row - np.rint(row / prime) * prime, np.float64)[None]

    hidden = engine.weighted_sum([zero], [NumbaPlaintext(transformed(_ternary(degree)), 0, 1.0)])
    noise = NumbaCiphertext(np.stack([transformed(_binomial(degree)), transformed(_binomial(degree))]), answer.scale)
    return engine.add(engine.add(answer, replace(hidden, scale=answer.scale)), noise)


def _ternary(count: int) -> NDArray[np.int64]:
    """Uniform in -1, 0, 1, from the operating system."""
    kept: NDArray[np.uint8] = np.empty(0, np.uint8)
    while len(kept) < count:
        drawn = np.frombuffer(os.urandom(count), np.uint8)
        kept = np.concatenate([kept, drawn[drawn < 255]])  # 255 is no multiple of 3 away
    return kept[:count].astype(np.int64) % 3 - 1


def _binomial(count: int) -> NDArray[np.int64]:
    """Centred binomial, from the operating system."""
    bits = np.unpackbits(np.frombuffer(os.urandom(count * 6), np.uint8).reshape(count, 6), axis=1).astype(np.int64)
    return np.asarray(bits[:, :BINOMIAL_BITS].sum(axis=1) - bits[:, BINOMIAL_BITS : 2 * BINOMIAL_BITS].sum(axis=1))
