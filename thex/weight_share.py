"""Weights between those before some lessons and those after them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


@torch.no_grad()
def keep_share(model: nn.Module, before: Mapping[str, torch.Tensor], share: float) -> None:
    """Take the model back, in place: its weights become before + share (weights - before). before: its state_dict, earlier.

    Between the two lie models that are nearly as good as either at what only it does well (WiSE-FT, Wortsman et al. 2022).
    """
    for name, tensor in model.state_dict().items():
        tensor.copy_(before[name].lerp(tensor, share))
