"""Hadamard sums: the row layout's promises, and programs against the plain model on any shape."""

import numpy as np
import pytest

from he_runtime import plain_model
from he_runtime.errors import PlanError
from he_runtime.folding import fold
from he_runtime.lowering.hadamard import HadamardLowering, levels_needed_with_hadamard_sums
from he_runtime.lowering.rows import RowLayout
from he_runtime.network import network_of
from he_runtime.parameters import make_parameters
from tests.he_runtime.test_lowering import simulate, tiny_plan
from tests.random_models import random_text, random_weights

LAYOUTS = [
    RowLayout.choose(slots, width, heads, width // heads, bucket)
    for slots, width, heads, bucket in [
        *((16384, 128, 2, bucket) for bucket in (16, 32, 64, 128)),
        (32768, 256, 4, 64),
        (32768, 512, 16, 64),
        (64, 8, 2, 4),
        (512, 8, 4, 16),
    ]
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_windows_of_every_shift_hold_every_feature_once(layout: RowLayout) -> None:
    for group in range(layout.groups):
        lines = layout.pattern_features(group).reshape(-1, layout.group)
        for shift in range(layout.block_tokens):
            starts = shift + layout.block_tokens * np.arange(layout.parts)
            window = (starts[:, None] + np.arange(layout.window)) % len(lines)
            for head in range(layout.group):
                expected = (group * layout.group + head) * layout.head_size + np.arange(layout.head_size)
                np.testing.assert_array_equal(np.sort(lines[window.ravel(), head]), expected)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_row_has_room_for_all_that_is_read_of_it(layout: RowLayout) -> None:
    line = layout.row // layout.group
    assert (2 * layout.parts - 1) * layout.block_tokens + layout.window <= line
    assert layout.parts * layout.block_tokens >= layout.head_size + layout.block_tokens - 1
    assert 2 * layout.pattern <= layout.row
    assert layout.row * layout.block_tokens == layout.slots


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(PlanError, match="use a larger ring"):
        RowLayout.choose(64, 64, 2, 32, 8)


@pytest.mark.parametrize("softmax", ["quadratic", "quadratic_centred", "linear"])
@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "intermediate", "bucket", "tokens", "ring_degree", "classes"),
    [
        (1, 8, 2, 16, 4, 3, 1024, 3),
        (2, 8, 2, 16, 8, 8, 1024, 2),
        (2, 8, 2, 16, 8, 1, 1024, 5),
        (3, 6, 3, 20, 16, 11, 1024, 3),  # nothing is a power of two
        (2, 8, 2, 16, 64, 50, 1024, 2),  # more tokens than one ciphertext holds
        (2, 8, 2, 8, 4, 3, 128, 2),  # heads in two groups, rotated by odd steps
        (3, 8, 4, 16, 64, 61, 1024, 1),
        (3, 12, 3, 24, 4, 3, 256, 2),  # the last of two groups has a head to spare: its key lies beside its query
        (3, 12, 3, 24, 8, 6, 256, 2),  # in two blocks of tokens it would lie an odd step apart
        (3, 24, 6, 40, 8, 7, 512, 2),  # the last of two groups has two heads to spare: it lies an even step apart
        (3, 26, 13, 40, 4, 3, 1024, 2),  # the last of four groups
    ],
)
def test_the_program_computes_what_the_model_computes(
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    bucket: int,
    tokens: int,
    ring_degree: int,
    classes: int,
    softmax: str,
) -> None:
    weights = random_weights(layers, hidden, heads, intermediate, softmax=softmax, classes=classes)
    plan = tiny_plan(weights, (bucket,), ring_degree, "hadamard sums")
    text = random_text(tokens, hidden)
    simulated = simulate(plan, bucket, text)
    np.testing.assert_allclose(simulated, plain_model.logits(weights, text), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("group", "bucket", "ring_degree", "blocks", "saving", "all_used"),
    [
        # Of two tensors each: the stream and the first query, the last query with its key and its value, a pair.
        (2, 4, 256, 1, [3, 3], [3, 4]),
        # Of two blocks of tokens each: the stream, two queries, keys and values.
        (4, 8, 512, 2, [5, 6], [6, 7]),
    ],
)
def test_a_group_with_heads_to_spare_saves_an_output(
    group: int, bucket: int, ring_degree: int, blocks: int, saving: list[int], all_used: list[int]
) -> None:
    """The first layer has no stream; three quarters of the heads leave half of the second group."""
    for heads, outputs in ((3 * group // 2, saving), (2 * group, all_used)):
        weights = random_weights(2, 4 * heads, heads, 16, pooling="mean", classes=None)
        network = fold(network_of(weights))
        parameters = make_parameters(ring_degree, levels_needed_with_hadamard_sums(network), insecure_test=True)
        lowering = HadamardLowering(network, parameters, bucket, baby_steps=4)
        assert (lowering.layout.groups, lowering.layout.group, lowering.layout.blocks) == (2, group, blocks)
        assert [
            len(operation.outputs)
            for operation in lowering.program().operations
            if operation.kind == "linear_transforms" and operation.stage.endswith("query, key, value")
        ] == outputs


def test_centred_keys_need_no_larger_scale_than_others() -> None:
    """A product's scale is what the next weights lose: deep models at 30 bits have none to spare."""
    smallest = {}
    for softmax in ("quadratic", "quadratic_centred"):
        weights = random_weights(3, 8, 2, 16, softmax=softmax, pooling="mean", classes=None)
        network = fold(network_of(weights))
        parameters = make_parameters(1024, levels_needed_with_hadamard_sums(network), insecure_test=True)
        program = HadamardLowering(network, parameters, 8, baby_steps=4).program()
        smallest[softmax] = min(constant.scale for constant in program.constants)
    assert smallest["quadratic_centred"] == pytest.approx(smallest["quadratic"], rel=1e-2)
