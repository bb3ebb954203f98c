"""The evaluator that the server runs: CKKS on residues in plain numba. It sees public data only.

Operations are split by rows of residues over the engine's threads; kernels release the interpreter lock. One operation at a time.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines import composed
from he_runtime.engines.interface import scales_agree
from he_runtime.engines.key_switcher import KeySwitcher
from he_runtime.engines.linear_transforms import RotationKey, is_encoded, linear_transforms
from he_runtime.engines.packed_key import PackedKey, pack_key, zero_key
from he_runtime.engines.row_threads import RowThreads
from he_runtime.errors import KeyMissingError, PlanError
from he_runtime.kernels import products
from he_runtime.kernels.arithmetic import centred
from he_runtime.kernels.combination import combine_two
from he_runtime.kernels.encoding import coefficients, encoding_positions, to_residues
from he_runtime.kernels.seeds import expand_uniform
from he_runtime.kernels.transform import TransformTables, automorphism, make_tables
from he_runtime.parameters import Parameters
from he_runtime.program import RELINEARISATION, conjugation_element, galois_element

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NumbaCiphertext:
    """residues: float64 [2, level+1, N], transformed, SEAL's order, any representative of a few p."""

    residues: Array
    scale: float

    @property
    def level(self) -> int:
        """Rescales left."""
        return int(self.residues.shape[1]) - 1


@dataclass(frozen=True)
class NumbaPlaintext:
    """Encoded slots: a vector's words float64 [level+1, M], or a table's [level+1+special, sums, M, steps].

    Transformed; each word stands for a run of N/M entries (M = twice the period). A compact table's words are its polynomials'
    coefficients [sums, M, steps] instead, which every use transforms row by row.
    """

    words: Array
    level: int
    scale: float


