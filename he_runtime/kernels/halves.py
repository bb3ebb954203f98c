"""Weights in halves, so that weighted sums of residues of 30 bits are exact in float64 (see `sum_tiles`)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXACT_BITS = 53


def halves(weights: Sequence[int], largest: Sequence[int], prime: int) -> tuple[Array, float]:
    """Halves of centred weights modulo prime, [2, terms]: low and high; and what the high ones are to be multiplied with, 2^h.

    largest: of each term's residues, in absolute value. Where a sum could be inexact: the weights whole, zeros, and 0.
    """
    bits = -(-prime.bit_length() // 2)
    shift = 1 << bits
    high = [round(weight / shift) for weight in weights]
    low = [weight - shift * part for weight, part in zip(weights, high, strict=True)]
    sums = (sum(x * abs(part) for x, part in zip(largest, parts, strict=True)) for parts in (low, high))
    if max(sums) >= 1 << EXACT_BITS:
        return np.array([weights, [0] * len(weights)], np.float64), 0.0
    return np.array([low, high], np.float64), float(shift)
