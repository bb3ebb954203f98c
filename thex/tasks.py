"""GLUE tasks from local directories in the official layout, and their metrics."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Layout:
    """Where a task's columns are. header: the first row names columns; second is -1 for single sentences."""

    header: bool
    columns: int
    first: int
    second: int
    label: int


@dataclass(frozen=True)
class Task:
    """One task. labels: names in the order of logits, empty for regression."""

    name: str
    kind: Literal["classification", "regression"]
    labels: tuple[str, ...]
    layout: Layout
    metric: str

    @property
    def pair(self) -> bool:
        """Whether an example is two texts."""
        return self.layout.second >= 0

    @property
    def outputs(self) -> int:
        """Number of logits."""
        return len(self.labels) or 1


@dataclass(frozen=True)
class Example:
    """One row: text, second text or None, and the label (a class index, or a score)."""

    first: str
    second: str | None
    label: float


TASKS = {
    task.name: task
    for task in (
        Task("SST-2", "classification", ("negative", "positive"), Layout(True, 2, 0, -1, 1), "accuracy"),
        Task("CoLA", "classification", ("unacceptable", "acceptable"), Layout(False, 4, 3, -1, 1), "matthews"),
        Task("RTE", "classification", ("entailment", "not_entailment"), Layout(True, 4, 1, 2, 3), "accuracy"),
        Task("STS-B", "regression", (), Layout(True, 10, 7, 8, 9), "correlation"),
    )
}


def find_task(name: str) -> Task:
    """The task of that name; ValueError names the known ones."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]


def read_split(task: Task, directory: Path, split: str) -> list[Example]:
    """The examples of directory/<split>.tsv in file order.

    Quoting is off (csv.QUOTE_NONE), as in GLUE: quotation marks are text. Raises ValueError, naming file and
    line, for a missing file, a wrong number of columns or an unknown label.
    """
    path = directory / f"{split}.tsv"
    if not path.is_file():
        raise ValueError(f"{path} is missing: expected the GLUE file of task {task.name}")
    examples = []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for number, row in enumerate(rows, start=1):
            if number == 1 and task.layout.header:
                continue
            if len(row) != task.layout.columns:
                raise ValueError(f"{path}:{number}: {len(row)} columns, expected {task.layout.columns}")
            second = row[task.layout.second].strip() if task.pair else None
            label = _label(task, row[task.layout.label], f"{path}:{number}")
            examples.append(Example(row[task.layout.first].strip(), second, label))
    if not examples:
        raise ValueError(f"{path} holds no examples")
    return examples


def _label(task: Task, text: str, place: str) -> float:
    if text in task.labels:
        return float(task.labels.index(text))
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{place}: label {text!r} is neither a number nor one of {task.labels}") from None
    if task.labels and (value != int(value) or not 0 <= value < len(task.labels)):
        raise ValueError(f"{place}: label {text!r}, expected 0 to {len(task.labels) - 1}")
    return value


def accuracy(logits: NDArray[np.floating], labels: NDArray[np.floating]) -> dict[str, float]:
    """Percent of rows whose largest logit is the label."""
    from sklearn.metrics import accuracy_score

    return {"accuracy": 100 * float(accuracy_score(labels.astype(int), logits.argmax(axis=1)))}


def matthews(logits: NDArray[np.floating], labels: NDArray[np.floating]) -> dict[str, float]:
    """Matthews correlation times 100."""
    from sklearn.metrics import matthews_corrcoef

    return {"matthews": 100 * float(matthews_corrcoef(labels.astype(int), logits.argmax(axis=1)))}


def correlation(logits: NDArray[np.floating], labels: NDArray[np.floating]) -> dict[str, float]:
    """Pearson and Spearman correlation of the only output with the score, times 100."""
    from scipy.stats import pearsonr, spearmanr

    outputs = logits[:, 0]
    return {
        "pearson": 100 * float(pearsonr(outputs, labels)[0]),
        "spearman": 100 * float(spearmanr(outputs, labels)[0]),
    }


METRICS: dict[str, Callable[[NDArray[np.floating], NDArray[np.floating]], dict[str, float]]] = {
    "accuracy": accuracy,
    "matthews": matthews,
    "correlation": correlation,
}


def score(task: Task, logits: NDArray[np.floating], labels: NDArray[np.floating]) -> dict[str, float]:
    """The task's metrics; logits [examples, outputs], labels [examples]. The first entry is the main one."""
    return METRICS[task.metric](logits, labels)
