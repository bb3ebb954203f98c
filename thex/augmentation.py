"""More texts for a student to learn from than a task has: a train file's own, altered, which only the teacher answers."""

from __future__ import annotations

import random

import torch

from thex.data import Encoded
from thex.frames import Frame

MASKED = 0.1
"""Share of tokens that are masked, in every altered text."""
REPLACED = 0.1
"""Share of tokens that become another text's, in every altered text."""


def altered(train: Encoded, count: int, mask: int, positions: int, seed: int) -> Encoded:
    """count texts of train, altered in turn. mask: the id that stands for a token left out. Labels are zero and mean nothing.

    Single texts: a run of a text's tokens, two texts joined, or the text whole; joined, because a train file may hold phrases
    where the dev file has sentences. Pairs: the first text with a run of its own tokens, with another pair's second text, or
    with its own. Then tokens are masked and replaced. After Tang et al. 2019 (section 3.4), whose masking and n-grams these are.
    """
    generator = random.Random(seed)
    ids, types = [], []
    for number in range(count):
        row = generator.randrange(len(train))
        frame = Frame.of(train, row)
        if frame.second is None:
            texts = [_single(number, frame.first, train, generator)]
        else:
            # What the frame cuts from a long first text is gone before a run of it is taken.
            first = frame.first[: positions - 3 - positions // 3]
            second = _second(number, first, frame.second, train, generator)
            texts = [first, second[: positions // 3]]
        texts = [[_changed(token, train, mask, generator) for token in text] for text in texts]
        new_ids, new_types = frame.filled(texts, positions)
        ids.append(new_ids)
        types.append(new_types)
    return Encoded(ids, types, torch.zeros(count))


def _single(number: int, text: list[int], train: Encoded, generator: random.Random) -> list[int]:
    if number % 3 == 0:
        return _run(text, generator)
    if number % 3 == 1:
        return text + generator.choice(train.ids)[1:-1]
    return text


def _second(number: int, first: list[int], second: list[int], train: Encoded, generator: random.Random) -> list[int]:
    if number % 3 == 0:
        return _run(first, generator)
    if number % 3 == 1:
        return Frame.of(train, generator.randrange(len(train))).second or second
    return second


def _run(text: list[int], generator: random.Random) -> list[int]:
    if len(text) <= 2:
        return text
    length = generator.randint(2, len(text))
    start = generator.randint(0, len(text) - length)
    return text[start : start + length]


def _changed(token: int, train: Encoded, mask: int, generator: random.Random) -> int:
    fate = generator.random()
    if fate < MASKED:
        return mask
    if fate < MASKED + REPLACED:
        other = generator.choice(generator.choice(train.ids)[1:-1] or [token])
        return token if other == train.ids[0][-1] else other
    return token


def joined(train: Encoded, more: Encoded, labels: torch.Tensor) -> Encoded:
    """Both, the second with these labels."""
    return Encoded([*train.ids, *more.ids], [*train.types, *more.types], torch.cat([train.labels, labels]))
