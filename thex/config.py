"""Every choice of a training run, as frozen, strictly read facts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from approx.registry import ACTIVATION, NORM, POOLER, SOFTMAX

TABLES = {"softmax": SOFTMAX, "activation": ACTIVATION, "norm": NORM, "pooler": POOLER}


class Facts(BaseModel):
    """Frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Replacements(Facts):
    """Which replacement each operation ends as; names of approx.registry."""

    softmax: str = "quadratic"
    activation: str = "quadratic"
    norm: str = "affine_centred"
    pooler: str = "linear"

    @model_validator(mode="after")
    def _known(self) -> Replacements:
        for operation, table in TABLES.items():
            if getattr(self, operation) not in table:
                raise ValueError(
                    f"unknown {operation} {getattr(self, operation)!r}: expected one of {', '.join(table)}"
                )
        return self


NOTHING_REPLACED = Replacements(softmax="exact", activation="exact", norm="exact", pooler="exact")


Pooling = Literal["first", "mean", "tokens"]


class EncoderConfig(Facts):
    """Shape of a BERT encoder with a sequence classifier.

    labels: width of the last layer (1 for regression). pooling: "first" is BERT's pooler on the first token;
    "mean" classifies the mean over real tokens, without pooler, as sentence encoders are trained;
    "tokens" classifies every token. head: False for a sentence encoder, whose mean is the answer itself; labels is then
    hidden. embedding: width of the embeddings where it is not hidden (ELECTRA), None where it is.
    """

    vocabulary: int = Field(gt=0)
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    intermediate: int = Field(gt=0)
    positions: int = Field(default=128, gt=0)
    token_types: int = Field(default=2, gt=0)
    labels: int = Field(default=2, gt=0)
    embedding: int | None = Field(default=None, gt=0)
    norm_epsilon: float = 1e-12
    pooling: Pooling = "first"
    head: bool = True
    dropout: float = 0.0

    @model_validator(mode="after")
    def _heads_divide(self) -> EncoderConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if not self.head and (self.pooling != "mean" or self.labels != self.hidden):
            raise ValueError("an encoder without a head answers with its mean: pooling is mean, and labels is hidden")
        return self


class RangeBounds(Facts):
    """Where the range penalty begins, in absolute value."""

    score: float = 4.0
    preactivation: float = 4.0
    hidden: float = 8.0
