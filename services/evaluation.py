"""A bundle measured on a task's dev file: in the clear, on the simulator, or encrypted through a real client and server."""

import itertools
import random
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from he_runtime.bundle import Bundle
from services.answer_file import Answer, Progress, answer_file, finished, kept_answers
from services.answering import Connect, Mode, Question, answering, local_client, questions_of, shown
from services.plain_answers import PlainAnswers
from thex.metrics import agreement, cosines, score
from thex.tasks import Example, Task, find_task, read_split

REGRESSION_TOLERANCE = 1e-2
"""Two scores of a regression agree when they differ by no more: a hundredth of a point of STS-B's five."""
EMBEDDING_COSINE = 0.9999
"""Two vectors of a text agree when their cosine is no less."""


class NothingToMeasureError(ValueError):
    """Not one text has an answer in range."""


def evaluate(
    directory: Path,
    data: Path,
    mode: Mode,
    *,
    limit: int | None = None,
    answers: Path = Path("runs/evaluate"),
    threads: int = 2,
    connect: Connect | None = None,
    progress: Progress = lambda _done, _total: None,
) -> dict[str, Any]:
    """Metrics of a bundle on data's dev file, `plain_value` that of the plain replaced model on the same examples.

    limit: a fixed random sample of so many examples, None for all; a larger one contains a smaller one. answers: where
    finished examples are kept. Texts longer than the bundle's largest bucket are cut, as in training.
    connect: a client of a server of the bundle; by default both are started on this machine.
    ValueError when the data is of another task than the bundle.
    """
    bundle, task, examples, questions = _read_both(directory, data)
    chosen = {index: questions[index] for index in _chosen(task, len(examples), limit)}
    asking = partial(answering, mode, bundle, connect or local_client(threads))
    done = finished(answer_file(answers, bundle, mode), chosen, asking, progress)
    return {
        "mode": mode,
        "bundle": bundle.digest,
        **_summary(bundle, task, examples, questions, [done[index] for index in sorted(chosen)]),
    }


def answered(directory: Path, data: Path, mode: Mode, answers: Path) -> int:
    """The largest limit for which `evaluate` finds all its examples answered already."""
    bundle, task, examples, questions = _read_both(directory, data)
    done = kept_answers(answer_file(answers, bundle, mode), dict(enumerate(questions)))
    count = sum(1 for _ in itertools.takewhile(done.__contains__, _order(task, len(examples))))
    return count - count % 2 if task.kind == "embedding" else count


def _read_both(directory: Path, data: Path) -> tuple[Bundle, Task, list[Example], list[Question]]:
    """Bundle, task, the dev file's examples, and questions; ValueError when the data is of another task than the bundle."""
    bundle = Bundle.open(directory)
    task = find_task(bundle.config.task.name, data)
    if (task.kind, task.labels) != (bundle.config.task.kind, bundle.config.task.labels):
        raise ValueError(f"{directory} answers {bundle.config.task.labels}, the task {task.name} has {task.labels}")
    examples = read_split(task, data, "dev")
    return bundle, task, examples, questions_of(bundle, examples)


def _order(task: Task, count: int) -> list[int]:
    """The rows of a dev file in the order in which they are asked: fixed, random; sentences to embed stay in pairs."""
    if task.kind != "embedding":
        return random.Random(0).sample(range(count), count)
    return [2 * pair + side for pair in random.Random(0).sample(range(count // 2), count // 2) for side in (0, 1)]


def _chosen(task: Task, count: int, limit: int | None) -> list[int]:
    """A sample of so many examples, in that order; of sentences to embed whole pairs."""
    if limit is not None and task.kind == "embedding":
        limit += limit % 2
    return _order(task, count)[:limit]


def _summary(
    bundle: Bundle, task: Task, examples: list[Example], questions: Sequence[Question], answers: list[Answer]
) -> dict[str, Any]:
    model = PlainAnswers(bundle)
    given = [answer for answer in answers if answer.logits is not None]
    if task.kind == "embedding":  # of a pair, one sentence proves nothing
        there = {answer.index for answer in given}
        given = [answer for answer in given if answer.index ^ 1 in there]
    if not given:
        raise NothingToMeasureError(f"none of {len(answers)} texts has an answer in range; there is nothing to measure")
    asked = [questions[answer.index] for answer in given]
    found = np.array([answer.logits for answer in given])
    plain = np.array([shown(task.kind, model.outputs(question.ids, question.types)) for question in asked])
    labels = np.array([examples[answer.index].label for answer in given])
    metrics = score(task, found, labels)
    main = next(iter(metrics))
    if task.kind == "regression":
        agree = 100 * float((np.abs(found - plain) <= REGRESSION_TOLERANCE).all(axis=1).mean())
    elif task.kind == "embedding":
        agree = 100 * float((cosines(found, plain) >= EMBEDDING_COSINE).mean())
    else:
        agree = agreement(task, found, plain, labels)
    return {
        "task": task.name,
        "metric": main,
        "value": round(metrics[main], 3),
        "plain_value": round(score(task, plain, labels)[main], 3),
        "metrics": {name: round(value, 3) for name, value in metrics.items()},
        "count": len(given),
        "agree": round(agree, 3),
        "max_logit_error": float(np.abs(found - plain).max()),
        **({"worst_cosine": float(cosines(found, plain).min())} if task.kind == "embedding" else {}),
        "out_of_range": sum(answer.logits is None for answer in answers),
        "seconds_per_example": statistics.median(answer.seconds for answer in given),
    }
