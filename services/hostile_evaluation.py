"""Inputs that nobody writes, asked of a bundle: each is answered as the plain replaced model does, or refused; never wrongly."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.bundle import Bundle
from services.client.errors import AnswerError, OutOfRangeError
from services.evaluation import Connect, Mode, answering, local_client, shown
from services.plain_answers import PlainAnswers
from services.truncation import most_tokens, truncating_tokenizer
from thex.hostile import hostile_cases
from thex.tasks import Example

Array = NDArray[np.float64]
TOLERANCE = 1e-2
"""An answer further than this from the plain model's is wrong: noise is a hundredth of it."""
Ask = Callable[[list[int], list[int]], Array | None]
"""Outputs of a text given as token ids and types; None where it is refused."""


def evaluate_hostile(
    directory: Path,
    mode: Mode,
    *,
    threads: int = 2,
    connect: Connect | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Ask all of `thex.hostile.hostile_cases`: how many are answered, refused, and answered wrongly, by kind and in all.

    Refused is what leaves a calibrated range, or leaves numbers where an honest answer has none. connect: as in `evaluate`.
    """
    bundle = Bundle.open(directory)
    kind_of_task, vocabulary = bundle.config.task.kind, bundle.config.architecture.vocabulary
    cases = hostile_cases(truncating_tokenizer(bundle), most_tokens(bundle), vocabulary)
    model = PlainAnswers(bundle)
    total, done, errors = sum(len(texts) for texts in cases.values()), 0, [0.0]
    kinds: dict[str, dict[str, int]] = {}
    with _asking(mode, bundle, connect or local_client(threads)) as ask:
        for kind, texts in cases.items():
            counts = kinds[kind] = {"texts": len(texts), "refused": 0, "wrong": 0}
            for ids, types in zip(texts.ids, texts.types, strict=True):
                outputs = ask(ids, types)
                if outputs is None:
                    counts["refused"] += 1
                else:
                    wanted = model.outputs(ids, types)
                    error = float(np.abs(shown(kind_of_task, outputs) - shown(kind_of_task, wanted)).max())
                    counts["wrong"] += not error <= TOLERANCE
                    errors.append(error)
                done += 1
                progress(done, total)
    return {
        "mode": mode,
        "bundle": bundle.digest,
        "texts": total,
        "answered": total - sum(counts["refused"] for counts in kinds.values()),
        "refused": sum(counts["refused"] for counts in kinds.values()),
        "wrong": sum(counts["wrong"] for counts in kinds.values()),
        "max_logit_error": max(errors),
        "kinds": kinds,
    }


@contextlib.contextmanager
def _asking(mode: Mode, bundle: Bundle, connect: Connect) -> Iterator[Ask]:
    if mode != "encrypted":
        with answering(mode, bundle, connect) as ask:
            yield lambda ids, types: ask(Example("", None, 0.0), ids, types)
        return
    with connect(bundle.directory) as client:

        def encrypted(ids: list[int], types: list[int]) -> Array | None:
            try:
                return client.outputs_of(ids, types)
            except (OutOfRangeError, AnswerError):
                return None

        yield encrypted
