"""GLUE's metrics, and CoNLL's F1 of entities, in percent. The first entry of each is the task's main figure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from thex.tasks import Task

UNLABELLED = -100
"""The label of tokens that are not the first of a word: torch's cross-entropy ignores it."""

Array = NDArray[np.floating]


def accuracy(logits: Array, labels: Array) -> dict[str, float]:
    """Percent of rows whose largest logit is the label."""
    from sklearn.metrics import accuracy_score

    return {"accuracy": 100 * float(accuracy_score(labels.astype(int), logits.argmax(axis=1)))}


def accuracy_f1(logits: Array, labels: Array) -> dict[str, float]:
    """Accuracy, and F1 of the second class."""
    from sklearn.metrics import f1_score

    f1 = f1_score(labels.astype(int), logits.argmax(axis=1), zero_division=0.0)
    return {**accuracy(logits, labels), "f1": 100 * float(f1)}


def matthews(logits: Array, labels: Array) -> dict[str, float]:
    """Matthews correlation times 100."""
    from sklearn.metrics import matthews_corrcoef

    return {"matthews": 100 * float(matthews_corrcoef(labels.astype(int), logits.argmax(axis=1)))}


def correlation(logits: Array, labels: Array) -> dict[str, float]:
    """Pearson and Spearman correlation of the only output with the score, times 100; 0 where either is constant."""
    from scipy.stats import pearsonr, spearmanr

    outputs = logits[:, 0]
    if np.ptp(outputs) == 0 or np.ptp(labels) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": 100 * float(pearsonr(outputs, labels)[0]),
        "spearman": 100 * float(spearmanr(outputs, labels)[0]),
    }


def cosines(one: Array, other: Array) -> Array:
    """Cosine of each row of one with the same row of other: [rows]. 0 where either is zero."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny), np.float64)


def cosine_spearman(vectors: Array, labels: Array) -> dict[str, float]:
    """Spearman correlation, times 100, of the cosine of rows 2i and 2i + 1 with their label."""
    from scipy.stats import spearmanr

    return {"spearman": 100 * float(spearmanr(cosines(vectors[0::2], vectors[1::2]), labels[0::2])[0])}


def entities(tags: list[str]) -> set[tuple[int, int, str]]:
    """(first word, word after the last, type) of every entity of one sentence, as CoNLL's own conlleval reads BIO tags.

    An I- tag that follows no entity of its type begins one.
    """
    found, start, kind = set(), 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind and not (prefix == "I" and name == kind):
            found.add((start, place, kind))
            kind = ""
        if name and not kind:
            start, kind = place, name
    return found


def entity_f1(logits: Array, labels: Array, names: tuple[str, ...]) -> dict[str, float]:
    """F1, precision and recall of whole entities. logits [sentences, tokens, tags], labels [sentences, tokens]."""
    right = predicted = true = 0
    for row, wanted in zip(logits.argmax(axis=2), labels.astype(int), strict=True):
        counted = wanted != UNLABELLED
        guess = entities([names[index] for index in row[counted]])
        truth = entities([names[index] for index in wanted[counted]])
        right, predicted, true = right + len(guess & truth), predicted + len(guess), true + len(truth)
    precision, recall = right / max(1, predicted), right / max(1, true)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"f1": 100 * f1, "precision": 100 * precision, "recall": 100 * recall}


METRICS: dict[str, Callable[[Array, Array], dict[str, float]]] = {
    "accuracy": accuracy,
    "accuracy_f1": accuracy_f1,
    "matthews": matthews,
    "correlation": correlation,
    "cosine_spearman": cosine_spearman,
}


def score(task: Task, logits: Array, labels: Array) -> dict[str, float]:
    """The task's metrics; logits [examples, outputs] and labels [examples], or as entity_f1 has them."""
    if task.metric == "entity_f1":
        return entity_f1(logits, labels, task.labels)
    return METRICS[task.metric](logits, labels)


def agreement(task: Task, one: Array, other: Array, labels: Array) -> float:
    """Percent of examples (of a token task: labelled tokens) that both label alike; of regression: Pearson times 100.

    Of embeddings: mean cosine times 100.
    """
    if task.kind == "embedding":
        return 100 * float(cosines(one, other).mean())
    if task.kind == "regression":
        return correlation(one, other[:, 0])["pearson"]
    same = one.argmax(axis=-1) == other.argmax(axis=-1)
    return 100 * float(same[labels != UNLABELLED].mean() if task.kind == "tokens" else same.mean())
