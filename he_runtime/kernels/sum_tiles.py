"""Tiles of weighted sums, modulo a prime each: a few sums of the same rows, for a few vectors of entries, all in registers.

The sum over rows runs innermost, so every entry that is loaded serves all sums of the tile, and no sum goes to memory before it
is whole. Compilers vectorise innermost loops only, so the code is written out (`vector_code`). There are two ways to sum exactly:

- in halves: a weight w = high·2^h + low, |low| at most 2^(h-1), takes two multiply-adds a term, each exact while the sums stay
  below 2^53, and one reduction at the end. For primes of about 30 bits.
- anchored (`arithmetic.accumulate`): two multiply-adds and two additions, which keep what the rounding of a product lost.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from he_runtime.kernels.vector_code import VectorCode

SUMS = 4
"""Sums of a tile; what is left over is summed alone."""
VECTORS = 2
"""Vectors of entries of a tile: SUMS times so many sums fill half of the registers and hide the latency of multiply-adds."""


def _make_tile(sums: int, vectors: int, *, shared: bool) -> Callable[..., None]:
    """The kernel of so many sums and vectors. shared: whether all entries of the tile have one weight, or each its own."""

    @intrinsic
    def tile(
        typing_context: Any,  # noqa: ARG001
        x: Any,
        x_start: Any,  # noqa: ARG001
        x_step: Any,  # noqa: ARG001
        terms: Any,  # noqa: ARG001
        weights: Any,
        weights_start: Any,  # noqa: ARG001
        weights_step: Any,  # noqa: ARG001
        moduli: Any,
        moduli_start: Any,  # noqa: ARG001
        halved: Any,  # noqa: ARG001
        out: Any,
        out_start: Any,  # noqa: ARG001
        out_step: Any,  # noqa: ARG001
        more: Any,  # noqa: ARG001
    ) -> Any:
        """out[g, i] = sum over k < terms of x[k, i]·w[g, k] modulo p[g], at most p[g]/2; added to what is there if `more`.

        x[k, i] lies at x_start + k·x_step + i, out[g, i] at out_start + g·out_step + i, i < 8·vectors; w[g, k], or its low half,
        at weights_start + g·weights_step + k, its high half `terms` further; where weights are not shared, w[k, i] at
        weights_start + k·weights_step + i, its high half terms·weights_step further. p, 1/p and 2^h or the anchor of sum g: from
        moduli_start + 3g on. All arrays are contiguous float64 of one dimension.
        """
        index = types.intp
        signature = types.void(
            x, index, index, index, weights, index, index, moduli, index, types.boolean, out, index, index, types.boolean
        )  # fmt: skip
        return signature, lambda *code: _generate(VectorCode(*code), sums, vectors, shared)

    return tile  # type: ignore[no-any-return]


def _generate(code: VectorCode, sums: int, vectors: int, shared: bool) -> Any:
    with code.builder.if_else(code.arguments[9]) as (then, otherwise):
        with then:
            _generate_kind(code, sums, vectors, shared, halved=True)
        with otherwise:
            _generate_kind(code, sums, vectors, shared, halved=False)
    return code.context.get_dummy_value()


def _generate_kind(code: VectorCode, sums: int, vectors: int, shared: bool, *, halved: bool) -> None:
    builder = code.builder
    _, x_start, x_step, terms, _, weights_start, weights_step, _, moduli_start, _, _, out_start, out_step, more = (
        code.arguments
    )
    x, weights, moduli, out = (code.data(argument) for argument in (0, 4, 7, 10))

    def times(value: Any, factor: int) -> Any:
        return builder.mul(value, ir.Constant(value.type, factor))

    def modulus(g: int, place: int) -> Any:
        return code.entry(moduli, builder.add(moduli_start, ir.Constant(moduli_start.type, 3 * g + place)))

    def weight(g: int, part: int, term: Any) -> list[Any]:
        term = builder.add(term, times(terms, part))
        if shared:
            place = builder.add(weights_start, times(weights_step, g))
            return [code.entry(weights, builder.add(place, term))] * vectors
        place = builder.add(weights_start, builder.mul(weights_step, term))
        return [code.load(weights, place, k) for k in range(vectors)]

    zero, last = code.zero, [modulus(g, 2) for g in range(sums)]  # of halved sums 2^h, of others anchors
    first = [[code.variable(zero if halved else last[g]) for _ in range(vectors)] for g in range(sums)]
    second = [[code.variable(zero) for _ in range(vectors)] for _ in range(sums)]
    with cgutils.for_range(builder, terms) as loop:
        row = builder.add(x_start, builder.mul(loop.index, x_step))
        values = [code.load(x, row, k) for k in range(vectors)]
        for g in range(sums):
            low_weight = weight(g, 0, loop.index)
            high_weight = weight(g, 1, loop.index) if halved else low_weight
            for k, value in enumerate(values):
                before = builder.load(first[g][k])
                after = code.fma(value, low_weight[k], before)
                addend = builder.load(second[g][k])
                if halved:
                    rest = code.fma(value, high_weight[k], addend)
                else:
                    rest = builder.fadd(addend, code.fma(value, low_weight[k], builder.fsub(before, after)))
                builder.store(after, first[g][k])
                builder.store(rest, second[g][k])
    for g in range(sums):
        p, inverse_p = modulus(g, 0), modulus(g, 1)
        start = builder.add(out_start, times(out_step, g))
        for k in range(vectors):
            low, high = builder.load(first[g][k]), builder.load(second[g][k])
            if halved:
                high = code.reduced(builder.fmul(high, last[g]), p, inverse_p)  # a power of two: the product is exact
            else:
                low = builder.fsub(low, last[g])
            total = builder.fadd(code.reduced(low, p, inverse_p), high)
            total = builder.fadd(total, builder.select(more, code.load(out, start, k), zero))
            code.store(code.reduced(total, p, inverse_p), out, start, k)


tile = _make_tile(SUMS, VECTORS, shared=True)
tile_of_one = _make_tile(1, VECTORS, shared=True)
strip = _make_tile(SUMS, 1, shared=True)
"""For runs of no more than one vector."""
strip_of_one = _make_tile(1, 1, shared=True)
entries = _make_tile(1, VECTORS, shared=False)
"""For runs of less than a vector: every entry has its own weight."""
