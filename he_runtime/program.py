"""A program: the operations on ciphertexts, each with its level and scale, planned before anything is encrypted.

Pure Python and numpy; no crypto. `ProgramBuilder` appends operations, works out the level and scale of every value, aligns
operands, and refuses what real CKKS would compute wrongly. Values are numbered in the order in which they are made.
"""

import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.interface import scales_agree
from he_runtime.errors import PlanError
from he_runtime.parameters import Parameters

RELINEARISATION = 0
"""Galois element that stands for the relinearisation key."""


def conjugation_element(parameters: Parameters) -> int:
    """The Galois element 2N - 1 of complex conjugation."""
    return 2 * parameters.ring_degree - 1


@dataclass(frozen=True)
class Value:
    """One ciphertext of the program."""

    identity: int
    level: int
    scale: float


@dataclass(frozen=True)
class Constant:
    """Plaintext slots, real or complex, to be encoded at this level and scale.

    values: [period], repeated to fill the ciphertext; or, for one input and output of linear transforms, [sums, steps, period].
    """

    values: NDArray[np.float64] | NDArray[np.complex128]
    level: int
    scale: float

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the values, their kind and shape, made once: a deep model's take gigabytes."""
        found = hashlib.sha256(f"{self.values.dtype.str} {self.values.shape}\n".encode())
        found.update(np.ascontiguousarray(self.values).data)
        return found.digest()


@dataclass(frozen=True)
class Operation:
    """One engine call. `kind` is its name in the Engine interface; `stage` says which part of the model it belongs to."""

    kind: str
    stage: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    level: int = 0
    """Level at which the operation works (that of its operands)."""
    target_level: int = 0
    """Level of the results."""
    power: int = 0
    """Of X^(N/2), in `combine`."""
    giant_step: int = 0
    """In `linear_transforms`, whose `steps` are the baby steps."""
    sums: tuple[int, ...] = ()
    """In `linear_transforms`, for each output: giant steps, the first of them none."""

    @property
    def rotations(self) -> int:
        """Rotations by other than zero that the operation makes."""
        if self.kind == "linear_transforms":
            return (len(self.steps) - 1) * len(self.inputs) + sum(self.sums) - len(self.sums)
        return len(self.steps) + (self.kind == "conjugate")

    @property
    def ciphertext_products(self) -> int:
        """Products of ciphertexts, relinearised once."""
        return len(self.inputs) // 2 if self.kind in ("product_sum", "multiply") else 0

    @property
    def plaintext_products(self) -> int:
        """Products with plaintexts."""
        if self.kind == "linear_transforms":
            return len(self.steps) * len(self.inputs) * sum(self.sums)
        return len(self.constants) if self.kind == "weighted_sum" else 0


@dataclass(frozen=True)
class Program:
    """Operations in an order that respects their dependencies."""

    parameters: Parameters
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    operations: tuple[Operation, ...]
    constants: tuple[Constant, ...]

    @property
    def keys(self) -> dict[int, int]:
        """Galois element (0: relinearisation) -> the highest level it is needed at."""
        needed: dict[int, int] = {}
        for operation in self.operations:
            for element in key_elements(operation, self.parameters):
                needed[element] = max(needed.get(element, 0), operation.level)
        return needed

    def last_use(self) -> dict[int, int]:
        """Value -> number of operations that read it, so that an executor can free it after the last."""
        uses: Counter[int] = Counter()
        for operation in self.operations:
            uses.update(set(operation.inputs))
        return dict(uses)

    def counts(self) -> dict[str, Counter[str]]:
        """Stage -> operation kind -> how many (each rotation and each product counted)."""
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for operation in self.operations:
            table[operation.stage][operation.kind] += max(1, operation.rotations, operation.ciphertext_products)
            table[operation.stage]["relinearise"] += operation.ciphertext_products > 0
        return dict(table)


def galois_element(step: int, parameters: Parameters) -> int:
    """The Galois element 3^step mod 2N whose automorphism rotates slots to the left by `step`."""
    return pow(3, step % parameters.slots, 2 * parameters.ring_degree)


def key_elements(operation: Operation, parameters: Parameters) -> Iterable[int]:
    """The evaluation keys that one operation uses."""
    if operation.ciphertext_products:
        return (RELINEARISATION,)
    if operation.kind == "conjugate":
        return (conjugation_element(parameters),)
    steps = (*operation.steps, operation.giant_step) if max(operation.sums, default=0) > 1 else operation.steps
    return tuple(galois_element(step, parameters) for step in steps if step % parameters.slots)


