"""Evaluation keys on disk: a directory for each key set, a file for each key; written to a temporary name, then renamed.

Pure Python; what a peer sent is checked by its frame (kind, sizes, digests) before it gets its final name.
"""

import secrets
import shutil
from pathlib import Path

from he_runtime.errors import WireError
from he_runtime.wire.message import EVALUATION_KEY, peek, read_frame
from he_runtime.wire.sizes import evaluation_key_body_bytes, evaluation_key_bytes
from services.server.limits import Limits
from services.server.model import ServedModel


class KeyStore:
    """Key sets under one private directory."""

    def __init__(self, directory: Path, model: ServedModel, limits: Limits) -> None:
        self.directory = directory
        self.model = model
        self.limits = limits
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self) -> str:
        """A new, empty key set; its name is 128 random bits."""
        if sum(1 for _ in self.directory.iterdir()) >= self.limits.key_sets:
            raise WireError(
                "too_many_key_sets", f"{self.limits.key_sets} clients have keys here; delete keys or try later"
            )
        name = secrets.token_hex(16)
        (self.directory / name).mkdir(mode=0o700)
        return name

    def path(self, key_set: str) -> Path:
        """The directory of a key set. WireError unknown_key_set when there is none."""
        # Only names of our own making reach the file system.
        valid = len(key_set) == 32 and all(character in "0123456789abcdef" for character in key_set)
        if not valid or not (self.directory / key_set).is_dir():
            raise WireError("unknown_key_set", "there are no keys of that name here; upload them again")
        return self.directory / key_set

    def complete(self, key_set: str) -> list[int]:
        """Galois elements of the keys that are whole."""
        return sorted(int(file.stem) for file in self.path(key_set).glob("*.key"))

    def is_complete(self, key_set: str) -> bool:
        """Whether every key of the program is there."""
        return set(self.complete(key_set)) == set(self.model.keys)

    def append(self, key_set: str, element: int, offset: int, data: bytes) -> bool:
        """Add a chunk of one key; True when that made it whole.

        A chunk at offset 0 begins the key anew. WireError for anything that is not as planned; the partial file is then gone.
        """
        directory = self.path(key_set)
        if element not in self.model.keys:
            raise WireError("unwanted_key", f"Galois element {element} is not among the program's keys")
        level = self.model.keys[element]
        expected = evaluation_key_bytes(self.model.binding.parameters, level)
        partial = directory / f"{element}.part"
        try:
            if offset == 0:
                partial.unlink(missing_ok=True)
                partial.touch(mode=0o600)
                peek(data)  # refuses secret keys and garbage at their first bytes
            present = partial.stat().st_size if partial.exists() else 0
            if offset != present:
                raise WireError(
                    "wrong_offset", f"a chunk at offset {offset}; {present} bytes are here: begin the key anew"
                )
            if present + len(data) > expected:
                raise WireError("oversize", f"this key has {expected} bytes; more were sent")
            with partial.open("ab") as file:
                file.write(data)
            if present + len(data) < expected:
                return False
            self._check(partial, element, level)
        except WireError:
            partial.unlink(missing_ok=True)
            raise
        partial.rename(directory / f"{element}.key")
        return True

    def delete(self, key_set: str) -> None:
        """Forget a key set."""
        shutil.rmtree(self.path(key_set))

    def _check(self, file: Path, element: int, level: int) -> None:
        content = file.read_bytes()
        frame = read_frame(
            content,
            self.model.binding,
            EVALUATION_KEY,
            evaluation_key_body_bytes(self.model.binding.parameters, level),
        )
        if frame.galois_element != element or frame.level != level:
            raise WireError("wrong_level", f"the key says Galois element {frame.galois_element}, level {frame.level}")
