"""Where computations run, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch

Products = Literal["float32", "bfloat16"]


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is a device, else the CPU."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it. A processor without them takes ten times as long as with float32."""
    if device.type != "cpu":
        return True
    offered = torch.cpu.get_capabilities()
    return any(offered.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def mixed(device: torch.device, *, enabled: bool = True) -> AbstractContextManager[object]:
    """Matrix products in bfloat16 where the device multiplies it, parameters and losses in float32.

    bfloat16 keeps float32's exponent, so no loss scaling is needed. For exact encoders only: a replaced one squares
    its values, and its ranges are measured in float32.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled and multiplies_bfloat16(device))


@contextmanager
def products_in(precision: Products) -> Iterator[None]:
    """Matrix products of inputs rounded to that precision; inputs, results and everything between them stay float32.

    For replaced models, whose squares `mixed` would round, too. "bfloat16" is faster where the processor multiplies it
    (AMX, AVX-512 BF16, tensor cores), and nothing elsewhere. The process's setting is put back at the end.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "bfloat16" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
