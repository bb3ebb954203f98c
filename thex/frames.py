"""Texts of two parts or one taken apart: special tokens around and between the parts, and the parts themselves."""

from __future__ import annotations

from dataclasses import dataclass

from thex.data import Encoded


@dataclass(frozen=True)
class Frame:
    """One encoded text. second: None where it has but one part; second_type: the token type of the second part."""

    start: int
    first: list[int]
    between: list[int]
    second: list[int] | None
    end: int
    second_type: int

    @classmethod
    def of(cls, data: Encoded, row: int) -> Frame:
        """Of a row of data. BERT separates parts by one token that also ends the text, RoBERTa by two."""
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
