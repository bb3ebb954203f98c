"""Encryption parameters, and the security table that every one of them is held against.

A ciphertext at level l lives modulo q_0 ... q_l: l rescales are left. Key switching is hybrid (Han and Ki 2020): the first
primes are grouped in digits of `digit_size`, and the keys live modulo Q·P with P the product of the special primes.
"""

import hashlib
import json
import math
from dataclasses import dataclass

from he_runtime.errors import ParameterError
from he_runtime.primes import is_prime, primes_below, primes_nearest

# log2 of the largest QP for 128 bits, classical, uniform ternary secret: Bossuat et al. 2024, ePrint 2024/463, table 5.2.
# SEAL's own table is looser (881 at 32768) and ends at 32768; it is never what decides here.
MAXIMUM_MODULUS_BITS_128 = {1024: 26, 2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868, 65536: 1747}

RESULT_BITS = 9  # the first prime exceeds the answer's scale by them, so that slots up to 2**8 decrypt
LARGEST_RESULT = 2.0 ** (RESULT_BITS - 1.5)
"""A slot of two results, one its real and one its imaginary part, is larger than both by up to the root of two."""
SCALES_BITS = (36, 35, 34)  # the larger the more precise; see `cheapest_chain`
COARSE_SCALES_BITS = (*SCALES_BITS, 33, 32, 31, 30)
"""For answers of which the direction counts: an embedding turned by 2^-10 is the same. Deep programs get small keys by them."""
LARGEST_PRIME_BITS = 45  # residues are exact in a float64 product with its error term only below 2**46
KEY_SWITCH_MARGIN_BITS = 9  # P over the largest digit; with 3 a few slots were 10 times worse
RING_DEGREES = (8192, 16384, 32768, 65536)
COARSE_SPREAD_BITS = 0.01
"""Small primes are far between: a chain of them is longer than its scales say by no more than this."""
DIGIT_SIZES, COARSE_DIGIT_SIZES = range(1, 9), range(1, 17)
"""The largest digits make the smallest keys and slower rotations: coarse scales are for programs whose keys are the trouble."""
SCALE_BIT_PRICE = 1.05  # a scale of one bit less must make keys smaller by more than this


