"""Token classification in CoNLL's layout: a word and its columns a line, the tag last, a blank line after each sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from thex.tasks import Example, Task

DEV_NAMES = ("dev", "valid", "testa")


def conll_task(directory: Path) -> Task:
    """The task of directory: its labels are the tags of train.txt in alphabetical order, "O" first."""
    tags = {tag for _, sentence in _sentences(directory / "train.txt") for _, tag in sentence}
    dev = next((name for name in DEV_NAMES if (directory / f"{name}.txt").is_file()), DEV_NAMES[0])
    return Task("CoNLL", "tokens", tuple(sorted(tags, key=lambda tag: (tag != "O", tag))), "entity_f1", dev=dev)


def read_conll(task: Task, directory: Path, split: str) -> list[Example]:
    """The sentences of directory/<split>.txt. ValueError names file and line of a tag that train.txt does not have."""
    path = directory / f"{split}.txt"
    places = {tag: index for index, tag in enumerate(task.labels)}
    examples = []
    for number, sentence in _sentences(path):
        words = tuple(word for word, _ in sentence)
        unknown = next((tag for _, tag in sentence if tag not in places), None)
        if unknown is not None:
            raise ValueError(f"{path}:{number}: tag {unknown!r} is not one of train.txt's {', '.join(task.labels)}")
        examples.append(Example(" ".join(words), None, 0.0, words, tuple(places[tag] for _, tag in sentence)))
    if not examples:
        raise ValueError(f"{path} holds no sentences")
    return examples


def _sentences(path: Path) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Each sentence with the number of its last line; -DOCSTART- lines are left out."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: expected CoNLL's layout, a word and its tag a line")
    sentence: list[tuple[str, str]] = []
    number = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            columns = line.split()
            if not columns or columns[0] == "-DOCSTART-":
                if sentence:
                    yield number, sentence
                sentence = []
                continue
            if len(columns) < 2:
                raise ValueError(f"{path}:{number}: one column, expected a word and, last, its tag")
            sentence.append((columns[0], columns[-1]))
    if sentence:
        yield number, sentence
