"""More texts for a student to learn from than a task has: a train file's own, altered, which only the teacher answers."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from thex.data import Encoded

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
        frame = _Frame.of(train, row)
        if frame.second is None:
            texts = [_single(number, frame.first, train, generator)]
        else:
            # What the frame cuts from a long first text is gone before a run of it is taken.
            first = frame.first[: positions - 3 - positions // 3]
            second = _second(number, first, frame.second[: positions // 3], train, generator)
            texts = [first, second[: positions // 3]]
        texts = [[_changed(token, train, mask, generator) for token in text] for text in texts]
        new_ids, new_types = frame.filled(texts, positions)
        ids.append(new_ids)
        types.append(new_types)
    return Encoded(ids, types, torch.zeros(count))


@dataclass(frozen=True)
class _Frame:
    """A text of two parts or one, taken apart: special tokens around and between them stay as they are."""

    start: int
    first: list[int]
    between: list[int]
    second: list[int] | None
    end: int
    second_type: int

    @classmethod
    def of(cls, data: Encoded, row: int) -> _Frame:
        """BERT separates parts by one token that also ends the text, RoBERTa by two."""
        start, *body, end = data.ids[row]
        if end not in body:
            return cls(start, body, [], None, end, 0)
        place = body.index(end)
        length = next((k for k, token in enumerate(body[place:]) if token != end), len(body) - place)
        second = body[place + length :]
        return cls(start, body[:place], body[place : place + length], second, end, data.types[row][-1])

    def filled(self, texts: list[list[int]], positions: int) -> tuple[list[int], list[int]]:
        """Ids and types of other texts in the same frame, the first one cut so that all fit."""
        rest = [*self.between, *texts[1]] if self.second is not None else []
        first = texts[0][: positions - 2 - len(rest)]
        ids = [self.start, *first, *rest, self.end]
        types = [0] * (1 + len(first) + len(self.between))
        return ids, types + [self.second_type] * (len(ids) - len(types))


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
        return _Frame.of(train, generator.randrange(len(train))).second or second
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
