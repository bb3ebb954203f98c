"""An answer, and the part of it that may be shown to others."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.client.errors import OutOfRangeError

SHARED_BITS = 8
MOST_SHARED_BITS = 12
SHORTEST = 1e-3  # a vector that is shorter is noise


def _rounded(values: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Multiples of 2^-bits. ValueError for bits that would show the noise."""
    if not 1 <= bits <= MOST_SHARED_BITS:
        raise ValueError(
            f"{bits} bits: from 1 to {MOST_SHARED_BITS} may be shared; the bits below show the noise of the encryption"
        )
    return np.asarray(np.round(values * 2**bits) / 2**bits, np.float64)


@dataclass(frozen=True)
class SharedResult:
    """What may leave the client: a label and probabilities, rounded far above the noise of the encryption."""

    label: str
    probabilities: dict[str, float]
    score: float | None = None
    """Of a regression, rounded as the probabilities are."""


@dataclass(frozen=True)
class Result:
    """An answer. Logits are decrypted CKKS values: show others `share()`, never these.

    Of a regression the only logit is the score; label is empty, and so are probabilities.
    """

    label: str
    probabilities: dict[str, float]
    logits: tuple[float, ...]
    tokens: int
    cut: int
    """Tokens of the text that were left out, by a client that truncates."""
    bucket: int
    timings: dict[str, float]
    """Seconds: encrypt, server (the program alone), round_trip, decrypt."""
    bytes_up: int
    bytes_down: int

    def share(self, bits: int = SHARED_BITS) -> SharedResult:
        """Probabilities, or the score of a regression, rounded to multiples of 2^-bits.

        The exact decrypted values reveal the noise, and with it the secret key (Li and Micciancio, ePrint 2020/1533). The
        noise of an answer is about 2^-17, so 8 bits leave a margin of 2^9; more than 12 bits are refused. SECURITY.md says
        what this does not promise.
        """
        if not self.probabilities:
            return SharedResult(self.label, {}, float(_rounded(np.array(self.logits[0]), bits)))
        rounded = _rounded(np.array(list(self.probabilities.values())), bits)
        return SharedResult(self.label, dict(zip(self.probabilities, rounded.tolist(), strict=True)))


@dataclass(frozen=True)
class Embedding:
    """A sentence's vector. It is made of decrypted CKKS values: show others `share()`, never this."""

    vector: NDArray[np.float32] = field(repr=False)
    """[features], of unit length."""
    tokens: int
    cut: int
    """Tokens of the text that were left out, by a client that truncates."""
    bucket: int
    timings: dict[str, float]
    """As of a Result."""
    bytes_up: int
    bytes_down: int

    def share(self, bits: int = SHARED_BITS) -> NDArray[np.float64]:
        """The vector rounded to multiples of 2^-bits, for the reason that Result.share gives."""
        return _rounded(self.vector.astype(np.float64), bits)


@dataclass(frozen=True)
class Match:
    """A passage that a search found. number: its place in the operator's corpus, from 0."""

    number: int
    cosine: float


def length_of(vector: NDArray[np.float64]) -> float:
    """The vector's length. OutOfRangeError where it is too short to point anywhere."""
    length = float(np.linalg.norm(vector))
    if not length > SHORTEST:
        raise OutOfRangeError(f"a vector of length {length:.2g} has no direction; this text cannot be embedded")
    return length


def nearest(outputs: NDArray[np.float64], passages: int, top: int) -> list[Match]:
    """The `top` passages of a search's answer, best first; equal cosines in the corpus' order. Raises as length_of does.

    outputs: float64 [passages + features], the passages' scores, and the query's vector by whose length they are divided.
    """
    return best(outputs[:passages] / length_of(outputs[passages:]), top)


def best(cosines: NDArray[Any], top: int) -> list[Match]:
    """The `top` of them, best first; equal ones in their order."""
    return [Match(int(number), float(cosines[number])) for number in np.argsort(-cosines, kind="stable")[:top]]
