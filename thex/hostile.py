"""Inputs nobody writes but somebody sends: they must stay inside the ranges, too."""

from __future__ import annotations

import random

import torch

from thex.data import Encoded


def hostile_texts(data: Encoded, count: int, vocabulary: int, positions: int, generator: random.Random) -> Encoded:
    """count inputs in turn: joined sentences (long), one token repeated, random ids, nearly empty.

    data: real texts to join and to take the first and last special token from. Labels are zero and mean nothing.
    """
    first, last = data.ids[0][0], data.ids[0][-1]
    seen = [token for ids in generator.sample(data.ids, min(50, len(data))) for token in ids[1:-1]] or [first]
    room = positions - 2
    ids: list[list[int]] = []
    for number in range(count):
        length = generator.randint(max(1, room // 16), room)
        kind = number % 4
        if kind == 0:
            body: list[int] = []
            while len(body) < length:
                body += generator.choice(data.ids)[1:-1] or [first]
            body = body[:length]
        elif kind == 1:
            token = generator.choice(seen) if number % 8 == 1 else generator.randrange(vocabulary)
            body = [token] * length
        elif kind == 2:
            body = [generator.randrange(vocabulary) for _ in range(length)]
        else:
            body = [generator.randrange(vocabulary) for _ in range(number // 4 % 3)]
        ids.append([first, *body, last])
    return Encoded(ids, [[0] * len(row) for row in ids], torch.zeros(count))
