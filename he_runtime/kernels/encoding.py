"""CKKS encoding of real slots (Cheon, Kim, Kim and Song 2017, section 3.2) to NTT rows, compact where values repeat.

Slot j is the polynomial's value at ζ^(3^j), ζ = exp(iπ/n). The exponents 3^j are 1 or 3 modulo 8; the conjugates of the
latter are 5, so that slots and conjugates together fill the exponents 4t+1. For real slots a conjugate has the same
value, and with G_k = ζ^(-k)·Σ_t value(4t+1)·exp(-2πi·kt/(n/2)) the coefficients are (2/n)·Re G_k and, n/2 places on,
(2/n)·Im G_k: one FFT of length n/2.

A vector of period m repeats because its polynomial is one in Y = X^(N/2m): it is encoded in the ring of degree n = 2m,
whose root is ψ^(N/n) and whose twiddles are the first n of the full ring. Its NTT word i then stands for the N/n words
of the full ring from i·N/n on.
"""

import numpy as np
from numba import njit

from he_runtime.kernels.arithmetic import Floats, Integers, reduce
from he_runtime.kernels.transform import TransformTables, forward

# `reduce` takes an integer coefficient only while its quotient by the smallest prime (2**35 at least) fits in 50 bits.
_LARGEST_COEFFICIENT = 2.0**84


def slot_order(slots: int) -> Integers:
    """[slots]: the place t for which slot j, or its conjugate, sits at exponent 4t+1 modulo 4·slots."""
    exponents = np.ones(1, dtype=np.int64)
    while len(exponents) < slots:  # 3^j for j < 2k from those for j < k
        exponents = np.concatenate([exponents, exponents * pow(3, len(exponents), 4 * slots) % (4 * slots)])
    return np.where(exponents % 4 == 1, exponents, 4 * slots - exponents) >> 2


def coefficients(values: Floats, scale: float) -> Floats:
    """Coefficients [2·slots] of real slots [slots, a power of two], times `scale`, rounded to integers."""
    slots = len(values)
    placed = np.empty(slots)
    placed[slot_order(slots)] = values
    turned = np.fft.fft(placed) * np.exp(-0.5j * np.pi / slots * np.arange(slots))
    return np.rint(np.concatenate([turned.real, turned.imag]) * (scale / slots))


@njit(nogil=True, error_model="numpy", cache=True)
def _encode_rows(polynomial: Floats, primes: Floats, twiddles: Floats, out: Floats) -> None:
    """Coefficients [n] -> NTT rows [rows, n] of the ring of degree n, reduced."""
    n = polynomial.shape[0]
    for row in range(out.shape[0]):
        o = out[row]
        p = primes[row, 0]
        one_over_p = primes[row, 1]
        for i in range(n):
            o[i] = reduce(polynomial[i], p, one_over_p)
        forward(o, twiddles[row, 0, :n], twiddles[row, 1, :n], p)
        for i in range(n):
            o[i] = reduce(o[i], p, one_over_p)


def encode_rows(values: Floats, level: int, scale: float, tables: TransformTables) -> Floats:
    """Real slots of period m = len(values), a power of two -> compact NTT rows [level + 1, 2m], |x| <= p/2.

    Raises ValueError for values that are not finite, or that do not fit the modulus at this scale.
    """
    polynomial = coefficients(values, scale)
    bound = min(float(np.prod(tables.primes[: min(level + 1, 8), 0])) / 2, _LARGEST_COEFFICIENT)
    largest = float(np.abs(polynomial).max())
    if not largest < bound:  # also catches nan
        raise ValueError(
            f"a coefficient of {largest:.3g} does not fit level {level}, which holds {bound:.3g}; "
            "encode smaller finite values or use a smaller scale"
        )
    out = np.empty((level + 1, len(polynomial)))
    _encode_rows(polynomial, tables.primes, tables.twiddles, out)
    return out
