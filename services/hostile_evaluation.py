"""Inputs that nobody writes, asked of a bundle: each is answered as the plain replaced model does, or refused; never wrongly."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from he_runtime.bundle import Bundle
from services.answer_file import Progress, answer_file, finished
from services.answering import Connect, Mode, Question, answering, local_client, shown
from services.plain_answers import PlainAnswers
from services.truncation import most_tokens, truncating_tokenizer
from thex.hostile import hostile_cases

TOLERANCE = 1e-2
"""An answer further than this from the plain model's is wrong: noise is a hundredth of it."""


def evaluate_hostile(
    directory: Path,
    mode: Mode,
    *,
    answers: Path = Path("runs/evaluate"),
    threads: int = 2,
    connect: Connect | None = None,
    progress: Progress = lambda _done, _total: None,
) -> dict[str, Any]:
    """Ask all of `thex.hostile.hostile_cases`: how many are answered, refused, and answered wrongly, by kind and in all.

    Refused is what leaves a calibrated range, or leaves numbers where an honest answer has none. answers, connect: as of
    `evaluate`; a stopped run resumes.
    """
    bundle = Bundle.open(directory)
    kind_of_task, vocabulary = bundle.config.task.kind, bundle.config.architecture.vocabulary
    cases = hostile_cases(truncating_tokenizer(bundle), most_tokens(bundle), vocabulary)
    kinds = {kind: {"texts": len(texts), "refused": 0, "wrong": 0} for kind, texts in cases.items()}
    kind_of = [kind for kind, texts in cases.items() for _ in texts.ids]
    questions = dict(
        enumerate(
            Question(ids, types) for texts in cases.values() for ids, types in zip(texts.ids, texts.types, strict=True)
        )
    )
    asking = partial(answering, mode, bundle, connect or local_client(threads))
    done = finished(answer_file(answers, bundle, mode, "hostile"), questions, asking, progress)
    model, errors = PlainAnswers(bundle), [0.0]
    for index, question in questions.items():
        counts, outputs = kinds[kind_of[index]], done[index].logits
        if outputs is None:
            counts["refused"] += 1
            continue
        wanted = shown(kind_of_task, model.outputs(question.ids, question.types))
        error = float(np.abs(np.array(outputs) - wanted).max())
        counts["wrong"] += not error <= TOLERANCE
        errors.append(error)
    total, refused, wrong = (sum(counts[name] for counts in kinds.values()) for name in ("texts", "refused", "wrong"))
    return {
        "mode": mode,
        "bundle": bundle.digest,
        "texts": total,
        "answered": total - refused,
        "refused": refused,
        "wrong": wrong,
        "max_logit_error": max(errors),
        "kinds": kinds,
    }
