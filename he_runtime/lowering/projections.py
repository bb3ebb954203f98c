"""Queries, keys and values of a layer on all tokens, and the stream beside them: all made by one matrix product of the state."""

from dataclasses import dataclass

import numpy as np

from he_runtime.lowering.row_operations import Blocks, RowOperations
from he_runtime.lowering.row_states import State, StateMaps
from he_runtime.lowering.shape import Shape
from he_runtime.network import Affine, Layer


@dataclass(frozen=True)
class Projections:
    """What a layer reads from its state, for each group of heads where it is a list of them."""

    x: Blocks
    """The stream, two blocks of tokens a ciphertext where the state holds two."""
    queries: list[Blocks]
    """Real, a ciphertext for each block of tokens."""
    keys: list[Blocks]
    """Keys as `RowMasks.real_means` reads them: beside values as X^(N/2), or two blocks of keys a ciphertext."""
    unskewed: list[Blocks]
    """All that is skewed, the ciphertexts of `keys` first and then those of values, if these are others."""


@dataclass(frozen=True)
class ProjectionMaps:
    """Writes them to a program. 1 level."""

    states: StateMaps
    shape: Shape

    @property
    def rows(self) -> RowOperations:
        """Of the rows that states lie in."""
        return self.states.rows

    def of(self, layer: Layer, state: State) -> Projections:
        """All from the same rotations."""
        layout, weights = self.rows.layout, self.states.weights
        groups = range(layout.groups)
        queries = [weights.columns(layer.query, layout.pattern_features(group)) for group in groups]
        keys = [weights.columns(layer.key, layout.pattern_features(group)) for group in groups]
        values = [weights.columns(layer.value, weights.value_features(group)) for group in groups]
        if layer.stream is not None and not layer.value_reads_state:
            # One level earlier: values are skewed together with the keys.
            values = [value.after(layer.stream) for value in values]
        stream = [] if layer.stream is None else [self.states.tiled(layer.stream)]
        if self._last_key_beside_query(layer):
            queries[-1] = self._key_beside(queries[-1], layer)
            keys.pop()
        made = self._of_token_pairs if self.rows.pairs_tokens else self._of_tensor_pairs
        return made(state, stream, queries, keys, values)

    def keys_and_values(self, skewed: Blocks) -> tuple[Blocks, Blocks]:
        """Of a group's `unskewed`, once it is skewed: real, a ciphertext for each block of tokens, at twice the scale."""
        parts = [self.rows.builder.parts(block) for block in skewed]
        if not self.rows.pairs_tokens:
            return [key for key, _ in parts], [value for _, value in parts]
        blocks = [part for two in parts for part in two]
        return blocks[: len(skewed)], blocks[len(skewed) :]

    def _of_tensor_pairs(
        self, state: State, stream: list[Affine], queries: list[Affine], keys: list[Affine], values: list[Affine]
    ) -> Projections:
        """Of each block of tokens two tensors a ciphertext."""
        builder, beside = self.rows.builder, len(keys) < len(queries)
        reals, pairs = [*stream, *queries], list(zip(keys, values, strict=False))
        if beside:
            # A pair that is put together from two reals, which are parts, has twice the standard scale, and so have the others.
            made, products = self.states.maps_of(state, [*reals, values[-1]], pairs, 2 * builder.parameters.scale)
            last_value = made.pop()
            products.append([builder.combine(k, v, 1) for k, v in zip(self._key(made[-1]), last_value, strict=True)])
        else:
            made, products = self.states.maps_of(state, reals, pairs)
        return Projections(self._stream(state, stream, made), made, products, products)

    def _of_token_pairs(
        self, state: State, stream: list[Affine], queries: list[Affine], keys: list[Affine], values: list[Affine]
    ) -> Projections:
        """Of each tensor two blocks of tokens a ciphertext."""
        made = self.states.maps_of_pairs(state, [*stream, *queries, *keys, *values])
        x = self._stream(state, stream, made)
        groups = self.rows.layout.groups
        made_queries, made_keys, made_values = made[:groups], made[groups:-groups], made[-groups:]
        if len(keys) < groups:
            made_keys.append(self._key(made_queries[-1]))
        return Projections(
            x,
            [self.rows.apart(blocks) for blocks in made_queries],
            made_keys,
            [[*key, *value] for key, value in zip(made_keys, made_values, strict=True)],
        )

    def _stream(self, state: State, stream: list[Affine], made: list[Blocks]) -> Blocks:
        """x, which is the first that was made, if any was, and is taken from there."""
        return self.rows.repeated(made.pop(0), self.rows.layout.row // 2) if stream else state.parts[0][0]

    # --- the last group, where half of its heads are to spare --------------------------------------------------------

    def _last_key_beside_query(self, layer: Layer) -> bool:
        """Whether the last group has heads to spare for its keys, in its query's ciphertext, and an output is saved by it."""
        layout = self.rows.layout
        used = self.shape.heads - (layout.groups - 1) * layout.group
        if layout.groups == 1 or not 0 < used <= layout.group // 2:
            return False
        if self.rows.pairs_tokens:  # which are turned by even steps alone
            return layout.group % 4 == 0
        # Outputs hold two real tensors each: the stream and queries two by two, then a pair for each group.
        alone = layer.stream is not None
        before = -(-(alone + layout.groups) // 2) + layout.groups
        after = -(-(alone + layout.groups + 1) // 2) + layout.groups - 1
        return after < before

    def _key_beside(self, query: Affine, layer: Layer) -> Affine:
        """The last group's query, and in the second half of its heads, which it does not use, its key.

        What that half then makes of scores is nothing that anyone wants, and no value meets it.
        """
        layout = self.rows.layout
        half = layout.group // 2
        features = layout.pattern_features(layout.groups - 1) - half * layout.head_size
        key = self.states.weights.columns(layer.key, features)
        second = np.arange(layout.pattern) % layout.group >= half
        matrices = zip(query.matrices, key.matrices, strict=True)
        return Affine(tuple(np.where(second, k, q) for q, k in matrices), np.where(second, key.bias, query.bias))

    def _key(self, query: Blocks) -> Blocks:
        """The key that lies beside it, where keys lie."""
        return [self.rows.builder.rotate(block, [self.rows.layout.group // 2])[0] for block in query]
