"""What a client does on its own machine: tokens, packing, encryption, decryption, checks. No network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from he_runtime.bundle import ClientHalf
from he_runtime.client_plan import ClientPlan
from he_runtime.errors import BundleError, HERuntimeError, RangeError, WireError
from he_runtime.seal import SealClient, SecretKey
from he_runtime.wire.answers import read_answer
from he_runtime.wire.ciphertexts import SeededCiphertext, read_result_ciphertext, write_input_ciphertext
from he_runtime.wire.message import Binding
from services import self_test
from services.client.errors import (
    AnswerError,
    ClientError,
    NotBelievedError,
    OtherModelError,
    OutOfRangeError,
    SelfTestError,
    TextTooLongError,
)
from services.client.public_half import make_private, stored_half
from services.truncation import tokenizer_cutting_at

SELF_TEST_TOLERANCE = 2.0**-7
"""Of a result of order 1: noise is below 2^-12, and a wrong or damaged key gives numbers of order 2^40."""
UNUSED_TOLERANCE = 2.0**-7
"""Of slots that an honest answer leaves empty, or repeats."""


@dataclass(frozen=True)
class Prepared:
    """A text ready to be encrypted."""

    tokens: int
    cut: int
    """Tokens that the text had beyond these."""
    bucket: int
    slots: Mapping[str, NDArray[np.complex128]]
    """Input name -> slots."""


class Session:
    """One model as a client sees it."""

    def __init__(
        self,
        directory: Path,
        files: Mapping[str, bytes],
        *,
        bundle_digest: str | None = None,
        truncate: bool = False,
        allow_insecure_test: bool,
    ) -> None:
        """Check and store the public half that a server sent. AnswerError when it is not usable.

        bundle_digest: OtherModelError unless it is of this bundle. truncate: cut a text at what the largest bucket holds, as in
        training, where else it is refused.
        """
        try:
            _expect(bundle_digest, files["manifest.json"])
            plan = json.loads(files["plan.json"])
            self.plan = ClientPlan.from_json(plan, allow_insecure_test=allow_insecure_test)
            self.directory = directory / self.plan.program_digest[:16]
            make_private(self.directory)
            self.model = stored_half(self.directory, files)
            _expect_buckets(self.plan, self.model)
            self._whole = _tokenizer(files["tokenizer.json"])
        except (KeyError, ValueError, BundleError, HERuntimeError) as error:
            raise AnswerError(f"the server's public half is not usable: {error}") from None
        half = self.model.directory
        self._whole.no_padding()
        self._whole.no_truncation()
        self._most = min(max(self.plan.buckets), self.model.config.architecture.positions)
        self._cutting = tokenizer_cutting_at(half / "tokenizer.json", self._most) if truncate else None
        self.binding = Binding(self.plan.parameters, self.plan.program_digest)
        self.seal = SealClient(self.plan.parameters)

    def tokenise(self, text: str, second: str | None = None) -> tuple[list[int], list[int]]:
        """Token ids and token types, special tokens included, cut if this session cuts."""
        encoding = (self._cutting or self._whole).encode(text, second)
        return list(encoding.ids), list(encoding.type_ids)

    def prepare(self, text: str, second: str | None = None) -> Prepared:
        """Tokens, embeddings, slots. OutOfRangeError, TextTooLongError, AnswerError; ValueError for a text too many or few."""
        task = self.model.config.task
        if task.pair != (second is not None):
            raise ValueError(f"{task.name} asks about {'two texts' if task.pair else 'one text'}; give just as many")
        ids, types = self.tokenise(text, second)
        prepared = self.prepare_tokens(ids, types)
        return replace(prepared, cut=len(self._whole.encode(text, second)) - len(ids)) if self._cutting else prepared

    def prepare_tokens(self, ids: list[int], types: list[int]) -> Prepared:
        """As `prepare`, of a text that is tokens already."""
        if len(ids) > self._most:
            raise TextTooLongError(
                f"the text has {len(ids)} tokens, this model takes at most {self._most}: shorten it, or have the client "
                "truncate it"
            )
        try:
            embedded = self.model.embed(ids, types)
        except RangeError as error:
            raise OutOfRangeError(str(error)) from None
        except ValueError as error:
            raise AnswerError(f"the server's tokenizer and embeddings do not fit each other: {error}") from None
        bucket = self.plan.bucket_for(len(ids))
        return Prepared(len(ids), 0, bucket, self.plan.pack(bucket, embedded))

    def encrypt(self, secret: SecretKey, prepared: Prepared) -> dict[str, bytes]:
        """Input name -> message. Fresh randomness at every call: nothing is ever sent twice."""
        levels = self.plan.buckets[prepared.bucket].input_levels
        return {name: self._encrypt(secret, slots, levels[name]) for name, slots in prepared.slots.items()}

    def decrypt(self, secret: SecretKey, bucket: int, answer: bytes) -> NDArray[np.float64]:
        """Logits float64 [classes]. AnswerError for what is no answer (NotBelievedError: no honest one), OutOfRangeError."""
        try:
            scale, period = self.plan.output_scale, self.plan.answer_period
            if period is not None:
                short = read_answer(answer, period, scale, self.binding)
                slots = self.plan.answer_slots(self.seal.decrypt_coefficients(secret, short))
            else:
                rows = read_result_ciphertext(answer, self.binding, 0, scale)
                slots = self.seal.decrypt_complex(secret, rows, scale)
            outputs = self.plan.unpack(bucket, slots)
            _check_small(self.plan.numbers_beside(bucket, slots))
            self.model.expect_vector(outputs)
            return outputs
        except WireError as error:
            raise AnswerError(f"the server's answer is not one: {error.reason}: {error}") from None
        except RangeError as error:
            raise OutOfRangeError(str(error)) from None

    # --- the self-test ---------------------------------------------------------------------------------------------

    def encrypt_self_test(self, secret: SecretKey) -> tuple[NDArray[np.complex128], bytes]:
        """A random vector, and its encryption at the highest level of the keys."""
        x = self_test.random_vector(self.plan.keys, self.plan.parameters)
        return x, self._encrypt(secret, x, max(self.plan.keys.values()))

    def check_self_test(self, secret: SecretKey, x: NDArray[np.complex128], rotations: bytes, square: bytes) -> None:
        """SelfTestError unless both answers are what the keys should give."""
        scale = self.plan.parameters.scale
        relinearised_at = self.plan.keys.get(0, 0)
        square_scale = scale * scale / self.plan.parameters.primes[relinearised_at]
        wanted = self_test.expected(self.plan.keys, self.plan.parameters, x)
        answers = ((rotations, scale, "the rotation keys"), (square, square_scale, "the relinearisation key"))
        for right, (answer, at, what) in zip(wanted, answers, strict=True):
            if right is None:
                continue
            try:
                rows = read_result_ciphertext(answer, self.binding, 0, at)
            except WireError as error:
                raise SelfTestError(f"the self-test's answer is not one: {error.reason}: {error}") from None
            difference = np.abs(self.seal.decrypt_complex(secret, rows, at) - right).max()
            if not difference <= SELF_TEST_TOLERANCE:
                raise SelfTestError(
                    f"the server computes wrongly with {what} (a known result is off by {difference:.2g}): a key was damaged "
                    "or is another's; they will be made anew"
                )

    def _encrypt(self, secret: SecretKey, slots: NDArray[np.complex128], level: int) -> bytes:
        scale = self.plan.parameters.scale
        sealed = self.seal.encrypt(secret, slots, level, scale)
        if sealed.seed is None:
            raise ClientError("SEAL gave an encryption without a seed; this version of TenSEAL is not supported")
        return write_input_ciphertext(SeededCiphertext(sealed.seed, sealed.rows[0], scale), self.binding)


def _expect(bundle_digest: str | None, manifest: bytes) -> None:
    found = hashlib.sha256(manifest).hexdigest()
    if bundle_digest is not None and found != bundle_digest.lower():
        raise OtherModelError(
            f"the server's bundle has the digest {found}, not {bundle_digest}: nothing was sent to it"
        )


def _expect_buckets(plan: ClientPlan, model: ClientHalf) -> None:
    """A plan with buckets of its own would be told lengths more exactly than the model's owner chose."""
    more = sorted(set(plan.buckets) - set(model.config.buckets))
    if more:
        raise ValueError(f"its plan has buckets of {more} tokens, its model those of {sorted(model.config.buckets)}")


def _tokenizer(content: bytes) -> Tokenizer:
    """ValueError for what is none."""
    try:
        return Tokenizer.from_str(content.decode())
    except Exception as error:  # tokenizers raises nothing more special
        raise ValueError(f"its tokenizer.json: {error}") from None


def _check_small(beside: NDArray[np.float64]) -> None:
    largest = float(np.abs(beside).max(initial=0.0))
    if not largest <= UNUSED_TOLERANCE:
        raise NotBelievedError(
            f"the answer holds {largest:.2g} beside its outputs, where an honest one holds zero: it is not believed"
        )
