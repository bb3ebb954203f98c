"""An answer, and the part of it that may be shown to others."""

from dataclasses import dataclass

SHARED_BITS = 8


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
        if not 1 <= bits <= 12:
            raise ValueError(
                f"{bits} bits: from 1 to 12 may be shared; the bits below show the noise of the encryption"
            )

        def rounded(value: float) -> float:
            return round(value * 2**bits) / 2**bits

        if not self.probabilities:
            return SharedResult(self.label, {}, rounded(self.logits[0]))
        return SharedResult(self.label, {label: rounded(value) for label, value in self.probabilities.items()})
