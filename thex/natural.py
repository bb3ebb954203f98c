"""Texts as people write them, without labels: what a replaced student learns from beside its task's own.

A replaced student that has seen a task's train file and alterations of it follows the exact one there, and less well elsewhere:
of STS-B's scores 0.4 % of the variance were lost on train, 1.9 % on dev. The exact student answers any text, so other tasks'
train files serve; for tasks of pairs, a text and one of its neighbours by TF-IDF, as long as the task's own pairs are.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from thex.tasks import TASKS, Example, read_split

LEAST_WORDS = 3
NEIGHBOURS = 64
"""Of each text; partners are among them, nearer ones more often (ranks are log-uniform)."""
THE_SAME = 0.98
"""Cosine from which on two texts are one."""
COMMON, LEAST_COMMON = 0.05, 100
"""Words in a larger share of texts, and in more than so many, say nothing of what a text is about."""
ROWS = 1000
"""Of the matrix of cosines at a time."""
MOST_JOINED = 4
VERSION = 2
"""Of what is made of the same texts: a stage that has seen what an earlier version made is run again."""


def natural_texts(data: Path, train: Sequence[Example], dev: Sequence[Example]) -> list[list[str]]:
    """Different texts of LEAST_WORDS words or more: those of train, and then of each train file in directories beside `data`.

    None of them is a text of dev: tasks that were made of the same sources share texts.
    """
    directories = dict.fromkeys(task.directory for task in TASKS.values())
    beside = [directory for directory in directories if (data.resolve().parent / directory / "train.tsv").is_file()]
    seen = {text for example in dev for text in (example.first, example.second) if text is not None}
    found = []
    for examples in (train, *(_examples(data.resolve().parent / directory) for directory in beside)):
        texts = dict.fromkeys(t for example in examples for t in (example.first, example.second) if t is not None)
        new = [text for text in texts if text not in seen and len(text.split()) >= LEAST_WORDS]
        seen.update(new)
        found.append(new)
    return [texts for texts in found if texts]


def natural_examples(
    sources: Sequence[Sequence[str]], train: Sequence[Example], count: int, seed: int
) -> list[Example]:
    """count texts, or pairs where train has pairs; labels are zero and mean nothing. ValueError for fewer than 3 texts.

    Every source (a task's texts) has the same share, so that no large one prevails.
    """
    texts = [text for source in sources for text in source]
    if len(texts) < 3:
        raise ValueError(
            f"{len(texts)} texts of {LEAST_WORDS} words or more: learning from natural ones takes 3 at least"
        )
    generator = random.Random(seed)
    bounds = list(itertools.accumulate((len(source) for source in sources), initial=0))
    firsts = [generator.randrange(*generator.choice(list(itertools.pairwise(bounds)))) for _ in range(count)]
    if all(example.second is None for example in train):
        return [Example(texts[row], None, 0.0) for row in firsts]
    shapes = [_Shape.of(example) for example in train]
    near = _neighbours(texts, sorted(set(firsts)))
    alone = {row for row, others in near.items() if not others.size}
    drawn = [row for row in firsts if row not in alone]
    if not drawn:
        raise ValueError(
            f"no two of {len(texts)} texts share a word: natural pairs are made of texts and their neighbours"
        )
    drawn += generator.choices(drawn, k=count - len(drawn))
    return [_pair(texts, row, near[row], generator.choice(shapes), generator) for row in drawn]


def _examples(directory: Path) -> list[Example]:
    task = next(task for task in TASKS.values() if task.directory == directory.name)
    return read_split(task, directory, "train")


@dataclass(frozen=True)
class _Shape:
    """Words of a pair's texts."""

    first: int
    second: int

    @classmethod
    def of(cls, example: Example) -> _Shape:
        return cls(len(example.first.split()), len((example.second or "").split()))


def _neighbours(texts: Sequence[str], rows: Sequence[int]) -> dict[int, NDArray[np.int64]]:
    """Row -> the nearest other texts that share a word with it, nearest first, NEIGHBOURS at most."""
    most = max(LEAST_COMMON, int(COMMON * len(texts)))
    vectors: csr_matrix = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, max_df=most).fit_transform(texts)
    found: dict[int, NDArray[np.int64]] = {}
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        cosines = (vectors[some] @ vectors.T).tocsr()
        for place, row in enumerate(some):
            entries = slice(cosines.indptr[place], cosines.indptr[place + 1])
            others, values = cosines.indices[entries], cosines.data[entries]
            kept = (values < THE_SAME) & (others != row)
            # By place where cosines are the same, so that a machine's order of sums does not matter more than it has to.
            order = np.lexsort((others[kept], -values[kept]))[:NEIGHBOURS]
            found[row] = others[kept][order].astype(np.int64)
    return found


def _pair(texts: Sequence[str], row: int, near: NDArray[np.int64], shape: _Shape, generator: random.Random) -> Example:
    """The text and a neighbour, the longer one where the shape is longer; more neighbours joined to a short first text."""
    rank = min(int((len(near) + 1) ** generator.random()), len(near))
    partner = int(near[rank - 1])
    first, second = texts[row], texts[partner]
    if (len(first.split()) < len(second.split())) != (shape.first < shape.second):
        first, second = second, first
    others = [int(other) for other in near if other != partner]
    for other in generator.sample(others, min(MOST_JOINED, len(others))):
        if 2 * len(first.split()) > shape.first:
            break
        first = f"{first} {texts[other]}" if generator.random() < 0.5 else f"{texts[other]} {first}"
    return Example(first, second, 0.0)
