"""More texts for a student to learn from than a task has: a train file's own, altered, which only the teacher answers."""

from __future__ import annotations

import random

import torch

from thex.data import Encoded

MASKED = 0.1
"""Share of tokens that are masked, in every altered text."""
REPLACED = 0.1
"""Share of tokens that become another text's, in every altered text."""


def altered(train: Encoded, count: int, mask: int, positions: int, seed: int) -> Encoded:
    """count single texts of train, altered in turn: a run of its tokens, two texts joined, or the text whole; then masked.

    After Tang et al. 2019 (section 3.4), whose masking and n-grams these are; joining, because a train file may hold phrases
    where the dev file has sentences. mask: the id that stands for a token left out. Labels are zero and mean nothing.
    ValueError for texts of two parts, which lose their sense when one is altered.
    """
    if any(any(types) for types in train.types):
        raise ValueError("pairs of texts are not altered: a recipe with `altered` is for single texts")
    generator = random.Random(seed)
    first, last = train.ids[0][0], train.ids[0][-1]
    ids = []
    for number in range(count):
        body = generator.choice(train.ids)[1:-1]
        if number % 3 == 0 and len(body) > 2:
            length = generator.randint(2, len(body))
            start = generator.randint(0, len(body) - length)
            body = body[start : start + length]
        elif number % 3 == 1:
            body = body + generator.choice(train.ids)[1:-1]
        ids.append([first, *(_changed(token, train, mask, generator) for token in body[: positions - 2]), last])
    return Encoded(ids, [[0] * len(row) for row in ids], torch.zeros(count))


def _changed(token: int, train: Encoded, mask: int, generator: random.Random) -> int:
    fate = generator.random()
    if fate < MASKED:
        return mask
    if fate < MASKED + REPLACED:
        return generator.choice(generator.choice(train.ids)[1:-1] or [token])
    return token


def joined(train: Encoded, more: Encoded, labels: torch.Tensor) -> Encoded:
    """Both, the second with these labels."""
    return Encoded([*train.ids, *more.ids], [*train.types, *more.types], torch.cat([train.labels, labels]))
