"""Who tries tokens waits longer each time; who has one gets in."""

from __future__ import annotations

from fastapi.testclient import TestClient

from backend.api import throttle
from backend.api.throttle import ADDRESSES, FORGOTTEN_S, FREE, FREE_OVERALL, LONGEST_OVERALL_S, LONGEST_S, Throttle
from tests.backend.server import Bench


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.moment = 1000.0

    def __call__(self) -> float:
        return self.moment


def test_waiting_doubles_for_one_address_and_is_forgiven() -> None:
    clock = Clock()
    some = Throttle(clock)
    for _ in range(FREE):
        assert some.wait_s("10.0.0.1") == 0
        some.wrong("10.0.0.1")
    waits = []
    for _ in range(12):
        waits.append(some.wait_s("10.0.0.1"))
        clock.moment += waits[-1]
        assert some.wait_s("10.0.0.1") == 0
        some.wrong("10.0.0.1")
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, LONGEST_S, LONGEST_S, LONGEST_S]
    assert some.wait_s("10.0.0.2") == 0, "nobody else waits"
    some.right("10.0.0.1")
    assert some.wait_s("10.0.0.1") == 0
    for _ in range(FREE):
        some.wrong("10.0.0.1")
    assert some.wait_s("10.0.0.1") == 1
    clock.moment += FORGOTTEN_S + 1
    some.wrong("10.0.0.1")
    assert some.wait_s("10.0.0.1") == 0, "an hour later it is forgotten"


def test_many_addresses_make_everybody_wait_but_never_long() -> None:
    some = Throttle(Clock())
    for number in range(FREE_OVERALL):
        assert some.wait_s("10.9.9.9") == 0
        some.wrong(f"10.0.{number}.1")
    assert some.wait_s("10.9.9.9") == 1
    for number in range(1000):
        some.wrong(f"10.1.{number % 250}.{number // 250}")
    assert some.wait_s("10.9.9.9") == LONGEST_OVERALL_S


def test_memory_is_bounded_and_a_network_is_one_address() -> None:
    some = Throttle(Clock())
    for number in range(ADDRESSES + 100):
        some.wrong(f"host-{number}")
    assert len(some._by_address) == ADDRESSES
    some = Throttle(Clock())
    for number in range(FREE):
        some.wrong(f"2001:db8::{number:x}:1")
    assert some.wait_s("2001:db8::ffff") == 1
    assert some.wait_s("2001:db8:0:1::1") == 0
    assert throttle._network("::ffff:10.0.0.1") == "10.0.0.1"


def test_the_sign_in_page_says_how_long(client: TestClient, bench: Bench) -> None:
    client.auth = None
    codes = [client.post("/dashboard/login", data={"token": "wrong"}).status_code for _ in range(FREE + 1)]
    assert codes == [401] * FREE + [429]
    told = client.post("/dashboard/login", data={"token": bench.token})
    assert (told.status_code, told.headers["retry-after"]) == (429, "1"), "a good one has to wait, too"
    assert "Try again in 1 s" in told.text
    assert client.get("/api/v1/status", **bench.bearer(bench.token)).status_code == 200, "programs go on"
    bench.server(client).throttle.right("testclient")
    assert client.post("/dashboard/login", data={"token": bench.token}).status_code == 200
