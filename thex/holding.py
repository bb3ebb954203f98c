"""Rows that run away are scaled back while a model trains, at a price: without it one text's overflow ends all learning from it.

A replaced norm does not divide, so a row that is a little too large is squared in the next layer, and again in the one after it:
of a third of hostile inputs the values ended beyond what a float holds, where no gradient is left to mend them. Held at twice
what the exact encoder's rows reach, every layer stays where its gradient means something. The shipped model holds nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from thex.data import Encoded, in_order
from thex.encoder import EXACT, Encoder
from thex.recorder import Recorder

HELD_POINTS = ("context", "normed", "output")
TEXTS = 768
FREE, MOST = 1.2, 2.0
"""Rows cost from FREE times the exact encoder's largest on, and go on at MOST times it at most."""
LEAST = 1e-9

Limits = dict[tuple[str, int], float]


@torch.no_grad()
def row_limits(exact: Encoder, data: Encoded, seed: int) -> Limits:
    """Root mean square of the exact encoder's largest row at each held point, over TEXTS texts of data."""
    chosen = random.Random(seed).sample(range(len(data)), min(TEXTS, len(data)))
    limits: Limits = {}
    for batch in in_order(data.subset(chosen), 64, exact.word.weight.device):
        recorder = Recorder()
        exact(batch.ids, batch.mask, batch.types, EXACT, recorder)
        for layer in range(exact.config.layers):
            for point in HELD_POINTS:
                largest = float(_sizes(recorder[point, layer].float())[batch.mask > 0].max())
                limits[point, layer] = max(limits.get((point, layer), 0.0), largest)
    return limits


@dataclass
class HoldingRecorder(Recorder):
    """Scales back, at every held point, rows beyond MOST times its limit; penalty says how far they, and those near it, went.

    The penalty grows by the logarithm of a row's size: over all rows twice its mean, and the mean of each text's largest.
    """

    limits: Limits = field(default_factory=dict)
    penalty: torch.Tensor = field(default_factory=lambda: torch.zeros(()))

    def hold(self, point: str, layer: int, tensor: torch.Tensor) -> torch.Tensor:
        """The rows [batch, tokens, features], none larger than MOST times its limit."""
        limit = self.limits[point, layer]
        sizes = _sizes(tensor)
        excess = functional.relu(torch.log(sizes / (FREE * limit)))
        self.penalty = self.penalty + 2 * excess.mean() + excess.flatten(1).amax(dim=1).mean()
        return tensor * (MOST * limit / sizes.detach()).clamp(max=1.0)


def _sizes(rows: torch.Tensor) -> torch.Tensor:
    """Root mean square of each row, [batch, tokens, 1]."""
    return rows.square().mean(dim=-1, keepdim=True).add(LEAST).sqrt()
