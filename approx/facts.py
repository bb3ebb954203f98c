"""What every replacement says about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """The statement of one replacement.

    domain: where it is meant to be used; degree: of the polynomial in its input (0: not a polynomial);
    depth: ciphertext multiplications in sequence, before folding into neighbouring matrices (-1: cannot be
    evaluated under encryption); error: how far from the exact operation, and how that is known; source.
    """

    domain: str
    degree: int
    depth: int
    error: str
    source: str
