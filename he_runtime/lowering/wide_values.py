"""The same lowering with the up-projection folded into the values: one level a layer less, for many times the work.

t = sum_h P_h·(x·Wv_h·Wo_h·W1) + x·W1 + ...: every head's value becomes as wide as the residual stream and the feed-forward
features together, so heads no longer share a ciphertext. Worth it only where the saved levels lead to a smaller ring; the
planner tries it for that reason alone.

Depth with quadratic attention: 5 levels a layer (one more with centred keys, but for a last layer on the first token), and 2 more
for the last layer's broadcast and for the logits.
"""

from dataclasses import dataclass

import numpy as np

from he_runtime.errors import PlanError
from he_runtime.lowering.attention_polynomial import attention_polynomial
from he_runtime.lowering.token_shifts import SHIFT_GROUP, Array, Blocks, TokenShiftLowering, levels_needed
from he_runtime.network import Affine, Layer, Network
from he_runtime.program import Value


def levels_needed_with_wide_values(network: Network) -> int:
    """Levels of the program: one a layer less than `levels_needed`."""
    return levels_needed(network) - len(network.layers)


@dataclass(frozen=True)
class _Head:
    """What one head contributes: its own score, and its share of the stream and of every block of features."""

    query: Affine
    key: Affine
    wide_value: Affine
    """x -> [share of z, then the feed-forward features], each part padded to W."""


