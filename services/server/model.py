"""What the front knows of the served model: public numbers, told by the worker when it starts. Pure Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from he_runtime.parameters import Parameters
from he_runtime.wire.message import Binding


@dataclass(frozen=True)
class ServedModel:
    """Plan and files of the public half."""

    plan_json: str
    binding: Binding
    keys: Mapping[int, int]
    """Galois element -> level."""
    inputs: Mapping[int, Mapping[str, int]]
    """Bucket -> input name -> level."""
    files: Mapping[str, bytes]
    """Of the public half: what the worker planned, whatever lies at the bundle's path by now."""

    @classmethod
    def from_plan(cls, plan: Mapping[str, Any], plan_json: str, files: Mapping[str, bytes]) -> "ServedModel":
        """From the client plan as JSON."""
        parameters = Parameters.from_json(plan["parameters"], allow_insecure_test=True)
        return cls(
            plan_json,
            Binding(parameters, plan["program_digest"]),
            {int(element): level for element, level in plan["keys"].items()},
            {int(bucket): levels for bucket, levels in plan["buckets"].items()},
            files,
        )
