"""Where several machines keep their files together, by any URL that fsspec understands: an S3 bucket, a shared folder.

Nobody ever sees half a file there. S3 is reached through pyarrow, with the credentials of the usual AWS environment
variables or files; other kinds of storage need the package that fsspec names.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backend.errors import FileStoreUnavailable
from backend.store import FileStore, file_of, replace_atomically

PROBE = b"cellloop doctor was here\n"


def open_store(root: Path, url: str = "") -> FileStore:
    """The file store of this machine: the folder `root`, which mirrors the far store at `url` where there is one.

    Connects to nothing: the far store is asked when a file is needed.
    """
    return FileStore(root, FarStore(url) if url else None)


class FarStore:
    """Files under `<url>/<kind>/<ab>/<sha256><suffix>`. Connects when first asked; threads may share it.

    Everything raises FileStoreUnavailable when the storage does not answer, or refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self.scheme = parts.scheme
        self.name = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # for people: no credentials, no options

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The fsspec file system and our folder in it."""
        if self.scheme == "s3":
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow.fs import S3FileSystem

            s3, root = S3FileSystem.from_uri(self.url)
            return ArrowFSWrapper(s3), root.rstrip("/")
        from fsspec.core import url_to_fs

        files, root = url_to_fs(self.url, use_listings_cache=False)  # others write there, too
        return files, root.rstrip("/")

    @contextmanager
    def _asked_to(self, do: str) -> Iterator[tuple[Any, str]]:
        try:
            files, root = self._opened
            if self.scheme == "file" and not Path(root).is_dir():
                # Made by us, it would hide that a network drive is not mounted.
                raise NotADirectoryError("this folder is not there: make it, or mount it")
            yield files, root
        except Exception as error:  # every kind of storage has errors of its own
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise FileStoreUnavailable(
                f"{self.name}: expected to {do}, got: {said}; "
                "check CELLLOOP_FILES_URL and its credentials, then run: cellloop doctor"
            ) from error

    def get(self, file: str) -> bytes | None:
        """The bytes of a file, unchecked; None where there is no such file."""
        with self._asked_to(f"read {file}") as (files, root):
            try:
                return bytes(files.cat_file(f"{root}/{file}"))
            except FileNotFoundError:
                return None

    def put(self, file: str, data: bytes) -> None:
        """Write a file, or write it anew. Whoever reads at the same time gets all of the old bytes, or of the new."""
        with self._asked_to(f"write {file}") as (files, root):
            place = f"{root}/{file}"
            if self.scheme == "s3":
                # The upload shows when it is closed, be it by an error in the middle. So all bytes are at hand before.
                files.pipe_file(place, data)
            elif self.scheme == "file":
                replace_atomically(Path(place), (data,))
            else:
                folder, _, name = place.rpartition("/")
                temporary = f"{folder}/.{name}.{secrets.token_hex(6)}"
                files.makedirs(folder, exist_ok=True)
                try:
                    files.pipe_file(temporary, data)
                    files.mv(temporary, place)
                except BaseException:
                    with suppress(Exception):
                        files.rm_file(temporary)
                    raise

    def names(self, kind: str) -> set[str]:
        """Every file of a kind, as rows name them: "images/ab/<sha256>.png"."""
        with self._asked_to(f"list {kind}") as (files, root):
            return {name[len(root) + 1 :] for name in files.find(f"{root}/{kind}")}

    def check(self) -> None:
        """Write a small file, read it back, and remove it again."""
        file = file_of("doctor", hashlib.sha256(PROBE).hexdigest(), ".txt")
        self.put(file, PROBE)
        with self._asked_to(f"read back {file}") as (files, root):
            if (found := files.cat_file(f"{root}/{file}")) != PROBE:
                raise ValueError(f"other bytes ({len(found)} of {len(PROBE)})")
        self.remove(file)

    def remove(self, file: str) -> None:
        """Remove a file; nothing where there is none."""
        with self._asked_to(f"remove {file}") as (files, root), suppress(FileNotFoundError):
            files.rm_file(f"{root}/{file}")
