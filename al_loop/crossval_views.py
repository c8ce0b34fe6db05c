"""What one detector saw in a set of images, with the truth beside it, in one compact file.

The file stands on its own: scores can be computed again in seconds, after images and weights are gone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from backend.errors import InvalidInstances, StoredFileCorrupt
from backend.instances import CLASSES, Instances


@dataclass(frozen=True)
class SeenImage:
    """One image: whose it is, what is there, what counts neither way, and what the detector saw.

    source: name of the data set. ignore: (K, 4) float32 boxes, xyxy px.
    """

    sha256: str
    source: str
    truth: Instances
    ignore: NDArray[np.float32]
    seen: Instances


def save_views(path: Path, views: Sequence[SeenImage], about: dict[str, Any]) -> None:
    """Write the views; whole or not at all. about: JSON values that say how they came to be."""
    arrays: dict[str, NDArray[Any]] = {
        "about": np.array(json.dumps({**about, "classes": CLASSES})),
        "sha256": np.array([view.sha256 for view in views], dtype="U64"),
        "source": np.array([view.source for view in views], dtype=str),
        "size": np.array([view.seen.image_size for view in views], dtype=np.int32).reshape(-1, 2),
        "cells": np.array([len(view.seen) for view in views], dtype=np.int32),
        "boxes": _stack([view.seen.boxes for view in views], (0, 4), np.float32),
        "labels": _stack([view.seen.labels for view in views], (0,), np.int8),
        "scores": _stack([view.seen.scores for view in views], (0,), np.float32),
        "probabilities": _stack([view.seen.probabilities for view in views], (0, len(CLASSES)), np.float32),
        "true_cells": np.array([len(view.truth) for view in views], dtype=np.int32),
        "true_boxes": _stack([view.truth.boxes for view in views], (0, 4), np.float32),
        "true_labels": _stack([view.truth.labels for view in views], (0,), np.int8),
        "ignored": np.array([len(view.ignore) for view in views], dtype=np.int32),
        "ignore_boxes": _stack([view.ignore for view in views], (0, 4), np.float32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def load_views(path: Path) -> tuple[list[SeenImage], dict[str, Any]]:
    """What `save_views` wrote. Raises StoredFileCorrupt when the file is something else."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays["about"]))
        return _views(arrays), about
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, InvalidInstances) as error:
        raise StoredFileCorrupt(
            f"{path}: expected detections written by `cellloop crossval train`, got: {error}; delete the file and "
            f"run it again"
        ) from error


def _views(arrays: dict[str, NDArray[Any]]) -> list[SeenImage]:
    seen, true, ignored = (_offsets(arrays[name]) for name in ("cells", "true_cells", "ignored"))
    views = []
    for index, (height, width) in enumerate(arrays["size"].tolist()):
        cells, known, void = (slice(*offsets[index : index + 2]) for offsets in (seen, true, ignored))
        views.append(
            SeenImage(
                sha256=str(arrays["sha256"][index]),
                source=str(arrays["source"][index]),
                truth=Instances.of((height, width), arrays["true_boxes"][known], arrays["true_labels"][known]),
                ignore=arrays["ignore_boxes"][void],
                seen=Instances(
                    image_size=(height, width),
                    boxes=arrays["boxes"][cells],
                    labels=arrays["labels"][cells].astype(np.int64),
                    scores=arrays["scores"][cells],
                    probabilities=arrays["probabilities"][cells],
                ),
            )
        )
    return views


def _offsets(counts: NDArray[Any]) -> list[int]:
    return [0, *np.cumsum(counts).tolist()]


def _stack(parts: Sequence[NDArray[Any]], empty: tuple[int, ...], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.zeros(empty, dtype=dtype), *(part.astype(dtype) for part in parts)])
