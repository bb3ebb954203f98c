"""What making a sentence encoder polynomial cost: its vectors beside the exact encoder's, and what they are good for.

STS-B's pairs (Spearman of cosines, dev and test), SST-2 by a linear head on the vectors, the cosine of every polynomial vector to
the exact one, and how inputs that nobody writes fare. In the clear; `thex evaluate --mode encrypted` compares with encryption.
"""

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.bundle import Bundle
from he_runtime.errors import RangeError
from services.evaluation import NothingToMeasureError
from services.plain_answers import PlainAnswers
from services.truncation import most_tokens, truncating_tokenizer
from thex.checkpoints import load_checkpoint
from thex.data import Encoded, encode
from thex.encoder import EXACT, Encoder
from thex.evaluation import predict
from thex.hostile import hostile_cases
from thex.metrics import cosine_spearman, cosines
from thex.progress import Progress, silent
from thex.sentences import read_sentences
from thex.tasks import TASKS, Example, read_split

Array = NDArray[np.float64]

HEAD_TEXTS = 4_000
QUANTILES = {"worst": 0.0, "1 in 1000": 0.001, "1 in 100": 0.01, "median": 0.5}


def embedding_quality(
    directory: Path,
    exact: str,
    data: Path,
    *,
    head_texts: int = HEAD_TEXTS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a sentence encoder's bundle against the checkpoint it was made of. data: GLUE's root, with STS-B and SST-2.

    head_texts: how many of SST-2's train file the linear head learns from, 0 to leave it out. Texts longer than the largest
    bucket are cut, for both. ValueError for a bundle that does not embed, a checkpoint of another width, or nothing in range.
    """
    both = _Both(directory, exact, progress)
    splits = {split: both.judged_pairs(data, split) for split in ("dev", "test") if _has_split(data, split)}
    found: dict[str, Any] = {"bundle": both.bundle.digest, "exact": exact, "STS-B": splits}
    if head_texts:
        found["SST-2, linear head"] = both.linear_head(data / TASKS["SST-2"].directory, head_texts)
    found["hostile"] = both.hostile()
    return found


def _has_split(data: Path, split: str) -> bool:
    """Whether the split is there with its scores, which GLUE's own test file lacks."""
    file = data / TASKS["STS-B"].directory / f"{split}.tsv"
    if not file.is_file():
        return False
    with file.open(encoding="utf-8") as lines:
        return "score" in lines.readline().split()


class _Both:
    """The bundle's plain polynomial model, and the exact encoder, asked with the same tokens."""

    def __init__(self, directory: Path, exact: str, progress: Progress) -> None:
        self.bundle, self.progress = Bundle.open(directory), progress
        config = self.bundle.config
        if config.task.kind != "embedding":
            raise ValueError(f"{directory} is for {config.task.kind}: expected a sentence encoder's bundle")
        self.most = most_tokens(self.bundle)
        self.model: Encoder = load_checkpoint(exact, pooling="mean", head=False, positions=self.most).eval()
        if self.model.config.hidden != config.architecture.hidden:
            raise ValueError(
                f"{exact} has {self.model.config.hidden} features, {directory} has {config.architecture.hidden}: give the "
                "checkpoint that the bundle was made of"
            )
        self.tokenizer = truncating_tokenizer(self.bundle)
        self.plain = PlainAnswers(self.bundle)

    def polynomial(self, texts: Encoded, what: str) -> Array:
        """[texts, features], not a number where a text is out of range, as a client would find."""
        rows = np.full((len(texts), self.bundle.config.architecture.hidden), np.nan)
        for number, (ids, types) in enumerate(zip(texts.ids, texts.types, strict=True)):
            with contextlib.suppress(RangeError):
                rows[number] = self.plain.answer(ids, types)
            self.progress(what, number + 1, len(texts))
        return rows

    def vectors(self, examples: Sequence[Example], what: str) -> tuple[Array, Array]:
        """Exact and polynomial vectors of single texts."""
        texts = encode(self.tokenizer, examples)
        return predict(self.model, texts, EXACT).double().numpy(), self.polynomial(texts, what)

    def judged_pairs(self, data: Path, split: str) -> dict[str, Any]:
        """Spearman of both on one split of STS-B; pairs with a sentence out of range are counted and left out."""
        examples = read_sentences(data, split)
        exact, polynomial = self.vectors(examples, f"STS-B {split}")
        scores = np.array([example.label for example in examples])
        there = _in_range(polynomial)
        pairs = np.repeat(there[0::2] & there[1::2], 2)
        if not pairs.any():
            raise NothingToMeasureError(f"no pair of STS-B's {split} file has both sentences in range")
        before, after = (cosine_spearman(of[pairs], scores[pairs])["spearman"] for of in (exact, polynomial))
        return {
            "pairs": int(pairs.sum()) // 2,
            "sentences out of range": int((~there).sum()),
            "exact": round(before, 2),
            "polynomial": round(after, 2),
            "drop": round(before - after, 2),
            "cosine to exact": _quantiles(cosines(exact[there], polynomial[there])),
        }

    def linear_head(self, data: Path, head_texts: int) -> dict[str, Any]:
        """SST-2 by logistic regression on unit vectors, each encoder's own head."""
        from sklearn.linear_model import LogisticRegression

        task = TASKS["SST-2"]
        train, dev = read_split(task, data, "train"), read_split(task, data, "dev")
        train = random.Random(0).sample(train, min(head_texts, len(train)))
        vectors = [self.vectors(examples, "SST-2") for examples in (train, dev)]
        usable = [_in_range(polynomial) for _, polynomial in vectors]
        if not all(there.any() for there in usable):
            raise NothingToMeasureError("no sentence of SST-2 is in range: a linear head has nothing to learn from")
        labels = [np.array([example.label for example in examples]) for examples in (train, dev)]
        accuracy = []
        for which in (0, 1):  # the exact encoder's vectors, then the polynomial's
            of_train, of_dev = (_unit(of[which][there]) for of, there in zip(vectors, usable, strict=True))
            head = LogisticRegression(max_iter=1000).fit(of_train, labels[0][usable[0]])
            accuracy.append(100 * float(head.score(of_dev, labels[1][usable[1]])))
        return {
            "learned from": int(usable[0].sum()),
            "sentences": int(usable[1].sum()),
            "exact": round(accuracy[0], 2),
            "polynomial": round(accuracy[1], 2),
            "drop": round(accuracy[0] - accuracy[1], 2),
        }

    def hostile(self) -> dict[str, dict[str, int]]:
        """Of each kind of input that nobody writes, how many a client would find out of range."""
        cases = hostile_cases(self.tokenizer, self.most, self.bundle.config.architecture.vocabulary)
        found = {}
        for kind, texts in cases.items():
            there = _in_range(self.polynomial(texts, f"hostile: {kind}"))
            found[kind] = {"texts": len(texts), "out of range": int((~there).sum())}
        return found


def _in_range(rows: Array) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(rows).all(axis=1), np.bool_)


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float64)


def _quantiles(values: NDArray[np.floating[Any]]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, share)), 4) for name, share in QUANTILES.items()}
