"""Transposing 8 x 8 tiles: the one vector operation of these kernels that a compiler does not find in plain loops.

The last three stages of a transform work inside runs of eight entries. On transposed tiles they are loops over contiguous rows
again; without, the compiler gathers entry by entry and three stages of fifteen take most of a transform's time. The code
below is portable LLVM IR, loads, shuffles and stores, that every target turns into instructions of its own.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

SIDE = 8


@intrinsic
def transpose_tile(
    typing_context: Any,  # noqa: ARG001
    source: Any,
    source_start: Any,  # noqa: ARG001
    source_step: Any,  # noqa: ARG001
    target: Any,
    target_start: Any,  # noqa: ARG001
    target_step: Any,  # noqa: ARG001
) -> Any:
    """target[target_start + i·target_step + k] = source[source_start + k·source_step + i] for i, k < 8; contiguous float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.DoubleType(), SIDE)
        lane = ir.IntType(32)

        def rows_of(argument: int) -> list[Any]:
            array = context.make_array(signature.args[argument])(context, builder, arguments[argument])
            start, step = arguments[argument + 1], arguments[argument + 2]
            places = [builder.add(start, builder.mul(step, ir.Constant(step.type, k))) for k in range(SIDE)]
            return [builder.bitcast(builder.gep(array.data, [place]), vector.as_pointer()) for place in places]

        rows = [builder.load(address, align=8) for address in rows_of(0)]
        distance = SIDE // 2
        while distance:
            # Exchange the off-diagonal blocks of `distance` lanes between rows `distance` apart.
            upper = [k if not k & distance else k - distance + SIDE for k in range(SIDE)]
            lower = [k + distance for k in upper]
            exchanged = list(rows)
            for k in range(SIDE):
                if not k & distance:
                    for place, mask in ((k, upper), (k + distance, lower)):
                        lanes = ir.Constant(ir.VectorType(lane, SIDE), mask)
                        exchanged[place] = builder.shuffle_vector(rows[k], rows[k + distance], lanes)
            rows = exchanged
            distance //= 2
        for row, address in zip(rows, rows_of(3), strict=True):
            builder.store(row, address, align=8)
        return context.get_dummy_value()

    index = types.intp
    return types.void(source, index, index, target, index, index), generate
