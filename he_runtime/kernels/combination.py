"""Sums of ciphertexts times powers of X^(N/2), a fourth root of unity: exact and free of levels.

In SEAL's order the first half of a transformed row holds the values at roots where X^(N/2) is I, the second half where it is -I.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import KERNEL, multiply_constant, reduce

Array = NDArray[np.float64]


@njit(**KERNEL)
def combine_two(a: Array, b: Array, power: int, out: Array, roots: Array, primes: Array) -> None:
    """out = a + X^(power·N/2)·b, reduced. All [2, rows, N]; roots: [rows, 4, N], whose entry 1 is I."""
    half = a.shape[2] // 2
    sign = 1.0 if power < 2 else -1.0
    for part in range(2):
        for t in range(out.shape[1]):
            p, inverse_p = primes[t, 0], primes[t, 1]
            x, y, o = a[part, t], b[part, t], out[part, t]
            if power % 2 == 0:
                for i in range(o.shape[0]):
                    o[i] = reduce(x[i] + sign * y[i], p, inverse_p)
            else:
                w, ratio = sign * roots[t, 0, 1], sign * roots[t, 1, 1]
                for i in range(half):
                    o[i] = reduce(x[i] + multiply_constant(y[i], w, ratio, p), p, inverse_p)
                for i in range(half, o.shape[0]):
                    o[i] = reduce(x[i] - multiply_constant(y[i], w, ratio, p), p, inverse_p)
