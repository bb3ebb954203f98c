"""Bit-packing of residues: each takes exactly the bits of its prime."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.errors import WireError
from he_runtime.wire.sizes import packed_bytes


def pack_row(row: NDArray[np.uint64], bits: int) -> bytes:
    """Residues below 2^bits, least significant bit first, padded with zeros to whole words."""
    words = np.zeros(packed_bytes(len(row), bits) // 8, np.uint64)
    _pack(np.ascontiguousarray(row, np.uint64), np.uint64(bits), words)
    return words.astype("<u8").tobytes()


def unpack_row(content: memoryview, count: int, prime: int, *, bits: int | None = None) -> NDArray[np.uint64]:
    """Residues uint64 [count] below `prime`, of so many bits each (those of the prime unless given).

    The caller has cut `content` to packed_bytes(count, bits).

    Raises WireError residue_out_of_range when one is not below the prime.
    """
    bits = bits or prime.bit_length()
    words = np.frombuffer(content, "<u8").astype(np.uint64, copy=False)
    row = np.empty(count, np.uint64)
    if _unpack(words, np.uint64(bits), row) >= prime:
        raise WireError("residue_out_of_range", f"a residue is not below its prime of {bits} bits; send it canonical")
    return row


@njit(cache=True, nogil=True, boundscheck=False)
def _pack(row: NDArray[np.uint64], bits: np.uint64, words: NDArray[np.uint64]) -> None:
    word = 0
    filled = np.uint64(0)
    size = np.uint64(64)
    for i in range(row.shape[0]):
        words[word] |= row[i] << filled
        filled += bits
        if filled >= size:
            filled -= size
            word += 1
            if filled > np.uint64(0):
                words[word] = row[i] >> (bits - filled)


@njit(cache=True, nogil=True, boundscheck=False)
def _unpack(words: NDArray[np.uint64], bits: np.uint64, row: NDArray[np.uint64]) -> np.uint64:
    """Fill the row and return its largest value."""
    mask = (np.uint64(1) << bits) - np.uint64(1)
    size = np.uint64(64)
    word = 0
    used = np.uint64(0)
    largest = np.uint64(0)
    for i in range(row.shape[0]):
        value = words[word] >> used
        used += bits
        if used >= size:
            used -= size
            word += 1
            if used > np.uint64(0):
                value |= words[word] << (bits - used)
        value &= mask
        row[i] = value
        largest = max(largest, value)
    return largest
