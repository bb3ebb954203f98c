"""A client's keys on its own disk: the secret one encrypted, the evaluation keys as they are sent.

Evaluation keys are kept so that an upload goes on in the middle of a key, and so that a server that forgot them gets the same
again without a minute of making them. Directories are 0700, files 0600, and a file has its name only when it is whole.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from he_runtime.client_keys import make_evaluation_keys
from he_runtime.errors import WireError
from he_runtime.seal import SealClient, SecretKey
from he_runtime.secret_store import create_key_file, open_secret_key, store_secret_key
from he_runtime.wire.evaluation_keys import write_evaluation_key
from he_runtime.wire.message import EVALUATION_KEY, Binding, read_frame
from he_runtime.wire.sizes import evaluation_key_body_bytes

KEY_SET = "key-set-"
"""What files begin with that name the key set that a server has."""


@dataclass(frozen=True)
class KeyCache:
    """Keys for one program, under one directory."""

    directory: Path
    seal: SealClient
    binding: Binding
    passphrase: str | None
    keep: bool
    """Whether evaluation keys stay on disk."""

    @property
    def _evaluation_keys(self) -> Path:
        return self.directory / "evaluation-keys"

    @property
    def _secret_file(self) -> Path:
        return self.directory / "secret.key"

    @property
    def _key_file(self) -> Path:
        return self.directory / "storage.key"

    def secret(self) -> SecretKey:
        """The secret key; made and stored at the first use."""
        if not self._secret_file.exists():
            if self.passphrase is None:
                create_key_file(self._key_file)
            self._forget_what_fits_it()  # of a former secret
            secret = self.seal.generate_secret_key()
            store_secret_key(self._secret_file, self.seal, secret, passphrase=self.passphrase, key_file=self._key_file)
        return self.stored_secret()

    def stamp(self) -> tuple[int, int] | None:
        """Tells the stored secret from one that another process put in its place; None where there is none."""
        try:
            status = self._secret_file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def stored_secret(self) -> SecretKey:
        """The secret key that is stored; none is made."""
        return open_secret_key(self._secret_file, self.seal, passphrase=self.passphrase, key_file=self._key_file)

    def message(self, secret: SecretKey, element: int, level: int) -> bytes:
        """The message of one key: from disk, or made now."""
        content = self.kept(element, level)
        if content is None:
            (key,) = make_evaluation_keys(self.seal, secret, {element: level})
            content = write_evaluation_key(key, self.binding)
            if self.keep:
                self._write(element, content)
        return content

    def has(self, element: int) -> bool:
        """Whether a key is on disk, whole or not."""
        return (self._evaluation_keys / str(element)).exists()

    def kept(self, element: int, level: int) -> bytes | None:
        """The message of a key that is on disk and whole."""
        path = self._evaluation_keys / str(element)
        try:
            content = path.read_bytes()
            read_frame(content, self.binding, EVALUATION_KEY, evaluation_key_body_bytes(self.binding.parameters, level))
        except FileNotFoundError:
            return None
        except WireError:
            path.unlink(missing_ok=True)  # damaged: made anew
            return None
        return content

    def forget_evaluation_keys(self) -> None:
        """Remove them from this disk."""
        shutil.rmtree(self._evaluation_keys, ignore_errors=True)

    def forget_secret(self) -> None:
        """Remove the secret key from this disk, and all that fits it alone."""
        self._secret_file.unlink(missing_ok=True)
        self._key_file.unlink(missing_ok=True)
        self._forget_what_fits_it()

    def _forget_what_fits_it(self) -> None:
        """Evaluation keys, and which servers have them: a server that is asked under another secret would answer nonsense."""
        self.forget_evaluation_keys()
        for path in self.directory.glob(f"{KEY_SET}*"):
            path.unlink(missing_ok=True)

    def _write(self, element: int, content: bytes) -> None:
        self._evaluation_keys.mkdir(mode=0o700, exist_ok=True)
        partial = self._evaluation_keys / f"{element}.part"
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        partial.rename(self._evaluation_keys / str(element))
