"""The inner sums of a matrix product: several weighted sums of the same rotated ciphertexts at once.

The ciphertexts are read once for all sums, a run of
coefficients at a time, so that everything else stays in the first cache.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import KERNEL, multiply_constant, reduce

Array = NDArray[np.float64]


@njit(**KERNEL)
def weighted_rows(x: Array, words: Array, p: float, inverse_p: float, out: Array) -> None:
    """out[g] = sum over b of x[b]·words[g, b], reduced, for one prime.

    x: [terms, N], terms a multiple of four; words: compact plaintexts [sums, terms, M], each word for a run of N/M entries;
    out: [sums, N]. Up to 64 products of about p each are exact in between. Four at a time, because the sum is then loaded and
    stored once for four products.
    """
    run = x.shape[1] // words.shape[2]
    for m in range(words.shape[2]):
        start, stop = m * run, (m + 1) * run
        for g in range(words.shape[0]):
            o = out[g, start:stop]
            for b in range(0, x.shape[0], 4):
                x0, x1, x2, x3 = x[b, start:stop], x[b + 1, start:stop], x[b + 2, start:stop], x[b + 3, start:stop]
                v0, v1, v2, v3 = words[g, b, m], words[g, b + 1, m], words[g, b + 2, m], words[g, b + 3, m]
                r0, r1, r2, r3 = v0 * inverse_p, v1 * inverse_p, v2 * inverse_p, v3 * inverse_p
                if b == 0:
                    for i in range(run):
                        first = multiply_constant(x0[i], v0, r0, p) + multiply_constant(x1[i], v1, r1, p)
                        second = multiply_constant(x2[i], v2, r2, p) + multiply_constant(x3[i], v3, r3, p)
                        o[i] = first + second
                else:
                    for i in range(run):
                        first = multiply_constant(x0[i], v0, r0, p) + multiply_constant(x1[i], v1, r1, p)
                        second = multiply_constant(x2[i], v2, r2, p) + multiply_constant(x3[i], v3, r3, p)
                        o[i] += first + second
            for i in range(run):
                o[i] = reduce(o[i], p, inverse_p)
