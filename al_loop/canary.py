"""The canary: would experts have to correct a new pair more than the pair it replaces? Asked twice.

Before it serves (`replay`), on fields that chance put before experts and that they have answered: both pairs predict
them now, and what turns either into the answer is counted. Experts answer by correcting what they are shown, so the
answers lean towards the pair of that time, and the candidate may have learned from them: docs/decisions/0035.
Once it serves, `al_loop/watch_canary.py` goes by what experts really change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from al_loop.bench import Bench, Contestant
from al_loop.context import Loop
from al_loop.corrections import Cells, corrections
from al_loop.dataset import LabelledImage, truth
from al_loop.gate import Verdict
from al_loop.permutation import sign_flip
from al_loop.seen_images import trained_on
from backend.fuse import FusionConfig, fuse
from backend.instances import CLASSES, DIFFICULT
from db import canaries, versions
from db.images import by_ids

FIELDS = 40  # predicted by both pairs in a replay: a minute on one core
LEAST = 8  # fields without which nothing is said
ALPHA = 0.05  # how often a pair that is as good is refused, or rolled back once it serves
ALLOWED = 1.1  # times as many corrections are none too many: of boxes and words that both would do


def replay(loop: Loop, version_id: int, run_id: int | None, bench: Bench | None = None) -> Verdict:
    """Whether the candidate's pair would have been corrected significantly more than the pair that serves.

    Recorded once per run; repeated, it answers the same. Raises StoredFileCorrupt.
    """
    with loop.database.session() as session:
        version = versions.get(session, version_id)
        serving, role = versions.active_pair(session), version.role
        beside = versions.active(session, role)
        if serving is None or beside is None or beside.id == version_id:
            return Verdict(True, ["canary: no other pair serves yet"], {})
        other = versions.get(session, serving.infected_id if role == "all_cells" else serving.all_cells_id)
        contestants = [Contestant.of(beside, other), Contestant.of(version, other)]
        pair = versions.pair_of(session, contestants[1].all_cells_id, contestants[1].infected_id)
        known = canaries.newest_check(session, pair.id, "replayed")
        if known is not None and run_id is not None and known.numbers.get("run") == run_id:
            return Verdict(known.verdict == "passed", list(known.reasons), {"canary": known.numbers}, beside.id)
        fusions = [FusionConfig.from_json(each.fusion) for each in (serving, pair)]
        images, fair = _fields(session, trained_on(beside), trained_on(version))
        ids = (pair.id, serving.id)
    bench = bench or Bench(loop.store, loop.settings.device)
    counts = [
        [_corrections(bench, contestant, fusion, image) for image in images]
        for contestant, fusion in zip(contestants, fusions, strict=True)
    ]
    verdict = compare_replays(counts[0], counts[1], fair)
    numbers = verdict.numbers | {"run": run_id}
    with loop.database.session() as session:
        word = "passed" if verdict.promote else "refused"
        canaries.add_check(session, *ids, kind="replayed", verdict=word, reasons=verdict.reasons, numbers=numbers)
    return Verdict(verdict.promote, verdict.reasons, {"canary": numbers}, beside.id)


def _fields(session: Session, *learned: set[str]) -> tuple[list[LabelledImage], int]:
    """Random fields with their answers, FIELDS at most, and how many of them both or neither have learned from.

    Those first, since having learned from an answer is an advantage; then those answered last. learned: sha256.
    """
    drawn = [field.image_id for field in canaries.random_fields(session, 10 * FIELDS)]
    rows = by_ids(session, drawn)
    known = {image.sha256: image for image in truth(session, drawn)}
    images = [known[rows[image_id].sha256] for image_id in drawn]
    unequal = [len({image.sha256 in seen for seen in learned}) > 1 for image in images]
    order = sorted(range(len(images)), key=lambda place: unequal[place])[:FIELDS]
    return [images[place] for place in order], sum(not unequal[place] for place in order)


def _corrections(bench: Bench, contestant: Contestant, fusion: FusionConfig, image: LabelledImage) -> int:
    """How many cells an expert would have to change in what this pair shows of an answered field."""
    [all_cells], [infected] = (bench.see(sha256, [image]) for sha256 in contestant.weights)
    cells = fuse(all_cells, infected, fusion).cells
    shown = cells.select(cells.probabilities.sum(axis=1) >= fusion.show_threshold)
    named = tuple(CLASSES[label] for label in shown.labels)
    sure = [cell for cell in image.cells if cell.label != DIFFICULT]
    boxes = np.array([cell.box for cell in sure], dtype=np.float32).reshape(-1, 4)
    answer = Cells(boxes, tuple(cell.label for cell in sure))
    return corrections(Cells(shown.boxes, named), answer, image.ignore_boxes()).total


def compare_replays(before: Sequence[int], after: Sequence[int], fair: int) -> Verdict:
    """Corrections per field of the pair that serves and of the candidate, on the same fields, `fair` of them first.

    fair: how many fields both or neither have learned from.
    """
    n = len(before)
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    numbers: dict[str, Any] = {"fields": n, "fair": fair, "before": old.tolist(), "after": new.tolist()}
    if n < LEAST:
        return Verdict(True, [f"canary: {n} answered random fields, fewer than {LEAST}: nothing to say yet"], numbers)
    p = sign_flip(new - ALLOWED * old)
    said = (
        f"canary: on {n} answered random fields ({n - fair} of them only the candidate or only the other has learned "
        f"from) experts would correct {old.mean():.2f} -> {new.mean():.2f} cells each (p = {p:.3f})"
    )
    refused = p < ALPHA
    reason = f"{said}: {'significantly more' if refused else 'not shown to be more'}"
    return Verdict(not refused, [reason], numbers | {"p": p})
