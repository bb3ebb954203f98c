"""A search bundle asked: is what its encrypted scores rank first what the plain polynomial model ranks first?"""

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from he_runtime.bundle import Bundle
from services.answer_file import Progress, answer_file, finished
from services.answering import Connect, Mode, answering, local_client, questions_of
from services.client.result import nearest
from services.evaluation import NothingToMeasureError
from services.plain_answers import PlainAnswers
from thex.metrics import cosines
from thex.tasks import Example


def evaluate_search(
    directory: Path,
    queries: Sequence[str],
    mode: Mode,
    *,
    top: int = 10,
    answers: Path = Path("runs/evaluate"),
    threads: int = 2,
    connect: Connect | None = None,
    progress: Progress = lambda _done, _total: None,
) -> dict[str, Any]:
    """Ask each query, and compare its first `top` passages with those of the plain polynomial model.

    `same_ranking`: queries whose passages are the same in the same order; `same_passages`: the same in any order.
    `smallest_gap`: of neighbours among the plain model's first top + 1, the least difference of cosines, which an error has to be
    half of to change a ranking. answers, connect: as of `evaluate`; a stopped run resumes. ValueError for another kind of bundle.
    """
    bundle = Bundle.open(directory)
    task = bundle.config.task
    if task.kind != "search":
        raise ValueError(f"{directory} is for {task.kind}: queries are asked of a bundle that `thex index` wrote")
    if not queries:
        raise ValueError("no queries: expected one a line")
    questions = dict(enumerate(questions_of(bundle, [Example(query, None, 0.0) for query in queries])))
    asking = partial(answering, mode, bundle, connect or local_client(threads))
    done = finished(answer_file(answers, bundle, mode), questions, asking, progress)
    model = PlainAnswers(bundle)
    ranked, same, errors, gaps, vectors = 0, 0, [], [], []
    given = [done[number] for number in range(len(queries)) if done[number].logits is not None]
    if not given:
        raise NothingToMeasureError(
            f"none of {len(queries)} queries has an answer in range; there is nothing to measure"
        )
    for answer in given:
        question = questions[answer.index]
        outputs, plain = np.array(answer.logits), model.outputs(question.ids, question.types)
        found, wanted = (nearest(scores, task.passages, top + 1) for scores in (outputs, plain))
        numbers, wanted_numbers = ([match.number for match in of[:top]] for of in (found, wanted))
        ranked += numbers == wanted_numbers
        same += set(numbers) == set(wanted_numbers)
        vector, plain_vector = (scores[task.passages :] for scores in (outputs, plain))
        errors.append(
            np.abs(outputs / np.linalg.norm(vector) - plain / np.linalg.norm(plain_vector))[: task.passages].max()
        )
        gaps.append(-np.diff([match.cosine for match in wanted]).max() if len(wanted) > 1 else np.inf)
        vectors.append((vector, plain_vector))
    return {
        "mode": mode,
        "bundle": bundle.digest,
        "passages": task.passages,
        "top": top,
        "queries": len(given),
        "out_of_range": len(queries) - len(given),
        "same_ranking": ranked,
        "same_passages": same,
        "max_cosine_error": float(max(errors)),
        "smallest_gap": float(min(gaps)),
        "worst_cosine": float(cosines(*(np.array(of) for of in zip(*vectors, strict=True))).min()),
        "seconds_per_query": statistics.median(answer.seconds for answer in given),
    }
