"""Labelled smears where they lie, no database needed: for evaluation elsewhere, cross-validation, starter weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from al_loop.dataset import (
    DatasetManifest,
    LabelledCell,
    LabelledImage,
    TrainingSample,
    content_hash,
    samples,
)
from al_loop.formats.detect import FORMATS, read_source
from al_loop.formats.documents import parse
from al_loop.formats.opener import MAX_ANNOTATION_BYTES, FolderOpener
from al_loop.formats.records import Problem, SourceImage
from backend.errors import ImageRefused, StoredFileCorrupt, UnusableAnnotations
from backend.images import probe
from backend.instances import DIFFICULT, role_classes
from backend.store import sha256_of

READERS = 2


@dataclass(frozen=True)
class LabelledFile:
    """One labelled smear on disk. name: the image's own; group: slide or block, None when unknown."""

    name: str
    group: str | None
    labelled: LabelledImage  # its `file` is the absolute path


class FilesInPlace:
    """Stands in for the file store when images stay where they are: files are absolute paths."""

    def verify(self, file: str, sha256: str) -> Path:
        """The file's path. Raises StoredFileCorrupt when it changed since it was listed."""
        if sha256_of(Path(file)) != sha256:
            raise StoredFileCorrupt(f"{Path(file).name}: expected sha256 {sha256[:12]}; the file changed while in use")
        return Path(file)

    def read(self, file: str, sha256: str) -> bytes:
        """The file's bytes. Raises StoredFileCorrupt as `verify` does."""
        return self.verify(file, sha256).read_bytes()


def read_labelled(
    images: Path, annotations: Path | None = None, dataset: str | None = None
) -> tuple[list[LabelledFile], list[Problem]]:
    """Every labelled image below the folder `images` that is there and readable, in a fixed order, and what was not.

    annotations: the one annotation file, which may lie elsewhere; None: those found in the folder. dataset: a key of
    FORMATS, detected when None. Raises UnusableAnnotations when not a single image can be used.
    """
    if not images.is_dir():
        raise UnusableAnnotations(f"{images}: expected a folder of images, found none; unpack an archive first")
    records = read_source(images, dataset) if annotations is None else _read_file(images, annotations, dataset)
    found: list[LabelledFile] = []
    problems: list[Problem] = []
    opener = FolderOpener(images)
    with ThreadPoolExecutor(READERS) as readers:
        for record, (file, trouble) in zip(
            records, readers.map(lambda record: _labelled(record, opener), records), strict=True
        ):
            problems += [*record.problems, *trouble]
            if file is not None:
                found.append(file)
    if not found:
        some = "; ".join(f"{problem.kind}: {problem.detail}" for problem in problems[:3])
        raise UnusableAnnotations(
            f"{annotations or images}: expected annotations of images below {images}, got {len(records)} records of "
            f"which none can be used ({some})"
        )
    return found, problems


def _read_file(images: Path, annotations: Path, dataset: str | None) -> list[SourceImage]:
    if dataset is not None and dataset not in FORMATS:
        raise UnusableAnnotations(f"format: expected one of {', '.join(FORMATS)}, got {dataset!r}")
    try:
        if annotations.stat().st_size > MAX_ANNOTATION_BYTES:
            raise UnusableAnnotations(f"{annotations}: expected at most {MAX_ANNOTATION_BYTES >> 20} MiB")
        with annotations.open("rb") as handle:
            document = parse(str(annotations), handle)
    except OSError as error:
        raise UnusableAnnotations(f"{annotations}: expected a readable annotation file, got: {error}") from error
    for name, module in FORMATS.items():
        if dataset in (None, name) and module.matches(document):
            records: list[SourceImage] = module.read({annotations.name: document}, FolderOpener(images))
            return records
    raise UnusableAnnotations(
        f"{annotations}: expected annotations in the format of {dataset or ', '.join(FORMATS)}, got another file"
    )


def _labelled(record: SourceImage, opener: FolderOpener) -> tuple[LabelledFile | None, list[Problem]]:
    if record.file is None:
        return None, [Problem("missing image", record.name)] if record.name else []
    if not record.labelled:
        return None, []  # its own problems say so
    path = (opener.root / record.file).resolve()
    try:
        facts = probe(path)
        sha256 = sha256_of(path)
    except (ImageRefused, OSError) as error:
        return None, [Problem("unreadable image", f"{record.name}: {error}")]
    if (record.width, record.height) not in ((None, None), (facts.width, facts.height)):
        size = f"expected {record.width} x {record.height} px, got {facts.width} x {facts.height}"
        return None, [Problem("size mismatch", f"{record.name}: {size}")]
    objects, problems = record.usable_objects(facts.width, facts.height)
    cells = tuple(
        LabelledCell(thing.label, thing.box, thing.mask["counts"].decode("ascii") if thing.mask else None)
        for thing in objects
    )
    labelled = LabelledImage(sha256, str(path), facts.width, facts.height, cells)
    return LabelledFile(record.name, record.group, labelled), problems


def manifest_of(files: Sequence[LabelledFile], role: str) -> DatasetManifest:
    """What a training of this role sees of these files: the cells that the role learns or ignores."""
    wanted = {*role_classes(role), DIFFICULT}
    images = tuple(
        replace(file.labelled, cells=tuple(cell for cell in file.labelled.cells if cell.label in wanted))
        for file in files
    )
    return DatasetManifest(role, 0, images, content_hash(images))


def training_samples(
    files: Sequence[LabelledFile], role: str, on_progress: Callable[[int, int], None] | None = None
) -> list[TrainingSample]:
    """Training samples of these files for one role, masks derived from boxes where no mask came with them."""
    return samples(manifest_of(files, role), FilesInPlace(), on_progress)
