"""What a model benchmark runs: a plan for one bucket, and an embedded text that fills it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.random_models import random_text, random_weights
from he_runtime.bundle import Bundle, EncoderWeights
from he_runtime.parameters import COARSE_SCALES_BITS, SCALES_BITS
from he_runtime.plan import Plan
from he_runtime.planner import plan_bundle, plan_weights

REVIEW = (
    "a gripping , beautifully shot film , warm , funny and surprisingly moving , with a cast that never puts a foot wrong "
    "and a story that stays with you long after the lights come up ; the jokes are sharp , the music is lovely , and the "
    "quiet scenes between father and daughter are as good as anything this director has made in a long and uneven career , "
    "so that even the slow middle hour , which could have lost a few minutes , earns its place in the end"
)
HEAD_SIZE = 64


@dataclass(frozen=True)
class Workload:
    """One model, one bucket, one text."""

    name: str
    weights: EncoderWeights
    plan: Plan
    bucket: int
    embedded: NDArray[np.float64]
    """[tokens, hidden]: as many tokens as whole words leave in the bucket."""


def text_of(tokenise: Callable[[str], list[int]], tokens: int) -> str:
    """The longest beginning of a review, begun anew as often as needed, that has at most `tokens` tokens."""
    words: list[str] = []
    for word in itertools.cycle(REVIEW.split()):
        if len(tokenise(" ".join([*words, word]))) > tokens:
            break
        words.append(word)
    return " ".join(words)


def bundle_workload(directory: Path, bucket: int) -> Workload:
    """A bundle's bucket. ValueError when it has no such bucket."""
    from tokenizers import Tokenizer

    bundle = Bundle.open(directory)
    if bucket not in bundle.config.buckets:
        raise ValueError(f"bucket {bucket} is not one of this bundle's {list(bundle.config.buckets)}")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = tokenizer.encode(text_of(lambda text: list(tokenizer.encode(text).ids), bucket)).ids
    embedded = bundle.client_half.embed(list(ids))
    return Workload(bundle.config.name, bundle.weights(), plan_bundle(bundle, (bucket,)), bucket, embedded)


def random_workload(
    layers: int, hidden: int, bucket: int, *, heads: int | None = None, embedding: bool = False
) -> Workload:
    """Random weights of a shape that nobody has trained; feed-forward four times as wide as a token; the planner's own ring.

    heads: None for heads of 64. embedding: a sentence encoder instead of a classifier. The softmax is that of models which
    are trained now, `quadratic_centred`: it takes more than `quadratic`.
    """
    if hidden % (heads or min(HEAD_SIZE, hidden)) or not layers > 0 or not hidden > 0:
        whose = f"of {heads} heads" if heads else f"of a head's {HEAD_SIZE}"
        raise ValueError(f"{hidden} features are not a multiple {whose}")
    heads = heads or max(1, hidden // HEAD_SIZE)
    weights = random_weights(
        layers,
        hidden,
        heads,
        4 * hidden,
        softmax="quadratic_centred",
        classes=None if embedding else 2,
        pooling="mean" if embedding else "first",
    )
    name = f"random-{layers}x{hidden}" + ("-embedding" if embedding else "")
    scales = COARSE_SCALES_BITS if embedding else SCALES_BITS
    plan = plan_weights(weights, (bucket,), logit_range=50.0, model_digest=name, scales_bits=scales)
    return Workload(name, weights, plan, bucket, random_text(bucket, hidden))
