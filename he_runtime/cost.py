"""Sizes and a rough price of a plan, worked out without encrypting anything.

Prices are milliseconds on one thread of a Zen 3 EPYC (AVX2), fitted to measurements of a prototype; they tell where time goes,
not how long your machine takes.
"""

from dataclasses import dataclass

from he_runtime.parameters import Parameters
from he_runtime.program import Operation, Program


@dataclass(frozen=True)
class StageCost:
    """One stage of a program."""

    stage: str
    level_in: int
    level_out: int
    rotations: int
    ciphertext_products: int
    relinearisations: int
    plaintext_products: int
    rescales: int
    milliseconds: float


def operation_milliseconds(operation: Operation, parameters: Parameters) -> float:
    """Estimated price of one operation on one thread."""
    rows = operation.level + 1
    ring = parameters.ring_degree / 32768
    switch = ring * (1.2 * rows + 0.045 * rows * rows)
    match operation.kind:
        case "rotate" if len(operation.steps) > 1:
            return 0.3 * switch + 0.9 * ring * rows * len(operation.steps)
        case "rotate":
            return switch
        case "product_sum":
            return switch + 0.1 * ring * rows * (len(operation.inputs) // 2)
        case "weighted_sum":
            return 0.05 * ring * rows * len(operation.constants)
        case "rescale":
            return 0.3 * ring * rows
        case _:
            return 0.02 * ring * rows


def program_milliseconds(program: Program) -> float:
    """Estimated price of a whole program on one thread."""
    return sum(operation_milliseconds(operation, program.parameters) for operation in program.operations)


def stage_costs(program: Program) -> list[StageCost]:
    """Costs by stage, in the order of the program."""
    stages: dict[str, list[Operation]] = {}
    for operation in program.operations:
        stages.setdefault(operation.stage, []).append(operation)
    costs = []
    for stage, operations in stages.items():
        products = [operation for operation in operations if operation.kind == "product_sum"]
        costs.append(
            StageCost(
                stage,
                max(operation.level for operation in operations),
                min(operation.target_level for operation in operations),
                sum(len(operation.steps) for operation in operations),
                sum(len(operation.inputs) // 2 for operation in products),
                len(products),
                sum(len(o.constants) for o in operations if o.kind == "weighted_sum"),
                sum(operation.kind == "rescale" for operation in operations),
                sum(operation_milliseconds(operation, program.parameters) for operation in operations),
            )
        )
    return costs
