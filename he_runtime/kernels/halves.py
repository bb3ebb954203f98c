"""Weighted sums of rows of small primes, one multiply-add a product and half: exact, because weights are cut in halves.

A product of two residues of 30 bits does not fit a float64, so `accumulate` takes four operations to keep both its parts. Of a
weight w = high·2^h + low, |low| at most 2^(h-1), both products with a residue do fit, and so do sums of a few dozen: two
multiply-adds a term, and one reduction at the end. A sum that could grow too large is not one of these: `halves` says so.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import KERNEL
from he_runtime.kernels.vector_code import LANES, VectorCode

Array = NDArray[np.float64]

EXACT_BITS = 53
SIDE_BY_SIDE = 4
"""Vectors that are summed together: what hides the latency of the multiply-adds."""


def halves(weights: Sequence[int], largest: Sequence[int], prime: int) -> tuple[Array, float]:
    """Halves of centred weights modulo prime, [2, terms]: low and high; and what the high ones are to be multiplied with, 2^h.

    largest: of each term's residues, in absolute value. Zeros and 0.0 where a sum of products could be inexact.
    """
    bits = -(-prime.bit_length() // 2)
    shift = 1 << bits
    high = [round(weight / shift) for weight in weights]
    low = [weight - shift * part for weight, part in zip(weights, high, strict=True)]
    sums = (sum(x * abs(part) for x, part in zip(largest, parts, strict=True)) for parts in (low, high))
    if max(sums) >= 1 << EXACT_BITS:
        return np.zeros((2, len(weights))), 0.0
    return np.array([low, high], np.float64), float(shift)


def _generate(count: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, x_start, x_step, _, terms, _, out_start, p, inverse_p, shift = arguments
        code = VectorCode(context, builder, signature, arguments)
        rows, weights, out = code.data(0), code.data(3), code.data(5)
        zero = code.splat(builder.fsub(p, p))
        low, high = ([code.variable(zero) for _ in range(count)] for _ in range(2))
        with cgutils.for_range(builder, terms) as loop:
            low_weight = code.entry(weights, loop.index)
            high_weight = code.entry(weights, builder.add(terms, loop.index))
            row = builder.add(x_start, builder.mul(loop.index, x_step))
            for k in range(count):
                value = code.load(rows, row, k)
                builder.store(code.fma(value, low_weight, builder.load(low[k])), low[k])
                builder.store(code.fma(value, high_weight, builder.load(high[k])), high[k])
        modulus, inverse_modulus, factor = code.splat(p), code.splat(inverse_p), code.splat(shift)
        for k in range(count):
            whole = builder.fmul(builder.load(high[k]), factor)  # a power of two: exact
            parts = [code.reduced(part, modulus, inverse_modulus) for part in (whole, builder.load(low[k]))]
            code.store(builder.fadd(*parts), out, out_start, k)
        return context.get_dummy_value()

    return generate


@intrinsic
def _sum_vectors(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    x_start: Any,  # noqa: ARG001
    x_step: Any,  # noqa: ARG001
    words: Any,
    terms: Any,  # noqa: ARG001
    out: Any,
    out_start: Any,  # noqa: ARG001
    p: Any,  # noqa: ARG001
    inverse_p: Any,  # noqa: ARG001
    shift: Any,  # noqa: ARG001
) -> Any:
    """out[out_start + i] = sum over k < terms of x[x_start + k·x_step + i]·w[k] modulo p, i < 8·SIDE_BY_SIDE.

    words: the low halves of w and then the high ones. All arrays are contiguous float64 of one dimension.
    """
    index = types.intp
    signature = types.void(x, index, index, words, index, out, index, types.float64, types.float64, types.float64)
    return signature, _generate(SIDE_BY_SIDE)


@njit(**KERNEL)
def sum_of_halves(
    sources: Array, start: int, words: Array, p: float, inverse_p: float, shift: float, out: Array
) -> None:
    """out[i] = sum over k of sources[k, start + i]·w[k] modulo p, at most p; words [2, terms], shift: what `halves` gave.

    sources [terms, N], contiguous; len(out) is a multiple of 8·SIDE_BY_SIDE.
    """
    terms, n = sources.shape
    rows, weights = sources.reshape(terms * n), words.reshape(2 * terms)
    for i in range(0, out.shape[0], LANES * SIDE_BY_SIDE):
        _sum_vectors(rows, start + i, n, weights, terms, out, i, p, inverse_p, shift)
