"""One contract for every place where files may lie: this machine alone, or a store that several machines share."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from moto.s3.models import S3Backend
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

from backend.doctor_machine import check_files
from backend.errors import FileStoreUnavailable, StoredFileCorrupt
from backend.far_store import FarStore, open_store
from backend.store import FileStore, Stored

PIXELS = bytes(range(256)) * 64
WRITER = """
import sys
from pathlib import Path
from backend.far_store import open_store
open_store(Path(sys.argv[1]), sys.argv[2]).put_bytes("weights", bytes(12 << 20), ".bin")
"""
SHARED = ["file", "memory", "s3"]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A server that speaks S3, with the credentials in the environment that anybody would set."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"{host}:{port}"
    server.stop()


@dataclass
class Place:
    """Where files lie: the URL of a shared store, empty for none, and a folder for the machines' mirrors."""

    url: str
    folder: Path

    def machine(self, name: str = "one") -> FileStore:
        """The store as this machine sees it."""
        return open_store(self.folder / name, self.url)

    @property
    def far(self) -> FarStore:
        return FarStore(self.url)


@pytest.fixture(params=["local", *SHARED])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(url_of(request, tmp_path), tmp_path / "machines")


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(url_of(request, tmp_path), tmp_path / "machines")


def url_of(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "file":
        (folder / "share").mkdir()
        return f"file://{folder / 'share'}"
    if request.param == "memory":
        return f"memory://{folder.name}-{next(_numbers)}/cells"
    if request.param == "s3":
        endpoint, bucket = request.getfixturevalue("s3_endpoint"), f"bucket-{next(_numbers)}"
        maker = S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True)
        maker.create_dir(bucket)
        return f"s3://{bucket}/cells?endpoint_override={endpoint}&scheme=http&region=us-east-1"
    return ""


