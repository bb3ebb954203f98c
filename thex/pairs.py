"""Pairs of sentences with a sentence encoder's opinion of how alike they are: what a small encoder learns matching from.

A student that reads two texts together has to match their words; a few thousand labelled pairs do not teach two fresh layers
that. A sentence encoder judges any number of pairs by the cosine of its embeddings (augmented SBERT, Thakur et al. 2021, with
teacher and student swapped).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from thex.data import Encoded, in_order
from thex.encoder import EXACT, Encoder
from thex.optimisation import Schedule, steps
from thex.precision import mixed
from thex.progress import Progress
from thex.recorder import Recorder
from thex.tasks import TASKS, Example, read_split

NEIGHBOURS = 64  # of each sentence by cosine; half of the partners are among them, nearer ones more often
ROWS = 512  # of the matrix of cosines at a time
SCALE = 5.0  # cosines count as scores of 0 to 5, as STS-B's do


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


def learn_pairs(
    student: Encoder, pairs: Encoded, schedule: Schedule, device: torch.device, seed: int, progress: Progress
) -> float:
    """Train the student in place, with its pooler, to say the labels; the mean squared error of the last tenth.

    The linear head that says them is thrown away, as a task brings its own.
    """
    torch.manual_seed(seed)
    head = nn.Linear(student.config.hidden, 1).to(device)
    nn.init.constant_(head.bias, float(pairs.labels.mean()))
    student.train()
    parameters = [*student.parameters(), *head.parameters()]
    errors = []
    for step in steps("learn pairs", parameters, pairs, schedule, device, seed, progress):
        recorder = Recorder()
        with mixed(device):
            student(step.batch.ids, step.batch.mask, step.batch.types, EXACT, recorder)
            said = head(recorder["pooled", -1])[:, 0]
        loss = functional.mse_loss(said.float(), pairs.labels[step.batch.indices].to(device))
        step.descend(loss)
        if step.fraction >= 0.9:
            errors.append(float(loss.detach()))
    student.eval()
    return sum(errors) / max(1, len(errors))
