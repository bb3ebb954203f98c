"""The text's masks, encrypted, as rows hold them: mask/n, with which values meet, and means over a text's tokens are made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from he_runtime.lowering.row_operations import Blocks, RowOperations
from he_runtime.program import Value


@dataclass(frozen=True)
class RowMasks:
    """The masks of one text."""

    rows: RowOperations
    skewed: Blocks
    """As the client sends them: skewed in the first W positions of a row, and not in the others."""
    turned: Blocks
    """`straight` at the level of the input, which means are made with; empty where none are."""

    @classmethod
    def of(cls, rows: RowOperations, skewed: Blocks, *, turned: bool) -> "RowMasks":
        """The client's masks, turned where means will be made of several layers' keys."""
        masks = cls(rows, skewed, [])
        return replace(masks, turned=masks.straight(skewed[0].level)) if turned else masks

    def mean(self, blocks: Blocks, scale: float) -> Value:
        """The mean over the text's tokens in every row, at exactly that scale. 1 level, and one more that the masks have."""
        masks = self._scaled(self.turned, blocks[0], scale)
        return self.rows.sum_over_rows(self.rows.builder.multiply(blocks, masks))

    def real_means(self, tensors: Sequence[Blocks], scale: float) -> list[Value]:
        """Means over the text's tokens of the tensors' real values, in every row, at exactly that scale: levels as for `mean`.

        Of blocks of tokens that lie `beside` each other all values are real, of others their real part is meant. Two tensors'
        values are summed over the rows as one.
        """
        builder = self.rows.builder
        masks = [builder.drop(mask, tensors[0][0].level + 1) for mask in self.turned]
        if self.rows.pairs_tokens:  # the real part of (a + X^(N/2)·b)·(m + X^(3N/2)·n) is a·m + b·n
            masks = [builder.combine(a, b, 3) for a, b in zip(masks[::2], masks[1::2], strict=True)]
        means: list[Value] = []
        for first in range(0, len(tensors), 2):
            two = tensors[first : first + 2]
            # Each split, of the real part and of the two, doubles the scale.
            scaled = self._scaled(masks, two[0][0], scale / 2 ** len(two))
            values = [builder.real_part(builder.multiply(blocks, scaled)) for blocks in two]
            if len(two) == 2:
                means += builder.parts(self.rows.sum_over_rows(builder.combine(values[0], values[1], 1)))
            else:
                means += [self.rows.sum_over_rows(value) for value in values]
        return means

    def _scaled(self, masks: Blocks, value: Value, scale: float) -> Blocks:
        """Masks whose products with values of that one's level and scale have exactly `scale`. 1 level."""
        builder, level = self.rows.builder, value.level
        mask_scale = scale * builder.parameters.primes[level] / value.scale
        return [builder.at_scale(builder.drop(mask, level + 1), mask_scale) for mask in masks]

    def straight(self, level: int) -> Blocks:
        """The masks that are not skewed, in all but the last W positions of a row, where nothing may lie that they meet."""
        builder, width = self.rows.builder, self.rows.layout.width
        return [builder.rotate(builder.drop(m, level), [width])[0] for m in self.skewed]
