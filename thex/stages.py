"""One stage of a recipe: from a model to the model after it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from approx.softmax import TheXSoftmax, fit_reciprocal
from thex.augmentation import joined
from thex.calibration import calibrate
from thex.data import Batch, Encoded, pad
from thex.distillation import (
    HIDDEN_POINTS,
    embedding_loss,
    first_token_loss,
    hidden_loss,
    label_loss,
    logit_loss,
    range_penalty,
    score_penalty,
    spread_penalty,
)
from thex.encoder import EXACT, Encoder, Layer, Ratios
from thex.holding import HELD_POINTS, HoldingRecorder, Limits, row_limits
from thex.hostile import hostile_texts
from thex.optimisation import Schedule, steps
from thex.precision import mixed, products_in
from thex.progress import Progress
from thex.recipes import Operation, Recipe, Stage, ratios
from thex.recorder import Recorder
from thex.training_state import TrainingState
from thex.weight_share import keep_share

MOST_HOSTILE = 1.0
"""Where the penalty of hostile inputs turns logarithmic. All gradients are clipped together, so a large one drowns the others: at
50, in every other step of the last stage, a replaced STS-B student ended at 82.3; without hostile inputs there, at 85.1."""
HELD = tuple((point, weight) for point, weight in HIDDEN_POINTS if point in HELD_POINTS)


@dataclass(frozen=True)
class Lesson:
    """What a stage learns from. teacher: logits a text of data, or None; exact: the exact student, or None in the first stage.

    natural: what stages also see that neither labels nor the teacher answer.
    """

    recipe: Recipe
    data: Encoded
    teacher: torch.Tensor | None
    exact: Encoder | None
    seed: int
    device: torch.device
    progress: Progress
    natural: Encoded | None = None

    def texts_of(self, stage: Stage) -> Encoded:
        """Texts, of which the first are `data`."""
        if stage.answered or self.natural is None:
            return self.data
        return joined(self.data, self.natural, self.natural.labels)


def start_replacements(model: Encoder, lesson: Lesson) -> None:
    """Fit what is fitted before training: polynomials and norms by least squares on exact values, T on its domain."""
    for layer in model.layers:
        if isinstance(layer, Layer) and isinstance(layer.softmax.replaced, TheXSoftmax):
            fit_reciprocal(layer.softmax.replaced, seed=lesson.seed)
    calibrate(model, lesson.data, lesson.seed)


def learn(
    model: Encoder, stage: Stage, before: tuple[Operation, ...], lesson: Lesson, unfinished: Path | None = None
) -> None:
    """Train the model in place. before: the operations that earlier stages have replaced.

    unfinished: a file to keep the state of training in, and to resume at, of the same arguments.
    """
    recipe, texts = lesson.recipe, lesson.texts_of(stage)
    epochs = min(stage.most_epochs, stage.texts / len(texts))
    if epochs == 0:
        return
    model.train()
    earlier = {name: tensor.clone() for name, tensor in model.state_dict().items()} if stage.share < 1 else None
    torch.manual_seed(lesson.seed)
    schedule = Schedule(epochs, recipe.batch, stage.learning_rate)
    generator = random.Random(lesson.seed)
    exact_only = not before and not stage.replaces
    limits = row_limits(lesson.exact, lesson.data, lesson.seed) if stage.held and lesson.exact is not None else {}
    state = None if unfinished is None else TrainingState(unfinished, model, generator)
    trained = _trained(model, stage)
    with products_in(recipe.products):
        for step in steps(stage.name, trained, texts, schedule, lesson.device, lesson.seed, lesson.progress, state):
            moved = ratios(before, stage, step.fraction)
            recorder = HoldingRecorder(limits=limits) if limits else Recorder()
            with mixed(lesson.device, enabled=exact_only):
                logits = model(step.batch.ids, step.batch.mask, step.batch.types, moved, recorder)
            loss = _loss(logits.float(), recorder, step.batch, stage, lesson)
            if stage.hostile_every and step.number % stage.hostile_every == 0:
                loss = loss + _hostile_loss(model, moved, stage, limits, lesson, generator)
            step.descend(loss)
    if earlier is not None:
        keep_share(model, earlier, stage.share)


def _trained(model: Encoder, stage: Stage) -> Iterable[nn.Parameter]:
    if stage.trains == "all":
        return model.parameters()
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    norms = [norm.replaced for layer in layers for norm in (layer.attention_norm, layer.output_norm)]
    return [parameter for norm in norms for parameter in norm.parameters()]


def _loss(logits: torch.Tensor, recorder: Recorder, batch: Batch, stage: Stage, lesson: Lesson) -> torch.Tensor:
    bounds, layers = lesson.recipe.range_bounds, recorder.layers
    loss = _exact_loss(logits, recorder, batch, stage, lesson)
    if stage.label:
        loss = loss + stage.label * label_loss(logits, lesson.data.labels[batch.indices].to(lesson.device))
    if stage.teacher and lesson.teacher is not None:
        loss = loss + stage.teacher * logit_loss(logits, lesson.teacher[batch.indices].to(lesson.device), batch.mask)
    if stage.score:
        loss = loss + stage.score * score_penalty(recorder, bounds, layers)
    if stage.ranges:
        loss = loss + stage.ranges * range_penalty(recorder, bounds, layers)
    if stage.spread:
        loss = loss + stage.spread * spread_penalty(recorder, batch.mask, layers)
    return loss


def _exact_loss(
    logits: torch.Tensor,
    recorder: Recorder,
    batch: Batch,
    stage: Stage,
    lesson: Lesson,
    points: Sequence[tuple[str, float]] = HIDDEN_POINTS,
) -> torch.Tensor:
    """What the exact student's answer and states ask for, and what holding its rows costs."""
    loss, layers = torch.zeros((), device=lesson.device), recorder.layers
    if (stage.exact or stage.hidden or stage.first_token) and lesson.exact is not None:
        reference = Recorder()
        with torch.no_grad(), mixed(lesson.device, enabled=lesson.recipe.products == "bfloat16"):
            wanted = lesson.exact(batch.ids, batch.mask, batch.types, EXACT, reference)
        if not lesson.exact.config.head:
            loss = loss + stage.exact * embedding_loss(logits, wanted)
        else:
            loss = loss + stage.exact * logit_loss(logits, wanted, batch.mask)
        loss = loss + stage.hidden * hidden_loss(recorder, reference, batch.mask, layers, points)
        if stage.first_token and lesson.exact.config.pooling == "first":
            loss = loss + stage.first_token * first_token_loss(recorder, reference, layers)
    if isinstance(recorder, HoldingRecorder):
        loss = loss + stage.held * recorder.penalty
    return loss


