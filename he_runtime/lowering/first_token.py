"""The last layer of the Hadamard lowering where the head reads the first token: one query against all keys, and the logits.

Once the context is the same in all rows, z and every block of the feed-forward layer are made by one matrix product, two at each
place of a row (a + X^(N/2)·b), in as many kinds of rows as it takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.errors import PlanError
from he_runtime.lowering.attention_polynomial import attention_polynomial
from he_runtime.lowering.row_masks import RowMasks
from he_runtime.lowering.row_operations import Blocks, Map, RowOperations
from he_runtime.lowering.row_states import State, StateMaps
from he_runtime.lowering.row_weights import RowWeights, paired, paired_bias
from he_runtime.lowering.shape import Shape
from he_runtime.network import Affine, Layer
from he_runtime.program import Value

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FirstTokenLayer:
    """Writes the layer and the classifier to a program. PlanError where a ciphertext has fewer rows than their outputs take."""

    states: StateMaps
    shape: Shape
    classifier: Affine

    def __post_init__(self) -> None:
        layout = self.rows.layout
        if layout.block_tokens < self.row_kinds:
            raise PlanError(
                f"the last layer needs {self.row_kinds} tokens in a ciphertext, bucket {layout.bucket} has fewer"
            )

    @property
    def rows(self) -> RowOperations:
        """Of the rows that states lie in."""
        return self.states.rows

    @property
    def weights(self) -> RowWeights:
        """Placed in them."""
        return self.states.weights

    @property
    def places(self) -> int:
        """Of a row: where outputs may lie, two at each, see `_output_place`."""
        return self.rows.layout.row // self.shape.width - 1

    @property
    def row_kinds(self) -> int:
        """Rows that z and the wide blocks take, a power of two."""
        needed = (2 + self.shape.wide_blocks) // 2
        return 1 << (-(-needed // self.places) - 1).bit_length()

    def write(self, name: str, layer: Layer, state: State, masks: RowMasks) -> None:
        """The layer and the head: 7 levels (linear: 6), and 1 for the logits."""
        builder, layout, shape = self.rows.builder, self.rows.layout, self.shape
        positions = shape.attention_positions()
        builder.stage = f"{name}: query, key, value"
        query, key, value = (
            self.weights.columns_at(affine, positions) for affine in (layer.query, layer.key, layer.value)
        )
        if layer.keys_centred:
            if layer.stream is not None:  # as early as the key, from the same rotations
                value = self.weights.columns_at(layer.value.after(layer.stream), positions)
            x, chosen, (keys, values) = self._stream_and_query(layer, state, query, [key, value])
            keys = self._centred(name, keys, masks)
        else:
            x, chosen, _ = self._stream_and_query(layer, state, query)
            both = paired(self.weights.padded(key.matrices[0]), self.weights.padded(value.matrices[0]))
            (pairs,) = self.rows.products([x], [((both,), paired_bias(key.bias, value.bias))])
            keys, values = (list(blocks) for blocks in zip(*(builder.parts(pair) for pair in pairs), strict=True))
        straight = masks.straight(values[0].level)
        values = [builder.multiply([v], [m]) for v, m in zip(values, straight, strict=True)]
        builder.stage = f"{name}: broadcast of the first token"
        chosen, x0 = self.rows.broadcast(chosen), self.rows.broadcast(x[0])
        builder.stage = f"{name}: scores"
        strides = [shape.padded_heads << k for k in range(shape.padded_head_size.bit_length() - 1)]
        attention = []
        for block in keys:
            (score,) = self.rows.repeated([builder.multiply([chosen], [block])], layout.width, once=True)
            score = self.rows.sum_over(score, strides)
            attention.append(attention_polynomial(builder, layer, score, self._head_vector))
        builder.stage = f"{name}: attention times value"
        context = self.rows.sum_over_rows(builder.multiply(attention, values))
        (context,) = self.rows.repeated([context], layout.width)
        builder.stage = f"{name}: feed-forward"
        # All rows hold the same now, so that each place in each kind of row makes two other blocks of the output.
        ((hidden,),) = self.rows.products([[context], [x0]], [self._output_map(layer)])
        builder.stage = f"{name}: activation"
        hidden_parts = builder.parts(hidden)
        squares = [builder.multiply([part], [part]) for part in hidden_parts]
        builder.stage = "logits"
        builder.output("logits", self._logits(hidden_parts[0], squares))

    def _stream_and_query(
        self, layer: Layer, state: State, query: Affine, others: Sequence[Affine] = ()
    ) -> tuple[Blocks, Value, list[Blocks]]:
        """x of all tokens, the first token's block of queries, and `others` of all tokens, from the same rotations. 1 level.

        Who asks for others has no use for x but of the first block, and gets no more of it.
        """

        def blocks(which: slice) -> State:
            return State(tuple((values[which], part) for values, part in state.parts))

        rows = self.rows
        stream = [] if layer.stream is None else [self.states.tiled(layer.stream)]
        made, _ = self.states.maps_of(blocks(slice(1)), [*stream, query, *others])
        (chosen,) = made.pop(len(stream))
        start = len(stream) if others else 0
        if rows.layout.blocks > 1 and made[start:]:
            more, _ = self.states.maps_of(blocks(slice(1, None)), others or stream)
            made[start:] = [[*first, *rest] for first, rest in zip(made[start:], more, strict=True)]
        x = rows.repeated(made.pop(0), rows.layout.row // 2) if stream else state.parts[0][0]
        return x, chosen, made

    def _centred(self, name: str, keys: Blocks, masks: RowMasks) -> Blocks:
        """Keys that are not skewed, less the text's mean key. 1 level."""
        builder = self.rows.builder
        builder.stage = f"{name}: mean key"
        scale = builder.parameters.scale
        mean = masks.mean(keys, scale)
        return [builder.combine(builder.at_scale(block, scale), mean, 2) for block in keys]

    def _head_vector(self, per_head: Array) -> Array:
        """A row whose first copy holds, by position, the number of the head that lies there."""
        padded = self.shape.for_padded_heads(per_head)
        first_copy = np.tile(padded, self.shape.width // len(padded))
        return np.pad(first_copy, (0, self.rows.layout.row - len(first_copy)))

    def _output_place(self, block: int) -> tuple[int, int]:
        """(part, position): where block `block` of z and the pre-activations lies among the rows' kinds.

        Two blocks share a place as a + X^(N/2)·b; a row has a place for each copy of its input but the last.
        """
        layout = self.rows.layout
        place, part = divmod(block, 2)
        kind, copy = divmod(place, self.places)
        return part, kind * layout.row + copy * layout.width

    def _output_map(self, layer: Layer) -> Map:
        """The map to z and all pre-activations at once, each at its place: matrices [W, kinds·R]."""
        residual, wide = self.weights.feed_forward_maps(layer, interleaved=True)
        width, length = self.rows.layout.width, self.row_kinds * self.rows.layout.row
        matrices = [np.zeros((2, width, length)) for _ in range(2)]
        bias = np.zeros((2, length))
        for block, (*own, constant) in enumerate([residual, *wide]):
            part, position = self._output_place(block)
            place = slice(position, position + width)
            bias[part, place] = constant
            for matrix, mine in zip(matrices, own, strict=True):
                matrix[part, :, place] = mine
        return [paired(*matrix) for matrix in matrices], paired_bias(*bias)

    def _logits(self, real: Value, squares: Sequence[Value]) -> Value:
        """Two classes in a slot: real and imaginary part; J slots in turn hold all pairs, in every slot of the ciphertext.

        real: the real part of what `_output_map` made, which z is in; squares: of the real and the imaginary part.
        """
        builder, layout, classifier = self.rows.builder, self.rows.layout, self.classifier
        width, classes = layout.width, len(classifier.bias)
        pairs = 1 << ((classes + 1) // 2 - 1).bit_length()
        length = self.row_kinds * layout.row
        weights = np.zeros((3, 2 * pairs, length))  # of z, of the real part's squares, of the imaginary part's
        for block, matrix in enumerate(self.weights.state_blocks(classifier)):
            part, position = self._output_place(block)
            weights[part + 1 if block else 0, :classes, position : position + width] = matrix[:, :classes].T
        bias = np.zeros(2 * pairs)
        bias[:classes] = classifier.bias
        terms = []
        places = np.arange(length)
        for source, own in zip((builder.drop(real, squares[0].level), *squares), weights, strict=True):
            if not own.any():
                continue
            packed = own[0::2] + 1j * own[1::2]
            vectors = [packed[places % pairs, (places + r) % length] for r in range(pairs)]
            turned = builder.rotate(source, range(pairs))
            terms.append(builder.weighted_sum(turned, vectors, builder.parameters.answer_scale))
        total = builder.rescale(builder.add(terms))
        # Rows of one kind are all alike, so that a sum over `length` slots, from any on, is the sum over all places.
        total = self.rows.sum_over(total, [pairs << k for k in range((length // pairs).bit_length() - 1)])
        return builder.add_plain(total, bias[0::2] + 1j * bias[1::2])
