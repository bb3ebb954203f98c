"""Key switching and division on whole residue matrices: the kernels put together, rows shared out to threads.

What the numba engine's operations have in common. Buffers are scratch: what `extend` returns is valid until its next call.
"""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.numba_tables import Conversion, DivisionTables, LevelTables, level_tables
from he_runtime.engines.packed_key import PackedKey
from he_runtime.engines.row_threads import RowThreads, Scratch
from he_runtime.errors import PlanError
from he_runtime.kernels import division, key_switch
from he_runtime.kernels.transform import TransformTables
from he_runtime.parameters import Parameters

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KeySwitcher:
    """Tables, threads and scratch memory of one parameter set."""

    parameters: Parameters
    transforms: TransformTables
    rows: RowThreads
    scratch: Scratch = field(default_factory=Scratch)
    _levels: dict[int, LevelTables] = field(default_factory=dict)

    def with_threads(self, threads: int) -> "KeySwitcher":
        """The same tables for another number of threads."""
        return replace(self, rows=RowThreads(threads))

    def level_tables(self, level: int) -> LevelTables:
        """Constants of one level, made when first asked for."""
        if level not in self._levels:
            self._levels[level] = level_tables(self.parameters, level)
        return self._levels[level]

    def extend(self, part: Array, place: int = 0) -> Array:
        """All digits of `part` [level+1, N] at all primes; valid until the next call for the same place."""
        level = part.shape[0] - 1
        tables, transforms = self.level_tables(level), self.transforms
        extended, coefficients = self._digit_buffers(level, place)
        self.rows.each(
            level + 1,
            lambda first, last: key_switch.to_coefficients(
                part, extended, coefficients, first, last, transforms.roots, transforms.tails, transforms.primes,
                tables.digit_starts, tables.gadget,
            ),
        )  # fmt: skip
        self._lift(extended, coefficients, tables)
        return extended

    def extend_divided(self, part: Array, level: int) -> Array:
        """All digits of `part` [QP rows, N] divided by P, at all primes; valid until the next call."""
        tables, transforms = self.level_tables(level), self.transforms
        extended, coefficients = self._digit_buffers(level)
        (remainder,) = self._remainders(self._dropped((part,), tables.special), tables.special)
        self.rows.each(
            level + 1,
            lambda first, last: key_switch.divided_to_coefficients(
                part, remainder, tables.special.scale, extended, coefficients, first, last, transforms.roots,
                transforms.tails, transforms.primes, tables.digit_starts, tables.gadget,
            ),
        )  # fmt: skip
        self._lift(extended, coefficients, tables)
        return extended

    def _digit_buffers(self, level: int, place: int = 0) -> tuple[Array, Array]:
        n, rows = self.parameters.ring_degree, len(self.level_tables(level).rows)
        extended = self.scratch.array(f"extended {place}", (self.parameters.digit_count(level), rows, n))
        return extended, self.scratch.array("coefficients", (level + 1, n))

    def _lift(self, extended: Array, coefficients: Array, tables: LevelTables) -> None:
        """Fill the rows of `extended` that are not a digit's own, from the digits' coefficients."""
        for digit, (start, stop) in enumerate(itertools.pairwise(tables.digit_starts)):
            conversion = tables.conversion[digit]
            self._convert(coefficients[start:stop], conversion, extended[digit], skip=(start, stop))
        transforms = self.transforms
        self.rows.each(
            len(tables.rows),
            lambda first, last: key_switch.transform_digits(
                extended, first, last, tables.rows, transforms.roots, transforms.tails, transforms.primes,
                tables.digit_starts,
            ),
        )  # fmt: skip

    def switch(
        self,
        extended: Array,
        key: PackedKey,
        addend0: Array,
        addend1: Array | None,
        permutation: NDArray[np.uint32],
        *,
        and_rescale: bool = False,
    ) -> Array:
        """Permuted (addends + digits times key), divided by P, or by P and the last prime: [2, rows, N]."""
        level, n = addend0.shape[0] - 1, self.parameters.ring_degree
        tables = self.level_tables(level)
        divide = _possible(tables.special_and_rescale if and_rescale else tables.special)
        # Rows of the key: those of q at its own level, then the special ones.
        key_rows = np.where(divide.sources > level, divide.sources + (key.level - level), divide.sources)
        roots, tails, primes = self.transforms.roots, self.transforms.tails, self.transforms.primes
        second, has_second = (addend0, False) if addend1 is None else (addend1, True)
        dropped = self.scratch.array("dropped", (2, len(divide.sources) + 1, n))
        out = np.empty((2, len(divide.scale), n))

        def drop(first: int, last: int) -> None:
            key_switch.dropped_products(
                extended, key.low, key.high, key_rows, addend0, second, has_second,
                divide.sources, divide.tables, divide.factors, first, last, roots, tails, primes, dropped,
            )  # fmt: skip

        def keep(first: int, last: int) -> None:
            key_switch.switched_rows(
                extended, key.low, key.high, addend0, second, has_second, permutation, first, last, roots, tails, primes,
                remainders, divide.scale, self.scratch.array("total", (3, n)), out,
            )  # fmt: skip

        self.rows.each(len(divide.sources), drop)
        remainders = self._remainders(dropped, divide)
        self.rows.each(len(divide.scale), keep)
        return out

    def divide(self, parts: tuple[Array, Array], divide: DivisionTables | None) -> Array:
        """Each part [rows, N] divided by the dropped primes: [2, kept rows, N]. PlanError where none is left to drop."""
        divide = _possible(divide)
        n, kept = self.parameters.ring_degree, len(divide.scale)
        roots, tails, primes = self.transforms.roots, self.transforms.tails, self.transforms.primes
        result = np.empty((2, kept, n))
        dropped = self._dropped(parts, divide)
        if len(divide.sources) == 1:
            only, down = np.ascontiguousarray(dropped[:, 0]), divide.down.whole[:, 0].copy()

            def rescale(first: int, last: int) -> None:
                row = self.scratch.array("row", (n,))
                division.rescaled_rows(
                    parts, only, down, divide.scale, first, last, roots, tails, primes, row, result
                )  # fmt: skip

            self.rows.each(kept, rescale)
            return result
        remainders = self._remainders(dropped, divide)

        def keep(first: int, last: int) -> None:
            division.divided_rows(parts, remainders, divide.scale, first, last, roots, tails, primes, result)

        self.rows.each(kept, keep)
        return result

    def _dropped(self, parts: tuple[Array, ...], divide: DivisionTables) -> Array:
        """The x_d of `kernels.division` of each part: [parts, dropped and one, N], the last row left alone."""
        roots, tails, primes = self.transforms.roots, self.transforms.tails, self.transforms.primes
        dropped = self.scratch.array("dropped", (len(parts), len(divide.sources) + 1, self.parameters.ring_degree))

        def drop(first: int, last: int) -> None:
            for index in range(first, last):
                half, d = divmod(index, len(divide.sources))
                division.dropped_rows(
                    parts[half],
                    divide.sources,
                    divide.tables,
                    divide.factors,
                    d,
                    d + 1,
                    roots,
                    tails,
                    primes,
                    dropped[half],
                )

        self.rows.each(len(parts) * len(divide.sources), drop)
        return dropped

    def _remainders(self, dropped: Array, divide: DivisionTables) -> Array:
        """What is to be transformed and added (see `kernels.division`): [parts, kept rows, N]. Fills dropped's last rows."""
        remainders = self.scratch.array("remainders", (len(dropped), len(divide.scale), self.parameters.ring_degree))
        for part, remainder in zip(dropped, remainders, strict=True):
            self._convert(part, divide.down, remainder, quotients_of=divide.tables)
        return remainders

    def _convert(
        self,
        sources: Array,
        conversion: Conversion,
        out: Array,
        skip: tuple[int, int] = (0, 0),
        quotients_of: NDArray[np.int64] | None = None,
    ) -> None:
        weights, moduli, halved = conversion.weights, conversion.moduli, conversion.halved

        def convert(first: int, last: int) -> None:
            if quotients_of is not None:
                division.quotients(sources, quotients_of, self.transforms.primes, first, last)
            division.convert_rows(sources, weights, moduli, halved, first, last, *skip, out)

        self.rows.each(-(-self.parameters.ring_degree // division.BLOCK), convert)


def _possible(divide: DivisionTables | None) -> DivisionTables:
    if divide is None:
        raise PlanError("a rescale at level 0: no prime is left to drop")
    return divide
