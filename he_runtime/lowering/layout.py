"""Where the numbers of a tensor lie in the slots.

Token-major with repeated rows: slot = token·2W + copy·W + feature, W the padded width, each row of features written twice.
Rotations by less than W are then cyclic over the features of the first copy, which makes matrix diagonals periodic (compact
weights) and lets a sum over a head's features come out broadcast, without a mask or a level. Tokens fill a power of two
of rows; where that is less than the ciphertext the whole is repeated, so rotations by whole rows are cyclic over tokens.
Buckets of more tokens than one ciphertext holds are cut in token blocks, one ciphertext each.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.errors import PlanError


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class Layout:
    """Placement of [tokens, features] for one bucket."""

    slots: int
    width: int
    """W: features of a row, padded to a power of two."""
    bucket: int
    """Tokens, a power of two."""

    def __post_init__(self) -> None:
        if self.row > self.slots:
            raise PlanError(f"a row of {self.row} slots does not fit a ciphertext of {self.slots}; use a larger ring")

    @property
    def row(self) -> int:
        """Slots of one token: two copies of its features."""
        return 2 * self.width

    @property
    def block_tokens(self) -> int:
        """Tokens of one ciphertext."""
        return min(self.bucket, self.slots // self.row)

    @property
    def blocks(self) -> int:
        """Ciphertexts a tensor takes."""
        return self.bucket // self.block_tokens

    @property
    def period(self) -> int:
        """Slots after which the content of a ciphertext repeats."""
        return self.block_tokens * self.row

    @property
    def input_names(self) -> list[tuple[str, str]]:
        """Names of the ciphertexts a client sends: for each token block its embeddings and its mask."""
        return [(f"embeddings.{block}", f"mask.{block}") for block in range(self.blocks)]

    def pack(self, tensor: NDArray[np.float64], *, both_copies: bool = True) -> list[NDArray[np.float64]]:
        """Real slots of each block, [slots] float64. tensor: [tokens <= bucket, features <= W]; the rest is zero."""
        tokens, features = tensor.shape
        if tokens > self.bucket or features > self.width:
            raise PlanError(f"a tensor of {tokens} x {features} does not fit {self.bucket} tokens of {self.width}")
        blocks = []
        for block in range(self.blocks):
            rows = np.ascontiguousarray(tensor[block * self.block_tokens : (block + 1) * self.block_tokens], np.float64)
            packed = np.zeros(self.slots)
            _scatter(rows, self.width, self.period, both_copies, packed)
            blocks.append(packed)
        return blocks

    def unpack_row(self, slots: NDArray[np.float64], features: int, token: int = 0) -> NDArray[np.float64]:
        """Features of one token of a block: float64 [features]."""
        return np.array(slots[token * self.row : token * self.row + features].real, np.float64)

    def row_vector(self, features: NDArray[np.float64], *, both_copies: bool) -> NDArray[np.float64]:
        """A plaintext of one row, repeated by the engine over all tokens: [2W]."""
        vector = np.zeros(self.row)
        vector[: len(features)] = features
        if both_copies:
            vector[self.width : self.width + len(features)] = features
        return vector

    def first_token_mask(self) -> NDArray[np.float64]:
        """One in both copies of the first token's row, zero elsewhere: [period]."""
        mask = np.zeros(self.period)
        mask[: self.row] = 1.0
        return mask


@njit(cache=True, nogil=True)
def _scatter(
    rows: NDArray[np.float64], width: int, period: int, both_copies: bool, packed: NDArray[np.float64]
) -> None:
    for start in range(0, len(packed), period):
        for token in range(rows.shape[0]):
            base = start + token * 2 * width
            for feature in range(rows.shape[1]):
                packed[base + feature] = rows[token, feature]
                if both_copies:
                    packed[base + width + feature] = rows[token, feature]
