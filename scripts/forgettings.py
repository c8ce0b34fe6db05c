"""The tombstones of forgotten patients, for people and for programs."""

from __future__ import annotations

from al_loop.context import Loop
from db.forget import images_of, tombstones
from scripts import console


def show(loop: Loop, as_json: bool) -> None:
    """Print every tombstone, oldest first."""
    with loop.database.session(read_only=True) as session:
        found = [(row, len(images_of(session, [row.id]))) for row in tombstones(session)]
    if as_json:
        rows = [
            {
                "forgetting": row.id,
                "patient_sha256": row.patient_sha256,
                "reason": row.reason,
                "images": images,
                "versions": row.versions,
                "removed": row.removed,
                "begun": row.created_at,
                "finished": row.finished_at,
            }
            for row, images in found
        ]
        console.emit({"forgettings": rows}, as_json)
        return
    console.table(
        ("forgetting", "begun", "finished", "images", "versions that learned from them", "reason"),
        [
            (
                row.id,
                row.created_at,
                row.finished_at or "not yet: repeat it",
                images,
                ", ".join(map(str, row.versions)) or "none",
                row.reason,
            )
            for row, images in found
        ],
        title=f"{len(found)} forgettings",
    )
