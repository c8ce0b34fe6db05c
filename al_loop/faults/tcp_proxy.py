"""A neighbour between our processes and PostgreSQL who cuts connections, in the middle of a transaction if need be."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from al_loop.faults.http_proxy import reset

BLOCK = 1 << 16


class TcpProxy:
    """Listens on a port of its own and joins every connection to the upstream: a socket's path, or (host, port)."""

    def __init__(self, upstream: str | tuple[str, int]) -> None:
        self._upstream = upstream
        self._joined: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.port = 0
        self.up()

    def up(self) -> None:
        """Listen, at the same port as before."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port, self._listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections and cut those that are open: the server restarts."""
        listener, self._listener = self._listener, None
        if listener is not None:
            reset(listener)
            listener.close()
        self.cut()

    def cut(self) -> int:
        """Cut every open connection; how many there were."""
        with self._lock:
            joined, self._joined = self._joined, set()
        for connection in joined:
            reset(connection)
        return len(joined) // 2

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = self._connect()
            except OSError:
                near.close()
                continue
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._joined |= {near, far}
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._upstream, tuple):
            return socket.create_connection(self._upstream)
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._upstream)
        return far

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(BLOCK):
                target.sendall(block)
        for connection in (source, target):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._joined.discard(source)
        source.close()