@dataclass
class NumbaEngine:
    """Engine on encrypted data: load keys first.

    compact_tables: tables are kept as coefficients. They take a twentieth to a fortieth of the memory, one word where there was
    one a prime, and a transform at every use.
    """

    parameters: Parameters
    threads: int = 1
    compact_tables: bool = False
    _switcher: KeySwitcher = field(init=False)
    _keys: dict[int, PackedKey] = field(default_factory=dict)
    _permutations: dict[int, NDArray[np.uint32]] = field(default_factory=dict)
    _stacks: dict[tuple[int, ...], NDArray[np.uint32]] = field(default_factory=dict)
    _positions: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tables = make_tables(self.parameters.all_primes, self.parameters.ring_degree)
        self._switcher = KeySwitcher(self.parameters, tables, RowThreads(self.threads))
        self._permutations[RELINEARISATION] = np.arange(self.parameters.ring_degree, dtype=np.uint32)

    # --- keys ------------------------------------------------------------------------------------------------------

    def load_key(self, element: int, level: int, digits: Sequence[tuple[bytes, NDArray[np.uint64]]]) -> None:
        """Keep one evaluation key (element 0: relinearisation).

        Each digit: the seed of its `a` rows, and its b rows uint64 [level+1+special, N], canonical. The rows are conjugated by
        the inverse automorphism and those of q multiplied by 1/P once, here, so that no rotation has to.
        """
        if not 0 <= level <= self.parameters.maximum_level:
            raise PlanError(
                f"a key of level {level}: these parameters have levels 0 to {self.parameters.maximum_level}"
            )
        inverse = pow(element, -1, 2 * self.parameters.ring_degree) if element else RELINEARISATION
        tables, permutation = self._switcher.level_tables(level), self._permutation(inverse)
        self._keys[element] = pack_key(self.parameters, tables, level, digits, permutation, self._rows)
        self._permutation(element)

    def without_keys(self) -> "NumbaEngine":
        """An engine that shares this one's tables and has no keys yet: one engine for each client costs no set-up."""
        engine = object.__new__(NumbaEngine)
        engine.__dict__.update(self.__dict__)
        engine._keys = {}
        return engine

    def with_zero_keys(self, levels: Mapping[int, int]) -> "NumbaEngine":
        """An engine whose keys (Galois element -> level) are zeros and take the memory of real ones: for rehearsals."""
        engine = self.without_keys()
        for element, level in levels.items():
            engine._keys[element] = zero_key(self.parameters, self._switcher.level_tables(level), level)
        return engine

    def with_threads(self, threads: int) -> "NumbaEngine":
        """The same engine, keys and all, with another number of threads."""
        engine = object.__new__(NumbaEngine)
        engine.__dict__.update(self.__dict__)
        engine.threads, engine._switcher = threads, self._switcher.with_threads(threads)
        return engine

    def memory_bytes(self) -> int:
        """Bytes that the loaded keys take."""
        return sum(key.memory_bytes for key in self._keys.values())

    # --- conversions -----------------------------------------------------------------------------------------------

    def from_rows(self, rows: NDArray[np.uint64], scale: float) -> NumbaCiphertext:
        """A ciphertext from canonical residues uint64 [2, level+1, N]."""
        return NumbaCiphertext(rows.astype(np.float64), scale)

    def from_seeded(self, seed: bytes, rows: NDArray[np.uint64], scale: float) -> NumbaCiphertext:
        """A fresh ciphertext from its seed and the rows of its first part, uint64 [level+1, N]."""
        a_rows = expand_uniform(seed, self.parameters.primes[: len(rows)], self.parameters.ring_degree)
        return NumbaCiphertext(np.stack([rows, a_rows]).astype(np.float64), scale)

    def to_rows(self, ciphertext: NumbaCiphertext) -> NDArray[np.uint64]:
        """Canonical residues uint64 [2, level+1, N]."""
        primes = self._tables.primes[: ciphertext.level + 1, 0][None, :, None]
        rows = np.rint(ciphertext.residues - np.rint(ciphertext.residues / primes) * primes)
        return np.where(rows < 0, rows + primes, rows).astype(np.uint64)

    def to_coefficients(self, ciphertext: NumbaCiphertext) -> NDArray[np.uint64]:
        """Canonical coefficients uint64 [2, N] of a ciphertext at level 0, transformed back."""
        if ciphertext.level:
            raise PlanError(
                f"only a ciphertext at level 0 is sent as coefficients, not one at level {ciphertext.level}"
            )
        first = self.parameters.primes[0]
        rows = np.array(ciphertext.residues)
        for part in range(2):
            self._tables.inverse(rows[part, 0], 0, centred(pow(self.parameters.ring_degree, -1, first), first))
        return self.to_rows(NumbaCiphertext(rows, ciphertext.scale))[:, 0]

    # --- the engine interface --------------------------------------------------------------------------------------

    def level(self, ciphertext: NumbaCiphertext) -> int:
        """Rescales left."""
        return ciphertext.level

    def scale(self, ciphertext: NumbaCiphertext) -> float:
        """Scale of the encrypted values."""
        return ciphertext.scale

    def encode(self, values: NDArray[Any], level: int, scale: float) -> NumbaPlaintext:
        """Encode real or complex slots whose length divides the slots; kept compact."""
        if len(values) == 1 and np.iscomplexobj(values):
            values = np.resize(values, 2)  # no polynomial in X^(N/2) is i in every slot
        words = np.empty((level + 1, 2 * len(values)))
        self._encode(values, scale, np.arange(level + 1), words)
        return NumbaPlaintext(words, level, scale)

    def encode_table(self, values: NDArray[Any], level: int, scale: float) -> NumbaPlaintext:
        """Encode the slots [sums, steps, period] of one input and output of `linear_transforms`, modulo QP."""
        rows = self._switcher.level_tables(level).rows
        sums, steps, period = values.shape
        if period == 1 and np.iscomplexobj(values):
            raise PlanError("a table of one complex slot: no polynomial in X^(N/2) is i in every slot; repeat it twice")
        if self.is_compact(values.shape):
            polynomials = np.zeros((sums, 2 * period, steps))
            for giant, baby in np.ndindex(sums, steps):
                if values[giant, baby].any():
                    polynomials[giant, :, baby] = self._polynomial(values[giant, baby], scale)
            return NumbaPlaintext(polynomials, level, scale)
        words = np.zeros((len(rows), sums, 2 * period, steps))

        def encode(first: int, last: int) -> None:
            encoded = np.empty((len(rows), 2 * period))
            for index in range(first, last):
                giant, baby = divmod(index, steps)
                if values[giant, baby].any():
                    self._encode(values[giant, baby], scale, rows, encoded)
                    words[:, giant, :, baby] = encoded

        self._rows.each(sums * steps, encode)
        return NumbaPlaintext(words, level, scale)

    def is_compact(self, shape: tuple[int, ...]) -> bool:
        """Whether slots of this shape, [sums, steps, period] or a vector's, are kept as coefficients."""
        return self.compact_tables and len(shape) == 3 and 2 * shape[2] < self.parameters.ring_degree

    def rotate(self, ciphertext: NumbaCiphertext, steps: Sequence[int]) -> list[NumbaCiphertext]:
        """Left rotations sharing one decomposition."""
        slots = self.parameters.slots
        elements = {step: galois_element(step, self.parameters) for step in steps if step % slots}
        keys = {step: self._key(element, ciphertext.level, f"rotation by {step}") for step, element in elements.items()}
        results = {step: ciphertext for step in steps if step % slots == 0}
        if keys:
            extended = self._switcher.extend(ciphertext.residues[1])
            for step, key in keys.items():
                switched = self._switcher.switch(
                    extended, key, ciphertext.residues[0], None, self._permutation(elements[step])
                )
                results[step] = NumbaCiphertext(switched, ciphertext.scale)
        return [results[step] for step in steps]

    def conjugate(self, ciphertext: NumbaCiphertext) -> NumbaCiphertext:
        """Complex conjugate."""
        element = conjugation_element(self.parameters)
        key = self._key(element, ciphertext.level, "conjugation")
        extended = self._switcher.extend(ciphertext.residues[1])
        switched = self._switcher.switch(extended, key, ciphertext.residues[0], None, self._permutation(element))
        return NumbaCiphertext(switched, ciphertext.scale)

    def linear_transforms(
        self,
        ciphertexts: Sequence[NumbaCiphertext],
        tables: Sequence[Sequence[NumbaPlaintext]],
        baby_steps: Sequence[int],
        giant_step: int,
    ) -> list[NumbaCiphertext]:
        """Rescaled sums over inputs, giant and baby steps; see the interface.

        Everything stays modulo QP until one division by P and the last prime at the end (see `kernels.matrix`).
        """
        level = ciphertexts[0].level
        scales = [ciphertexts[0].scale * inputs[0].scale for inputs in tables]
        for scale, inputs in zip(scales, tables, strict=True):
            for ciphertext, table in zip(ciphertexts, inputs, strict=True):
                self._same(level, ciphertext.level, scale, ciphertext.scale * table.scale)
                self._same(level, table.level, scale, scale)
        composed.check_steps(level, baby_steps)
        rows = len(self._switcher.level_tables(level).rows)
        for inputs in tables:
            for table in inputs:
                polynomials = (inputs[0].words.shape[-3], table.words.shape[-2], len(baby_steps))
                shape = (rows, *polynomials) if is_encoded(table.words) else polynomials
                if table.words.shape != shape:
                    raise PlanError(f"a table of shape {table.words.shape} where {shape} was expected")
        babies = [self._rotation_key(step, level) for step in baby_steps[1:]]
        steps = tuple(baby_steps[1:])
        if steps not in self._stacks:
            self._stacks[steps] = np.stack([baby.permutation for baby in babies])
        words = [[table.words for table in inputs] for inputs in tables]
        needed = any(table.shape[-3] > 1 for inputs in words for table in inputs)
        giant = self._rotation_key(giant_step, level) if needed else None
        residues = [ciphertext.residues for ciphertext in ciphertexts]
        results = linear_transforms(self._switcher, residues, words, babies, self._stacks[steps], giant)
        prime = self.parameters.primes[level]
        return [NumbaCiphertext(out, scale / prime) for out, scale in zip(results, scales, strict=True)]

    def weighted_sum(
        self, ciphertexts: Sequence[NumbaCiphertext], plaintexts: Sequence[NumbaPlaintext]
    ) -> NumbaCiphertext:
        """Sum of products with plaintexts; no rescale."""
        first, weight = ciphertexts[0], plaintexts[0]
        for ciphertext, plaintext in zip(ciphertexts, plaintexts, strict=True):
            self._same(first.level, ciphertext.level, first.scale, ciphertext.scale)
            self._same(first.level, plaintext.level, weight.scale, plaintext.scale)
        terms = [(c.residues, w.words) for c, w in zip(ciphertexts, plaintexts, strict=True)]
        (alone, alone_words), *rest = terms
        rest.sort(key=lambda term: term[1].shape[1])
        groups = [list(group) for _, group in itertools.groupby(rest, lambda term: term[1].shape[1])]
        eights = [group[i : i + 8] for group in groups for i in range(0, len(group) - 7, 8)]
        singles = [term for group in groups for term in group[len(group) // 8 * 8 :]]
        total, primes = np.empty(first.residues.shape), self._tables.primes

        def multiply(begin: int, end: int) -> None:
            products.plain_product((alone[0], alone[1]), alone_words, total, begin, end, primes)
            for part in range(2):
                for eight in eights:
                    parts, words = tuple(x[part] for x, _ in eight), tuple(w for _, w in eight)
                    products.add_eight_plain_products(parts, words, total[part], begin, end, primes)
                for residues, word in singles:
                    products.add_plain_product(residues[part], word, total[part], begin, end, primes)

        self._rows.each(first.level + 1, multiply)
        return NumbaCiphertext(total, first.scale * weight.scale)

    def product_sum(self, left: Sequence[NumbaCiphertext], right: Sequence[NumbaCiphertext]) -> NumbaCiphertext:
        """Sum of products, relinearised once; no rescale."""
        total, scale = self._tensor_sum(left, right)
        key = self._key(RELINEARISATION, left[0].level, "relinearisation")
        extended = self._switcher.extend(total[2])
        switched = self._switcher.switch(extended, key, total[0], total[1], self._permutations[RELINEARISATION])
        return NumbaCiphertext(switched, scale)

    def multiply(self, left: Sequence[NumbaCiphertext], right: Sequence[NumbaCiphertext]) -> NumbaCiphertext:
        """Sum of products, relinearised and rescaled in one division."""
        level = left[0].level
        if level < 1:
            raise PlanError("a product at level 0: no prime is left to drop")
        total, scale = self._tensor_sum(left, right)
        key = self._key(RELINEARISATION, level, "relinearisation")
        extended = self._switcher.extend(total[2])
        switched = self._switcher.switch(
            extended, key, total[0], total[1], self._permutations[RELINEARISATION], and_rescale=True
        )
        return NumbaCiphertext(switched, scale / self.parameters.primes[level])

    def rescale(self, ciphertext: NumbaCiphertext) -> NumbaCiphertext:
        """One level less."""
        level = ciphertext.level
        parts = (ciphertext.residues[0], ciphertext.residues[1])
        out = self._switcher.divide(parts, self._switcher.level_tables(level).rescale)
        return NumbaCiphertext(out, ciphertext.scale / self.parameters.primes[level])

    def drop(self, ciphertext: NumbaCiphertext, level: int) -> NumbaCiphertext:
        """Fewer primes; a view, nothing is copied."""
        if not 0 <= level <= ciphertext.level:
            raise PlanError(f"cannot drop from level {ciphertext.level} to level {level}")
        return NumbaCiphertext(ciphertext.residues[:, : level + 1], ciphertext.scale)

    def add(self, left: NumbaCiphertext, right: NumbaCiphertext) -> NumbaCiphertext:
        """Sum of ciphertexts."""
        self._same(left.level, right.level, left.scale, right.scale)
        out = np.empty(left.residues.shape)
        a, b = left.residues, right.residues
        self._each_part(left.level + 1, lambda i, *rows: products.add(a[i], b[i], out[i], *rows, self._tables.primes))
        return NumbaCiphertext(out, left.scale)

    def combine(self, left: NumbaCiphertext, right: NumbaCiphertext, power: int) -> NumbaCiphertext:
        """left + X^(power·N/2)·right."""
        self._same(left.level, right.level, left.scale, right.scale)
        out = np.empty(left.residues.shape)
        a, b, tables = left.residues, right.residues, self._tables
        self._each_part(
            left.level + 1, lambda i, *rows: combine_two(a[i], b[i], power, out[i], *rows, tables.roots, tables.primes)
        )
        return NumbaCiphertext(out, left.scale)

    def at_scale(self, ciphertext: NumbaCiphertext, scale: float) -> NumbaCiphertext:
        """The same residues, read at another scale."""
        return NumbaCiphertext(ciphertext.residues, scale)

    def add_plain(self, ciphertext: NumbaCiphertext, plaintext: NumbaPlaintext) -> NumbaCiphertext:
        """Sum of a ciphertext and a plaintext."""
        self._same(ciphertext.level, plaintext.level, ciphertext.scale, plaintext.scale)
        out = np.empty(ciphertext.residues.shape)
        out[1] = ciphertext.residues[1]
        part = ciphertext.residues[0]
        self._rows.each(
            ciphertext.level + 1,
            lambda first, last: products.add_plain(part, plaintext.words, out[0], first, last, self._tables.primes),
        )
        return NumbaCiphertext(out, ciphertext.scale)

    # --- pieces ----------------------------------------------------------------------------------------------------

    def _tensor_sum(self, left: Sequence[NumbaCiphertext], right: Sequence[NumbaCiphertext]) -> tuple[Array, float]:
        """Sum of left[i]·right[i] as three parts [3, level+1, N], and its scale."""
        level, scale = left[0].level, left[0].scale * right[0].scale
        for a, b in zip(left, right, strict=True):
            self._same(level, a.level, scale, a.scale * b.scale)
            self._same(level, b.level, scale, a.scale * b.scale)
        out = np.empty((3, level + 1, self.parameters.ring_degree))
        primes = self._tables.primes

        def multiply(first: int, last: int) -> None:
            out[:, first:last] = 0.0
            for index in range(0, len(left), 2):
                pair = [(a.residues, b.residues) for a, b in zip(left, right, strict=True)][index : index + 2]
                for part, halves in ((0, ((0, 0),)), (1, ((0, 1), (1, 0))), (2, ((1, 1),))):
                    terms = [x[i] for a, b in pair for h, k in halves for x, i in ((a, h), (b, k))]
                    while terms:
                        if len(terms) >= 4:
                            products.add_two_products(*terms[:4], out[part], first, last, primes)
                        else:
                            products.add_product(*terms[:2], out[part], first, last, primes)
                        terms = terms[4:]

        self._rows.each(level + 1, multiply)
        return out, scale

    def _encode(self, values: NDArray[Any], scale: float, rows: NDArray[np.int64], words: Array) -> None:
        """words [rows, 2·period] of one vector."""
        polynomial = self._polynomial(values, scale)
        to_residues(polynomial, self._tables.roots, self._tables.tails, self._tables.primes, rows, words)

    def _polynomial(self, values: NDArray[Any], scale: float) -> Array:
        """Coefficients [2·period] of one vector, exact integers."""
        period = len(values)
        if self.parameters.slots % period:
            raise PlanError(f"a plaintext of {period} slots does not divide {self.parameters.slots}")
        if period not in self._positions:
            self._positions[period] = encoding_positions(period)
        polynomial = coefficients(values, scale, self._positions[period])
        largest = float(np.abs(polynomial).max())
        if not largest < 2.0**52:
            raise PlanError(f"encoded coefficients reach {largest:.3g}; above 2^52 they are not exact: lower the scale")
        return polynomial

    def _each_part(self, rows: int, task: Callable[[int, int, int], None]) -> None:
        def both(first: int, last: int) -> None:
            task(0, first, last)
            task(1, first, last)

        self._rows.each(rows, both)

    def _key(self, element: int, level: int, what: str) -> PackedKey:
        key = self._keys.get(element)
        if key is None:
            raise KeyMissingError(f"{what} at level {level}: there is no key for it; upload the keys of this program")
        if key.level < level:
            raise KeyMissingError(f"{what} at level {level}: its key reaches level {key.level} only")
        return key

    def _rotation_key(self, step: int, level: int) -> RotationKey:
        element = galois_element(step, self.parameters)
        return RotationKey(self._key(element, level, f"rotation by {step}"), self._permutation(element))

    def _permutation(self, element: int) -> NDArray[np.uint32]:
        if element not in self._permutations:
            self._permutations[element] = automorphism(element, self.parameters.ring_degree)
        return self._permutations[element]

    @property
    def _rows(self) -> RowThreads:
        return self._switcher.rows

    @property
    def _tables(self) -> TransformTables:
        return self._switcher.transforms

    @staticmethod
    def _same(level: int, other_level: int, scale: float, other_scale: float) -> None:
        if level != other_level:
            raise PlanError(f"operands at levels {level} and {other_level}; drop the higher one first")
        if not scales_agree(scale, other_scale):
            raise PlanError(f"operands of scales {scale:.17g} and {other_scale:.17g} cannot be added")

    def warm_up(self, on_compile: Callable[[str], None] | None = None) -> None:
        """Compile every kernel on tiny data, so that the first query does not wait for it. Compiled code is cached on disk."""
        if on_compile is not None:
            on_compile(
                "compiling numba kernels; the first start on a machine takes about a minute, later ones a second"
            )
        n, level = self.parameters.ring_degree, 1
        rows = level + 1 + len(self.parameters.special_primes)
        digits = [(bytes(64), np.zeros((rows, n), np.uint64))] * self.parameters.digit_count(level)
        engine = self.without_keys()
        elements = [galois_element(step, self.parameters) for step in (1, 2)]
        for element in (RELINEARISATION, *elements):
            engine.load_key(element, level, digits)
        zero = engine.from_rows(np.zeros((2, level + 1, n), np.uint64), self.parameters.scale)
        engine.combine(zero, zero, 1)
        engine.rotate(zero, [1])
        engine.rescale(engine.product_sum([zero] * 3, [zero] * 3))
        engine.multiply([zero], [zero])
        plain = engine.encode(np.ones(2), level, self.parameters.scale)
        engine.add(engine.weighted_sum([zero] * 10, [plain] * 10), engine.weighted_sum([zero], [plain]))
        engine.add_plain(zero, plain)
        engine.drop(zero, 0)
        table = engine.encode_table(np.ones((2, 2, 2)), level, self.parameters.scale)
        engine.linear_transforms([zero], [[table]], (0, 1), 2)
