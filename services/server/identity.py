"""Who a caller is: the bearer of a token, the holder of a certificate, or nobody in particular.

A principal comes from the connection alone, never from a field of a request. Tokens are 256 random bits, so a plain SHA-256
of one reveals nothing that could be guessed; the comparison takes the same time whether the token, its name, or nothing is right.
"""

import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from he_runtime.errors import WireError
from services.server.settings import Authentication

_PREFIX = "thex"
_NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class Principal:
    """A caller as the store and the log know it."""

    name: str

    @property
    def tenant(self) -> str:
        """32 hexadecimal digits: the name of the caller's part of the store, and how the log calls it."""
        return hashlib.sha256(f"thex-tenant\n{self.name}".encode()).hexdigest()[:32]


ANONYMOUS = Principal("anonymous")


@dataclass(frozen=True)
class Token:
    """What is kept of a token: not the token."""

    identity: str
    name: str
    sha256: str
    expires: float
    """Seconds since 1970."""


class TokenFile:
    """Hashes of tokens in a JSON file of mode 0600, read anew when it changes, so that revocation needs no restart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def tokens(self) -> Mapping[str, Token]:
        """Identity -> token. ValueError for a file that is not one of ours."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return {}
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            try:
                rows = json.loads(self.path.read_text())["tokens"]
                self._tokens = {row["identity"]: Token(**row) for row in rows}
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{self.path} is not a file of tokens; make one with `thex tokens add`") from None
            self._seen = seen
        return self._tokens

    def add(self, name: str, days: float) -> str:
        """Make a token for a principal of this name, and return it: it is shown once and kept nowhere."""
        identity, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        token = Token(identity, name, _digest(secret), time.time() + days * 86400)
        self._write([*self.tokens().values(), token])
        return f"{_PREFIX}_{identity}_{secret}"

    def revoke(self, name: str) -> int:
        """Forget every token of this name (or this identity); how many there were."""
        kept = [token for token in self.tokens().values() if name not in (token.name, token.identity)]
        removed = len(self.tokens()) - len(kept)
        if removed:
            self._write(kept)
        return removed

    def principal(self, presented: str) -> Principal | None:
        """Whose token this is, or None."""
        tokens = self.tokens()
        prefix, _, rest = presented.partition("_")
        identity, _, secret = rest.partition("_")
        token = tokens.get(identity)
        right = hmac.compare_digest(_digest(secret), token.sha256 if token is not None else _NO_DIGEST)
        if token is None or not right or prefix != _PREFIX or token.expires <= time.time():
            return None
        return Principal(f"token:{token.name}")

    def _write(self, tokens: Iterable[Token]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"tokens": [vars(token) for token in tokens]}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.path)


@dataclass(frozen=True)
class Authenticator:
    """Finds the principal of a call."""

    method: Authentication
    tokens: TokenFile

    def principal(
        self, metadata: Iterable[tuple[str, str | bytes]], certificate: Mapping[str, Iterable[bytes]]
    ) -> Principal:
        """From the call's headers and its connection's certificate. WireError unauthenticated, the same for every defect."""
        if self.method == "none":
            return ANONYMOUS
        found = self._by_token(metadata) if self.method == "token" else _by_certificate(certificate)
        if found is None:
            how = "a bearer token that the operator gave you" if self.method == "token" else "a client certificate"
            raise WireError("unauthenticated", f"this server knows its clients: present {how}")
        return found

    def _by_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> Principal | None:
        headers = [value for name, value in metadata if name == "authorization"]
        if len(headers) != 1 or not isinstance(headers[0], str) or not headers[0].startswith("Bearer "):
            return None
        return self.tokens.principal(headers[0].removeprefix("Bearer "))


def _by_certificate(certificate: Mapping[str, Iterable[bytes]]) -> Principal | None:
    """The first alternative name, else the common name; TLS has verified the chain."""
    for field in ("x509_subject_alternative_name", "x509_common_name"):
        for value in certificate.get(field, ()):
            return Principal(f"certificate:{value.decode('utf-8', 'replace')}")
    return None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
