"""What a client must know to encrypt a text and to read the answer: a plan's public part, and how numbers lie in slots."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.errors import ParameterError, PlanError, RangeError
from he_runtime.lowering.layout import Layout
from he_runtime.lowering.rows import RowLayout
from he_runtime.parameters import Parameters


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
    packing: Packing
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
        for (embeddings_name, mask_name), (embeddings, mask_block) in zip(layout.input_names, blocks, strict=True):
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

    def _expect_room(self) -> None:
        """ParameterError unless an answer has room for the outputs."""
        packing, slots = self.packing, self.parameters.slots
        try:
            room = 1 <= self.outputs <= (2 * slots if packing.two_a_slot else slots)
            if room and packing.kind == HADAMARD and not packing.two_a_slot:
                for bucket in self.buckets:
                    self.rows(bucket).output_positions(self.outputs)
        except PlanError:
            room = False
        if not room:
            raise ParameterError(f"the server's plan has {self.outputs} outputs, for which its answers have no room")

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
        if not re.fullmatch("[0-9a-f]{64}", plan.program_digest):  # a client's directory is named by it
            raise ParameterError("the server's plan has a program digest that is not one")
        levels = [*keys.values(), *(level for b in buckets.values() for level in b.input_levels.values())]
        if not 0 < plan.output_scale < 2.0**60 or not 0 < plan.logit_range < 2.0**60:
            raise ParameterError("the server's plan has a scale or a range that is not a sane number")
        if not buckets or any(level > parameters.maximum_level for level in levels):
            raise ParameterError("the server's plan asks for levels that its parameters do not have")
        plan._expect_room()
        if any((element % 2 == 0 and element) or element >= 2 * parameters.ring_degree for element in keys):
            raise ParameterError("the server's plan asks for keys that do not exist")
        return plan


def _logit_slots(outputs: int) -> int:
    """Slots that hold so many logits, two in each: a power of two."""
    return 1 << ((outputs + 1) // 2 - 1).bit_length()


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _natural(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is not a natural number")
    return value
