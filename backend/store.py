"""Files addressed by the sha256 of their bytes: written once, never changed, checked when read."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from backend.errors import DiskFull, StoredFileCorrupt

_BLOCK = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KIND = re.compile(r"[a-z][a-z0-9_-]*")
_SUFFIX = re.compile(r"(\.[a-z0-9]{1,16})?")
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}")  # as `whole_or_absent` names what it writes
UNFINISHED_S = 6 * 3600.0  # nobody writes one file for as long


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


@contextmanager
def whole_or_absent(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when the block ends: readers see the old file or the whole new one.

    Afterwards the bytes are on the disk, name included. After an error nothing has changed. Raises DiskFull.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if _for_want_of_room(error):
            raise DiskFull(
                f"{path}: expected room on the disk for it, there is none; make some, then repeat"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _for_want_of_room(error: BaseException | None) -> bool:
    """Whether the disk is full; some writers (torch.save) cover this error with one of their own."""
    while error is not None and not (isinstance(error, OSError) and error.errno in _NO_ROOM):
        error = error.__context__
    return error is not None


def replace_atomically(path: Path, blocks: Iterable[bytes]) -> str:
    """Write `blocks` to `path`, whole or not at all. Gives the sha256."""
    digest = hashlib.sha256()
    with whole_or_absent(path) as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _checked(blocks: Iterable[bytes], sha256: str, trouble: str) -> Iterator[bytes]:
    """The blocks as they come; StoredFileCorrupt after the last one when they were not the promised bytes."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        yield block
    if digest.hexdigest() != sha256:
        raise StoredFileCorrupt(trouble)


def file_of(kind: str, sha256: str, suffix: str) -> str:
    """Where the store keeps a file of this kind and content: a path inside the store."""
    return f"{kind}/{sha256[:2]}/{sha256}{suffix}"


def weights_file(sha256: str) -> str:
    """Where the store keeps the weight file with this sha256."""
    return file_of("weights", sha256, ".safetensors")


class Far(Protocol):
    """Where several machines keep their files together (`backend/far_store.py`)."""

    name: str

    def get(self, file: str) -> bytes | None: ...

    def put(self, file: str, data: bytes) -> None: ...

    def remove(self, file: str) -> None: ...

    def names(self, kind: str) -> set[str]: ...

    def check(self) -> None: ...


class FileStore:
    """`<root>/<kind>/<ab>/<sha256><suffix>`. Storing the same bytes again changes nothing, or mends what was damaged.

    far: the store that several machines share. The folder is then a mirror of it: what is stored goes to both, and
    what is missing or damaged here is fetched. Whatever needs it raises FileStoreUnavailable when it does not answer.
    """

    def __init__(self, root: Path, far: Far | None = None) -> None:
        self.root = Path(root).resolve()
        self.far = far

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
        return self.put_as(file_of(kind, sha256, suffix), sha256, blocks)

    def put_as(self, file: str, sha256: str, blocks: Iterable[bytes]) -> Stored:
        """Store `blocks` as the file that a row names. Raises StoredFileCorrupt when they are not the promised bytes.

        When it returns, the far store has the file, too: only then may a row speak of it.
        """
        target = self.path(file)
        if not (target.is_file() and sha256_of(target) == sha256):
            trouble = f"{file}: expected sha256 {sha256[:12]}..., but the source changed while it was copied; try again"
            replace_atomically(target, _checked(blocks, sha256, trouble))
        if self.far is not None:
            held = self.far.get(file)
            if held is None or hashlib.sha256(held).hexdigest() != sha256:
                self.far.put(file, target.read_bytes())
        return Stored(sha256, file)

    def path(self, file: str) -> Path:
        """Absolute path of a stored file on this machine (it need not exist): see `bring`.

        Raises ValueError for a path that leaves the store.
        """
        path = (self.root / file).resolve()
        if not path.is_relative_to(self.root):
            raise ValueError(f"expected a file inside the store, got {file!r}")
        return path

    def remove(self, file: str) -> None:
        """Remove a file for good, here and far away; one that is gone is fine. Only for what no row speaks of."""
        self.path(file).unlink(missing_ok=True)
        if self.far is not None:
            self.far.remove(file)

    def bring(self, file: str, sha256: str) -> Path:
        """The path, after the file was fetched from the far store if it was not here. What is here is not checked."""
        path = self.path(file)
        return path if self.far is None or path.is_file() else self._fetch(self.far, file, sha256)

    def verify(self, file: str, sha256: str) -> Path:
        """The path of a stored file, after its bytes were checked; what is damaged here is fetched from the far store.

        Raises StoredFileCorrupt when the bytes are nowhere.
        """
        path = self.path(file)
        found = sha256_of(path) if path.is_file() else None
        if found == sha256:
            return path
        if self.far is not None:
            return self._fetch(self.far, file, sha256)
        if found is None:
            raise StoredFileCorrupt(f"{file}: expected in the store, but it is missing; restore it from a backup")
        raise StoredFileCorrupt(
            f"{file}: expected sha256 {sha256[:12]}..., got {found[:12]}...; restore it or import it again"
        )

    def _fetch(self, far: Far, file: str, sha256: str) -> Path:
        path, data = self.path(file), far.get(file)
        if data is None:
            raise StoredFileCorrupt(
                f"{file}: expected here or in {far.name}, but it is missing; restore it from a backup"
            )
        trouble = f"{file}: expected sha256 {sha256[:12]}..., got other bytes from {far.name}; restore it"
        replace_atomically(path, _checked((data,), sha256, trouble))
        return path

    def read(self, file: str, sha256: str) -> bytes:
        """The bytes of a stored file, checked as they were read. Raises StoredFileCorrupt as `verify` does."""
        path = self.path(file)
        data = path.read_bytes() if path.is_file() else None
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            data = self.verify(file, sha256).read_bytes()  # says what is wrong, or fetches
            if hashlib.sha256(data).hexdigest() != sha256:
                raise StoredFileCorrupt(f"{file}: changed while it was read; try again")
        return data

    def clear_unfinished(self) -> int:
        """Remove what writers that were killed have left, once it is UNFINISHED_S old; how many files."""
        cleared = 0
        for path in self.root.rglob(".*"):
            with suppress(FileNotFoundError):  # its writer has just ended
                if _UNFINISHED.fullmatch(path.name) and time.time() - path.stat().st_mtime > UNFINISHED_S:
                    path.unlink()
                    cleared += 1
        return cleared

    def missing(self, files: Iterable[str]) -> list[str]:
        """Which of these files the store lacks, by their names alone: the far store where there is one, else here."""
        if self.far is None:
            return [file for file in files if not self.path(file).is_file()]
        wanted = list(files)
        held = {name for kind in {file.split("/")[0] for file in wanted} for name in self.far.names(kind)}
        return [file for file in wanted if file not in held]
