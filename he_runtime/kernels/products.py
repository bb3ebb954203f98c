"""Products and rescaling on transformed residues: [parts, level+1, N] float64, |x| of a few p."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import KERNEL, multiply, multiply_constant, reduce
from he_runtime.kernels.transform import forward, inverse

Array = NDArray[np.float64]


@njit(**KERNEL)
def add_tensor_product(a: Array, b: Array, out: Array, primes: Array) -> None:
    """out += (a0·b0, a0·b1 + a1·b0, a1·b1). a, b: [2, rows, N]; out: [3, rows, N], reduced after."""
    for t in range(out.shape[1]):
        p, inverse_p = primes[t, 0], primes[t, 1]
        a0, a1, b0, b1 = a[0, t], a[1, t], b[0, t], b[1, t]
        o0, o1, o2 = out[0, t], out[1, t], out[2, t]
        for i in range(o0.shape[0]):
            o0[i] = reduce(o0[i] + multiply(a0[i], b0[i], p, inverse_p), p, inverse_p)
            middle = multiply(a0[i], b1[i], p, inverse_p) + multiply(a1[i], b0[i], p, inverse_p)
            o1[i] = reduce(o1[i] + middle, p, inverse_p)
            o2[i] = reduce(o2[i] + multiply(a1[i], b1[i], p, inverse_p), p, inverse_p)


@njit(**KERNEL)
def add_plain_products(
    c0: Array, c1: Array, c2: Array, c3: Array, w0: Array, w1: Array, w2: Array, w3: Array, out: Array, primes: Array
) -> None:
    """out += sum of four ciphertexts [2, rows, N] times compact plaintexts [rows, M], each word for a run of N/M entries.

    Four at a time, because the sum is then loaded and stored once for four products.
    """
    words = w0.shape[1]
    run = out.shape[2] // words
    for part in range(2):
        for t in range(out.shape[1]):
            p, inverse_p = primes[t, 0], primes[t, 1]
            x0, x1, x2, x3, o = c0[part, t], c1[part, t], c2[part, t], c3[part, t], out[part, t]
            for m in range(words):
                v0, v1, v2, v3 = w0[t, m], w1[t, m], w2[t, m], w3[t, m]
                r0, r1, r2, r3 = v0 * inverse_p, v1 * inverse_p, v2 * inverse_p, v3 * inverse_p
                for i in range(m * run, (m + 1) * run):
                    first = multiply_constant(x0[i], v0, r0, p) + multiply_constant(x1[i], v1, r1, p)
                    second = multiply_constant(x2[i], v2, r2, p) + multiply_constant(x3[i], v3, r3, p)
                    o[i] = reduce(o[i] + (first + second), p, inverse_p)


@njit(**KERNEL)
def add_plain_product(c: Array, w: Array, out: Array, primes: Array) -> None:
    """out += c·w for one ciphertext [2, rows, N] and one compact plaintext [rows, M]."""
    words = w.shape[1]
    run = out.shape[2] // words
    for part in range(2):
        for t in range(out.shape[1]):
            p, inverse_p = primes[t, 0], primes[t, 1]
            x, o = c[part, t], out[part, t]
            for m in range(words):
                v = w[t, m]
                ratio = v * inverse_p
                for i in range(m * run, (m + 1) * run):
                    o[i] = reduce(o[i] + multiply_constant(x[i], v, ratio, p), p, inverse_p)


@njit(**KERNEL)
def add(a: Array, b: Array, out: Array, primes: Array) -> None:
    """out = a + b, reduced; all [parts, rows, N]."""
    for part in range(out.shape[0]):
        for t in range(out.shape[1]):
            p, inverse_p = primes[t, 0], primes[t, 1]
            x, y, o = a[part, t], b[part, t], out[part, t]
            for i in range(o.shape[0]):
                o[i] = reduce(x[i] + y[i], p, inverse_p)


@njit(**KERNEL)
def add_plain(a: Array, w: Array, out: Array, primes: Array) -> None:
    """out = a + (w, 0) for a compact plaintext [rows, M]."""
    words = w.shape[1]
    run = out.shape[2] // words
    for t in range(out.shape[1]):
        p, inverse_p = primes[t, 0], primes[t, 1]
        x, o = a[0, t], out[0, t]
        for m in range(words):
            v = w[t, m]
            for i in range(m * run, (m + 1) * run):
                o[i] = reduce(x[i] + v, p, inverse_p)
        out[1, t] = a[1, t]


@njit(**KERNEL)
def rescale(
    a: Array, out: Array, roots: Array, primes: Array, constants: Array, ratios: Array, last: Array, row: Array
) -> None:
    """Divide by the last prime q_l with rounding: out [2, rows-1, N].

    constants [rows, 2]: row t < l holds (-1/q_l, 1/q_l) mod q_t, row l holds 1/N mod q_l first; ratios the same over the prime.
    The last row, centred, is the remainder: out = (a - remainder)/q_l. `last`, `row`: scratch [N].
    """
    level = a.shape[1] - 1
    p_last, inverse_last = primes[level, 0], primes[level, 1]
    for part in range(2):
        last[:] = a[part, level]
        inverse(last, roots[level, 2], roots[level, 3], p_last, inverse_last, constants[level, 0], ratios[level, 0])
        for i in range(last.shape[0]):
            last[i] = reduce(last[i], p_last, inverse_last)
        for t in range(level):
            p, inverse_p = primes[t, 0], primes[t, 1]
            minus, minus_ratio, plus, plus_ratio = constants[t, 0], ratios[t, 0], constants[t, 1], ratios[t, 1]
            for i in range(row.shape[0]):
                row[i] = multiply_constant(last[i], minus, minus_ratio, p)
            forward(row, roots[t, 0], roots[t, 1], p)
            x, o = a[part, t], out[part, t]
            for i in range(row.shape[0]):
                o[i] = reduce(row[i] + multiply_constant(x[i], plus, plus_ratio, p), p, inverse_p)
