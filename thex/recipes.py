"""Recipes: which replacements, in which order, learned how. Data, not code; a JSON file can hold another one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from thex.config import NOTHING_REPLACED, Facts, RangeBounds, Replacements
from thex.encoder import Ratios
from thex.precision import Products

Operation = Literal["softmax", "activation", "norm", "pooler"]


class Stage(Facts):
    """One named step of the workflow: what it replaces, and what it learns from.

    texts: how many are seen, at most most_epochs passes over all there are. ramp: the share of the stage over which the
    operations of `replaces` move from exact to replaced. trains: "norms" leaves all but the replaced norms as they are.
    Weights of the losses: label, teacher (logits of the fine-tuned larger encoder), exact and hidden (logits and hidden
    states of the exact student), first_token (its states in the last layer once more, where a classifier reads no other
    row), score (squares of attention scores beyond their bound: THE-X's regularisation against overflow), ranges (the same
    for scores, pre-activations and hidden states), spread (of the deviations that norms divide by, so that a constant can
    take their place), held (rows that run away, and are scaled back: thex.holding; 0 lets them run). hostile_every: each so many
    steps the ranges penalty also sees hostile inputs, and where rows are held all that the exact student says of them; 0 never.
    share: how far the model goes from its weights before the stage to those after it; less than 1 stays between them.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    replaces: tuple[Operation, ...] = ()
    texts: int = Field(default=22_000, ge=0)
    most_epochs: float = 5.0
    learning_rate: float = 5e-4
    ramp: float = Field(default=0.3, ge=0, le=1)
    trains: Literal["all", "norms"] = "all"
    label: float = 0.0
    teacher: float = 0.0
    exact: float = 0.0
    hidden: float = 0.0
    first_token: float = 0.0
    score: float = 0.0
    ranges: float = 0.0
    spread: float = 0.0
    held: float = 0.0
    hostile_every: int = 0
    share: float = Field(default=1.0, gt=0, le=1)

    @property
    def answered(self) -> bool:
        """Whether it learns from labels or the teacher's answers; a stage that does not can learn from any text."""
        return self.label > 0 or self.teacher > 0


TAKEN = frozenset({"calibrate", "bundle"})
"""Names of what stands beside stages in a run's directory."""