def _hostile_loss(
    model: Encoder, moved: Ratios, stage: Stage, limits: Limits, lesson: Lesson, generator: random.Random
) -> torch.Tensor:
    """The ranges penalty of hostile inputs; where rows are held, so that all is finite, the exact student's states too."""
    recipe = lesson.recipe
    odd = hostile_texts(lesson.data, recipe.hostile_batch, model.config.vocabulary, model.config.positions, generator)
    batch = pad(odd, range(len(odd)), lesson.device)
    recorder = HoldingRecorder(limits=limits) if limits else Recorder()
    logits = model(batch.ids, batch.mask, batch.types, moved, recorder)
    penalty = bounded(range_penalty(recorder, recipe.range_bounds, model.config.layers), MOST_HOSTILE)
    loss = stage.ranges * penalty
    # Only what is held, and so bounded: the attention outputs of such inputs would be all that a step learns from.
    return loss + _exact_loss(logits, recorder, batch, stage, lesson, HELD) if limits else loss


def bounded(penalty: torch.Tensor, most: float) -> torch.Tensor:
    """The penalty up to `most`, and beyond it most·(1 + log(penalty/most)): what explodes pulls, but does not overturn the step.

    (Clamped, it would not pull at all.) Zero where it is not finite, which no gradient mends.
    """
    if not torch.isfinite(penalty):
        return torch.zeros_like(penalty)
    return penalty if penalty <= most else most * (1 + torch.log(penalty / most))
