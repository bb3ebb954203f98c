"""Weighted sums of rotations: the inner part of a matrix product by baby and giant steps (Halevi and Shoup 2014).

Rotations and sums stay modulo QP and are divided by P once, at the end (double hoisting: Bossuat, Mouchet, Troncoso-Pastoriza and
Hubaux 2021), so a baby step costs a product with its key and nothing else. Everything goes by blocks of entries: a rotation
takes whole aligned blocks to whole blocks (see `automorphism`), so a block of all rotations fits the second cache, where all
sums read it.
"""

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import reduce
from he_runtime.kernels.compiling import kernel
from he_runtime.kernels.key_switch import key_product
from he_runtime.kernels.sum_tiles import SUMS
from he_runtime.kernels.weighing import MOST_TERMS, weigh

Array = NDArray[np.float64]


@kernel
def rotated_sums(
    parts0: tuple[Array, ...],
    parts1: tuple[Array, ...],
    extended: tuple[Array, ...],
    low: tuple[NDArray[np.int32], ...],
    high: tuple[NDArray[np.int16], ...],
    key_level_rows: NDArray[np.int64],
    permutations: NDArray[np.uint32],
    words: tuple[Array, ...],
    first_words: int,
    first: int,
    last: int,
    rows: NDArray[np.int64],
    primes: Array,
    rotated: Array,
    product: Array,
    weights: Array,
    sums: Array,
) -> None:
    """sums[g] = sum over inputs c and steps b of words[c][g, b] times ciphertext c rotated by b, for QP rows first to last.

    parts0, parts1: the ciphertexts [rows of q, N]; extended: their digits. Step 0 is no rotation; steps 1, 2, ... have the keys
    low, high with `key_level_rows` rows of q and the permutations [steps-1, N]. words: for each output and input, inputs
    innermost, [rows, sums, M, steps], from QP row first_words on; sums [sums of all outputs, 2, QP rows, N]. Scratch: product
    [2, block], rotated [2, inputs·steps, block and padding], weights [SCRATCH]. All inputs at once, or as many as a sum takes
    (`MOST_TERMS`).
    """
    inputs, n, block, steps = len(parts0), parts0[0].shape[1], product.shape[1], len(low) + 1
    at_once = max(1, MOST_TERMS // steps)
    moduli, every = np.empty(3 * SUMS), sums.reshape(sums.size)
    half_step = sums.shape[2] * n
    for r in range(first, last):
        row = rows[r]
        p, inverse_p, anchor = primes[row, 0], primes[row, 1], primes[row, 2]
        for start in range(0, n, block):
            for c in range(inputs):
                _rotate_block(
                    parts0[c], parts1[c], extended[c], low, high, key_level_rows, permutations, r, start, p, inverse_p,
                    anchor, product, rotated[:, c * steps : (c + 1) * steps],
                )  # fmt: skip
            place = r * n + start
            for table in range(0, len(words), inputs):
                count, entries = words[table].shape[1], words[table].shape[2]
                run = min(n // entries, block)
                for first_input in range(0, inputs, at_once):
                    weigh(
                        rotated, words, table, first_input, min(first_input + at_once, inputs), r - first_words,
                        start * entries // n, run, block, p, inverse_p, anchor, weights, moduli, every, place, half_step,
                        2 * half_step,
                    )  # fmt: skip
                place += count * 2 * half_step


@kernel
def _rotate_block(
    part0: Array,
    part1: Array,
    extended: Array,
    low: tuple[NDArray[np.int32], ...],
    high: tuple[NDArray[np.int16], ...],
    key_level_rows: NDArray[np.int64],
    permutations: NDArray[np.uint32],
    r: int,
    start: int,
    p: float,
    inverse_p: float,
    anchor: float,
    product: Array,
    rotated: Array,
) -> None:
    """One block of QP row r of all rotations of one ciphertext, at most p/2: rotated [2, steps, block and padding]."""
    q_rows, block = part0.shape[0], product.shape[1]
    if r < q_rows:
        for half in range(2):
            x, o = (part0 if half == 0 else part1)[r, start : start + block], rotated[half, 0]
            for i in range(block):
                o[i] = reduce(x[i], p, inverse_p)
    else:
        rotated[:, 0] = 0.0  # the ciphertext times P
    for b in range(1, rotated.shape[1]):
        permutation = permutations[b - 1, start : start + block]
        source = int(permutation[0]) // block * block
        key_row = r if r < q_rows else key_level_rows[b - 1] + r - q_rows
        key_product(extended, r, source, low[b - 1], high[b - 1], key_row, product[0], product[1], p, inverse_p, anchor)
        if r < q_rows:
            own, x = part0[r, source : source + block], product[0]
            for i in range(block):
                x[i] += own[i]
        for half in range(2):
            x, o = product[half], rotated[half, b]
            for i in range(block):
                x[i] = reduce(x[i], p, inverse_p)
            for i in range(block):
                o[i] = x[permutation[i] - source]


@kernel
def turned_rows(
    part0: Array,
    extended: Array,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
    key_level_rows: int,
    q_rows: int,
    permutation: NDArray[np.uint32],
    addend: Array,
    first: int,
    last: int,
    rows: NDArray[np.int64],
    primes: Array,
    product: Array,
    out: Array,
) -> None:
    """out = addend + a rotation modulo QP, for rows first to last: the giant step of Horner's rule.

    part0 [QP rows, N]; extended: digits of the other part divided by P. addend, out [2, QP rows, N]. Scratch: product [2, N].
    """
    for r in range(first, last):
        row = rows[r]
        p, inverse_p, anchor = primes[row, 0], primes[row, 1], primes[row, 2]
        key_row = r if r < q_rows else key_level_rows + r - q_rows
        key_product(extended, r, 0, low, high, key_row, product[0], product[1], p, inverse_p, anchor)
        own, x = part0[r], product[0]
        for i in range(x.shape[0]):
            x[i] += own[i]
        for half in range(2):
            x, more, o = product[half], addend[half, r], out[half, r]
            for i in range(x.shape[0]):
                o[i] = reduce(x[permutation[i]] + more[i], p, inverse_p)
