"""TLS of the server: its certificate, and the authority of its clients', read anew when the files change."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import structlog

log = structlog.get_logger()
CERTIFICATE, PRIVATE_KEY, CLIENT_AUTHORITY = "server.pem", "server.key", "authority.pem"


@dataclass
class Certificates:
    """The files of one directory; a handshake after they were replaced uses the new ones, running connections go on."""

    directory: Path
    require_client: bool
    _seen: tuple[int, ...] = field(init=False, default=())

    def credentials(self) -> Any:
        """gRPC credentials that look at the files at each handshake. OSError when a file is missing."""
        self._seen = self._times()
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._changed, require_client_authentication=self.require_client
        )

    def _files(self) -> list[Path]:
        names = [CERTIFICATE, PRIVATE_KEY, *([CLIENT_AUTHORITY] if self.require_client else [])]
        return [self.directory / name for name in names]

    def _times(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in self._files())

    def _configuration(self) -> Any:
        certificate, private_key, *authority = (path.read_bytes() for path in self._files())
        return grpc.ssl_server_certificate_configuration([(private_key, certificate)], *authority)

    def _changed(self) -> Any:
        """Called at every handshake: the new configuration, or None to go on with the old one."""
        try:
            times = self._times()
            if times == self._seen:
                return None
            configuration = self._configuration()
        except (OSError, ValueError) as error:
            log.error("certificates not reloaded, the old ones stay", error=type(error).__name__)
            return None
        self._seen = times
        log.info("certificates reloaded")
        return configuration
