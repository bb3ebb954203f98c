"""An answer, and the part of it that may be shown to others."""

from dataclasses import dataclass

SHARED_BITS = 8


@dataclass(frozen=True)
class SharedResult:
    """What may leave the client: a label and probabilities, rounded far above the noise of the encryption."""

    label: str
    probabilities: dict[str, float]


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
        """Probabilities rounded to multiples of 2^-bits.

        The exact decrypted values reveal the noise, and with it the secret key (Li and Micciancio, ePrint 2020/1533). The
        noise of an answer is about 2^-17, so 8 bits leave a margin of 2^9; more than 12 bits are refused. SECURITY.md says
        what this does not promise.
        """
        if not 1 <= bits <= 12:
            raise ValueError(
                f"{bits} bits: from 1 to 12 may be shared; the bits below show the noise of the encryption"
            )
        rounded = {label: round(value * 2**bits) / 2**bits for label, value in self.probabilities.items()}
        return SharedResult(self.label, rounded)
