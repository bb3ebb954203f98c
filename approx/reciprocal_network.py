"""T, the small ReLU network that THE-X teaches 1/s: made, pre-trained on sampled sums, validated, frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

LOWEST_SUM, HIGHEST_SUM = 0.5, 4000.0
"""Sums of ReLU((s/2 + 1)³) over a row: 128 scores of 4 make 3456; a single score of 0 makes 1."""
SUM_UNIT = 50.0
"""T sees sums divided by this."""
WIDTH = 64
BATCH = 512
VALIDATION_SUMS = 4096


@dataclass(frozen=True)
class ReciprocalFit:
    """How T was learned, and how far T(s)·s is from 1 on sums it was not trained on.

    steps, seed: of the training. training_loss: the last mean of (T(s)·s - 1)². mean_error, largest_error: of |T(s)·s - 1|
    over VALIDATION_SUMS sums, log-uniform in domain as the training's, the ends included.
    """

    steps: int
    seed: int
    domain: tuple[float, float]
    training_loss: float
    mean_error: float
    largest_error: float


def reciprocal_network() -> nn.Sequential:
    """An untrained, frozen T: three linear layers, two ReLUs. Maps [..., 1] sums in units of SUM_UNIT to [..., 1]."""
    network = nn.Sequential(nn.Linear(1, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
    return network.requires_grad_(requires_grad=False)


def learn_reciprocal(network: nn.Sequential, steps: int, seed: int) -> ReciprocalFit:
    """Train T on log-uniform sums by the relative error, validate it, freeze it. The same for the same seed on one device.

    The first layer starts as hinges ReLU(1 - s/k) at log-spaced k, a basis in which 1/s is nearly a sum of positive terms;
    from torch's own start the error stays ten times larger.
    """
    generator = torch.Generator().manual_seed(seed)
    first, *later = [linear for linear in network if isinstance(linear, nn.Linear)]

    def sums_at(shares: torch.Tensor) -> torch.Tensor:
        return (LOWEST_SUM * (HIGHEST_SUM / LOWEST_SUM) ** shares).to(first.weight)

    with torch.no_grad():
        knots = sums_at(torch.linspace(0.02, 1.05, WIDTH)) / SUM_UNIT
        first.weight.copy_(-1 / knots[:, None])
        first.bias.fill_(1.0)
        for linear in later:
            bound = linear.in_features**-0.5
            for parameter in (linear.weight, linear.bias):
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
    network.requires_grad_(requires_grad=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    value = float("nan")
    with _one_thread():
        for _ in range(steps):
            sums = sums_at(torch.rand(BATCH, 1, generator=generator))
            loss = ((network(sums / SUM_UNIT) * sums - 1) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            value = float(loss.detach())
    network.requires_grad_(requires_grad=False)
    # A validation of its own: other sums than training drew, evenly over the domain and both ends.
    sums = sums_at(torch.linspace(0, 1, VALIDATION_SUMS)[:, None])
    error = (network(sums / SUM_UNIT) * sums - 1).abs()
    return ReciprocalFit(steps, seed, (LOWEST_SUM, HIGHEST_SUM), value, float(error.mean()), float(error.max()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on several threads, and very much slower where other programs want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
