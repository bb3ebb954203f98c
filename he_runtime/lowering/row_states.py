"""The state between two layers, as rows of ciphertexts hold it, and matrix products of it: two real tensors an output."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.lowering.row_operations import Blocks, Map, RowOperations
from he_runtime.lowering.row_weights import RowWeights, paired, paired_bias
from he_runtime.network import Affine

Array = NDArray[np.float64]


@dataclass(frozen=True)
class State:
    """What a layer reads: ciphertexts repeated along their rows, each holding one or two blocks of W features.

    The second of each says which: (a, b) for a + X^(N/2)·b, (a, None) for a alone, counted over the concatenated, padded state
    arrays. With (a, None), two blocks of tokens may share a ciphertext (`RowOperations.beside`).
    """

    parts: tuple[tuple[Blocks, tuple[int, int | None]], ...]

    @property
    def packed(self) -> bool:
        """Whether a ciphertext holds two blocks: fewer inputs of matrix products, whose outputs then take one each."""
        return any(second is not None for _, (_, second) in self.parts)


@dataclass(frozen=True)
class StateMaps:
    """Writes affine maps of states to a program."""

    rows: RowOperations
    weights: RowWeights

    def products(
        self,
        inputs: Sequence[Blocks],
        maps: Sequence[Map],
        pairs: Sequence[tuple[Map, Map]] = (),
        scale_of_pairs: float | None = None,
    ) -> tuple[list[Blocks], list[Blocks]]:
        """Real maps of real inputs as real values, and pairs of them as a + X^(N/2)·b. 1 level.

        An output costs more than an input, and holds two values: real ones are made two by two and split, but for an odd first.
        """
        alone = len(maps) % 2
        twos = [(maps[first], maps[first + 1]) for first in range(alone, len(maps), 2)]
        scale = self.rows.builder.parameters.scale
        scales = [scale] * (alone + len(twos)) + [scale_of_pairs or scale] * len(pairs)
        made = self.rows.products(inputs, [*maps[:alone], *(_pair(*two) for two in (*twos, *pairs))], scales)
        split = [[self.rows.builder.parts(value) for value in blocks] for blocks in made[alone : alone + len(twos)]]
        real = [[two[part] for two in blocks] for blocks in split for part in range(2)]
        return [*made[:alone], *real], made[alone + len(twos) :]

    def maps_of_pairs(self, state: State, affines: Sequence[Affine]) -> list[Blocks]:
        """Affine maps of a state whose ciphertexts hold two blocks of tokens each, as the outputs' do. 1 level."""
        inputs = [values for values, _ in state.parts]
        return self.rows.products(inputs, [self._map(state, affine) for affine in affines], tokens_paired=True)

    def maps_of(
        self,
        state: State,
        affines: Sequence[Affine],
        pairs: Sequence[tuple[Affine, Affine]] = (),
        scale_of_pairs: float | None = None,
    ) -> tuple[list[Blocks], list[Blocks]]:
        """Affine maps of the state as real values, and pairs of them as a + X^(N/2)·b. 1 level.

        scale_of_pairs: the standard one if None. Of a packed state they have twice the standard one always.
        """
        inputs, count = [values for values, _ in state.parts], len(affines)
        if not state.packed:
            pair_maps = [(self._map(state, first), self._map(state, second)) for first, second in pairs]
            return self.products(inputs, [self._map(state, affine) for affine in affines], pair_maps, scale_of_pairs)
        # Of (a + X^(N/2)·b)·(A - i·sign·B) only the real part, a·A + b·B, is wanted.
        every = [*affines, *itertools.chain.from_iterable(pairs)]
        made = self.rows.products(inputs, [self._map(state, affine) for affine in every])
        real = [[self.rows.builder.real_part(value) for value in blocks] for blocks in made]
        packed = [
            [self.rows.builder.combine(a, b, 1) for a, b in zip(first, second, strict=True)]
            for first, second in zip(real[count::2], real[count + 1 :: 2], strict=True)
        ]
        return real[:count], packed

    def map_to_scale(self, state: State, affine: Affine, scale: float) -> Blocks:
        """An affine map of the state as real values at exactly that scale. 1 level."""
        inputs = [values for values, _ in state.parts]
        (made,) = self.rows.products(inputs, [self._map(state, affine)], [scale / 2 if state.packed else scale])
        return [self.rows.builder.real_part(value) for value in made] if state.packed else made

    def _map(self, state: State, affine: Affine) -> Map:
        """Matrices for the state's ciphertexts."""
        signs = np.resize([1.0, -1.0], self.rows.layout.width)[:, None]
        blocks = self.weights.state_blocks(affine)
        return [
            blocks[first] if second is None else blocks[first] - 1j * signs * blocks[second]
            for _, (first, second) in state.parts
        ], affine.bias

    def tiled(self, stream: Affine) -> Affine:
        """What makes x of the state, for the first half of a row."""
        copies = self.rows.layout.row // 2 // self.rows.layout.width
        stream = self.weights.columns_at(stream, np.arange(len(stream.bias)))
        return Affine(tuple(np.tile(matrix, copies) for matrix in stream.matrices), np.tile(stream.bias, copies))


def _pair(first: Map, second: Map) -> Map:
    """The map to a + X^(N/2)·b, its outputs as many as those of the wider one."""
    length = max(len(bias) for _, bias in (first, second))

    def wide(matrix: NDArray[np.number]) -> Array:
        return np.asarray(np.pad(matrix, [(0, 0)] * (matrix.ndim - 1) + [(0, length - matrix.shape[-1])]), np.float64)

    matrices = [paired(wide(a), wide(b)) for a, b in zip(first[0], second[0], strict=True)]
    return matrices, paired_bias(wide(first[1]), wide(second[1]))
