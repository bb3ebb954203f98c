"""Sizes of a network as slots see them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.lowering.layout import power_of_two
from he_runtime.network import Network


@dataclass(frozen=True)
class Shape:
    """Padded sizes of a network."""

    hidden: int
    heads: int
    head_size: int
    padded_heads: int
    padded_head_size: int
    intermediate: int
    width: int
    """W: the power of two that holds a hidden row and an attention row."""

    @classmethod
    def of(cls, network: Network) -> "Shape":
        """Sizes of the network, padded to powers of two."""
        first = network.layers[0]
        hidden, attention = len(first.context.bias), len(first.query.bias)
        heads = network.heads
        size = attention // heads
        padded_heads, padded_size = power_of_two(heads), power_of_two(size)
        width = max(power_of_two(hidden), padded_heads * padded_size)
        return cls(hidden, heads, size, padded_heads, padded_size, len(first.up.bias), width)

    @property
    def wide_blocks(self) -> int:
        """Ciphertexts that hold the feed-forward features of one token block."""
        return -(-self.intermediate // self.width)

    def for_padded_heads(self, per_head: NDArray[np.float64]) -> NDArray[np.float64]:
        """A number for each head, [heads] -> [padded_heads]: zero where there is no head."""
        return np.pad(per_head, (0, self.padded_heads - len(per_head)))

    def attention_positions(self) -> NDArray[np.int64]:
        """Where feature h·d + k of a head-contiguous tensor lies: heads are interleaved, at k·heads + h.

        A sum over one head is then a sum over a stride, the same for all heads, and comes out broadcast.
        """
        features = np.arange(self.heads * self.head_size)
        return (features % self.head_size) * self.padded_heads + features // self.head_size
