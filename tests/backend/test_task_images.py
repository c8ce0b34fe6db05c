"""From a task's data to an image: ours, a file in the allowed folders, an upload; nothing else."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from backend.api.task_images import TaskImage, TaskImages, Upload, locate
from backend.errors import CellloopError, ImageOutsideRoots, ImageRefused, LabelStudioUnavailable
from backend.store import FileStore
from db import images, projects
from db.models import Forgetting, ForgottenImage, Image
from db.session import Database
from tests.backend.smears import png

LS = "http://ls.test:8080"
LATER = 60.0


class FakeUploads:
    """Holds uploads in memory and counts how often each is fetched."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.fetched: list[str] = []

    def fetch(self, path: str, *, max_bytes: int, timeout_s: float) -> bytes:
        self.fetched.append(path)
        if path not in self.files:
            raise LabelStudioUnavailable(f"{path}: nobody answers")
        if len(self.files[path]) > max_bytes:
            raise ImageRefused(f"{path}: expected at most {max_bytes} bytes")
        return self.files[path]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


@pytest.fixture
def uploads() -> FakeUploads:
    return FakeUploads({"/data/upload/1/a.png": png(1)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "smears").mkdir()
    return tmp_path / "smears"


@pytest.fixture
def task_images(sqlite_database: Database, store: FileStore, uploads: FakeUploads, root: Path) -> TaskImages:
    return TaskImages(sqlite_database, store, roots=[root], label_studio_url=LS, uploads=uploads, max_bytes=1_000_000)


def resolve(
    task_images: TaskImages, *urls: object, project: int | None = None, seconds: float = LATER
) -> list[Image | CellloopError]:
    tasks = [TaskImage(number, url) for number, url in enumerate(urls, 1)]
    return task_images.resolve(tasks, project, time.monotonic() + seconds)


def add(database: Database, store: FileStore, data: bytes) -> Image:
    stored = store.put_bytes("images", data, ".png")
    with database.session() as session:
        row = {"width": 64, "height": 48, "group": "g", "split": "train", "dataset": "rendered"}
        return images.add_image(session, sha256=stored.sha256, file=stored.file, name="x.png", **row)[0]


def test_our_own_images_by_their_hash(task_images: TaskImages, sqlite_database: Database, store: FileStore) -> None:
    one, two = (add(sqlite_database, store, png(seed)) for seed in (1, 2))
    found = resolve(
        task_images,
        f"/data/local-files/?d={two.file}",
        f"{LS}/data/local-files?d={one.file.replace('/', '%2F')}",
        f"/data/local-files/?d={two.file}",
    )
    assert [image.id for image in found if isinstance(image, Image)] == [two.id, one.id, two.id]


@pytest.mark.parametrize(
    "url",
    [
        "/data/local-files/?d=../credentials.json",
        "/data/local-files/?d=images/../../credentials.json",
        "/data/local-files/?d=/etc/passwd",
        "/data/local-files/?d=weights/secret.png",
        "/data/local-files/?d=images/link/x.png",
        "/data/local-files/?d=a%00b",
        "/data/local-files/?d=",
        "/data/local-files/",
        "/data/upload/../../api/users",
        "/data/upload/%2e%2e/%2e%2e/api/users",
        "/api/projects",
        "http://elsewhere.test/data/upload/1/a.png",
        "https://ls.test:8080/data/upload/1/a.png",
        "http://ls.test:8080@elsewhere.test/data/upload/1/a.png",
        "//elsewhere.test/data/upload/1/a.png",
        "http://[broken/data/upload/1/a.png",
        "file:///etc/passwd",
        "s3://bucket/a.png",
        "data:image/png;base64,AAAA",
        "",
        None,
        7,
        ["/data/upload/1/a.png"],
    ],
)
def test_nothing_outside_is_opened(tmp_path: Path, url: object) -> None:
    files = tmp_path / "files"
    (files / "images").mkdir(parents=True)
    (files / "images" / "link").symlink_to("/etc")
    with pytest.raises(ImageOutsideRoots):
        locate(url, [files], LS)


def test_uploads_are_located_not_opened() -> None:
    assert locate("/data/upload/1/a%20b.png?x=1", [Path("/files")], LS) == Upload("/data/upload/1/a%20b.png")
    assert locate(f"{LS}/data/upload/1/a.png", [Path("/files")], LS) == Upload("/data/upload/1/a.png")


def test_an_unknown_file_in_an_allowed_folder_joins_the_pool(
    task_images: TaskImages, sqlite_database: Database, store: FileStore, root: Path
) -> None:
    (root / "slide 1").mkdir()
    (root / "slide 1" / "field.png").write_bytes(png(5))
    url = "/data/local-files/?d=slide%201/field.png"
    (image,) = resolve(task_images, url)
    assert isinstance(image, Image)
    assert (image.width, image.height, image.name, image.dataset) == (64, 48, "field.png", "label-studio")
    assert store.read(image.file, image.sha256) == png(5)
    (again,) = resolve(task_images, url)
    assert isinstance(again, Image)
    assert again.id == image.id


def test_uploads_are_fetched_once_when_the_project_is_ours(
    task_images: TaskImages, sqlite_database: Database, uploads: FakeUploads
) -> None:
    with sqlite_database.session() as session:
        projects.upsert_project(session, url=LS, ls_project_id=7, title="t", label_config="<View/>")
    (first,) = resolve(task_images, "/data/upload/1/a.png", project=7)
    (second,) = resolve(task_images, "/data/upload/1/a.png", project=7)
    assert isinstance(first, Image)
    assert isinstance(second, Image)
    assert first.id == second.id
    assert uploads.fetched == ["/data/upload/1/a.png"]
    with sqlite_database.session(read_only=True) as session:
        project = projects.project(session, LS, 7)
        assert project is not None
        assert [(task.ls_task_id, task.image_id) for task in projects.tasks(session, project.id)] == [(1, first.id)]


def test_a_second_task_of_one_image_is_answered_and_not_noted(
    task_images: TaskImages, sqlite_database: Database, store: FileStore
) -> None:
    image = add(sqlite_database, store, png(1))
    with sqlite_database.session() as session:
        project = projects.upsert_project(session, url=LS, ls_project_id=7, title="t", label_config="<View/>")
        projects.add_tasks(session, project.id, [(900, image.id)])
    (found,) = resolve(task_images, f"/data/local-files/?d={image.file}", project=7)
    assert isinstance(found, Image)
    with sqlite_database.session(read_only=True) as session:
        assert [task.ls_task_id for task in projects.tasks(session, project.id)] == [900]


def test_one_bad_task_spoils_no_other(
    task_images: TaskImages, sqlite_database: Database, store: FileStore, root: Path
) -> None:
    good = add(sqlite_database, store, png(1))
    (root / "text.png").write_text("no image")
    (root / "cut.png").write_bytes(png(2)[:-40])
    (root / "big.png").write_bytes(png(3) + bytes(1_000_000))
    found = resolve(
        task_images,
        "/data/local-files/?d=../../x.png",
        f"/data/local-files/?d={good.file}",
        "/data/local-files/?d=text.png",
        "/data/local-files/?d=cut.png",
        "/data/local-files/?d=big.png",
        "/data/local-files/?d=missing.png",
        "/data/upload/1/missing.png",
    )
    kinds = [type(entry) for entry in found]
    assert kinds == [ImageOutsideRoots, Image, *[ImageRefused] * 4, LabelStudioUnavailable]
    with sqlite_database.session(read_only=True) as session:
        assert images.counts(session)["train"] == 1


def test_nothing_is_read_after_the_deadline(task_images: TaskImages, uploads: FakeUploads) -> None:
    (found,) = resolve(task_images, "/data/upload/1/a.png", seconds=-1)
    assert isinstance(found, ImageRefused)
    assert uploads.fetched == []


def test_an_image_of_a_forgotten_patient_stays_out(
    task_images: TaskImages, sqlite_database: Database, store: FileStore, uploads: FakeUploads
) -> None:
    with sqlite_database.session() as session:
        session.add(Forgetting(patient_sha256="0" * 64, reason="asked to", versions=[], removed={}))
        session.flush()
        sha256 = hashlib.sha256(uploads.files["/data/upload/1/a.png"]).hexdigest()
        session.add(ForgottenImage(image_id=7, forgetting_id=1, sha256=sha256, file="images/x.png"))
    (refused,) = resolve(task_images, "/data/upload/1/a.png")
    assert isinstance(refused, ImageRefused)
    assert "forgotten" in str(refused)
    assert not list(store.root.rglob("*.png"))
