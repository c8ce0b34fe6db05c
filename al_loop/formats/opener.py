"""The files of a source, a folder or a zip archive, seen alike and never unpacked to disk.

Annotation files name images; those names are only ever looked up among the files that are really there, so no
name, in an archive or in an annotation, can reach outside the source. Archives are read member by member, each
within a bound, so that a small file cannot unpack to a huge one.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from backend.errors import ImageRefused, UnusableAnnotations

ANNOTATIONS = (".json", ".csv", ".parquet")  # how the names of annotation files end, in lower case
MAX_IMAGE_BYTES = 256 * 2**20
MAX_ANNOTATION_BYTES = 512 * 2**20
MAX_MEMBERS = 500_000
MAX_RATIO = 200  # images hardly compress and annotations do by 10 to 40; bombs by 1000
_HARMLESS_BYTES = 16 * 2**20  # a small member may compress as well as it likes


class Opener(Protocol):
    """Where a source's files are."""

    def names(self) -> list[str]:
        """All file names, relative to the source, with forward slashes, sorted."""
        ...

    def open(self, name: str, limit: int = MAX_IMAGE_BYTES) -> BinaryIO:
        """Open one file for reading bytes. ImageRefused when it holds more than `limit` or cannot be unpacked."""
        ...


class FolderOpener:
    """Files below a folder; hidden ones are left out."""

    def __init__(self, root: Path, only: str | None = None) -> None:
        self.root = root
        self.only = only  # the one annotation file to use, when the user named it

    def names(self) -> list[str]:
        found = []
        for folder, subfolders, files in os.walk(self.root):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            base = Path(folder).relative_to(self.root)
            found += [(base / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(name for name in found if not (self.only and is_annotation(name) and name != self.only))

    def open(self, name: str, limit: int = MAX_IMAGE_BYTES) -> BinaryIO:
        path = self.root / name
        if path.stat().st_size > limit:
            raise ImageRefused(f"{name}: expected at most {limit >> 20} MiB, got {path.stat().st_size >> 20} MiB")
        return path.open("rb")


class ZipOpener:
    """Members of a zip archive, each read into memory when opened."""

    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UnusableAnnotations(f"{path}: expected a zip archive, got a file that is none ({error})") from error
        if len(self.archive.namelist()) > MAX_MEMBERS:
            raise UnusableAnnotations(f"{path}: expected at most {MAX_MEMBERS} members; unpack and split it")

    def names(self) -> list[str]:
        return sorted(i.filename for i in self.archive.infolist() if not i.is_dir() and _is_plain(i.filename))

    def open(self, name: str, limit: int = MAX_IMAGE_BYTES) -> BinaryIO:
        member = self.archive.getinfo(name)
        ratio = member.file_size / max(member.compress_size, 1)
        if member.file_size > limit or (ratio > MAX_RATIO and member.file_size > _HARMLESS_BYTES):
            raise ImageRefused(
                f"{name}: expected a member of at most {limit >> 20} MiB packed at most {MAX_RATIO}:1, "
                f"got {member.file_size >> 20} MiB at {ratio:.0f}:1"
            )
        try:
            return io.BytesIO(self.archive.read(member))  # reads no more than the size it declares, and checks it
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ImageRefused(f"{name}: expected a member that unpacks, got: {error}") from error


def is_annotation(name: str) -> bool:
    """Whether a file of this name may hold annotations."""
    return name.lower().endswith(ANNOTATIONS)


def _is_plain(name: str) -> bool:
    """Whether a member's name stays inside the archive and is no side file of an operating system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return not (path.is_absolute() or ".." in path.parts or path.parts[0] == "__MACOSX" or path.name.startswith("."))


def open_source(source: Path) -> Opener:
    """The files of a folder, a zip archive, or of the folder around one annotation file (.json, .csv, .parquet)."""
    if source.is_dir():
        return FolderOpener(source)
    if source.is_file() and is_annotation(source.name):
        return FolderOpener(source.parent, only=source.name)
    if source.is_file():
        return ZipOpener(source)
    kinds = f"a {', '.join(ANNOTATIONS[:-1])} or {ANNOTATIONS[-1]} file"
    raise UnusableAnnotations(f"{source}: expected a folder, a zip archive, or {kinds}, found nothing there")


class ImageIndex:
    """Finds the file an annotation means: beside the annotation file, under images/, or by its unique name."""

    def __init__(self, opener: Opener) -> None:
        names = [name for name in opener.names() if not is_annotation(name)]
        self._names = set(names)
        self._by_base: dict[str, list[str]] = {}
        for name in names:
            self._by_base.setdefault(PurePosixPath(name).name, []).append(name)

    def find(self, annotation: str, wanted: str) -> str | None:
        """The file in the source that the annotation file `annotation` calls `wanted`, or None."""
        wanted = wanted.replace("\\", "/").lstrip("/")
        folder = PurePosixPath(annotation).parent
        for candidate in (folder / wanted, folder / "images" / wanted, PurePosixPath(wanted)):
            if candidate.as_posix() in self._names:
                return candidate.as_posix()
        same = self._by_base.get(PurePosixPath(wanted).name, [])
        return same[0] if len(same) == 1 else None
