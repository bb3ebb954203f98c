"""The compound operations of the engine interface, one step after another: what the numba engine does at once.

The reference engines use these, so that their results depend on nothing but the simple operations.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from he_runtime.engines.interface import MOST_BABY_STEPS, Engine
from he_runtime.errors import PlanError

Table = list[list[Any | None]]
"""Plaintexts [sums][steps], None for zero."""


def encode_table(engine: Engine[Any, Any], values: NDArray[Any], level: int, scale: float) -> Table:
    """Encode the slots [sums, steps, period] of a linear transform one by one."""
    return [[engine.encode(slots, level, scale) if slots.any() else None for slots in row] for row in values]


def multiply(engine: Engine[Any, Any], left: Sequence[Any], right: Sequence[Any]) -> Any:
    """A product sum, then a rescale."""
    if engine.level(left[0]) < 1:
        raise PlanError("a product at level 0: no prime is left to drop")
    return engine.rescale(engine.product_sum(left, right))


def check_steps(level: int, baby_steps: Sequence[int]) -> None:
    """PlanError where no engine computes such linear transforms."""
    if level < 1 or not 2 <= len(baby_steps) <= MOST_BABY_STEPS or baby_steps[0]:
        raise PlanError(
            f"linear transforms need a level and 2 to {MOST_BABY_STEPS} baby steps, the first of them 0, "
            f"not {list(baby_steps)} at level {level}"
        )


def linear_transforms(
    engine: Engine[Any, Any],
    ciphertexts: Sequence[Any],
    tables: Sequence[Sequence[Table]],
    baby_steps: Sequence[int],
    giant_step: int,
) -> list[Any]:
    """What `Engine.linear_transforms` says, giant steps in Horner's way."""
    check_steps(engine.level(ciphertexts[0]), baby_steps)
    rotated = [engine.rotate(ciphertext, baby_steps) for ciphertext in ciphertexts]
    return [engine.rescale(_sum(engine, rotated, inputs, giant_step)) for inputs in tables]


def _sum(engine: Engine[Any, Any], rotated: list[list[Any]], tables: Sequence[Table], giant_step: int) -> Any:
    total = None
    for giant in range(len(tables[0]) - 1, -1, -1):
        if total is not None:
            (total,) = engine.rotate(total, [giant_step])
        for babies, table in zip(rotated, tables, strict=True):
            for baby, plaintext in zip(babies, table[giant], strict=True):
                if plaintext is not None:
                    term = engine.weighted_sum([baby], [plaintext])
                    total = term if total is None else engine.add(total, term)
    if total is None:
        raise PlanError("every plaintext of a linear transform is zero; leave it out of the program")
    return total
