"""Inputs nobody writes but somebody sends: they must stay inside the ranges, too."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer

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


WORDS_REPEATED = ("the", "film", "not", "1", "!", "a", "good", "hello", ".", "zq")
RANDOM_TEXTS = 32
CODE = (
    "def f(x):\n    return [y ** 2 for y in x if y % 2 == 0]  # squares",
    "SELECT name, COUNT(*) FROM users WHERE id <> 0 GROUP BY name HAVING COUNT(*) > 1;",
    '<a href="https://example.org/?q=%20&x=1" onclick="go()">{{ item.title | escape }}</a>',
    "int main(void) { for (;;) { *p++ = ~x ^ 0xFF; } }",
)
LANGUAGES = (
    "Der Film ist viel zu lang, aber die Schauspieler sind großartig und die Musik ist schön.",
    "Este filme é muito longo, mas os atores são ótimos e a música é linda.",
    "这部电影太长了，但是演员很好，音乐也很美。",
    "この映画は長すぎますが、俳優は素晴らしく、音楽も美しいです。",
    "Этот фильм слишком длинный, но актёры великолепны, а музыка прекрасна.",
    "هذا الفيلم طويل جدا لكن الممثلين رائعون والموسيقى جميلة.",
    "यह फिल्म बहुत लंबी है लेकिन अभिनेता शानदार हैं और संगीत सुंदर है।",
    "이 영화는 너무 길지만 배우들은 훌륭하고 음악은 아름답습니다.",
)
JUNK = ("zq#x", "%%%", "]]>", "0x7f", "\u200b", "qqqq", "ﷺ", "🜁", "--", "aAaA")


def hostile_cases(tokenizer: Tokenizer, positions: int, vocabulary: int) -> dict[str, Encoded]:
    """Named kinds of text that a person could send: one word repeated, nothing, junk, other languages, code, random tokens.

    The longest are cut at positions tokens. vocabulary: the model's, whatever the tokenizer has beside it.
    """
    texts = {
        "one word repeated": [" ".join([word] * count) for word in WORDS_REPEATED for count in (1, 8, 32, positions)],
        "empty": ["", " "],
        "junk": [" ".join(JUNK[(place * step) % len(JUNK)] for place in range(positions)) for step in (1, 3, 7)],
        "other languages": [*LANGUAGES, " ".join(LANGUAGES)],
        "code": [*CODE, " ".join([*CODE] * 4)],
    }
    cases = {}
    for name, chosen in texts.items():
        encodings = tokenizer.encode_batch(chosen)
        ids, types = [e.ids for e in encodings], [e.type_ids for e in encodings]
        cases[name] = Encoded(ids, types, torch.zeros(len(ids)))
    cases["random tokens"] = _random_texts(cases["empty"].ids[0], vocabulary, positions)
    return cases


def _random_texts(frame: list[int], vocabulary: int, positions: int) -> Encoded:
    """RANDOM_TEXTS texts of any tokens of the vocabulary, special ones too, in the frame of an empty text."""
    generator = random.Random(0)
    first, last = frame[0], frame[-1]
    lengths = [1 + number * (positions - 3) // (RANDOM_TEXTS - 1) for number in range(RANDOM_TEXTS)]
    ids = [[first, *(generator.randrange(vocabulary) for _ in range(length)), last] for length in lengths]
    return Encoded(ids, [[0] * len(row) for row in ids], torch.zeros(len(ids)))
