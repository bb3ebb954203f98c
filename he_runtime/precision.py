"""How many bits of every intermediate value are right: an engine's decrypted values against the plain simulator's, by stage.

Bits are absolute, -log2 of the error, as Lattigo counts them: an error of 2^-20 is 20 bits whatever the value; relative ones are
log2(largest_value) more. All of it is statistics on plaintexts, so it needs the secret key and is for its owner alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.program import Program, Value

MAXIMUM_BITS = 53.0
"""What an error of zero counts as: no float64 of size one knows more."""


@dataclass(frozen=True)
class Bits:
    """Of one error in every slot: the statistics of its bits, not the bits of its statistics."""

    minimum: float
    mean: float
    median: float
    maximum: float
    deviation: float

    @classmethod
    def of(cls, errors: NDArray[np.float64]) -> "Bits":
        """errors: any shape, any sign."""
        with np.errstate(divide="ignore"):
            bits = np.minimum(-np.log2(np.abs(errors)), MAXIMUM_BITS)
        return cls(*(float(f(bits)) for f in (np.min, np.mean, np.median, np.max, np.std)))


@dataclass(frozen=True)
class Precision:
    """Of some values: bits of the real part, of the imaginary part, and of the distance in the complex plane."""

    slots: int
    real: Bits
    imaginary: Bits
    modulus: Bits
    largest_value: float
    largest_error: float
    root_mean_square_error: float


def precision(measured: NDArray[Any], expected: NDArray[Any]) -> Precision:
    """Compare slots of one shape, real or complex. ValueError for other shapes, none at all, or what is not finite."""
    if measured.shape != expected.shape or measured.size == 0:
        raise ValueError(f"values of shape {measured.shape} cannot be compared with {expected.shape}; give both alike")
    error = np.asarray(measured, np.complex128) - np.asarray(expected, np.complex128)
    if not np.isfinite(error).all():
        raise ValueError("a value is not finite: the result is no decryption of anything")
    distance = np.abs(error)
    return Precision(
        slots=error.size,
        real=Bits.of(error.real),
        imaginary=Bits.of(error.imag),
        modulus=Bits.of(distance),
        largest_value=float(np.abs(expected).max()),
        largest_error=float(distance.max()),
        root_mean_square_error=float(np.sqrt(np.mean(distance**2))),
    )


@dataclass(frozen=True)
class StageResult:
    """A value that one stage of a program makes and another reads."""

    stage: str
    level: int
    output: str
    """Its name among the outputs of `with_stage_results`."""


def stage_results(program: Program) -> list[StageResult]:
    """Every value that leaves its stage, in the order of the program; the program's outputs are among them."""
    made = {output: operation for operation in program.operations for output in operation.outputs}
    leaving = {value.identity for value in program.outputs.values()}
    for operation in program.operations:
        leaving.update(i for i in operation.inputs if i in made and made[i].stage != operation.stage)
    return [
        StageResult(operation.stage, operation.target_level, f"{operation.stage}/{identity}")
        for identity, operation in made.items()
        if identity in leaving
    ]


def with_stage_results(program: Program) -> Program:
    """The same program, which also gives what leaves its stages as outputs. Levels are right; scales are those of the handles."""
    outputs = {
        result.output: Value(int(result.output.rpartition("/")[2]), result.level, float("nan"))
        for result in stage_results(program)
    }
    return replace(program, outputs=outputs)


def precision_by_stage(
    results: Iterable[StageResult], measured: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> dict[str, Precision]:
    """Stage -> precision of everything that leaves it; slots by the names that `stage_results` gave."""
    return _grouped([(result.stage, result.output) for result in results], measured, expected)


def precision_by_layer(
    results: Iterable[StageResult], measured: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> dict[str, Precision]:
    """Layer -> precision of everything that leaves its stages. A stage is called "layer: what it does"."""
    return _grouped([(result.stage.partition(":")[0], result.output) for result in results], measured, expected)


def _grouped(
    named: list[tuple[str, str]], measured: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> dict[str, Precision]:
    groups: dict[str, list[str]] = {}
    for group, output in named:
        groups.setdefault(group, []).append(output)
    return {
        group: precision(
            np.concatenate([measured[output] for output in outputs]),
            np.concatenate([expected[output] for output in outputs]),
        )
        for group, outputs in groups.items()
    }
