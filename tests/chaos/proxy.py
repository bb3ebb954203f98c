"""A wire between client and server that can be cut: a TCP proxy on loopback."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Wire:
    """Forwards bytes until it has forwarded so many towards the server; then it cuts every connection, once."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._there = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.forwarded = 0
        self.cut_at: int | None = None
        self.cuts = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(self._there)
                with self._lock:
                    self._open |= {here, there}
                for source, sink, up in ((here, there, True), (there, here, False)):
                    threading.Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                if up:
                    self.forwarded += len(data)
                    if self.cut_at is not None and self.forwarded >= self.cut_at:
                        self.cut_at = None
                        self.cut()
        for end in (source, sink):
            end.close()

    def cut(self) -> None:
        """End every connection now, as a pulled plug does."""
        with self._lock:
            ends, self._open = self._open, set()
        self.cuts += 1
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Forward nothing more."""
        self._listener.close()
        self.cut()


@contextlib.contextmanager
def wire(target: str) -> Iterator[Wire]:
    """A wire to a server, for the length of the block."""
    made = Wire(target)
    try:
        yield made
    finally:
        made.close()
