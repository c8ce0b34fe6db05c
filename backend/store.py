"""Files addressed by the sha256 of their bytes: written once, never changed, checked when read."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from backend.errors import StoredFileCorrupt

_BLOCK = 1 << 20
_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_SUFFIX = re.compile(r"(\.[a-z0-9]{1,16})?")


class Stored(NamedTuple):
    """sha256: 64 hex digits. file: path relative to the store's root, with forward slashes; rows keep this."""

    sha256: str
    file: str


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def sha256_of(path: Path) -> str:
    """sha256 (64 hex digits) of a file's bytes, read block by block."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_atomically(path: Path, blocks: Iterable[bytes]) -> str:
    """Write `blocks` to `path` so that readers see the old file or the whole new one. Gives the sha256.

    After it returns the bytes are on the disk, name included.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    digest = hashlib.sha256()
    try:
        with temporary.open("xb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest.hexdigest()


def file_of(kind: str, sha256: str, suffix: str) -> str:
    """Where the store keeps a file of this kind and content: a path inside the store."""
    return f"{kind}/{sha256[:2]}/{sha256}{suffix}"


def weights_file(sha256: str) -> str:
    """Where the store keeps the weight file with this sha256."""
    return file_of("weights", sha256, ".safetensors")


class FileStore:
    """`<root>/<kind>/<ab>/<sha256><suffix>`. Storing the same bytes again changes nothing."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()

    def put_file(self, kind: str, path: Path) -> Stored:
        """Store a copy of the file at `path` under its own suffix (lower case)."""
        sha256 = sha256_of(path)
        with path.open("rb") as source:
            return self._put(kind, sha256, path.suffix.lower(), _blocks(source))

    def put_bytes(self, kind: str, data: bytes, suffix: str) -> Stored:
        """Store `data`; suffix like ".png", or empty."""
        return self._put(kind, hashlib.sha256(data).hexdigest(), suffix, (data,))

    def _put(self, kind: str, sha256: str, suffix: str, blocks: Iterable[bytes]) -> Stored:
        if not _KIND.fullmatch(kind) or not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"expected a kind like 'images' and a suffix like '.png', got {kind!r} and {suffix!r}")
        stored = Stored(sha256, file_of(kind, sha256, suffix))
        target = self.root / stored.file
        if target.is_file() and sha256_of(target) == sha256:
            return stored
        written = replace_atomically(target, blocks)
        if written != sha256:
            target.unlink()
            raise StoredFileCorrupt(f"{stored.file}: the source changed while it was copied; try again")
        return stored

    def path(self, file: str) -> Path:
        """Absolute path of a stored file (it need not exist). Raises ValueError for a path that leaves the store."""
        path = (self.root / file).resolve()
        if not path.is_relative_to(self.root):
            raise ValueError(f"expected a file inside the store, got {file!r}")
        return path

    def verify(self, file: str, sha256: str) -> Path:
        """The path of a stored file, after its bytes were checked. Raises StoredFileCorrupt when they differ."""
        path = self.path(file)
        if not path.is_file():
            raise StoredFileCorrupt(f"{file}: expected in the store, but it is missing; restore it from a backup")
        found = sha256_of(path)
        if found != sha256:
            raise StoredFileCorrupt(
                f"{file}: expected sha256 {sha256[:12]}..., got {found[:12]}...; restore it or import it again"
            )
        return path

    def read(self, file: str, sha256: str) -> bytes:
        """The bytes of a stored file, checked as they were read. Raises StoredFileCorrupt as `verify` does."""
        path = self.path(file)
        data = path.read_bytes() if path.is_file() else None
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            self.verify(file, sha256)  # says what is wrong
            raise StoredFileCorrupt(f"{file}: changed while it was read; try again")
        return data
