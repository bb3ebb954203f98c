"""Where a bundle comes from: configuration, versions, machine."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version

import torch

from thex.config import TrainingConfig


def provenance(config: TrainingConfig, teacher: str, device: torch.device) -> dict[str, object]:
    """JSON-ready facts of a run."""
    processor = platform.processor() or platform.machine()
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    return {
        "config": json.loads(config.model_dump_json()),
        "teacher_directory": teacher,
        "device": str(device),
        "processor": processor,
        "versions": {name: version(name) for name in ("torch", "tokenizers", "safetensors", "numpy")},
        "python": platform.python_version(),
    }