class Recipe(Facts):
    """The whole workflow of one kind of model. finetune makes the exact student that every other stage is compared with.

    sentences: how many texts of the train file, 0 for all. altered: so many times as many more are made of them
    (thex.augmentation), at least altered_at_least where any are, which the teacher answers: none without a teacher.
    natural_up_to: stages that are not answered learn from so many texts at least, what a task lacks being natural ones without
    labels (thex.natural). Neither for a task with a label for each token. products: how precise the inputs of the stages' matrix
    products are (thex.precision).
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    finetune: Stage
    replacements: Replacements
    stages: tuple[Stage, ...] = ()
    batch: int = 64
    hostile_batch: int = 8
    products: Products = "float32"
    sentences: int = 0
    altered: float = Field(default=0.0, ge=0, le=20)
    altered_at_least: int = Field(default=0, ge=0)
    natural_up_to: int = Field(default=0, ge=0)
    dropout: float = 0.0
    range_bounds: RangeBounds = RangeBounds()
    range_margin: float = Field(default=1.5, ge=1)
    calibration_sentences: int = 2_000
    positions: int = 128
    buckets: tuple[int, ...] = (16, 32, 64, 128)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)) or self.buckets[-1] > self.positions:
            raise ValueError(f"buckets must rise and end at or below positions ({self.positions}), got {self.buckets}")
        names = [self.finetune.name, *(stage.name for stage in self.stages)]
        if len(set(names)) != len(names):
            raise ValueError(f"stages of a recipe have different names, got {', '.join(names)}")
        taken = sorted(TAKEN.intersection(names))
        if taken:
            raise ValueError(f"no stage can be called {taken[0]!r}: what every recipe ends with is")
        return self

    def without(self, skipped: tuple[str, ...]) -> Recipe:
        """The recipe less some stages; what they replace stays exact. ValueError names the stages there are."""
        names = [stage.name for stage in self.stages]
        unknown = [name for name in skipped if name not in names]
        if unknown:
            raise ValueError(f"recipe {self.name} has no stage {unknown[0]!r}: its stages are {', '.join(names)}")
        if not skipped:
            return self
        kept = tuple(stage for stage in self.stages if stage.name not in skipped)
        return self.model_copy(update={"name": "-".join((self.name, "without", *skipped)), "stages": kept})

    def altered_count(self, texts: int) -> int:
        """How many altered texts are made of that many."""
        return max(round(self.altered * texts), self.altered_at_least) if self.altered else 0

    def replaced_after(self, count: int) -> tuple[Operation, ...]:
        """The operations that the first count stages replace."""
        return tuple(operation for stage in self.stages[:count] for operation in stage.replaces)


def ratios(before: tuple[Operation, ...], stage: Stage, fraction: float) -> Ratios:
    """How far each operation has moved at that share of the stage, when `before` are replaced already."""
    moved = 1.0 if stage.ramp == 0 else min(1.0, fraction / stage.ramp)
    of = dict.fromkeys(before, 1.0) | {name: moved for name in stage.replaces if name not in before}
    return Ratios(of.get("softmax", 0.0), of.get("activation", 0.0), of.get("norm", 0.0), of.get("pooler", 0.0))


STEADY = 2.0
"""Weight of the spread while what comes before the norms is replaced. In fine-tuning it would cost the exact student: SST-2 fell
from 84.4 to 82.5 at 6 (one seed)."""
FINETUNE = Stage(name="finetune", texts=400_000, most_epochs=3, learning_rate=5e-4, label=0.5, teacher=1.0, ranges=0.3)
"""No more than three passes: a student that has learned a small task's labels by heart answers other texts by chance, and no
replacement answers alike. RTE after eight: 93 % of train and 56.7 % of dev are right, and a replaced student agrees on 88.4 % of
dev; after three: 77 %, 57.4 % and 89.5 % (one seed)."""
ALTERED, ALTERED_AT_LEAST = 2.0, 15_000
"""Altered texts, as a multiple of the train file, and how many a small one has."""

NON_INTERACTIVE = Recipe(
    name="non-interactive",
    finetune=FINETUNE,
    altered=ALTERED,
    altered_at_least=ALTERED_AT_LEAST,
    natural_up_to=120_000,
    replacements=Replacements(
        softmax="quadratic_centred", activation="quadratic", norm="affine_centred", pooler="linear"
    ),
    stages=(
        Stage(
            name="activation", replaces=("activation", "pooler"), texts=11_000, most_epochs=2, label=0.4, teacher=1.0,
            exact=1.0, hidden=1.0, ranges=0.3, spread=STEADY, hostile_every=4,
        ),
        Stage(
            name="softmax", replaces=("softmax",), texts=45_000, learning_rate=1.5e-3, exact=1.0, hidden=1.0,
            first_token=1.0, ranges=0.3, spread=STEADY, hostile_every=4,
        ),
        Stage(
            name="norm", replaces=("norm",), texts=6_000, most_epochs=2, learning_rate=2e-3, ramp=0.5, trains="norms",
            exact=1.0, hidden=1.0, first_token=1.0,
        ),
        Stage(
            name="distil", texts=120_000, learning_rate=1.5e-3, exact=2.0, hidden=1.0, first_token=1.0, ranges=0.3,
        ),
    ),
)  # fmt: skip
"""Nothing leaves the server: every part is a polynomial, learned beside the exact student's states. Hostile inputs have no part
in the last stage: without norms their penalty holds everything else back (STS-B, one seed, drop 3.1 instead of 1.0). Nor have
labels and the teacher, which pull away from the exact student (CoLA, one seed, 150,000 texts: agreement 92.3, with them 89.9).
From the softmax on it learns from natural texts too: STS-B, one seed, correlation with the exact student 98.1 without, 98.5 with
a first draft of them. Scores are centred: after the softmax stage 98.3 instead of 97.9."""

THE_X = Recipe(
    name="the-x",
    finetune=FINETUNE,
    altered=ALTERED,
    altered_at_least=ALTERED_AT_LEAST,
    replacements=Replacements(softmax="thex_formula", activation="relu", norm="affine", pooler="linear"),
    stages=(
        Stage(name="activation", replaces=("activation",), texts=11_000, most_epochs=2, ramp=0, label=1.0),
        Stage(name="softmax", replaces=("softmax",), texts=15_000, most_epochs=3, ramp=0, label=1.0, score=0.3),
        Stage(
            name="norm", replaces=("norm", "pooler"), texts=6_000, most_epochs=2, learning_rate=2e-3, ramp=0.5,
            trains="norms", exact=1.0, hidden=1.0,
        ),
        Stage(name="distil", texts=40_000, label=1.0, exact=1.0, hidden=1.0, score=0.3),
    ),
)  # fmt: skip
"""THE-X as published (Chen et al. 2022, section 3): fine-tune with ReLU, then with the softmax estimate whose T is learned
before and frozen, then distil LayerNorm into an affine map from the exact model and drop it. The softmax is the paper's
formula. What is not the paper's is the data, which is NON_INTERACTIVE's but for natural texts, which labels do not answer."""

THE_X_CODE = THE_X.model_copy(
    update={"name": "the-x-code", "replacements": THE_X.replacements.model_copy(update={"softmax": "thex_code"})}
)
"""The same with the softmax of the one public implementation, which is not the formula: see docs/approximations.md."""

SENTENCE_ENCODER = Recipe(
    name="sentence-encoder",
    finetune=Stage(name="finetune", texts=0),
    replacements=Replacements(
        softmax="quadratic_centred", activation="quadratic", norm="affine_centred", pooler="linear"
    ),
    stages=(
        Stage(
            name="activation", replaces=("activation", "pooler"), texts=12_000, learning_rate=4e-4, exact=1.0, hidden=1.0,
            ranges=0.1, hostile_every=4,
        ),
        Stage(
            name="softmax", replaces=("softmax",), texts=18_000, learning_rate=4e-4, ramp=0.6, exact=1.0, hidden=1.0,
            ranges=0.1, hostile_every=4,
        ),
        Stage(
            name="norm", replaces=("norm",), texts=30_000, learning_rate=4e-4, ramp=0.8, exact=1.0, hidden=1.0,
            ranges=0.1, hostile_every=4,
        ),
        Stage(
            name="distil", texts=180_000, learning_rate=4e-4, exact=1.0, hidden=1.0, ranges=0.1, hostile_every=4,
        ),
        Stage(
            name="hold", texts=110_000, learning_rate=3e-4, exact=1.0, hidden=1.0, ranges=0.1, held=0.02, hostile_every=2,
            share=0.5,
        ),
    ),
    products="bfloat16",
    range_bounds=RangeBounds(score=12.0, preactivation=8.0, hidden=10.0),
    positions=64,
    buckets=(16, 32, 64),
)  # fmt: skip
"""A sentence encoder as it is, made polynomial: nothing but its own embeddings and states is learned from."""

EXACT_ONLY = Recipe(
    name="exact",
    finetune=FINETUNE,
    altered=ALTERED,
    altered_at_least=ALTERED_AT_LEAST,
    replacements=NOTHING_REPLACED,
)
"""Fine-tuning alone: what two encoders are compared by."""

RECIPES = {recipe.name: recipe for recipe in (NON_INTERACTIVE, THE_X, THE_X_CODE, EXACT_ONLY, SENTENCE_ENCODER)}


def find_recipe(name: str) -> Recipe:
    """A built-in recipe by name, or one from a JSON file; ValueError names the built-in ones."""
    if name in RECIPES:
        return RECIPES[name]
    if Path(name).is_file():
        return Recipe.model_validate_json(Path(name).read_text(encoding="utf-8"))
    raise ValueError(f"unknown recipe {name!r}: expected {', '.join(RECIPES)}, or a JSON file with a recipe's fields")
