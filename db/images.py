"""Images, their splits, and the imports that brought them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.errors import AlreadyFrozen, NotFound
from db.forget import admit
from db.ids import give_ids
from db.models import FrozenSplit, Image, Import, Review, ReviewStatus, Split, Way


def add_image(
    session: Session,
    *,
    sha256: str,
    file: str,
    name: str,
    width: int,
    height: int,
    group: str,
    split: Split | str,
    dataset: str,
    patient: str | None = None,
    taken_at: datetime | None = None,
) -> tuple[Image, bool]:
    """The image with this sha256 and whether it is new. An image that is known stays as it is.

    Raises ImageForgotten.
    """
    admit(session, sha256)
    known = by_sha256(session, sha256)
    if known is not None:
        return known, False
    image = Image(
        sha256=sha256,
        file=file,
        name=name,
        width=width,
        height=height,
        group=group,
        split=Split(split),
        dataset=dataset,
        patient=patient,
        taken_at=taken_at,
    )
    give_ids(session, [image])
    try:
        with session.begin_nested():
            session.add(image)
    except IntegrityError:  # another process stored it a moment ago
        known = by_sha256(session, sha256)
        if known is None:
            raise
        return known, False
    return image, True


def get(session: Session, image_id: int) -> Image:
    """The image with this id. Raises NotFound."""
    image = session.get(Image, image_id)
    if image is None:
        raise NotFound(f"expected an image with id {image_id}, found none: import it first")
    return image


def by_sha256(session: Session, sha256: str) -> Image | None:
    """The image whose file has this sha256."""
    return session.scalar(select(Image).where(Image.sha256 == sha256))


def by_file(session: Session, file: str) -> Image | None:
    """The image stored at this path of the file store."""
    return session.scalar(select(Image).where(Image.file == file))


def by_ids(session: Session, image_ids: Iterable[int]) -> dict[int, Image]:
    """The images with these ids; unknown ids are left out."""
    found: dict[int, Image] = {}
    for chunk in chunks(image_ids):
        rows = session.scalars(select(Image).where(Image.id.in_(chunk)))
        found.update((image.id, image) for image in rows)
    return found


def ids_by_sha256(session: Session, hashes: Iterable[str]) -> dict[str, int]:
    """Ids of images by the sha256 of their file; unknown hashes are left out."""
    found: dict[str, int] = {}
    for chunk in chunks(hashes):
        rows = session.execute(select(Image.sha256, Image.id).where(Image.sha256.in_(chunk)))
        found.update((sha256, image_id) for sha256, image_id in rows)
    return found


def by_split(session: Session, split: Split | str) -> Sequence[Image]:
    """All images of a split, oldest first."""
    return session.scalars(select(Image).where(Image.split == Split(split)).order_by(Image.id)).all()


def in_several_splits(session: Session, patients: Iterable[str]) -> list[str]:
    """Those of these patients whose images lie in more than one split, by name."""
    found: list[str] = []
    for chunk in chunks(patients):
        query = select(Image.patient).where(Image.patient.in_(chunk)).group_by(Image.patient)
        found.extend(session.scalars(query.having(func.count(Image.split.distinct()) > 1).order_by(Image.patient)))
    return found


def some(
    session: Session, after: int = 0, most: int = 24, *, split: Split | None = None, beginning: str = ""
) -> Sequence[Image]:
    """The first images beyond this id, oldest first; of this split, and with names that begin so, when given."""
    query = select(Image).where(Image.id > after)
    if split is not None:
        query = query.where(Image.split == split)
    if beginning:
        query = query.where(Image.name.startswith(beginning, autoescape=True))
    return session.scalars(query.order_by(Image.id).limit(most)).all()


def images_with_live_review(statuses: Iterable[ReviewStatus]) -> Select[int]:
    """A query for the ids of images with a thread whose last review, of the whole field, has one of these statuses."""
    last = select(func.max(Review.id)).where(Review.way == Way.field).group_by(Review.thread)
    return select(Review.image_id).where(Review.id.in_(last), Review.status.in_(list(statuses)))


def pool_query() -> Select[Image]:
    """Train images nobody has answered: no thread's last review is a submission or a skip."""
    answered = images_with_live_review([ReviewStatus.submitted, ReviewStatus.skipped])
    return select(Image).where(Image.split == Split.train, Image.id.not_in(answered)).order_by(Image.id)


def pool(session: Session) -> Sequence[Image]:
    """Train images without a live review, oldest first: what is predicted, ranked and queued."""
    return session.scalars(pool_query()).all()


def lock(session: Session, image_id: int) -> None:
    """Hold this image's cells and reviews against other writers until the transaction ends.

    SQLite needs nothing: its write transactions exclude each other already. Raises NotFound when the image is gone.
    """
    if session.scalar(select(Image.id).where(Image.id == image_id).with_for_update(key_share=True)) is None:
        raise NotFound(f"expected an image with id {image_id}, found none: it was forgotten meanwhile")


def freeze_split(session: Session, name: str, content: dict[str, Any], sha256: str) -> FrozenSplit:
    """Freeze a split once. Freezing the same content again changes nothing; another raises AlreadyFrozen."""
    frozen = frozen_split(session, name)
    if frozen is None:
        frozen = FrozenSplit(name=name, sha256=sha256, content=content)
        session.add(frozen)
        session.flush()
    elif frozen.sha256 != sha256:
        raise AlreadyFrozen(
            f"split {name!r} was frozen with sha256 {frozen.sha256[:12]}, got {sha256[:12]}: "
            "a ruler cannot change; freeze the new content under another name"
        )
    return frozen


def frozen_split(session: Session, name: str) -> FrozenSplit | None:
    """The frozen split of this name."""
    return session.scalar(select(FrozenSplit).where(FrozenSplit.name == name))


def add_import(session: Session, *, source: str, dataset: str, report: dict[str, Any]) -> Import:
    """Record one run of the import and what it counted."""
    row = Import(source=source, dataset=dataset, report=report)
    session.add(row)
    session.flush()
    return row


def imports(session: Session) -> Sequence[Import]:
    """All imports, oldest first."""
    return session.scalars(select(Import).order_by(Import.id)).all()


def counts(session: Session) -> dict[str, int]:
    """Number of images per split, zeros included, and "pool": train images that wait for an expert."""
    per_split = session.execute(select(Image.split, func.count()).group_by(Image.split))
    found = {split: number for split, number in per_split}
    waiting = select(func.count()).select_from(pool_query().subquery())
    result = {split.value: found.get(split, 0) for split in Split}
    result["pool"] = session.scalar(waiting) or 0
    return result
