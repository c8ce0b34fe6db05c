"""The labels that a candidate has learned from and the incumbent has not, as both pairs see them."""

from __future__ import annotations

from collections.abc import Sequence

from al_loop.bench import Bench, Contestant
from al_loop.context import Loop
from al_loop.dataset import LabelledImage
from al_loop.label_audit import Contradictions, LabelAudit, audit, contradictions
from backend.fuse import FusionConfig, fuse
from backend.instances import Instances
from db.models import ModelVersion
from db.versions import get, pair_of

LOOKED_AT = 60  # images of either kind: enough to see a third of the labels flipped, and a minute on one core


def audit_new_labels(
    loop: Loop, bench: Bench, candidate: Contestant, incumbent: Contestant, test: Sequence[LabelledImage]
) -> LabelAudit:
    """Where both pairs contradict the labels that only the candidate knows, beside the frozen test split's."""
    with loop.database.session() as session:
        pairs = [pair_of(session, each.all_cells_id, each.infected_id) for each in (incumbent, candidate)]
        fusions = [FusionConfig.from_json(pair.fusion) for pair in pairs]
        new = new_images(*(labels_of(get(session, each)) for each in incumbent.differs_from(candidate)))

    def counted(images: Sequence[LabelledImage]) -> Contradictions:
        said = [
            _seen(bench, contestant, fusion, images)
            for contestant, fusion in zip((incumbent, candidate), fusions, strict=True)
        ]
        truths, ignored = [image.truth() for image in images], [image.ignore_boxes() for image in images]
        return contradictions(truths, ignored, *said)

    return audit(*(counted(sorted(images, key=lambda image: image.sha256)[:LOOKED_AT]) for images in (new, test)))


def new_images(before: Sequence[LabelledImage], now: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Images whose labels, as they are now, were not there before."""
    known = {image.sha256: image for image in before}
    return [image for image in now if image != known.get(image.sha256)]


def labels_of(version: ModelVersion) -> list[LabelledImage]:
    """What a version was trained on, but for images that were forgotten since; none where it was trained elsewhere."""
    images = version.manifest.get("images", ())
    return [LabelledImage.from_json(image) for image in images if "forgotten" not in image]


def _seen(
    bench: Bench, contestant: Contestant, fusion: FusionConfig, images: Sequence[LabelledImage]
) -> list[Instances]:
    all_cells, infected = (bench.see(sha256, images) for sha256 in contestant.weights)
    return [fuse(a, b, fusion).cells for a, b in zip(all_cells, infected, strict=True)]
