"""Lowering with attention as Hadamard sums (after Jiang, Kim, Lauter and Song 2018), rows and skew as in `rows`.

Scores of all token shifts lie side by side in a row, so that one relinearisation, one square and one product sum serve them all:

    S[t, w] = sum_k Q[t, c(w+k)]·K[t+w, c(w+k)]        Q rotated by k, the skewed K by k along the skew
    Y[t, f] = sum_k P[t, f+k]·V[t+f+k, f]              P rotated by k, the skewed V by k whole rows: `_attend_to`

Two real values share a slot wherever both meet the same operation: a + X^(N/2)·b. The skew costs a level: a layer takes 7
(6 with linear attention), the logits one more. Keys are centred beside the skew, which leaves their mean as it is, so that it
takes no level. Where the head reads the first token, the last layer works for it alone; where it reads the mean, one more level
goes into its mask.
"""

import math

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.interface import MOST_BABY_STEPS
from he_runtime.errors import PlanError
from he_runtime.lowering.attention_polynomial import attention_polynomial
from he_runtime.lowering.first_token import FirstTokenLayer
from he_runtime.lowering.projections import ProjectionMaps
from he_runtime.lowering.row_masks import RowMasks
from he_runtime.lowering.row_operations import FRUGAL, HOISTED, STRIDE, Blocks, Map, RowOperations
from he_runtime.lowering.row_states import State, StateMaps
from he_runtime.lowering.row_weights import RowWeights
from he_runtime.lowering.rows import RowLayout
from he_runtime.lowering.shape import Shape
from he_runtime.network import Layer, Network
from he_runtime.parameters import Parameters
from he_runtime.program import Program, ProgramBuilder, Value

Array = NDArray[np.float64]

