"""From a task's data to the image it means: one of ours by its hash, a file inside the allowed folders, or an
upload that Label Studio itself holds. Nothing else is ever opened or fetched.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from backend.errors import CellloopError, ImageOutsideRoots, ImageRefused
from backend.store import FileStore
from db import forget, images, projects
from db.answers import images_by_sha256, images_of_tasks
from db.models import Image, Split
from db.session import Database

log = logging.getLogger(__name__)

LONGEST_URL = 2000
STORED_NAME = re.compile(r"([0-9a-f]{64})\.[A-Za-z0-9]+")


class Uploads(Protocol):
    """Reads what Label Studio itself holds."""

    def fetch(self, path: str, *, max_bytes: int, timeout_s: float) -> bytes:
        """The bytes at this path of the configured Label Studio.

        Raises ImageRefused over `max_bytes`, LabelStudioUnavailable, LabelStudioRefused.
        """
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file inside an allowed folder. sha256: what its name promises when it lies in our store, else None."""

    path: Path
    sha256: str | None


@dataclass(frozen=True)
class Upload:
    """A path below `/data/upload/` of the configured Label Studio."""

    path: str


@dataclass(frozen=True)
class TaskImage:
    """What one task asks about: Label Studio's ids and the text its data holds for the image."""

    task_id: int | None
    url: object


class TaskImages:
    """Resolves tasks to images. Thread-safe: it keeps no state of its own."""

    def __init__(
        self,
        database: Database,
        store: FileStore,
        *,
        roots: Sequence[Path],
        label_studio_url: str,
        uploads: Uploads,
        max_bytes: int,
    ) -> None:
        self.database = database
        self.store = store
        self.roots = (store.root.resolve(), *roots)
        self.label_studio_url = label_studio_url
        self.uploads = uploads
        self.max_bytes = max_bytes

    def resolve(
        self, tasks: Sequence[TaskImage], project_id: int | None, deadline: float
    ) -> list[Image | CellloopError]:
        """For each task, in order, its image or the reason why it has none.

        Images we know cost two statements for all tasks. Others are read and stored one by one (as pool images of
        a data set called label-studio), as long as `time.monotonic()` is before `deadline`.
        """
        places: list[LocalFile | Upload | CellloopError] = [self._place(task) for task in tasks]
        hashes = [place.sha256 for place in places if isinstance(place, LocalFile) and place.sha256]
        task_ids = [task.task_id for task in tasks if task.task_id is not None]
        with self.database.session(read_only=True) as session:
            by_hash = images_by_sha256(session, hashes)
            by_task = (
                {} if project_id is None else images_of_tasks(session, self.label_studio_url, project_id, task_ids)
            )
        found: list[Image | CellloopError] = []
        admitted: dict[LocalFile | Upload, Image | CellloopError] = {}
        for task, place in zip(tasks, places, strict=True):
            if isinstance(place, CellloopError):
                found.append(place)
                continue
            known = by_hash.get(place.sha256 or "") if isinstance(place, LocalFile) else None
            known = known or by_task.get(task.task_id or -1)
            if known is None and place not in admitted:
                admitted[place] = self._admit(place, deadline)
            found.append(known or admitted[place])
        self._remember(tasks, found, project_id, by_task)
        return found

    def _remember(
        self,
        tasks: Sequence[TaskImage],
        found: Sequence[Image | CellloopError],
        project_id: int | None,
        by_task: Mapping[int, Image],
    ) -> None:
        """Note the tasks that people made in our project, so that they are synced, and not read again."""
        new = [
            (task.task_id, image.id)
            for task, image in zip(tasks, found, strict=True)
            if isinstance(image, Image) and task.task_id is not None and task.task_id not in by_task
        ]
        if project_id is None or not new:
            return
        with self.database.session() as session:
            project = projects.project(session, self.label_studio_url, project_id)
            if project is None:
                return
            taken = {task.image_id for task in projects.tasks(session, project.id)}
            for task_id, image_id in new:
                if image_id in taken:
                    log.warning("task %d repeats the image of another task: its answers stay in Label Studio", task_id)
                else:
                    taken.add(image_id)
                    projects.add_tasks(session, project.id, [(task_id, image_id)])

    def _place(self, task: TaskImage) -> LocalFile | Upload | CellloopError:
        try:
            return locate(task.url, self.roots, self.label_studio_url)
        except CellloopError as error:
            return error

    def _admit(self, place: LocalFile | Upload, deadline: float) -> Image | CellloopError:
        left = deadline - time.monotonic()
        if left <= 0:
            return ImageRefused(f"{_name(place)}: not read yet, the request's time is spent; ask again")
        try:
            data = self._read(place, left)
            return self._store(data, _name(place))
        except (CellloopError, OSError) as error:
            return error if isinstance(error, CellloopError) else ImageRefused(f"{_name(place)}: {error.strerror}")

    def _read(self, place: LocalFile | Upload, left_s: float) -> bytes:
        if isinstance(place, Upload):
            return self.uploads.fetch(place.path, max_bytes=self.max_bytes, timeout_s=left_s)
        if not place.path.is_file():
            raise ImageRefused(f"{place.path.name}: expected an image file in the allowed folders, found none")
        if place.path.stat().st_size > self.max_bytes:
            raise ImageRefused(f"{place.path.name}: expected at most {self.max_bytes} bytes")
        return place.path.read_bytes()

    def _store(self, data: bytes, name: str) -> Image:
        from backend.images import probe  # OpenCV and Pillow, only when an unknown image comes

        sha256 = hashlib.sha256(data).hexdigest()
        with self.database.session(read_only=True) as session:
            known = images.by_sha256(session, sha256)
            if sha256 in forget.forgotten(session, [sha256]):
                raise ImageRefused(f"{name}: its patient was forgotten, so it stays out; delete the task")
        if known is not None:
            return known
        width, height, kind = probe(data)
        stored = self.store.put_bytes("images", data, f".{kind.lower()}")
        with self.database.session() as session:
            image, _ = images.add_image(
                session,
                sha256=stored.sha256,
                file=stored.file,
                name=name,
                width=width,
                height=height,
                group=f"label-studio:{sha256}",  # nothing is known about its slide
                split=Split.train,
                dataset="label-studio",
            )
            return image


