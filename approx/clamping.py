"""Keep leading coefficients away from zero.

A runtime completes the square of a·s² + b·s + c, which divides by a: an a near zero gives huge constants that
cancel, and with them the precision of the ciphertext. So |a| has a floor, and the sign is kept.
"""

from __future__ import annotations

import torch

SOFTMAX_FLOOR = 1e-3
ACTIVATION_FLOOR = 1e-2


def away_from_zero(coefficient: torch.Tensor, floor: float) -> torch.Tensor:
    """The coefficient with |value| >= floor, same shape and sign (zero counts as positive).

    The gradient passes straight through, so training can still carry a clamped coefficient out of the floor.
    """
    sign = torch.where(coefficient < 0, -torch.ones_like(coefficient), torch.ones_like(coefficient))
    clamped = sign * coefficient.abs().clamp(min=floor)
    return coefficient + (clamped - coefficient).detach()
