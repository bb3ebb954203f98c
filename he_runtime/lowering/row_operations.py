"""What the Hadamard lowering does to rows of slots: matrix products, copies, sums and turns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.lowering.rows import RowLayout
from he_runtime.program import ProgramBuilder, Value

Blocks = list[Value]
"""One tensor: a ciphertext for each block of tokens."""
Map = tuple[Sequence[NDArray[np.number]], NDArray[np.number]]
"""Matrices [W, P], one for each input, and the bias [P]."""

HOISTED = 8
"""Rotations by multiples of a step are made eight at a time, so that 8 keys serve any number of them; see also FRUGAL."""
FRUGAL = 4
"""As many where keys are dear: 2 to 5 % more time by the cost model, and room for baby steps that save more."""
BABY_STEPS_IN_A_GIANT_STEP = 4
"""How many take as long: they share a decomposition and leave out a division."""


@dataclass(frozen=True)
class RowOperations:
    """Operations on the rows of one layout, written to a program."""

    builder: ProgramBuilder
    layout: RowLayout
    baby_steps: int
    """Of matrix products."""
    hoisted_steps: int = HOISTED
    """Rotations by multiples of a step that share one decomposition."""
    baby_rounds: int = 1
    """Rounds of baby steps, all with the same keys: see `products`."""

    @property
    def hoisted_rows(self) -> int:
        """Whole rows are turned by at most the shortest rows' hoisted_steps at a time, so that all buckets share the keys."""
        return max(2, self.hoisted_steps * 2 * self.layout.width // self.layout.row)

    def products(
        self, inputs: Sequence[Blocks], maps: Sequence[Map], scales: Sequence[float] | None = None
    ) -> list[Blocks]:
        """For each map the sum of input·matrix, plus bias: inputs repeated along their rows. 1 level.

        scales: of each map's result, the standard one if None.

        out[p] = sum_r in[p + r]·matrix[(p + r) mod W, p] by baby and giant steps (Halevi and Shoup 2014), baby steps shared
        by all maps; giant steps in Horner's way, so that one key serves them all. In further rounds the inputs are turned by all
        baby steps first and take them again, which leaves fewer giant steps to the outputs: where that is less work.
        """
        builder, blocks = self.builder, len(inputs[0])
        more = (self.baby_rounds - 1) * self.baby_steps * len(inputs)
        fewer = self.layout.width // self.baby_steps * (1 - 1 / self.baby_rounds) * len(maps)
        rounds = self.baby_rounds if more <= BABY_STEPS_IN_A_GIANT_STEP * fewer else 1
        lengths = [max(self.layout.row, matrices[0].shape[1]) for matrices, _ in maps]
        tables = [
            [table for matrix in matrices for table in self._diagonals(matrix, length, rounds)]
            for (matrices, _), length in zip(maps, lengths, strict=True)
        ]
        outputs: list[Blocks] = [[] for _ in maps]
        for block in range(blocks):
            values = []
            for tensor in inputs:
                value = tensor[block]
                values.append(value)
                for _ in range(1, rounds):
                    (value,) = builder.rotate(value, [self.baby_steps])
                    values.append(value)
            totals = builder.linear_transforms(
                values,
                tables,
                range(self.baby_steps),
                rounds * self.baby_steps,
                scales or [builder.parameters.scale] * len(maps),
            )
            for output, total, (_, bias), length in zip(outputs, totals, maps, lengths, strict=True):
                padded = np.zeros(length, bias.dtype)
                padded[: len(bias)] = bias
                output.append(builder.add_plain(total, padded))
        return outputs

    def _diagonals(self, matrix: NDArray[np.number], length: int, rounds: int) -> NDArray[np.number]:
        """[rounds, giant steps, baby steps, length] of a matrix [W, P]: each diagonal, turned back by its giant step."""
        width, babies, positions = self.layout.width, self.baby_steps, np.arange(matrix.shape[1])
        table = np.zeros((rounds, -(-width // (babies * rounds)), babies, length), matrix.dtype)
        for shift in range(width):
            giant, rest = divmod(shift, babies * rounds)
            diagonal = np.zeros(length, matrix.dtype)
            diagonal[positions] = matrix[(positions + shift) % width, positions]
            table[rest // babies, giant, rest % babies] = np.roll(diagonal, giant * babies * rounds)
        return table

    def repeated(self, blocks: Blocks, length: int, *, once: bool = False) -> Blocks:
        """Copies of what lies in the first `length` positions of each row, to its end or `once`; the rest must be zero."""
        steps = [length] if once else [length << k for k in range((self.layout.row // length).bit_length() - 1)]
        return [self.sum_over(value, [-step for step in steps]) for value in blocks]

    def skew(self, value: Value) -> Value:
        """out[t, p] = in[t + shift(p), p]. 1 level."""
        layout = self.layout
        babies = min(self.hoisted_rows, layout.block_tokens)
        shifts = np.arange(layout.block_tokens).reshape(-1, babies, 1)
        masks = (layout.shift() == shifts).astype(np.float64)
        steps = [layout.row * baby for baby in range(babies)]
        (skewed,) = self.builder.linear_transforms(
            [value], [[masks]], steps, babies * layout.row, [self.builder.parameters.scale]
        )
        return skewed

    def broadcast(self, value: Value) -> Value:
        """The first token's row in the rows of all tokens. 1 level."""
        layout = self.layout
        mask = np.zeros(layout.slots)
        mask[: layout.row] = 1.0
        return self.sum_over_rows(
            self.builder.rescale(self.builder.weighted_sum([value], [mask], self.builder.parameters.scale))
        )

    def sum_over_rows(self, value: Value) -> Value:
        """The sum of all rows, in every row."""
        bits = self.layout.block_tokens.bit_length() - 1
        return self.sum_over(value, [self.layout.row << bit for bit in range(bits)])

    def sum_over(self, value: Value, steps: Sequence[int]) -> Value:
        """Add to the value its rotation by each step in turn: `steps` that double sum a window."""
        for step in steps:
            value = self.builder.add([value, *self.builder.rotate(value, [step])])
        return value

    def multiples(self, value: Value, step: int, count: int, hoisted: int | None = None) -> list[Value]:
        """Rotations by 0, step, 2·step, ...: `hoisted` of them (hoisted_steps) share one decomposition."""
        turned: list[Value] = []
        hoisted = hoisted or self.hoisted_steps
        while len(turned) < count:
            if turned:
                (value,) = self.builder.rotate(value, [hoisted * step])
            turned.extend(self.builder.rotate(value, [step * k for k in range(min(hoisted, count - len(turned)))]))
        return turned
