"""Weighted sums of many rows: for each run of entries that share their weights, sum over b of x[b]·w[b] modulo p.

What one run of entries takes from all rows fits the first cache, where every sum of it is made, a tile of them at a time
(`sum_tiles`).
"""

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import nearest_product
from he_runtime.kernels.compiling import kernel
from he_runtime.kernels.sum_tiles import SUMS, VECTORS, entries, strip, strip_of_one, tile, tile_of_one
from he_runtime.kernels.vector_code import LANES

Array = NDArray[np.float64]

MOST_TERMS = 128
"""Of one sum. Products of 45 bits by 45 leave rests of 46 bits each when they are added to an anchored sum; rests stay exact."""
HALF = 65536.0
HALVED_BELOW = 2.0**31
"""Primes whose weights are cut in halves of 16 bits: 128 products with residues of at most p/2 stay below 2^53."""
ENTRIES = 64
"""Entries whose weights are laid out together where runs are shorter than a vector."""
SPREAD = ENTRIES + LANES
"""Entries between two terms of those weights: a power of two apart they would fall into the same lines of the first cache."""
SCRATCH = 2 * MOST_TERMS * SPREAD
"""Words of scratch memory that `weigh` needs."""


@kernel
def weigh(
    x: Array,
    words: tuple[Array, ...],
    first_table: int,
    first_input: int,
    last_input: int,
    word_row: int,
    first_word: int,
    run: int,
    block: int,
    p: float,
    inverse_p: float,
    anchor: float,
    weights: Array,
    moduli: Array,
    out: Array,
    out_start: int,
    half_step: int,
    out_step: int,
) -> None:
    """out[g, h, i] = sum over inputs c and steps b of x[h, c·steps + b, i]·words[first_table + c][word_row, g, m, b] modulo p.

    m = first_word + i // run, i < block; h: the halves of a ciphertext; g: all sums of words [rows, sums, M, steps]. Inputs
    first_input to last_input, at most MOST_TERMS steps in all; where they are not the first, they are added to what is there.
    x [2, inputs·steps, block and padding], |x| and |out| at most p/2, as words; out: of one dimension, out[g, h, i] at
    out_start + g·out_step + h·half_step + i; run: a power of two that divides block. Scratch: weights [SCRATCH], moduli [3·SUMS].
    """
    steps = words[first_table].shape[3]
    terms, x_step = (last_input - first_input) * steps, x.shape[2]
    rows = x.reshape(2 * x.shape[1] * x_step)
    first_row, count = first_input * steps * x_step, words[first_table].shape[1]
    halved, more = p < HALVED_BELOW, first_input > 0
    for g in range(SUMS):
        moduli[3 * g], moduli[3 * g + 1], moduli[3 * g + 2] = p, inverse_p, HALF if halved else anchor
    if run < LANES:
        width = min(ENTRIES, block)
        for begin in range(0, block, width):
            for g in range(count):
                for c in range(first_input, last_input):
                    table = words[first_table + c]
                    for i in range(width):
                        m = first_word + (begin + i) // run
                        for b in range(steps):
                            weights[((c - first_input) * steps + b) * SPREAD + i] = table[word_row, g, m, b]
                if halved:
                    _cut(weights, terms * SPREAD)
                for half in range(2):
                    source = half * x.shape[1] * x_step + first_row + begin
                    target = out_start + half * half_step + g * out_step + begin
                    for i in range(0, width, LANES * VECTORS):
                        entries(
                            rows, source + i, x_step, terms, weights, i, SPREAD, moduli, 0, halved, out, target + i, 0, more
                        )  # fmt: skip
        return
    for m in range(block // run):
        g = 0
        while g < count:
            together = SUMS if count - g >= SUMS else 1
            for j in range(together):
                for c in range(first_input, last_input):
                    table, place = words[first_table + c], 2 * j * terms + (c - first_input) * steps
                    for b in range(steps):
                        weights[place + b] = table[word_row, g + j, first_word + m, b]
                if halved:
                    _cut(weights[2 * j * terms : 2 * (j + 1) * terms], terms)
            for half in range(2):
                source = half * x.shape[1] * x_step + first_row + m * run
                target = out_start + half * half_step + g * out_step + m * run
                _sum_run(
                    rows, source, x_step, terms, weights, moduli, out, target, out_step, run, together, halved, more
                )
            g += together


@kernel
def _cut(weights: Array, count: int) -> None:
    """The first `count` weights become their low halves; the high ones come after them."""
    for k in range(count):
        high = nearest_product(weights[k], 1.0 / HALF)
        weights[count + k] = high
        weights[k] -= high * HALF


@kernel
def _sum_run(
    rows: Array,
    source: int,
    x_step: int,
    terms: int,
    weights: Array,
    moduli: Array,
    out: Array,
    target: int,
    out_step: int,
    run: int,
    together: int,
    halved: bool,
    more: bool,
) -> None:
    """One run of entries of one sum, or of SUMS of them."""
    step = 2 * terms
    if run == LANES:
        if together == SUMS:
            strip(rows, source, x_step, terms, weights, 0, step, moduli, 0, halved, out, target, out_step, more)
        else:
            strip_of_one(rows, source, x_step, terms, weights, 0, step, moduli, 0, halved, out, target, out_step, more)
        return
    for i in range(0, run, LANES * VECTORS):
        s, t = source + i, target + i
        if together == SUMS:
            tile(rows, s, x_step, terms, weights, 0, step, moduli, 0, halved, out, t, out_step, more)
        else:
            tile_of_one(rows, s, x_step, terms, weights, 0, step, moduli, 0, halved, out, t, out_step, more)
