"""Faults of disks, files, memory, clocks, and of people who delete what is in use."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from al_loop.faults.fault import Fault
from al_loop.faults.installation import backed_up
from al_loop.faults.scene import Scene
from backend.store import sha256_of, weights_file
from db import versions
from db.models import Way

HOUR_S = 3600.0
ROOM_BYTES = 12 * 1024**2  # less than a weight file, more than anything else that is written here


@contextmanager
def disk_full(scene: Scene) -> Iterator[None]:
    """No file of the worker's may grow beyond what weights need."""
    _limit_files(scene, ROOM_BYTES)
    run = scene.run()
    yield
    scene.wait(lambda: scene.run() is None)
    scene.note(scene.outcome(run))
    _limit_files(scene, resource.RLIM_INFINITY)


def _limit_files(scene: Scene, size: int) -> None:
    for worker in scene.installation.workers:
        with suppress(ProcessLookupError):  # what else was broken in this round may have ended it
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def damage(path: Path, rng: random.Random) -> str:
    """Truncate a file, or flip some of its bits; how."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        path.write_bytes(data[: rng.randrange(len(data))])
        return "truncated"
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return "bits flipped"


@contextmanager
def weights_damaged(scene: Scene) -> Iterator[None]:
    """The file of the version that serves is damaged, and all must read it again; mended by the doctor's advice."""
    installation = scene.installation
    with installation.loop.database.session(read_only=True) as session:
        version = versions.active(session, "infected")
    assert version is not None
    path = installation.loop.store.path(weights_file(version.weights_sha256))
    with backed_up(path) as copy:
        how = damage(path, scene.rng)
        for child in (installation.server, *installation.workers):
            child.kill()
            child.start()
        yield
        scene.wait(lambda: scene.run() is None)
        with installation.loop.database.session(read_only=True) as session:
            serves = versions.active(session, "infected")
        advice = installation.doctor().get("model infected", "")
        mended = sha256_of(path) == version.weights_sha256  # a training that was continued stored the same bytes again
        if serves is not None and serves.id == version.id and not mended and "restore the file" not in advice:
            scene.violate("wrong", f"the doctor does not see that version {version.id} is damaged: {advice!r}")
        if "rollback" in advice and scene.rng.random() < 0.5:
            how += ", rolled back: " + installation.command("rollback", "--role", "infected").splitlines()[-1][:60]
        copy.replace(path)
    scene.note(how)


@contextmanager
def image_damaged(scene: Scene) -> Iterator[None]:
    """A stored image is damaged while a training needs it; mended by importing the same images again."""
    installation = scene.installation
    path = scene.rng.choice(installation.files("images"))
    how, run = damage(path, scene.rng), scene.run()
    yield
    scene.wait(lambda: scene.run() is None)
    installation.command("import", str(installation.source))
    scene.note(f"{how}, {scene.outcome(run)}")


@contextmanager
def out_of_memory(scene: Scene) -> Iterator[None]:
    """The device has no room for some crops, or for any."""
    run = scene.run()
    for worker in scene.installation.workers:
        worker.arm(out_of_memory=scene.rng.choice([1, 1000]))
    yield
    scene.wait(lambda: scene.run() is None)
    scene.note(scene.outcome(run))
    for worker in scene.installation.workers:
        worker.disarm("out_of_memory")


@contextmanager
def clock_back(scene: Scene) -> Iterator[None]:
    """All clocks jump back an hour, Label Studio's as well; put right at once, or when the next round begins."""
    installation = scene.installation
    for child in (installation.server, *installation.workers):
        child.arm(clock_s=-HOUR_S)
    installation.studio.jump(-HOUR_S)
    if scene.rng.random() < 0.5:
        yield
        return
    with scene.soon(installation.clocks_right):  # maybe between two readings, with an answer in between
        yield
    scene.note("and right again")


@contextmanager
def annotation_deleted(scene: Scene) -> Iterator[None]:
    """The expert deletes an answer while a training learns from it."""
    fields = next(project for project in scene.installation.projects if project.way == Way.field)
    live = scene.expert.diary.live(fields.ls_project_id)
    if live:
        scene.expert.delete(scene.rng.choice(live))
    scene.note("deleted" if live else "there was none")
    yield


@contextmanager
def task_deleted(scene: Scene) -> Iterator[None]:
    """Somebody deletes a task in Label Studio, with everything on it."""
    client, project = scene.installation.studio.client, scene.rng.choice(scene.installation.projects)
    tasks = sorted(client.task_ids(project.ls_project_id))
    if tasks:
        chosen = scene.rng.choice(tasks)
        client.delete_tasks(project.ls_project_id, [chosen])
        scene.expert.diary.task_is_gone(chosen)
    scene.note(f"of a {project.way.value}" if tasks else "there was none")
    yield


DAMAGES: tuple[Fault, ...] = (
    Fault("disk full", disk_full, trains=True, on="worker"),
    Fault("weights damaged", weights_damaged, trains=True, on="worker"),
    Fault("image damaged", image_damaged, trains=True, on="images"),
    Fault("CUDA out of memory (injected)", out_of_memory, trains=True, on="worker"),
    Fault("clock back an hour", clock_back, trains=True, on="clock"),
    Fault("answer deleted while trained on", annotation_deleted, trains=True, on="answers"),
    Fault("task deleted", task_deleted, on="tasks"),
)
