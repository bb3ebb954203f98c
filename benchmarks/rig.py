"""What operations are measured on: an engine with keys, SEAL with its own, and ciphertexts for both."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.client_keys import make_evaluation_keys
from he_runtime.engines.numba_engine import NumbaCiphertext, NumbaEngine
from he_runtime.parameters import make_parameters
from he_runtime.program import RELINEARISATION, galois_element
from he_runtime.seal import SealClient, SealOperations, SecretKey

STEPS = (5, 6, 7, 8, 9, 10, 11, 12)
"""Rotations that share a decomposition; SEAL has a key for the first."""


@dataclass(frozen=True)
class Rig:
    """One parameter set and one secret key. `seal` is None where ours is measured alone."""

    client: SealClient
    secret: SecretKey
    engine: NumbaEngine
    seal: SealOperations | None

    @property
    def scale(self) -> float:
        """The scale of every ciphertext here."""
        return self.engine.parameters.scale

    @cached_property
    def slots(self) -> NDArray[np.float64]:
        """What is encrypted and encoded: [N/2], normal."""
        return np.random.default_rng(0).normal(size=self.engine.parameters.slots)

    @cached_property
    def fresh(self) -> tuple[bytes, NDArray[np.uint64]]:
        """Seed and rows of an encryption at the highest level."""
        sealed = self.client.encrypt(self.secret, self.slots, self.engine.parameters.maximum_level, self.scale)
        if sealed.seed is None:
            raise RuntimeError("SEAL gave an encryption without a seed; this version of TenSEAL is not supported")
        return sealed.seed, sealed.rows[0]

    def ciphertext(self, level: int) -> NumbaCiphertext:
        """An encryption of `slots`, in memory of its own."""
        seed, rows = self.fresh
        return self.engine.from_seeded(seed, rows[: level + 1], self.scale)

    def for_seal(self, ciphertext: NumbaCiphertext) -> Any:
        """The same ciphertext in SEAL's hands."""
        return self.client.to_seal(self.engine.to_rows(ciphertext), ciphertext.scale)


def make_rig(ring_degree: int, primes: int, *, with_seal: bool) -> Rig:
    """Keys for relinearisation and STEPS at `primes` primes, for one thread."""
    parameters = make_parameters(ring_degree, primes - 1)
    client = SealClient(parameters)
    secret = client.generate_secret_key()
    engine = NumbaEngine(parameters)
    engine.warm_up()
    wanted = dict.fromkeys([RELINEARISATION, *(galois_element(step, parameters) for step in STEPS)], primes - 1)
    for key in make_evaluation_keys(client, secret, wanted):
        engine.load_key(key.galois_element, key.level, key.digits)
    seal = SealOperations(client, secret, [galois_element(STEPS[0], parameters)]) if with_seal else None
    return Rig(client, secret, engine, seal)