MOST_TURNED = 32
"""Rotations of a group's attention that are kept at once. More would save relinearisations where a text takes more than two
ciphertexts, and take gigabytes in a deep model."""


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
        most = max(2, min(shape.width // STRIDE, MOST_BABY_STEPS))
        return [
            {"baby_steps": steps} for steps in sorted({min(max(2, steps), most) for steps in (below, above, 2 * above)})
        ]

    @staticmethod
    def frugal_choices(shape: Shape) -> list[dict[str, int]]:
        """More where the keys of `choices` are too large: fewer baby steps, or fewer keys of other rotations."""
        most = max(choice["baby_steps"] for choice in HadamardLowering.choices(shape))
        return [
            {"baby_steps": max(2, most * share // 16), "hoisted_steps": hoisted}
            for share, hoisted in ((11, HOISTED), (11, FRUGAL), (8, FRUGAL))
        ]

    def __init__(
        self,
        network: Network,
        parameters: Parameters,
        bucket: int,
        baby_steps: int,
        hoisted_steps: int = HOISTED,
    ) -> None:
        self.network = network
        self.shape = Shape.of(network)
        shape = self.shape
        self.layout = RowLayout.choose(
            parameters.slots, shape.width, shape.padded_heads, shape.padded_head_size, bucket
        )
        self.builder = ProgramBuilder(parameters)
        self.scale = parameters.scale
        self.rows = RowOperations(self.builder, self.layout, baby_steps, hoisted_steps)
        self.weights = RowWeights(self.layout, shape)
        self.states = StateMaps(self.rows, self.weights)
        self.projections = ProjectionMaps(self.states, shape)
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
        *layers, last = self.network.layers
        all_tokens = bool(layers) or self.first_token is None
        if all_tokens and layout.block_tokens < 2:
            raise PlanError(
                f"a ciphertext of {layout.slots} slots holds one token, attention needs two; use a larger ring"
            )
        state = State(((self.rows.beside(text) if all_tokens else text, (0, None)),))
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
        """packed: two blocks of the new state's features in a ciphertext, and one of tokens.

        repeat: for a layer to come; otherwise the new state lies in the first W positions of a row, and zero beside it.
        """
        builder, layout = self.builder, self.layout
        builder.stage = f"{name}: query, key, value"
        made = self.projections.of(layer, state)
        queries = [self.rows.repeated(blocks, layout.pattern, once=True) for blocks in made.queries]
        builder.stage = f"{name}: skew of keys and values"
        skewed = [
            self.projections.keys_and_values([self.rows.skew(block) for block in blocks]) for blocks in made.unskewed
        ]
        keys_by_group = [keys for keys, _ in skewed]
        if layer.keys_centred:
            # The skew leaves the mean, which all rows have in common, as it is: it is made beside it.
            builder.stage = f"{name}: mean key"
            means = masks.real_means(made.keys, 2 * self.scale)
            keys_by_group = [
                [builder.combine(key, mean, 2) for key in keys] for keys, mean in zip(keys_by_group, means, strict=True)
            ]
            builder.stage = f"{name}: skew of keys and values"
        # Only the keys are repeated: a second copy of the values would meet the masks that are not skewed.
        keys_by_group = [self.rows.repeated(keys, layout.pattern, once=True) for keys in keys_by_group]
        values_by_group = [
            [builder.multiply([value], [mask]) for value, mask in zip(values, masks.skewed, strict=True)]
            for _, values in skewed
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
        merged = self.rows.beside([builder.real_part(builder.add(parts)) for parts in context])
        repeated = self.rows.repeated(merged, layout.width)
        return self._feed_forward(name, layer, repeated, made.x, packed=packed, repeat=repeat)

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
        results: list[Blocks] = [[] for _ in attention]
        at_once = max(1, MOST_TURNED // (len(attention) * self._babies_of_attention))
        for first in range(0, len(value), at_once):
            part = slice(first, first + at_once)
            found = self._attend_to([row[part] for row in attention], value[part])
            for terms, term in zip(results, found, strict=True):
                terms.append(term)
        return [self.builder.add(terms) for terms in results]

    @property
    def _babies_of_attention(self) -> int:
        """Shifts of a giant step: a power of two, as the half of a ciphertext's tokens is."""
        return min(self.layout.block_tokens // 2, 1 << (self.rows.hoisted_steps.bit_length() - 1))

    def _attend_to(self, attention: list[list[Value]], value: Blocks) -> Blocks:
        """What some blocks of values add to Y of every block.

        k = b + g goes to half of a ciphertext's tokens, in baby and giant steps; the other half's terms lie beside these as
        X^(N/2). P is rotated by b alone, which serves all giant steps:

            Y[t, f] = sum_g R_g[t, f+g]        R_g[t, p] = sum_b P[t, p+b]·V[t+p+b, p-g]

        In R_g, which is rotated by g in the end, V is taken g rows further and g positions back, and rotated by b rows.
        """
        builder, layout, babies = self.builder, self.layout, self._babies_of_attention
        half = layout.block_tokens // 2
        turned_attention = []
        for row in attention:
            packed = [builder.combine(p, builder.rotate(p, [layout.group * half])[0], 3) for p in row]
            turned_attention.append([turned for p in packed for turned in self.rows.multiples(p, layout.group, babies)])
        level = attention[0][0].level
        values_by_giant = [self._values_by_giant(builder.drop(v, level), half // babies, babies) for v in value]
        results: Blocks = []
        for values in reversed(list(zip(*values_by_giant, strict=True))):  # of all blocks, one giant step
            turned_values = [turned for pair in values for turned in self._turned_rows(pair, babies)]
            terms = [builder.multiply(turned, turned_values) for turned in turned_attention]
            if results:
                before = [builder.rotate(result, [babies * layout.group])[0] for result in results]
                terms = [builder.add(two) for two in zip(terms, before, strict=True)]
            results = terms
        return results

    def _values_by_giant(self, value: Value, giants: int, babies: int) -> list[list[Value]]:
        """A block's values V and, beside them as X^(N/2), V half of the block's rows further: for each giant step, taken by it.

        Of each one ciphertext, or two where rows are turned by odd steps, which turn X^(N/2)'s sign: the second is for these.
        """
        builder, layout = self.builder, self.layout
        (ahead,) = builder.rotate(value, [layout.block_tokens // 2 * layout.row])
        pairs = [[builder.combine(value, ahead, power) for power in ((1, 3) if layout.group % 2 else (1,))]]
        while len(pairs) < giants:
            pairs.append([builder.rotate(pair, [babies * (layout.row - layout.group)])[0] for pair in pairs[-1]])
        return pairs

    def _turned_rows(self, pair: list[Value], count: int) -> list[Value]:
        """Values turned by 0, 1, ... rows."""
        row, hoisted = self.layout.row, self.rows.hoisted_rows
        even, *odd = pair
        if not odd:
            return self.rows.multiples(even, row, count, hoisted)
        evens = self.rows.multiples(even, 2 * row, -(-count // 2), -(-hoisted // 2))
        (odd_row,) = self.builder.rotate(odd[0], [row])
        odds = self.rows.multiples(odd_row, 2 * row, count // 2, -(-hoisted // 2))
        return [(evens, odds)[k % 2][k // 2] for k in range(count)]

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
        if self.rows.pairs_tokens:
            z, *hidden = self.rows.products([context, x], maps, tokens_paired=True)
            z = self.rows.apart(z) if packed else z
            hidden = [self.rows.apart(blocks) for blocks in hidden]
        else:
            (z, *hidden), _ = self.states.products([context, x], maps)
        builder.stage = f"{name}: activation"
        squares = [[builder.multiply([t], [t]) for t in blocks] for blocks in hidden]
        parts: list[tuple[Blocks, tuple[int, int | None]]] = [(repeated(z), (0, None))]
        for first in range(0, len(squares), 2 if packed else 1):
            two = squares[first : first + 2] if packed else squares[first : first + 1]
            if len(two) == 2:
                blocks, second = [builder.combine(a, b, 1) for a, b in zip(*two, strict=True)], first + 2
            else:
                blocks, second = two[0] if packed else self.rows.beside(two[0]), None
            parts.append((repeated(blocks), (first + 1, second)))
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
        (outputs,) = self.states.map_to_scale(State(tuple(means)), placed, builder.parameters.answer_scale)
        builder.output("logits", outputs)
