"""The evaluator that the server runs: CKKS on residues in plain numba. It sees public data only.

Kernels release the interpreter lock, so several threads may work on one engine at once; each has scratch memory of its own.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.interface import scales_agree
from he_runtime.errors import KeyMissingError, PlanError
from he_runtime.kernels import key_switch, products
from he_runtime.kernels.arithmetic import centred
from he_runtime.kernels.combination import combine_two
from he_runtime.kernels.encoding import coefficients, encoding_positions, to_residues
from he_runtime.kernels.matrix import weighted_rows
from he_runtime.kernels.seeds import expand_uniform
from he_runtime.kernels.transform import TransformTables, automorphism, inverse, make_tables
from he_runtime.parameters import Parameters
from he_runtime.program import RELINEARISATION, conjugation_element, galois_element

Array = NDArray[np.float64]
FUSED = 4  # plaintext products summed at once


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
    """words: float64 [level+1, M], transformed; each word stands for a run of N/M entries (M = twice the period)."""

    words: Array
    scale: float

    @property
    def level(self) -> int:
        """Level that it was encoded at."""
        return int(self.words.shape[0]) - 1


@dataclass(frozen=True)
class _Key:
    """One evaluation key in memory, 6 bytes a word: low int32 and high int16 [rows, digits, 2, N]."""

    level: int
    low: NDArray[np.int32]
    high: NDArray[np.int16]


@dataclass(frozen=True)
class _LevelTables:
    """Constants of key switching and rescaling at one level; see the kernels for their meaning."""

    rows: NDArray[np.int64]
    digit_starts: NDArray[np.int64]
    gadget: Array
    conversion: Array
    conversion_ratios: Array
    rescale: Array
    rescale_ratios: Array


@dataclass
class NumbaEngine:
    """Engine on encrypted data. Load keys first; then every operation is thread-safe."""

    parameters: Parameters
    _tables: TransformTables = field(init=False)
    _special_factors: Array = field(init=False)
    _down: Array = field(init=False)
    _down_ratios: Array = field(init=False)
    _keys: dict[int, _Key] = field(default_factory=dict)
    _levels: dict[int, _LevelTables] = field(default_factory=dict)
    _permutations: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    _positions: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    _scratch: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        parameters = self.parameters
        self._tables = make_tables(parameters.all_primes, parameters.ring_degree)
        special = parameters.special_primes
        product = math.prod(special)
        factors = [centred(pow(product // p, -1, p) * pow(parameters.ring_degree, -1, p), p) for p in special]
        self._special_factors = np.array([[w, w / p] for w, p in zip(factors, special, strict=True)], np.float64)
        down = [[centred(-pow(product, -1, q) * (product // p), q) for p in special] for q in parameters.primes]
        self._down = np.array(down, np.float64)
        self._down_ratios = self._down / np.array(parameters.primes, np.float64)[:, None]
        self._permutations[RELINEARISATION] = np.arange(parameters.ring_degree)

    # --- keys ------------------------------------------------------------------------------------------------------

    def load_key(self, element: int, level: int, digits: Sequence[tuple[bytes, NDArray[np.uint64]]]) -> None:
        """Keep one evaluation key (element 0: relinearisation).

        Each digit: the seed of its `a` rows, and its b rows uint64 [level+1+special, N], canonical. The rows are conjugated by
        the inverse automorphism and those of q multiplied by 1/P once, here, so that no rotation has to.
        """
        parameters = self.parameters
        if len(digits) != parameters.digit_count(level) or not 0 <= level <= parameters.maximum_level:
            raise PlanError(f"a key of level {level} has {parameters.digit_count(level)} digits, not {len(digits)}")
        kept = [*range(level + 1), *range(parameters.maximum_level + 1, len(parameters.all_primes))]
        n = parameters.ring_degree
        low = np.empty((len(kept), len(digits), 2, n), np.int32)
        high = np.empty((len(kept), len(digits), 2, n), np.int16)
        inverse_element = pow(element, -1, 2 * n) if element else 0
        permutation = self._permutation(inverse_element)
        product = math.prod(parameters.special_primes)
        for j, (seed, b_rows) in enumerate(digits):
            if b_rows.shape != (len(kept), n):
                raise PlanError(f"a digit of a key of level {level} has shape {(len(kept), n)}, not {b_rows.shape}")
            a_rows = expand_uniform(seed, parameters.all_primes, n)
            for row, prime_row in enumerate(kept):
                p = parameters.all_primes[prime_row]
                factor = centred(pow(product, -1, p), p) if row <= level else 1
                for half, values in ((0, b_rows[row]), (1, a_rows[prime_row])):
                    key_switch.pack_key_row(
                        values, permutation, float(factor), float(p), low[row, j, half], high[row, j, half]
                    )
        self._permutation(element)
        self._keys[element] = _Key(level, low, high)

    def without_keys(self) -> "NumbaEngine":
        """An engine that shares this one's tables and has no keys yet: one engine for each client costs no set-up."""
        engine = object.__new__(NumbaEngine)
        engine.__dict__.update(self.__dict__)
        engine._keys = {}
        return engine

    def memory_bytes(self) -> int:
        """Bytes that the loaded keys take."""
        return sum(key.low.nbytes + key.high.nbytes for key in self._keys.values())

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
        (p, inverse_p), n = self._tables.primes[0], self.parameters.ring_degree
        factor = centred(pow(n, -1, int(p)), int(p))
        rows = np.array(ciphertext.residues)
        for part in range(2):
            inverse(rows[part, 0], self._tables.roots[0, 2], self._tables.roots[0, 3], p, inverse_p, factor, factor / p)
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
        period = len(values)
        if self.parameters.slots % period:
            raise PlanError(f"a plaintext of {period} slots does not divide {self.parameters.slots}")
        if period == 1 and np.iscomplexobj(values):
            return self.encode(np.resize(values, 2), level, scale)  # no polynomial in X^(N/2) is i in every slot
        if period not in self._positions:
            self._positions[period] = encoding_positions(period)
        polynomial = coefficients(values, scale, self._positions[period])
        largest = float(np.abs(polynomial).max())
        if not largest < 2.0**52:
            raise PlanError(f"encoded coefficients reach {largest:.3g}; above 2^52 they are not exact: lower the scale")
        words = np.empty((level + 1, 2 * period))
        to_residues(polynomial, self._tables.roots, self._tables.primes, words)
        return NumbaPlaintext(words, scale)

    def rotate(self, ciphertext: NumbaCiphertext, steps: Sequence[int]) -> list[NumbaCiphertext]:
        """Left rotations sharing one decomposition."""
        slots = self.parameters.slots
        elements = {step: galois_element(step, self.parameters) for step in steps if step % slots}
        keys = {step: self._key(element, ciphertext.level, f"rotation by {step}") for step, element in elements.items()}
        results = {step: ciphertext for step in steps if step % slots == 0}
        if keys:
            extended = self._extend(ciphertext.residues[1])
            for step, key in keys.items():
                permutation = self._permutation(elements[step])
                switched = self._switch(extended, key, ciphertext.residues[0], None, permutation)
                results[step] = NumbaCiphertext(switched, ciphertext.scale)
        return [results[step] for step in steps]

    def weighted_sum(
        self, ciphertexts: Sequence[NumbaCiphertext], plaintexts: Sequence[NumbaPlaintext]
    ) -> NumbaCiphertext:
        """Sum of products with plaintexts; no rescale."""
        first, weight = ciphertexts[0], plaintexts[0]
        for ciphertext, plaintext in zip(ciphertexts, plaintexts, strict=True):
            self._same(first.level, ciphertext.level, first.scale, ciphertext.scale)
            self._same(first.level, plaintext.level, weight.scale, plaintext.scale)
        total = np.zeros_like(first.residues)
        words: dict[int, list[tuple[Array, Array]]] = {}
        for ciphertext, plaintext in zip(ciphertexts, plaintexts, strict=True):
            words.setdefault(plaintext.words.shape[1], []).append((ciphertext.residues, plaintext.words))
        for terms in words.values():
            fused = len(terms) - len(terms) % FUSED
            for start in range(0, fused, FUSED):
                (c0, w0), (c1, w1), (c2, w2), (c3, w3) = terms[start : start + FUSED]
                products.add_plain_products(c0, c1, c2, c3, w0, w1, w2, w3, total, self._tables.primes)
            for residues, word in terms[fused:]:
                products.add_plain_product(residues, word, total, self._tables.primes)
        return NumbaCiphertext(total, first.scale * weight.scale)

    def weighted_sums(
        self, ciphertexts: Sequence[NumbaCiphertext], plaintexts: Sequence[Sequence[NumbaPlaintext | None]]
    ) -> list[NumbaCiphertext]:
        """Several weighted sums of the same ciphertexts, which are read once for all of them."""
        level, terms, sums = ciphertexts[0].level, len(ciphertexts), len(plaintexts)
        every = [(c, w) for row in plaintexts for c, w in zip(ciphertexts, row, strict=True) if w is not None]
        scale, length = every[0][0].scale * every[0][1].scale, every[0][1].words.shape[1]
        for ciphertext, plaintext in every:
            self._same(level, ciphertext.level, scale, ciphertext.scale * plaintext.scale)
            self._same(level, plaintext.level, scale, scale)
            if plaintext.words.shape[1] != length:
                raise PlanError("the plaintexts of one matrix have different periods")
        padded = -(-terms // 4) * 4
        n = self.parameters.ring_degree
        out = [np.empty((2, level + 1, n)) for _ in range(sums)]
        x, result = self._buffer("terms", (padded, n)), self._buffer("sums", (sums, n))
        words = self._buffer("words", (sums, padded, length))
        x[:], words[:] = 0.0, 0.0
        for t in range(level + 1):
            p, inverse_p = self._tables.primes[t]
            for g, weights in enumerate(plaintexts):
                for b, weight in enumerate(weights):
                    if weight is not None:
                        words[g, b] = weight.words[t]
            for part in range(2):
                for b, ciphertext in enumerate(ciphertexts):
                    x[b] = ciphertext.residues[part, t]
                weighted_rows(x, words, p, inverse_p, result)
                for residues, row in zip(out, result, strict=True):
                    residues[part, t] = row
        return [NumbaCiphertext(residues, scale) for residues in out]

    def product_sum(self, left: Sequence[NumbaCiphertext], right: Sequence[NumbaCiphertext]) -> NumbaCiphertext:
        """Sum of products, relinearised once; no rescale."""
        level, scale = left[0].level, left[0].scale * right[0].scale
        key = self._key(RELINEARISATION, level, "relinearisation")
        total = np.zeros((3, level + 1, self.parameters.ring_degree))
        for a, b in zip(left, right, strict=True):
            self._same(level, a.level, scale, a.scale * b.scale)
            self._same(level, b.level, scale, a.scale * b.scale)
            products.add_tensor_product(a.residues, b.residues, total, self._tables.primes)
        extended = self._extend(total[2])
        switched = self._switch(extended, key, total[0], total[1], self._permutations[RELINEARISATION])
        return NumbaCiphertext(switched, scale)

    def rescale(self, ciphertext: NumbaCiphertext) -> NumbaCiphertext:
        """One level less."""
        level = ciphertext.level
        if level < 1:
            raise PlanError("a rescale at level 0: no prime is left to drop")
        tables = self._level_tables(level)
        out = np.empty((2, level, self.parameters.ring_degree))
        scratch = self._buffer("rescale", (2, self.parameters.ring_degree))
        products.rescale(
            ciphertext.residues,
            out,
            self._tables.roots,
            self._tables.primes,
            tables.rescale,
            tables.rescale_ratios,
            scratch[0],
            scratch[1],
        )
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
        products.add(left.residues, right.residues, out, self._tables.primes)
        return NumbaCiphertext(out, left.scale)

    def conjugate(self, ciphertext: NumbaCiphertext) -> NumbaCiphertext:
        """Complex conjugate."""
        element = conjugation_element(self.parameters)
        key = self._key(element, ciphertext.level, "conjugation")
        extended = self._extend(ciphertext.residues[1])
        switched = self._switch(extended, key, ciphertext.residues[0], None, self._permutation(element))
        return NumbaCiphertext(switched, ciphertext.scale)

    def combine(self, left: NumbaCiphertext, right: NumbaCiphertext, power: int) -> NumbaCiphertext:
        """left + X^(power·N/2)·right."""
        self._same(left.level, right.level, left.scale, right.scale)
        out = np.empty(left.residues.shape)
        combine_two(left.residues, right.residues, power, out, self._tables.roots, self._tables.primes)
        return NumbaCiphertext(out, left.scale)

    def at_scale(self, ciphertext: NumbaCiphertext, scale: float) -> NumbaCiphertext:
        """The same residues, read at another scale."""
        return NumbaCiphertext(ciphertext.residues, scale)

    def add_plain(self, ciphertext: NumbaCiphertext, plaintext: NumbaPlaintext) -> NumbaCiphertext:
        """Sum of a ciphertext and a plaintext."""
        self._same(ciphertext.level, plaintext.level, ciphertext.scale, plaintext.scale)
        out = np.empty(ciphertext.residues.shape)
        products.add_plain(ciphertext.residues, plaintext.words, out, self._tables.primes)
        return NumbaCiphertext(out, ciphertext.scale)

    # --- pieces ----------------------------------------------------------------------------------------------------

    def _extend(self, part: Array) -> Array:
        """All digits of `part` [level+1, N] at all primes; valid until this thread's next key switch."""
        level = part.shape[0] - 1
        tables = self._level_tables(level)
        n = self.parameters.ring_degree
        extended = self._buffer("extended", (self.parameters.digit_count(level), len(tables.rows), n))
        key_switch.extend(
            part,
            self._buffer("coefficients", (level + 1, n)),
            extended,
            tables.rows,
            self._tables.roots,
            self._tables.primes,
            tables.digit_starts,
            tables.gadget,
            tables.conversion,
            tables.conversion_ratios,
        )
        return extended

    def _switch(
        self, extended: Array, key: _Key, addend0: Array, addend1: Array | None, permutation: NDArray[np.int64]
    ) -> Array:
        n = self.parameters.ring_degree
        level = addend0.shape[0] - 1
        specials = len(self.parameters.special_primes)
        scratch = self._buffer("switch", (2 * specials + 5, n))
        out = np.empty((2, level + 1, n))
        key_switch.switch(
            extended,
            key.low,
            key.high,
            key.level + 1,
            addend0,
            addend0 if addend1 is None else addend1,
            addend1 is not None,
            permutation,
            self._level_tables(level).rows,
            self._tables.roots,
            self._tables.primes,
            self._special_factors,
            self._down,
            self._down_ratios,
            scratch[: 2 * specials].reshape(2, specials, n),
            scratch[2 * specials : 2 * specials + 2],
            scratch[2 * specials + 2 : 2 * specials + 4],
            scratch[2 * specials + 4],
            out,
        )
        return out

    def _key(self, element: int, level: int, what: str) -> _Key:
        key = self._keys.get(element)
        if key is None:
            raise KeyMissingError(f"{what} at level {level}: there is no key for it; upload the keys of this program")
        if key.level < level:
            raise KeyMissingError(f"{what} at level {level}: its key reaches level {key.level} only")
        return key

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Array:
        """Scratch of this thread: at least as large as the largest ever asked for under this name."""
        size = math.prod(shape)
        buffer: Array | None = getattr(self._scratch, name, None)
        if buffer is None or buffer.size < size:
            buffer = np.empty(size)
            setattr(self._scratch, name, buffer)
        return buffer[:size].reshape(shape)

    def _permutation(self, element: int) -> NDArray[np.int64]:
        if element not in self._permutations:
            self._permutations[element] = automorphism(element, self.parameters.ring_degree)
        return self._permutations[element]

    def _level_tables(self, level: int) -> _LevelTables:
        if level not in self._levels:
            self._levels[level] = _make_level_tables(self.parameters, level)
        return self._levels[level]

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
        engine.load_key(RELINEARISATION, level, digits)
        zero = engine.from_rows(np.zeros((2, level + 1, n), np.uint64), self.parameters.scale)
        # A dropped ciphertext is a view with gaps, for which numba compiles again.
        view = engine.drop(engine.from_rows(np.zeros((2, level + 2, n), np.uint64), self.parameters.scale), level)
        engine.add(view, view)
        for left, right in ((view, view), (zero, view), (view, zero), (zero, zero)):
            engine.combine(left, right, 1)
        engine.rescale(engine.product_sum([view], [view]))
        plain = engine.encode(np.ones(2), level, self.parameters.scale)
        engine.rescale(engine.product_sum([zero], [zero]))
        engine.add(
            engine.weighted_sum([zero] * (FUSED + 1), [plain] * (FUSED + 1)), engine.weighted_sum([zero], [plain])
        )
        engine.weighted_sums([zero, view], [[plain, None]])
        engine.add_plain(zero, plain)
        engine.drop(zero, 0)


def _make_level_tables(parameters: Parameters, level: int) -> _LevelTables:
    n = parameters.ring_degree
    q = parameters.primes[: level + 1]
    rows = [*range(level + 1), *range(parameters.maximum_level + 1, len(parameters.all_primes))]
    digits = parameters.digits(level)
    starts = np.cumsum([0, *(len(digit) for digit in digits)])
    gadget = np.zeros((level + 1, 2))
    conversion = np.zeros((len(rows), len(digits), parameters.digit_size))
    for j, digit in enumerate(digits):
        product = math.prod(digit)
        for i, p in enumerate(digit):
            w = centred(pow(product // p, -1, p) * pow(n, -1, p), p)
            gadget[starts[j] + i] = (w, w / p)
            for r, row in enumerate(rows):
                conversion[r, j, i] = centred(product // p, parameters.all_primes[row])
    targets = np.array([parameters.all_primes[row] for row in rows], np.float64)
    last = q[level]
    rescale = np.zeros((level + 1, 2))
    for t, p in enumerate(q[:level]):
        rescale[t] = (centred(-pow(last, -1, p), p), centred(pow(last, -1, p), p))
    rescale[level, 0] = centred(pow(n, -1, last), last)
    return _LevelTables(
        np.array(rows, np.int64),
        starts.astype(np.int64),
        gadget,
        conversion,
        conversion / targets[:, None, None],
        rescale,
        rescale / np.array(q, np.float64)[:, None],
    )
