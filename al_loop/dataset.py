"""What a detector is trained on and judged by: labelled images and their current labels.

A manifest is the exact list of images, boxes, labels and experts' masks, with a hash over it; it is stored with the
model version it produced. Masks that no expert drew are derived from the boxes when samples are made, so a better
derivation never makes a manifest untrue.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.images import read_image
from backend.instances import CLASS_INDEX, DIFFICULT, Instances, Rle
from backend.masks import mask_from_box
from db.images import by_ids
from db.labels import LiveLabel, current_labels
from db.models import Image

BORDER_SHARE = 0.25  # of a median cell: cells that the border cuts often went unlabelled, so they are no negatives
MIN_SIDE_PX = 1.0
READERS = 2  # decoding runs outside Python's lock

Box = tuple[float, float, float, float]  # xyxy px


class Files(Protocol):
    """Where image files are: the file store, or a folder (`al_loop.labelled_files.FilesInPlace`)."""

    def verify(self, file: str, sha256: str) -> Path: ...

    def read(self, file: str, sha256: str) -> bytes: ...


@dataclass(frozen=True)
class LabelledCell:
    """One current label. label: a class or "difficult"; box: xyxy px; mask: COCO counts, where an expert drew one."""

    label: str
    box: Box
    mask: str | None = None


@dataclass(frozen=True)
class Partial:
    """What else is known of an image whose cells were reviewed one by one, beside the cells a role learns.

    background: boxes that experts looked at and that are no cell of the role. unreviewed: boxes that a model calls
    cells and nobody looked at: neither cell nor background.
    """

    background: tuple[Box, ...] = ()
    unreviewed: tuple[Box, ...] = ()


@dataclass(frozen=True)
class LabelledImage:
    """One image and its current labels: of all its cells, or of those reviewed one by one where it is `partial`.

    file: path in the file store. width, height: px.
    """

    sha256: str
    file: str
    width: int
    height: int
    cells: tuple[LabelledCell, ...]
    partial: Partial | None = None

    def truth(self) -> Instances:
        """The cells as the truth of an evaluation: no difficult ones; masks only when every cell has one."""
        known = [cell for cell in self.cells if cell.label != DIFFICULT]
        masks = [self.rle(cell.mask) for cell in known if cell.mask is not None]
        return Instances.of(
            (self.height, self.width),
            np.array([cell.box for cell in known], dtype=np.float32).reshape(-1, 4),
            np.array([CLASS_INDEX[cell.label] for cell in known], dtype=np.int64),
            masks=masks if len(masks) == len(known) else (),
        )

    def ignore_boxes(self) -> NDArray[np.float32]:
        """Boxes (M, 4) float32 xyxy px that count neither for nor against a detection: difficult, unreviewed."""
        boxes = [cell.box for cell in self.cells if cell.label == DIFFICULT]
        if self.partial is not None:
            boxes += self.partial.unreviewed
        return np.array(boxes, dtype=np.float32).reshape(-1, 4)

    def rle(self, counts: str) -> Rle:
        """A COCO RLE of this image."""
        return {"size": [self.height, self.width], "counts": counts.encode("ascii")}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LabelledImage:
        """The inverse of `dataclasses.asdict`."""
        cells = tuple(LabelledCell(c["label"], tuple(c["box"]), c["mask"]) for c in value["cells"])
        parts = value.get("partial")  # absent in rows that are older than it
        partial = parts and Partial(
            *(tuple(tuple(box) for box in parts[name]) for name in ("background", "unreviewed"))
        )
        return cls(value["sha256"], value["file"], value["width"], value["height"], cells, partial)


def content_hash(images: Sequence[LabelledImage]) -> str:
    """sha256 (hex) over images and labels, whatever their order; partial ones differ from complete ones."""
    rows = sorted(_content(image) for image in images)
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def _content(image: LabelledImage) -> list[Any]:
    def rounded(box: Box) -> list[float]:
        return [round(value, 2) for value in box]

    said: list[Any] = [image.sha256, sorted([cell.label, rounded(cell.box), cell.mask or ""] for cell in image.cells)]
    if image.partial is not None:
        said += [sorted(map(rounded, boxes)) for boxes in (image.partial.background, image.partial.unreviewed)]
    return said


@dataclass(frozen=True)
class DatasetManifest:
    """What one training sees: labels recorded up to `newest_revision_id`, and only those its role learns or ignores."""

    role: str
    newest_revision_id: int
    images: tuple[LabelledImage, ...]
    sha256: str

    def class_counts(self) -> dict[str, int]:
        """Cells per label, "difficult" included."""
        return dict(Counter(cell.label for image in self.images for cell in image.cells).most_common())

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the model version's row."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DatasetManifest:
        """The inverse of `to_json`, but for images that were forgotten since: `sha256` still speaks of them, too."""
        images = tuple(LabelledImage.from_json(image) for image in value["images"] if "forgotten" not in image)
        return cls(value["role"], value["newest_revision_id"], images, value["sha256"])


@dataclass(frozen=True)
class TrainingSample:
    """One image as a detector's training sees it.

    sha256, path: of the image file. boxes: (N, 4) float32 xyxy px. labels: N class names of the role.
    masks: N COCO RLEs of the whole image (None: this cell has a box only). mask_sources: N of
    expert | otsu | ellipse | none. ignore_boxes: (M, 4) float32 xyxy px, neither cell nor background.
    reviewed: (R, 4) float32 xyxy px, where experts looked, if not everywhere. known: that share of the image's cells.
    """

    sha256: str
    path: Path
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]
    masks: tuple[Rle | None, ...]
    mask_sources: tuple[str, ...]
    ignore_boxes: NDArray[np.float32]
    reviewed: NDArray[np.float32] | None = None
    known: float = 1.0


def truth(session: Session, image_ids: Collection[int]) -> list[LabelledImage]:
    """These completely labelled images with their current labels, in the order of their ids."""
    images = by_ids(session, image_ids)
    said: dict[int, list[LiveLabel]] = defaultdict(list)
    for label in current_labels(session, image_ids):
        said[label.image_id].append(label)
    return [labelled(images[image_id], said[image_id]) for image_id in sorted(images)]


def labelled(image: Image, labels: Sequence[LiveLabel], partial: Partial | None = None) -> LabelledImage:
    """An image with its labels' boxes cut to it; rejected cells (label None) and slivers are left out."""
    cells = tuple(
        LabelledCell(label.label, box, label.mask.decode("ascii") if label.mask else None)
        for label in labels
        if label.label is not None and label.box is not None
        for box in clipped(image, [label.box])
    )
    return LabelledImage(image.sha256, image.file, image.width, image.height, cells, partial)


