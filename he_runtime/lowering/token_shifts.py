"""Lowering: a folded network becomes a program, one bucket of tokens at a time.

Every layer: matrix products by diagonals with baby and giant steps (Halevi and Shoup 2014); scores one token shift at a time,
summed over a head's features by log2(d) rotations; the attention polynomial; the sum over tokens; then both halves of the
feed-forward block, whose down-projection is folded into whatever reads it. The last layer works for the first token only where
the head reads no other.

For a head that reads the mean, every layer works for all tokens, and one mask/n sums them.

Depth with quadratic attention: 6 levels a layer, and 2 more: for the last layer's broadcast or the mean's mask, and the logits.
Centred keys take one more in every layer on all tokens.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from he_runtime.errors import PlanError
from he_runtime.lowering.attention_polynomial import attention_polynomial
from he_runtime.lowering.layout import Layout
from he_runtime.lowering.shape import Shape
from he_runtime.network import Affine, Layer, Network
from he_runtime.parameters import Parameters
from he_runtime.program import Program, ProgramBuilder, Value

Array = NDArray[np.float64]
Blocks = list[Value]
"""One tensor of width W: a ciphertext for each token block."""

# Token shifts are reached as 8·b + a, so that 7 + T/8 keys serve T shifts instead of T - 1.
SHIFT_GROUP = 8


def levels_needed(network: Network) -> int:
    """Levels of the program: what a fresh ciphertext must offer."""
    levels = 2  # broadcast of the first token's query in the last layer, or mask of the mean; logits
    for layer in network.layers:
        # matrix, (mean key,) score, (square,) sum over tokens, up-projection, activation
        first_token = layer is network.layers[-1] and network.pooling == "first"
        levels += 5 + bool(layer.attention[:, 0].any()) + (layer.keys_centred and not first_token)
    return levels


class TokenShiftLowering:
    """Lowers one network for one bucket.

    The methods with a leading underscore are shared with `wide_values.WideValueLowering`, which overrides the two kinds of layer.
    """

    @staticmethod
    def choices(shape: Shape) -> list[dict[str, int]]:  # noqa: ARG004
        """What the planner may choose: here nothing."""
        return [{}]

    @staticmethod
    def frugal_choices(shape: Shape) -> list[dict[str, int]]:  # noqa: ARG004
        """What else it may choose to save keys: nothing."""
        return []

    def __init__(self, network: Network, parameters: Parameters, bucket: int) -> None:
        self.network = network
        self.shape = Shape.of(network)
        self.layout = Layout(parameters.slots, self.shape.width, bucket)
        self.builder = ProgramBuilder(parameters)
        self.scale = parameters.scale
        self.positions = self.shape.attention_positions()
        self.baby_steps = 1 << math.ceil(math.log2(self.shape.width) / 2)

    def levels(self) -> int:
        """Levels of the program."""
        return levels_needed(self.network)

    def program(self) -> Program:
        """The whole program of the bucket. PlanError when it needs more levels than the parameters have."""
        builder, layout = self.builder, self.layout
        builder.stage = "input"
        top = self.levels()
        if top > builder.parameters.maximum_level:
            ring_degree, offered = builder.parameters.ring_degree, builder.parameters.maximum_level
            raise PlanError(f"needs {top} levels, this chain of N={ring_degree} offers {offered}; use a longer chain")
        if len(self.network.classifier.bias) > self.shape.width:
            outputs = len(self.network.classifier.bias)
            raise PlanError(f"{outputs} outputs; a row of {self.shape.width} features holds no more: use Hadamard sums")
        names = layout.input_names
        state: list[Blocks] = [[builder.input(embeddings, top) for embeddings, _ in names]]
        mask = [builder.input(mask_name, top - 1) for _, mask_name in names]
        for index, layer in enumerate(self.network.layers):
            name = f"layer {index + 1}"
            if index < len(self.network.layers) - 1 or self.network.pooling == "mean":
                state = self._layer(name, layer, state, mask)
            else:
                state = self._last_layer(name, layer, state, mask)
        pooled = self._mean(state, mask) if self.network.pooling == "mean" else [[blocks[0]] for blocks in state]
        builder.stage = "logits"
        head, scale = self._split(self.network.classifier), builder.parameters.answer_scale
        (logits,) = self._matrix(pooled, head, repeat=False, alone=True, target_scale=scale)
        builder.output("logits", logits[0])
        return builder.build()

    # --- one layer -------------------------------------------------------------------------------------------------

    def _layer(self, name: str, layer: Layer, state: list[Blocks], mask: Blocks) -> list[Blocks]:
        """All tokens. 6 levels with quadratic attention, 5 with linear, one more with centred keys."""
        builder = self.builder
        builder.stage = f"{name}: query, key, value"
        maps = self._inputs([self._columns(affine) for affine in (layer.query, layer.key, layer.value)])
        if layer.stream is None:
            x = state[0]
            query, key, value = self._matrix([x], maps)
        elif layer.value_reads_state:
            query, key, value, x = self._matrix(state, [*maps, *self._split(layer.stream)])
        else:
            query, key, x = self._matrix(state, [*maps[:2], *self._split(layer.stream)])
            (value,) = self._matrix([x], maps[2:])
        value = self._masked(value, mask)
        if layer.keys_centred:
            key = self._centred(name, key, mask)
        context = self._attention(name, layer, query, key, value)
        return self._feed_forward(name, layer, context, x)

    def _attention(self, name: str, layer: Layer, query: Blocks, key: Blocks, value: Blocks) -> Blocks:
        """context[i] = sum over token shifts of polynomial(query[i]·shifted key)·shifted value. 3 levels (linear: 2)."""
        builder, layout = self.builder, self.layout
        group = min(SHIFT_GROUP, layout.block_tokens)
        # The values wait for the scores; dropped to their level first, they are rotated where that is cheapest.
        meeting = min(query[0].level, key[0].level) - 1 - bool(layer.attention[:, 0].any())
        value = [builder.drop(part, meeting) for part in value]
        totals: list[list[Value]] = [[] for _ in query]
        for keys, values in zip(key, value, strict=True):
            coarse = [group * layout.row * b for b in range(layout.block_tokens // group)]
            fine = [layout.row * a for a in range(group)]
            builder.stage = f"{name}: token shifts"
            for key_group, value_group in zip(
                builder.rotate(keys, coarse), builder.rotate(values, coarse), strict=True
            ):
                builder.stage = f"{name}: token shifts"
                shifted_keys, shifted_values = builder.rotate(key_group, fine), builder.rotate(value_group, fine)
                for i, queries in enumerate(query):
                    builder.stage = f"{name}: scores"
                    attention = [
                        self._polynomial(layer, self._head_sum(builder.multiply([queries], [shifted])))
                        for shifted in shifted_keys
                    ]
                    builder.stage = f"{name}: attention times value"
                    totals[i].append(builder.product_sum(attention, shifted_values))
        builder.stage = f"{name}: attention times value"
        return [self._repeat(builder.rescale(builder.add(total))) for total in totals]

    def _last_layer(self, name: str, layer: Layer, state: list[Blocks], mask: Blocks) -> list[Blocks]:
        """Only what the first token needs: its query, broadcast, meets all keys at once. One level more."""
        builder = self.builder
        builder.stage = f"{name}: query, key, value"
        first = [[blocks[0]] for blocks in state]
        if layer.stream is None:
            x = state[0]
            (query,) = self._matrix(first, self._inputs([self._columns(layer.query)]))
        else:
            (x,) = self._matrix(state, self._split(layer.stream))
            (query,) = self._matrix(first, self._inputs([self._columns(layer.query)]))
        # The keys have a level to spare while the query is broadcast: to be made from x, which is cheaper, or to be centred.
        key_map, value_map = self._columns(layer.key), self._columns(layer.value)
        if layer.keys_centred:
            (key,) = self._matrix(state if layer.key_reads_state else [x], self._inputs([key_map]))
            key = self._centred(name, key, mask)
            (value,) = self._matrix([x], self._inputs([value_map]))
        else:
            key, value = self._matrix([x], self._inputs([key_map, value_map]))
        value = self._masked(value, mask)
        builder.stage = f"{name}: broadcast of the first query"
        chosen = self._broadcast_first_token(query[0])
        builder.stage = f"{name}: scores"
        attention = [self._polynomial(layer, self._head_sum(builder.multiply([chosen], [keys]))) for keys in key]
        builder.stage = f"{name}: attention times value"
        context = builder.rescale(builder.product_sum(attention, value))
        context = self._sum_over_tokens(context)
        return self._feed_forward(name, layer, [self._repeat(context)], x[:1])

    def _feed_forward(self, name: str, layer: Layer, context: Blocks, x: Blocks) -> list[Blocks]:
        """The new state: z = x + context·Wo and u = (context·A + x·B + c)², in blocks of width W. 2 levels."""
        if layer.up_from_context is None:
            raise PlanError("the network must be folded before it is lowered")
        builder = self.builder
        builder.stage = f"{name}: feed-forward"
        (own,) = self._inputs([self._rows(layer.context)])
        residual_map = ([own[0][0], None], own[1])
        wide = self._split(self._rows(layer.up_from_context))
        share, *hidden = self._matrix([context, x], [residual_map, *wide])
        builder.stage = f"{name}: residual and activation"
        z = [builder.add([part, block]) for part, block in zip(share, x, strict=True)]
        return [z, *([builder.multiply([t], [t]) for t in blocks] for blocks in hidden)]

    def _mean(self, state: list[Blocks], mask: Blocks) -> list[Blocks]:
        """The mean over the text's tokens, in every row. 1 level."""
        builder = self.builder
        builder.stage = "mean over tokens"
        means = []
        for blocks in state:
            total = builder.rescale(builder.product_sum(blocks, mask))
            means.append([self._repeat(self._sum_over_tokens(total))])
        return means

    # --- pieces ----------------------------------------------------------------------------------------------------

    def _masked(self, value: Blocks, mask: Blocks) -> Blocks:
        """Values times mask/n: zero for padding and in the second copy of every row. 1 level."""
        return [self.builder.multiply([part], [m]) for part, m in zip(value, mask, strict=True)]

    def _centred(self, name: str, key: Blocks, mask: Blocks) -> Blocks:
        """Keys less the text's mean key, those of padding too, which no value meets. 1 level."""
        builder = self.builder
        builder.stage = f"{name}: mean key"
        mean = self._repeat(self._sum_over_tokens(builder.multiply(key, mask)))
        return [builder.combine(builder.at_scale(part, mean.scale), mean, 2) for part in key]

    def _broadcast_first_token(self, value: Value) -> Value:
        """The first token's row in the rows of all tokens. 1 level."""
        masked = self.builder.weighted_sum([value], [self.layout.first_token_mask()], self.scale)
        return self._sum_over_tokens(self.builder.rescale(masked))

    def _sum_over_tokens(self, value: Value) -> Value:
        """Sum over the tokens of a block, broadcast over them."""
        return self._sum_over(value, [self.layout.row << k for k in range(self.layout.block_tokens.bit_length() - 1)])

    def _head_sum(self, product: Value) -> Value:
        """Sum over each head's features, broadcast over them (first copy of a row)."""
        strides = [self.shape.padded_heads << k for k in range(self.shape.padded_head_size.bit_length() - 1)]
        return self._sum_over(product, strides)

    def _polynomial(self, layer: Layer, score: Value) -> Value:
        return attention_polynomial(self.builder, layer, score, self._head_vector)

    def _head_vector(self, per_head: Array) -> Array:
        padded = self.shape.for_padded_heads(per_head)
        return self.layout.row_vector(np.tile(padded, self.shape.width // len(padded)), both_copies=False)

    def _sum_over(self, value: Value, steps: Sequence[int]) -> Value:
        for step in steps:
            value = self.builder.add([value, *self.builder.rotate(value, [step])])
        return value

    def _repeat(self, value: Value) -> Value:
        """Write the first copy of each row into the second, which must be zero."""
        return self._sum_over(value, [-self.layout.width])

    def _matrix(
        self,
        inputs: list[Blocks],
        maps: "Sequence[tuple[list[Array | None], Array]]",
        *,
        repeat: bool = True,
        alone: bool = False,
        target_scale: float | None = None,
    ) -> list[Blocks]:
        """One output for each map: sum over inputs of input·matrix, plus bias. Matrices are [W, W]. 1 level.

        The baby steps of every input are rotated once and shared by all maps; the giant steps of one map are shared by all
        inputs. The plaintexts are zero in the second copy of a row, so one more rotation repeats the result there.
        alone: the plaintexts are zero but for the first token's row, and so is the result: no slot tells of anything else.
        """
        builder = self.builder
        outputs: list[Blocks] = [[] for _ in maps]
        for block in range(len(inputs[0])):
            level = min(blocks[block].level for blocks in inputs)
            babies = [builder.rotate(builder.drop(blocks[block], level), range(self.baby_steps)) for blocks in inputs]
            for output, (matrices, bias) in zip(outputs, maps, strict=True):
                partial: list[Value] = []
                for giant in range(0, self.shape.width, self.baby_steps):
                    sums = [
                        self._diagonal_sum(rotated, matrix, giant, target_scale or self.scale, alone=alone)
                        for rotated, matrix in zip(babies, matrices, strict=True)
                        if matrix is not None
                    ]
                    present = [value for value in sums if value is not None]
                    if present:
                        partial.extend(builder.rotate(builder.add(present), [giant]))
                result = builder.rescale(builder.add(partial))
                result = builder.add_plain(result, self._row_vector(bias, alone=alone))
                output.append(self._repeat(result) if repeat else result)
        return outputs

    def _row_vector(self, features: Array, *, alone: bool) -> Array:
        """A plaintext of one row for the rows of all tokens, or for the first alone; zero in a row's second copy."""
        row = self.layout.row_vector(features, both_copies=False)
        if not alone:
            return row
        vector = np.zeros(self.layout.period)
        vector[: len(row)] = row
        return vector

    def _diagonal_sum(
        self, babies: Sequence[Value], matrix: Array, giant: int, target_scale: float, *, alone: bool
    ) -> Value | None:
        """Sum over baby steps of rotated input times diagonal, the diagonals turned back by the giant step."""
        features = np.arange(self.shape.width)
        values, vectors = [], []
        for baby, rotated in enumerate(babies):
            diagonal = matrix[(features + giant + baby) % self.shape.width, features]
            if diagonal.any():
                values.append(rotated)
                vectors.append(np.roll(self._row_vector(diagonal, alone=alone), giant))
        return self.builder.weighted_sum(values, vectors, target_scale) if values else None

    # --- matrices in slot order ------------------------------------------------------------------------------------

    def _columns(self, affine: Affine) -> Affine:
        """Outputs moved from head-contiguous to interleaved order."""
        width = self.shape.width

        def moved(matrix: Array) -> Array:
            padded = np.zeros((*matrix.shape[:-1], width))
            padded[..., self.positions] = matrix
            return padded

        return Affine(tuple(moved(matrix) for matrix in affine.matrices), moved(affine.bias))

    def _rows(self, affine: Affine) -> Affine:
        """Rows of the first matrix (which reads the attention's context) moved to interleaved order."""
        padded = np.zeros((self.shape.width, affine.matrices[0].shape[1]))
        padded[self.positions] = affine.matrices[0]
        return Affine((padded, *affine.matrices[1:]), affine.bias)

    def _inputs(self, maps: Sequence[Affine]) -> list[tuple[list[Array | None], Array]]:
        """Maps with at most W outputs: every input cut in blocks of width W, each padded to [W, W]."""
        return [part for affine in maps for part in self._split(affine)]

    def _split(self, affine: Affine) -> list[tuple[list[Array | None], Array]]:
        """One map for each block of W outputs; its matrices, one for each block of W inputs."""
        width = self.shape.width
        parts = []
        for start in range(0, len(affine.bias), width):
            matrices: list[Array | None] = []
            for matrix in affine.matrices:
                for row in range(0, matrix.shape[0], width):
                    piece = matrix[row : row + width, start : start + width]
                    padded = np.zeros((width, width))
                    padded[: piece.shape[0], : piece.shape[1]] = piece
                    matrices.append(padded)
            parts.append((matrices, affine.bias[start : start + width]))
        return parts
