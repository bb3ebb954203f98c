import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he_runtime.errors import PlanError
from he_runtime.lowering.layout import Layout

layouts = st.builds(
    lambda width, bucket, spare: Layout(2 * width * spare, width, bucket),
    st.sampled_from([4, 8, 16]),
    st.sampled_from([1, 2, 8, 32]),
    st.sampled_from([1, 4, 8, 64]),
)


@given(layouts, st.integers(0, 2**32 - 1))
def test_every_token_is_read_back_and_rows_are_repeated(layout: Layout, seed: int) -> None:
    tensor = np.random.default_rng(seed).normal(size=(layout.bucket, layout.width))
    blocks = layout.pack(tensor)
    assert len(blocks) == layout.blocks
    for token in range(layout.bucket):
        block, row = divmod(token, layout.block_tokens)
        np.testing.assert_array_equal(layout.unpack_row(blocks[block], layout.width, row), tensor[token])
    for block in blocks:
        rows = block.reshape(-1, 2, layout.width)
        np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
        np.testing.assert_array_equal(
            block.reshape(-1, layout.period), block[None, : layout.period].repeat(layout.slots // layout.period, 0)
        )


@given(layouts, st.integers(0, 100))
def test_rotation_by_rows_is_cyclic_over_tokens(layout: Layout, shift: int) -> None:
    tensor = np.arange(layout.block_tokens * layout.width, dtype=float).reshape(-1, layout.width)
    (packed, *_) = layout.pack(tensor)
    rotated = np.roll(packed, -shift * layout.row)
    np.testing.assert_array_equal(layout.unpack_row(rotated, layout.width, 0), tensor[shift % layout.block_tokens])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PlanError, match="does not fit a ciphertext"):
        Layout(16, 16, 4)
    with pytest.raises(PlanError, match="does not fit 4 tokens"):
        Layout(64, 8, 4).pack(np.zeros((5, 8)))
