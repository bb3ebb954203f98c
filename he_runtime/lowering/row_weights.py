"""Where a network's weights go for the Hadamard lowering: padded, and in the order of the rows' features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.errors import PlanError
from he_runtime.lowering.rows import RowLayout
from he_runtime.lowering.shape import Shape
from he_runtime.network import Affine, Layer

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def paired(first: Array, second: Array) -> Complex:
    """Matrix of the output a + X^(N/2)·b: first + i·sign·second, the sign alternating over positions."""
    return np.asarray(first + 1j * np.resize([1.0, -1.0], first.shape[1]) * second, np.complex128)


def paired_bias(first: Array, second: Array) -> Complex:
    """The bias of such an output: [P]."""
    return np.asarray(first + 1j * np.resize([1.0, -1.0], len(first)) * second, np.complex128)


@dataclass(frozen=True)
class RowWeights:
    """Placement of one network's weights in one layout's rows."""

    layout: RowLayout
    shape: Shape

    def state_blocks(self, affine: Affine) -> list[Array]:
        """Its matrices cut in blocks of W rows, padded: one for each block of the state."""
        width, blocks = self.layout.width, []
        for matrix in affine.matrices:
            for start in range(0, matrix.shape[0], width):
                blocks.append(self.padded(matrix[start : start + width]))
        return blocks

    def feed_forward_maps(
        self, layer: Layer, *, interleaved: bool
    ) -> tuple[tuple[Array, Array, Array], list[tuple[Array, Array, Array]]]:
        """(matrix of the context, matrix of x, bias) for z, and for each block of W pre-activations.

        interleaved: the context's heads lie at k·heads + h, as in the last layer, instead of group by group.
        """
        if layer.up_from_context is None:
            raise PlanError("the network must be folded before it is lowered")
        width, shape = self.layout.width, self.shape
        positions = self.layout.feature_position()
        if interleaved:
            heads, features = np.divmod(np.arange(width), shape.padded_head_size)
            positions = features * shape.padded_heads + heads

        def from_context(matrix: Array) -> Array:
            padded = np.zeros((width, matrix.shape[1]))
            padded[positions[self._head_major()]] = matrix
            return padded

        own = np.zeros((width, width))
        own[:, : shape.hidden] = from_context(layer.context.matrices[0])
        bias = np.zeros(width)
        bias[: shape.hidden] = layer.context.bias
        through, direct = layer.up_from_context.matrices
        wide = []
        for start in range(0, len(layer.up_from_context.bias), width):
            columns = slice(start, start + width)
            count = min(width, len(layer.up_from_context.bias) - start)
            context, x, constant = np.zeros((width, width)), np.zeros((width, width)), np.zeros(width)
            context[:, :count] = from_context(through[:, columns])
            x[: direct.shape[0], :count] = direct[:, columns]
            constant[:count] = layer.up_from_context.bias[columns]
            wide.append((context, x, constant))
        return (own, np.eye(width), bias), wide

    def _head_major(self) -> NDArray[np.int64]:
        """Where feature h·d + k of the model's own order lies among padded heads: [heads·d]."""
        features = np.arange(self.shape.heads * self.shape.head_size)
        return features // self.shape.head_size * self.shape.padded_head_size + features % self.shape.head_size

    def value_features(self, group: int) -> NDArray[np.int64]:
        """Which feature each position of a group's values holds: [pattern], -1 for none."""
        layout = self.layout
        position = np.arange(layout.pattern)
        k = position // layout.group
        head = group * layout.group + position % layout.group
        return np.where(k < layout.head_size, head * layout.head_size + k, -1)

    def columns(self, affine: Affine, features: NDArray[np.int64]) -> Affine:
        """Outputs at the positions that hold these padded head-major features (-1: zero)."""

        def placed(matrix: Array) -> Array:
            padded = np.zeros((*matrix.shape[:-1], self.layout.width + 1))
            padded[..., self._head_major()] = matrix
            return np.asarray(padded[..., features], np.float64)

        return Affine(tuple(placed(matrix) for matrix in affine.matrices), placed(affine.bias))

    def columns_at(self, affine: Affine, positions: NDArray[np.int64], length: int | None = None) -> Affine:
        """Output n at position positions[n], zero elsewhere, `length` in all (W)."""

        def placed(matrix: Array) -> Array:
            padded = np.zeros((*matrix.shape[:-1], length or self.layout.width))
            padded[..., positions] = matrix
            return padded

        return Affine(tuple(placed(matrix) for matrix in affine.matrices), placed(affine.bias))

    def padded(self, matrix: Array) -> Array:
        """With rows of zeros below, W in all."""
        padded = np.zeros((self.layout.width, matrix.shape[1]))
        padded[: matrix.shape[0]] = matrix
        return padded
