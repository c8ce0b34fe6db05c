"""Is a port free? Asked before a server starts, so that the answer is one clear line."""

from __future__ import annotations

import errno
import socket

from backend.errors import PortInUse


def require_free_port(host: str, port: int) -> None:
    """Return when `host:port` can be listened on. Raises PortInUse when somebody holds it, or nobody here may.

    A server started right afterwards may still lose a race; it then fails on its own.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            reason = "another program holds it" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise PortInUse(
                f"expected to listen on {host}:{port}, but {reason}; stop that program, or set CELLLOOP_PORT"
            ) from error


def free_port(host: str, wanted: int) -> int:
    """The wanted port of this host if it is free, else one that is."""
    try:
        require_free_port(host, wanted)
        return wanted
    except PortInUse:
        with socket.socket() as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
