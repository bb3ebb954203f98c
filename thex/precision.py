"""Where computations run, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is a device, else the CPU."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def mixed(device: torch.device, *, enabled: bool = True) -> AbstractContextManager[object]:
    """Matrix products in bfloat16, parameters and losses in float32.

    bfloat16 keeps float32's exponent, so no loss scaling is needed. For exact encoders only: a replaced one squares
    its values, and its ranges are measured in float32.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
