"""Matrix products modulo QP: rotations and sums are divided by P only at the end (see `kernels.matrix`)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.key_switcher import KeySwitcher
from he_runtime.engines.packed_key import PackedKey
from he_runtime.kernels import division, encoding, matrix, weighing

Array = NDArray[np.float64]
MOST_SUM_BYTES = 2_500_000_000
"""What the sums of outputs that are made together may take, if it is more than one output: beyond it rotations are made again."""
PADDING = 8
"""Entries between rows that are read together: a power of two apart they would fall into the same lines of the first cache."""


@dataclass(frozen=True)
class RotationKey:
    """A rotation's key and the permutation of its automorphism."""

    key: PackedKey
    permutation: NDArray[np.uint32]


def linear_transforms(
    switcher: KeySwitcher,
    inputs: Sequence[Array],
    words: Sequence[Sequence[Array]],
    babies: Sequence[RotationKey],
    permutations: NDArray[np.uint32],
    giant: RotationKey | None,
) -> list[Array]:
    """One [2, level, N] for each output: see `Engine.linear_transforms`; divided by P and the last prime.

    inputs: ciphertexts [2, level+1, N]; words: for each output and input [QP rows, sums, M, steps], or compact, which is the
    coefficients [sums, M, steps]; babies: keys of all steps but the first, which is 0, and their permutations once more,
    stacked; giant: None where no output has a second sum.
    """
    rows, n = len(switcher.level_tables(inputs[0].shape[1] - 1).rows), switcher.parameters.ring_degree
    bytes_of_outputs = [16 * rows * n * of_output[0].shape[-3] for of_output in words]
    results: list[Array] = []
    for first, last in _together(bytes_of_outputs):
        results += _made_together(switcher, inputs, words[first:last], babies, permutations, giant)
    return results


def _together(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Runs [first, last) of outputs whose sizes are at most MOST_SUM_BYTES in all, or of one."""
    runs, first, total = [], 0, 0
    for place, size in enumerate(sizes):
        if place > first and total + size > MOST_SUM_BYTES:
            runs.append((first, place))
            first, total = place, 0
        total += size
    return [*runs, (first, len(sizes))]


def _made_together(
    switcher: KeySwitcher,
    inputs: Sequence[Array],
    words: Sequence[Sequence[Array]],
    babies: Sequence[RotationKey],
    permutations: NDArray[np.uint32],
    giant: RotationKey | None,
) -> list[Array]:
    """Outputs that share their inputs' rotations."""
    level, n = inputs[0].shape[1] - 1, switcher.parameters.ring_degree
    tables = switcher.level_tables(level)
    counts = [of_output[0].shape[-3] for of_output in words]
    sums = np.empty(
        (sum(counts), 2, len(tables.rows), n)
    )  # no scratch: hundreds of megabytes that others may have next
    _fill_with_sums(switcher, inputs, [table for of_output in words for table in of_output], babies, permutations, sums)
    results = []
    for stop, count in zip(itertools.accumulate(counts), counts, strict=True):
        total = sums[stop - 1]
        if giant is not None:
            for addend in sums[stop - count : stop - 1][::-1]:
                _turn(switcher, total, giant, addend)
                total = addend
        results.append(switcher.divide((total[0], total[1]), tables.special_and_rescale))
    return results


def _fill_with_sums(
    switcher: KeySwitcher,
    inputs: Sequence[Array],
    words: Sequence[Array],
    babies: Sequence[RotationKey],
    permutations: NDArray[np.uint32],
    sums: Array,
) -> None:
    """sums [all sums, 2, QP rows, N] = the weighted sums of the inputs' rotations, modulo QP, of every output.

    words: of every output and input, inputs innermost.
    """
    rows = switcher.level_tables(inputs[0].shape[1] - 1).rows
    low, high = tuple(baby.key.low for baby in babies), tuple(baby.key.high for baby in babies)
    key_level_rows = np.array([baby.key.level + 1 for baby in babies], np.int64)
    parts0, parts1 = tuple(residues[0] for residues in inputs), tuple(residues[1] for residues in inputs)
    extended = tuple(switcher.extend(part, place) for place, part in enumerate(parts1))
    scratch = switcher.scratch
    # All rotations of a block are read by all sums, so they should fit the second cache together.
    block = min(division.BLOCK >> (len(inputs) - 1).bit_length(), switcher.parameters.ring_degree)

    def add_rows(first: int, last: int, words: tuple[Array, ...], first_words: int) -> None:
        rotated = scratch.array("rotated", (2, len(inputs) * (len(babies) + 1), block + PADDING))
        matrix.rotated_sums(
            parts0, parts1, extended, low, high, key_level_rows, permutations, words, first_words, first, last, rows,
            switcher.transforms.primes, rotated, scratch.array("product", (2, block)),
            scratch.array("weights", (weighing.SCRATCH,)), sums,
        )  # fmt: skip

    def add(first: int, last: int) -> None:
        if all(is_encoded(table) for table in words):
            add_rows(first, last, tuple(words), 0)
            return
        for row in range(first, last):  # the transforms of one row at a time, in scratch
            row_words = tuple(
                _row_words(switcher, table, row, int(rows[row]), place) for place, table in enumerate(words)
            )
            add_rows(row, row + 1, row_words, row)

    switcher.rows.each(len(rows), add)


def is_encoded(words: Array) -> bool:
    """Whether a table's words are transformed, [QP rows, sums, M, steps], and not a compact table's coefficients."""
    return words.ndim == 4


def _row_words(switcher: KeySwitcher, words: Array, row: int, table_row: int, place: int) -> Array:
    """[1, sums, M, steps] of one QP row: a view, or a compact table's transforms, valid until this thread's next call."""
    if is_encoded(words):
        return words[row : row + 1]
    out = switcher.scratch.array(f"words {place}", (1, *words.shape))
    transforms = switcher.transforms
    p, inverse_p = transforms.primes[table_row, :2]
    encoding.table_words(words, transforms.roots[table_row, 0], p, inverse_p, out[0])
    return out


def _turn(switcher: KeySwitcher, total: Array, giant: RotationKey, addend: Array) -> None:
    """addend += total rotated, both modulo QP: [2, QP rows, N]."""
    n, key = switcher.parameters.ring_degree, giant.key
    level = total.shape[1] - len(switcher.parameters.special_primes) - 1
    tables = switcher.level_tables(level)
    extended = switcher.extend_divided(total[1], level)

    def turn(first: int, last: int) -> None:
        matrix.turned_rows(
            total[0], extended, key.low, key.high, key.level + 1, level + 1, giant.permutation, addend, first, last,
            tables.rows, switcher.transforms.primes, switcher.scratch.array("total", (2, n)), addend,
        )  # fmt: skip

    switcher.rows.each(len(tables.rows), turn)
