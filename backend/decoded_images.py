"""Pixels of the images that were looked at last: the crops of one field then cost one decoding, not one each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

from backend.store import FileStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BYTES = 96 * 1024 * 1024  # some 16 fields of 1600 x 1200 px


class DecodedImages:
    """In memory alone, the oldest go first. Thread-safe: who comes while an image is being decoded waits for that."""

    def __init__(self, store: FileStore, max_bytes: int = MAX_BYTES) -> None:
        self.store = store
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[NDArray[np.uint8]]] = OrderedDict()

    def get(self, file: str, sha256: str) -> NDArray[np.uint8]:
        """Upright RGB pixels (h, w, 3) uint8 of a stored image; not to be written to.

        Raises StoredFileCorrupt, FileStoreUnavailable, ImageRefused.
        """
        with self._lock:
            known = self._kept.get(sha256)
            found = known or self._kept.setdefault(sha256, Future())
            self._kept.move_to_end(sha256)
        if known is None:
            self._decode(found, file, sha256)
        return found.result()

    def _decode(self, found: Future[NDArray[np.uint8]], file: str, sha256: str) -> None:
        from backend.images import read_image  # OpenCV and Pillow, only when somebody looks

        try:
            pixels = read_image(self.store.read(file, sha256))
            pixels.flags.writeable = False
            found.set_result(pixels)
        except Exception as error:  # theirs who wait, too; the next one tries again
            found.set_exception(error)
            with self._lock:
                self._kept.pop(sha256, None)
            return
        with self._lock:
            self._clean()

    def _clean(self) -> None:
        sizes = {key: each.result().nbytes for key, each in self._kept.items() if each.done() and not each.exception()}
        total = sum(sizes.values())
        for key in list(sizes)[:-1]:
            if total <= self.max_bytes:
                break
            total -= sizes[key]
            del self._kept[key]