@dataclass(frozen=True)
class Parameters:
    """One CKKS parameter set. Immutable and public; the same on client and server."""

    ring_degree: int
    """N, a power of two; a ciphertext holds N/2 slots."""
    primes: tuple[int, ...]
    """q_0 ... q_L: the ciphertext modulus chain, dropped from the last to the first."""
    special_primes: tuple[int, ...]
    """P = the product of these; used in keys only."""
    digit_size: int
    """Primes a key-switching digit groups."""
    scale_bits: int
    """log2 of the scale that the program keeps."""
    insecure_test: bool = False
    """Too small to be secure; nothing but tests may make or load one."""

    def __post_init__(self) -> None:
        degree = self.ring_degree
        if degree & (degree - 1) or degree < 16:
            raise ParameterError(f"ring degree {degree} is not a power of two of at least 16")
        every = self.all_primes
        if len(set(every)) != len(every) or any((p - 1) % (2 * degree) or p >> 46 or not is_prime(p) for p in every):
            raise ParameterError(f"the moduli must be distinct primes, below 2**46 and 1 modulo {2 * degree}")
        if not 1 <= self.scale_bits <= LARGEST_PRIME_BITS or self.digit_size < 1 or not self.primes:
            raise ParameterError(
                f"a scale of {self.scale_bits} bits, digits of {self.digit_size} primes, {len(self.primes)} primes: "
                f"expected a scale of 1 to {LARGEST_PRIME_BITS} bits, and at least one prime in a digit and in the chain"
            )
        if not self.insecure_test:
            bound = MAXIMUM_MODULUS_BITS_128.get(degree)
            if bound is None:
                raise ParameterError(f"N={degree} is not in the security table {sorted(MAXIMUM_MODULUS_BITS_128)}")
            if self.modulus_bits > bound:
                raise ParameterError(
                    f"log2(QP) is {self.modulus_bits:.1f}, N={degree} allows {bound} at 128 bits; use fewer levels or a larger N"
                )
        largest = max(math.prod(digit) for digit in self.digits(self.maximum_level))
        if math.log2(math.prod(self.special_primes)) < math.log2(largest) + KEY_SWITCH_MARGIN_BITS - 0.5:
            raise ParameterError(
                f"P must exceed the largest digit by {KEY_SWITCH_MARGIN_BITS} bits; use more special primes or smaller digits"
            )

    @property
    def slots(self) -> int:
        """Complex slots of one ciphertext: N/2."""
        return self.ring_degree // 2

    @property
    def maximum_level(self) -> int:
        """Level of a fresh ciphertext: rescales that it can take."""
        return len(self.primes) - 1

    @property
    def all_primes(self) -> tuple[int, ...]:
        """q_0 ... q_L, then the special primes: the row order of keys."""
        return self.primes + self.special_primes

    @property
    def scale(self) -> float:
        """The scale Δ of fresh ciphertexts and of every value that a program stores."""
        return 2.0**self.scale_bits

    @property
    def answer_scale(self) -> float:
        """The scale of a program's result: the largest at which LARGEST_RESULT does not wrap around the first prime."""
        return 2.0 ** (self.primes[0].bit_length() - RESULT_BITS)

    @property
    def modulus_bits(self) -> float:
        """log2(QP): what the security table bounds."""
        return math.log2(math.prod(self.all_primes))

    def digits(self, level: int) -> list[tuple[int, ...]]:
        """The primes q_0 ... q_level grouped in key-switching digits."""
        primes = self.primes[: level + 1]
        return [primes[i : i + self.digit_size] for i in range(0, len(primes), self.digit_size)]

    def digit_count(self, level: int) -> int:
        """Digits of a ciphertext at `level`: ceil((level + 1) / digit_size)."""
        return -(-(level + 1) // self.digit_size)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: names these parameters on the wire."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> dict[str, object]:
        """Plain JSON value, read back by `from_json`."""
        return {
            "ring_degree": self.ring_degree,
            "primes": list(self.primes),
            "special_primes": list(self.special_primes),
            "digit_size": self.digit_size,
            "scale_bits": self.scale_bits,
            "insecure_test": self.insecure_test,
        }

    @classmethod
    def from_json(cls, value: dict[str, object], *, allow_insecure_test: bool = False) -> "Parameters":
        """Read what `to_json` wrote; refuses an insecure set unless a test asks for it."""
        try:
            parameters = cls(
                ring_degree=_integer(value["ring_degree"]),
                primes=_integers(value["primes"]),
                special_primes=_integers(value["special_primes"]),
                digit_size=_integer(value["digit_size"]),
                scale_bits=_integer(value["scale_bits"]),
                insecure_test=bool(value["insecure_test"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(f"not a parameter set: {error!r}; expected the fields of Parameters.to_json") from None
        if parameters.insecure_test and not allow_insecure_test:
            raise ParameterError("these parameters are marked insecure_test; only tests may load them")
        return parameters


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not an integer")
    return value


def _integers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return tuple(_integer(item) for item in value)


@dataclass(frozen=True)
class ChainShape:
    """Sizes of a chain before its primes are chosen."""

    scale_bits: int
    digit_size: int

    @property
    def first_prime_bits(self) -> int:
        """Of the prime that holds the result. Its scale is none of the coarse ones, so that the last product adds a third as much
        noise at 30 bits."""
        return max(self.scale_bits, min(SCALES_BITS)) + RESULT_BITS

    @property
    def special_prime_bits(self) -> tuple[int, ...]:
        """Of each special prime: as few as can be, and P no larger than the largest digit and the margin ask for."""
        needed = self.first_prime_bits + (self.digit_size - 1) * self.scale_bits + KEY_SWITCH_MARGIN_BITS
        count = -(-needed // LARGEST_PRIME_BITS)
        small, larger = divmod(needed, count)
        return (small + 1,) * larger + (small,) * (count - larger)

    def modulus_bits(self, levels: int) -> float:
        """log2(QP) with so many levels, to a thousandth: scale primes lie on both sides of their power of two.

        `Parameters` checks the primes themselves.
        """
        spread = 0.0 if self.scale_bits >= min(SCALES_BITS) else COARSE_SPREAD_BITS
        return self.first_prime_bits + levels * self.scale_bits + sum(self.special_prime_bits) + spread

    def key_rows(self, levels: int) -> int:
        """Residue rows of one half of a key: what is uploaded, kept in memory and read at every rotation."""
        return -(-(levels + 1) // self.digit_size) * (levels + 1 + len(self.special_prime_bits))


SHAPES = tuple(
    ChainShape(scale, size)
    for scale in COARSE_SCALES_BITS
    for size in (DIGIT_SIZES if scale in SCALES_BITS else COARSE_DIGIT_SIZES)
)


def cheapest_chain(ring_degree: int, levels: int, scales_bits: tuple[int, ...] = SCALES_BITS) -> ChainShape:
    """The shape with the smallest keys among those that the security table allows for so long a chain.

    Larger digits need more special primes but fewer rows in all, and a bit of precision can buy them room. Where nothing
    fits, the shortest chain is returned, for the security check to refuse it by its figures.
    """
    shapes = [shape for shape in SHAPES if shape.scale_bits in scales_bits]
    allowed = [shape for shape in shapes if shape.modulus_bits(levels) <= MAXIMUM_MODULUS_BITS_128[ring_degree]]
    if not allowed:
        return min(shapes, key=lambda shape: shape.modulus_bits(levels))
    return min(
        allowed, key=lambda shape: shape.key_rows(levels) * SCALE_BIT_PRICE ** (SCALES_BITS[0] - shape.scale_bits)
    )


def levels_offered(ring_degree: int, scales_bits: tuple[int, ...] = SCALES_BITS) -> int:
    """Largest level that N offers at 128 bits with any shape of these scales; at most 0 where nothing fits."""
    bound = MAXIMUM_MODULUS_BITS_128[ring_degree]
    shapes = [shape for shape in SHAPES if shape.scale_bits in scales_bits]
    return max(0, *(int((bound - shape.modulus_bits(0)) // shape.scale_bits) for shape in shapes))


INSECURE_TEST_SHAPE = ChainShape(scale_bits=36, digit_size=2)


def make_parameters(
    ring_degree: int, levels: int, *, insecure_test: bool = False, shape: ChainShape | None = None
) -> Parameters:
    """A chain for N: the first prime, `levels` primes near the scale, special primes for the digits. `shape` forces a choice."""
    if shape is None:
        shape = INSECURE_TEST_SHAPE if insecure_test else cheapest_chain(ring_degree, levels)
    special: list[int] = []
    for bits in shape.special_prime_bits:
        special += primes_below(bits, ring_degree, 1, special)
    first = primes_below(shape.first_prime_bits, ring_degree, 1, special)
    return Parameters(
        ring_degree=ring_degree,
        primes=(*first, *primes_nearest(shape.scale_bits, ring_degree, levels, (*special, *first))),
        special_primes=tuple(special),
        digit_size=shape.digit_size,
        scale_bits=shape.scale_bits,
        insecure_test=insecure_test,
    )


def smallest_parameters(
    levels: int, slots: int, scales_bits: tuple[int, ...] = SCALES_BITS
) -> tuple[Parameters, list[str]]:
    """The smallest ring with room for `levels` and `slots`, and one line for each ring that was too small.

    Raises ParameterError, naming every ring's shortfall, when none fits.
    """
    refusals = []
    for ring_degree in RING_DEGREES:
        offered = levels_offered(ring_degree, scales_bits)
        if ring_degree // 2 < slots:
            refusals.append(f"N={ring_degree}: needs {slots} slots, N={ring_degree} offers {ring_degree // 2}")
        elif offered < levels:
            refusals.append(f"N={ring_degree}: needs {levels} levels, N={ring_degree} offers {offered}")
        else:
            return make_parameters(
                ring_degree, levels, shape=cheapest_chain(ring_degree, levels, scales_bits)
            ), refusals
    raise ParameterError("no ring fits: " + "; ".join(refusals))
