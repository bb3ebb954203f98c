"""Token ids, and batches of texts of similar length."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from thex.metrics import UNLABELLED
from thex.tasks import Example


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples: ids and token types a text (same lengths), labels float32 [examples].

    Of a token task labels are [examples, longest text], UNLABELLED wherever a token is not the first of its word.
    """

    ids: list[list[int]]
    types: list[list[int]]
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Of ids, types and labels."""
        whole = json.dumps([self.ids, self.types, self.labels.tolist()]).encode()
        return hashlib.sha256(whole).hexdigest()[:16]

    def subset(self, indices: Sequence[int]) -> Encoded:
        """The examples at indices, in that order."""
        return Encoded(
            [self.ids[index] for index in indices],
            [self.types[index] for index in indices],
            self.labels[list(indices)],
        )


@dataclass(frozen=True)
class Batch:
    """indices into the Encoded it came from; ids, types int64 and mask float32 [batch, tokens]."""

    indices: list[int]
    ids: torch.Tensor
    mask: torch.Tensor
    types: torch.Tensor


def load_tokenizer(path: Path, positions: int) -> Tokenizer:
    """A tokenizer that truncates to positions tokens and never pads: padding belongs to the batch."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(positions)
    return tokenizer


def encode(tokenizer: Tokenizer, examples: Sequence[Example]) -> Encoded:
    """Token ids with the tokenizer's own special tokens. A word's label goes to its first token."""
    if examples[0].words:
        return _encode_words(tokenizer, examples)
    texts = [example.first if example.second is None else (example.first, example.second) for example in examples]
    encodings = tokenizer.encode_batch(texts)
    labels = torch.tensor([example.label for example in examples], dtype=torch.float32)
    return Encoded([e.ids for e in encodings], [e.type_ids for e in encodings], labels)


def _encode_words(tokenizer: Tokenizer, examples: Sequence[Example]) -> Encoded:
    encodings = tokenizer.encode_batch([list(example.words) for example in examples], is_pretokenized=True)
    labels = torch.full((len(examples), max(len(e.ids) for e in encodings)), float(UNLABELLED))
    for row, (encoding, example) in enumerate(zip(encodings, examples, strict=True)):
        before: int | None = None
        for place, word in enumerate(encoding.word_ids):
            if word is not None and word != before:
                labels[row, place] = example.word_labels[word]
            before = word
    return Encoded([e.ids for e in encodings], [e.type_ids for e in encodings], labels)


def pad(data: Encoded, indices: Sequence[int], device: torch.device, length: int | None = None) -> Batch:
    """One batch, padded with zeros to length or to its longest text."""
    length = length or max(len(data.ids[index]) for index in indices)
    ids = torch.zeros(len(indices), length, dtype=torch.int64)
    types = torch.zeros_like(ids)
    mask = torch.zeros(len(indices), length)
    for row, index in enumerate(indices):
        count = len(data.ids[index])
        ids[row, :count] = torch.tensor(data.ids[index])
        types[row, :count] = torch.tensor(data.types[index])
        mask[row, :count] = 1
    return Batch(list(indices), ids.to(device), mask.to(device), types.to(device))


def in_order(data: Encoded, size: int, device: torch.device) -> Iterator[Batch]:
    """Every example once, shortest first: no randomness, little padding."""
    order = sorted(range(len(data)), key=lambda index: len(data.ids[index]))
    for start in range(0, len(order), size):
        yield pad(data, order[start : start + size], device)


def shuffled(data: Encoded, size: int, device: torch.device, generator: random.Random) -> Iterator[Batch]:
    """Every example once, in random batches of similar length: sorted within pools of 50 batches."""
    order = list(range(len(data)))
    generator.shuffle(order)
    pool = size * 50
    pooled: list[int] = []
    for start in range(0, len(order), pool):
        pooled += sorted(order[start : start + pool], key=lambda index: len(data.ids[index]))
    batches = [pooled[start : start + size] for start in range(0, len(pooled), size)]
    generator.shuffle(batches)
    for indices in batches:
        yield pad(data, indices, device)


def length_weighted_subset(data: Encoded, count: int, cap: int, power: float, seed: int) -> list[int]:
    """count indices without repetition, long texts more likely: weight min(length, cap)**power.

    SST-2's train file is mostly phrases of a few words, its dev file whole sentences. Weighted sampling by
    exponential keys (Efraimidis and Spirakis 2006). count 0, or more than there are, gives all.
    """
    if count <= 0 or count >= len(data):
        return list(range(len(data)))
    generator = random.Random(seed)
    keys = [generator.expovariate(min(len(ids), cap) ** power) for ids in data.ids]
    return sorted(sorted(range(len(data)), key=keys.__getitem__)[:count])
