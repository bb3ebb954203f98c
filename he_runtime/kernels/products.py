"""Products and sums on transformed residues: parts [level+1, N] float64, |x| of a few p; rows `first` to `last` of them."""

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import accumulate, multiply_constant, reduce, settle
from he_runtime.kernels.compiling import kernel

Array = NDArray[np.float64]


@kernel
def add_product(a: Array, b: Array, out: Array, first: int, last: int, primes: Array) -> None:
    """out += a·b, reduced."""
    for t in range(first, last):
        p, inverse_p, anchor = primes[t, 0], primes[t, 1], primes[t, 2]
        x, y, o = a[t], b[t], out[t]
        for i in range(o.shape[0]):
            high, low = accumulate(anchor, o[i], x[i], y[i])
            o[i] = reduce(settle(high, low, anchor, p, inverse_p), p, inverse_p)


@kernel
def add_two_products(a: Array, b: Array, c: Array, d: Array, out: Array, first: int, last: int, primes: Array) -> None:
    """out += a·b + c·d, reduced: the sum is loaded and stored once for two products."""
    for t in range(first, last):
        p, inverse_p, anchor = primes[t, 0], primes[t, 1], primes[t, 2]
        x, y, z, w, o = a[t], b[t], c[t], d[t], out[t]
        for i in range(o.shape[0]):
            high, low = accumulate(anchor, o[i], x[i], y[i])
            high, low = accumulate(high, low, z[i], w[i])
            o[i] = reduce(settle(high, low, anchor, p, inverse_p), p, inverse_p)


@kernel
def add_plain_product(a: Array, w: Array, out: Array, first: int, last: int, primes: Array) -> None:
    """out += a·w for a compact plaintext [rows, M], each word for a run of N/M entries."""
    words = w.shape[1]
    run = out.shape[1] // words
    for t in range(first, last):
        p, inverse_p = primes[t, 0], primes[t, 1]
        weights = w[t]
        if run == 1:
            x, o = a[t], out[t]
            for i in range(words):
                v = weights[i]
                o[i] = reduce(o[i] + multiply_constant(x[i], v, v * inverse_p, p), p, inverse_p)
        else:
            for m in range(words):
                v = weights[m]
                ratio = v * inverse_p
                x, o = a[t, m * run : (m + 1) * run], out[t, m * run : (m + 1) * run]
                for i in range(run):
                    o[i] = reduce(o[i] + multiply_constant(x[i], v, ratio, p), p, inverse_p)


@kernel
def add_eight_plain_products(
    a: tuple[Array, ...], w: tuple[Array, ...], out: Array, first: int, last: int, primes: Array
) -> None:
    """out += sum of eight products a[k]·w[k] of ciphertext parts with compact plaintexts of one length, reduced."""
    words = w[0].shape[1]
    run = out.shape[1] // words
    for t in range(first, last):
        p, inverse_p, anchor = primes[t, 0], primes[t, 1], primes[t, 2]
        w0, w1, w2, w3, w4, w5, w6, w7 = w[0][t], w[1][t], w[2][t], w[3][t], w[4][t], w[5][t], w[6][t], w[7][t]
        for m in range(words):
            b, e = m * run, (m + 1) * run
            x0, x1, x2, x3 = a[0][t, b:e], a[1][t, b:e], a[2][t, b:e], a[3][t, b:e]
            x4, x5, x6, x7 = a[4][t, b:e], a[5][t, b:e], a[6][t, b:e], a[7][t, b:e]
            v0, v1, v2, v3, v4, v5, v6, v7 = w0[m], w1[m], w2[m], w3[m], w4[m], w5[m], w6[m], w7[m]
            o = out[t, b:e]
            for i in range(run):
                high, low = accumulate(anchor, o[i], x0[i], v0)
                high, low = accumulate(high, low, x1[i], v1)
                high, low = accumulate(high, low, x2[i], v2)
                high, low = accumulate(high, low, x3[i], v3)
                high, low = accumulate(high, low, x4[i], v4)
                high, low = accumulate(high, low, x5[i], v5)
                high, low = accumulate(high, low, x6[i], v6)
                high, low = accumulate(high, low, x7[i], v7)
                o[i] = reduce(settle(high, low, anchor, p, inverse_p), p, inverse_p)


@kernel
def plain_product(a: tuple[Array, Array], w: Array, out: Array, first: int, last: int, primes: Array) -> None:
    """out[h] = a[h]·w, as `add_plain_product`, not fully reduced; both parts of a row in turn, so that w is read once."""
    words = w.shape[1]
    run = out.shape[2] // words
    for t in range(first, last):
        p, inverse_p, weights = primes[t, 0], primes[t, 1], w[t]
        for half in range(2):
            x, o = a[half][t], out[half, t]
            if run == 1:
                for i in range(words):
                    v = weights[i]
                    o[i] = multiply_constant(x[i], v, v * inverse_p, p)
            else:
                for m in range(words):
                    v = weights[m]
                    ratio = v * inverse_p
                    y, z = x[m * run : (m + 1) * run], o[m * run : (m + 1) * run]
                    for i in range(run):
                        z[i] = multiply_constant(y[i], v, ratio, p)


@kernel
def add(a: Array, b: Array, out: Array, first: int, last: int, primes: Array) -> None:
    """out = a + b, reduced."""
    for t in range(first, last):
        p, inverse_p = primes[t, 0], primes[t, 1]
        x, y, o = a[t], b[t], out[t]
        for i in range(o.shape[0]):
            o[i] = reduce(x[i] + y[i], p, inverse_p)


@kernel
def add_plain(a: Array, w: Array, out: Array, first: int, last: int, primes: Array) -> None:
    """out = a + w, reduced, for a compact plaintext [rows, M]."""
    words = w.shape[1]
    run = out.shape[1] // words
    for t in range(first, last):
        p, inverse_p = primes[t, 0], primes[t, 1]
        for m in range(words):
            v = w[t, m]
            x, o = a[t, m * run : (m + 1) * run], out[t, m * run : (m + 1) * run]
            for i in range(run):
                o[i] = reduce(x[i] + v, p, inverse_p)
