"""Read a source whatever its format: the one door to annotation files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from al_loop.formats import bbbc041, coco, csv_table, iml, label_studio, parquet_table
from al_loop.formats.documents import read_documents
from al_loop.formats.opener import Opener, is_annotation, open_source
from al_loop.formats.records import SourceImage
from backend.errors import ImageRefused, UnusableAnnotations

# In this order: a data set's own annotations go before a table that somebody made of them.
FORMATS: dict[str, ModuleType] = {
    "bbbc041": bbbc041,
    "iml": iml,
    "coco": coco,
    "label-studio": label_studio,
    "csv": csv_table,
    "parquet": parquet_table,
}
RENDERED = "rendered"  # COCO written by our own renderer


def detect_format(source: Path) -> str:
    """A key of FORMATS, or rendered. Raises UnusableAnnotations when it is none of them."""
    return _open(source, None)[0]


def read_source(source: Path, dataset: str | None = None) -> list[SourceImage]:
    """Every image the source's annotation files list, in a fixed order; images are not opened yet.

    source: a folder, a zip archive, or one annotation file. dataset: the format when it should not be detected.
    Raises UnusableAnnotations.
    """
    _, module, documents, opener = _open(source, dataset)
    images: list[SourceImage] = module.read(documents, opener)
    return images


def truth_by_sha256(source: Path, dataset: str | None = None) -> dict[str, SourceImage]:
    """What the source says about each labelled image that is there and can be read, by the file's sha256."""
    found: dict[str, SourceImage] = {}
    for image in read_source(source, dataset):
        if image.file is None or not image.labelled:
            continue
        try:
            found.setdefault(image.sha256(), image)
        except (ImageRefused, OSError):
            continue  # the import counts and reports it
    return found


def _open(source: Path, dataset: str | None) -> tuple[str, ModuleType, dict[str, object], Opener]:
    if dataset is not None and dataset not in (*FORMATS, RENDERED):
        raise UnusableAnnotations(f"dataset: expected one of {', '.join((*FORMATS, RENDERED))}, got {dataset!r}")
    opener = open_source(source)
    documents, broken = read_documents(opener)
    for name, module in FORMATS.items():
        usable = {file: document for file, document in documents.items() if module.matches(document)}
        if not usable or (dataset or name).replace(RENDERED, "coco") != name:
            continue
        if name == "coco" and any((d.get("info") or {}).get("dataset") == RENDERED for d in usable.values()):
            name = RENDERED
        return dataset or name, module, usable, opener
    seen = ", ".join([*documents, *broken][:5]) or "no annotation file"
    images = len([name for name in opener.names() if not is_annotation(name)])
    raise UnusableAnnotations(
        f"{source}: expected annotations in the format of {dataset or ', '.join(FORMATS)}, "
        f"got {seen} and {images} other files" + "".join(f"; {why}" for why in list(broken.values())[:3])
    )
