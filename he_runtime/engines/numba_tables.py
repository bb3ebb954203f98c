"""Constants of the numba engine at one level: what key switching and division multiply with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import anchor_for, centred
from he_runtime.kernels.halves import halves
from he_runtime.parameters import Parameters

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Conversion:
    """From some primes to others, as `convert_rows` wants it: weights [targets, 2, sources], moduli [targets, 3].

    halved [targets]: whether sums of halved weights are exact (`kernels.halves`).
    """

    weights: Array
    moduli: Array
    halved: NDArray[np.bool_]

    @property
    def whole(self) -> Array:
        """The weights [targets, sources], centred."""
        return self.weights[:, 0] + np.where(self.halved, self.moduli[:, 2], 0.0)[:, None] * self.weights[:, 1]


@dataclass(frozen=True)
class DivisionTables:
    """Dropping some primes, as `kernels.division` wants it.

    sources, tables: row of each dropped prime among the rows modulo QP of this level, and among all primes; factors [dropped];
    down: to the kept rows, from the dropped primes and the quotient; scale [kept rows].
    """

    sources: Integers
    tables: Integers
    factors: Array
    down: Conversion
    scale: Array


@dataclass(frozen=True)
class LevelTables:
    """One level. rows: each QP row of this level among all primes; digit_starts, gadget: see `kernels.key_switch`."""

    rows: Integers
    digit_starts: Integers
    gadget: Array
    conversion: tuple[Conversion, ...]
    """Of each digit, from its primes to all QP rows: Q_j/q_i modulo the target prime."""
    special: DivisionTables
    """Division by P of values that carry 1/P modulo Q."""
    rescale: DivisionTables | None
    """Division of a ciphertext by its last prime; None at level 0."""
    special_and_rescale: DivisionTables | None
    """Both at once, of values that carry 1/P modulo Q; None at level 0."""


def level_tables(parameters: Parameters, level: int) -> LevelTables:
    """The tables of one level."""
    n = parameters.ring_degree
    rows = [*range(level + 1), *range(parameters.maximum_level + 1, len(parameters.all_primes))]
    digits = parameters.digits(level)
    starts = np.cumsum([0, *(len(digit) for digit in digits)])
    gadget = np.zeros(level + 1)
    conversion = []
    for j, digit in enumerate(digits):
        product = math.prod(digit)
        for i, p in enumerate(digit):
            gadget[starts[j] + i] = centred(pow(product // p, -1, p) * pow(n, -1, p), p)
        targets = [parameters.all_primes[row] for row in rows]
        weights = [[centred(product // p, q) for p in digit] for q in targets]
        conversion.append(_conversion(weights, digit, targets))
    special = list(range(level + 1, len(rows)))
    return LevelTables(
        np.array(rows, np.int64),
        starts.astype(np.int64),
        gadget,
        tuple(conversion),
        _division(parameters, rows, special, level + 1),
        _division(parameters, rows, [level], level) if level else None,
        _division(parameters, rows, [*special, level], level) if level else None,
    )


def _division(parameters: Parameters, rows: list[int], sources: list[int], kept: int) -> DivisionTables:
    """`sources` among `rows` are dropped, the first `kept` rows stay. A prime of Q that is dropped carries 1/P, or P is 1."""
    n, special = parameters.ring_degree, set(parameters.special_primes)
    dropped = [parameters.all_primes[rows[source]] for source in sources]
    product, chain = math.prod(dropped), math.prod(set(dropped) - special)
    factors = [
        # (D/d)^-1/N; with D/d = P for a prime of the chain, which what carries 1/P has in it already.
        centred((pow(product // d, -1, d) if d in special else 1) * pow(n, -1, d), d)
        for d in dropped
    ]
    targets = parameters.primes[:kept]
    down = [[*(centred(-pow(d, -1, q), q) for d in dropped), 1] for q in targets]
    scale = np.array([centred(pow(chain, -1, q), q) for q in targets], np.float64)
    return DivisionTables(
        np.array(sources, np.int64),
        np.array([rows[source] for source in sources], np.int64),
        np.array(factors, np.float64),
        _conversion(down, [*dropped, len(dropped)], targets),
        scale,
    )


def _conversion(weights: Sequence[Sequence[int]], sources: Sequence[int], targets: Sequence[int]) -> Conversion:
    """weights: of each target those of the sources, centred; sources: what no value of each exceeds, such as its prime."""
    cut = [halves(of_target, sources, q) for of_target, q in zip(weights, targets, strict=True)]
    moduli = [(q, 1 / q, shift or anchor_for(sum(sources) * q / 2)) for q, (_, shift) in zip(targets, cut, strict=True)]
    return Conversion(
        np.array([words for words, _ in cut]), np.array(moduli, np.float64), np.array([shift > 0 for _, shift in cut])
    )