def flipped(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


DAMAGES = pytest.mark.parametrize("damage", [flipped, truncated])


def local_files(store: FileStore) -> list[str]:
    """What anybody who lists the folder sees; names with a leading dot are somebody's unfinished work."""
    found = (path for path in store.root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [path.relative_to(store.root).as_posix() for path in found]


def test_what_one_machine_stored_another_one_reads(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "Field 7.PNG"
    source.write_bytes(PIXELS)
    one = place.machine()
    stored = one.put_file("images", source)
    assert one.put_bytes("images", PIXELS, ".png") == stored
    other = place.machine("other" if place.url else "one")
    assert other.missing([stored.file, "images/no/such.png"]) == ["images/no/such.png"]
    assert other.read(*reversed(stored)) == PIXELS
    assert local_files(other) == [stored.file]
    assert place.machine("third" if place.url else "one").bring(*reversed(stored)).read_bytes() == PIXELS
    assert other.verify(*reversed(stored)) == other.path(stored.file)
    if place.url:
        assert place.far.names("images") == {stored.file}
        assert place.far.names("weights") == set()


@DAMAGES
def test_a_damaged_copy_here_is_noticed_and_fetched_again(place: Place, damage: Callable[[bytes], bytes]) -> None:
    store = place.machine()
    stored = store.put_bytes("images", PIXELS, ".png")
    for read in (store.read, store.verify):
        store.path(stored.file).write_bytes(damage(PIXELS))
        if not place.url:
            with pytest.raises(StoredFileCorrupt, match="import it again"):
                read(stored.file, stored.sha256)
            store.put_bytes("images", PIXELS, ".png")
        read(stored.file, stored.sha256)
        assert store.path(stored.file).read_bytes() == PIXELS


@DAMAGES
def test_a_damaged_shared_copy_is_never_taken(shared: Place, damage: Callable[[bytes], bytes]) -> None:
    one, other = shared.machine(), shared.machine("other")
    stored = one.put_bytes("images", PIXELS, ".png")
    shared.far.put(stored.file, damage(PIXELS))
    for read in (other.read, other.verify, other.bring):
        with pytest.raises(StoredFileCorrupt, match="got other bytes from"):
            read(stored.file, stored.sha256)
    assert local_files(other) == []
    assert one.read(stored.file, stored.sha256) == PIXELS  # its own copy is good
    one.put_bytes("images", PIXELS, ".png")
    assert other.read(stored.file, stored.sha256) == PIXELS
    assert shared.far.get("images/no/such.png") is None
    with pytest.raises(StoredFileCorrupt, match="missing"):
        other.read("images/no/such.png", stored.sha256)


def test_a_put_that_breaks_off_leaves_nothing(place: Place) -> None:
    store = place.machine()
    sha256 = hashlib.sha256(PIXELS).hexdigest()

    def unplugged() -> Iterator[bytes]:
        yield PIXELS[:5000]
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        store.put_as("images/ab/x.png", sha256, unplugged())
    with pytest.raises(StoredFileCorrupt, match="the source changed"):
        store.put_as("images/ab/x.png", sha256, (PIXELS[:5000],))
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    assert not place.url or place.far.names("images") == set()


def test_two_writers_at_once_and_a_reader_see_whole_files_only(shared: Place) -> None:
    stored = Stored(hashlib.sha256(PIXELS).hexdigest(), "images/ab/x.png")
    seen: set[bytes | None] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(shared.far.get(stored.file))

    with ThreadPoolExecutor(3) as pool:
        reader = pool.submit(look)
        for number in range(5):
            machines = [shared.machine(f"{number}-{name}") for name in ("one", "other")]
            writing = [
                pool.submit(machine.put_as, stored.file, stored.sha256, (PIXELS[:9000], PIXELS[9000:]))
                for machine in machines
            ]
            assert [each.result() for each in writing] == [stored, stored]
            shared.far.put(stored.file, PIXELS)  # also over an old one
        done.set()
        reader.result()
    assert seen <= {None, PIXELS}
    assert shared.far.names("images") == {stored.file}


@pytest.mark.parametrize("shared", ["s3"], indirect=True)
def test_killed_in_the_middle_of_an_upload(shared: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has got one part of several when the process dies: nobody ever sees the file."""
    reached, go_on = threading.Event(), threading.Event()
    receive = S3Backend.upload_part

    def receive_and_wait(self: S3Backend, *arguments: object) -> object:
        answer = receive(self, *arguments)
        reached.set()
        go_on.wait(30)
        return answer

    monkeypatch.setattr(S3Backend, "upload_part", receive_and_wait)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(shared.folder / "one"), shared.url])
    assert reached.wait(30)
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait(30) == -signal.SIGKILL
    go_on.set()
    (file,) = local_files(shared.machine())  # first here, then there
    assert shared.far.names("weights") == set()
    assert shared.far.get(file) is None
    monkeypatch.undo()
    stored = shared.machine().put_bytes("weights", bytes(12 << 20), ".bin")
    assert shared.machine("other").verify(*reversed(stored)).stat().st_size == 12 << 20


def test_the_doctor_tries_to_write(place: Place) -> None:
    store = place.machine()
    finding = check_files(store)
    assert (finding.state, "read and written" in finding.found) == ("ok", bool(place.url))
    assert not place.url or place.far.names("doctor") == set()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://no-such-bucket/cells?scheme=http&region=us-east-1&endpoint_override=", "NO_SUCH_BUCKET"),
        ("file:///no/such/mount", "make it, or mount it"),
        ("nosuchthing://host/x", "nosuchthing"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_and_no_secret_is(
    tmp_path: Path, s3_endpoint: str, url: str, said: str
) -> None:
    store = open_store(tmp_path, url + s3_endpoint if url.endswith("=") else url)
    finding = check_files(store)
    assert (finding.state, said in finding.found) == ("broken", True)
    with pytest.raises(FileStoreUnavailable, match=r"expected to .*, got: .*check CELLLOOP_FILES_URL") as refused:
        store.put_bytes("images", PIXELS, ".png")
    assert "geheim" not in str(refused.value) + finding.found
    assert url.split("?")[0] in str(refused.value)
