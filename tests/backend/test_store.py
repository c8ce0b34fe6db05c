import hashlib
import os
import time
from pathlib import Path

import pytest

from backend.errors import DiskFull, StoredFileCorrupt
from backend.store import UNFINISHED_S, FileStore, whole_or_absent


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def test_a_file_is_stored_once_under_its_hash(store: FileStore, tmp_path: Path) -> None:
    source = tmp_path / "Field 7.PNG"
    source.write_bytes(b"pixels")
    sha256 = hashlib.sha256(b"pixels").hexdigest()
    first, again = store.put_file("images", source), store.put_bytes("images", b"pixels", ".png")
    assert first == again == (sha256, f"images/{sha256[:2]}/{sha256}.png")
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == [f"{sha256}.png"]
    assert store.read(first.file, sha256) == b"pixels"
    assert store.verify(first.file, sha256) == store.path(first.file)


def test_changed_and_missing_files_are_noticed_and_storing_again_heals(store: FileStore) -> None:
    stored = store.put_bytes("weights", b"tensors", ".safetensors")
    store.path(stored.file).write_bytes(b"tampered")
    for read in (store.verify, store.read):
        with pytest.raises(StoredFileCorrupt, match="expected sha256"):
            read(stored.file, stored.sha256)
    store.put_bytes("weights", b"tensors", ".safetensors")
    assert store.read(stored.file, stored.sha256) == b"tensors"
    store.path(stored.file).unlink()
    with pytest.raises(StoredFileCorrupt, match="missing"):
        store.read(stored.file, stored.sha256)


@pytest.mark.parametrize("file", ["../secret", "images/../../secret", "/etc/passwd"])
def test_no_path_leaves_the_store(store: FileStore, file: str) -> None:
    with pytest.raises(ValueError, match="inside the store"):
        store.path(file)


@pytest.mark.parametrize(("kind", "suffix"), [("../x", ".png"), ("images", "png"), ("images", ".p/g"), ("", "")])
def test_odd_kinds_and_suffixes_are_refused(store: FileStore, kind: str, suffix: str) -> None:
    with pytest.raises(ValueError, match="expected a kind"):
        store.put_bytes(kind, b"x", suffix)


def test_a_failed_write_leaves_nothing_behind(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DiskFull, match="expected room"):
        store.put_bytes("images", b"pixels", ".png")
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_a_removed_file_is_gone_and_may_be_removed_again(store: FileStore) -> None:
    kept, gone = (store.put_bytes("images", data, ".png") for data in (b"kept", b"gone"))
    for _ in range(2):
        store.remove(gone.file)
    assert not store.path(gone.file).exists()
    assert store.read(kept.file, kept.sha256) == b"kept"
    with pytest.raises(ValueError, match="inside the store"):
        store.remove("../else")


def test_what_killed_writers_left_is_removed_and_what_is_written_now_stays(store: FileStore) -> None:
    stored = store.put_bytes("images", b"pixels", ".png")
    target = store.path(stored.file)
    with whole_or_absent(target.with_name("other.png")) as file:
        file.write(b"pix")
        [unfinished] = target.parent.glob(".other.png.*")
        left = target.parent / unfinished.name.replace("other", "left")
        left.write_bytes(b"pix")
        long_ago = time.time() - UNFINISHED_S - 60
        for old in (left, target):
            os.utime(old, (long_ago, long_ago))
        assert store.clear_unfinished() == 1
        assert sorted(target.parent.iterdir()) == sorted([target, unfinished])
    assert sorted(target.parent.iterdir()) == sorted([target, target.with_name("other.png")])
