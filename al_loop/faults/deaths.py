"""Faults that end processes: kill -9 from outside at any moment, and from inside at an exact one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from al_loop import cycle, follow
from al_loop.faults.children import Child, any_port
from al_loop.faults.fault import Fault
from al_loop.faults.http_proxy import Exchange
from al_loop.faults.scene import Scene

LATER_S = 1.0  # a kill from outside comes at most so long after the expert has acted
STEPS = [
    name
    for module in (cycle, follow)
    for name, step in vars(module).items()
    if name != "fail" and "." not in getattr(step, "dbos_function_name", ".")  # workflows bear a version: turn.v1
]


def _later(scene: Scene) -> None:
    time.sleep(scene.rng.uniform(0, LATER_S))


@contextmanager
def server_killed(scene: Scene) -> Iterator[None]:
    """kill -9 of the server while the expert works."""
    with scene.soon(scene.installation.server.kill):
        yield


@contextmanager
def label_studio_killed(scene: Scene) -> Iterator[None]:
    """kill -9 of Label Studio while the expert works; it comes back after a moment."""
    with scene.soon(scene.installation.studio.kill):
        yield
    _later(scene)


@contextmanager
def worker_killed(scene: Scene) -> Iterator[None]:
    """kill -9 of a worker, wherever it is."""
    worker = scene.rng.choice(scene.installation.workers)
    yield
    _later(scene)
    run = scene.run()
    worker.kill()
    scene.note(f"killed during {run.stage}" if run and run.stage else "killed while idle")


@contextmanager
def server_killed_before_a_commit(scene: Scene) -> Iterator[None]:
    """The server dies just before it commits: a webhook's, most likely."""
    server = scene.installation.server
    server.arm(die_at=scene.rng.randint(1, 3))
    yield
    _died(scene, server, lambda: False, 2.0)


@contextmanager
def worker_killed_before_an_effect(scene: Scene) -> Iterator[None]:
    """A worker dies just before a commit or a file's appearance: so also between the two."""
    worker = scene.rng.choice(scene.installation.workers)
    worker.arm(die_at=scene.rng.randint(1, 120))
    yield
    _died(scene, worker, lambda: scene.run() is None)


def worker_killed_inside(step: str) -> Callable[[Scene], AbstractContextManager[None]]:
    """A worker dies inside this step of a workflow: before one of its first effects, or before its checkpoint."""

    @contextmanager
    def strike(scene: Scene) -> Iterator[None]:
        at = scene.rng.randint(1, 8)
        for worker in scene.installation.workers:
            worker.arm(die_at=at, step=step)
        yield
        dead = scene.wait(lambda: scene.run() is None or not all(worker.alive for worker in scene.installation.workers))
        scene.note(f"died at effect {at}" if dead and scene.run() is not None else "ended before")
        for worker in scene.installation.workers:
            worker.disarm("die_at", "step")

    return strike


def _died(scene: Scene, child: Child, over: Callable[[], bool], timeout_s: float = 15.0) -> None:
    scene.wait(lambda: not child.alive or over(), timeout_s)
    scene.note("survived: nothing to commit" if child.alive else "died")
    child.disarm("die_at", "step")


@contextmanager
def two_servers(scene: Scene) -> Iterator[None]:
    """A second server on the same record, both told of everything; then one of the two is gone."""
    installation = scene.installation
    second = installation.child("second-server", ["serve"], CELLLOOP_PORT=str(port := any_port()))
    installation.others.append(second)
    second.start()
    scene.wait(lambda: installation.serves(port), 30.0)
    first_port = installation.to_backend.upstream_port

    def to_both(exchange: Exchange) -> None:
        answers = []
        for upstream in (first_port, port):
            exchange.proxy.upstream_port = upstream
            answers.append(exchange.forward())
        exchange.answer(next((answer for answer in answers if answer is not None), None))

    with installation.to_backend.spoilt_by(to_both):
        yield
        scene.rng.choice([second, installation.server]).kill()
    installation.to_backend.upstream_port = first_port
    second.kill()
    installation.others.remove(second)


DEATHS: tuple[Fault, ...] = (
    Fault("server killed", server_killed, on="server"),
    Fault("worker killed", worker_killed, trains=True, on="worker"),
    Fault("Label Studio killed", label_studio_killed, on="label studio"),
    Fault("server killed before a commit", server_killed_before_a_commit, on="server"),
    Fault("worker killed before a commit or a file", worker_killed_before_an_effect, trains=True, on="worker"),
    Fault("two servers on one record", two_servers, on="server"),
    *(Fault(f"worker killed inside {step}", worker_killed_inside(step), trains=True, on="worker") for step in STEPS),
)
