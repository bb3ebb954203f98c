"""The program of a workload on the plain simulator: what the encrypted run should give, but for noise."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Workload
from he_runtime.engines.plain import PlainEngine
from he_runtime.execution import encode_constants, run
from he_runtime.program import Program


def simulated_slots(workload: Workload, program: Program) -> dict[str, NDArray[np.complex128]]:
    """Slots of every output of `program` (the workload's, or the same with more outputs). Exact levels, scales and keys."""
    plan = workload.plan
    engine = PlainEngine(plan.parameters, keys=plan.keys)
    packed = plan.client_plan().pack(workload.bucket, workload.embedded)
    inputs = {name: engine.encrypt(packed[name], value.level, value.scale) for name, value in program.inputs.items()}
    outputs = run(program, engine, encode_constants(program, engine), inputs)
    return {name: np.asarray(value.slots, np.complex128) for name, value in outputs.items()}


def simulated_logits(workload: Workload) -> NDArray[np.float64]:
    """Logits of the workload's text."""
    slots = simulated_slots(workload, workload.plan.programs[workload.bucket])["logits"]
    return workload.plan.client_plan().unpack(workload.bucket, slots)
