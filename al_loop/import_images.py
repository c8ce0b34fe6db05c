"""Bring a data set in: store each image once, give it a split, and record the labels it came with.

First every image is checked and stored by its sha256, then splits are assigned to all new groups at once, then rows
are written in short transactions. Killed in between and run again, the import goes on where it stopped: what is
there already is skipped, labels included, so an expert's answer is never covered by an older file.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy.orm import Session

from al_loop.formats.detect import detect_format, read_source
from al_loop.formats.name_pattern import NamePattern
from al_loop.formats.records import Problem, SourceImage, SourceObject
from al_loop.import_patients import learn, slides_of_several
from al_loop.import_report import ImportReport, Tally
from al_loop.import_splits import Checked, assign, choose
from al_loop.ruler import freeze_ruler
from backend.errors import ImageRefused, UnusableAnnotations
from backend.images import probe, read_image
from backend.label_studio.regions import MAX_KEY
from backend.store import FileStore, Stored
from db import forget
from db.cells import new_key
from db.errors import ImageForgotten
from db.images import add_image, add_import, by_split, in_several_splits
from db.labels import add_revisions, revision
from db.models import Action, Cell, Image, ReviewStatus, Split, now
from db.reviews import IMPORT_EXPERT, add_review, import_thread, latest_review
from db.session import Database

OnProgress = Callable[[int, int, str], None]  # images done, images in all, what is going on

READERS = 2  # decoding and hashing run outside Python's lock
IMAGES_PER_TRANSACTION = 25  # short enough that nobody waits long for SQLite's one writer
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "BMP": ".bmp", "WEBP": ".webp"}


def import_images(
    database: Database,
    store: FileStore,
    source: Path,
    dataset: str | None = None,
    *,
    label_share: float = 1.0,
    seed: int = 0,
    name_pattern: str | None = None,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Import the images that `source` (folder, zip or annotation file) lists and that are there.

    label_share: of the train images this brings, how many also get their labels (validation and test always do);
    the others are the pool. seed: of the split and of that choice. name_pattern: as `NamePattern.of` takes it. Bad
    records are counted in the report; only a source without any usable annotation raises UnusableAnnotations, and a
    pattern that says nothing SettingRefused. Importing again adds nothing but patients and days that were unknown.
    """
    if not 0.0 <= label_share <= 1.0:
        raise UnusableAnnotations(f"label share: expected a number from 0 to 1, got {label_share}")
    pattern = None if name_pattern is None else NamePattern.of(name_pattern)
    began = time.monotonic()
    dataset = dataset or detect_format(source)
    tally = Tally()
    listed = read_source(source, dataset)
    if pattern is not None:
        listed, misfits = pattern.tell(listed)
        tally.add(*misfits)
    images = list(_present(listed, tally))
    with database.session(read_only=True) as session:
        known = {image.sha256: image for split in Split for image in by_split(session, split)}
        kept_out = forget.kept_out(session)
    report_step = on_progress or (lambda done, total, what: None)
    fresh, again = _check_all(images, store, known, kept_out, tally, report_step)
    with database.session() as session:
        learned, contradictions = learn(session, [(known[sha256].id, source) for sha256, source in again.items()])
    tally.learned += len(learned)
    tally.add(*contradictions)
    known |= {image.sha256: image for image in learned}
    tally.add(*slides_of_several(fresh, dataset))
    promised = {image.official_split for image in images if image.official_split}
    splits = assign(fresh, dataset, list(known.values()), promised, seed)
    labelled = choose(fresh, dataset, splits, label_share, seed)
    _write(database, fresh, dataset, splits, labelled, tally, report_step)
    with database.session() as session:
        patients = {image.patient for image in images if image.patient}
        tally.add(*(Problem("patient in several splits", name) for name in in_several_splits(session, patients)))
        tally.add(*(Problem("forgotten patient", name) for name in forget.returned(session, patients)))
        frozen = freeze_ruler(session)
        report = tally.report(str(source), dataset, frozen, time.monotonic() - began)
        add_import(session, source=str(source), dataset=dataset, report=report.to_json())
    return report


def _present(images: Sequence[SourceImage], tally: Tally) -> Iterator[SourceImage]:
    """Images whose file is in the source, each once; counts the rest and every record's own problems."""
    seen: set[str] = set()
    for image in images:
        tally.listed += 1
        if image.name and image.file is None:
            tally.add(Problem("missing image", image.name))
        elif image.file is None:
            tally.add(*image.problems)
        elif image.file in seen:
            tally.add(Problem("duplicate image", f"{image.name} is listed twice"))
        else:
            seen.add(image.file)
            yield image


def _check_all(
    images: Sequence[SourceImage],
    store: FileStore,
    known: dict[str, Image],
    kept_out: dict[str, int],
    tally: Tally,
    on_progress: OnProgress,
) -> tuple[list[Checked], dict[str, SourceImage]]:
    """New images, stored and without doubles, and the known ones by sha256; unusable ones are only counted."""
    fresh: dict[str, Checked] = {}
    again: dict[str, SourceImage] = {}
    with ThreadPoolExecutor(READERS) as readers:
        results = readers.map(lambda image: _check(image, store, known, kept_out), images)
        for done, checked in enumerate(results, start=1):
            on_progress(done, len(images), f"reading {checked.source.name}")
            tally.add(*checked.problems)
            if checked.stored is None:
                continue
            if checked.stored.sha256 in known:
                tally.already_there += 1
                again.setdefault(checked.stored.sha256, checked.source)
            elif checked.stored.sha256 in fresh:
                other = fresh[checked.stored.sha256].source.name
                tally.add(Problem("duplicate image", f"{checked.source.name} has the bytes of {other}"))
            else:
                fresh[checked.stored.sha256] = checked
    return list(fresh.values()), again


