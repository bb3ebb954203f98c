"""The plain simulator: slots in float64, with the exact levels and scales of the real thing.

It raises where real CKKS would go silently wrong: a value that wraps around the modulus, operands of different scales or
levels, a rescale without a level, a rotation without its key. Optionally it adds noise of the size that CKKS has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines import composed
from he_runtime.engines.interface import quarter_turns, scales_agree
from he_runtime.errors import KeyMissingError, PlanError, RangeError
from he_runtime.parameters import Parameters
from he_runtime.program import RELINEARISATION, conjugation_element, galois_element


@dataclass(frozen=True)
class PlainCiphertext:
    """What a ciphertext would decrypt to: slots [N/2], real or complex, with its level and scale."""

    slots: NDArray[Any]
    level: int
    scale: float


@dataclass(frozen=True)
class PlainPlaintext:
    """An encoded vector, rounded as its scale rounds it; [period] float64."""

    values: NDArray[Any]
    level: int
    scale: float


@dataclass
class PlainEngine:
    """Engine on unencrypted slots.

    keys: Galois element (0: relinearisation) -> level of the key; None allows every rotation.
    noise: whether to add noise of the standard deviation that CKKS has; `seed` makes it repeatable.
    """

    parameters: Parameters
    keys: Mapping[int, int] | None = None
    noise: bool = False
    seed: int = 0
    largest_value: float = 0.0
    """Largest absolute slot seen in any result."""
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def level(self, ciphertext: PlainCiphertext) -> int:
        """Rescales left."""
        return ciphertext.level

    def scale(self, ciphertext: PlainCiphertext) -> float:
        """Scale of the values."""
        return ciphertext.scale

    def encrypt(self, slots: NDArray[Any], level: int, scale: float) -> PlainCiphertext:
        """What the client's encryption would give. Noise: a fresh symmetric encryption's error has deviation 3.2."""
        return self._checked(slots, level, scale, noise=3.2)

    def encode(self, values: NDArray[Any], level: int, scale: float) -> PlainPlaintext:
        """Round as encoding does: coefficients to integers, of which [period] slots have twice as many."""
        if self.parameters.slots % len(values):
            raise PlanError(f"a plaintext of {len(values)} slots does not divide {self.parameters.slots}")
        if self.noise:
            deviation = math.sqrt(2 * len(values) / 12) / scale
            values = values + self._random.normal(scale=deviation, size=len(values))
        return PlainPlaintext(np.asarray(values), level, scale)

    def rotate(self, ciphertext: PlainCiphertext, steps: Sequence[int]) -> list[PlainCiphertext]:
        """Left rotations."""
        results = []
        for step in steps:
            if step % self.parameters.slots == 0:
                results.append(ciphertext)
                continue
            self._need_key(galois_element(step, self.parameters), ciphertext.level, f"rotation by {step}")
            rotated = np.roll(ciphertext.slots, -step)
            results.append(self._checked(rotated, ciphertext.level, ciphertext.scale, noise=self._switch_noise()))
        return results

    def weighted_sum(
        self, ciphertexts: Sequence[PlainCiphertext], plaintexts: Sequence[PlainPlaintext]
    ) -> PlainCiphertext:
        """Sum of products with plaintexts; no rescale."""
        first, level = ciphertexts[0], ciphertexts[0].level
        total = np.zeros(self.parameters.slots, np.complex128)
        for ciphertext, plaintext in zip(ciphertexts, plaintexts, strict=True):
            self._same(first.level, ciphertext.level, first.scale, ciphertext.scale)
            self._same(level, plaintext.level, plaintexts[0].scale, plaintext.scale)
            period = len(plaintext.values)
            total += (ciphertext.slots.reshape(-1, period) * plaintext.values).reshape(-1)
        return self._checked(total, level, first.scale * plaintexts[0].scale)

    def encode_table(self, values: NDArray[Any], level: int, scale: float) -> composed.Table:
        """Slots [sums, steps, period], one by one."""
        return composed.encode_table(self, values, level, scale)

    def linear_transforms(
        self,
        ciphertexts: Sequence[PlainCiphertext],
        tables: Sequence[Sequence[composed.Table]],
        baby_steps: Sequence[int],
        giant_step: int,
    ) -> list[PlainCiphertext]:
        """Rotations, products and sums one after the other, then a rescale."""
        return composed.linear_transforms(self, ciphertexts, tables, baby_steps, giant_step)

    def product_sum(self, left: Sequence[PlainCiphertext], right: Sequence[PlainCiphertext]) -> PlainCiphertext:
        """Sum of products, relinearised once; no rescale."""
        level, scale = left[0].level, left[0].scale * right[0].scale
        self._need_key(RELINEARISATION, level, "relinearisation")
        total = np.zeros(self.parameters.slots, np.complex128)
        for a, b in zip(left, right, strict=True):
            self._same(level, a.level, scale, a.scale * b.scale)
            self._same(level, b.level, scale, a.scale * b.scale)
            total += a.slots * b.slots
        return self._checked(total, level, scale, noise=self._switch_noise())

    def multiply(self, left: Sequence[PlainCiphertext], right: Sequence[PlainCiphertext]) -> PlainCiphertext:
        """A product sum, then a rescale."""
        product: PlainCiphertext = composed.multiply(self, left, right)
        return product

    def rescale(self, ciphertext: PlainCiphertext) -> PlainCiphertext:
        """One level less."""
        if ciphertext.level < 1:
            raise PlanError("a rescale at level 0: no prime is left to drop")
        scale = ciphertext.scale / self.parameters.primes[ciphertext.level]
        # Rounding error of c0 + c1·s: sqrt((1 + 2N/3)/12) for a ternary secret of N coefficients.
        noise = math.sqrt((1 + 2 * self.parameters.ring_degree / 3) / 12)
        return self._checked(ciphertext.slots, ciphertext.level - 1, scale, noise=noise)

    def drop(self, ciphertext: PlainCiphertext, level: int) -> PlainCiphertext:
        """Fewer primes, the same value; it must still fit them."""
        if not 0 <= level <= ciphertext.level:
            raise PlanError(f"cannot drop from level {ciphertext.level} to level {level}")
        return self._checked(ciphertext.slots, level, ciphertext.scale)

    def add(self, left: PlainCiphertext, right: PlainCiphertext) -> PlainCiphertext:
        """Sum of ciphertexts."""
        self._same(left.level, right.level, left.scale, right.scale)
        return self._checked(left.slots + right.slots, left.level, left.scale)

    def conjugate(self, ciphertext: PlainCiphertext) -> PlainCiphertext:
        """Complex conjugate."""
        self._need_key(conjugation_element(self.parameters), ciphertext.level, "conjugation")
        return self._checked(np.conj(ciphertext.slots), ciphertext.level, ciphertext.scale, noise=self._switch_noise())

    def combine(self, left: PlainCiphertext, right: PlainCiphertext, power: int) -> PlainCiphertext:
        """left + X^(power·N/2)·right."""
        self._same(left.level, right.level, left.scale, right.scale)
        return self._checked(left.slots + quarter_turns(len(right.slots), power) * right.slots, left.level, left.scale)

    def at_scale(self, ciphertext: PlainCiphertext, scale: float) -> PlainCiphertext:
        """The values divided by the ratio of the scales."""
        return PlainCiphertext(ciphertext.slots * (ciphertext.scale / scale), ciphertext.level, scale)

    def add_plain(self, ciphertext: PlainCiphertext, plaintext: PlainPlaintext) -> PlainCiphertext:
        """Sum of a ciphertext and a plaintext."""
        self._same(ciphertext.level, plaintext.level, ciphertext.scale, plaintext.scale)
        period = len(plaintext.values)
        total = (ciphertext.slots.reshape(-1, period) + plaintext.values).reshape(-1)
        return self._checked(total, ciphertext.level, ciphertext.scale)

    def _switch_noise(self) -> float:
        """Deviation of key switching: dominated by the rounding of the division by P."""
        return math.sqrt((1 + 2 * self.parameters.ring_degree / 3) / 12) * 2

    def _checked(self, slots: NDArray[Any], level: int, scale: float, noise: float = 0.0) -> PlainCiphertext:
        """The result, refused when its coefficients would wrap around q_0...q_level."""
        if self.noise and noise:
            deviation = noise * math.sqrt(self.parameters.ring_degree) / scale
            slots = slots + self._random.normal(scale=deviation, size=len(slots))
        largest = float(np.abs(slots).max())
        bits = sum(math.log2(prime) for prime in self.parameters.primes[: level + 1])
        if not math.isfinite(largest) or (largest and math.log2(largest) + math.log2(scale) >= bits - 1):
            raise RangeError(
                f"a value of {largest:.3g} at scale 2^{math.log2(scale):.1f} wraps around the {bits:.0f}-bit modulus of "
                f"level {level}; real CKKS would decrypt it to something else without a word"
            )
        self.largest_value = max(self.largest_value, largest)
        return PlainCiphertext(slots, level, scale)

    def _need_key(self, element: int, level: int, what: str) -> None:
        if self.keys is not None and self.keys.get(element, -1) < level:
            have = f"its key reaches level {self.keys[element]}" if element in self.keys else "there is no key for it"
            raise KeyMissingError(f"{what} at level {level}: {have}")

    @staticmethod
    def _same(level: int, other_level: int, scale: float, other_scale: float) -> None:
        if level != other_level:
            raise PlanError(f"operands at levels {level} and {other_level}; drop the higher one first")
        if not scales_agree(scale, other_scale):
            raise PlanError(f"operands of scales {scale:.17g} and {other_scale:.17g} cannot be added")
