"""The text's masks, encrypted, as rows hold them: mask/n, with which values meet, and means over a text's tokens are made."""

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
        builder, level = self.rows.builder, blocks[0].level
        mask_scale = scale * builder.parameters.primes[level] / blocks[0].scale
        masks = [builder.at_scale(builder.drop(m, level + 1), mask_scale) for m in self.turned]
        return self.rows.sum_over_rows(builder.multiply(blocks, masks))

    def straight(self, level: int) -> Blocks:
        """The masks that are not skewed, in all but the last W positions of a row, where nothing may lie that they meet."""
        builder, width = self.rows.builder, self.rows.layout.width
        return [builder.rotate(builder.drop(m, level), [width])[0] for m in self.skewed]
