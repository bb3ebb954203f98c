"""The secret key at rest: AES-256-GCM under a key from a passphrase (scrypt) or from a key file; mode 0600.

File: magic THEXSECR, version u16, how u16 (1 passphrase, 2 key file), salt 16 bytes, nonce 12 bytes, then the sealed residues.
The digest of the parameters is authenticated with them, so a key is never used with parameters it was not made for.
"""

import os
import secrets
import struct
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from he_runtime.errors import HERuntimeError
from he_runtime.seal import SealClient, SecretKey
from he_runtime.wire.message import SECRET_STORE_MAGIC

_HEAD = struct.Struct("<8sHH16s12s")
_VERSION = 1
_PASSPHRASE, _KEY_FILE = 1, 2
_SCRYPT_N = 2**17  # about 0.4 s and 128 MiB: OWASP's recommendation
KEY_BYTES = 32


class SecretStoreError(HERuntimeError):
    """The stored secret key cannot be opened; the message says why and what to do."""


def create_key_file(path: Path) -> None:
    """Write 32 random bytes, readable by the owner alone; an existing file is kept."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))


def store_secret_key(path: Path, client: SealClient, key: SecretKey, *, passphrase: str | None, key_file: Path) -> None:
    """Encrypt and write; refuses to overwrite. A passphrase comes before the key file."""
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    how = _PASSPHRASE if passphrase is not None else _KEY_FILE
    head = _HEAD.pack(SECRET_STORE_MAGIC, _VERSION, how, salt, nonce)
    wrapping = _wrapping_key(how, salt, passphrase, key_file)
    bound = head + bytes.fromhex(client.parameters.digest)
    sealed = AESGCM(wrapping).encrypt(nonce, client.secret_rows(key).astype("<u8").tobytes(), bound)
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    if path.exists():
        raise SecretStoreError(f"{path} exists; a secret key is never overwritten: delete it first if it is not needed")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(head + sealed)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def open_secret_key(path: Path, client: SealClient, *, passphrase: str | None, key_file: Path) -> SecretKey:
    """Read and decrypt."""
    if path.stat().st_mode & 0o077:
        raise SecretStoreError(f"{path} can be read by others; run chmod 600 on it, and think of the key as known")
    content = path.read_bytes()
    if len(content) < _HEAD.size or content[:8] != SECRET_STORE_MAGIC:
        raise SecretStoreError(f"{path} is not a secret key of THE-X")
    _, version, how, salt, nonce = _HEAD.unpack_from(content)
    if version != _VERSION or how not in (_PASSPHRASE, _KEY_FILE):
        raise SecretStoreError(f"{path} has version {version}; this program reads version {_VERSION}")
    if how == _PASSPHRASE and passphrase is None:
        raise SecretStoreError(f"{path} is protected by a passphrase; give it, for example as THEX_PASSPHRASE")
    wrapping = _wrapping_key(how, salt, passphrase, key_file)
    try:
        bound = content[: _HEAD.size] + bytes.fromhex(client.parameters.digest)
        plain = AESGCM(wrapping).decrypt(nonce, content[_HEAD.size :], bound)
    except InvalidTag:
        raise SecretStoreError(
            f"{path} does not open: wrong passphrase or key file, other encryption parameters, or a damaged file"
        ) from None
    rows = np.frombuffer(plain, "<u8").astype(np.uint64)
    return client.load_secret_key(rows.reshape(len(client.parameters.all_primes), client.parameters.ring_degree))


def _wrapping_key(how: int, salt: bytes, passphrase: str | None, key_file: Path) -> bytes:
    if how == _PASSPHRASE and passphrase is not None:
        return Scrypt(salt=salt, length=KEY_BYTES, n=_SCRYPT_N, r=8, p=1).derive(passphrase.encode())
    try:
        key = key_file.read_bytes()
    except FileNotFoundError:
        raise SecretStoreError(
            f"the key file {key_file} is missing; without it the secret key cannot be opened"
        ) from None
    if len(key) != KEY_BYTES:
        raise SecretStoreError(f"the key file {key_file} has {len(key)} bytes; expected {KEY_BYTES}")
    return key
