"""Everything that SEAL does for us, through TenSEAL's low-level binding: keys, encryption, decryption, all randomness.

The only file that imports tenseal. SEAL's own security check is switched off (SEC_LEVEL_TYPE.NONE) because its table is looser than
ours and ends at N=32768; `Parameters` has checked the same numbers against the 2024 table before a context is made.
"""

import math
import struct
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from he_runtime.errors import HERuntimeError
from he_runtime.parameters import Parameters
from he_runtime.seal_format import (
    MemoryFile,
    SealCiphertext,
    ciphertext_parts,
    plaintext_parts,
    read_ciphertext,
    read_plaintext,
)


class SecretKey:
    """A secret key. Opaque: it prints as nothing, does not pickle, and leaves this process only encrypted at rest."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __repr__(self) -> str:
        return "SecretKey(<hidden>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is not pickled; store it encrypted with he_runtime.secret_store")


@dataclass
class SealClient:
    """SEAL for one parameter set. Holds no secret; every secret operation takes the key."""

    parameters: Parameters
    context: Any = field(init=False)
    encoder: Any = field(init=False)
    _ids: dict[int, Any] = field(init=False)
    _file: MemoryFile = field(default_factory=MemoryFile)

    def __post_init__(self) -> None:
        settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        settings.set_poly_modulus_degree(self.parameters.ring_degree)
        settings.set_coeff_modulus([sealapi.Modulus(prime) for prime in self.parameters.all_primes])
        self.context = sealapi.SEALContext(settings, True, sealapi.SEC_LEVEL_TYPE.NONE)
        self.encoder = sealapi.CKKSEncoder(self.context)
        self._ids = {}
        data = self.context.key_context_data()
        while data is not None:
            self._ids[len(data.parms().coeff_modulus())] = data.parms_id()
            data = data.next_context_data()

    def parms_id(self, rows: int) -> Any:
        """SEAL's name for the chain's first `rows` primes."""
        return self._ids[rows]

    def generate_secret_key(self) -> SecretKey:
        """A fresh uniform ternary secret."""
        return SecretKey(sealapi.KeyGenerator(self.context).secret_key())

    def secret_rows(self, key: SecretKey) -> NDArray[np.uint64]:
        """The secret's transformed residues at all primes, uint64 [all primes, N]. Secret: for key material only."""
        flat = read_plaintext(self._file.save(key._handle))
        return flat.reshape(len(self.parameters.all_primes), self.parameters.ring_degree)

    def load_secret_key(self, rows: NDArray[np.uint64]) -> SecretKey:
        """The secret key with these residues (as `secret_rows` gave them)."""
        handle = sealapi.SecretKey()
        key_id = _id_bytes(self._ids[len(self.parameters.all_primes)])
        self._file.load(handle, self.context, plaintext_parts(key_id, rows.reshape(-1), 1.0))
        return SecretKey(handle)

    def encryptor(self, key: SecretKey) -> Any:
        """SEAL's symmetric encryptor."""
        return sealapi.Encryptor(self.context, key._handle)

    def encrypt(self, key: SecretKey, slots: NDArray[np.float64], level: int, scale: float) -> SealCiphertext:
        """A seeded encryption of real slots [N/2] at a level: rows uint64 [1, level+1, N] and the seed of the other part."""
        if len(slots) != self.parameters.slots or not np.isfinite(slots).all():
            raise HERuntimeError(f"{len(slots)} values to encrypt; expected {self.parameters.slots} finite ones")
        plaintext = sealapi.Plaintext()
        self.encoder.encode(slots.tolist(), self._ids[level + 1], scale, plaintext)
        return read_ciphertext(self._file.save(self.encryptor(key).encrypt_symmetric(plaintext)))

    def encrypt_zero(self, encryptor: Any) -> SealCiphertext:
        """A seeded encryption of zero at all primes, special ones included: what keys are made from."""
        return read_ciphertext(
            self._file.save(encryptor.encrypt_zero_symmetric(self._ids[len(self.parameters.all_primes)]))
        )

    def to_seal(self, rows: NDArray[np.uint64], scale: float) -> Any:
        """A SEAL ciphertext from canonical residues uint64 [parts, level+1, N]."""
        if not (math.isfinite(scale) and scale > 0):
            raise HERuntimeError(f"a ciphertext of scale {scale} cannot be decrypted; scales are positive and finite")
        ciphertext = sealapi.Ciphertext()
        parts = ciphertext_parts(_id_bytes(self._ids[rows.shape[1]]), rows, scale)
        return self._file.load(ciphertext, self.context, parts)

    def from_seal(self, ciphertext: Any) -> NDArray[np.uint64]:
        """Canonical residues uint64 [parts, level+1, N] of a SEAL ciphertext."""
        return read_ciphertext(self._file.save(ciphertext)).rows

    def decrypt(self, key: SecretKey, rows: NDArray[np.uint64], scale: float) -> NDArray[np.float64]:
        """Real slots float64 [N/2] of a ciphertext given as canonical residues uint64 [2, level+1, N]."""
        plaintext = sealapi.Plaintext()
        sealapi.Decryptor(self.context, key._handle).decrypt(self.to_seal(rows, scale), plaintext)
        return np.array(self.encoder.decode_double(plaintext))


def _id_bytes(parms_id: Any) -> bytes:
    return struct.pack("<4Q", *parms_id)
