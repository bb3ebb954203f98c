"""The workflow on a CUDA device, against the CPU."""

from pathlib import Path

import pytest
import torch

from tests.thex.test_bundle import QUICK, write_task
from thex.runs import RunConfig
from thex.workflow import run_recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_the_workflow_runs_on_the_device_and_learns_as_much(tmp_path: Path) -> None:
    data = write_task(tmp_path / "SST-2")
    on = {
        device: run_recipe(
            RunConfig(encoder="1x64", recipe=QUICK, teacher=None, device=device), data, tmp_path / device
        )
        for device in ("cpu", "cuda")
    }
    for one, other in zip(on["cpu"], on["cuda"], strict=True):
        assert one["step"] == other["step"]
        # Rounding differs, and with it a few steps of a short training: one example of forty is 2.5 points.
        assert abs(one["metrics"]["accuracy"] - other["metrics"]["accuracy"]) <= 5
    assert on["cuda"][-1]["exported"]
