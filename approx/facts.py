"""What every replacement says about itself, before any measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Encrypted = Literal["one round", "needs client", "in the clear only"]
"""How far an encrypted run gets today.

"one round": bundles hold it and the encrypted program evaluates it, in one request. "needs client": it compares numbers, which
only an exchange with the client can do (THE-X's protocol); no bundle holds it. "in the clear only": exact functions, and
polynomials that no bundle holds: for study, and for whoever extends the program.
"""


@dataclass(frozen=True)
class Facts:
    """The statement of one replacement; its errors are measured (approx.catalogue), not stated.

    domain: the closed interval on which it is meant to be used, of the quantity that `of` names.
    degree: of the polynomial in its input, or of the numerator where a polynomial divides; None for what is no polynomial.
    depth: ciphertext products in sequence, with constants folded into the neighbouring matrices and masks sent encrypted;
    between two exchanges where the client helps. None for what encryption cannot evaluate at all.
    rounds: exchanges with the client in each evaluation; 0 is not interactive.
    derivation: the formula and how its coefficients are found. source: where it comes from.
    """

    domain: tuple[float, float]
    of: str
    degree: int | None
    depth: int | None
    rounds: int
    encrypted: Encrypted
    derivation: str
    source: str

    @property
    def interactive(self) -> bool:
        """Whether it needs the client."""
        return self.rounds > 0


SCORE_DOMAIN = (-4.0, 4.0)
"""Where attention scores lie: training penalises them beyond 4 in absolute value."""
PREACTIVATION_DOMAIN = (-6.0, 6.0)
"""Where the activation's inputs lie: calibrated models reach 5.4."""
DEVIATION_DOMAIN = (0.8, 1.25)
"""A row's standard deviation over the calibrated one; its mean lies within a tenth of the calibrated deviation."""
POOLED_DOMAIN = (-3.0, 3.0)
"""Where the pooler's inputs lie; tanh(3) is 0.995."""


def depth_of_power(degree: int) -> int:
    """Products in sequence for a polynomial of that degree in one ciphertext: ceil(log2(degree)); 0 for degree 0 and 1."""
    return max(degree - 1, 0).bit_length()
