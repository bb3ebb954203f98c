"""Placement for attention by Hadamard sums: a row of slots for each token, and what lies where in it.

slot = token·R + position. A ciphertext holds a power of two of tokens, whose rows fill it, so rotations by whole rows are cyclic.
A vector of W features is repeated R/W times in its row: rotations by less than W then leave all but the last copy valid.
Heads are taken in groups of g; a group's rows are g interleaved lines of R/g positions, so that rotations by multiples of g
move within a head. Short texts have long rows, and the spare positions do more of a sum at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from he_runtime.errors import PlanError

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class RowLayout:
    """Placement of one bucket."""

    slots: int
    width: int
    """W: features of a row, padded to a power of two; heads times head size."""
    heads: int
    head_size: int
    bucket: int
    block_tokens: int
    """Tokens of one ciphertext."""
    group: int
    """g: heads that share a ciphertext where one ciphertext cannot hold all."""
    parts: int
    """B: a sum over a head's features is cut in so many parts, side by side in the row."""

    @classmethod
    def choose(cls, slots: int, width: int, heads: int, head_size: int, bucket: int) -> "RowLayout":
        """The layout with the fewest ciphertexts, then the largest groups, then the most parts. PlanError if none fits."""
        if width != heads * head_size:
            raise PlanError(f"rows of {width} features do not hold {heads} heads of {head_size} exactly")
        tokens = bucket
        while tokens >= 1:
            row = slots // tokens
            group = heads
            while row >= 2 * width and group >= 1:
                line = row // group
                parts = head_size
                while parts >= 2:
                    window = head_size // parts
                    enough = parts * tokens >= head_size + tokens - 1
                    if window <= tokens and enough and (2 * parts - 1) * tokens + window <= line:
                        return cls(slots, width, heads, head_size, bucket, tokens, group, parts)
                    parts //= 2
                group //= 2
            tokens //= 2
        raise PlanError(f"no row layout of {slots} slots holds {bucket} tokens of {width} features; use a larger ring")

    @property
    def row(self) -> int:
        """R: slots of one token."""
        return self.slots // self.block_tokens

    @property
    def blocks(self) -> int:
        """Ciphertexts a tensor takes."""
        return self.bucket // self.block_tokens

    @property
    def groups(self) -> int:
        """Groups of heads."""
        return self.heads // self.group

    @property
    def window(self) -> int:
        """Terms of one part's sum."""
        return self.head_size // self.parts

    @property
    def pattern(self) -> int:
        """Positions after which queries and keys repeat in a row: g·B·tokens, at most R/2."""
        return self.group * self.parts * self.block_tokens

    def output_positions(self, outputs: int) -> Integers:
        """Where a head's outputs lie in an answer: [outputs]. PlanError when a ciphertext has too few places.

        Of a row of what a matrix product makes, all but the last W positions are valid; when they are full, another row goes on.
        """
        usable = self.row - self.width
        index = np.arange(outputs)
        if outputs > usable * self.block_tokens:
            raise PlanError(
                f"{outputs} outputs; an answer for {self.bucket} tokens has {usable * self.block_tokens} places"
            )
        return index // usable * self.row + index % usable

    def answer_slots(self, outputs: int) -> int:
        """Slots after which an answer repeats: the rows that hold the outputs, a power of two of them."""
        rows = -(-outputs // (self.row - self.width))
        return self.row << (rows - 1).bit_length()

    def feature_position(self) -> Integers:
        """Where feature head·d + k of the context lies: [heads·d]. Groups one after the other, heads interleaved in each."""
        index = np.arange(self.heads * self.head_size)
        head, k = index // self.head_size, index % self.head_size
        return head // self.group * self.group * self.head_size + k * self.group + head % self.group

    def pattern_features(self, group: int) -> Integers:
        """Which feature (head·d + k) of queries and keys each position of the pattern holds: [pattern].

        Position q of a head's line holds feature q mod window + window·(q/tokens mod B): the windows that start at s, s + tokens,
        s + 2·tokens ... hold every feature once, for every shift s.
        """
        position = np.arange(self.pattern)
        line, head = position // self.group, group * self.group + position % self.group
        k = line % self.window + self.window * (line // self.block_tokens % self.parts)
        return head * self.head_size + k

    def shift(self) -> Integers:
        """Tokens that a skewed row looks ahead at each position: [R]."""
        return np.arange(self.row) // self.group % self.block_tokens

    def head_of_position(self, group: int) -> Integers:
        """Head of each position of a group's row: [R]."""
        return group * self.group + np.arange(self.row) % self.group

    def pack(self, embedded: Array) -> list[NDArray[np.complex128]]:
        """Slots of each block: features repeated along the row, and beside them, times X^(N/2), the masks divided by the length.

        The first g·d positions of the masks are skewed (token t + shift), those after the first W are not. embedded: [tokens,
        features].
        """
        tokens, features = embedded.shape
        if tokens > self.bucket or features > self.width:
            raise PlanError(f"a text of {tokens} x {features} does not fit {self.bucket} tokens of {self.width}")
        signs = np.resize([1j, -1j], self.row)
        blocks = []
        for start in range(0, self.bucket, self.block_tokens):
            present = np.arange(start, start + self.block_tokens) < tokens
            rows = np.zeros((self.block_tokens, self.row), np.complex128)
            part = np.zeros((self.block_tokens, self.width))
            part[: int(present.sum()), :features] = embedded[start : start + self.block_tokens]
            rows += np.tile(part, self.row // self.width)
            mask = np.zeros((self.block_tokens, self.row))
            used = self.group * self.head_size
            ahead = (np.arange(self.block_tokens)[:, None] + self.shift()[:used]) % self.block_tokens
            mask[:, :used] = present[ahead]
            mask[:, self.width :] = present[:, None]
            blocks.append((rows + signs * mask / tokens).reshape(-1))
        return blocks
