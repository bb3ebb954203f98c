"""Pairs of texts that need no labels of people: what a small encoder learns matching from.

A student that reads two texts together has to match their words; a few thousand labelled pairs do not teach two fresh layers
that. Two things are said of any number of pairs: how alike they are, by the cosine of a sentence encoder's embeddings (augmented
SBERT, Thakur et al. 2021, with teacher and student swapped); and which share of the second's tokens the first has, which
takes no teacher and is what entailment is guessed from first. Pairs for the latter are made: texts with a part of themselves.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from thex.data import Encoded, in_order
from thex.encoder import EXACT, Encoder
from thex.frames import Frame
from thex.optimisation import Schedule, steps
from thex.precision import mixed
from thex.progress import Progress
from thex.recorder import Recorder
from thex.tasks import TASKS, Example, read_split
from thex.training_state import TrainingState

NEIGHBOURS = 64  # of each sentence by cosine; half of the partners are among them, nearer ones more often
ROWS = 512  # of the matrix of cosines at a time
SCALE = 5.0  # cosines and shares count as scores of 0 to 5, as STS-B's do
UNJUDGED = float("nan")
JOINED = 0.3  # of the first texts of overlapping pairs are two texts in a row, as premises are longer than sentences


def sentences(root: Path, of_each_task: int, seed: int) -> list[str]:
    """Different sentences of the train files under root/<task>/, at most of_each_task of each task so that none prevails."""
    chosen: dict[str, None] = {}
    for task in TASKS.values():
        directory = root / task.directory
        if (directory / "train.tsv").is_file():
            examples = read_split(task, directory, "train")
            texts = list(dict.fromkeys(t for e in examples for t in (e.first, e.second) if t is not None))
            chosen.update(dict.fromkeys(random.Random(seed).sample(texts, min(of_each_task, len(texts)))))
    return list(chosen)


@torch.no_grad()
def embeddings(teacher: Encoder, texts: Encoded, device: torch.device, progress: Progress) -> torch.Tensor:
    """Unit vectors float32 [texts, hidden] of a mean-pooled sentence encoder."""
    found = torch.zeros(len(texts), teacher.config.hidden)
    done = 0
    for batch in in_order(texts, 64, device):
        recorder = Recorder()
        with mixed(device):
            teacher(batch.ids, batch.mask, batch.types, EXACT, recorder)
        found[batch.indices] = functional.normalize(recorder["pooled", -1].float(), dim=1).cpu()
        done += len(batch.indices)
        progress("embed sentences", done, len(texts))
    return found


def judged_pairs(texts: Sequence[str], vectors: torch.Tensor, count: int, seed: int) -> list[Example]:
    """count pairs of different texts, labelled with SCALE times their cosine, negative ones with 0.

    Every other partner is a near neighbour, its rank log-uniform; the rest are any. ValueError for fewer than 3 texts.
    """
    if len(texts) < 3:
        raise ValueError(f"{len(texts)} sentences: pairs need at least 3")
    generator = random.Random(seed)
    near = min(NEIGHBOURS, len(texts) - 1)
    neighbours = torch.cat([(rows @ vectors.T).topk(near + 1, dim=1).indices for rows in vectors.split(ROWS)])
    pairs: list[Example] = []
    while len(pairs) < count:
        first = generator.randrange(len(texts))
        rank = round(near ** generator.random())
        second = int(neighbours[first, rank]) if len(pairs) % 2 else generator.randrange(len(texts))
        if first != second:
            cosine = float(vectors[first] @ vectors[second])
            pairs.append(Example(texts[first], texts[second], SCALE * max(0.0, cosine)))
    return pairs


def overlapping_pairs(texts: Sequence[str], count: int, seed: int) -> list[Example]:
    """count pairs, UNJUDGED: a text, or two joined, and a run of its words of which a random share is another text's.

    Texts of fewer than four words are left out. ValueError if fewer than 3 are left.
    """
    split = [words for words in map(str.split, texts) if len(words) >= 4]
    if len(split) < 3:
        raise ValueError(f"{len(split)} texts of four words or more: overlapping pairs need at least 3")
    generator = random.Random(seed)
    pairs: list[Example] = []
    for _ in range(count):
        whole, foreign = generator.choice(split), generator.choice(split)
        length = generator.randint(3, min(20, len(whole)))
        start = generator.randint(0, len(whole) - length)
        replaced = generator.random()
        part = [
            generator.choice(foreign) if generator.random() < replaced else word
            for word in whole[start : start + length]
        ]
        if generator.random() < JOINED:
            other = generator.choice(split)
            whole = whole + other if generator.random() < 0.5 else other + whole
        pairs.append(Example(" ".join(whole), " ".join(part), UNJUDGED))
    return pairs


def shares(pairs: Encoded) -> torch.Tensor:
    """Which share of the second text's tokens the first text has too. float32 [pairs]; ValueError for a text without a second."""
    found = torch.zeros(len(pairs))
    for row in range(len(pairs)):
        frame = Frame.of(pairs, row)
        if frame.second is None:
            raise ValueError("a text of one part has no share of tokens in common with another")
        first = set(frame.first)
        found[row] = sum(token in first for token in frame.second) / max(1, len(frame.second))
    return found


@dataclass(frozen=True)
class PairErrors:
    """Mean squared errors of the last tenth of learning, of cosines and of shares, both times SCALE."""

    cosine: float
    share: float


class PairHead(nn.Module):
    """Says cosine and share, both times SCALE, of a pooled pair; carries the squared errors that learning is judged by."""

    squared: torch.Tensor
    count: torch.Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.says = nn.Linear(hidden, 2)
        self.register_buffer("squared", torch.zeros(2))
        self.register_buffer("count", torch.zeros(2))

    def errors(self) -> PairErrors:
        """Means of what was counted."""
        return PairErrors(*(self.squared / self.count.clamp(min=1)).tolist())


def learn_pairs(
    student: Encoder,
    pairs: Encoded,
    schedule: Schedule,
    device: torch.device,
    seed: int,
    progress: Progress,
    state: Path | None = None,
) -> PairErrors:
    """Train the student in place, with its pooler, to say the cosines (the labels, where there are any) and the shares.

    The linear head that says them is thrown away, as a task brings its own. state: a file to resume at, of the same arguments.
    """
    torch.manual_seed(seed)
    wanted = torch.stack([pairs.labels, SCALE * shares(pairs)], dim=1)
    head = PairHead(student.config.hidden).to(device)
    with torch.no_grad():
        head.says.bias.copy_(wanted.nanmean(dim=0).nan_to_num())
    student.train()
    model = nn.ModuleDict({"student": student, "head": head})
    kept = None if state is None else TrainingState(state, model)
    judged = ~wanted.isnan()
    for step in steps("learn pairs", model.parameters(), pairs, schedule, device, seed, progress, kept):
        recorder = Recorder()
        with mixed(device):
            student(step.batch.ids, step.batch.mask, step.batch.types, EXACT, recorder)
            said = head.says(recorder["pooled", -1])
        known = judged[step.batch.indices].to(device)
        target = wanted[step.batch.indices].nan_to_num().to(device)
        squares = ((said.float() - target) * known).square()
        step.descend((squares.sum(dim=0) / known.sum(dim=0).clamp(min=1)).sum())
        if step.number >= step.of - math.ceil(step.of / 10):
            head.squared += squares.detach().sum(dim=0)
            head.count += known.sum(dim=0)
    student.eval()
    return head.errors()
