"""What a client does for a query, timed inside its own process; see `client_process`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.memory import peak_bytes
from he_runtime.client_keys import make_evaluation_keys
from he_runtime.client_plan import ClientPlan
from he_runtime.seal import SealClient
from he_runtime.secret_store import create_key_file, open_secret_key, store_secret_key
from he_runtime.wire.answers import read_answer
from he_runtime.wire.ciphertexts import SeededCiphertext, read_result_ciphertext, write_input_ciphertext
from he_runtime.wire.evaluation_keys import write_evaluation_key
from he_runtime.wire.message import Binding


class ClientSide:
    """SEAL, the messages of the wire, and a secret key: the one stored in `home`, or a fresh one that is stored there."""

    def __init__(self, plan: ClientPlan, home: Path) -> None:
        self.plan = plan
        self.binding = Binding(plan.parameters, plan.program_digest)
        self.seal = SealClient(plan.parameters)
        stored, key_file = home / "secret.key", home / "storage.key"
        if not stored.exists():
            home.mkdir(mode=0o700)
            create_key_file(key_file)
            store_secret_key(stored, self.seal, self.seal.generate_secret_key(), passphrase=None, key_file=key_file)
        self.secret = open_secret_key(stored, self.seal, passphrase=None, key_file=key_file)

    def make_keys(self, directory: Path) -> None:
        """Every evaluation key as a file."""
        directory.mkdir()
        for key in make_evaluation_keys(self.seal, self.secret, self.plan.keys):
            (directory / f"{key.galois_element}.key").write_bytes(write_evaluation_key(key, self.binding))

    def encrypt(self, bucket: int, embedded: NDArray[np.float64]) -> dict[str, bytes]:
        """Messages by input name. embedded: [tokens, hidden]."""
        levels, scale = self.plan.buckets[bucket].input_levels, self.plan.parameters.scale
        inputs = {}
        for name, slots in self.plan.pack(bucket, embedded).items():
            sealed = self.seal.encrypt(self.secret, slots, levels[name], scale)
            if sealed.seed is None:
                raise RuntimeError("SEAL gave an encryption without a seed; this version of TenSEAL is not supported")
            inputs[name] = write_input_ciphertext(SeededCiphertext(sealed.seed, sealed.rows[0], scale), self.binding)
        return inputs

    def decrypt(self, bucket: int, answer: bytes) -> NDArray[np.float64]:
        """Logits of an answer message."""
        scale, period = self.plan.output_scale, self.plan.answer_period
        if period is not None:
            short = read_answer(answer, period, scale, self.binding)
            return self.plan.unpack(bucket, self.plan.answer_slots(self.seal.decrypt_coefficients(self.secret, short)))
        return self.plan.unpack(
            bucket, self.decrypt_rows(read_result_ciphertext(answer, self.binding, 0, scale), scale)
        )

    def decrypt_rows(self, rows: NDArray[np.uint64], scale: float) -> NDArray[np.complex128]:
        """Slots of canonical residues uint64 [2, level+1, N]."""
        return self.seal.decrypt_complex(self.secret, rows, scale)

    def peak_bytes(self) -> int:
        """Peak memory of this process."""
        return peak_bytes()
