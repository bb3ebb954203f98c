"""Which lowering, ring and shape of matrix products a model gets: every way that fits is lowered and priced, one is kept."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from he_runtime.allocation import give_back_freed_memory
from he_runtime.bundle import Bundle, EncoderWeights
from he_runtime.cost import program_milliseconds
from he_runtime.errors import ParameterError, PlanError
from he_runtime.folding import fold
from he_runtime.lowering.hadamard import HadamardLowering, levels_needed_with_hadamard_sums
from he_runtime.lowering.shape import Shape
from he_runtime.lowering.token_shifts import TokenShiftLowering, levels_needed
from he_runtime.lowering.wide_values import WideValueLowering, levels_needed_with_wide_values
from he_runtime.network import Network, network_of
from he_runtime.parameters import COARSE_SCALES_BITS, LARGEST_RESULT, SCALES_BITS, Parameters, smallest_parameters
from he_runtime.plan import HADAMARD_SUMS, TOKEN_SHIFTS, WIDE_VALUES, Alternative, Plan, merged_keys
from he_runtime.program import Program
from he_runtime.wire.sizes import evaluation_key_bytes

LOWERINGS: dict[str, tuple[Any, Callable[[Network], int]]] = {
    HADAMARD_SUMS: (HadamardLowering, levels_needed_with_hadamard_sums),
    TOKEN_SHIFTS: (TokenShiftLowering, levels_needed),
    WIDE_VALUES: (WideValueLowering, levels_needed_with_wide_values),
}
"""Name -> what lowers, and the levels it needs."""


def plan_bundle(bundle: Bundle, buckets: tuple[int, ...] | None = None) -> Plan:
    """The plan of a bundle for its own buckets, or for some of them.

    Vectors are compared by their direction, so coarser scales do for them than for logits.
    """
    config = bundle.config
    by_direction = config.task.kind in ("embedding", "search")
    return plan_weights(
        bundle.weights(),
        buckets or config.buckets,
        logit_range=config.ranges.logits,
        model_digest=bundle.digest,
        scales_bits=COARSE_SCALES_BITS if by_direction else SCALES_BITS,
    )


def plan_weights(
    weights: EncoderWeights,
    buckets: tuple[int, ...],
    *,
    logit_range: float,
    model_digest: str,
    parameters: Parameters | None = None,
    lowering: str | None = None,
    scales_bits: tuple[int, ...] = SCALES_BITS,
) -> Plan:
    """Fold, lower every bucket in every way that fits, and keep the cheapest by the cost model.

    Cheap is a little time on every query and few bytes of keys (`Alternative.price`, MOST_KEY_BYTES). `parameters` and `lowering`
    (a key of LOWERINGS) force a choice; scales_bits are those to choose from. PlanError where nothing fits, or where
    the calibrated range is wider than an answer holds: nobody could tell a value that wrapped around from an honest one.
    """
    if not 0 < logit_range <= LARGEST_RESULT:
        raise PlanError(
            f"the outputs' calibrated range is ±{logit_range:.3g}, an answer holds ±{LARGEST_RESULT:.0f}: train the model "
            "with a penalty on ranges, and calibrate it again"
        )
    network = fold(network_of(weights))
    shape = Shape.of(network)
    rings = {name: _ring(name, network, shape, scales_bits, parameters) for name in LOWERINGS}
    search = _Search(network, shape, buckets)
    for name, ring in rings.items():
        refusal = _refusal(name, rings, asked=lowering, forced=parameters is not None)
        if ring.parameters is None or refusal:
            search.alternatives.append(Alternative(name, ring.levels, ring.degree, None, refusal))
        else:
            search.lower(name, ring.levels, ring.parameters)
    if search.best is None:
        reasons = "; ".join(f"{alternative.name}: {alternative.refusal}" for alternative in search.alternatives)
        fits_a_ring = any(ring.parameters for ring in rings.values())
        raise (PlanError if fits_a_ring else ParameterError)(f"no plan fits: {reasons}")
    chosen_parameters = search.programs[buckets[0]].parameters
    return Plan(
        chosen_parameters,
        rings[search.best.name].refusals,
        search.best,
        tuple(search.alternatives),
        shape,
        search.programs,
        _digest(model_digest, chosen_parameters, search.programs),
        logit_range,
        len(weights.classifier_bias),
        network.pooling,
    )


@dataclass(frozen=True)
class _Ring:
    """What a lowering would run on: parameters, or why there are none."""

    levels: int
    parameters: Parameters | None
    refusals: tuple[str, ...] = ()
    """Why each smaller ring did not do."""
    error: str = ""

    @property
    def degree(self) -> int | None:
        return self.parameters.ring_degree if self.parameters else None


def _ring(name: str, network: Network, shape: Shape, scales_bits: tuple[int, ...], forced: Parameters | None) -> _Ring:
    _, needed = LOWERINGS[name]
    levels = needed(network)
    try:
        found, refusals = smallest_parameters(levels, 2 * shape.width, scales_bits)
    except ParameterError as error:
        return _Ring(levels, forced, error=str(error))
    return _Ring(levels, forced or found, tuple(refusals))


def _refusal(name: str, rings: dict[str, _Ring], *, asked: str | None, forced: bool) -> str:
    """Why a lowering is not worked out; empty where it is.

    Wide values cost many times the work: worth it only where their fewer levels lead to a smaller ring than any other's.
    """
    ring = rings[name]
    if ring.parameters is None:
        return ring.error
    if asked is not None:
        return "" if name == asked else f"{asked} was asked for"
    others = [other.degree for key, other in rings.items() if key != WIDE_VALUES and other.degree is not None]
    smaller = not others or ring.parameters.ring_degree < min(others)
    return "many times the work, and no smaller ring for it" if name == WIDE_VALUES and (forced or not smaller) else ""


@dataclass
class _Search:
    """The cheapest way so far. Only its programs are kept: a deep model's take gigabytes."""

    network: Network
    shape: Shape
    buckets: tuple[int, ...]
    alternatives: list[Alternative] = field(default_factory=list)
    best: Alternative | None = None
    programs: dict[int, Program] = field(default_factory=dict)

    def lower(self, name: str, levels: int, ring: Parameters) -> None:
        """Try every choice that a lowering offers; where the last one's keys are too large, also the frugal ones."""
        lower, _ = LOWERINGS[name]
        choices = lower.choices(self.shape)
        frugal = False
        while choices:
            options, *choices = choices
            tried = self._try(name, levels, ring, options)
            if tried.keys_too_large and not choices and not frugal:
                choices, frugal = lower.frugal_choices(self.shape), True

    def _try(self, name: str, levels: int, ring: Parameters, options: dict[str, Any]) -> Alternative:
        lower, _ = LOWERINGS[name]
        try:
            programs = {bucket: lower(self.network, ring, bucket, **options).program() for bucket in self.buckets}
        except PlanError as error:
            refused = Alternative(name, levels, ring.ring_degree, None, str(error), **options)
            self.alternatives.append(refused)
            return refused
        costs = {bucket: program_milliseconds(program) for bucket, program in programs.items()}
        key_bytes = sum(evaluation_key_bytes(ring, level) for level in merged_keys(programs).values())
        tried = Alternative(name, levels, ring.ring_degree, costs, key_bytes=key_bytes, **options)
        self.alternatives.append(tried)
        if self.best is None or tried.rank < self.best.rank:
            self.best, self.programs = tried, programs
        del programs
        give_back_freed_memory()
        return tried


def _digest(model_digest: str, parameters: Parameters, programs: dict[int, Program]) -> str:
    """SHA-256 over the model, the parameters and all that a program does but the names of its stages."""
    digest = hashlib.sha256(f"thex-program-2\n{model_digest}\n{parameters.digest}\n".encode())
    for bucket, program in sorted(programs.items()):
        digest.update(json.dumps([bucket, sorted(program.keys.items()), len(program.operations)]).encode())
        for operation in program.operations:
            digest.update(repr({**vars(operation), "stage": ""}).encode())
        digest.update(repr([(value.level, value.scale) for value in program.inputs.values()]).encode())
        for constant in program.constants:
            digest.update(repr((constant.level, constant.scale, constant.values.shape)).encode())
    return digest.hexdigest()
