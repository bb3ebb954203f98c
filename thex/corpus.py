"""Unlabelled text for distilling students: the texts of tasks' train files, never of dev or test."""

from __future__ import annotations

from pathlib import Path

from thex.tasks import TASKS, Example, read_split


def unlabelled(root: Path) -> list[Example]:
    """Every different text, or pair of texts, of the train files under root/<task>/; labels are zero and mean nothing.

    Tasks in the order of thex.tasks, examples in file order. ValueError when root holds no task.
    """
    seen: dict[tuple[str, str | None], None] = {}
    for task in TASKS.values():
        directory = root / task.directory
        if (directory / "train.tsv").is_file():
            seen.update(
                dict.fromkeys((example.first, example.second) for example in read_split(task, directory, "train"))
            )
    if not seen:
        raise ValueError(f"{root} holds no <task>/train.tsv; expected GLUE's directories, e.g. {root}/SST-2/train.tsv")
    return [Example(first, second, 0.0) for first, second in seen]
