"""Check for drift when there is reason to: a day has passed, or many images came. What is found is kept, and triggers.

Fields that came before the pair began to serve are those it was accepted on; those that came since are recent. Of the
random slots, the first fields that experts answered with this pair are compared with the last ones.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from al_loop.context import Loop
from al_loop.drift import Sample, compare
from backend.errors import CellloopError
from backend.images import read_image
from backend.instances import INFECTED_INDEX
from backend.stain import stain_of
from db import canaries, drift
from db.answers import serving_pair
from db.drift import SeenField
from db.errors import NotFound
from db.images import by_ids
from db.models import now
from db.packed import unpack

log = logging.getLogger("cellloop.drift")

EVERY = timedelta(days=1)
NEW_IMAGES = 50  # or so many
FIELDS = 120  # on either side: the mean of each is known well enough
ANSWERED = 40  # random fields on either side
AT_ONCE = 10  # stains looked up by one call: a second's work, as an expert's label may wait behind it
QUANTILES = (0.1, 0.5, 0.9)


def check_drift_when_due(loop: Loop, at: datetime | None = None) -> bool:
    """Check the serving pair's recent fields if that is due; whether it did. Cheap while it is not.

    While stains of earlier times are missing, a call looks up some of them instead.
    """
    at = at or now()
    with loop.database.session(read_only=True) as session:
        pair = serving_pair(session)
        if pair is None:
            return False
        last, newest = drift.newest_check(session, pair.id), drift.images_known(session)
        if last is not None and at - last.created_at < EVERY and newest - last.numbers["newest"] < NEW_IMAGES:
            return False
        accepted = drift.accepted_at(session, (pair.all_cells_id, pair.infected_id))
        if accepted is None:
            return False
        before, recent = (
            drift.seen_fields(session, pair.id, accepted, since=since, limit=FIELDS) for since in (False, True)
        )
        answered = [field.corrected for field in canaries.random_fields(session, 10 * ANSWERED, pair.id)][::-1]
    if _look_up(loop, [field.image_id for field in (*before, *recent)]):
        return False
    part = min(ANSWERED, len(answered) // 2)
    halves = (answered[:part], answered[len(answered) - part :])
    samples = [
        {
            "scores": _sample(fields, [_scores(field) for field in fields]),
            "stain": _stains(loop, fields),
            "disputes": _sample(fields, [(_disputed(field),) for field in fields]),
            "corrections": Sample(np.array(half, dtype=np.float64).reshape(-1, 1), [str(n) for n in range(len(half))]),
        }
        for fields, half in zip((before, recent), halves, strict=True)
    ]
    looks, speaking = compare(*samples)
    reasons = [each.in_words() for each in speaking] or [each.in_words() for each in looks]
    numbers = {"newest": newest, "looks": [vars(each) for each in looks]}
    with loop.database.session() as session:
        drift.add_check(session, pair.id, drifted=bool(speaking), reasons=reasons, numbers=numbers)
    if speaking:
        log.warning("recent fields differ from those pair %s was accepted on: %s", pair.name, "; ".join(reasons))
    return True


def _sample(fields: Sequence[SeenField], rows: Sequence[Sequence[float]]) -> Sample:
    kept = [(row, field.group) for row, field in zip(rows, fields, strict=True) if field.count]
    width = len(rows[0]) if rows else 1
    values = np.array([row for row, _ in kept], dtype=np.float64).reshape(-1, width)
    return Sample(values, [group for _, group in kept])


def _scores(field: SeenField) -> list[float]:
    """Quantiles of P(there is a cell) among the field's cells, and the mean of P(infected)."""
    probabilities = unpack([(field.image_id, field.count, field.cells)]).cells["probabilities"]
    if not len(probabilities):
        return [0.0] * (len(QUANTILES) + 1)
    infected = probabilities[:, INFECTED_INDEX].sum(axis=1)
    return [*np.quantile(probabilities.sum(axis=1), QUANTILES).tolist(), float(infected.mean())]


def _disputed(field: SeenField) -> float:
    cells = unpack([(field.image_id, field.count, field.cells)]).cells
    return float(cells["disputed"].mean()) if len(cells) else 0.0


def _look_up(loop: Loop, image_ids: Sequence[int]) -> int:
    """Look at images whose stain is not known, AT_ONCE at most; how many could be read. Others are left out."""
    with loop.database.session(read_only=True) as session:
        known = drift.stains(session, image_ids)
        unknown = by_ids(session, [image_id for image_id in image_ids if image_id not in known])
    read = 0
    for image_id, image in unknown.items():
        try:
            stain = stain_of(read_image(loop.store.read(image.file, image.sha256)))
            with loop.database.session() as session:
                drift.add_stain(session, image_id, stain)
        except (CellloopError, NotFound) as error:
            log.info("image %s is left out of the look at stains: %s", image.name, error)
            continue
        read += 1
        if read == AT_ONCE:
            break
    return read


def _stains(loop: Loop, fields: Sequence[SeenField]) -> Sample:
    with loop.database.session(read_only=True) as session:
        known = drift.stains(session, [field.image_id for field in fields])
    seen = [field for field in fields if field.image_id in known]
    values = np.array([known[field.image_id] for field in seen], dtype=np.float64).reshape(-1, len(drift.STAIN))
    return Sample(values, [field.group for field in seen])
