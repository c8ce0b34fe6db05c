"""What an import learns of patients: for images that were there already, and what contradicts the splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from sqlalchemy.orm import Session

from al_loop.formats.records import Problem, SourceImage
from al_loop.import_splits import Checked
from db.images import by_ids
from db.models import Image


def learn(session: Session, told: Sequence[tuple[int, SourceImage]]) -> tuple[list[Image], list[Problem]]:
    """Fill in patient and day of images that were there without: those that changed, and contradictions.

    told: image id, and what a source says of that image. What the record knows already stays.
    """
    images = by_ids(session, [image_id for image_id, _ in told])
    changed: dict[int, Image] = {}
    problems: list[Problem] = []
    for image_id, source in told:
        image = images[image_id]
        for column, said in (("patient", source.patient), ("taken_at", source.taken_at)):
            known = getattr(image, column)
            if said is None or said == known:
                continue
            if known is not None:
                problems.append(Problem("another patient", f"{source.name}: {known}, the source says {said}"))
                continue
            setattr(image, column, said)
            changed[image_id] = image
    session.flush()
    return list(changed.values()), problems


def slides_of_several(fresh: Sequence[Checked], dataset: str) -> Iterator[Problem]:
    """A problem for each group whose images name more than one patient."""
    patients: dict[str, set[str]] = defaultdict(set)
    for checked in fresh:
        if checked.source.patient:
            patients[checked.group(dataset)].add(checked.source.patient)
    for group, named in sorted(patients.items()):
        if len(named) > 1:
            yield Problem("slide of several patients", f"{group}: {', '.join(sorted(named)[:5])}")
