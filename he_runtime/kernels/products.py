"""Products and sums of ciphertext rows, and the rescale. All rows are in NTT form, |x| <= p on entry and on return.

Sums of products are accumulated unreduced: a product is at most 0.66p and p is below 2**46, so 64 of them, two at a
time in the middle row of a tensor product, stay below 2**53, where float64 stops being exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from he_runtime.kernels.arithmetic import Floats, centred, multiply, multiply_constant, reduce, reduce_row
from he_runtime.kernels.transform import TransformTables, forward, inverse
from he_runtime.parameters import Parameters

_UNREDUCED_TERMS = 64
_FEWEST_WORDS_IN_A_RUN = 8  # shorter runs are cheaper written out than looped over


@njit(nogil=True, error_model="numpy", cache=True)
def _accumulate_tensor(left: Floats, right: Floats, row: int, p: float, one_over_p: float, out: Floats) -> None:
    """out [3, N] += (l0·r0, l0·r1 + l1·r0, l1·r1) for one row of left and right [2, rows, N]."""
    l0, l1, r0, r1 = left[0, row], left[1, row], right[0, row], right[1, row]
    out0, out1, out2 = out[0], out[1], out[2]
    for i in range(out0.shape[0]):
        out0[i] += multiply(l0[i], r0[i], p, one_over_p)
        out1[i] += multiply(l0[i], r1[i], p, one_over_p) + multiply(l1[i], r0[i], p, one_over_p)
        out2[i] += multiply(l1[i], r1[i], p, one_over_p)


def tensor_sum(left: Sequence[Floats], right: Sequence[Floats], tables: TransformTables) -> Floats:
    """Σ left[i]⊗right[i]: ciphertexts [2, level + 1, N] -> [level + 1, 3, N], to be relinearised."""
    _, rows, degree = left[0].shape
    out = np.zeros((rows, 3, degree))
    for row in range(rows):
        p, one_over_p = tables.primes[row]
        for k, (a, b) in enumerate(zip(left, right, strict=True)):
            _accumulate_tensor(a, b, row, p, one_over_p, out[row])
            if k % (_UNREDUCED_TERMS // 2) == _UNREDUCED_TERMS // 2 - 1 or k == len(left) - 1:
                reduce_row(out[row].reshape(-1), p, one_over_p)
    return out


@njit(nogil=True, error_model="numpy", cache=True)
def _accumulate_full(ciphertext: Floats, words: Floats, row: int, p: float, one_over_p: float, out: Floats) -> None:
    """out [2, rows, N] += ciphertext·words for one row; words [N]."""
    for half in range(2):
        c = ciphertext[half, row]
        o = out[half, row]
        for i in range(o.shape[0]):
            o[i] += multiply(c[i], words[i], p, one_over_p)


@njit(nogil=True, error_model="numpy", cache=True)
def _accumulate_four(
    c0: Floats, c1: Floats, c2: Floats, c3: Floats, words: Floats, row: int, p: float, one_over_p: float, out: Floats
) -> None:
    """out [2, rows, N] += Σ c_k·words[k] for one row; words [4, rows, n], each standing for a run of N/n words."""
    runs = words.shape[2]
    for half in range(2):
        length = out.shape[2] // runs
        for m in range(runs):
            w0 = words[0, row, m]
            w1 = words[1, row, m]
            w2 = words[2, row, m]
            w3 = words[3, row, m]
            v0 = w0 * one_over_p
            v1 = w1 * one_over_p
            v2 = w2 * one_over_p
            v3 = w3 * one_over_p
            a = c0[half, row, m * length : (m + 1) * length]
            b = c1[half, row, m * length : (m + 1) * length]
            c = c2[half, row, m * length : (m + 1) * length]
            d = c3[half, row, m * length : (m + 1) * length]
            o = out[half, row, m * length : (m + 1) * length]
            for i in range(length):
                o[i] += (multiply_constant(a[i], w0, v0, p) + multiply_constant(b[i], w1, v1, p)) + (
                    multiply_constant(c[i], w2, v2, p) + multiply_constant(d[i], w3, v3, p)
                )


def plaintext_sum(ciphertexts: Sequence[Floats], plaintexts: Sequence[Floats], tables: TransformTables) -> Floats:
    """Σ ciphertexts[i]·plaintexts[i]: [2, level + 1, N] times compact words [level + 1, n] -> [2, level + 1, N].

    Terms of one period are taken four at a time; periods may be mixed.
    """
    _, rows, degree = ciphertexts[0].shape
    out = np.zeros((2, rows, degree))
    since_reduced = 0
    for group in _groups(plaintexts, degree):
        if since_reduced + 4 > _UNREDUCED_TERMS:
            reduce_rows(out, tables)
            since_reduced = 0
        since_reduced += len(group)
        words = np.stack([plaintexts[k] for k in group])
        runs = words.shape[2]
        if degree // runs >= _FEWEST_WORDS_IN_A_RUN:
            missing = 4 - len(group)
            words = np.concatenate([words, np.zeros((missing, rows, runs))])
            four = [ciphertexts[k] for k in group] + [ciphertexts[group[0]]] * missing
            for row in range(rows):
                _accumulate_four(four[0], four[1], four[2], four[3], words, row, *tables.primes[row], out)
        else:
            for k in group:
                full = expand(plaintexts[k], degree)
                for row in range(rows):
                    _accumulate_full(ciphertexts[k], full[row], row, *tables.primes[row], out)
    reduce_rows(out, tables)
    return out


def _groups(plaintexts: Sequence[Floats], degree: int) -> list[list[int]]:
    """Indices of the plaintexts in groups of up to four that share a period."""
    by_period: dict[int, list[int]] = {}
    for index, words in enumerate(plaintexts):
        by_period.setdefault(min(words.shape[1], degree), []).append(index)
    return [same[start : start + 4] for same in by_period.values() for start in range(0, len(same), 4)]


def expand(words: Floats, degree: int) -> Floats:
    """Compact words [rows, n] written out to [rows, N]."""
    return words if words.shape[1] == degree else np.repeat(words, degree // words.shape[1], axis=1)


def reduce_rows(residues: Floats, tables: TransformTables) -> None:
    """Reduce [2, level + 1, N] in place."""
    for half in residues:
        for row, words in enumerate(half):
            reduce_row(words, *tables.primes[row])


@njit(nogil=True, error_model="numpy", cache=True)
def _add_row(left: Floats, right: Floats, p: float, one_over_p: float, out: Floats) -> None:
    """out [N] = left [N] + right [n], each word of right standing for a run of N/n."""
    length = out.shape[0] // right.shape[0]
    if length == 1:
        for i in range(out.shape[0]):
            out[i] = reduce(left[i] + right[i], p, one_over_p)
    else:
        for m in range(right.shape[0]):
            for i in range(m * length, (m + 1) * length):
                out[i] = reduce(left[i] + right[m], p, one_over_p)


def add(left: Floats, right: Floats, tables: TransformTables) -> Floats:
    """Sum of two ciphertexts [2, level + 1, N]."""
    out = np.empty_like(left)
    for half in range(2):
        for row in range(left.shape[1]):
            _add_row(left[half, row], right[half, row], *tables.primes[row], out[half, row])
    return out


def add_plaintext(ciphertext: Floats, words: Floats, tables: TransformTables) -> Floats:
    """Sum of a ciphertext [2, level + 1, N] and compact words [level + 1, n]: a plaintext joins half 0 only."""
    out = np.empty_like(ciphertext)
    for row in range(ciphertext.shape[1]):
        _add_row(ciphertext[0, row], words[row], *tables.primes[row], out[0, row])
    out[1] = ciphertext[1]
    return out


@dataclass(frozen=True)
class RescaleConstants:
    """The constants of a rescale from one level to the next."""

    inverse: tuple[float, float]
    """1/N modulo the dropped prime, and the same over it."""
    factors: Floats
    """[level, 2]: 1/q_level modulo each prime that stays, and the same over it."""


def rescale_constants(parameters: Parameters, level: int) -> RescaleConstants:
    """Constants of the rescale from `level`, which must be at least 1."""
    dropped = parameters.primes[level]
    near = centred(pow(parameters.ring_degree, -1, dropped), dropped)
    factors = [(centred(pow(dropped, -1, q), q), q) for q in parameters.primes[:level]]
    return RescaleConstants((float(near), near / dropped), np.array([(float(f), f / q) for f, q in factors]))


@njit(nogil=True, error_model="numpy", cache=True)
def _rescale_half(
    half: Floats,
    tables_primes: Floats,
    twiddles: Floats,
    inverse_factor: float,
    inverse_over_p: float,
    factors: Floats,
    last: Floats,
    work: Floats,
    out: Floats,
) -> None:
    """(half - [half]_q)/q for the last prime q: half [rows, N] -> out [rows - 1, N]. The remainder is centred: rounds."""
    level = half.shape[0] - 1
    p = tables_primes[level, 0]
    one_over_p = tables_primes[level, 1]
    last[:] = half[level]
    inverse(last, twiddles[level, 2], twiddles[level, 3], p, one_over_p, inverse_factor, inverse_over_p)
    for i in range(last.shape[0]):
        last[i] = reduce(last[i], p, one_over_p)
    for row in range(level):
        p = tables_primes[row, 0]
        one_over_p = tables_primes[row, 1]
        factor = factors[row, 0]
        factor_over_p = factors[row, 1]
        for i in range(last.shape[0]):
            work[i] = reduce(last[i], p, one_over_p)
        forward(work, twiddles[row, 0], twiddles[row, 1], p)
        kept = half[row]
        o = out[row]
        for i in range(last.shape[0]):
            difference = reduce(kept[i] - work[i], p, one_over_p)
            o[i] = multiply_constant(difference, factor, factor_over_p, p)


def rescale(residues: Floats, constants: RescaleConstants, tables: TransformTables) -> Floats:
    """Divide by the last prime and round: [2, level + 1, N] -> [2, level, N]."""
    _, rows, degree = residues.shape
    out = np.empty((2, rows - 1, degree))
    last, work = np.empty(degree), np.empty(degree)
    for half in range(2):
        _rescale_half(
            residues[half], tables.primes, tables.twiddles, *constants.inverse, constants.factors, last, work, out[half]
        )
    return out
