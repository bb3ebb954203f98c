"""Weighted sums of many rows: for each run of entries that share their weights, sum over b of x[b]·w[b] modulo p.

The sum runs innermost, with its parts in registers, so the vectors are written out (`vector_code`): four of eight entries at a
time, which hides the latency of the multiply-adds. Plain loops took twice the time, a fifth of a whole query.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import KERNEL, accumulate, reduce, settle
from he_runtime.kernels.vector_code import LANES, VectorCode

Array = NDArray[np.float64]


def _make_weigh_vectors(count: int) -> Callable[..., None]:
    """The kernel for `count` vectors side by side."""

    @intrinsic
    def weigh_vectors(
        typing_context: Any,  # noqa: ARG001
        x: Any,
        x_start: Any,  # noqa: ARG001
        x_step: Any,  # noqa: ARG001
        words: Any,
        words_start: Any,  # noqa: ARG001
        terms: Any,  # noqa: ARG001
        out: Any,
        out_start: Any,  # noqa: ARG001
        p: Any,  # noqa: ARG001
        inverse_p: Any,  # noqa: ARG001
        anchor: Any,  # noqa: ARG001
    ) -> Any:
        """out[out_start + i] += sum over b < terms of x[x_start + b·x_step + i]·words[words_start + b], reduced: i < 8·count.

        All arrays are contiguous float64 of one dimension. The sums are those of `accumulate` and `settle`.
        """
        index = types.intp
        signature = types.void(
            x, index, index, words, index, index, out, index, types.float64, types.float64, types.float64
        )
        return signature, _generate(count)

    return weigh_vectors  # type: ignore[no-any-return]


def _generate(count: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, x_start, x_step, _, words_start, terms, _, out_start, p, inverse_p, anchor = arguments
        code = VectorCode(context, builder, signature, arguments)
        rows, weights, sums = code.data(0), code.data(3), code.data(6)
        start = code.splat(anchor)
        high = [code.variable(start) for _ in range(count)]
        low = [code.variable(code.load(sums, out_start, k)) for k in range(count)]
        with cgutils.for_range(builder, terms) as loop:
            weight = code.entry(weights, builder.add(words_start, loop.index))
            row = builder.add(x_start, builder.mul(loop.index, x_step))
            for k in range(count):
                value = code.load(rows, row, k)
                before = builder.load(high[k])
                after = code.fma(value, weight, before)
                rest = code.fma(value, weight, builder.fsub(before, after))
                builder.store(after, high[k])
                builder.store(builder.fadd(builder.load(low[k]), rest), low[k])
        modulus, inverse_modulus = code.splat(p), code.splat(inverse_p)
        for k in range(count):
            whole = builder.fsub(builder.load(high[k]), start)
            settled = builder.fadd(code.reduced(whole, modulus, inverse_modulus), builder.load(low[k]))
            code.store(code.reduced(settled, modulus, inverse_modulus), sums, out_start, k)
        return context.get_dummy_value()

    return generate


_weigh_four = _make_weigh_vectors(4)
_weigh_one = _make_weigh_vectors(1)


@njit(**KERNEL)
def weigh(
    x: Array,
    x_step: int,
    words: Array,
    first_word: int,
    run: int,
    out: Array,
    p: float,
    inverse_p: float,
    anchor: float,
) -> None:
    """out[i] += sum over b of x[b·x_step + i]·words[first_word + i // run, b], reduced: |out| at most p/2.

    At most 32 terms of |x| up to 10p and |words| up to p/2, which keeps within `anchor_of` (MOST_BABY_STEPS of the engines).
    x: rows of at least len(out) entries, x_step apart; words [M, terms]; run: a power of two that divides len(out).
    """
    terms = words.shape[1]
    weights = words.reshape(words.shape[0] * terms)
    for m in range(out.shape[0] // run):
        first = (first_word + m) * terms
        begin, end = m * run, (m + 1) * run
        if run % LANES:
            for i in range(begin, end):
                high, low = anchor, out[i]
                for b in range(terms):
                    high, low = accumulate(high, low, x[b * x_step + i], weights[first + b])
                out[i] = reduce(settle(high, low, anchor, p, inverse_p), p, inverse_p)
            continue
        i = begin
        while end - i >= 4 * LANES:
            _weigh_four(x, i, x_step, weights, first, terms, out, i, p, inverse_p, anchor)
            i += 4 * LANES
        while end - i >= LANES:
            _weigh_one(x, i, x_step, weights, first, terms, out, i, p, inverse_p, anchor)
            i += LANES
