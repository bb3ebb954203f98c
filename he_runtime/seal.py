"""Everything that SEAL does for us, through TenSEAL's low-level binding: keys, encryption, decryption, all randomness.

The only file that imports tenseal. SEAL's own security check is switched off (SEC_LEVEL_TYPE.NONE) because its table is looser
than ours and ends at N=32768; `Parameters` has checked the same numbers against the 2024 table before a context is made.
"""

import math
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from he_runtime.errors import HERuntimeError
from he_runtime.kernels.arithmetic import centred
from he_runtime.kernels.transform import make_tables
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
        self._smaller: dict[int, Any] = {}
        """The same key for contexts of fewer primes."""

    def __repr__(self) -> str:
        return "SecretKey(<hidden>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is not pickled; store it encrypted with he_runtime.secret_store")


@dataclass(frozen=True)
class _Ring:
    """SEAL's context of one number of primes, without the chain below it: that has tables for every level, 6 GB at N=65536.

    SEAL names a ring by its degree and primes (parms_id), so what one context makes the others read.
    """

    context: Any
    encoder: Any
    parms_id: Any
    key_id: Any
    """Name of the ring that this context's secret key lies in."""


def _context(parameters: Parameters, primes: int, *, chain: bool) -> Any:
    settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    settings.set_poly_modulus_degree(parameters.ring_degree)
    settings.set_coeff_modulus([sealapi.Modulus(prime) for prime in parameters.all_primes[:primes]])
    return sealapi.SEALContext(settings, chain, sealapi.SEC_LEVEL_TYPE.NONE)


def _ring(parameters: Parameters, rows: int) -> _Ring:
    """The ring of the first `rows` primes. SEAL keeps a context's last prime for keys, so it gets one more where there is one."""
    context = _context(parameters, rows + 1, chain=False)
    top = context.key_context_data()
    own = top if rows == len(parameters.all_primes) else top.next_context_data()
    if len(own.parms().coeff_modulus()) != rows:
        raise HERuntimeError(f"SEAL has no ring of {rows} primes with N={parameters.ring_degree}")
    return _Ring(context, sealapi.CKKSEncoder(context), own.parms_id(), top.parms_id())


