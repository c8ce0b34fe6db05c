"""Training images, decoded once: in memory, or in one mapped file that a resumed run opens again.

1,200 fields at training size are 2 GB. Mapped, they are the system's to keep or to drop, and no run holds them all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_loop.crops import CachedImage, cache_image
from al_loop.dataset import READERS, TrainingSample
from al_loop.train_config import TrainingConfig, data_hash
from backend.detect import DetectorConfig
from backend.errors import NotEnoughData
from backend.instances import role_classes

OnImages = Callable[[int, int], None]  # done, total


def require_cells(config: TrainingConfig, samples: Sequence[TrainingSample]) -> None:
    """Raises NotEnoughData when there is no cell of the role in the samples."""
    classes = role_classes(config.detector.role)
    if not any(label in classes for sample in samples for label in sample.labels):
        raise NotEnoughData(
            f"training {config.detector.role}: expected at least one labelled cell of {', '.join(classes)}, "
            f"got none in {len(samples)} images: review or import some first"
        )


def load_images(
    config: TrainingConfig,
    samples: Sequence[TrainingSample],
    folder: Path | None = None,
    on_images: OnImages = lambda done, total: None,
) -> list[CachedImage]:
    """All samples at training size, in memory, or mapped from a file in `folder`, which is made if it is not there.

    on_images(done, total) while they are decoded. Raises NotEnoughData when there is no cell of the role in them.
    """
    require_cells(config, samples)
    if folder is None:
        return list(_decoded(samples, config.detector, on_images))
    pixels, index = image_files(config, samples, folder)
    if not index.is_file():
        _write(_decoded(samples, config.detector, on_images), pixels, index)
    return _read(pixels, index)


def image_files(config: TrainingConfig, samples: Sequence[TrainingSample], folder: Path) -> tuple[Path, Path]:
    """Where `load_images` keeps these samples: the mapped pixels and masks, and what lies where in them."""
    key = hashlib.sha256((json.dumps(config.detector.to_json(), sort_keys=True) + data_hash(samples)).encode())
    stem = f"images-{key.hexdigest()[:16]}"
    return folder / f"{stem}.u8", folder / f"{stem}.json"


def _decoded(samples: Sequence[TrainingSample], detector: DetectorConfig, on_images: OnImages) -> Iterator[CachedImage]:
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(lambda sample: cache_image(sample, detector), samples)
        for done, image in enumerate(found, start=1):
            on_images(done, len(samples))
            yield image


def _write(images: Iterator[CachedImage], pixels: Path, index: Path) -> None:
    """Pixels and chips one after another into one file; the index comes last, and says that all is there."""
    entries: list[dict[str, Any]] = []
    partial = pixels.with_suffix(".partial")
    with partial.open("wb") as file:
        for image in images:
            for array in (image.pixels, *image.chips):
                file.write(np.ascontiguousarray(array).tobytes())
            entries.append(
                {
                    "shape": image.pixels.shape,
                    "chips": [chip.shape for chip in image.chips],
                    "boxes": image.boxes.tolist(),
                    "labels": image.labels.tolist(),
                    "ignore": image.ignore.tolist(),
                    "reviewed": None if image.reviewed is None else image.reviewed.tolist(),
                    "known": image.known,
                }
            )
        file.flush()
        os.fsync(file.fileno())
    partial.replace(pixels)
    partial.write_text(json.dumps(entries), encoding="ascii")
    partial.replace(index)


def _read(pixels: Path, index: Path) -> list[CachedImage]:
    data: NDArray[np.uint8] = np.asarray(np.memmap(pixels, dtype=np.uint8, mode="r"))
    start = 0

    def take(shape: Sequence[int]) -> NDArray[np.uint8]:
        nonlocal start
        count = int(np.prod(shape))
        start += count
        return data[start - count : start].reshape(shape)

    return [
        CachedImage(
            pixels=take(entry["shape"]),
            chips=tuple(take(shape).view(np.bool_) for shape in entry["chips"]),
            boxes=_boxes(entry["boxes"]),
            labels=np.array(entry["labels"], dtype=np.int64),
            ignore=_boxes(entry["ignore"]),
            reviewed=None if entry.get("reviewed") is None else _boxes(entry["reviewed"]),
            known=entry.get("known", 1.0),  # an older release's file has neither
        )
        for entry in json.loads(index.read_text(encoding="ascii"))
    ]


def _boxes(values: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32).reshape(-1, 4)
