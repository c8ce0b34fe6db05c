"""The labels that a candidate has learned from and the incumbent has not, as the incumbent pair sees them."""

from __future__ import annotations

from collections.abc import Sequence

from al_loop.bench import Bench, Contestant
from al_loop.context import Loop
from al_loop.dataset import LabelledImage
from al_loop.label_audit import Claims, LabelAudit, audit, claims
from backend.fuse import FusionConfig, fuse
from db.models import ModelVersion
from db.versions import get, pair_of

LOOKED_AT = 60  # images of either kind: enough to see a third of the labels flipped, and a minute on one core


def audit_new_labels(
    loop: Loop, bench: Bench, candidate: Contestant, incumbent: Contestant, test: Sequence[LabelledImage]
) -> LabelAudit:
    """How the labels that only the candidate knows fit what the incumbent sees, beside the frozen test split's."""
    with loop.database.session() as session:
        fusion = FusionConfig.from_json(pair_of(session, incumbent.all_cells_id, incumbent.infected_id).fusion)
        new = new_images(*(labels_of(get(session, each)) for each in incumbent.differs_from(candidate)))

    def counted(images: Sequence[LabelledImage]) -> Claims:
        images = sorted(images, key=lambda image: image.sha256)[:LOOKED_AT]  # any will do, and always the same
        all_cells, infected = (bench.see(sha256, images) for sha256 in incumbent.weights)
        seen = [fuse(a, b, fusion).cells for a, b in zip(all_cells, infected, strict=True)]
        return claims([image.truth() for image in images], [image.ignore_boxes() for image in images], seen)

    return audit(counted(new), counted(test))


def new_images(before: Sequence[LabelledImage], now: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Images whose labels, as they are now, were not there before."""
    known = {image.sha256: image for image in before}
    return [image for image in now if image != known.get(image.sha256)]


def labels_of(version: ModelVersion) -> list[LabelledImage]:
    """What a version was trained on, but for images that were forgotten since; none where it was trained elsewhere."""
    images = version.manifest.get("images", ())
    return [LabelledImage.from_json(image) for image in images if "forgotten" not in image]
