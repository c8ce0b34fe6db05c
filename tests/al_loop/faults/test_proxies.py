"""Proxies pass everything on, and spoil what they are told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from al_loop.faults.http_proxy import Exchange, HttpProxy
from al_loop.faults.tcp_proxy import TcpProxy
from al_loop.faults.troubles import fails_afterwards, loses_the_answer, revoked
from tests.trouble import answering

asked: list[str] = []


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    asked.clear()
    with answering(lambda method, path: (asked.append(path), (201, {"path": path}))[1]) as url:
        proxy = HttpProxy(int(url.rpartition(":")[2]))
        yield proxy
        proxy.down()


def get(proxy: HttpProxy, path: str) -> httpx.Response:
    return httpx.get(f"{proxy.url}{path}", timeout=5, trust_env=False)


def test_http_is_passed_on_and_spoilt_only_inside_the_block(proxy: HttpProxy) -> None:
    assert (get(proxy, "/before").status_code, get(proxy, "/before").json()) == (201, {"path": "/before"})
    with proxy.spoilt_by(fails_afterwards):
        assert get(proxy, "/executed").status_code == 500
    with proxy.spoilt_by(revoked):
        assert get(proxy, "/never").status_code == 401
    with proxy.spoilt_by(loses_the_answer), pytest.raises(httpx.TransportError):
        get(proxy, "/lost")
    assert proxy.struck == 1
    proxy.down()
    with pytest.raises(httpx.ConnectError):
        get(proxy, "/refused")
    proxy.up()
    assert get(proxy, "/after").is_success
    assert asked == ["/before", "/before", "/executed", "/lost", "/after"]


def test_a_request_may_hang_until_all_is_well(proxy: HttpProxy) -> None:
    met = threading.Event()

    def hang(exchange: Exchange) -> None:
        met.set()
        exchange.proxy.healed.wait(30)
        exchange.answer(exchange.forward())

    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(get(proxy, "/late").status_code))
    with proxy.spoilt_by(hang):
        asking.start()
        assert met.wait(5)
        assert answers == []
    asking.join(5)
    assert answers == [201]


def test_tcp_is_joined_cut_and_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        proxy = TcpProxy(upstream.getsockname()[:2])
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as near:
            far, _ = upstream.accept()
            near.sendall(b"there")
            assert far.recv(10) == b"there"
            far.sendall(b"and back")
            assert near.recv(10) == b"and back"
            assert proxy.cut() == 1
            with suppress(ConnectionResetError):
                assert near.recv(10) == b""
            far.close()
        proxy.down()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
        proxy.up()
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5).close()
        proxy.down()