@dataclass
class SealClient:
    """SEAL for one parameter set. Holds no secret; every secret operation takes the key."""

    parameters: Parameters
    _rings: dict[int, _Ring] = field(default_factory=dict)
    _file: MemoryFile = field(default_factory=MemoryFile)
    _making: threading.RLock = field(default_factory=threading.RLock)

    def ring(self, rows: int) -> _Ring:
        """The ring of the chain's first `rows` primes, made when first asked for. Public."""
        with self._making:
            if rows not in self._rings:
                self._rings[rows] = _ring(self.parameters, rows)
            return self._rings[rows]

    @property
    def _whole(self) -> _Ring:
        return self.ring(len(self.parameters.all_primes))

    def _secret_in(self, key: SecretKey, rows: int) -> Any:
        """SEAL's handle of the secret key for a ring's context: fewer of the same residues."""
        ring = self.ring(rows)
        if ring is self._whole:
            return key._handle
        with self._making:
            if rows not in key._smaller:
                handle = sealapi.SecretKey()
                residues = self.secret_rows(key)[: rows + 1]
                self._file.load(
                    handle, ring.context, plaintext_parts(_id_bytes(ring.key_id), residues.reshape(-1), 1.0)
                )
                key._smaller[rows] = handle
            return key._smaller[rows]

    def generate_secret_key(self) -> SecretKey:
        """A fresh uniform ternary secret."""
        return SecretKey(sealapi.KeyGenerator(self._whole.context).secret_key())

    def secret_rows(self, key: SecretKey) -> NDArray[np.uint64]:
        """The secret's transformed residues at all primes, uint64 [all primes, N]. Secret: for key material only."""
        flat = read_plaintext(self._file.save(key._handle))
        return flat.reshape(len(self.parameters.all_primes), self.parameters.ring_degree)

    def load_secret_key(self, rows: NDArray[np.uint64]) -> SecretKey:
        """The secret key with these residues (as `secret_rows` gave them)."""
        handle = sealapi.SecretKey()
        whole = self._whole
        self._file.load(handle, whole.context, plaintext_parts(_id_bytes(whole.parms_id), rows.reshape(-1), 1.0))
        return SecretKey(handle)

    def encryptor(self, key: SecretKey) -> Any:
        """SEAL's symmetric encryptor at all primes, special ones included."""
        return sealapi.Encryptor(self._whole.context, key._handle)

    def encrypt(self, key: SecretKey, slots: NDArray[Any], level: int, scale: float) -> SealCiphertext:
        """A seeded encryption of slots [N/2], real or complex: rows uint64 [1, level+1, N] and the other part's seed."""
        if len(slots) != self.parameters.slots or not np.isfinite(slots).all():
            raise HERuntimeError(f"{len(slots)} values to encrypt; expected {self.parameters.slots} finite ones")
        plaintext, ring = sealapi.Plaintext(), self.ring(level + 1)
        ring.encoder.encode(slots.tolist(), ring.parms_id, scale, plaintext)
        encryptor = sealapi.Encryptor(ring.context, self._secret_in(key, level + 1))
        return read_ciphertext(self._file.save(encryptor.encrypt_symmetric(plaintext)))

    def encrypt_zero(self, encryptor: Any) -> SealCiphertext:
        """A seeded encryption of zero at all primes, special ones included: what keys are made from."""
        return read_ciphertext(self._file.save(encryptor.encrypt_zero_symmetric(self._whole.parms_id)))

    def to_seal(self, rows: NDArray[np.uint64], scale: float) -> Any:
        """A SEAL ciphertext from canonical residues uint64 [parts, level+1, N]."""
        if not (math.isfinite(scale) and scale > 0):
            raise HERuntimeError(f"a ciphertext of scale {scale} cannot be decrypted; scales are positive and finite")
        ciphertext, ring = sealapi.Ciphertext(), self.ring(rows.shape[1])
        return self._file.load(ciphertext, ring.context, ciphertext_parts(_id_bytes(ring.parms_id), rows, scale))

    def from_seal(self, ciphertext: Any) -> NDArray[np.uint64]:
        """Canonical residues uint64 [parts, level+1, N] of a SEAL ciphertext."""
        return read_ciphertext(self._file.save(ciphertext)).rows

    def decrypt(self, key: SecretKey, rows: NDArray[np.uint64], scale: float) -> NDArray[np.float64]:
        """Real slots float64 [N/2] of a ciphertext given as canonical residues uint64 [2, level+1, N]."""
        return np.array(self.ring(rows.shape[1]).encoder.decode_double(self._decrypted(key, rows, scale)))

    def decrypt_complex(self, key: SecretKey, rows: NDArray[np.uint64], scale: float) -> NDArray[np.complex128]:
        """Slots complex128 [N/2], as `decrypt` does it."""
        return np.array(self.ring(rows.shape[1]).encoder.decode_complex(self._decrypted(key, rows, scale)))

    def _decrypted(self, key: SecretKey, rows: NDArray[np.uint64], scale: float) -> Any:
        plaintext, count = sealapi.Plaintext(), rows.shape[1]
        decryptor = sealapi.Decryptor(self.ring(count).context, self._secret_in(key, count))
        decryptor.decrypt(self.to_seal(rows, scale), plaintext)
        return plaintext

    def decrypt_coefficients(self, key: SecretKey, coefficients: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Centred coefficients float64 [N] of a ciphertext at level 0, given as coefficients uint64 [2, N] below q0."""
        prime, degree = self.parameters.primes[0], self.parameters.ring_degree
        tables = make_tables((prime,), degree)
        parts = coefficients.astype(np.float64)
        for part in parts:
            tables.forward(part, 0)
        rows = np.mod(parts, float(prime)).astype(np.uint64)[:, None]
        message = read_plaintext(self._file.save(self._decrypted(key, rows, 1.0))).astype(np.float64)
        tables.inverse(message, 0, centred(pow(degree, -1, prime), prime))
        return message - np.rint(message / prime) * prime


def _id_bytes(parms_id: Any) -> bytes:
    return struct.pack("<4Q", *parms_id)


class SealOperations:
    """SEAL's evaluator with SEAL's own keys and whole chain: for the reference engine only. Every method returns a new handle.

    SEAL compares scales exactly, so sums set them to one value first; the caller has checked that they agree.
    """

    def __init__(self, client: SealClient, key: SecretKey, elements: list[int]) -> None:
        context = _context(client.parameters, len(client.parameters.all_primes), chain=True)
        self._encoder, self._evaluator = sealapi.CKKSEncoder(context), sealapi.Evaluator(context)
        self._ids: dict[int, Any] = {}
        data = context.key_context_data()
        while data is not None:
            self._ids[len(data.parms().coeff_modulus())] = data.parms_id()
            data = data.next_context_data()
        generator = sealapi.KeyGenerator(context, key._handle)
        self._relinearisation = sealapi.RelinKeys()
        generator.create_relin_keys(self._relinearisation)
        self._galois = sealapi.GaloisKeys()
        if elements:
            generator.create_galois_keys(elements, self._galois)

    def encode(self, values: NDArray[np.float64], level: int, scale: float) -> Any:
        """A plaintext of real slots [N/2]."""
        plaintext = sealapi.Plaintext()
        self._encoder.encode(values.tolist(), self._ids[level + 1], scale, plaintext)
        return plaintext

    def apply_galois(self, ciphertext: Any, element: int) -> Any:
        """X -> X^element, switched back to the secret key."""
        result = sealapi.Ciphertext()
        self._evaluator.apply_galois(ciphertext, element, self._galois, result)
        return result

    def multiply_plain(self, ciphertext: Any, plaintext: Any) -> Any:
        """Product with a plaintext."""
        result = sealapi.Ciphertext()
        self._evaluator.multiply_plain(ciphertext, plaintext, result)
        return result

    def multiply(self, left: Any, right: Any) -> Any:
        """Relinearised product."""
        return self.relinearise(self.product(left, right))

    def product(self, left: Any, right: Any) -> Any:
        """Product of three parts."""
        result = sealapi.Ciphertext()
        self._evaluator.multiply(left, right, result)
        return result

    def relinearise(self, product: Any) -> Any:
        """A product of three parts as a ciphertext of two."""
        result = sealapi.Ciphertext()
        self._evaluator.relinearize(product, self._relinearisation, result)
        return result

    def sum_of_plain_products(self, ciphertexts: Sequence[Any], plaintexts: Sequence[Any]) -> Any:
        """Sum of products of one scale; nothing is copied on the way."""
        total = self.multiply_plain(ciphertexts[0], plaintexts[0])
        for ciphertext, plaintext in zip(ciphertexts[1:], plaintexts[1:], strict=True):
            self._evaluator.add_inplace(total, self.multiply_plain(ciphertext, plaintext))
        return total

    def to_coefficients(self, ciphertext: Any) -> None:
        """Every row of both parts transformed back, in place."""
        self._evaluator.transform_from_ntt_inplace(ciphertext)

    def from_coefficients(self, ciphertext: Any) -> None:
        """Every row of both parts transformed, in place."""
        self._evaluator.transform_to_ntt_inplace(ciphertext)

    def add_many(self, terms: list[Any], scale: float) -> Any:
        """Sum of ciphertexts."""
        total = self._scaled(terms[0], scale)
        for term in terms[1:]:
            result = sealapi.Ciphertext()
            self._evaluator.add(total, self._scaled(term, scale), result)
            total = result
        return total

    def add_plain(self, ciphertext: Any, plaintext: Any, scale: float) -> Any:
        """Sum of a ciphertext and a plaintext."""
        result = sealapi.Ciphertext()
        plaintext.scale = scale
        self._evaluator.add_plain(self._scaled(ciphertext, scale), plaintext, result)
        return result

    def rescale(self, ciphertext: Any, scale: float) -> Any:
        """Divide by the last prime."""
        result = sealapi.Ciphertext()
        self._evaluator.rescale_to_next(ciphertext, result)
        result.scale = scale
        return result

    def drop(self, ciphertext: Any, level: int) -> Any:
        """Fewer primes."""
        result = sealapi.Ciphertext()
        self._evaluator.mod_switch_to(ciphertext, self._ids[level + 1], result)
        return result

    def _scaled(self, ciphertext: Any, scale: float) -> Any:
        # The binding has no copy constructor; a switch to the same level copies.
        copied = sealapi.Ciphertext()
        self._evaluator.mod_switch_to(ciphertext, ciphertext.parms_id(), copied)
        copied.scale = scale
        return copied