@dataclass
class ProgramBuilder:
    """Appends operations. Every method returns new values; operands are dropped to a common level where they differ."""

    parameters: Parameters
    stage: str = ""
    _inputs: dict[str, Value] = field(default_factory=dict)
    _outputs: dict[str, Value] = field(default_factory=dict)
    _operations: list[Operation] = field(default_factory=list)
    _constants: list[Constant] = field(default_factory=list)
    _values: int = 0
    _dropped: dict[tuple[int, int], Value] = field(default_factory=dict)
    _rotated: dict[int, dict[int, Value]] = field(default_factory=dict)
    _known_constants: dict[tuple[bytes, int, float], int] = field(default_factory=dict)

    def input(self, name: str, level: int) -> Value:
        """A ciphertext that the client sends, at the standard scale."""
        value = self._value(level, self.parameters.scale)
        self._inputs[name] = value
        return value

    def output(self, name: str, value: Value) -> None:
        """Name a result, dropped to level 0 so that the answer is as short as can be."""
        self._outputs[name] = self.drop(value, 0)

    def rotate(self, value: Value, steps: Sequence[int]) -> list[Value]:
        """Left rotations by several steps, sharing one decomposition; step 0 costs nothing, nor does what was rotated before."""
        slots = self.parameters.slots
        rotated = self._rotated.setdefault(value.identity, {0: value})
        missing = tuple(dict.fromkeys(step % slots for step in steps if step % slots not in rotated))
        if missing:
            outputs = [self._value(value.level, value.scale) for _ in missing]
            self._append("rotate", [value], outputs, steps=missing)
            rotated.update(zip(missing, outputs, strict=True))
        return [rotated[step % slots] for step in steps]

    def weighted_sum(
        self, values: Sequence[Value], vectors: Sequence[NDArray[np.float64]], target_scale: float
    ) -> Value:
        """Sum of values[i]·vectors[i] for plaintext vectors, not yet rescaled.

        The plaintext scale is chosen so that the rescale to come ends exactly at `target_scale`: scales never drift.
        """
        values = self._aligned(values)
        level, scale = values[0].level, values[0].scale
        if level < 1:
            raise PlanError(f"{self.stage}: a product needs a level and none is left; give the program more levels")
        plain_scale = target_scale * self.parameters.primes[level] / scale
        if plain_scale < 2.0**20:
            raise PlanError(f"{self.stage}: a plaintext scale of {plain_scale:.3g} would lose the weights")
        constants = tuple(self._constant(vector, level, plain_scale) for vector in vectors)
        result = self._value(level, scale * plain_scale)
        self._append("weighted_sum", values, [result], constants=constants)
        return result

    def at_scale(self, value: Value, target_scale: float) -> Value:
        """The same numbers at exactly that scale, by a product with one. 1 level."""
        return self.rescale(self.weighted_sum([value], [np.ones(1)], target_scale))

    def linear_transforms(
        self,
        values: Sequence[Value],
        tables: Sequence[Sequence[NDArray[Any]]],
        baby_steps: Sequence[int],
        giant_step: int,
        target_scales: Sequence[float],
    ) -> list[Value]:
        """Matrices of the same inputs by baby and giant steps, rescaled to exactly the scale wanted of each: one level.

        tables: for each output one [sums, steps, period] for each input.
        """
        values = self._aligned(values, check_scales=False)
        level = values[0].level
        if level < 1:
            raise PlanError(f"{self.stage}: a product needs a level and none is left; give the program more levels")
        product_scales = [scale * self.parameters.primes[level] for scale in target_scales]
        if min(product_scales) / max(value.scale for value in values) < 2.0**20:
            raise PlanError(f"{self.stage}: the scale of a plaintext would lose the weights")
        constants, sums = [], []
        for output, product_scale in zip(tables, product_scales, strict=True):
            used = [giant for giant in range(len(output[0])) if any(table[giant].any() for table in output)]
            if not used:
                raise PlanError(f"{self.stage}: a matrix is zero")
            sums.append(used[-1] + 1)
            for value, table in zip(values, output, strict=True):
                constants.append(self._constant(table[: sums[-1]], level, product_scale / value.scale))
        results = [self._value(level - 1, scale) for scale in target_scales]
        self._append(
            "linear_transforms",
            values,
            results,
            constants=tuple(constants),
            steps=tuple(baby_steps),
            giant_step=giant_step,
            sums=tuple(sums),
        )
        return results

    def product_sum(self, left: Sequence[Value], right: Sequence[Value]) -> Value:
        """Sum of left[i]·right[i], relinearised once, not yet rescaled."""
        operands, scale = self._factors(left, right)
        result = self._value(operands[0].level, scale)
        self._append("product_sum", operands, [result])
        return result

    def rescale(self, value: Value) -> Value:
        """Divide by the last prime: one level."""
        if value.level < 1:
            raise PlanError(f"{self.stage}: a rescale needs a level and none is left; give the program more levels")
        result = self._value(value.level - 1, value.scale / self.parameters.primes[value.level])
        self._append("rescale", [value], [result])
        return result

    def multiply(self, left: Sequence[Value], right: Sequence[Value]) -> Value:
        """Rescaled sum of products: one level."""
        operands, scale = self._factors(left, right)
        level = operands[0].level
        if level < 1:
            raise PlanError(f"{self.stage}: a rescale needs a level and none is left; give the program more levels")
        result = self._value(level - 1, scale / self.parameters.primes[level])
        self._append("multiply", operands, [result])
        return result

    def drop(self, value: Value, level: int) -> Value:
        """The same value at a lower level."""
        if level > value.level:
            raise PlanError(f"{self.stage}: a value at level {value.level} cannot be raised to level {level}")
        if level == value.level:
            return value
        key = (value.identity, level)
        if key not in self._dropped:
            result = self._value(level, value.scale)
            self._append("drop", [value], [result])
            self._dropped[key] = result
        return self._dropped[key]

    def add(self, values: Sequence[Value]) -> Value:
        """Sum of values of one scale, at the lowest of their levels."""
        total, *rest = self._aligned(values)
        for value in rest:
            result = self._value(total.level, total.scale)
            self._append("add", [total, value], [result])
            total = result
        return total

    def conjugate(self, value: Value) -> Value:
        """Complex conjugate of every slot. No level."""
        result = self._value(value.level, value.scale)
        self._append("conjugate", [value], [result])
        return result

    def combine(self, left: Value, right: Value, power: int) -> Value:
        """left + X^(power·N/2)·right, at the lower of their levels (see `interface.quarter_turns`)."""
        left, right = self._aligned([left, right])
        result = self._value(left.level, left.scale)
        self._append("combine", [left, right], [result], power=power)
        return result

    def parts(self, value: Value) -> tuple[Value, Value]:
        """Of a + X^(N/2)·b, a and b real: both.

        x + conj(x) is 2a; rather than halve it, its scale is said to be twice as large. So is that of 2b.
        """
        mirrored = self.conjugate(value)
        real = self.combine(value, mirrored, 0)
        # x - conj(x) = 2·X^(N/2)·b, and X^(N/2) is its own inverse but for the sign.
        difference = self.combine(mirrored, value, 2)
        zero = self.combine(difference, difference, 2)
        return self._at_twice_the_scale(real), self._at_twice_the_scale(self.combine(zero, difference, 1))

    def real_part(self, value: Value) -> Value:
        """The real part, at twice the scale."""
        return self._at_twice_the_scale(self.combine(value, self.conjugate(value), 0))

    def _at_twice_the_scale(self, value: Value) -> Value:
        result = self._value(value.level, 2 * value.scale)
        self._append("reinterpret", [value], [result])
        return result

    def add_plain(self, value: Value, vector: NDArray[Any]) -> Value:
        """Sum with a plaintext vector; free when it is zero."""
        if not vector.any():
            return value
        constant = self._constant(vector, value.level, value.scale)
        result = self._value(value.level, value.scale)
        self._append("add_plain", [value], [result], constants=(constant,))
        return result

    def build(self) -> Program:
        """The finished program, without the operations whose results nobody reads."""
        needed = {value.identity for value in self._outputs.values()}
        kept = []
        for operation in reversed(self._operations):
            if needed.intersection(operation.outputs):
                needed.update(operation.inputs)
                kept.append(operation)
        return Program(
            self.parameters, dict(self._inputs), dict(self._outputs), tuple(reversed(kept)), tuple(self._constants)
        )

    def _factors(self, left: Sequence[Value], right: Sequence[Value]) -> tuple[list[Value], float]:
        """left and right at one level, one after the other, and the scale of their products."""
        operands = self._aligned([*left, *right], check_scales=False)
        scales = [a.scale * b.scale for a, b in zip(operands[: len(left)], operands[len(left) :], strict=True)]
        if not all(scales_agree(scale, scales[0]) for scale in scales):
            raise PlanError(f"{self.stage}: products of different scales cannot be added")
        return operands, scales[0]

    def _value(self, level: int, scale: float) -> Value:
        self._values += 1
        return Value(self._values - 1, level, scale)

    def _constant(self, vector: NDArray[np.float64], level: int, scale: float) -> int:
        if self.parameters.slots % vector.shape[-1]:
            raise PlanError(
                f"{self.stage}: a plaintext of {vector.shape[-1]} slots does not divide {self.parameters.slots}"
            )
        vector = np.asarray(vector, np.complex128 if np.iscomplexobj(vector) else np.float64)
        if vector.shape == (1,) and np.iscomplexobj(vector):
            vector = np.resize(vector, 2)  # no polynomial in X^(N/2) is i in every slot
        constant = Constant(vector, level, scale)
        key = (constant.digest, level, scale)
        if key not in self._known_constants:
            self._known_constants[key] = len(self._constants)
            self._constants.append(constant)
        return self._known_constants[key]

    def _aligned(self, values: Sequence[Value], *, check_scales: bool = True) -> list[Value]:
        level = min(value.level for value in values)
        if check_scales and not all(scales_agree(value.scale, values[0].scale) for value in values):
            raise PlanError(f"{self.stage}: values of scales {sorted({v.scale for v in values})} cannot be added")
        return [self.drop(value, level) for value in values]

    def _append(
        self,
        kind: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        constants: tuple[int, ...] = (),
        steps: tuple[int, ...] = (),
        power: int = 0,
        giant_step: int = 0,
        sums: tuple[int, ...] = (),
    ) -> None:
        self._operations.append(
            Operation(
                kind,
                self.stage,
                tuple(value.identity for value in inputs),
                tuple(value.identity for value in outputs),
                constants,
                steps,
                inputs[0].level,
                outputs[0].level,
                power,
                giant_step,
                sums,
            )
        )