def _check(source: SourceImage, store: FileStore, known: dict[str, Image], kept_out: dict[str, int]) -> Checked:
    """Read one image file, compare it with its record, decode it once, and store it."""

    def refuse(kind: str, detail: str) -> Checked:
        return Checked(source, None, 0, 0, (), (Problem(kind, f"{source.name}: {detail}"),))

    try:
        with source.open() as handle:
            data = handle.read()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in kept_out:  # its name stays out of the report, too
            return Checked(source, None, 0, 0, (), (Problem("forgotten image", f"forgetting {kept_out[sha256]}"),))
        if source.checksum:
            name = "sha256" if len(source.checksum) == len(sha256) else "md5"
            found = sha256 if name == "sha256" else hashlib.md5(data, usedforsecurity=False).hexdigest()
            if found != source.checksum:
                return refuse("checksum mismatch", f"expected {name} {source.checksum}, got {found}")
        image = known.get(sha256)
        if image is not None:
            store.put_as(image.file, image.sha256, (data,))  # its file may have been lost, or damaged
            return Checked(source, Stored(image.sha256, image.file), image.width, image.height, (), ())
        facts = probe(data)
        if (source.width, source.height) not in ((None, None), (facts.width, facts.height)):
            size = f"{source.width} x {source.height} px, got {facts.width} x {facts.height}"
            return refuse("size mismatch", f"expected {size}")
        read_image(data)  # a file that breaks while it is decoded must not reach the experts or a training
    except (ImageRefused, OSError) as error:
        return refuse("unreadable image", str(error))
    objects, problems = source.usable_objects(facts.width, facts.height)
    stored = store.put_bytes("images", data, SUFFIXES.get(facts.format, ""))
    return Checked(source, stored, facts.width, facts.height, tuple(objects), (*source.problems, *problems))


def _write(
    database: Database,
    fresh: Sequence[Checked],
    dataset: str,
    splits: dict[str, str],
    labelled: set[str],
    tally: Tally,
    on_progress: OnProgress,
) -> None:
    for start in range(0, len(fresh), IMAGES_PER_TRANSACTION):
        with database.session() as session:
            for checked in fresh[start : start + IMAGES_PER_TRANSACTION]:
                _write_one(session, checked, dataset, splits[checked.group(dataset)], labelled, tally)
        on_progress(min(start + IMAGES_PER_TRANSACTION, len(fresh)), len(fresh), "recording labels")


def _write_one(session: Session, checked: Checked, dataset: str, split: str, labelled: set[str], tally: Tally) -> None:
    stored = checked.stored
    assert stored is not None
    try:
        image, created = add_image(
            session,
            sha256=stored.sha256,
            file=stored.file,
            name=checked.source.name[:255],
            width=checked.width,
            height=checked.height,
            group=checked.group(dataset),
            split=split,
            dataset=checked.dataset(dataset),
            patient=checked.source.patient,
            taken_at=checked.source.taken_at,
        )
    except ImageForgotten:  # while this import was reading
        tally.add(Problem("forgotten image", "during this import"))
        return
    if not created:  # another import was quicker
        tally.already_there += 1
        return
    tally.added[split] += 1
    if stored.sha256 in labelled:
        record_labels(session, image, checked.objects)
        tally.labelled[split] += 1
        tally.cells.update(thing.label for thing in checked.objects)


def record_labels(session: Session, image: Image, objects: Sequence[SourceObject]) -> bool:
    """Record the labels an image came with as one submitted review. False when it was done before."""
    thread = import_thread(image.sha256)
    if latest_review(session, thread) is not None:
        return False
    review = add_review(
        session,
        thread=thread,
        image_id=image.id,
        status=ReviewStatus.submitted,
        expert=IMPORT_EXPERT,
        revised_at=now(),
        content=[thing.content() for thing in objects],
    )
    cells = [Cell(image_id=image.id, key=key) for key in _keys(objects)]
    session.add_all(cells)
    session.flush()
    rows = [
        revision(
            review,
            cell.id,
            Action.imported,
            thing.label,
            thing.box,
            shape=thing.shape or ("brush" if thing.mask else "rectangle"),
            mask=thing.mask["counts"] if thing.mask else None,
        )
        for cell, thing in zip(cells, objects, strict=True)
    ]
    add_revisions(session, rows)
    return True


def _keys(objects: Sequence[SourceObject]) -> Iterator[str]:
    """The cells' keys: their own where the source gives them, each once; else new ones."""
    taken: set[str] = set()
    for thing in objects:
        key = thing.key if thing.key and len(thing.key) <= MAX_KEY and thing.key not in taken else new_key()
        taken.add(key)
        yield key
