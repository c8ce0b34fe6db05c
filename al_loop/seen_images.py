"""Has a version learned from the very images it is measured on? Then its numbers flatter it.

The splits rule this out for versions trained here. Starter weights were trained elsewhere, on images that may be
among those a laboratory imports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from al_loop.dataset import LabelledImage
from al_loop.ruler import RULER, load_ruler
from backend.instances import ROLES
from db import versions as versions_table
from db.images import frozen_split
from db.models import ModelVersion
from db.session import Database


def trained_on(version: ModelVersion) -> set[str]:
    """sha256 of all images that this version's training or calibration has seen, as far as is recorded."""
    manifest = version.manifest
    return {image["sha256"] for image in manifest.get("images", ())} | set(manifest.get("trained_on", ()))


def warnings_for(versions: Iterable[ModelVersion], images: Sequence[LabelledImage]) -> list[str]:
    """A sentence per version that has seen some of these test images in its training."""
    said = (warning(f"{version.role} version {version.id}", trained_on(version), images) for version in versions)
    return [sentence for sentence in said if sentence]


def warning(name: str, trained: Iterable[str], images: Sequence[LabelledImage]) -> str | None:
    """What is to be said of a detector trained on images with these sha256 and measured on those; None for nothing."""
    tested = {image.sha256 for image in images}
    seen = len(tested.intersection(trained))
    if not seen:
        return None
    return (
        f"warning: {name} was trained on {seen} of the {len(tested)} test images: its numbers are too good, and a "
        "comparison with it is unfair to others; judge by other images"
    )


def warnings_of_version(database: Database, version_id: int) -> list[str]:
    """What is to be said of this version and the serving one of the other role on the frozen test split.

    Nothing before one is frozen. Raises NotFound.
    """
    with database.session(read_only=True) as session:
        if frozen_split(session, RULER) is None:
            return []
        version = versions_table.get(session, version_id)
        serving = (versions_table.active(session, role) for role in ROLES if role != version.role)
        return warnings_for([version, *(other for other in serving if other)], load_ruler(session).images)
