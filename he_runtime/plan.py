"""A planned model: parameters, one program a bucket, keys, and what else was considered. `planner` makes it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from he_runtime.bundle import Pooling
from he_runtime.client_plan import HADAMARD, REPEATED_ROWS, BucketPlan, ClientPlan, Packing
from he_runtime.lowering.shape import Shape
from he_runtime.parameters import Parameters
from he_runtime.program import Program

HADAMARD_SUMS, TOKEN_SHIFTS, WIDE_VALUES = "hadamard sums", "token shifts", "wide values"
"""Names of lowerings."""
KEY_MILLISECONDS = 2.0
"""A megabyte of keys is worth so much of each query: it is made, sent and kept once, for about as many queries as it costs
milliseconds more than that to do so."""
MOST_KEY_BYTES = 3_000_000_000
"""No plan's keys take more, unless all of its alternatives do; then the fewest are taken. They have to fit a server's memory."""


@dataclass(frozen=True)
class Alternative:
    """One lowering as the planner saw it."""

    name: str
    levels: int
    ring_degree: int | None
    milliseconds: dict[int, float] | None
    """Bucket -> estimate on one thread; None where it was not worked out, and then `refusal` says why."""
    refusal: str = ""
    baby_steps: int | None = None
    """Of its matrix products, where there is a choice."""
    hoisted_steps: int | None = None
    """Rotations that share a decomposition, where they are fewer than usual to save keys."""
    key_bytes: int = 0
    """Evaluation keys on the wire, for all buckets."""

    @property
    def price(self) -> float:
        """What the planner compares: the estimates of all buckets, and what keys are worth beside them."""
        milliseconds = self.milliseconds or {}
        return sum(milliseconds.values()) + len(milliseconds) * KEY_MILLISECONDS * self.key_bytes / 1e6

    @property
    def keys_too_large(self) -> bool:
        """Whether they take more than MOST_KEY_BYTES."""
        return self.key_bytes > MOST_KEY_BYTES

    @property
    def rank(self) -> tuple[bool, float]:
        """The lowest is chosen: by price within MOST_KEY_BYTES, then by keys."""
        return self.keys_too_large, self.key_bytes if self.keys_too_large else self.price


@dataclass(frozen=True)
class Plan:
    """A planned model: everything but keys and ciphertexts."""

    parameters: Parameters
    refusals: tuple[str, ...]
    """Why each smaller ring did not do."""
    chosen: Alternative
    alternatives: tuple[Alternative, ...]
    """Every way that was considered, the chosen one among them."""
    shape: Shape
    programs: dict[int, Program]
    """Bucket -> program."""
    digest: str
    """SHA-256 over bundle, parameters and programs: client and server must agree on it."""
    logit_range: float
    outputs: int
    pooling: Pooling

    @property
    def levels(self) -> int:
        """Levels of the programs."""
        return self.chosen.levels

    @property
    def lowering(self) -> str:
        """Name of the lowering that was chosen."""
        return self.chosen.name

    @property
    def packing(self) -> Packing:
        """What the client lays its text out by."""
        kind = HADAMARD if self.lowering == HADAMARD_SUMS else REPEATED_ROWS
        shape = self.shape
        two_a_slot = kind == HADAMARD and self.pooling == "first"
        return Packing(kind, shape.width, shape.padded_heads, shape.padded_head_size, two_a_slot)

    @property
    def keys(self) -> dict[int, int]:
        """Galois element (0: relinearisation) -> highest level, over all buckets."""
        return merged_keys(self.programs)

    def without_constants(self) -> "Plan":
        """The same plan less the numbers of its plaintexts (a deep model's take gigabytes), for who has encoded them."""
        programs = {bucket: replace(program, constants=()) for bucket, program in self.programs.items()}
        return replace(self, programs=programs)

    def client_plan(self) -> ClientPlan:
        """The client's part."""
        buckets = {
            bucket: BucketPlan(bucket, {name: value.level for name, value in program.inputs.items()})
            for bucket, program in self.programs.items()
        }
        (scale,) = {program.outputs["logits"].scale for program in self.programs.values()}
        return ClientPlan(
            self.parameters, self.digest, self.keys, self.packing, self.outputs, self.logit_range, scale, buckets
        )


def merged_keys(programs: Mapping[int, Program]) -> dict[int, int]:
    """Keys that serve all the programs."""
    keys: dict[int, int] = {}
    for program in programs.values():
        for element, level in program.keys.items():
            keys[element] = max(keys.get(element, 0), level)
    return keys
