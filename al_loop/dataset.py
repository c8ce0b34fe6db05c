"""What a detector is trained on and judged by: labelled images and their current labels, read from SQL.

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

from backend.errors import NotEnoughData
from backend.images import read_image
from backend.instances import CLASS_INDEX, DIFFICULT, Instances, Rle, role_classes
from backend.masks import mask_from_box
from db.images import by_ids
from db.labels import LiveLabel, current_labels, labelled_images, newest_revision_id
from db.models import Image, Split

BORDER_SHARE = 0.25  # of a median cell: cells that the border cuts often went unlabelled, so they are no negatives
MIN_SIDE_PX = 1.0
READERS = 2  # decoding runs outside Python's lock


class Files(Protocol):
    """Where image files are: the file store, or a folder (`al_loop.labelled_files.FilesInPlace`)."""

    def path(self, file: str) -> Path: ...

    def read(self, file: str, sha256: str) -> bytes: ...


@dataclass(frozen=True)
class LabelledCell:
    """One current label. label: a class or "difficult"; box: xyxy px; mask: COCO counts, where an expert drew one."""

    label: str
    box: tuple[float, float, float, float]
    mask: str | None = None


@dataclass(frozen=True)
class LabelledImage:
    """One image and all its current labels. file: path in the file store. width, height: px."""

    sha256: str
    file: str
    width: int
    height: int
    cells: tuple[LabelledCell, ...]

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
        """Boxes (M, 4) float32 xyxy px that count neither for nor against a detection: the difficult cells."""
        boxes = [cell.box for cell in self.cells if cell.label == DIFFICULT]
        return np.array(boxes, dtype=np.float32).reshape(-1, 4)

    def rle(self, counts: str) -> Rle:
        """A COCO RLE of this image."""
        return {"size": [self.height, self.width], "counts": counts.encode("ascii")}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LabelledImage:
        """The inverse of `dataclasses.asdict`."""
        cells = tuple(LabelledCell(c["label"], tuple(c["box"]), c["mask"]) for c in value["cells"])
        return cls(value["sha256"], value["file"], value["width"], value["height"], cells)


def content_hash(images: Sequence[LabelledImage]) -> str:
    """sha256 (hex) over images and labels, whatever their order."""
    rows = sorted(
        [image.sha256, sorted([cell.label, [round(v, 2) for v in cell.box], cell.mask or ""] for cell in image.cells)]
        for image in images
    )
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


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
        """The inverse of `to_json`."""
        images = tuple(LabelledImage.from_json(image) for image in value["images"])
        return cls(value["role"], value["newest_revision_id"], images, value["sha256"])


@dataclass(frozen=True)
class TrainingSample:
    """One image as a detector's training sees it.

    sha256, path: of the image file. boxes: (N, 4) float32 xyxy px. labels: N class names of the role.
    masks: N COCO RLEs of the whole image (None: this cell has a box only). mask_sources: N of
    expert | otsu | ellipse | none. ignore_boxes: (M, 4) float32 xyxy px, neither cell nor background.
    """

    sha256: str
    path: Path
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]
    masks: tuple[Rle | None, ...]
    mask_sources: tuple[str, ...]
    ignore_boxes: NDArray[np.float32]


def snapshot(session: Session, role: str, newest_revision: int | None = None) -> DatasetManifest:
    """The labelled train images and their labels as of `newest_revision` (default: now), for this role.

    Raises NotEnoughData when no image is labelled, or none of their cells belongs to the role.
    """
    until = newest_revision_id(session) if newest_revision is None else newest_revision
    images = labelled_images(session, Split.train)
    labels = _by_image(current_labels(session, [image.id for image in images], newest_revision_id=until))
    # An image without any label was labelled later, unless it has none to this day: then it is simply empty.
    bare = [image.id for image in images if image.id not in labels]
    later = {label.image_id for label in current_labels(session, bare)} if bare else set()
    wanted = {*role_classes(role), DIFFICULT}
    found = [
        _labelled(image, [label for label in labels[image.id] if label.label in wanted])
        for image in images
        if image.id not in later
    ]
    manifest = DatasetManifest(role, until, tuple(found), content_hash(found))
    if not any(label != DIFFICULT for label in manifest.class_counts()):
        raise NotEnoughData(
            f"{role}: expected labelled train images with {', '.join(role_classes(role))}, got {len(found)} images "
            f"with {manifest.class_counts() or 'none'}; import labels or review some images first"
        )
    return manifest


def truth(session: Session, image_ids: Collection[int]) -> list[LabelledImage]:
    """These images with their current labels, in the order of their ids."""
    images = by_ids(session, image_ids)
    labels = _by_image(current_labels(session, image_ids))
    return [_labelled(images[image_id], labels[image_id]) for image_id in sorted(images)]


def _by_image(labels: Sequence[LiveLabel]) -> dict[int, list[LiveLabel]]:
    found: dict[int, list[LiveLabel]] = defaultdict(list)
    for label in labels:
        found[label.image_id].append(label)
    return found


def _labelled(image: Image, labels: Sequence[LiveLabel]) -> LabelledImage:
    """An image with its labels' boxes cut to it; rejected cells (label None) and slivers are left out."""
    cells = []
    for label in labels:
        if label.label is None or label.box is None:
            continue
        x1, y1, x2, y2 = label.box
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(image.width)), min(y2, float(image.height)))
        if box[2] - box[0] >= MIN_SIDE_PX and box[3] - box[1] >= MIN_SIDE_PX:
            cells.append(LabelledCell(label.label, box, label.mask.decode("ascii") if label.mask else None))
    return LabelledImage(image.sha256, image.file, image.width, image.height, tuple(cells))


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
            pixels = read_image(store.read(image.file, image.sha256))
        mask, source = mask_from_box(pixels, np.array(cell.box, dtype=np.float32))
        masks.append(mask)
        sources.append(source)
    strips = border_strips(image.width, image.height, border)
    return TrainingSample(
        sha256=image.sha256,
        path=store.path(image.file),
        boxes=np.array([cell.box for cell in cells], dtype=np.float32).reshape(-1, 4),
        labels=tuple(cell.label for cell in cells),
        masks=tuple(masks),
        mask_sources=tuple(sources),
        ignore_boxes=np.concatenate([image.ignore_boxes(), strips]),
    )


def border_strips(width: int, height: int, thickness: float) -> NDArray[np.float32]:
    """Four boxes (4, 4) float32 xyxy px along the image's edges; (0, 4) when they would have no thickness."""
    if thickness < 1:
        return np.zeros((0, 4), dtype=np.float32)
    t = min(thickness, width / 2, height / 2)
    strips = [(0, 0, width, t), (0, height - t, width, height), (0, 0, t, height), (width - t, 0, width, height)]
    return np.array(strips, dtype=np.float32)
