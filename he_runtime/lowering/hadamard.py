"""Lowering with attention as Hadamard sums (after Jiang, Kim, Lauter and Song 2018), rows and skew as in `rows`.

Scores of all token shifts lie side by side in a row, so that one relinearisation, one square and one product sum serve them all:

    S[t, w] = sum_k Q[t, c(w+k)]·K[t+w, c(w+k)]        Q rotated by k, the skewed K by k along the skew
    Y[t, f] = sum_k P[t, f+k]·V[t+f+k, f]              P rotated by k, the skewed V by k whole rows

Two real values share a slot wherever both meet the same operation: a + X^(N/2)·b. The skew costs a level: a layer takes 7
(6 with linear attention), the logits one more. Keys are centred beside the skew, which leaves their mean as it is, so that it
takes no level. Where the head reads the first token, the last layer works for it alone; where it
reads the mean, one more level goes into its mask.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.interface import MOST_BABY_STEPS
from he_runtime.errors import PlanError
from he_runtime.lowering.row_operations import FRUGAL, HOISTED, Blocks, Map, RowOperations
from he_runtime.lowering.row_weights import RowWeights, paired, paired_bias
from he_runtime.lowering.rows import RowLayout
from he_runtime.lowering.shape import Shape
from he_runtime.network import Affine, Layer, Network
from he_runtime.parameters import Parameters
from he_runtime.program import Program, ProgramBuilder, Value

Array = NDArray[np.float64]


def levels_needed_with_hadamard_sums(network: Network) -> int:
    """Levels of the program: what a fresh ciphertext must offer."""
    layers = sum(6 + bool(layer.attention[:, 0].any()) for layer in network.layers)
    return layers + 1 + (network.pooling == "mean")


@dataclass(frozen=True)
class State:
    """What a layer reads: ciphertexts repeated along their rows, each holding one or two blocks of W features.

    `blocks` says which: (a, b) for a + X^(N/2)·b, (a, None) for a alone, counted over the concatenated, padded state arrays.
    """

    parts: tuple[tuple[Blocks, tuple[int, int | None]], ...]

    @property
    def packed(self) -> bool:
        """Whether a ciphertext holds two blocks: fewer inputs of matrix products, whose outputs then take one each."""
        return any(second is not None for _, (_, second) in self.parts)


class HadamardLowering:
    """Lowers one network for one bucket. PlanError where the ring is too small for its rows or its levels."""

    @staticmethod
    def choices(shape: Shape) -> list[dict[str, int]]:
        """Ways to split matrix products in baby and giant steps that may be worth it: the square root, and twice as many.

        A baby step is cheaper than a giant one, but each has a key of its own. Where the root is no power of two, both its
        neighbours count.
        """
        bits = math.log2(shape.width)
        below, above = 1 << math.floor(bits / 2), 1 << math.ceil(bits / 2)
        most = min(shape.width, MOST_BABY_STEPS)
        return [
            {"baby_steps": steps} for steps in sorted({min(max(2, steps), most) for steps in (below, above, 2 * above)})
        ]

    @staticmethod
    def frugal_choices(shape: Shape) -> list[dict[str, int]]:
        """More where the keys of `choices` are too large: fewer baby steps, in two rounds, or fewer keys of other rotations."""
        most = max(choice["baby_steps"] for choice in HadamardLowering.choices(shape))
        return [
            {"baby_steps": most * share // 16, "hoisted_steps": hoisted, "baby_rounds": rounds}
            for share, hoisted, rounds in ((15, FRUGAL, 1), (11, FRUGAL, 2), (9, HOISTED, 2))
        ]

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        bucket: int,
        baby_steps: int,
        hoisted_steps: int = HOISTED,
        baby_rounds: int = 1,
    ) -> None:
        self.network = network
        self.shape = Shape.of(network)
        shape = self.shape
        self.layout = RowLayout.choose(
            parameters.slots, shape.width, shape.padded_heads, shape.padded_head_size, bucket
        )
        # Of a last layer for the first token alone the outputs, z and the wide blocks, two at a place: see `_output_place`.
        self.places = self.layout.row // shape.width - 1
        needed = (2 + shape.wide_blocks) // 2
        self.row_kinds = 1 << (-(-needed // self.places) - 1).bit_length()
        if network.pooling == "first" and self.layout.block_tokens < self.row_kinds:
            raise PlanError(f"the last layer needs {self.row_kinds} tokens in a ciphertext, bucket {bucket} has fewer")
        self.builder = ProgramBuilder(parameters)
        self.scale = parameters.scale
        self.rows = RowOperations(self.builder, self.layout, baby_steps, hoisted_steps, baby_rounds)
        self.weights = RowWeights(self.layout, shape)

    def program(self) -> Program:
        """The whole program of the bucket."""
        builder, layout = self.builder, self.layout
        top = levels_needed_with_hadamard_sums(self.network)
        if top > builder.parameters.maximum_level:
            ring_degree, offered = builder.parameters.ring_degree, builder.parameters.maximum_level
            raise PlanError(f"needs {top} levels, this chain of N={ring_degree} offers {offered}; use a longer chain")
        builder.stage = "input"
        text, mask = [], []
        for block in range(layout.blocks):
            features, masks = builder.parts(builder.input(f"text.{block}", top))
            text.append(features)
            mask.append(masks)
        centred = any(layer.keys_centred for layer in self.network.layers)
        straight = self._straight(mask, top) if centred else []  # turned once for all layers
        state = State(((text, (0, None)),))
        *layers, last = self.network.layers
        for index, layer in enumerate(layers):
            # A layer on all tokens makes four tensors of its state, one on the first token no more than two.
            packed = index == len(layers) - 1 and self.network.pooling == "first"
            state = self._layer(f"layer {index + 1}", layer, state, mask, straight, packed=packed)
        name = f"layer {len(layers) + 1}"
        if self.network.pooling == "first":
            self._last_layer(name, last, state, mask, straight)
        else:
            self._mean(self._layer(name, last, state, mask, straight, packed=True, repeat=False), mask)
        return builder.build()

    # --- a layer on all tokens -------------------------------------------------------------------------------------

    def _layer(
        self,
        name: str,
        layer: Layer,
        state: State,
        mask: Blocks,
        straight: Blocks,
        *,
        packed: bool,
        repeat: bool = True,
    ) -> State:
        """mask, straight: skewed and not, the latter where keys are centred. packed: two blocks of the new state in a ciphertext.

        repeat: for a layer to come; otherwise the new state lies in the first W positions of a row, and zero beside it.
        """
        builder, layout = self.builder, self.layout
        builder.stage = f"{name}: query, key, value"
        x, queries, pairs = self._queries_and_pairs(layer, state)
        queries = [self.rows.repeated(blocks, layout.pattern, once=True) for blocks in queries]
        builder.stage = f"{name}: skew of keys and values"
        skewed = [[builder.parts(self.rows.skew(block)) for block in blocks] for blocks in pairs]
        if layer.keys_centred:
            # The skew leaves the mean, which all rows have in common, as it is: it is made beside it.
            builder.stage = f"{name}: mean key"
            for group, blocks in enumerate(pairs):
                mean = builder.real_part(self._mean_of(blocks, straight, self.scale))
                skewed[group] = [(builder.combine(key, mean, 2), value) for key, value in skewed[group]]
        # Only the keys are repeated: a second copy of the values would meet the masks that are not skewed.
        keys_by_group = [self.rows.repeated([key for key, _ in blocks], layout.pattern, once=True) for blocks in skewed]
        values_by_group = [
            [builder.multiply([value], [masks]) for (_, value), masks in zip(blocks, mask, strict=True)]
            for blocks in skewed
        ]
        context: list[Blocks] = [[] for _ in range(layout.blocks)]
        for group in range(layout.groups):
            builder.stage = f"{name}: scores"
            scores = self._scores(queries[group], keys_by_group[group])
            builder.stage = f"{name}: attention polynomial"
            attention = [[self._polynomial(layer, score, group) for score in row] for row in scores]
            builder.stage = f"{name}: attention times value"
            for block, part in enumerate(self._attend(attention, values_by_group[group])):
                context[block].extend(builder.rotate(part, [-group * layout.group * layout.head_size]))
        merged = [builder.real_part(builder.add(parts)) for parts in context]
        repeated = self.rows.repeated(merged, layout.width)
        return self._feed_forward(name, layer, repeated, x, packed=packed, repeat=repeat)

    def _mean_of(self, blocks: Blocks, straight: Blocks, scale: float) -> Value:
        """The mean over the text's tokens in every row, at exactly that scale. 1 level, and one more that the masks have."""
        level = blocks[0].level
        mask_scale = scale * self.builder.parameters.primes[level] / blocks[0].scale
        masks = [self.builder.at_scale(self.builder.drop(m, level + 1), mask_scale) for m in straight]
        return self.rows.sum_over_rows(self.builder.multiply(blocks, masks))

    def _straight(self, mask: Blocks, level: int) -> Blocks:
        """The masks that are not skewed, in all but the last W positions of a row, where nothing may lie that they meet."""
        return [self.builder.rotate(self.builder.drop(m, level), [self.layout.width])[0] for m in mask]

    def _queries_and_pairs(self, layer: Layer, state: State) -> tuple[Blocks, list[Blocks], list[Blocks]]:
        """x, and for each group of heads the queries, and keys + X^(N/2)·values: all from the same rotations. 1 level."""
        layout, groups = self.layout, range(self.layout.groups)
        queries = [self.weights.columns(layer.query, layout.pattern_features(group)) for group in groups]
        keys = [self.weights.columns(layer.key, layout.pattern_features(group)) for group in groups]
        values = [self.weights.columns(layer.value, self.weights.value_features(group)) for group in groups]
        if layer.stream is not None and not layer.value_reads_state:
            stream = layer.stream  # one level earlier: values are skewed together with the keys
            values = [value.after(stream) for value in values]
        if self._last_key_beside_query(layer):
            return self._queries_and_pairs_in_fewer(layer, state, queries, keys, values)
        if layer.stream is None:
            x = state.parts[0][0]
            whole = [[self._map(state, affine) for affine in affines] for affines in (queries, keys, values)]
            made, pairs = self._products([x], whole[0], list(zip(*whole[1:], strict=True)))
            return x, made, pairs
        (stream_blocks, *made), pairs = self._from_state(
            state, [self._tiled(layer.stream), *queries], list(zip(keys, values, strict=True))
        )
        return self.rows.repeated(stream_blocks, layout.row // 2), made, pairs

    def _last_key_beside_query(self, layer: Layer) -> bool:
        """Whether the last group has heads to spare for its keys, in its query's ciphertext, and an output is saved by it."""
        layout, alone = self.layout, layer.stream is not None
        used = self.shape.heads - (layout.groups - 1) * layout.group
        # Outputs hold two real tensors each: the stream and queries two by two, then a pair for each group.
        before = -(-(alone + layout.groups) // 2) + layout.groups
        after = -(-(alone + layout.groups + 1) // 2) + layout.groups - 1
        return layout.groups > 1 and 0 < used <= layout.group // 2 and after < before

    def _queries_and_pairs_in_fewer(
        self, layer: Layer, state: State, queries: list[Affine], keys: list[Affine], values: list[Affine]
    ) -> tuple[Blocks, list[Blocks], list[Blocks]]:
        """As `_queries_and_pairs`, the last group's key in the second half of its query's heads, which are none. 1 level.

        What the query's second half then makes of scores is nothing that anyone wants, and no value meets it.
        """
        builder, half = self.builder, self.layout.group // 2
        key = self.weights.columns(
            layer.key, self.layout.pattern_features(self.layout.groups - 1) - half * self.shape.padded_head_size
        )
        second = np.arange(self.layout.pattern) % self.layout.group >= half
        beside = Affine(
            tuple(np.where(second, k, q) for q, k in zip(queries[-1].matrices, key.matrices, strict=True)),
            np.where(second, key.bias, queries[-1].bias),
        )
        stream = [] if layer.stream is None else [self._tiled(layer.stream)]
        reals = [*stream, *queries[:-1], beside, values[-1]]
        made, pairs = self._from_state(state, reals, list(zip(keys[:-1], values[:-1], strict=True)), 2 * self.scale)
        *made, last_value = made
        turned = [builder.rotate(block, [half])[0] for block in made[-1]]
        pairs.append([builder.combine(k, v, 1) for k, v in zip(turned, last_value, strict=True)])
        x = self.rows.repeated(made.pop(0), self.layout.row // 2) if stream else state.parts[0][0]
        return x, made, pairs

    def _scores(self, query: Blocks, key: Blocks) -> list[list[Value]]:
        """S of every block of queries with every block of keys, periodic along B·tokens positions of a line. 1 level."""
        builder, layout = self.builder, self.layout
        step, along = layout.group, layout.group - layout.row
        half = layout.window // 2
        if half:
            query = [builder.combine(q, builder.rotate(q, [step * half])[0], 3) for q in query]
            key = [builder.combine(k, builder.rotate(k, [along * half])[0], 1) for k in key]
        turned_queries = [self.rows.multiples(q, step, half or 1) for q in query]
        scores: list[list[Value]] = [[] for _ in query]
        for k in key:  # one block's rotations at a time: they are most of what is alive here
            turned_key = self.rows.multiples(k, along, half or 1)
            for row, turned_query in zip(scores, turned_queries, strict=True):
                score = builder.multiply(turned_query, turned_key)
                score = builder.real_part(score) if half else score
                for bit in range(layout.parts.bit_length() - 1):
                    score = builder.add([score, *builder.rotate(score, [layout.group * layout.block_tokens << bit])])
                row.append(score)
        return scores

    def _polynomial(self, layer: Layer, score: Value, group: int) -> Value:
        """(score + β)² + γ, or score + γ: what folding left of the attention polynomial. 1 level (linear: 0)."""
        builder, heads = self.builder, self.layout.head_of_position(group)

        def by_head(per_head: Array) -> Array:
            padded = np.zeros(self.shape.padded_heads)
            padded[: len(per_head)] = per_head
            return np.asarray(padded[heads], np.float64)

        if layer.attention[:, 0].any():
            score = builder.add_plain(score, by_head(layer.score_shift))
            score = builder.multiply([score], [score])
        return builder.add_plain(score, by_head(layer.attention[:, 2]))

    def _attend(self, attention: list[list[Value]], value: Blocks) -> Blocks:
        """Y of every block, whose real part counts. 1 level."""
        builder, layout = self.builder, self.layout
        half = layout.block_tokens // 2
        level = attention[0][0].level
        value = [builder.drop(v, level) for v in value]
        ahead = [builder.rotate(v, [half * layout.row])[0] for v in value]
        # A relinearisation for each block of values is cheaper than to keep the rotations of all blocks alive.
        results: list[Blocks] = [[] for _ in attention]
        for block, (v, other) in enumerate(zip(value, ahead, strict=True)):
            turned_value = self._turned_rows(v, other)
            for terms, row in zip(results, attention, strict=True):
                packed = builder.combine(row[block], builder.rotate(row[block], [layout.group * half])[0], 3)
                terms.append(builder.multiply(self.rows.multiples(packed, layout.group, half), turned_value))
        return [builder.add(terms) for terms in results]

    def _turned_rows(self, value: Value, ahead: Value) -> list[Value]:
        """A block's values turned by 0, 1, ... rows, half as many as it has tokens; the other half beside them as X^(N/2)."""
        builder, layout = self.builder, self.layout
        half = layout.block_tokens // 2
        # A rotation by an odd step turns the sign of X^(N/2) in the slots, so its partner must have the other sign.
        even, *odd = [builder.combine(value, ahead, power) for power in ((1, 3) if layout.group % 2 else (1,))]
        if not odd:
            return self.rows.multiples(even, layout.row, half, self.rows.hoisted_rows)
        evens = self.rows.multiples(even, 2 * layout.row, -(-half // 2), -(-self.rows.hoisted_rows // 2))
        (odd_row,) = builder.rotate(odd[0], [layout.row])
        odds = self.rows.multiples(odd_row, 2 * layout.row, half // 2, -(-self.rows.hoisted_rows // 2))
        return [(evens, odds)[k % 2][k // 2] for k in range(half)]

    def _feed_forward(
        self, name: str, layer: Layer, context: Blocks, x: Blocks, *, packed: bool, repeat: bool
    ) -> State:
        """z = x + context·Wo and u = (context·A + x·B + c)², in one or two blocks of W a ciphertext. 2 levels."""
        builder, half_row = self.builder, self.layout.row // 2
        builder.stage = f"{name}: feed-forward"
        residual, wide = self.weights.feed_forward_maps(layer, interleaved=False)
        copies = half_row // self.layout.width if repeat else 1

        def repeated(blocks: Blocks) -> Blocks:
            return self.rows.repeated(blocks, half_row) if repeat else blocks

        maps: list[Map] = [
            ([np.tile(matrix, copies) for matrix in matrices], np.tile(bias, copies))
            for *matrices, bias in (residual, *wide)
        ]
        (z, *hidden), _ = self._products([context, x], maps)
        builder.stage = f"{name}: activation"
        squares = [[builder.multiply([t], [t]) for t in blocks] for blocks in hidden]
        parts: list[tuple[Blocks, tuple[int, int | None]]] = [(repeated(z), (0, None))]
        for first in range(0, len(squares), 2 if packed else 1):
            two = squares[first : first + 2] if packed else squares[first : first + 1]
            blocks = [builder.combine(a, b, 1) for a, b in zip(*two, strict=True)] if len(two) == 2 else two[0]
            parts.append((repeated(blocks), (first + 1, first + 2 if len(two) == 2 else None)))
        return State(tuple(parts))

    # --- a head on the mean over tokens ----------------------------------------------------------------------------

    def _mean(self, state: State, mask: Blocks) -> None:
        """The head's outputs where `RowLayout.output_positions` says, over and over, and zero beside them. 2 levels."""
        builder = self.builder
        builder.stage = "mean over tokens"
        means: list[tuple[Blocks, tuple[int, int | None]]] = []
        for blocks, which in state.parts:
            mean = self.rows.sum_over_rows(builder.multiply(blocks, self._straight(mask, blocks[0].level)))
            means.append((self.rows.repeated([mean], self.layout.width), which))
        builder.stage = "logits"
        # All rows hold the same mean, so that each can make other outputs of it.
        classifier = self.network.classifier
        count = len(classifier.bias)
        positions, length = self.layout.output_positions(count), self.layout.answer_slots(count)
        placed = self.weights.columns_at(classifier, positions, length)
        ((outputs,),), _ = self._from_state(State(tuple(means)), [placed])
        builder.output("logits", outputs)

    # --- the last layer, for the first token -----------------------------------------------------------------------

    def _last_layer(self, name: str, layer: Layer, state: State, mask: Blocks, straight: Blocks) -> None:
        builder, layout, shape = self.builder, self.layout, self.shape
        positions = shape.attention_positions()
        builder.stage = f"{name}: query, key, value"
        query, key, value = (
            self.weights.columns_at(affine, positions) for affine in (layer.query, layer.key, layer.value)
        )
        if layer.keys_centred:
            if layer.stream is not None:  # as early as the key, from the same rotations
                value = self.weights.columns_at(layer.value.after(layer.stream), positions)
            x, chosen, (keys, values) = self._stream_and_query(layer, state, query, [key, value])
            keys = self._centred(name, keys, straight)
        else:
            x, chosen, _ = self._stream_and_query(layer, state, query)
            both = paired(self.weights.padded(key.matrices[0]), self.weights.padded(value.matrices[0]))
            (pairs,) = self.rows.products([x], [((both,), paired_bias(key.bias, value.bias))])
            keys, values = (list(blocks) for blocks in zip(*(builder.parts(pair) for pair in pairs), strict=True))
        masks = self._straight(mask, values[0].level)
        values = [builder.multiply([v], [m]) for v, m in zip(values, masks, strict=True)]
        builder.stage = f"{name}: broadcast of the first token"
        chosen, x0 = self.rows.broadcast(chosen), self.rows.broadcast(x[0])
        builder.stage = f"{name}: scores"
        strides = [shape.padded_heads << k for k in range(shape.padded_head_size.bit_length() - 1)]
        attention = []
        for block in keys:
            (score,) = self.rows.repeated([builder.multiply([chosen], [block])], layout.width, once=True)
            attention.append(self._all_heads(layer, self.rows.sum_over(score, strides)))
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
        """x of all tokens, the first token's block of queries, and `others` of all tokens, from the same rotations. 1 level."""

        def blocks(which: slice) -> State:
            return State(tuple((values[which], part) for values, part in state.parts))

        stream = [] if layer.stream is None else [self._tiled(layer.stream)]
        made, _ = self._from_state(blocks(slice(1)), [*stream, query, *others])
        (chosen,) = made.pop(len(stream))
        if self.layout.blocks > 1 and made:
            more, _ = self._from_state(blocks(slice(1, None)), [*stream, *others])
            made = [[*first, *rest] for first, rest in zip(made, more, strict=True)]
        x = self.rows.repeated(made.pop(0), self.layout.row // 2) if stream else state.parts[0][0]
        return x, chosen, made

    def _centred(self, name: str, keys: Blocks, straight: Blocks) -> Blocks:
        """Keys that are not skewed, less the text's mean key. 1 level."""
        builder = self.builder
        builder.stage = f"{name}: mean key"
        mean = self._mean_of(keys, straight, self.scale)
        return [builder.combine(builder.at_scale(block, self.scale), mean, 2) for block in keys]

    def _all_heads(self, layer: Layer, score: Value) -> Value:
        builder, shape = self.builder, self.shape
        heads = np.arange(self.layout.row) % shape.padded_heads

        def by_head(per_head: Array) -> Array:
            padded = np.zeros(shape.padded_heads)
            padded[: len(per_head)] = per_head
            return np.where(np.arange(self.layout.row) < shape.width, padded[heads], 0.0)

        if layer.attention[:, 0].any():
            score = builder.add_plain(score, by_head(layer.score_shift))
            score = builder.multiply([score], [score])
        return builder.add_plain(score, by_head(layer.attention[:, 2]))

    def _output_place(self, block: int) -> tuple[int, int]:
        """(part, position): where block `block` of z and the pre-activations lies among the rows' kinds.

        Two blocks share a place as a + X^(N/2)·b; a row has a place for each copy of its input but the last.
        """
        layout = self.layout
        place, part = divmod(block, 2)
        kind, copy = divmod(place, self.places)
        return part, kind * layout.row + copy * layout.width

    def _output_map(self, layer: Layer) -> Map:
        """The map to z and all pre-activations at once, each at its place: matrices [W, kinds·R]."""
        residual, wide = self.weights.feed_forward_maps(layer, interleaved=True)
        width, length = self.layout.width, self.row_kinds * self.layout.row
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
        builder, layout, classifier = self.builder, self.layout, self.network.classifier
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
            terms.append(builder.weighted_sum(builder.rotate(source, range(pairs)), vectors, self.scale))
        total = builder.rescale(builder.add(terms))
        # Rows of one kind are all alike, so that a sum over `length` slots, from any on, is the sum over all places.
        total = self.rows.sum_over(total, [pairs << k for k in range((length // pairs).bit_length() - 1)])
        return builder.add_plain(total, bias[0::2] + 1j * bias[1::2])

    # --- the state -------------------------------------------------------------------------------------------------

    def _products(
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
        scales = [self.scale] * (alone + len(twos)) + [scale_of_pairs or self.scale] * len(pairs)
        made = self.rows.products(inputs, [*maps[:alone], *(_pair(*two) for two in (*twos, *pairs))], scales)
        split = [[self.builder.parts(value) for value in blocks] for blocks in made[alone : alone + len(twos)]]
        real = [[two[part] for two in blocks] for blocks in split for part in range(2)]
        return [*made[:alone], *real], made[alone + len(twos) :]

    def _from_state(
        self,
        state: State,
        affines: Sequence[Affine],
        pairs: Sequence[tuple[Affine, Affine]] = (),
        scale_of_pairs: float | None = None,
    ) -> tuple[list[Blocks], list[Blocks]]:
        """Affine maps of the state as real values, and pairs of them as a + X^(N/2)·b. 1 level.

        scale_of_pairs: the standard one if None. Of a packed state they have twice the standard one, whatever is asked.
        """
        inputs, count = [values for values, _ in state.parts], len(affines)
        if not state.packed:
            pair_maps = [(self._map(state, first), self._map(state, second)) for first, second in pairs]
            return self._products(inputs, [self._map(state, affine) for affine in affines], pair_maps, scale_of_pairs)
        # Of (a + X^(N/2)·b)·(A - i·sign·B) only the real part, a·A + b·B, is wanted.
        every = [*affines, *itertools.chain.from_iterable(pairs)]
        made = self.rows.products(inputs, [self._map(state, affine) for affine in every])
        real = [[self.builder.real_part(value) for value in blocks] for blocks in made]
        packed = [
            [self.builder.combine(a, b, 1) for a, b in zip(first, second, strict=True)]
            for first, second in zip(real[count::2], real[count + 1 :: 2], strict=True)
        ]
        return real[:count], packed

    def _map(self, state: State, affine: Affine) -> Map:
        """Matrices for the state's ciphertexts."""
        signs = np.resize([1.0, -1.0], self.layout.width)[:, None]
        blocks = self.weights.state_blocks(affine)
        return [
            blocks[first] if second is None else blocks[first] - 1j * signs * blocks[second]
            for _, (first, second) in state.parts
        ], affine.bias

    def _tiled(self, stream: Affine) -> Affine:
        """What makes x of the state, for the first half of a row."""
        copies = self.layout.row // 2 // self.layout.width
        stream = self.weights.columns_at(stream, np.arange(len(stream.bias)))
        return Affine(tuple(np.tile(matrix, copies) for matrix in stream.matrices), np.tile(stream.bias, copies))


def _pair(first: Map, second: Map) -> Map:
    """The map to a + X^(N/2)·b, its outputs as many as those of the wider one."""
    length = max(len(bias) for _, bias in (first, second))

    def wide(matrix: NDArray[np.number]) -> Array:
        return np.asarray(np.pad(matrix, [(0, 0)] * (matrix.ndim - 1) + [(0, length - matrix.shape[-1])]), np.float64)

    matrices = [paired(wide(a), wide(b)) for a, b in zip(first[0], second[0], strict=True)]
    return matrices, paired_bias(wide(first[1]), wide(second[1]))
