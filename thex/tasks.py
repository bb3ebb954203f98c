"""GLUE tasks, token classification and sentence embedding, from local directories in their official layouts."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """Which columns of a GLUE file hold what, by name.

    names: of all columns where the file has no header row; empty where its first row names them.
    ragged: rows with too few columns are left out, as GLUE's own reader does with QQP's, which stray line breaks cut.
    """

    first: str
    second: str | None
    label: str
    names: tuple[str, ...] = ()
    ragged: bool = False


@dataclass(frozen=True)
class Task:
    """One task. labels: names in the order of logits, empty for regression. dev: the split that is scored.

    directory: under GLUE's root. kind "tokens" classifies every word, and has CoNLL's layout instead of columns. kind
    "embedding" has no labels: a sentence encoder learns from its exact self (thex.sentences).
    """

    name: str
    kind: Literal["classification", "regression", "tokens", "embedding"]
    labels: tuple[str, ...]
    metric: str
    layout: Layout | None = None
    directory: str = ""
    dev: str = "dev"

    @property
    def pair(self) -> bool:
        """Whether an example is two texts."""
        return self.layout is not None and self.layout.second is not None

    @property
    def outputs(self) -> int:
        """Number of logits, of a text or of each token. An embedding has as many as the encoder has features."""
        return len(self.labels) or 1


@dataclass(frozen=True)
class Example:
    """One row: text, second text or None, and the label (a class index, or a score).

    Of a token task, words and their label indices count, and first is the words joined.
    """

    first: str
    second: str | None
    label: float
    words: tuple[str, ...] = ()
    word_labels: tuple[int, ...] = field(default=())


_ENTAILMENT = ("entailment", "not_entailment")
_MNLI = ("contradiction", "entailment", "neutral")
_PAIR = Layout("sentence1", "sentence2", "label")
_MNLI_LAYOUT = Layout("sentence1", "sentence2", "gold_label")

TASKS = {
    task.name: task
    for task in (
        Task(
            "SST-2",
            "classification",
            ("negative", "positive"),
            "accuracy",
            Layout("sentence", None, "label"),
            "SST-2",
        ),
        Task(
            "CoLA",
            "classification",
            ("unacceptable", "acceptable"),
            "matthews",
            Layout("sentence", None, "label", names=("source", "label", "star", "sentence")),
            "CoLA",
        ),
        Task("RTE", "classification", _ENTAILMENT, "accuracy", _PAIR, "RTE"),
        Task("STS-B", "regression", (), "correlation", Layout("sentence1", "sentence2", "score"), "STS-B"),
        Task(
            "MRPC",
            "classification",
            ("not_equivalent", "equivalent"),
            "accuracy_f1",
            Layout("#1 String", "#2 String", "Quality"),
            "MRPC",
        ),
        Task("QNLI", "classification", _ENTAILMENT, "accuracy", Layout("question", "sentence", "label"), "QNLI"),
        Task(
            "QQP",
            "classification",
            ("not_duplicate", "duplicate"),
            "accuracy_f1",
            Layout("question1", "question2", "is_duplicate", ragged=True),
            "QQP",
        ),
        Task("MNLI", "classification", _MNLI, "accuracy", _MNLI_LAYOUT, "MNLI", "dev_matched"),
        Task("MNLI-mm", "classification", _MNLI, "accuracy", _MNLI_LAYOUT, "MNLI", "dev_mismatched"),
    )
}


SENTENCES = Task("sentences", "embedding", (), "cosine_spearman")
"""Its directory is GLUE's root: texts of all train files to learn from, STS-B's pairs to be measured by."""


def find_task(name: str, directory: Path | None = None) -> Task:
    """The task of that name. "CoNLL" takes its labels from directory/train.txt. ValueError names the known ones."""
    if name == SENTENCES.name:
        return SENTENCES
    if name == "CoNLL":
        if directory is None:
            raise ValueError("task CoNLL takes its labels from its data: a directory with train.txt is needed")
        from thex.conll import conll_task

        return conll_task(directory)
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}: expected one of {', '.join((*TASKS, 'CoNLL', SENTENCES.name))}")
    return TASKS[name]


def task_of(directory: Path) -> Task:
    """The task that a data directory holds: by its name, CoNLL where train.txt is, sentences where STS-B lies under it."""
    if (directory / "train.txt").is_file():
        return find_task("CoNLL", directory)
    if (directory / TASKS["STS-B"].directory / "dev.tsv").is_file():
        return SENTENCES
    return find_task(directory.resolve().name)


def read_split(task: Task, directory: Path, split: str) -> list[Example]:
    """The examples of directory/<split>.tsv in file order (of a token task: <split>.txt); "dev" is the task's own.

    Quoting is off (csv.QUOTE_NONE), as in GLUE: quotation marks are text. Raises ValueError, naming file and
    line, for a missing file, a missing column, a wrong number of columns or an unknown label.
    """
    split = task.dev if split == "dev" else split
    if task.kind == "embedding":
        from thex.sentences import read_sentences

        return read_sentences(directory, split)
    if task.layout is None:
        from thex.conll import read_conll

        return read_conll(task, directory, split)
    path = directory / f"{split}.tsv"
    if not path.is_file():
        raise ValueError(f"{path} is missing: expected the GLUE file of task {task.name}")
    examples = []
    layout, names = task.layout, task.layout.names
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
            if not names:
                names = tuple(row)
                for column in (layout.first, layout.second, layout.label):
                    if column is not None and column not in names:
                        raise ValueError(f"{path} has no column {column!r}; its header is {', '.join(names)}")
                continue
            if len(row) != len(names):
                if layout.ragged:
                    continue
                raise ValueError(f"{path}:{number}: {len(row)} columns, expected {len(names)}")
            values = dict(zip(names, row, strict=True))
            second = None if layout.second is None else values[layout.second].strip()
            label = _label(task, values[layout.label], f"{path}:{number}")
            examples.append(Example(values[layout.first].strip(), second, label))
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
