"""Model, optimiser, random numbers and steps done in one safetensors file: what a loop of hours resumes at."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from thex.atomic import replaced

KEEP_EVERY = 500  # steps
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter
CPU_RANDOM, CUDA_RANDOM = "random.cpu", "random.cuda"


@dataclass(frozen=True)
class TrainingState:
    """path: the file. model: everything that is trained or counted; its buffers are kept too.

    Torch's random numbers are kept, which dropout draws, and those of `generator`, where the loop draws from one.
    """

    path: Path
    model: nn.Module
    generator: random.Random | None = None

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def due(self, done: int, total: int) -> bool:
        """Whether to keep the state after that many steps."""
        return done % KEEP_EVERY == 0 or done == total

    def keep(self, done: int, optimiser: torch.optim.AdamW) -> None:
        """Replace the file, which is whole at any time."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {f"{moment}.{name}": value for moment, value in optimiser.state[parameter].items()}
        tensors[CPU_RANDOM] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors[CUDA_RANDOM] = torch.cuda.get_rng_state(self._device)
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"step": str(done)}
        if self.generator is not None:
            metadata["generator"] = json.dumps(self.generator.getstate())
        with replaced(self.path) as partial:
            save_file(whole, partial, metadata=metadata)

    def resume(self, optimiser: torch.optim.AdamW) -> int:
        """Fill model and optimiser from the file; the number of steps done, 0 without one."""
        if not self.path.exists():
            return 0
        with safe_open(self.path, framework="pt") as file:
            names = set(file.keys())
            self.model.load_state_dict({name: file.get_tensor(f"model.{name}") for name in self.model.state_dict()})
            for name, parameter in self.model.named_parameters():
                if f"step.{name}" in names:
                    # A fused optimiser counts its steps where the parameter is.
                    optimiser.state[parameter] = {
                        moment: file.get_tensor(f"{moment}.{name}").to(parameter.device) for moment in MOMENTS
                    }
            if CPU_RANDOM in names:  # files of before have none
                torch.set_rng_state(file.get_tensor(CPU_RANDOM))
            if CUDA_RANDOM in names and self._device.type == "cuda":
                torch.cuda.set_rng_state(file.get_tensor(CUDA_RANDOM), self._device)
            metadata = file.metadata()
        if self.generator is not None:
            version, internal, gauss = json.loads(metadata["generator"])
            self.generator.setstate((version, tuple(internal), gauss))
        return int(metadata["step"])