def locate(url: object, roots: Sequence[Path], label_studio_url: str) -> LocalFile | Upload:
    """Where the image of this task lies. roots: allowed folders, resolved; the first one is our file store, of
    which only `images/` is allowed.

    Understands `/data/local-files/?d=<path in a root>` and `/data/upload/...`, bare or behind the configured
    Label Studio's own address. Raises ImageOutsideRoots for everything else, `..` and symbolic links included.
    """
    if not isinstance(url, str) or not url:
        raise ImageOutsideRoots(f"expected the task's data to hold an image URL, got {str(url)[:80]!r}")
    if len(url) > LONGEST_URL or not url.isprintable():
        raise ImageOutsideRoots(f"expected a URL of at most {LONGEST_URL} printable characters, got {url[:80]!r}")
    try:
        parts, own = urlsplit(url), urlsplit(label_studio_url)
    except ValueError as error:
        raise ImageOutsideRoots(f"expected an image URL, got {url[:200]!r}: {error}") from error
    if (parts.scheme or parts.netloc) and (parts.scheme, parts.netloc) != (own.scheme, own.netloc):
        raise ImageOutsideRoots(f"expected an image in Label Studio at {label_studio_url}, got {url[:200]!r}")
    if parts.path.rstrip("/") == "/data/local-files":
        return _local(parse_qs(parts.query).get("d", [""])[0], roots)
    path = unquote(parts.path)
    if path.startswith("/data/upload/") and ".." not in path.split("/"):
        return Upload(parts.path)
    raise ImageOutsideRoots(f"expected /data/local-files/?d=... or /data/upload/..., got {url[:200]!r}")


def _local(relative: str, roots: Sequence[Path]) -> LocalFile:
    store = roots[0] / "images"
    inside = []
    for root in roots:
        try:
            path = (root / relative).resolve()
            path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # a null byte, a loop of links, too long a name
            raise ImageOutsideRoots(f"expected a path inside the allowed folders, got {relative[:200]!r}") from error
        if path != root and path.is_relative_to(store if root == roots[0] else root):
            inside.append(path)
    if not inside:
        raise ImageOutsideRoots(
            f"expected a path inside the allowed folders, got {relative[:200]!r}; "
            f"import the image, or name its folder in CELLLOOP_IMAGE_ROOTS"
        )
    name = STORED_NAME.fullmatch(inside[0].name)
    if name and inside[0].is_relative_to(store):
        return LocalFile(inside[0], name[1])
    return LocalFile(next((path for path in inside if path.is_file()), inside[0]), None)


def _name(place: LocalFile | Upload) -> str:
    return place.path.name if isinstance(place, LocalFile) else unquote(place.path).rsplit("/", 1)[-1]
