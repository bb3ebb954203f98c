"""Lowering with attention as Hadamard sums (after Jiang, Kim, Lauter and Song 2018), rows and skew as in `rows`.

Scores of all token shifts lie side by side in a row, so that one relinearisation, one square and one product sum serve them all:

    S[t, w] = sum_k Q[t, c(w+k)]·K[t+w, c(w+k)]        Q rotated by k, the skewed K by k along the skew
    Y[t, f] = sum_k P[t, f+k]·V[t+f+k, f]              P rotated by k, the skewed V by k whole rows

Two real values share a slot wherever both meet the same operation: a + X^(N/2)·b. The skew costs a level: a layer takes 7
(6 with linear attention), the logits one more. Keys are centred beside the skew, which leaves their mean as it is, so that it
takes no level. Where the head reads the first token, the last layer works for it alone; where it
reads the mean, one more level goes into its mask.
"""

import math

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.interface import MOST_BABY_STEPS
from he_runtime.errors import PlanError
from he_runtime.lowering.attention_polynomial import attention_polynomial
from he_runtime.lowering.first_token import FirstTokenLayer
from he_runtime.lowering.row_masks import RowMasks
from he_runtime.lowering.row_operations import FRUGAL, HOISTED, Blocks, Map, RowOperations
from he_runtime.lowering.row_states import State, StateMaps
from he_runtime.lowering.row_weights import RowWeights
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
        self.builder = ProgramBuilder(parameters)
        self.scale = parameters.scale
        self.rows = RowOperations(self.builder, self.layout, baby_steps, hoisted_steps, baby_rounds)
        self.weights = RowWeights(self.layout, shape)
        self.states = StateMaps(self.rows, self.weights)
        first = network.pooling == "first"
        self.first_token = FirstTokenLayer(self.states, shape, network.classifier) if first else None

    def program(self) -> Program:
        """The whole program of the bucket."""
        builder, layout = self.builder, self.layout
        top = levels_needed_with_hadamard_sums(self.network)
        if top > builder.parameters.maximum_level:
            ring_degree, offered = builder.parameters.ring_degree, builder.parameters.maximum_level
            raise PlanError(f"needs {top} levels, this chain of N={ring_degree} offers {offered}; use a longer chain")
        builder.stage = "input"
        inputs = [builder.parts(builder.input(f"text.{block}", top)) for block in range(layout.blocks)]
        text, skewed = ([two[part] for two in inputs] for part in range(2))
        centred = any(layer.keys_centred for layer in self.network.layers)
        masks = RowMasks.of(self.rows, skewed, turned=centred)
        state = State(((text, (0, None)),))
        *layers, last = self.network.layers
        for index, layer in enumerate(layers):
            # A layer on all tokens makes four tensors of its state, one on the first token no more than two.
            packed = index == len(layers) - 1 and self.first_token is not None
            state = self._layer(f"layer {index + 1}", layer, state, masks, packed=packed)
        name = f"layer {len(layers) + 1}"
        if self.first_token is not None:
            self.first_token.write(name, last, state, masks)
        else:
            self._mean(self._layer(name, last, state, masks, packed=True, repeat=False), masks)
        return builder.build()

    # --- a layer on all tokens -------------------------------------------------------------------------------------

    def _layer(
        self,
        name: str,
        layer: Layer,
        state: State,
        masks: RowMasks,
        *,
        packed: bool,
        repeat: bool = True,
    ) -> State:
        """packed: two blocks of the new state in a ciphertext.

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
                mean = builder.real_part(masks.mean(blocks, self.scale))
                skewed[group] = [(builder.combine(key, mean, 2), value) for key, value in skewed[group]]
            builder.stage = f"{name}: skew of keys and values"
        # Only the keys are repeated: a second copy of the values would meet the masks that are not skewed.
        keys_by_group = [self.rows.repeated([key for key, _ in blocks], layout.pattern, once=True) for blocks in skewed]
        values_by_group = [
            [builder.multiply([value], [mask]) for (_, value), mask in zip(blocks, masks.skewed, strict=True)]
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

    def _queries_and_pairs(self, layer: Layer, state: State) -> tuple[Blocks, list[Blocks], list[Blocks]]:
        """x, and for each group of heads the queries, and keys + X^(N/2)·values: all from the same rotations. 1 level."""
        layout, groups = self.layout, range(self.layout.groups)
        queries = [self.weights.columns(layer.query, layout.pattern_features(group)) for group in groups]
        keys = [self.weights.columns(layer.key, layout.pattern_features(group)) for group in groups]
        values = [self.weights.columns(layer.value, self.weights.value_features(group)) for group in groups]
        if layer.stream is not None and not layer.value_reads_state:
            # One level earlier: values are skewed together with the keys.
            values = [value.after(layer.stream) for value in values]
        stream: list[Affine] = [] if layer.stream is None else [self.states.tiled(layer.stream)]
        pairs, reals = list(zip(keys, values, strict=True)), [*stream, *queries]
        beside = self._last_key_beside_query(layer)
        if beside:
            reals = [*reals[:-1], self._key_beside(queries[-1], layer), values[-1]]
            # A pair that is put together from two reals, which are parts, has twice the standard scale, and so have the others.
            made, products = self.states.maps_of(state, reals, pairs[:-1], 2 * self.scale)
            last_value = made.pop()
            last_key = [self.builder.rotate(block, [layout.group // 2])[0] for block in made[-1]]
            products.append([self.builder.combine(k, v, 1) for k, v in zip(last_key, last_value, strict=True)])
        else:
            made, products = self.states.maps_of(state, reals, pairs)
        x = self.rows.repeated(made.pop(0), layout.row // 2) if stream else state.parts[0][0]
        return x, made, products

    def _last_key_beside_query(self, layer: Layer) -> bool:
        """Whether the last group has heads to spare for its keys, in its query's ciphertext, and an output is saved by it."""
        layout, alone = self.layout, layer.stream is not None
        used = self.shape.heads - (layout.groups - 1) * layout.group
        # Outputs hold two real tensors each: the stream and queries two by two, then a pair for each group.
        before = -(-(alone + layout.groups) // 2) + layout.groups
        after = -(-(alone + layout.groups + 1) // 2) + layout.groups - 1
        return layout.groups > 1 and 0 < used <= layout.group // 2 and after < before

    def _key_beside(self, query: Affine, layer: Layer) -> Affine:
        """The last group's query, and in the second half of its heads, which it does not use, its key.

        What that half then makes of scores is nothing that anyone wants, and no value meets it.
        """
        layout = self.layout
        half = layout.group // 2
        features = layout.pattern_features(layout.groups - 1) - half * layout.head_size
        key = self.weights.columns(layer.key, features)
        second = np.arange(layout.pattern) % layout.group >= half
        matrices = zip(query.matrices, key.matrices, strict=True)
        return Affine(tuple(np.where(second, k, q) for q, k in matrices), np.where(second, key.bias, query.bias))

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
        heads = self.layout.head_of_position(group)
        return attention_polynomial(
            self.builder, layer, score, lambda per_head: self.shape.for_padded_heads(per_head)[heads]
        )

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
        (z, *hidden), _ = self.states.products([context, x], maps)
        builder.stage = f"{name}: activation"
        squares = [[builder.multiply([t], [t]) for t in blocks] for blocks in hidden]
        parts: list[tuple[Blocks, tuple[int, int | None]]] = [(repeated(z), (0, None))]
        for first in range(0, len(squares), 2 if packed else 1):
            two = squares[first : first + 2] if packed else squares[first : first + 1]
            blocks = [builder.combine(a, b, 1) for a, b in zip(*two, strict=True)] if len(two) == 2 else two[0]
            parts.append((repeated(blocks), (first + 1, first + 2 if len(two) == 2 else None)))
        return State(tuple(parts))

    # --- a head on the mean over tokens ----------------------------------------------------------------------------

    def _mean(self, state: State, masks: RowMasks) -> None:
        """The head's outputs where `RowLayout.output_positions` says, over and over, and zero beside them. 2 levels."""
        builder = self.builder
        builder.stage = "mean over tokens"
        means: list[tuple[Blocks, tuple[int, int | None]]] = []
        for blocks, which in state.parts:
            mean = self.rows.sum_over_rows(builder.multiply(blocks, masks.straight(blocks[0].level)))
            means.append((self.rows.repeated([mean], self.layout.width), which))
        builder.stage = "logits"
        # All rows hold the same mean, so that each can make other outputs of it.
        classifier = self.network.classifier
        count = len(classifier.bias)
        positions, length = self.layout.output_positions(count), self.layout.answer_slots(count)
        placed = self.weights.columns_at(classifier, positions, length)
        ((outputs,),), _ = self.states.maps_of(State(tuple(means)), [placed])
        builder.output("logits", outputs)
