"""Dividing by primes of the modulus: by P after a key switch, by the last prime of the chain in a rescale, or by both at once.

Let D be the product of the primes d to be dropped, and X a polynomial modulo all of them. By the remainder theorem
X mod D = sum_d x_d·D/d - u·D with x_d = X·(D/d)^-1 mod d and u nearest to sum_d x_d/d, so for every prime q that is kept

    (X - (X mod D))/D = X·D^-1 + sum_d x_d·(-1/d) + u   (mod q),

which rounds to the nearest integer. The x_d are polynomials of integers: `dropped_rows` makes them from transformed rows,
`quotients` u, `convert_rows` the sums, and those are transformed forward again and added (`divided`).
"""

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import multiply_constant, nearest_product, reduce
from he_runtime.kernels.compiling import inlined, kernel
from he_runtime.kernels.sum_tiles import SUMS, VECTORS, tile, tile_of_one
from he_runtime.kernels.transform import forward, forward_multiple, inverse
from he_runtime.kernels.vector_code import LANES

Array = NDArray[np.float64]

BLOCK = 2048
"""Entries of a row that are worked on together, so that as many rows as it takes fit the second cache."""


@kernel
def convert_rows(
    sources: Array,
    weights: Array,
    moduli: Array,
    halved: NDArray[np.bool_],
    first: int,
    last: int,
    skip_from: int,
    skip_to: int,
    out: Array,
) -> None:
    """out[t] = sum over k of sources[k]·weights[t, k] modulo the prime of target t, for blocks first to last of a row.

    sources [count, N]; weights [targets, 2, count] in halves where `halved` [targets], otherwise whole and zeros; moduli
    [targets, 3]: p, 1/p, and 2^h or the anchor (see `sum_tiles`); out [targets, N], at most p/2; targets skip_from to skip_to are
    left alone. All targets of a block are made while its sources lie in the second cache: row by row they would be read anew for
    each target.
    """
    count, n = sources.shape
    targets, block = out.shape[0], min(BLOCK, n)
    x, w, m, o = (
        sources.reshape(count * n),
        weights.reshape(targets * 2 * count),
        moduli.reshape(3 * targets),
        out.reshape(targets * n),
    )
    for start in range(first * block, last * block, block):
        t = 0
        while t < targets:
            if skip_from <= t < skip_to:
                t += 1
                continue
            end = t + 1
            limit = min(t + SUMS, skip_from if t < skip_from else targets)
            while end < limit and halved[end] == halved[t]:
                end += 1
            together = end - t == SUMS
            for i in range(start, start + block, LANES * VECTORS):
                if together:
                    tile(x, i, n, count, w, 2 * count * t, 2 * count, m, 3 * t, halved[t], o, n * t + i, n, False)
                else:
                    tile_of_one(x, i, n, count, w, 2 * count * t, 0, m, 3 * t, halved[t], o, n * t + i, 0, False)
            t = end if together else t + 1


@kernel
def dropped_rows(
    part: Array,
    sources: NDArray[np.int64],
    tables: NDArray[np.int64],
    factors: Array,
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    out: Array,
) -> None:
    """out[d] = x_d of `part` [rows, N], for dropped primes d from first to last.

    sources, tables: row of each dropped prime in `part` and in the tables; factors [dropped]: (D/d)^-1/N.
    """
    for d in range(first, last):
        row = tables[d]
        inverse(part[sources[d]], out[d], roots[row, 1], tails[row, 1], primes[row, 0], primes[row, 1], factors[d])


@kernel
def quotients(dropped: Array, tables: NDArray[np.int64], primes: Array, first: int, last: int) -> None:
    """The last row of dropped [primes and one, N] = u, for blocks first to last: the nearest to the sum over d of dropped[d]/d.

    tables: row of each dropped prime in the tables.
    """
    count, block = tables.shape[0], min(BLOCK, dropped.shape[1])
    for start in range(first * block, last * block, block):
        out = dropped[count, start : start + block]
        out[:] = 0.0
        for d in range(count):
            x, inverse_p = dropped[d, start : start + block], primes[tables[d], 1]
            for i in range(block):
                out[i] += x[i] * inverse_p
        for i in range(block):
            out[i] = nearest_product(out[i], 1.0)


@inlined
def divided(
    x: Array, addend: Array, has_addend: bool, remainder: Array, scale: float, p: float, inverse_p: float, out: Array
) -> None:
    """out = (x + addend)·scale + remainder, reduced, modulo one prime that is kept. None of them may be another.

    remainder: sum_d x_d·(-1/d) + u, as `convert_rows` makes it, transformed; scale: 1/D, or what is left of it where x carries
    1/P already.
    """
    if scale == 1.0:
        if has_addend:
            for i in range(out.shape[0]):
                out[i] = reduce(x[i] + addend[i] + remainder[i], p, inverse_p)
        else:
            for i in range(out.shape[0]):
                out[i] = reduce(x[i] + remainder[i], p, inverse_p)
    else:
        ratio = scale * inverse_p
        if has_addend:
            for i in range(out.shape[0]):
                out[i] = reduce(remainder[i] + multiply_constant(x[i] + addend[i], scale, ratio, p), p, inverse_p)
        else:
            for i in range(out.shape[0]):
                out[i] = reduce(remainder[i] + multiply_constant(x[i], scale, ratio, p), p, inverse_p)


@kernel
def divided_rows(
    parts: tuple[Array, Array],
    remainders: Array,
    scale: Array,
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    out: Array,
) -> None:
    """out[h, t] = row t of parts[h] [rows, N] divided by the dropped primes, for t from first to last. Overwrites remainders.

    Both parts of a row in turn, while the prime's tables lie in the second cache.
    """
    for t in range(first, last):
        p, inverse_p = primes[t, 0], primes[t, 1]
        for half in range(2):
            x, remainder = parts[half][t], remainders[half, t]
            forward(remainder, roots[t, 0], tails[t, 0], p, inverse_p)
            divided(x, x, False, remainder, scale[t], p, inverse_p, out[half, t])


@kernel
def rescaled_rows(
    parts: tuple[Array, Array],
    dropped: Array,
    down: Array,
    scale: Array,
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    row: Array,
    out: Array,
) -> None:
    """As `divided_rows` where one prime is dropped: its row fits the second cache, so no remainders need to be kept.

    dropped [2, N]: x_d, centred, so that the quotient is zero; down [rows]: -1/d modulo each prime. Scratch: row [N].
    """
    for t in range(first, last):
        p, inverse_p, minus, w = primes[t, 0], primes[t, 1], down[t], scale[t]
        ratio = w * inverse_p
        for half in range(2):
            x, o = parts[half][t], out[half, t]
            forward_multiple(dropped[half], minus, row, roots[t, 0], tails[t, 0], p, inverse_p)
            for i in range(o.shape[0]):
                o[i] = reduce(row[i] + multiply_constant(x[i], w, ratio, p), p, inverse_p)
