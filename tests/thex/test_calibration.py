"""Ranges: measured with their margin, left by nobody unnoticed, and never of a value that overflows."""

import copy

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.thex.test_pretraining import WORDS
from thex.calibration import OverflowedError, compare_with_ranges, largest_by_text, measure_ranges
from thex.config import EncoderConfig, Replacements
from thex.data import Encoded
from thex.encoder import REPLACED, Encoder
from thex.hostile import hostile_cases
from thex.students import new_student

SHAPE = EncoderConfig(vocabulary=16, layers=2, hidden=8, heads=2, intermediate=16, positions=32)


@pytest.fixture(scope="module")
def model() -> Encoder:
    return new_student(SHAPE, Replacements(), 3).eval()


@pytest.fixture(scope="module")
def texts() -> Encoded:
    generator = torch.Generator().manual_seed(0)
    lengths = [3 + number % 9 for number in range(40)]
    ids = [[2, *torch.randint(4, 12, (length,), generator=generator).tolist(), 3] for length in lengths]
    return Encoded(ids, [[0] * len(row) for row in ids], torch.zeros(40))


def test_every_text_stays_inside_and_the_margin_is_what_is_left(model: Encoder, texts: Encoded) -> None:
    ranges = measure_ranges(model, texts, sentences=40, margin=2.0, seed=0)
    found = compare_with_ranges(model, texts, ranges)
    assert (found["texts"], found["outside"]) == (40, 0)
    # Calibration saw these texts: none can use more than 1/margin, but for rounding to four digits.
    assert max(found["used"].values()) <= 0.5 + 2e-3


def test_a_text_beyond_one_range_is_counted(model: Encoder, texts: Encoded) -> None:
    narrow = copy.deepcopy(measure_ranges(model, texts, sentences=40, margin=2.0, seed=0))
    scores = largest_by_text(model, texts, REPLACED)["score", 1].sort().values
    narrow["layers"][1]["score"] = float(scores[-4:-2].mean())  # three texts have more
    found = compare_with_ranges(model, texts, narrow)
    assert found["outside"] == 3
    assert found["used"]["score"] > 1


def test_padding_does_not_count(model: Encoder, texts: Encoded) -> None:
    alone = largest_by_text(model, texts.subset([0]), REPLACED)
    together = largest_by_text(model, texts, REPLACED)
    for point, values in alone.items():
        assert float(together[point][0]) == pytest.approx(float(values[0]), rel=1e-4), point


def test_a_value_that_overflows_has_no_range(texts: Encoded) -> None:
    exploding = new_student(SHAPE, Replacements(), 3).eval()
    with torch.no_grad():
        exploding.layers[0].up.weight.mul_(1e20)
    with pytest.raises(OverflowedError, match=r"layer 1 overflows on \d+ texts"):
        measure_ranges(exploding, texts, sentences=40, margin=1.5, seed=0)
    ranges = measure_ranges(new_student(SHAPE, Replacements(), 3).eval(), texts, sentences=40, margin=1.5, seed=0)
    assert compare_with_ranges(exploding, texts, ranges)["outside"] == 40


def test_hostile_cases_are_what_they_are_called() -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(32)
    cases = hostile_cases(tokenizer, 32)
    assert set(cases) == {"one word repeated", "empty", "junk", "other languages"}
    assert all(ids == [2, 3] for ids in cases["empty"].ids)
    assert all(len(ids) == 32 for ids in cases["junk"].ids)
    assert all(len(set(ids[1:-1])) == 1 for ids in cases["one word repeated"].ids)
