"""Write the current labels, or those of a moment, with their images into a folder that `cellloop import` reads back.

Only completely labelled images go out: of the others nobody knows what the cells beside the answers are. The same
labels give the same bytes; a folder appears when it is whole, or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from sqlalchemy.orm import Session

from al_loop import export_bbbc041, export_coco, export_label_studio, export_table
from al_loop.dataset import Files
from al_loop.export_report import ExportedCell, ExportedImage, ExportReport, Tally
from al_loop.formats.label_studio import SUFFIXES
from backend.errors import NotEnoughData, SettingRefused
from db.exports import Scope, answers, complete, incomplete
from db.labels import LiveLabel, current_labels
from db.models import Image
from db.session import Database

OnProgress = Callable[[int, int, str], None]  # images done, images in all, what is going on

IMAGES_AT_ONCE = 100
LONGEST_STEM = 180  # bytes of a file's name; the rest is for a hash and a suffix


@dataclass(frozen=True)
class Writer:
    """A format: how its files are written into a folder, what it has no place for, and its checksum of images."""

    write: Callable[[Path, Iterable[ExportedImage]], None]
    lacks: Sequence[str] = ()
    checksum: str = "sha256"


WRITERS: dict[str, Writer] = {
    "coco": Writer(export_coco.write, export_coco.LACKS),
    "csv": Writer(export_table.write_csv),
    "parquet": Writer(export_table.write_parquet),
    "label-studio": Writer(export_label_studio.write, export_label_studio.LACKS),
    "bbbc041": Writer(export_bbbc041.write, export_bbbc041.LACKS, "md5"),
}


def export(
    database: Database,
    store: Files,
    format: str,
    out: Path,
    scope: Scope,
    *,
    with_images: bool = True,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write the labels of the completely labelled images in `scope` into the new folder `out`.

    format: a key of WRITERS. with_images: copy the image files into out/images, too. Raises SettingRefused when `out`
    is there already, NotEnoughData when no image is asked for, StoredFileCorrupt when an image is not what came in.
    """
    writer, out = WRITERS[format], out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SettingRefused(f"{out}: expected a new or an empty folder, found one with files; name another")
    tally = Tally(writer.lacks)
    with database.session(read_only=True) as session:  # all of it as of one moment
        images = complete(session, scope)
        _count_left_out(session, images, scope, tally)
        names = file_names(images)
        tally.altered["renamed files"] = sum(names[image.id] != image.name for image in images)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary) / "export"
            (folder / "images" if with_images else folder).mkdir(parents=True)
            copies = _Copies(store, folder / "images" if with_images else None, writer.checksum)
            labelled = _labelled(session, images, scope.as_of, tally)
            report_step = on_progress or (lambda done, total, what: None)
            writer.write(folder, _exported(labelled, len(images), names, copies, tally, report_step))
            _flush(folder)
            os.rename(folder, out)
    return tally.report(format, str(out), scope.as_of, with_images)


def _count_left_out(session: Session, images: Sequence[Image], scope: Scope, tally: Tally) -> None:
    """Count what an export of these images leaves out. Raises NotEnoughData when there are none."""
    spoken_of, silent = incomplete(session, scope)
    on_parts = current_labels(session, spoken_of, scope.as_of)
    partly = len({label.image_id for label in on_parts})
    unlabelled = silent + len(spoken_of) - partly  # what was said of some was withdrawn
    if not images:
        raise NotEnoughData(
            f"expected completely labelled images to export, found none ({partly} labelled in part, {unlabelled} "
            "not at all); review or import some, or ask for another split, group or moment"
        )
    given, later = answers(session, [image.id for image in images], scope.as_of)
    tally.left_out["images labelled in part"] = partly
    tally.left_out["labels on such images"] = sum(label.label is not None for label in on_parts)
    tally.left_out["images without labels"] = unlabelled
    tally.left_out["earlier answers"] = given  # less the current ones, as they are exported
    tally.left_out["later answers"] = later


def file_names(images: Sequence[Image]) -> dict[int, str]:
    """A name for each image's file, by id: the one it came with where that can be a file's and no other has it."""
    wanted = {image.id: _file_name(image) for image in images}
    count = Counter(name.casefold() for name in wanted.values())  # some file systems do not tell "A" from "a"
    for image in images:
        name = PurePosixPath(wanted[image.id])
        if count[name.name.casefold()] > 1:
            wanted[image.id] = f"{name.stem}-{image.sha256[:16]}{name.suffix}"
    return wanted


def _file_name(image: Image) -> str:
    name = PurePosixPath(re.sub(r"[^\w.,()+= -]", "_", image.name).strip(" ."))
    suffix = name.suffix if name.suffix.lower() in SUFFIXES else PurePosixPath(image.file).suffix
    stem = name.name.removesuffix(suffix).encode()[:LONGEST_STEM].decode(errors="ignore")
    return (stem or image.sha256[:16]) + suffix


@dataclass(frozen=True)
class _Copies:
    """Where image files go, None for nowhere, and the checksum that their records name."""

    store: Files
    folder: Path | None
    checksum: str

    def take(self, image: Image, name: str) -> str:
        """Copy one image file if it is to be copied; its checksum."""
        if self.folder is None and self.checksum == "sha256":
            return image.sha256
        data = self.store.read(image.file, image.sha256)
        if self.folder is not None:
            with (self.folder / name).open("xb") as file:
                file.write(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest() if self.checksum == "md5" else image.sha256


def _labelled(
    session: Session, images: Sequence[Image], as_of: datetime | None, tally: Tally
) -> Iterator[tuple[Image, tuple[ExportedCell, ...]]]:
    """Each image with its current labels, in an order that the labels alone decide; counts what is left out."""
    for start in range(0, len(images), IMAGES_AT_ONCE):
        some = images[start : start + IMAGES_AT_ONCE]
        cells: dict[int, list[ExportedCell]] = defaultdict(list)
        labels = current_labels(session, [image.id for image in some], as_of)
        tally.left_out["earlier answers"] -= len(labels)
        for label in labels:
            if label.label is None:
                tally.left_out["rejected cells"] += 1
            elif label.box is None:
                tally.left_out["cells without a box"] += 1
            else:
                cells[label.image_id].append(_cell(label, label.label, label.box))
        for image in some:
            yield image, tuple(sorted(cells[image.id], key=lambda cell: (cell.box, cell.label, cell.key)))


def _cell(label: LiveLabel, name: str, box: tuple[float, float, float, float]) -> ExportedCell:
    mask = label.mask.decode("ascii") if label.mask else None
    return ExportedCell(label.key, name, box, label.shape, mask, label.expert, label.decided_at)


def _exported(
    labelled: Iterable[tuple[Image, tuple[ExportedCell, ...]]],
    total: int,
    names: dict[int, str],
    copies: _Copies,
    tally: Tally,
    on_progress: OnProgress,
) -> Iterator[ExportedImage]:
    """What the writers see, one image at a time, its file copied by then."""
    for done, (image, cells) in enumerate(labelled, start=1):
        name = names[image.id]
        exported = ExportedImage(
            file=name,
            checksum=copies.take(image, name),
            width=image.width,
            height=image.height,
            dataset=image.dataset,
            group=image.group.removeprefix(f"{image.dataset}:"),
            patient=image.patient,
            taken_at=image.taken_at,
            split=image.split.value,
            cells=cells,
        )
        tally.add(exported)
        yield exported
        on_progress(done, total, name)


def _flush(folder: Path) -> None:
    """Bring every file onto the disk, so that no folder of empty files appears after a power cut."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
