"""Poisoned labels must not be promoted, and as many clean labels must be: by real retrainings and the real gate.

Labelled smears are dealt by groups into what is measured, what the fusion is fitted on, what the incumbent knows, and
new fields. The new labels then arrive as an expert's reviews: once as they are, once with some of the infected cells
called something else at random, once with every ring called a schizont. Each time a candidate is trained, evaluated
and judged as in any turn of the loop.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from al_loop.bench import Bench
from al_loop.context import Loop
from al_loop.dataset import LabelledCell, LabelledImage
from al_loop.evaluate import evaluate_candidate
from al_loop.gate import Verdict
from al_loop.labelled_files import LabelledFile
from al_loop.promote import judge
from al_loop.retrain import retrain, training_config
from al_loop.ruler import freeze_ruler
from al_loop.starter_install import install_starter
from backend.credentials import load_credentials
from backend.errors import NotEnoughData
from backend.instances import INFECTED
from backend.settings import Settings
from backend.store import FileStore
from db import cells, images, labels, reviews, runs, versions
from db.migrate import upgrade
from db.models import Action, ReviewStatus, Split, now
from db.session import Database

Report = Callable[[int, int, str], None]  # done, total, a word on what is being done

ARMS = ("clean", "flipped", "rings")
FLIPPED = 0.3  # of the new infected labels, each to another class
TO_RED = {"flipped": 0.5, "healthy": 1.0, "stages": 0.0}  # how many of these to the healthy class, by kind of poison
RED = "red blood cell"


@dataclass(frozen=True)
class Shares:
    """How the images are dealt. known: what the incumbent is trained on; 0: the starter weights are the incumbent."""

    test: float = 0.4
    validation: float = 0.1
    known: float = 0.2


@dataclass(frozen=True)
class Dealt:
    """The four parts, in a fixed order."""

    test: Sequence[LabelledFile]
    validation: Sequence[LabelledFile]
    known: Sequence[LabelledFile]
    new: Sequence[LabelledFile]


def deal(files: Sequence[LabelledFile], shares: Shares, seed: int) -> Dealt:
    """Deal whole groups (slides, blocks of neighbours) at random. Raises NotEnoughData when a part gets none."""
    groups: dict[str, list[LabelledFile]] = {}
    for file in files:
        groups.setdefault(file.group or file.name, []).append(file)
    names = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(names))
    parts: list[list[LabelledFile]] = [[], [], [], []]
    ends = np.cumsum([shares.test, shares.validation, shares.known])
    for place in order:
        done = sum(map(len, parts)) / len(files)
        parts[int((done >= ends - 1e-9).sum())] += groups[names[place]]
    dealt = Dealt(*parts)
    if not (dealt.test and dealt.new):
        raise NotEnoughData(f"bench poison: expected fields to test on and new ones, got {len(files)} in all")
    return dealt


def poisoned(image: LabelledImage, arm: str, rng: np.random.Generator) -> LabelledImage:
    """The labels as they arrive. arm: "clean"; "rings", every ring called schizont; or of TO_RED, by chance."""

    def called(cell: LabelledCell) -> str:
        if arm == "rings":
            return "schizont" if cell.label == "ring" else cell.label
        if arm in TO_RED and cell.label in INFECTED and rng.random() < FLIPPED:
            others = [name for name in INFECTED if name != cell.label]
            return RED if rng.random() < TO_RED[arm] else str(rng.choice(others))
        return cell.label

    return replace(image, cells=tuple(replace(cell, label=called(cell)) for cell in image.cells))


def benchmark_poison(
    files: Sequence[LabelledFile],
    scratch: Path,
    seeds: Sequence[int],
    settings: dict[str, Any],
    shares: Shares | None = None,
    report: Report = lambda done, total, note: None,
    arms: Sequence[str] = ARMS,
) -> dict[str, Any]:
    """These kinds of labels for every seed; plain values, for JSON. settings: of the trainings (`backend/settings.py`).

    Raises NotEnoughData.
    """
    found: list[dict[str, Any]] = []
    for number, seed in enumerate(seeds):
        dealt = deal(files, shares or Shares(), seed)
        home = scratch / str(seed)
        base = _installed(home, home / "base.db", settings, dealt)
        base.database.dispose()  # SQLite then writes all of it into the one file that is copied
        bench = Bench(base.store, base.settings.device)
        for place, arm in enumerate(arms):
            told = f"seed {seed}, {arm} labels"
            report(number * len(arms) + place, len(seeds) * len(arms), told)
            shutil.copy(home / "base.db", home / f"{arm}.db")
            verdict, changed = _turn(_loop(home, home / f"{arm}.db", settings), bench, dealt, arm, seed)
            found.append({"seed": seed, "labels": arm, "changed": changed} | asdict(verdict))
            said = "promoted" if verdict.promote else "refused"
            report(number * len(arms) + place + 1, len(seeds) * len(arms), f"{told}: {said}")
    promoted = {arm: sum(bool(each["promote"]) for each in found if each["labels"] == arm) for arm in arms}
    return {"seeds": len(seeds), "promoted": promoted, "arms": found}


def _loop(home: Path, file: Path, settings: dict[str, Any]) -> Loop:
    values = settings | {"home": home, "database_url": f"sqlite:///{file}"}
    configured = Settings(**values)
    database = Database(configured.database_url)
    return Loop(configured, database, FileStore(configured.files), load_credentials(home))


def _installed(home: Path, file: Path, settings: dict[str, Any], dealt: Dealt) -> Loop:
    """An installation whose incumbent has learned from the known fields."""
    home.mkdir(parents=True, exist_ok=True)
    upgrade(f"sqlite:///{file}")
    loop = _loop(home, file, settings)
    with loop.database.session() as session:
        for part, split in ((dealt.test, Split.test), (dealt.validation, Split.validation)):
            for each in part:
                _review(session, _add(session, loop.store, each, split), each.labelled)
        for each in (*dealt.known, *dealt.new):
            _add(session, loop.store, each, Split.train)
        for each in dealt.known:
            _review(session, _add(session, loop.store, each, Split.train), each.labelled)
        freeze_ruler(session)
    install_starter(loop)
    if dealt.known:
        version_id = _retrained(loop)
        with loop.database.session() as session:
            versions.activate(session, version_id, kind="person", reasons=["the incumbent of the benchmark"])
    return loop


def _turn(loop: Loop, bench: Bench, dealt: Dealt, arm: str, seed: int) -> tuple[Verdict, int]:
    """New labels, a retraining, an evaluation, the gate; and how many labels were changed."""
    rng, changed = np.random.default_rng([seed, ARMS.index(arm)]), 0
    with loop.database.session() as session:
        for each in dealt.new:
            arrived = poisoned(each.labelled, arm, rng)
            before = [cell.label for cell in each.labelled.cells]
            changed += sum(cell.label != label for cell, label in zip(arrived.cells, before, strict=True))
            _review(session, _add(session, loop.store, each, Split.train), arrived)
    version_id = _retrained(loop)
    verdict = judge(loop, version_id, evaluate_candidate(loop, version_id, bench=bench))
    loop.database.dispose()
    return verdict, changed


def _retrained(loop: Loop) -> int:
    with loop.database.session() as session:
        run = runs.open_run(session, "infected", "person", {}, asdict(training_config(loop.settings, "infected")))
        assert run is not None  # nobody else is here
        runs.start_run(session, run.id)
    version_id = retrain(loop, run.id)
    with loop.database.session() as session:
        runs.finish(session, run.id, version_id)
    return version_id


def _add(session: Session, store: FileStore, file: LabelledFile, split: Split) -> int:
    """The image's row, stored and made where there is none; its id."""
    image = file.labelled
    known = images.by_sha256(session, image.sha256)
    if known is not None:
        return known.id
    stored = store.put_file("images", Path(image.file))
    row, _ = images.add_image(
        session,
        sha256=image.sha256,
        file=stored.file,
        name=file.name,
        width=image.width,
        height=image.height,
        group=file.group or file.name,
        split=split,
        dataset="rendered",
    )
    return row.id


def _review(session: Session, image_id: int, labelled: LabelledImage) -> None:
    """An expert has drawn these cells."""
    review = reviews.add_review(
        session,
        thread=f"ls:1:{image_id}",
        image_id=image_id,
        status=ReviewStatus.submitted,
        expert="bench",
        revised_at=now(),
        content=[],
    )
    rows = [
        labels.revision(
            review,
            cells.add_cell(session, image_id).id,
            Action.added,
            cell.label,
            cell.box,
            mask=None if cell.mask is None else cell.mask.encode("ascii"),
        )
        for cell in labelled.cells
    ]
    labels.add_revisions(session, rows)
