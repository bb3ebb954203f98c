"""Where a bundle comes from: configuration, versions, machine."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch


def provenance(config: dict[str, Any], device: torch.device) -> dict[str, object]:
    """JSON-ready facts of a run."""
    processor = platform.processor() or platform.machine()
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    return {
        "config": config,
        "device": str(device),
        "processor": processor,
        "versions": {name: version(name) for name in ("torch", "tokenizers", "safetensors", "numpy")},
        "python": platform.python_version(),
    }
