"""Everything a training of a role may learn from, as of one label revision: fields, and cells reviewed one by one.

A field that an expert submitted, or that came with labels, is known completely: where it has no label, there is no
cell. Where experts only answered about single cells, their answers are known and the rest is not: every other cell
that the newest prediction shows there is nobody's example, neither cell nor background.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy.orm import Session

from al_loop.dataset import Box, DatasetManifest, LabelledImage, Partial, clipped, content_hash, labelled
from backend.errors import NotEnoughData
from backend.instances import DIFFICULT, role_classes
from db import versions
from db.labelled import Place, complete_images, partial_images, predicted_places
from db.labels import LiveLabel, current_labels, newest_revision_id
from db.models import Image, Split


def snapshot(session: Session, role: str, newest_revision: int | None = None) -> DatasetManifest:
    """The labelled train images and their labels as of `newest_revision` (default: now), for this role.

    Raises NotEnoughData when no image is labelled, or none of their cells belongs to the role.
    """
    until = newest_revision_id(session) if newest_revision is None else newest_revision
    complete = complete_images(session, Split.train, until)
    partial = partial_images(session, Split.train, until)
    places = predicted_places(session, [image.id for image in partial], until)
    said: dict[int, list[LiveLabel]] = defaultdict(list)
    ids = [image.id for image in (*complete, *partial)]
    for label in current_labels(session, ids, newest_revision_id=until):
        said[label.image_id].append(label)
    wanted = {*role_classes(role), DIFFICULT}
    found = [labelled(image, [label for label in said[image.id] if label.label in wanted]) for image in complete]
    parts = [in_part(image, said[image.id], places.get(image.id), wanted) for image in partial]
    found += [part for part in parts if part is not None]
    manifest = DatasetManifest(role, until, tuple(found), content_hash(found))
    if not any(label != DIFFICULT for label in manifest.class_counts()):
        raise NotEnoughData(
            f"{role}: expected labelled train images with {', '.join(role_classes(role))}, got {len(found)} images "
            f"with {manifest.class_counts() or 'none'}; import labels or review some images first"
        )
    return manifest


def reproduced(session: Session, version_id: int) -> bool:
    """Whether the record still gives exactly what this version was trained on, images, labels and outlines.

    Raises NotFound; NotEnoughData for a version that was not trained from this record.
    """
    version = versions.get(session, version_id)
    if version.newest_revision_id is None:
        raise NotEnoughData(
            f"version {version_id}: expected one that was trained on labels of this record, got one that came from "
            "elsewhere; its manifest tells what is known"
        )
    again = json.loads(json.dumps(snapshot(session, version.role, version.newest_revision_id).to_json()))
    return bool(all(version.manifest.get(name) == value for name, value in again.items()))


def in_part(
    image: Image, labels: Sequence[LiveLabel], places: Sequence[Place] | None, wanted: set[str]
) -> LabelledImage | None:
    """An image of which only the cells in `labels` are known; None when there is nothing to learn from them.

    places: what was predicted; None: nobody knows what else is there, so all of the rest is unknown. wanted: labels
    that the role learns or ignores; a cell with another one, or that an expert rejected, is background to it.
    """
    boxes = {place.cell_id: place.box for place in places or ()}
    background = [label.box or boxes.get(label.cell_id) for label in labels if label.label not in wanted]
    known = {label.cell_id for label in labels}
    unreviewed: list[Box] = [box for cell_id, box in boxes.items() if cell_id not in known]
    if places is None:
        unreviewed = [(0.0, 0.0, float(image.width), float(image.height))]
    part = Partial(
        background=clipped(image, [box for box in background if box is not None]),
        unreviewed=clipped(image, unreviewed),
    )
    found = labelled(image, [label for label in labels if label.label in wanted], part)
    learned = any(cell.label != DIFFICULT for cell in found.cells)
    return found if learned or part.background else None