class WideValueLowering(TokenShiftLowering):
    """TokenShiftLowering with the attention of each head in ciphertexts of its own."""

    def levels(self) -> int:
        """Levels of the program."""
        return levels_needed_with_wide_values(self.network)

    def _layer(self, name: str, layer: Layer, state: list[Blocks], mask: Blocks) -> list[Blocks]:
        """All tokens. 5 levels with quadratic attention, 4 with linear, one more with centred keys."""
        builder, layout = self.builder, self.layout
        heads = [self._head(layer, head) for head in range(self.shape.heads)]
        x, queries, keys, values = self._projections(name, layer, heads, state, state, mask)
        meeting = min(queries[0][0].level, keys[0][0].level) - 1 - bool(layer.attention[:, 0].any())
        group = min(SHIFT_GROUP, layout.block_tokens)
        coarse = [group * layout.row * b for b in range(layout.block_tokens // group)]
        fine = [layout.row * a for a in range(group)]
        totals: list[list[list[Value]]] = [[[] for _ in queries[0]] for _ in values[0]]
        for head in range(len(heads)):
            for block in range(layout.blocks):
                builder.stage = f"{name}: token shifts"
                coarse_keys = builder.rotate(keys[head][block], coarse)
                coarse_values = [builder.rotate(builder.drop(part[block], meeting), coarse) for part in values[head]]
                for index, key_group in enumerate(coarse_keys):
                    builder.stage = f"{name}: token shifts"
                    shifted_keys = builder.rotate(key_group, fine)
                    shifted_values = [builder.rotate(part[index], fine) for part in coarse_values]
                    for i, query in enumerate(queries[head]):
                        builder.stage = f"{name}: scores"
                        scores = [self._row_sum(builder.multiply([query], [shifted])) for shifted in shifted_keys]
                        attention = [self._head_polynomial(layer, head, score) for score in scores]
                        builder.stage = f"{name}: attention times value"
                        for part, shifted in enumerate(shifted_values):
                            totals[part][i].append(builder.product_sum(attention, shifted))
        sums = [[builder.rescale(builder.add(products)) for products in blocks] for blocks in totals]
        return self._new_state(name, layer, sums, x)

    def _last_layer(self, name: str, layer: Layer, state: list[Blocks], mask: Blocks) -> list[Blocks]:
        """The first token's query, broadcast, against all keys at once. One level more."""
        builder = self.builder
        heads = [self._head(layer, head) for head in range(self.shape.heads)]
        first = [[blocks[0]] for blocks in state]
        x, queries, keys, values = self._projections(name, layer, heads, first, state, mask)
        products: list[list[Value]] = [[] for _ in values[0]]
        for head in range(len(heads)):
            builder.stage = f"{name}: broadcast of the first query"
            chosen = self._broadcast_first_token(queries[head][0])
            builder.stage = f"{name}: scores"
            scores = [self._row_sum(builder.multiply([chosen], [key])) for key in keys[head]]
            attention = [self._head_polynomial(layer, head, score) for score in scores]
            builder.stage = f"{name}: attention times value"
            for part, blocks in enumerate(values[head]):
                products[part].append(builder.product_sum(attention, blocks))
        sums = [[self._sum_over_tokens(builder.rescale(builder.add(part)))] for part in products]
        return self._new_state(name, layer, sums, x[:1])

    def _projections(
        self, name: str, layer: Layer, heads: list[_Head], query_state: list[Blocks], state: list[Blocks], mask: Blocks
    ) -> tuple[Blocks, list[Blocks], list[Blocks], list[list[Blocks]]]:
        """x, and for each head its queries, keys and masked wide values (a list of parts)."""
        builder = self.builder
        builder.stage = f"{name}: query, key, value"
        x = state[0] if layer.stream is None else self._matrix(state, self._split(layer.stream))[0]
        queries = self._matrix(query_state, self._inputs([head.query for head in heads]))
        keys = self._matrix(state if layer.key_reads_state else [x], self._inputs([head.key for head in heads]))
        if layer.keys_centred:
            keys = [self._centred(name, key, mask) for key in keys]
            builder.stage = f"{name}: query, key, value"
        source = state if layer.value_reads_state else [x]
        values = []
        for head in heads:
            parts = self._matrix(source, self._split(head.wide_value))
            values.append([self._masked(part, mask) for part in parts])
        return x, queries, keys, values

    def _new_state(self, name: str, layer: Layer, sums: list[Blocks], x: Blocks) -> list[Blocks]:
        """z and the squared pre-activations, from the attention's sums and the stream."""
        if layer.up_from_context is None:
            raise PlanError("the network must be folded before it is lowered")
        builder = self.builder
        builder.stage = f"{name}: feed-forward"
        scale = sums[0][0].scale
        # The identity brings the stream to the scale of the sums; it has levels to spare.
        own = Affine((np.eye(self.shape.hidden),), layer.context.bias)
        wide = Affine(layer.up_from_context.matrices[1:], layer.up_from_context.bias)
        level = sums[0][0].level
        direct = self._matrix(
            [[builder.drop(block, level + 1) for block in x]],
            [*self._split(own), *self._split(wide)],
            repeat=False,
            target_scale=scale,
        )
        builder.stage = f"{name}: residual and activation"
        z, *hidden = [
            [self._repeat(builder.add([total, block])) for total, block in zip(blocks, others, strict=True)]
            for blocks, others in zip(sums, direct, strict=True)
        ]
        return [z, *([builder.multiply([t], [t]) for t in blocks] for blocks in hidden)]

    def _row_sum(self, product: Value) -> Value:
        """Sum over all features of a row, broadcast over the first copy."""
        return self._sum_over(product, [1 << k for k in range(self.shape.width.bit_length() - 1)])

    def _head_polynomial(self, layer: Layer, head: int, score: Value) -> Value:
        return attention_polynomial(self.builder, layer, score, lambda per_head: self._constant_row(per_head[head]))

    def _constant_row(self, constant: float) -> Array:
        return self.layout.row_vector(np.full(self.shape.width, constant), both_copies=False)

    def _head(self, layer: Layer, head: int) -> _Head:
        if layer.up_from_context is None:
            raise PlanError("the network must be folded before it is lowered")
        features = slice(head * self.shape.head_size, (head + 1) * self.shape.head_size)

        def part(affine: Affine) -> Affine:
            return Affine(tuple(matrix[:, features] for matrix in affine.matrices), affine.bias[features])

        value = part(layer.value)
        hidden = self.shape.hidden
        to_stream = np.zeros((self.shape.head_size, self.shape.width))
        to_stream[:, :hidden] = layer.context.matrices[0][features]
        to_wide = layer.up_from_context.matrices[0][features]
        joined = Affine((np.concatenate([to_stream, to_wide], axis=1),), np.zeros(self.shape.width + to_wide.shape[1]))
        return _Head(part(layer.query), part(layer.key), joined.after(value))
