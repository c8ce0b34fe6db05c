"""Has a version learned from the very images it is measured on? Then its numbers flatter it.

The splits rule this out for versions trained here. Starter weights were trained elsewhere, on images that may be
among those a laboratory imports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from al_loop.dataset import LabelledImage
from db.models import ModelVersion


def trained_on(version: ModelVersion) -> set[str]:
    """sha256 of all images that this version's training or calibration has seen, as far as is recorded."""
    manifest = version.manifest
    return {image["sha256"] for image in manifest.get("images", ())} | set(manifest.get("trained_on", ()))


def warnings_for(versions: Iterable[ModelVersion], images: Sequence[LabelledImage]) -> list[str]:
    """A sentence per version that has seen some of these test images in its training."""
    tested = {image.sha256 for image in images}
    said = []
    for version in versions:
        seen = len(trained_on(version) & tested)
        if seen:
            said.append(
                f"warning: {version.role} version {version.id} was trained on {seen} of the {len(tested)} test images: "
                "its numbers are too good, and a comparison with it is unfair to others; judge by other images"
            )
    return said
