"""Negacyclic number-theoretic transform in SEAL's order: natural in, bit-reversed out, with the smallest primitive 2N-th root.

Stages are taken two at a time (radix 4). The forward transform needs no reduction: 15 stages grow values to about 5p. The inverse
(Gentleman and Sande) reduces one output in four of each step.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import KERNEL, centred, multiply, multiply_constant, reduce

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TransformTables:
    """Twiddle factors of every prime.

    roots: float64 [rows, 4, N]: powers of the root in bit-reversed order, the same over p, and both for its inverse.
    primes: float64 [rows, 2]: p and 1/p.
    """

    roots: Array
    primes: Array


def bit_reversed(length: int) -> NDArray[np.int64]:
    """The bit-reversal permutation of 0..length-1, length a power of two."""
    bits = length.bit_length() - 1
    index = np.arange(length)
    result = np.zeros(length, np.int64)
    for bit in range(bits):
        result = (result << 1) | ((index >> bit) & 1)
    return result


def make_tables(primes: tuple[int, ...], ring_degree: int) -> TransformTables:
    """Tables for all primes."""
    roots = np.empty((len(primes), 4, ring_degree))
    order = bit_reversed(ring_degree)
    for row, prime in enumerate(primes):
        root = smallest_root(prime, ring_degree)
        for slot, base in ((0, root), (2, pow(root, -1, prime))):
            powers = np.empty(ring_degree)
            _powers(float(centred(base, prime)), float(prime), powers)
            roots[row, slot] = powers[order]
            roots[row, slot + 1] = roots[row, slot] / prime
    return TransformTables(roots, np.array([[prime, 1 / prime] for prime in primes], np.float64))


def smallest_root(prime: int, ring_degree: int) -> int:
    """The smallest primitive 2N-th root of unity, which is SEAL's choice."""
    for generator in range(2, 1000):
        root = pow(generator, (prime - 1) // (2 * ring_degree), prime)
        if pow(root, ring_degree, prime) == prime - 1:
            break
    # All primitive roots are the odd powers of one of them.
    powers = np.empty(ring_degree)
    _powers(float(centred(root * root, prime)), float(prime), powers)
    _multiply_all(powers, float(centred(root, prime)), float(prime))
    return int(np.where(powers < 0, powers + prime, powers).min())


@njit(**KERNEL)
def _powers(base: float, p: float, out: Array) -> None:
    value = 1.0
    for i in range(out.shape[0]):
        out[i] = value
        value = reduce(multiply(value, base, p, 1.0 / p), p, 1.0 / p)


@njit(**KERNEL)
def _multiply_all(x: Array, factor: float, p: float) -> None:
    for i in range(x.shape[0]):
        x[i] = reduce(multiply(x[i], factor, p, 1.0 / p), p, 1.0 / p)


@njit(**KERNEL)
def forward(x: Array, roots: Array, ratios: Array, p: float) -> None:
    """Transform x [n] in place; |x| grows by about 5p at most. n may be less than N: the tables' prefix serves smaller rings."""
    n = x.shape[0]
    groups = 1
    half = n >> 1
    while half >= 8:
        quarter = half >> 1
        for i in range(groups):
            w1, r1 = roots[groups + i], ratios[groups + i]
            w2, r2 = roots[2 * groups + 2 * i], ratios[2 * groups + 2 * i]
            w3, r3 = roots[2 * groups + 2 * i + 1], ratios[2 * groups + 2 * i + 1]
            base = 2 * half * i
            a = x[base : base + quarter]
            b = x[base + quarter : base + half]
            c = x[base + half : base + half + quarter]
            d = x[base + half + quarter : base + 2 * half]
            for j in range(quarter):
                a0, a1 = a[j], b[j]
                t2 = multiply_constant(c[j], w1, r1, p)
                t3 = multiply_constant(d[j], w1, r1, p)
                b0 = a0 + t2
                b2 = a0 - t2
                b1 = multiply_constant(a1 + t3, w2, r2, p)
                b3 = multiply_constant(a1 - t3, w3, r3, p)
                a[j] = b0 + b1
                b[j] = b0 - b1
                c[j] = b2 + b3
                d[j] = b2 - b3
        groups *= 4
        half >>= 2
    if half == 4 or half == 1:  # noqa: PLR1714  (numba compiles a chain, not a set)
        # An odd number of stages: one alone, and pairs again after it.
        for i in range(groups):
            w1, r1 = roots[groups + i], ratios[groups + i]
            base = 2 * half * i
            for j in range(base, base + half):
                u = x[j]
                t = multiply_constant(x[j + half], w1, r1, p)
                x[j] = u + t
                x[j + half] = u - t
        groups *= 2
        half >>= 1
    if half == 2:
        # The last pair has stride one: written out, the compiler gathers it into vectors.
        for i in range(groups):
            w1, r1 = roots[groups + i], ratios[groups + i]
            w2, r2 = roots[2 * groups + 2 * i], ratios[2 * groups + 2 * i]
            w3, r3 = roots[2 * groups + 2 * i + 1], ratios[2 * groups + 2 * i + 1]
            a0, a1 = x[4 * i], x[4 * i + 1]
            t2 = multiply_constant(x[4 * i + 2], w1, r1, p)
            t3 = multiply_constant(x[4 * i + 3], w1, r1, p)
            b0 = a0 + t2
            b2 = a0 - t2
            b1 = multiply_constant(a1 + t3, w2, r2, p)
            b3 = multiply_constant(a1 - t3, w3, r3, p)
            x[4 * i] = b0 + b1
            x[4 * i + 1] = b0 - b1
            x[4 * i + 2] = b2 + b3
            x[4 * i + 3] = b2 - b3


@njit(**KERNEL)
def inverse(
    x: Array, roots: Array, ratios: Array, p: float, inverse_p: float, factor: float, factor_ratio: float
) -> None:
    """Inverse transform of x [n] in place, times `factor` (which should hold 1/n); |result| about p at most."""
    n = x.shape[0]
    groups = n >> 1
    span = 1
    if groups >= 2:
        half_groups = groups >> 1
        for i in range(half_groups):
            w1, r1 = roots[groups + 2 * i], ratios[groups + 2 * i]
            w2, r2 = roots[groups + 2 * i + 1], ratios[groups + 2 * i + 1]
            w3, r3 = roots[half_groups + i], ratios[half_groups + i]
            a0, a1, a2, a3 = x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]
            b0 = a0 + a1
            b1 = multiply_constant(a0 - a1, w1, r1, p)
            b2 = a2 + a3
            b3 = multiply_constant(a2 - a3, w2, r2, p)
            x[4 * i] = reduce(b0 + b2, p, inverse_p)
            x[4 * i + 2] = multiply_constant(b0 - b2, w3, r3, p)
            x[4 * i + 1] = b1 + b3
            x[4 * i + 3] = multiply_constant(b1 - b3, w3, r3, p)
        groups >>= 2
        span <<= 2
    while groups >= 2:
        half_groups = groups >> 1
        for i in range(half_groups):
            w1, r1 = roots[groups + 2 * i], ratios[groups + 2 * i]
            w2, r2 = roots[groups + 2 * i + 1], ratios[groups + 2 * i + 1]
            w3, r3 = roots[half_groups + i], ratios[half_groups + i]
            base = 4 * span * i
            a = x[base : base + span]
            b = x[base + span : base + 2 * span]
            c = x[base + 2 * span : base + 3 * span]
            d = x[base + 3 * span : base + 4 * span]
            for j in range(span):
                b0 = a[j] + b[j]
                b1 = multiply_constant(a[j] - b[j], w1, r1, p)
                b2 = c[j] + d[j]
                b3 = multiply_constant(c[j] - d[j], w2, r2, p)
                a[j] = reduce(b0 + b2, p, inverse_p)
                c[j] = multiply_constant(b0 - b2, w3, r3, p)
                b[j] = b1 + b3
                d[j] = multiply_constant(b1 - b3, w3, r3, p)
        groups >>= 2
        span <<= 2
    if groups == 1:
        w1, r1 = roots[1], ratios[1]
        a = x[: n // 2]
        b = x[n // 2 :]
        for j in range(n // 2):
            u = a[j]
            v = b[j]
            a[j] = u + v
            b[j] = multiply_constant(u - v, w1, r1, p)
    for j in range(n):
        x[j] = multiply_constant(x[j], factor, factor_ratio, p)


def automorphism(galois_element: int, ring_degree: int) -> NDArray[np.int64]:
    """Permutation of a transformed row under X -> X^g: new[i] = old[permutation[i]]."""
    order = bit_reversed(ring_degree)
    exponents = 2 * order + 1  # row entry i is the value at root^(exponents[i])
    return np.asarray(order[((galois_element * exponents) % (2 * ring_degree)) >> 1], np.int64)
