"""Sentence embedding as a task: unlabelled sentences to learn from, and STS-B's pairs to be measured by."""

from __future__ import annotations

from pathlib import Path

from thex.corpus import unlabelled
from thex.tasks import TASKS, Example, read_split


def read_sentences(root: Path, split: str) -> list[Example]:
    """One sentence an example. "train": the different texts of all train files under root; labels mean nothing.

    Any other split: the sentences of STS-B's pairs one after the other, both with the pair's score, so that examples 2i and
    2i + 1 belong together. ValueError where root holds no such file.
    """
    if split == "train":
        texts = [text for example in unlabelled(root) for text in (example.first, example.second) if text is not None]
        return [Example(text, None, 0.0) for text in dict.fromkeys(texts)]
    judged = TASKS["STS-B"]
    pairs = read_split(judged, root / judged.directory, split)
    return [Example(text, None, pair.label) for pair in pairs for text in (pair.first, pair.second or "")]
