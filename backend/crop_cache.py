"""Crops on disk, so that a page that comes back costs nothing; the oldest go when there are too many bytes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from backend.store import replace_atomically

MAX_BYTES = 256 * 1024 * 1024  # some 8,000 crops of 480 px
KEEP = 0.8  # of that is left after a cleaning


class CropCache:
    """`<folder>/<ab>/<key>.jpg` by a key of hex digits. Thread-safe; losing any file loses nothing."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes: int | None = None  # counted at the first write

    def get(self, key: str) -> bytes | None:
        """The bytes stored under this key, None when there are none."""
        try:
            return self._path(key).read_bytes()
        except OSError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Store these bytes. Readers see them whole or not at all."""
        replace_atomically(self._path(key), (data,))
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(size for _, size, _ in self._files())
            else:
                self._bytes += len(data)
            if self._bytes > self.max_bytes:
                self._clean()

    def clear(self) -> None:
        """Remove every crop: whose cell one shows, its key does not tell."""
        with self._lock:
            for _, _, path in self._files():
                path.unlink(missing_ok=True)
            self._bytes = 0

    def _path(self, key: str) -> Path:
        if not key or set(key) - set("0123456789abcdef"):
            raise ValueError(f"expected a key of hex digits, got {key!r:.80}")
        return self.folder / key[:2] / f"{key}.jpg"

    def _files(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self.folder.glob("*/*.jpg"):
            try:
                facts = os.stat(path)
            except FileNotFoundError:
                continue
            found.append((facts.st_mtime, facts.st_size, path))
        return sorted(found)

    def _clean(self) -> None:
        files = self._files()
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= self.max_bytes * KEEP:
                break
            path.unlink(missing_ok=True)
            left -= size
        self._bytes = left
