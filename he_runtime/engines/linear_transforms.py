"""Matrix products modulo QP: rotations and sums are divided by P only at the end (see `kernels.matrix`)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.key_switcher import KeySwitcher
from he_runtime.engines.packed_key import PackedKey
from he_runtime.kernels import division, encoding, matrix

Array = NDArray[np.float64]
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
    level, n = inputs[0].shape[1] - 1, switcher.parameters.ring_degree
    tables = switcher.level_tables(level)
    counts = [of_output[0].shape[-3] for of_output in words]
    sums = np.empty(
        (sum(counts), 2, len(tables.rows), n)
    )  # no scratch: hundreds of megabytes that others may have next
    switcher.rows.each(len(tables.rows), lambda first, last: sums[:, :, first:last].fill(0.0))
    for index, residues in enumerate(inputs):
        _add_rotated_sums(
            switcher, residues, tuple(of_output[index] for of_output in words), babies, permutations, sums
        )
    results = []
    for stop, count in zip(itertools.accumulate(counts), counts, strict=True):
        total = sums[stop - 1]
        if giant is not None:
            for addend in sums[stop - count : stop - 1][::-1]:
                _turn(switcher, total, giant, addend)
                total = addend
        results.append(switcher.divide((total[0], total[1]), tables.special_and_rescale))
    return results


def _add_rotated_sums(
    switcher: KeySwitcher,
    residues: Array,
    words: tuple[Array, ...],
    babies: Sequence[RotationKey],
    permutations: NDArray[np.uint32],
    sums: Array,
) -> None:
    """sums [all sums, 2, QP rows, N] += the weighted sums of one ciphertext's rotations, modulo QP, of every output."""
    rows = switcher.level_tables(residues.shape[1] - 1).rows
    low, high = tuple(baby.key.low for baby in babies), tuple(baby.key.high for baby in babies)
    key_level_rows = np.array([baby.key.level + 1 for baby in babies], np.int64)
    extended, scratch = switcher.extend(residues[1]), switcher.scratch
    block = min(division.BLOCK, switcher.parameters.ring_degree)

    def add_rows(first: int, last: int, words: tuple[Array, ...], first_words: int) -> None:
        rotated = scratch.array("rotated", (2, len(babies) + 1, block + PADDING))
        matrix.rotated_sums(
            residues[0], residues[1], extended, low, high, key_level_rows, permutations, words, first_words, first, last, rows,
            switcher.transforms.primes, rotated, scratch.array("product", (2, block)), sums,
        )  # fmt: skip

    def add(first: int, last: int) -> None:
        if all(is_encoded(of_output) for of_output in words):
            add_rows(first, last, words, 0)
            return
        for row in range(first, last):  # the transforms of one row at a time, in scratch
            places = enumerate(words)
            row_words = tuple(
                _row_words(switcher, of_output, row, int(rows[row]), place) for place, of_output in places
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
