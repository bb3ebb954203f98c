"""SEAL as an engine, operation by operation: the independent reference of tests and benchmarks, never in the server.

It shares ciphertexts with the numba engine (same chain, same residues), and nothing else: keys, key switching, products and
encoding are SEAL's own. Of our special primes SEAL uses only the last, with digits of one prime.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines import composed
from he_runtime.engines.interface import scales_agree
from he_runtime.errors import KeyMissingError, PlanError
from he_runtime.kernels.transform import smallest_root
from he_runtime.parameters import Parameters
from he_runtime.program import conjugation_element, galois_element
from he_runtime.seal import SealClient, SealOperations, SecretKey


@dataclass(frozen=True)
class SealHandle:
    """A SEAL ciphertext or plaintext with the level and scale that it has."""

    handle: Any
    level: int
    scale: float
    zero: bool = False
    """A plaintext of zeros, which SEAL refuses to multiply with."""


@dataclass
class SealEngine:
    """Engine on SEAL. `steps`: the rotations to make Galois keys for; relinearisation keys are always made."""

    client: SealClient
    secret: SecretKey
    steps: Sequence[int] = ()
    _operations: SealOperations = field(init=False)

    def __post_init__(self) -> None:
        elements = sorted(
            {galois_element(step, self.parameters) for step in self.steps if step % self.parameters.slots}
        )
        self._elements = set(elements)
        elements.append(conjugation_element(self.parameters))
        self._operations = SealOperations(self.client, self.secret, elements)

    @property
    def parameters(self) -> Parameters:
        """The parameter set."""
        return self.client.parameters

    def level(self, ciphertext: SealHandle) -> int:
        """Rescales left."""
        return ciphertext.level

    def scale(self, ciphertext: SealHandle) -> float:
        """Scale of the encrypted values."""
        return ciphertext.scale

    def from_rows(self, rows: NDArray[np.uint64], scale: float) -> SealHandle:
        """A ciphertext from canonical residues uint64 [2, level+1, N]."""
        return SealHandle(self.client.to_seal(rows, scale), rows.shape[1] - 1, scale)

    def to_rows(self, ciphertext: SealHandle) -> NDArray[np.uint64]:
        """Canonical residues uint64 [2, level+1, N]."""
        return self.client.from_seal(ciphertext.handle)

    def encode(self, values: NDArray[Any], level: int, scale: float) -> SealHandle:
        """Encode real slots, repeated to fill the ciphertext."""
        if self.parameters.slots % len(values):
            raise PlanError(f"a plaintext of {len(values)} slots does not divide {self.parameters.slots}")
        full = np.tile(values, self.parameters.slots // len(values))
        return SealHandle(self._operations.encode(full, level, scale), level, scale, not values.any())

    def rotate(self, ciphertext: SealHandle, steps: Sequence[int]) -> list[SealHandle]:
        """Left rotations, one after the other."""
        results = []
        for step in steps:
            element = galois_element(step, self.parameters)
            if step % self.parameters.slots == 0:
                results.append(ciphertext)
            elif element not in self._elements:
                raise KeyMissingError(f"rotation by {step}: no key was made for it")
            else:
                rotated = self._operations.apply_galois(ciphertext.handle, element)
                results.append(SealHandle(rotated, ciphertext.level, ciphertext.scale))
        return results

    def weighted_sum(self, ciphertexts: Sequence[SealHandle], plaintexts: Sequence[SealHandle]) -> SealHandle:
        """Sum of products with plaintexts; no rescale. Products with zero are left out: SEAL calls them transparent."""
        scale = ciphertexts[0].scale * plaintexts[0].scale
        terms = []
        for ciphertext, plaintext in zip(ciphertexts, plaintexts, strict=True):
            self._same(ciphertexts[0].level, ciphertext.level, ciphertexts[0].scale, ciphertext.scale)
            self._same(ciphertext.level, plaintext.level, plaintexts[0].scale, plaintext.scale)
            if not plaintext.zero:
                terms.append(self._operations.multiply_plain(ciphertext.handle, plaintext.handle))
        if not terms:
            raise PlanError("every plaintext of the sum is zero; leave the sum out of the program")
        return SealHandle(self._operations.add_many(terms, scale), ciphertexts[0].level, scale)

    def encode_table(self, values: NDArray[Any], level: int, scale: float) -> composed.Table:
        """Slots [sums, steps, period], one by one."""
        return composed.encode_table(self, values, level, scale)

    def linear_transforms(
        self,
        ciphertexts: Sequence[SealHandle],
        tables: Sequence[Sequence[composed.Table]],
        baby_steps: Sequence[int],
        giant_step: int,
    ) -> list[SealHandle]:
        """Rotations, products and sums one after the other, then a rescale."""
        return composed.linear_transforms(self, ciphertexts, tables, baby_steps, giant_step)

    def product_sum(self, left: Sequence[SealHandle], right: Sequence[SealHandle]) -> SealHandle:
        """Sum of products, each relinearised by SEAL."""
        level, scale = left[0].level, left[0].scale * right[0].scale
        terms = []
        for a, b in zip(left, right, strict=True):
            self._same(level, a.level, scale, a.scale * b.scale)
            self._same(level, b.level, scale, a.scale * b.scale)
            terms.append(self._operations.multiply(a.handle, b.handle))
        return SealHandle(self._operations.add_many(terms, scale), level, scale)

    def multiply(self, left: Sequence[SealHandle], right: Sequence[SealHandle]) -> SealHandle:
        """A product sum, then a rescale."""
        product: SealHandle = composed.multiply(self, left, right)
        return product

    def rescale(self, ciphertext: SealHandle) -> SealHandle:
        """One level less."""
        if ciphertext.level < 1:
            raise PlanError("a rescale at level 0: no prime is left to drop")
        scale = ciphertext.scale / self.parameters.primes[ciphertext.level]
        return SealHandle(self._operations.rescale(ciphertext.handle, scale), ciphertext.level - 1, scale)

    def drop(self, ciphertext: SealHandle, level: int) -> SealHandle:
        """Fewer primes."""
        if not 0 <= level <= ciphertext.level:
            raise PlanError(f"cannot drop from level {ciphertext.level} to level {level}")
        return SealHandle(self._operations.drop(ciphertext.handle, level), level, ciphertext.scale)

    def add(self, left: SealHandle, right: SealHandle) -> SealHandle:
        """Sum of ciphertexts."""
        self._same(left.level, right.level, left.scale, right.scale)
        return SealHandle(self._operations.add_many([left.handle, right.handle], left.scale), left.level, left.scale)

    def conjugate(self, ciphertext: SealHandle) -> SealHandle:
        """Complex conjugate."""
        conjugated = self._operations.apply_galois(ciphertext.handle, conjugation_element(self.parameters))
        return SealHandle(conjugated, ciphertext.level, ciphertext.scale)

    def combine(self, left: SealHandle, right: SealHandle, power: int) -> SealHandle:
        """left + X^(power·N/2)·right. SEAL has no product with X^(N/2), so it is done on the residues, in Python's integers."""
        self._same(left.level, right.level, left.scale, right.scale)
        rows, half = self.to_rows(right).astype(object), self.parameters.slots
        for row, prime in enumerate(self.parameters.primes[: right.level + 1]):
            root = smallest_root(prime, self.parameters.ring_degree)
            unit = pow(root, half * power, prime)
            rows[:, row, :half] = rows[:, row, :half] * unit % prime
            rows[:, row, half:] = rows[:, row, half:] * pow(root, 3 * half * power, prime) % prime
        turned = self.from_rows(rows.astype(np.uint64), right.scale)
        return SealHandle(self._operations.add_many([left.handle, turned.handle], left.scale), left.level, left.scale)

    def at_scale(self, ciphertext: SealHandle, scale: float) -> SealHandle:
        """The same ciphertext, read at another scale."""
        return SealHandle(self._operations.add_many([ciphertext.handle], scale), ciphertext.level, scale)

    def add_plain(self, ciphertext: SealHandle, plaintext: SealHandle) -> SealHandle:
        """Sum of a ciphertext and a plaintext."""
        self._same(ciphertext.level, plaintext.level, ciphertext.scale, plaintext.scale)
        total = self._operations.add_plain(ciphertext.handle, plaintext.handle, ciphertext.scale)
        return SealHandle(total, ciphertext.level, ciphertext.scale)

    @staticmethod
    def _same(level: int, other_level: int, scale: float, other_scale: float) -> None:
        if level != other_level:
            raise PlanError(f"operands at levels {level} and {other_level}; drop the higher one first")
        if not scales_agree(scale, other_scale):
            raise PlanError(f"operands of scales {scale:.17g} and {other_scale:.17g} cannot be added")
