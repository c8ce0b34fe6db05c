"""Faults between processes that are all alive: conversations with Label Studio, and the database."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy.engine import make_url

from al_loop.faults.fault import Fault
from al_loop.faults.http_proxy import Exchange
from al_loop.faults.scene import Scene

STRUCK_S = 4.0  # how long a mischief waits for somebody to meet it


# --- what our worker asks of Label Studio ------------------------------------------------------------------


def fails(exchange: Exchange) -> None:
    exchange.say(500, detail="Internal Server Error")


def fails_afterwards(exchange: Exchange) -> None:
    exchange.forward()
    exchange.say(500, detail="Internal Server Error")


def hangs(exchange: Exchange) -> None:
    exchange.proxy.healed.wait(60)
    exchange.break_off()


def loses_the_answer(exchange: Exchange) -> None:
    exchange.forward()
    exchange.break_off()


def revoked(exchange: Exchange) -> None:
    exchange.say(401, detail="Invalid token.")


def studio_spoilt(mischief: Callable[[Exchange], None], least_s: float = 0.0) -> Callable[..., AbstractContextManager]:
    """Label Studio behaves like this towards us: always, or every now and then. least_s: at least so long."""

    @contextmanager
    def strike(scene: Scene) -> Iterator[None]:
        proxy, share, rng = scene.installation.to_studio, scene.rng.choice([0.3, 1.0]), scene.rng

        def now_and_then(exchange: Exchange) -> None:
            if rng.random() < share:
                mischief(exchange)
            else:
                exchange.answer(exchange.forward())

        began = time.monotonic()
        with proxy.spoilt_by(now_and_then):
            yield
            scene.wait(lambda: proxy.struck >= 3, STRUCK_S)
            time.sleep(max(0.0, least_s - (time.monotonic() - began)))
        scene.note(f"{proxy.struck} requests met it")

    return strike


@contextmanager
def studio_restarts(scene: Scene) -> Iterator[None]:
    """Label Studio refuses connections for a while."""
    scene.installation.to_studio.down()
    with scene.soon(scene.installation.to_studio.up, 2.0):
        yield


# --- what Label Studio tells our server --------------------------------------------------------------------


def webhooks_spoilt(order: Callable[[list[Exchange]], list[Exchange]]) -> Callable[..., AbstractContextManager]:
    """Webhooks are held back, and reach our server later: those that `order` lets pass, in its order."""

    @contextmanager
    def strike(scene: Scene) -> Iterator[None]:
        held: list[Exchange] = []

        def hold(exchange: Exchange) -> None:
            if exchange.path == "/webhook":
                held.append(exchange)
                exchange.say(202, received=True)
            else:
                exchange.answer(exchange.forward())

        with scene.installation.to_backend.spoilt_by(hold):
            yield
        time.sleep(scene.rng.uniform(0, 0.5))
        for exchange in order(held):
            exchange.forward()
        scene.note(f"{len(held)} webhooks met it")

    return strike


# --- the database ------------------------------------------------------------------------------------------


@contextmanager
def sqlite_busy(scene: Scene) -> Iterator[None]:
    """Another process writes to both SQLite files for a while."""
    record = str(make_url(scene.installation.settings.database_url).database)
    files = [record, str(scene.installation.home / "jobs.sqlite")]
    others = [sqlite3.connect(file, isolation_level=None, timeout=30.0, check_same_thread=False) for file in files]
    for other in others:
        other.execute("BEGIN IMMEDIATE")

    def let_go() -> None:
        for other in others:
            other.close()

    with scene.soon(let_go, 3.0):
        yield


@contextmanager
def postgres_cut(scene: Scene) -> Iterator[None]:
    """Connections to PostgreSQL break, whatever they are in the middle of."""
    proxy = scene.installation.to_database
    assert proxy is not None
    cut = proxy.cut()
    yield
    for _ in range(scene.rng.randint(2, 8)):
        time.sleep(scene.rng.uniform(0.0, 0.3))
        cut += proxy.cut()
    scene.note(f"{cut} connections cut")


@contextmanager
def postgres_restarts(scene: Scene) -> Iterator[None]:
    """PostgreSQL goes down in the middle of everything and comes back: really, where the harness knows how."""
    restart, proxy = scene.installation.restart_database, scene.installation.to_database
    assert proxy is not None
    time.sleep(scene.rng.uniform(0.0, 0.5))
    if restart:
        _really(scene, restart)  # the harness waits: unlike the others, it has no patience with a database that is away
        yield
        return
    proxy.down()  # cuts everybody off, and takes nobody for a while
    with scene.soon(proxy.up, 4.0):
        yield


def _really(scene: Scene, command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    scene.note("really" if done.returncode == 0 else f"failed: {(done.stderr or done.stdout).strip()[-200:]}")
    if done.returncode:
        scene.violate("stuck", f"{' '.join(command)} ended with {done.returncode}")


TROUBLES: tuple[Fault, ...] = (
    Fault("Label Studio answers 500", studio_spoilt(fails), on="to studio"),
    Fault("Label Studio executes, then answers 500", studio_spoilt(fails_afterwards), on="to studio"),
    Fault("Label Studio does not answer in time", studio_spoilt(hangs, least_s=3.5), on="to studio"),
    Fault("Label Studio executes, its answer is lost", studio_spoilt(loses_the_answer), on="to studio"),
    Fault("Label Studio restarts", studio_restarts, on="to studio"),
    Fault("Label Studio's token revoked", studio_spoilt(revoked), on="to studio"),
    Fault("webhooks dropped", webhooks_spoilt(lambda held: []), on="server"),
    Fault("webhooks doubled", webhooks_spoilt(lambda held: [*held, *held]), on="server"),
    Fault("webhooks reordered", webhooks_spoilt(lambda held: held[::-1]), on="server"),
    Fault("webhooks late", webhooks_spoilt(lambda held: held), on="server"),
    Fault("SQLite busy", sqlite_busy, engine="sqlite", on="database"),
    Fault("PostgreSQL connections cut", postgres_cut, engine="postgresql", on="database"),
    Fault("PostgreSQL restarts", postgres_restarts, engine="postgresql", on="database"),
)
