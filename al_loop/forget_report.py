"""What forgetting a patient would remove, or has removed, and which versions learned from the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from al_loop.context import Loop
from al_loop.seen_images import trained_on
from db import forget as tombstones
from db import removal, versions
from db.answers import serving_pair
from db.models import VersionStatus
from db.session import Database

UPLOADED = "label-studio"  # `Image.dataset` of images that came in by a task, from Label Studio's own folder perhaps
RETRAIN = {
    "infected": 'cellloop retrain --reason "a patient was forgotten"',
    "all_cells": "cellloop train --role all_cells",
}


@dataclass(frozen=True)
class Learned:
    """A version that learned from some of the images. base: the weights that its training began with had, too."""

    version: int
    role: str
    status: str
    images: int
    base: bool


@dataclass(frozen=True)
class ForgetReport:
    """rows: by table. pair: that serves and learned from the images. uploads: names of images that came in by a task.

    removed: it has happened, else it would. forgettings: ids of the tombstones. finished: of all of them. trouble: what
    kept it from that. elsewhere: tasks in projects of a Label Studio that is not the configured one.
    """

    rows: Mapping[str, int]
    versions: tuple[Learned, ...]
    pair: str | None
    uploads: tuple[str, ...]
    forgettings: tuple[int, ...]
    finished: bool
    removed: bool = False
    elsewhere: int = 0
    trouble: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values: first what people ask, then every table."""
        counts = {name: self.rows.get(table, 0) for name, table in COUNTED.items()}
        return counts | asdict(self) | {"rows": dict(self.rows), "advice": list(self.advice())}

    def advice(self) -> Iterator[str]:
        """What is left for a person to do, a sentence each."""
        if self.trouble is not None:
            yield f"unfinished: {self.trouble}; then run the same command again"
        for role, command in RETRAIN.items():
            if any(each.role == role and each.status == VersionStatus.active for each in self.versions):
                yield f"the {role} version that serves learned from these images; train another: {command}"
        if any(each.base for each in self.versions):
            yield "the weights that training begins with had seen them: set CELLLOOP_TRAIN_FROM=scratch before"
        if self.uploads:
            names = ", ".join(self.uploads)
            yield f"delete the originals in Label Studio's media folder, or where its tasks found them: {names}"
        if self.elsewhere:
            yield f"{self.elsewhere} tasks are in another Label Studio than the configured one: delete them there"
        yield "what was imported from, exported to or backed up elsewhere is not touched: delete it there"


COUNTED = {"images": "images", "cells": "cells", "labels": "label_revisions", "files": "images"}


def look(loop: Loop, patient: str) -> ForgetReport:
    """What would go. Raises NotFound for a patient that nobody named."""
    with loop.database.session(read_only=True) as session:
        images = tombstones.images(session, patient)
        rows = removal.count(session, [image.id for image in images])
        found = tombstones.tombstones(session, patient)
        named = tombstones.images_of(session, [row.id for row in found])
        pair = serving_pair(session)
    hashes = {image.sha256 for image in images} | {image.sha256 for image in named}
    learned = tuple(who_learned(loop.database, hashes))
    serves = any(each.status == VersionStatus.active for each in learned)
    return ForgetReport(
        rows=rows,
        versions=learned,
        pair=pair.name if pair is not None and serves else None,
        uploads=tuple(image.name for image in images if image.dataset == UPLOADED),
        forgettings=tuple(row.id for row in found),
        finished=not images and all(row.finished_at is not None for row in found),
    )


def outcome(loop: Loop, before: ForgetReport, forgetting_ids: Sequence[int], trouble: str | None) -> ForgetReport:
    """What has gone by these forgettings, in all their tries (of all of the patient's, when there is none)."""
    with loop.database.session(read_only=True) as session:
        every = {row.id: row for row in tombstones.tombstones(session)}
    chosen = [every[number] for number in forgetting_ids or before.forgettings]
    rows: Counter[str] = Counter()
    for row in chosen:
        rows.update(row.removed.get("rows", {}))
    return replace(
        before,
        rows=dict(rows),
        forgettings=tuple(row.id for row in chosen),
        finished=all(row.finished_at is not None for row in chosen),
        removed=True,
        elsewhere=sum(row.removed.get(tombstones.ELSEWHERE, 0) for row in chosen),
        trouble=trouble,
    )


def who_learned(database: Database, hashes: Collection[str]) -> Iterator[Learned]:
    """Every version that learned from one of these images (sha256 of the file), oldest first."""
    with database.session(read_only=True) as session:
        ids = versions.ids(session)
    for version_id in ids:  # one manifest in memory at a time
        with database.session(read_only=True) as session:
            version = versions.get(session, version_id)
        seen = trained_on(version).intersection(hashes)
        if seen:
            base = not seen.isdisjoint(version.manifest.get("trained_on", ()))
            yield Learned(version.id, version.role, version.status.value, len(seen), base)
