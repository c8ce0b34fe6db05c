"""What experts would correct in a candidate's pair is known before it serves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from al_loop.canary import LEAST, compare_replays, replay
from al_loop.context import Loop
from al_loop.promote import judge, settle
from db import canaries, images, predictions, queue, runs, versions
from db.labels import add_revisions, revision
from db.models import Action, Slot, VersionStatus
from db.queue import QueueEntry
from db.session import Database
from tests import builders
from tests.al_loop.test_evaluate import Blind, FakeBench, add_labelled_smear, contest, loop, truth_boxes  # noqa: F401
from tests.backend.smears import HEIGHT, WIDTH, DiscDetector, png


def random_field(loop: Loop, seed: int) -> None:  # noqa: F811
    """A smear that the serving pair showed in a random slot, and an expert's answer: what is there."""
    stored = loop.store.put_bytes("images", png(seed), ".png")
    with loop.database.session() as session:
        image, _ = images.add_image(
            session, sha256=stored.sha256, file=stored.file, name=f"{seed}.png", width=WIDTH, height=HEIGHT,
            group=str(seed), split="train", dataset="rendered",
        )  # fmt: skip
        pair = versions.active_pair(session)
        assert pair is not None
        truth = truth_boxes(seed)
        shown = builders.add_prediction(session, image, pair, [box for _, box in truth])
        ranking = queue.add_ranking(session, pair.id, {})
        queue.add_items(session, ranking.id, [QueueEntry(image.id, 1.0, {}, slot=Slot.random)])
        review = builders.add_review(session, image, f"ls:1:{image.id}", prediction_id=shown.id)
        cells = predictions.predicted_cells(session, shown.id)
        add_revisions(
            session,
            [
                revision(review, cell.cell_id, Action.relabelled, label, box)
                for (cell, _), (label, box) in zip(cells, truth, strict=True)
            ],
        )
        queue.close(session, image.id, "done")


def watched(loop: Loop, candidate: Any, fields: int) -> tuple[FakeBench, int, int]:  # noqa: F811
    """A candidate beside a pair that sees everything, and so many answered random fields; bench, version, run."""
    bench, _, version = contest(loop, candidate)
    for seed in range(300, 300 + fields):
        random_field(loop, seed)
    with loop.database.session() as session:
        run = runs.open_run(session, "infected", "person", {}, {})
        assert run is not None
        return bench, version, run.id


def test_a_pair_that_experts_would_correct_more_is_refused_before_it_serves(loop: Loop) -> None:  # noqa: F811
    bench, version, run_id = watched(loop, Blind("infected"), LEAST)
    verdict = replay(loop, version, run_id, bench)
    assert not verdict.promote
    assert "experts would correct 0.00 -> 1.00 cells each" in verdict.reasons[0]
    looks = bench.looks
    again = replay(loop, version, run_id, bench)
    assert (again.promote, again.reasons) == (False, verdict.reasons)
    assert bench.looks == looks, "recorded once"
    passed = judge(loop, version, None)
    settle(loop, version, None, run_id, [passed, verdict])
    with loop.database.session(read_only=True) as session:
        [check] = canaries.checks(session)
        assert (check.kind, check.verdict, check.numbers["fair"]) == ("replayed", "refused", LEAST)
        [decision] = versions.decisions(session, version)
        assert (decision.kind, decision.promote) == ("canary", False)
        assert decision.reasons[0].startswith("canary: on 8 answered random fields")
        assert versions.get(session, version).status == VersionStatus.rejected


def test_a_pair_as_good_passes_and_fields_that_only_it_learned_from_go_last(loop: Loop) -> None:  # noqa: F811
    bench, version, run_id = watched(loop, DiscDetector("infected", tint=0.01), LEAST)
    with loop.database.session() as session:
        learned = images.by_sha256(session, loop.store.put_bytes("images", png(300), ".png").sha256)
        assert learned is not None
        candidate = builders.add_version(session, manifest={"images": [{"sha256": learned.sha256}]})
        bench.detectors[candidate.weights_sha256] = DiscDetector("infected")
    for number in (version, candidate.id):
        verdict = replay(loop, number, run_id, bench)
        assert verdict.promote, verdict.reasons
    assert "(1 of them only the candidate or only the other has learned from)" in verdict.reasons[0]
    assert verdict.numbers["canary"]["fair"] == LEAST - 1


def test_too_few_fields_say_nothing_and_a_first_pair_has_no_canary(loop: Loop, database: Database) -> None:  # noqa: F811
    with database.session() as session:
        lone = builders.add_version(session)
    assert replay(loop, lone.id, None).reasons == ["canary: no other pair serves yet"]
    bench, version, run_id = watched(loop, Blind("infected"), 2)
    assert replay(loop, version, run_id, bench).reasons[0].endswith("fewer than 8: nothing to say yet")


@pytest.mark.parametrize(("rate", "most"), [(3.0, 13), (3.3, 25)])
def test_a_pair_as_good_is_rarely_refused(rate: float, most: int) -> None:
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(100):
        field = rng.gamma(2.0, 0.5, 40)
        before, after = rng.poisson(3.0 * field).tolist(), rng.poisson(rate * field).tolist()
        refused += not compare_replays(before, after, 40).promote
    assert refused <= most
