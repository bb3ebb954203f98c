"""Finished questions, each a line of an append-only file, so that a stopped run resumes and loses nothing.

Lines hold outputs for texts of public data files, under keys that are thrown away with the run.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from he_runtime.bundle import Bundle
from he_runtime.planner import plan_bundle
from services.answering import Asking, Mode, Question

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answer:
    """One finished question. index: its number; text: digest of its tokens. logits: None where it was refused."""

    index: int
    text: str
    logits: list[float] | None
    seconds: float


def answer_file(directory: Path, bundle: Bundle, mode: Mode, what: str = "") -> Path:
    """The file under directory for a bundle, or where one runs, for its program. what: of questions that are no task's."""
    digest = bundle.digest if mode == "plain" else plan_bundle(bundle).digest
    return directory / f"{'-'.join(part for part in (digest[:16], mode, what) if part)}.jsonl"


def finished(
    kept: Path, questions: Mapping[int, Question], asking: Asking, progress: Progress = lambda _done, _total: None
) -> dict[int, Answer]:
    """An answer to each question: those that the file has, and the others asked, in order, and added to it one by one."""
    done = kept_answers(kept, questions)
    missing = [index for index in questions if index not in done]
    if missing:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with asking() as ask, kept.open("ab") as file:
            if _ends_within_a_line(kept):
                file.write(b"\n")
            for count, index in enumerate(missing, 1):
                started = time.perf_counter()
                outputs = ask(questions[index])
                seconds = round(time.perf_counter() - started, 3)
                values = None if outputs is None else outputs.round(6).tolist()
                done[index] = Answer(index, questions[index].digest, values, seconds)
                file.write(json.dumps(asdict(done[index])).encode() + b"\n")
                file.flush()
                progress(len(questions) - len(missing) + count, len(questions))
    return done


def kept_answers(kept: Path, questions: Mapping[int, Question]) -> dict[int, Answer]:
    """What the file has of the questions as they are now: the last whole line of each."""
    answers = {}
    if kept.exists():
        for line in kept.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError):  # a line that a crash cut short
                answer = Answer(**json.loads(line))
                question = questions.get(answer.index)
                if question is not None and question.digest == answer.text:
                    answers[answer.index] = answer
    return answers


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
