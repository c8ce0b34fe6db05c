"""The ruler: the test split as it was when it was frozen, labels included, so that every gate measures the same.

Test images imported later stay in the test split and are measured by nobody; freezing them takes another name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from al_loop.dataset import LabelledImage, content_hash, truth
from backend.errors import NotEnoughData
from db.images import by_split, freeze_split, frozen_split
from db.labels import labelled_images
from db.models import Split
from db.struck import frozen_split_to_change, set_frozen_split

RULER = "test"  # the frozen split's name


@dataclass(frozen=True)
class Ruler:
    """The frozen test images with their labels of then. sha256: over both."""

    sha256: str
    images: tuple[LabelledImage, ...]


def freeze_ruler(session: Session) -> str | None:
    """Freeze the test split if it has labelled images and was not frozen before. The ruler's sha256, or None."""
    frozen = frozen_split(session, RULER)
    if frozen is not None:
        return frozen.sha256
    labelled = {image.id for image in labelled_images(session, Split.test)}
    images = truth(session, [image.id for image in by_split(session, Split.test) if image.id in labelled])
    if not images:
        return None
    content = {"images": [asdict(image) for image in images]}
    return freeze_split(session, RULER, content, content_hash(images)).sha256


def load_ruler(session: Session) -> Ruler:
    """The frozen test split. Raises NotEnoughData before there is one, or when its content was tampered with."""
    frozen = frozen_split(session, RULER)
    if frozen is None:
        raise NotEnoughData("expected a frozen test split, found none: import a labelled data set first")
    images = tuple(LabelledImage.from_json(image) for image in frozen.content["images"])
    if not images:
        raise NotEnoughData("expected images in the frozen test split, all of them were forgotten: promote by hand")
    if (found := content_hash(images)) != frozen.sha256:
        raise NotEnoughData(
            f"the frozen test split: expected content with sha256 {frozen.sha256[:12]}, got {found[:12]}; "
            "its row was changed: restore it from a backup"
        )
    return Ruler(frozen.sha256, images)


def take_out(session: Session, hashes: Collection[str]) -> int:
    """Take forgotten images (sha256 of the file) out of the frozen test split; how many.

    Its sha256 becomes that of what is left, so the next gate measures candidate and incumbent anew, on the same images.
    """
    frozen = frozen_split_to_change(session, RULER)
    if frozen is None:
        return 0
    left = [image for image in frozen.content["images"] if image["sha256"] not in hashes]
    gone = len(frozen.content["images"]) - len(left)
    if gone:
        sha256 = content_hash([LabelledImage.from_json(image) for image in left])
        set_frozen_split(session, frozen, dict(frozen.content) | {"images": left}, sha256)
    return gone
