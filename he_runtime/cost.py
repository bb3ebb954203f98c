"""Sizes and a price of a plan, worked out without encrypting anything.

An operation is counted in rows that each kernel goes through (`kernel_rows`), and a row of each kernel has a price, measured by
`thex bench calibrate`. Machines differ, but the planner needs ratios only; `thex bench model` shows estimate and measurement
side by side.
"""

from collections import Counter
from dataclasses import dataclass

from he_runtime.parameters import Parameters
from he_runtime.program import Operation, Program

PRICED_RING_DEGREE = 32768
MICROSECONDS = {
    "transform": 55.8,  # forward or back
    "convert": 12.0,  # a row times a constant, added to another prime's
    "key": 26.8,  # a row of a digit times both halves of a key's
    "gather": 22.0,  # a row permuted
    "weigh": 5.3,  # a row times a plaintext's, in a sum of many
    "elementwise": 11.1,  # a row read or written, and what is done to it on the way
}
"""Price of a row of 32768 entries on one thread of an AMD EPYC with AVX-512 (Zen 4), as `thex bench calibrate` fitted it."""


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


def kernel_rows(operation: Operation, parameters: Parameters) -> Counter[str]:
    """Rows of N entries that each kernel goes through: what the numba engine does, counted."""
    rows = operation.level + 1
    special = len(parameters.special_primes)
    every = rows + special
    digits = parameters.digit_count(operation.level)
    extend = Counter(transform=digits * every, convert=digits * every * parameters.digit_size, elementwise=rows)
    key_product = Counter(key=digits * every)

    def division(parts: int, dropped: int, kept: int) -> Counter[str]:
        return Counter(
            transform=parts * (dropped + kept), convert=parts * dropped * kept, elementwise=parts * (dropped + 2 * kept)
        )

    def times(count: int, counted: Counter[str]) -> Counter[str]:
        return Counter({kernel: count * amount for kernel, amount in counted.items()})

    match operation.kind:
        case "rotate" | "conjugate":
            switch = key_product + division(2, special, rows) + Counter(gather=2 * rows)
            return extend + times(operation.rotations, switch)
        case "product_sum":
            tensor = Counter(elementwise=6 * rows * operation.ciphertext_products)
            return tensor + extend + key_product + division(2, special, rows) + Counter(gather=2 * rows)
        case "multiply":
            tensor = Counter(elementwise=6 * rows * operation.ciphertext_products)
            return tensor + extend + key_product + division(2, special + 1, rows - 1) + Counter(gather=2 * rows)
        case "linear_transforms":
            inputs, babies, outputs = len(operation.inputs), len(operation.steps) - 1, len(operation.outputs)
            baby = key_product + Counter(gather=2 * every, elementwise=every)
            giant = division(1, special, rows) + extend + key_product + Counter(gather=2 * every, elementwise=4 * every)
            return (
                times(inputs, extend)
                + times(inputs * babies, baby)
                + Counter(weigh=2 * every * operation.plaintext_products)
                + times(sum(operation.sums) - outputs, giant)
                + times(outputs, division(2, special + 1, rows - 1))
            )
        case "weighted_sum":
            return Counter(elementwise=4 * rows * len(operation.constants))
        case "rescale":
            return division(2, 1, rows - 1)
        case "drop" | "reinterpret":
            return Counter()
        case _:
            return Counter(elementwise=2 * rows)


def operation_milliseconds(operation: Operation, parameters: Parameters) -> float:
    """Estimated price of one operation on one thread."""
    counted = kernel_rows(operation, parameters)
    microseconds = sum(MICROSECONDS[kernel] * amount for kernel, amount in counted.items())
    return microseconds * parameters.ring_degree / PRICED_RING_DEGREE / 1e3


def program_milliseconds(program: Program) -> float:
    """Estimated price of a whole program on one thread."""
    return sum(operation_milliseconds(operation, program.parameters) for operation in program.operations)


def stage_costs(program: Program) -> list[StageCost]:
    """Costs by stage, in the order of the program."""
    stages: dict[str, list[Operation]] = {}
    for operation in program.operations:
        stages.setdefault(operation.stage, []).append(operation)
    return [
        StageCost(
            stage,
            max(operation.level for operation in operations),
            min(operation.target_level for operation in operations),
            sum(operation.rotations for operation in operations),
            sum(operation.ciphertext_products for operation in operations),
            sum(operation.ciphertext_products > 0 for operation in operations),
            sum(operation.plaintext_products for operation in operations),
            sum(operation.target_level < operation.level and operation.kind != "drop" for operation in operations),
            sum(operation_milliseconds(operation, program.parameters) for operation in operations),
        )
        for stage, operations in stages.items()
    ]
