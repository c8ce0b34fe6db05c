"""One decoding for many looks, whatever comes at the same moment, within a bound of memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.decoded_images import DecodedImages
from backend.errors import StoredFileCorrupt
from backend.store import FileStore, Stored
from tests.backend.smears import HEIGHT, WIDTH, png, smear

ONE = HEIGHT * WIDTH * 3


class Counting(FileStore):
    """A store that notes what is read, and can be told to wait with it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def read(self, file: str, sha256: str) -> bytes:
        self.reads.append(sha256)
        assert self.go_on.wait(30)
        return super().read(file, sha256)


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


def put(store: FileStore, seed: int) -> Stored:
    return store.put_bytes("images", png(seed), ".png")


def test_who_comes_meanwhile_waits_for_the_same_decoding(store: Counting) -> None:
    image = put(store, 1)
    decoded = DecodedImages(store)
    store.go_on.clear()
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(decoded.get, image.file, image.sha256) for _ in range(4)]
        store.go_on.set()
        found = [each.result(30) for each in asked]
    assert store.reads == [image.sha256]
    assert all(pixels is found[0] for pixels in found)
    assert (found[0] == smear(1)).all()
    with pytest.raises(ValueError, match="read-only"):
        found[0][0, 0] = 0


def test_the_oldest_look_goes_first(store: Counting) -> None:
    one, two, three = (put(store, seed) for seed in (1, 2, 3))
    decoded = DecodedImages(store, max_bytes=2 * ONE)
    for image in (one, two, one, three, one):
        decoded.get(image.file, image.sha256)
    assert store.reads == [one.sha256, two.sha256, three.sha256]
    decoded.get(two.file, two.sha256)
    assert store.reads[3:] == [two.sha256]


def test_a_failure_is_told_and_tried_again(store: Counting) -> None:
    image = put(store, 1)
    data = store.path(image.file).read_bytes()
    store.path(image.file).write_bytes(b"not what it was")
    decoded = DecodedImages(store)
    with pytest.raises(StoredFileCorrupt):
        decoded.get(image.file, image.sha256)
    store.path(image.file).write_bytes(data)
    assert decoded.get(image.file, image.sha256).shape == (HEIGHT, WIDTH, 3)
