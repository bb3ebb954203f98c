"""CKKS encoding of slots (Cheon, Kim, Kim and Song 2017) to compact transformed residues.

Slot j is the value at root^(3^j). A vector of period m is a polynomial in X^(N/2m), so it is encoded in the ring of degree 2m,
whose transform uses a prefix of the same tables; each of its 2m words stands for a run of N/2m words of the large ring.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import reduce
from he_runtime.kernels.compiling import kernel
from he_runtime.kernels.transform import forward, forward_columns

Array = NDArray[np.float64]


def encoding_positions(period: int) -> NDArray[np.int64]:
    """For slot j of a ring of degree 2·period: (3^j mod 4·period - 1)/2, the index of its root among the odd powers."""
    positions = np.empty(period, np.int64)
    power = 1
    for slot in range(period):
        positions[slot] = (power - 1) >> 1
        power = power * 3 % (4 * period)
    return positions


def coefficients(values: NDArray[Any], scale: float, positions: NDArray[np.int64]) -> Array:
    """Integer coefficients [2·period] of the polynomial whose slots are values·scale. values: [period], real or complex."""
    degree = 2 * len(values)
    spectrum = np.zeros(degree, np.complex128)
    spectrum[positions] = values
    spectrum[degree - 1 - positions] = np.conj(values)  # so that the polynomial is real
    twist = np.exp(-1j * np.pi * np.arange(degree) / degree)
    return np.asarray(np.rint((np.fft.fft(spectrum) / degree * twist).real * scale), np.float64)


@kernel
def to_residues(
    polynomial: Array, roots: Array, tails: Array, primes: Array, rows: NDArray[np.int64], out: Array
) -> None:
    """out[t] = transform of the polynomial modulo the prime of row rows[t] of the tables, reduced: [len(rows), degree]."""
    for t in range(out.shape[0]):
        row = rows[t]
        p, inverse_p = primes[row, 0], primes[row, 1]
        o = out[t]
        for i in range(o.shape[0]):
            o[i] = reduce(polynomial[i], p, inverse_p)
        forward(o, roots[row, 0], tails[row, 0], p, inverse_p)
        for i in range(o.shape[0]):
            o[i] = reduce(o[i], p, inverse_p)


@kernel
def table_words(polynomials: Array, roots: Array, p: float, inverse_p: float, out: Array) -> None:
    """out = transforms of a compact table's polynomials [sums, M, steps] modulo one prime, reduced: the same shape."""
    for g in range(polynomials.shape[0]):
        source, o = polynomials[g], out[g]
        for i in range(o.shape[0]):
            for b in range(o.shape[1]):
                o[i, b] = reduce(source[i, b], p, inverse_p)
        forward_columns(o, roots, p, inverse_p)
        for i in range(o.shape[0]):
            for b in range(o.shape[1]):
                o[i, b] = reduce(o[i, b], p, inverse_p)
