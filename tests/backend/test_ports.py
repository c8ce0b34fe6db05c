"""A port in use is one clear line, before anything starts."""

from __future__ import annotations

import socket

import pytest

from backend.errors import PortInUse
from backend.ports import free_port, require_free_port


def test_a_free_port_stays_free() -> None:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    require_free_port("127.0.0.1", port)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))  # asking did not take it
        assert server.getsockname()[1] == port


def test_a_held_port_is_named_with_what_to_do() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port}.*another program.*CELLLOOP_PORT"):
            require_free_port("127.0.0.1", port)


def test_an_address_of_another_machine_says_so() -> None:
    with pytest.raises(PortInUse, match=r"192\.0\.2\.1"):
        require_free_port("192.0.2.1", 9090)


def test_another_port_is_found_where_the_wanted_one_is_held() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        held = holder.getsockname()[1]
        other = free_port("127.0.0.1", held)
        assert other != held
        require_free_port("127.0.0.1", other)
    assert free_port("127.0.0.1", held) == held
