"""Sums of ciphertexts times powers of X^(N/2), a fourth root of unity: exact and free of levels.

In SEAL's order the first half of a transformed row holds the values at roots where X^(N/2) is I, the second half where it is -I.
"""

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import multiply_constant, reduce
from he_runtime.kernels.compiling import kernel

Array = NDArray[np.float64]


@kernel
def combine_two(a: Array, b: Array, power: int, out: Array, first: int, last: int, roots: Array, primes: Array) -> None:
    """out = a + X^(power·N/2)·b, reduced. All [rows, N], rows first to last; roots [rows, 2, N/2], whose entry 1 is I."""
    half = a.shape[1] // 2
    sign = 1.0 if power < 2 else -1.0
    for t in range(first, last):
        p, inverse_p = primes[t, 0], primes[t, 1]
        x, y, o = a[t], b[t], out[t]
        if power % 2 == 0:
            for i in range(o.shape[0]):
                o[i] = reduce(x[i] + sign * y[i], p, inverse_p)
        else:
            w = sign * roots[t, 0, 1]
            ratio = w * inverse_p
            for i in range(half):
                o[i] = reduce(x[i] + multiply_constant(y[i], w, ratio, p), p, inverse_p)
            for i in range(half, o.shape[0]):
                o[i] = reduce(x[i] - multiply_constant(y[i], w, ratio, p), p, inverse_p)
