"""A neighbour who spoils conversations: HTTP between our processes and Label Studio, in either direction."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
UPSTREAM_S = 30.0

Answer = tuple[int, list[tuple[str, str]], bytes]
Mischief = Callable[["Exchange"], None]


class Exchange:
    """One request on its way, for a mischief to do with as it likes."""

    def __init__(self, proxy: HttpProxy, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.proxy, self.handler, self.body = proxy, handler, body
        self.command, self.path = handler.command, handler.path
        self.headers = dict(handler.headers.items())

    def forward(self) -> Answer | None:
        """Have it executed; the answer, None when nobody is there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream_port, timeout=UPSTREAM_S)
        try:
            connection.request(self.command, self.path, self.body or None, self.headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def answer(self, answer: Answer | None) -> None:
        """Hand the answer back, or break off when there is none."""
        if answer is None:
            self.break_off()
            return
        status, headers, body = answer
        handler = self.handler
        handler.send_response_only(status)  # with the other's date, and none of ours: our client goes by it
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def say(self, status: int, **content: Any) -> None:
        """Answer with this JSON in the other's place."""
        self.answer((status, [("content-type", "application/json")], json.dumps(content).encode()))

    def break_off(self) -> None:
        """Close the connection without a word."""
        self.handler.close_connection = True
        reset(self.handler.connection)


def reset(connection: socket.socket) -> None:
    """Close a connection so that the other side gets an error at once, whatever it is doing."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)


class HttpProxy:
    """Listens on a port of its own and passes everything on, except what a mischief takes away.

    struck: how many requests a mischief had in its hands since it began. healed: set while there is none.
    """

    def __init__(self, upstream_port: int, port: int = 0) -> None:
        self.upstream_port = upstream_port
        self.struck = 0
        self.healed = threading.Event()
        self.healed.set()
        self._mischief: Mischief | None = None
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = port
        self.up()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Listen, at the same port as before."""
        server = _Listener(("127.0.0.1", self.port), _handler_of(self))
        self.port, self._server = server.server_port, server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, as a server that restarts does."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    @contextmanager
    def spoilt_by(self, mischief: Mischief) -> Iterator[None]:
        """Let the mischief have every request inside the block."""
        self.struck, self._mischief = 0, mischief
        self.healed.clear()
        try:
            yield
        finally:
            self._mischief = None
            self.healed.set()

    def pass_on(self, exchange: Exchange) -> None:
        """What becomes of a request."""
        mischief = self._mischief
        if self._server is None:
            exchange.break_off()
        elif mischief is None:
            exchange.answer(exchange.forward())
        else:
            with self._lock:
                self.struck += 1
            mischief(exchange)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side has gone: that is what a proxy of this kind is for."""


def _handler_of(proxy: HttpProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def pass_on(self) -> None:
            proxy.pass_on(Exchange(proxy, self, self.rfile.read(int(self.headers.get("content-length") or 0))))

        do_GET = do_POST = do_PATCH = do_DELETE = pass_on

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler
