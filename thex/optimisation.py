"""The optimiser of every stage: AdamW, warm-up, linear decay, clipped gradients."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from thex.data import Batch, Encoded, shuffled
from thex.progress import Progress
from thex.training_state import TrainingState

WARMUP_STEPS = 100


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number from 0, of how many, the batch, and what to call with its loss."""

    number: int
    of: int
    batch: Batch
    descend: Callable[[torch.Tensor], None]

    @property
    def fraction(self) -> float:
        """The share of the stage that is done."""
        return self.number / self.of


@dataclass(frozen=True)
class Schedule:
    """How long, how fast. epochs over the data in batches of batch texts; learning_rate is the peak."""

    epochs: float
    batch: int
    learning_rate: float
    weight_decay: float = 0.01


def steps(
    name: str,
    parameters: Iterable[nn.Parameter],
    data: Encoded,
    schedule: Schedule,
    device: torch.device,
    seed: int,
    progress: Progress,
    state: TrainingState | None = None,
) -> Iterator[Step]:
    """Batches to learn from. Gradient norm at most 1; a step whose gradient is not finite is left out.

    state: where to resume, of a model with these parameters; steps that it has done are not yielded.

    Warm-up over WARMUP_STEPS or a tenth of all steps, whichever is shorter; decay to a fiftieth of the peak.
    """
    total = max(1, round(schedule.epochs * math.ceil(len(data) / schedule.batch)))
    warmup = max(1, min(WARMUP_STEPS, total // 10))
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True)
    generator = random.Random(seed)

    def descend(loss: torch.Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if torch.isfinite(nn.utils.clip_grad_norm_(trained, 1.0)):
            optimiser.step()

    number, done = 0, 0 if state is None else state.resume(optimiser)
    while number < total:
        for batch in shuffled(data, schedule.batch, device, generator):
            if number == total:  # of a state that was kept after the last step
                break
            if number < done:
                number += 1
                continue
            rate = schedule.learning_rate * min(1.0, (number + 1) / warmup) * max(0.02, 1 - number / total)
            for group in optimiser.param_groups:
                group["lr"] = rate
            yield Step(number, total, batch, descend)
            number += 1
            if state is not None and state.due(number, total):
                state.keep(number, optimiser)
            progress(name, number, total)
