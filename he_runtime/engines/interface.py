"""What every engine can do: the operations that a program is made of.

A handle is the engine's own ciphertext or plaintext type. Every handle carries a level (rescales left) and a scale.
All engines act on slot vectors of length `slots`; `rotate` by s is a rotation to the left: out[i] = in[(i + s) mod slots].
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from he_runtime.parameters import Parameters

Ciphertext = TypeVar("Ciphertext")
Plaintext = TypeVar("Plaintext")


class Engine(Protocol[Ciphertext, Plaintext]):
    """One way to execute a program. Operations never change their arguments and may be called from several threads."""

    @property
    def parameters(self) -> Parameters:
        """The parameter set of every handle."""
        ...

    def level(self, ciphertext: Ciphertext) -> int:
        """Rescales left."""
        ...

    def scale(self, ciphertext: Ciphertext) -> float:
        """Scale of the encrypted values."""
        ...

    def encode(self, values: NDArray[Any], level: int, scale: float) -> Plaintext:
        """Encode real or complex slots. `values` may be shorter than `slots` if its length divides it: it is then repeated."""
        ...

    def rotate(self, ciphertext: Ciphertext, steps: Sequence[int]) -> list[Ciphertext]:
        """Rotations of one ciphertext by several steps, sharing one decomposition. Step 0 returns the ciphertext itself."""
        ...

    def weighted_sum(self, ciphertexts: Sequence[Ciphertext], plaintexts: Sequence[Plaintext]) -> Ciphertext:
        """Sum of ciphertexts[i]·plaintexts[i], all of one level and scale; the scales multiply; no rescale."""
        ...

    def encode_table(self, values: NDArray[Any], level: int, scale: float) -> Plaintext:
        """Encode what `linear_transforms` multiplies one ciphertext with: slots [sums, steps, period]."""
        ...

    def linear_transforms(
        self,
        ciphertexts: Sequence[Ciphertext],
        tables: Sequence[Sequence[Plaintext]],
        baby_steps: Sequence[int],
        giant_step: int,
    ) -> list[Ciphertext]:
        """Matrices of the same inputs by baby and giant steps (Halevi and Shoup 2014), rescaled: one level less.

        Output o is the sum over ciphertexts c, g and b of the rotation by g·giant_step of (c rotated by baby_steps[b]) times
        tables[o][c][g, b]. There are 2 to MOST_BABY_STEPS baby steps,
        the first of them 0; ciphertexts are of one level, at least 1, all products of an output of the same scale.
        """
        ...

    def product_sum(self, left: Sequence[Ciphertext], right: Sequence[Ciphertext]) -> Ciphertext:
        """Sum of left[i]·right[i], all of one level, relinearised once; the scales multiply; no rescale."""
        ...

    def multiply(self, left: Sequence[Ciphertext], right: Sequence[Ciphertext]) -> Ciphertext:
        """As `product_sum`, and rescaled: one level less."""
        ...

    def rescale(self, ciphertext: Ciphertext) -> Ciphertext:
        """Divide by the last prime of the chain: one level less, scale divided by that prime."""
        ...

    def drop(self, ciphertext: Ciphertext, level: int) -> Ciphertext:
        """Forget primes down to `level`; the scale stays."""
        ...

    def at_scale(self, ciphertext: Ciphertext, scale: float) -> Ciphertext:
        """The same ciphertext, its values read at another scale: they are divided by the ratio of the scales."""
        ...

    def add(self, left: Ciphertext, right: Ciphertext) -> Ciphertext:
        """Sum of two ciphertexts of the same level and scale (relative difference at most SCALE_TOLERANCE)."""
        ...

    def conjugate(self, ciphertext: Ciphertext) -> Ciphertext:
        """Complex conjugate of every slot."""
        ...

    def combine(self, left: Ciphertext, right: Ciphertext, power: int) -> Ciphertext:
        """left + X^(power·N/2)·right (power 0..3), of the same level and scale. Exact: no level, no noise.

        What X^(N/2) is in the slots, `quarter_turns` says.
        """
        ...

    def add_plain(self, ciphertext: Ciphertext, plaintext: Plaintext) -> Ciphertext:
        """Sum of a ciphertext and a plaintext of the same level and scale."""
        ...


MOST_BABY_STEPS = 32
"""So many products are summed before a reduction: what `kernels.weighing` allows."""

# Scales that differ by less than this add with an error far below the noise: 2**-36 of the value.
SCALE_TOLERANCE = 2.0**-36


def quarter_turns(slots: int, power: int = 1) -> NDArray[np.complex128]:
    """X^(power·N/2) in the slots: i^power in even ones, (-i)^power in odd ones, because slot j lies at root^(3^j)."""
    return np.resize(np.array([1j, -1j]) ** power, slots)


def scales_agree(left: float, right: float) -> bool:
    """Whether two scales may be added."""
    return abs(left - right) <= SCALE_TOLERANCE * max(abs(left), abs(right))
