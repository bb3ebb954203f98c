"""What the Hadamard lowering does to rows of slots: matrix products, copies, sums and turns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.lowering.row_weights import paired_bias
from he_runtime.lowering.rows import RowLayout
from he_runtime.program import ProgramBuilder, Value

Blocks = list[Value]
"""One tensor: a ciphertext for each block of tokens, or for two of them: see `RowOperations.beside`."""
Map = tuple[Sequence[NDArray[np.number]], NDArray[np.number]]
"""Matrices [W, P], one for each input, and the bias [P]."""

HOISTED = 8
"""Rotations by multiples of a step are made eight at a time, so that 8 keys serve any number of them; see also FRUGAL."""
FRUGAL = 4
"""As many where keys are dear: 2 to 5 % more time by the cost model, and room for baby steps that save more."""
STRIDE = 2
"""Between baby steps of matrix products: even rotations leave a + X^(N/2)·b as it is, odd ones turn X^(N/2)'s sign."""
ROUNDS = (STRIDE, 2 * STRIDE)
"""Of baby steps, all with the same keys: see `RowOperations.products`."""
BABY_STEPS_IN_A_GIANT_STEP = 6
"""How many take as long, as they share a decomposition and leave out a division: 5 to 6 measured (decision 5)."""


@dataclass(frozen=True)
class RowOperations:
    """Operations on the rows of one layout, written to a program."""

    builder: ProgramBuilder
    layout: RowLayout
    baby_steps: int
    """Of matrix products."""
    hoisted_steps: int = HOISTED
    """Rotations by multiples of a step that share one decomposition."""

    @property
    def hoisted_rows(self) -> int:
        """Whole rows are turned by at most the shortest rows' hoisted_steps at a time, so that all buckets share the keys."""
        return max(2, self.hoisted_steps * 2 * self.layout.width // self.layout.row)

    @property
    def pairs_tokens(self) -> bool:
        """Whether layers on all tokens hold two blocks of tokens in a ciphertext, and not two tensors of one block.

        Matrix products then have half as many inputs for as many outputs.
        """
        return self.layout.blocks > 1

    def beside(self, blocks: Blocks) -> Blocks:
        """Real blocks of tokens two by two, a + X^(N/2)·b, if `pairs_tokens`."""
        if not self.pairs_tokens:
            return blocks
        return [self.builder.combine(a, b, 1) for a, b in zip(blocks[::2], blocks[1::2], strict=True)]

    def apart(self, blocks: Blocks) -> Blocks:
        """The real blocks of what `beside` made, at twice the scale if it put two together."""
        return [part for two in blocks for part in self.builder.parts(two)] if self.pairs_tokens else blocks

    def products(
        self,
        inputs: Sequence[Blocks],
        maps: Sequence[Map],
        scales: Sequence[float] | None = None,
        *,
        tokens_paired: bool = False,
    ) -> list[Blocks]:
        """For each map the sum of input·matrix, plus bias: inputs repeated along their rows. 1 level.

        scales: of each map's result, the standard one if None. tokens_paired: inputs and outputs are a + X^(N/2)·b of two blocks
        of tokens, and the maps are real.

        out[p] = sum_r in[p + r]·matrix[(p + r) mod W, p] by baby and giant steps (Halevi and Shoup 2014), baby steps shared
        by all maps; giant steps in Horner's way, so that one key serves all of a product. Baby steps are taken in rounds, which
        leave fewer giant steps to the outputs: of the inputs, of the inputs turned by 1, which makes odd shifts of even ones, and
        where that is less work, of both turned by all baby steps.
        """
        builder = self.builder
        rounds = self._rounds(len(inputs), len(maps))
        lengths = [max(self.layout.row, matrices[0].shape[1]) for matrices, _ in maps]
        tables = [
            [table for matrix in matrices for table in self._diagonals(matrix, length, rounds)]
            for (matrices, _), length in zip(maps, lengths, strict=True)
        ]
        outputs: list[Blocks] = [[] for _ in maps]
        for place in range(len(inputs[0])):
            values = [turned for tensor in inputs for turned in self._in_rounds(tensor[place], rounds, tokens_paired)]
            totals = builder.linear_transforms(
                values,
                tables,
                range(0, STRIDE * self.baby_steps, STRIDE),
                rounds * self.baby_steps,
                scales or [builder.parameters.scale] * len(maps),
            )
            for output, total, (_, bias), length in zip(outputs, totals, maps, lengths, strict=True):
                padded = np.zeros(length, bias.dtype)
                padded[: len(bias)] = bias
                output.append(builder.add_plain(total, paired_bias(padded, padded) if tokens_paired else padded))
        return outputs

    def _rounds(self, inputs: int, outputs: int) -> int:
        """The number of rounds of least work: a round costs every input its baby steps and a rotation as dear as a giant step."""

        def work(rounds: int) -> float:
            giants = inputs * (rounds - 1) + outputs * -(-self.layout.width // (rounds * self.baby_steps))
            return inputs * rounds * (self.baby_steps - 1) + BABY_STEPS_IN_A_GIANT_STEP * giants

        return min(ROUNDS, key=work)

    def _in_rounds(self, value: Value, rounds: int, tokens_paired: bool) -> list[Value]:
        """The value turned by what each round begins at: 0, 1, all baby steps, that and 1, twice all baby steps ..."""
        (odd,) = self.builder.rotate(value, [1])
        # a + X^(N/2)·b turned by one is the conjugate of what is wanted.
        turned = [value, self.builder.conjugate(odd) if tokens_paired else odd]
        while len(turned) < rounds:
            turned += self.builder.rotate(turned[-STRIDE], [STRIDE * self.baby_steps])
        return turned

    def _diagonals(self, matrix: NDArray[np.number], length: int, rounds: int) -> NDArray[np.number]:
        """[rounds, giant steps, baby steps, length] of a matrix [W, P]: each diagonal, turned back by its giant step."""
        width, babies, positions = self.layout.width, self.baby_steps, np.arange(matrix.shape[1])
        table = np.zeros((rounds, -(-width // (babies * rounds)), babies, length), matrix.dtype)
        for shift in range(width):
            giant, rest = divmod(shift, babies * rounds)
            turn, step = divmod(rest, STRIDE * babies)
            diagonal = np.zeros(length, matrix.dtype)
            diagonal[positions] = matrix[(positions + shift) % width, positions]
            table[STRIDE * turn + step % STRIDE, giant, step // STRIDE] = np.roll(diagonal, giant * babies * rounds)
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