def clipped(image: Image, boxes: Sequence[Box]) -> tuple[Box, ...]:
    """The boxes cut to the image, without slivers."""
    width, height = float(image.width), float(image.height)
    cut = [(max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)) for x1, y1, x2, y2 in boxes]
    return tuple(box for box in cut if box[2] - box[0] >= MIN_SIDE_PX and box[3] - box[1] >= MIN_SIDE_PX)


def samples(
    manifest: DatasetManifest, store: Files, on_progress: Callable[[int, int], None] | None = None
) -> list[TrainingSample]:
    """Training samples of a manifest: an expert's mask where there is one, else one derived from the box.

    on_progress(done, total) after each image. Raises StoredFileCorrupt when an image is not what was imported.
    """
    sides = [
        side for image in manifest.images for c in image.cells for side in (c.box[2] - c.box[0], c.box[3] - c.box[1])
    ]
    border = BORDER_SHARE * float(np.median(sides)) if sides else 0.0
    found = []
    with ThreadPoolExecutor(READERS) as readers:
        for sample in readers.map(lambda image: _sample(image, store, border), manifest.images):
            found.append(sample)
            if on_progress is not None:
                on_progress(len(found), len(manifest.images))
    return found


def _sample(image: LabelledImage, store: Files, border: float) -> TrainingSample:
    path = store.verify(image.file, image.sha256)
    cells = [cell for cell in image.cells if cell.label != DIFFICULT]
    masks: list[Rle] = []
    sources: list[str] = []
    pixels: NDArray[np.uint8] | None = None
    for cell in cells:
        if cell.mask is not None:
            masks.append(image.rle(cell.mask))
            sources.append("expert")
            continue
        if pixels is None:
            pixels = read_image(path)
        mask, source = mask_from_box(pixels, np.array(cell.box, dtype=np.float32))
        masks.append(mask)
        sources.append(source)
    strips = border_strips(image.width, image.height, border)
    reviewed = None
    if image.partial is not None:
        boxes = [cell.box for cell in cells] + [*image.partial.background]
        reviewed = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return TrainingSample(
        sha256=image.sha256,
        path=path,
        boxes=np.array([cell.box for cell in cells], dtype=np.float32).reshape(-1, 4),
        labels=tuple(cell.label for cell in cells),
        masks=tuple(masks),
        mask_sources=tuple(sources),
        ignore_boxes=np.concatenate([image.ignore_boxes(), strips]),
        reviewed=reviewed,
        known=1.0 if reviewed is None else len(reviewed) / (len(reviewed) + len(image.ignore_boxes())),
    )


def border_strips(width: int, height: int, thickness: float) -> NDArray[np.float32]:
    """Four boxes (4, 4) float32 xyxy px along the image's edges; (0, 4) when they would have no thickness."""
    if thickness < 1:
        return np.zeros((0, 4), dtype=np.float32)
    t = min(thickness, width / 2, height / 2)
    strips = [(0, 0, width, t), (0, height - t, width, height), (0, 0, t, height), (width - t, 0, width, height)]
    return np.array(strips, dtype=np.float32)
