"""From a bundle to what server and client need: parameters, one program a bucket, keys, and the client's part of it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.allocation import give_back_freed_memory
from he_runtime.bundle import Bundle, EncoderWeights, Pooling
from he_runtime.cost import program_milliseconds
from he_runtime.errors import ParameterError, PlanError, RangeError
from he_runtime.folding import fold
from he_runtime.lowering.hadamard import HadamardLowering, levels_needed_with_hadamard_sums
from he_runtime.lowering.layout import Layout
from he_runtime.lowering.rows import RowLayout
from he_runtime.lowering.shape import Shape
from he_runtime.lowering.token_shifts import TokenShiftLowering, input_names, levels_needed
from he_runtime.lowering.wide_values import WideValueLowering, levels_needed_with_wide_values
from he_runtime.network import Network, network_of
from he_runtime.parameters import COARSE_SCALES_BITS, LARGEST_RESULT, SCALES_BITS, Parameters, smallest_parameters
from he_runtime.program import Program
from he_runtime.wire.sizes import evaluation_key_bytes


@dataclass(frozen=True)
class BucketPlan:
    """What a client must know of one bucket's program."""

    bucket: int
    input_levels: dict[str, int]


REPEATED_ROWS, HADAMARD = "repeated rows", "hadamard rows, whole masks"
"""A name says all of the layout: a client that packed otherwise would be answered wrongly, so it does not know the name."""


@dataclass(frozen=True)
class Packing:
    """How a client lays out a text: which kind of rows, and the padded sizes that they need; and how an answer is laid out."""

    kind: str
    width: int
    heads: int
    head_size: int
    two_a_slot: bool
    """Whether outputs are real and imaginary parts of slots, rather than real numbers in slots of their own."""

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Packing":
        """Raises KeyError, TypeError or ValueError for what is not one."""
        if value["kind"] not in (REPEATED_ROWS, HADAMARD):
            raise ValueError(f"no packing is called {value['kind']!r}")
        width, heads, head_size = sizes = [_natural(value[name]) for name in ("width", "heads", "head_size")]
        if any(size < 1 or size & (size - 1) for size in sizes):
            raise ValueError(f"padded sizes are powers of two, not {sizes}")
        if not isinstance(value["two_a_slot"], bool):
            raise TypeError(f"two_a_slot is true or false, not {value['two_a_slot']!r}")
        return cls(str(value["kind"]), width, heads, head_size, value["two_a_slot"])


@dataclass(frozen=True)
class ClientPlan:
    """All that a client needs to encrypt a request and read the answer. Public."""

    parameters: Parameters
    program_digest: str
    keys: dict[int, int]
    """Galois element (0: relinearisation) -> level."""
    packing: "Packing"
    outputs: int
    """Logits in the answer, or features of an embedding."""
    logit_range: float
    output_scale: float
    """Scale of the answer, the same for every bucket."""
    buckets: dict[int, BucketPlan]

    def bucket_for(self, tokens: int) -> int:
        """The smallest bucket that holds so many tokens. Raises ValueError when none does."""
        fitting = [bucket for bucket in self.buckets if bucket >= tokens]
        if not fitting:
            raise ValueError(f"the text has {tokens} tokens; this model takes at most {max(self.buckets)}: shorten it")
        return min(fitting)

    def layout(self, bucket: int) -> Layout:
        """Where the numbers of this bucket lie, for packing by repeated rows."""
        return Layout(self.parameters.slots, self.packing.width, bucket)

    def rows(self, bucket: int) -> RowLayout:
        """Where the numbers of this bucket lie, for packing by Hadamard rows."""
        packing = self.packing
        return RowLayout.choose(self.parameters.slots, packing.width, packing.heads, packing.head_size, bucket)

    def pack(self, bucket: int, embedded: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """Slots of every input of the program, [slots] each, real or complex. embedded: [tokens, hidden]."""
        if self.packing.kind == HADAMARD:
            return {f"text.{block}": slots for block, slots in enumerate(self.rows(bucket).pack(embedded))}
        layout = self.layout(bucket)
        tokens = len(embedded)
        # The client knows the number of tokens, so the mean over them is a mask that it has divided already.
        mask = np.full((tokens, layout.width), 1.0 / tokens)
        packed = {}
        blocks = zip(layout.pack(embedded), layout.pack(mask, both_copies=False), strict=True)
        for (embeddings_name, mask_name), (embeddings, mask_block) in zip(input_names(layout), blocks, strict=True):
            packed[embeddings_name] = embeddings
            packed[mask_name] = mask_block
        return packed

    def _split(self, bucket: int, slots: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The outputs, and all numbers of a decrypted answer that are zero if it is honest. slots: whole or short."""
        places = np.arange(self.outputs)
        if self.packing.two_a_slot:
            pattern = _logit_slots(self.outputs)
        elif self.packing.kind == REPEATED_ROWS:
            pattern, places = self.layout(bucket).period, 2 * places
        else:
            layout = self.rows(bucket)
            pattern, places = layout.answer_slots(self.outputs), 2 * layout.output_positions(self.outputs)
        rows = np.ascontiguousarray(slots, np.complex128).reshape(-1, pattern)
        first = rows[0].view(np.float64)  # real and imaginary parts in turn
        beside = np.delete(first, places)
        return first[places], np.concatenate([beside, (rows[1:] - rows[0]).view(np.float64).ravel()])

    def numbers_beside(self, bucket: int, slots: NDArray[Any]) -> NDArray[np.float64]:
        """What a decrypted answer holds beside its outputs and their repetitions: zeros, if it is honest."""
        return self._split(bucket, slots)[1]

    def unpack(self, bucket: int, slots: NDArray[Any]) -> NDArray[np.float64]:
        """Outputs float64 [outputs] of a decrypted answer. RangeError when they cannot be an honest answer."""
        logits = self._split(bucket, slots)[0]
        largest = float(np.abs(logits).max()) if np.isfinite(logits).all() else float("inf")
        if not largest <= self.logit_range:
            raise RangeError(
                f"a result of {largest:.3g} is outside the calibrated range ±{self.logit_range:.3g}: values inside the "
                "model left their range on this text, so no answer is given"
            )
        return logits

    @property
    def answer_period(self) -> int | None:
        """Slots after which the answer repeats, so that it can be sent short; None where it does not repeat."""
        if self.packing.kind != HADAMARD:
            return None
        if not self.packing.two_a_slot:
            period = max(self.rows(bucket).answer_slots(self.outputs) for bucket in self.buckets)
            return period if period < self.parameters.slots else None
        # At least two: a complex constant is no polynomial in X^(N/2), see `interface.quarter_turns`.
        return max(2, _logit_slots(self.outputs))

    def answer_slots(self, coefficients: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Slots complex128 [period] of a decrypted short answer, whose coefficients are given: float64 [N]."""
        period = self.answer_period
        if period is None:
            raise PlanError("this answer does not repeat and is not sent short")
        kept = coefficients[:: self.parameters.ring_degree // (2 * period)]
        # Slot j is the value at X^(N/2J) = exp(i·pi·3^j/2J): all odd powers by one transform, of which every other is a slot's.
        odd = np.fft.ifft(kept * np.exp(0.5j * np.pi * np.arange(2 * period) / period)) * len(kept)
        slots = odd[[pow(3, slot, 4 * period) // 2 for slot in range(period)]]
        return np.asarray(slots / self.output_scale, np.complex128)

    def to_json(self) -> dict[str, object]:
        """Plain JSON value."""
        return {
            "format": "thex-client-plan",
            "format_version": 1,
            "parameters": self.parameters.to_json(),
            "program_digest": self.program_digest,
            "keys": {str(element): level for element, level in sorted(self.keys.items())},
            "packing": vars(self.packing),
            "outputs": self.outputs,
            "logit_range": self.logit_range,
            "output_scale": self.output_scale,
            "buckets": {str(bucket): plan.input_levels for bucket, plan in sorted(self.buckets.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object], *, allow_insecure_test: bool = False) -> "ClientPlan":
        """Read what a server sent. ParameterError for anything that this client would not compute with."""
        try:
            if value["format"] != "thex-client-plan" or value["format_version"] != 1:
                raise ParameterError("the server sent a plan of another format; update the client or the server")
            parameters = Parameters.from_json(_object(value["parameters"]), allow_insecure_test=allow_insecure_test)
            keys = {int(element): _natural(level) for element, level in _object(value["keys"]).items()}
            buckets = {
                int(bucket): BucketPlan(int(bucket), {name: _natural(level) for name, level in _object(levels).items()})
                for bucket, levels in _object(value["buckets"]).items()
            }
            plan = cls(
                parameters,
                str(value["program_digest"]),
                keys,
                Packing.from_json(_object(value["packing"])),
                _natural(value["outputs"]),
                float(str(value["logit_range"])),
                float(str(value["output_scale"])),
                buckets,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(f"the server's plan is not one: {error!r}") from None
        levels = [*keys.values(), *(level for b in buckets.values() for level in b.input_levels.values())]
        if not 0 < plan.output_scale < 2.0**60 or not 0 < plan.logit_range < 2.0**60:
            raise ParameterError("the server's plan has a scale or a range that is not a sane number")
        if not buckets or any(level > parameters.maximum_level for level in levels):
            raise ParameterError("the server's plan asks for levels that its parameters do not have")
        if any((element % 2 == 0 and element) or element >= 2 * parameters.ring_degree for element in keys):
            raise ParameterError("the server's plan asks for keys that do not exist")
        return plan


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
    baby_rounds: int | None = None
    """Of its baby steps, where they may be several."""
    key_bytes: int = 0
    """Evaluation keys on the wire, for all buckets."""

    @property
    def price(self) -> float:
        """What the planner compares: the estimates of all buckets, and what keys are worth beside them."""
        milliseconds = self.milliseconds or {}
        return sum(milliseconds.values()) + len(milliseconds) * KEY_MILLISECONDS * self.key_bytes / 1e6

    @property
    def rank(self) -> tuple[bool, float]:
        """The lowest is chosen: by price within MOST_KEY_BYTES, then by keys."""
        over = self.key_bytes > MOST_KEY_BYTES
        return over, self.key_bytes if over else self.price


@dataclass(frozen=True)
class Plan:
    """A planned model: everything but keys and ciphertexts."""

    parameters: Parameters
    refusals: tuple[str, ...]
    """Why each smaller ring did not do."""
    levels: int
    lowering: str
    """Name of the lowering that was chosen."""
    baby_steps: int | None
    """Of its matrix products, where there was a choice."""
    alternatives: "tuple[Alternative, ...]"
    """Every lowering that was considered, the chosen one among them."""
    shape: Shape
    programs: dict[int, Program]
    """Bucket -> program."""
    digest: str
    """SHA-256 over bundle, parameters and programs: client and server must agree on it."""
    logit_range: float
    outputs: int
    pooling: Pooling

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


def _logit_slots(outputs: int) -> int:
    """Slots that hold so many logits, two in each: a power of two."""
    return 1 << ((outputs + 1) // 2 - 1).bit_length()


KEY_MILLISECONDS = 2.0
"""A megabyte of keys is worth so much of each query: it is made, sent and kept once, for about as many queries as it costs
milliseconds more than that to do so."""
MOST_KEY_BYTES = 3_000_000_000
"""No plan's keys take more, unless all of its alternatives do; then the fewest are taken. They have to fit a server's memory."""
HADAMARD_SUMS = "hadamard sums"

LOWERINGS: dict[str, tuple[Any, Callable[[Network], int]]] = {
    HADAMARD_SUMS: (HadamardLowering, levels_needed_with_hadamard_sums),
    "token shifts": (TokenShiftLowering, levels_needed),
    "wide values": (WideValueLowering, levels_needed_with_wide_values),
}


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
    (a key of LOWERINGS) force a choice; scales_bits are those to choose from. Wide values cost many times the work, so they are
    tried only where their fewer levels lead to a smaller ring than any other lowering's. PlanError where nothing fits, or where
    the calibrated range is wider than an answer holds: nobody could tell a value that wrapped around from an honest one.
    """
    if not 0 < logit_range <= LARGEST_RESULT:
        raise PlanError(
            f"the outputs' calibrated range is ±{logit_range:.3g}, an answer holds ±{LARGEST_RESULT:.0f}: train the model "
            "with a penalty on ranges, and calibrate it again"
        )
    network = fold(network_of(weights))
    shape = Shape.of(network)
    rings: dict[str, Parameters | str] = {}
    refusals: dict[str, list[str]] = {}
    for name, (_, needed) in LOWERINGS.items():
        try:
            found, refusals[name] = smallest_parameters(needed(network), 2 * shape.width, scales_bits)
            rings[name] = parameters or found
        except ParameterError as error:
            rings[name] = parameters or str(error)
            refusals[name] = []
    degrees = {name: ring.ring_degree for name, ring in rings.items() if isinstance(ring, Parameters)}
    usual = [degree for name, degree in degrees.items() if name != "wide values"]
    alternatives: list[Alternative] = []
    best: tuple[Alternative, dict[int, Program]] | None = (
        None  # no more than one is kept: a deep model's take gigabytes
    )
    for name, (lower, needed) in LOWERINGS.items():
        levels, ring = needed(network), rings[name]
        refusal = ""
        if isinstance(ring, str):
            refusal = ring
        elif lowering is not None and name != lowering:
            refusal = f"{lowering} was asked for"
        elif (
            lowering is None
            and name == "wide values"
            and (parameters or ring.ring_degree >= min(usual, default=1 << 30))
        ):
            refusal = "many times the work, and no smaller ring for it"
        if refusal or isinstance(ring, str):
            alternatives.append(Alternative(name, levels, degrees.get(name), None, refusal))
            continue
        choices = lower.choices(shape)
        while choices:
            options, *choices = choices
            try:
                programs = {bucket: lower(network, ring, bucket, **options).program() for bucket in buckets}
            except PlanError as error:
                alternatives.append(Alternative(name, levels, ring.ring_degree, None, str(error), **options))
                continue
            costs = {bucket: program_milliseconds(program) for bucket, program in programs.items()}
            key_bytes = sum(evaluation_key_bytes(ring, level) for level in merged_keys(programs).values())
            alternative = Alternative(name, levels, ring.ring_degree, costs, key_bytes=key_bytes, **options)
            alternatives.append(alternative)
            if best is None or alternative.rank < best[0].rank:
                best = alternative, programs
            del programs
            give_back_freed_memory()
            if key_bytes > MOST_KEY_BYTES and not choices and "hoisted_steps" not in options:
                choices = lower.frugal_choices(shape)
    if best is None:
        reasons = "; ".join(f"{alternative.name}: {alternative.refusal}" for alternative in alternatives)
        raise (PlanError if degrees else ParameterError)(f"no plan fits: {reasons}")
    chosen, programs = best
    parameters = programs[buckets[0]].parameters
    digest = hashlib.sha256(f"thex-program-2\n{model_digest}\n{parameters.digest}\n".encode())
    for bucket, program in sorted(programs.items()):
        digest.update(json.dumps([bucket, sorted(program.keys.items()), len(program.operations)]).encode())
        for operation in program.operations:
            digest.update(repr({**vars(operation), "stage": ""}).encode())
        digest.update(repr([(value.level, value.scale) for value in program.inputs.values()]).encode())
        for constant in program.constants:
            digest.update(repr((constant.level, constant.scale, constant.values.shape)).encode())
    outputs = len(weights.classifier_bias)
    return Plan(
        parameters,
        tuple(refusals[chosen.name]),
        chosen.levels,
        chosen.name,
        chosen.baby_steps,
        tuple(alternatives),
        shape,
        programs,
        digest.hexdigest(),
        logit_range,
        outputs,
        network.pooling,
    )


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


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _natural(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is not a natural number")
    return value
