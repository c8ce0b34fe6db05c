"""Candidate and incumbent on the frozen ruler, and the decision that follows, with detectors that need no training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from al_loop.bench import Bench
from al_loop.context import Loop
from al_loop.dataset import LabelledCell, LabelledImage
from al_loop.evaluate import evaluate_candidate, evaluate_pair
from al_loop.judge_counts import Reliability
from al_loop.metrics import POOLED
from al_loop.promote import judge, promote, settle
from al_loop.ruler import freeze_ruler
from backend.credentials import load_credentials
from backend.errors import NotEnoughData
from backend.fuse import FusionConfig
from backend.images import read_image
from backend.instances import CLASS_INDEX, Instances
from backend.preannotate import Pair
from backend.settings import Settings
from backend.store import FileStore
from db import evaluations, images, runs, versions
from db.cells import add_cell
from db.errors import NotFound
from db.models import Action, Image, PromotionDecision, VersionStatus
from db.session import Database
from tests import builders
from tests.al_loop.deciding import decide, undo
from tests.backend.smears import HEIGHT, WIDTH, DiscDetector, png, smear

TEST_IMAGES = 12


class Blind(DiscDetector):
    """Sees nothing at all."""

    def detect(self, image: NDArray[np.uint8], masks: bool = False) -> Instances:
        return super().detect(np.full_like(image, 255), masks)


class FakeBench(Bench):
    """Detectors by the sha256 of weights that were never written; counts how often one looked at an image."""

    def __init__(self, store: FileStore, detectors: dict[str, Any]) -> None:
        super().__init__(store, "cpu")
        self.detectors, self.looks = detectors, 0

    def detector(self, weights_sha256: str) -> Any:
        self.looks += 1
        return self.detectors[weights_sha256]


@pytest.fixture
def loop(tmp_path: Path, database: Database) -> Loop:
    """A home whose test split is frozen: twelve smears of one ring and one red cell each."""
    settings = Settings(home=tmp_path, database_url=str(database.engine.url.render_as_string(hide_password=False)))
    loop = Loop(settings, database, FileStore(settings.files), load_credentials(tmp_path))
    for seed in range(TEST_IMAGES):
        add_labelled_smear(loop, seed, "test")
    add_labelled_smear(loop, 100, "validation")
    with database.session() as session:
        freeze_ruler(session)
    return loop


def truth_boxes(seed: int) -> list[tuple[str, tuple[float, float, float, float]]]:
    """What DiscDetector would say of the smear: its first disc is a ring, the other one red."""
    cells = DiscDetector("all_cells").detect(smear(seed))
    x1, y1, x2, y2 = (float(value) for value in cells.boxes[0])
    a, b, c, d = (float(value) for value in cells.boxes[1])
    return [("ring", (x1, y1, x2, y2)), ("red blood cell", (a, b, c, d))]


def add_labelled_smear(loop: Loop, seed: int, split: str) -> Image:
    """A stored smear with its two cells labelled by an import."""
    stored = loop.store.put_bytes("images", png(seed), ".png")
    with loop.database.session() as session:
        image, _ = images.add_image(
            session, sha256=stored.sha256, file=stored.file, name=f"{seed}.png", width=WIDTH, height=HEIGHT,
            group=str(seed), split=split, dataset="rendered",
        )  # fmt: skip
        for number, (label, box) in enumerate(truth_boxes(seed)):
            cell = add_cell(session, image.id)
            builders.say(
                session, cell, label, f"import:{seed}:{number}", action=Action.imported, box=box, expert="import"
            )
    return image


def add(loop: Loop, role: str) -> tuple[int, str]:
    """A new candidate; its id and the sha256 of its weights."""
    with loop.database.session() as session:
        version = builders.add_version(session, role)
        return version.id, version.weights_sha256


def status(loop: Loop, version_id: int) -> VersionStatus:
    with loop.database.session(read_only=True) as session:
        return versions.get(session, version_id).status


def contest(loop: Loop, infected: Any) -> tuple[FakeBench, int, int]:
    """A serving pair that sees everything, and a candidate `infected`; its bench and the ids of both."""
    (first, first_sha), (incumbent, incumbent_sha), (candidate, candidate_sha) = (
        add(loop, role) for role in ("all_cells", "infected", "infected")
    )
    seeing = {first_sha: DiscDetector("all_cells"), incumbent_sha: DiscDetector("infected"), candidate_sha: infected}
    for version_id in (first, incumbent):
        decide(loop, version_id, None)
    return FakeBench(loop.store, seeing), incumbent, candidate


def labelled(seed: int) -> LabelledImage:
    cells = tuple(LabelledCell(label, box) for label, box in truth_boxes(seed))
    return LabelledImage(str(seed), f"{seed}.png", WIDTH, HEIGHT, cells)


def test_a_pair_is_scored_on_what_it_fuses() -> None:
    pair = Pair("p", DiscDetector("all_cells"), DiscDetector("infected"), FusionConfig())  # type: ignore[arg-type]
    seen: list[tuple[int, int]] = []
    report = evaluate_pair(
        pair,
        [labelled(1), labelled(2)],
        lambda image: smear(int(image.sha256)),
        on_progress=lambda *at: seen.append(at),
    )
    assert report.value("pooled_infected_ap50") == pytest.approx(1)
    assert report.value("ap50", "red blood cell") == pytest.approx(1)
    assert seen == [(1, 2), (2, 2)]
    blind = replace(pair, infected=Blind("infected"))  # type: ignore[arg-type]
    report = evaluate_pair(blind, [labelled(1)], lambda image: smear(int(image.sha256)))
    assert report.matches[POOLED].scores.max() < 0.1  # what one detector is silent about is hardly believed


def test_difficult_cells_count_neither_way() -> None:
    image = labelled(1)
    unsure = replace(image, cells=(replace(image.cells[0], label="difficult"), image.cells[1]))
    pair = Pair("p", DiscDetector("all_cells"), DiscDetector("infected"), FusionConfig())  # type: ignore[arg-type]
    report = evaluate_pair(pair, [unsure], lambda image: smear(int(image.sha256)))
    assert (report.matches["ring"].scores < 0.05).all()
    assert report.matches["red blood cell"].hits.tolist() == [True]


def test_candidate_and_incumbent_are_measured_once_each_on_the_same_ruler(loop: Loop) -> None:
    bench, incumbent, candidate = contest(loop, DiscDetector("infected"))
    evaluation_id = evaluate_candidate(loop, candidate, bench=bench)
    # Three detectors, each on twelve test images and one of validation: the shared one looks once.
    assert bench.looks == 3 * (TEST_IMAGES + 1)
    assert evaluate_candidate(loop, candidate, bench=bench) == evaluation_id
    assert bench.looks == 3 * (TEST_IMAGES + 1)
    with loop.database.session(read_only=True) as session:
        evaluation = evaluations.get_evaluation(session, evaluation_id)
        pair = versions.pair(session, evaluation.pair_id)
        assert pair.infected_id == candidate
        assert pair.fusion == FusionConfig.from_json(pair.fusion).to_json()
        numbers = evaluations.metrics_of(session, evaluation_id)
        assert numbers["pooled_infected_ap50", ""].value == pytest.approx(1)
        assert numbers["ap50", "ring"].n == TEST_IMAGES
        assert numbers["ap50", "schizont"].value is None
        serving = versions.active_pair(session)
        assert serving.infected_id == incumbent
        assert evaluations.evaluation_of(session, serving.id, evaluation.split_sha256) is not None


def test_calibration_is_stored_with_an_evaluation(loop: Loop) -> None:
    bench, _, candidate = contest(loop, DiscDetector("infected"))
    evaluation_id = evaluate_candidate(loop, candidate, bench=bench)
    with loop.database.session(read_only=True) as session:
        numbers = evaluations.metrics_of(session, evaluation_id)
        curves = evaluations.reliability_of(session, evaluation_id)
        report = evaluations.get_evaluation(session, evaluation_id).report
    assert curves == report["reliability"]
    assert set(curves) == {"infected", "suspected", "top", "cell"}
    assert sum(curves["infected"]["n"]) == 2 * TEST_IMAGES == numbers["ece_infected", ""].n
    for group, curve in curves.items():
        error = numbers[f"ece_{group}", ""]
        assert error.value is not None
        assert error.low is not None
        assert error.high is not None
        assert error.low <= error.value <= error.high
        claimed, observed, n = (np.array(curve[column]) for column in ("claimed", "observed", "n"))
        assert error.value == pytest.approx(np.abs(claimed - observed) @ n / n.sum(), abs=1e-5)
        sums = report["reliability_by_image"][group]
        again = Reliability(*(np.array(sums[column]) for column in ("claimed", "observed", "n")))
        assert again.error(np.ones((1, TEST_IMAGES), dtype=np.int64)) == pytest.approx([error.value], abs=1e-5)


def test_an_equal_candidate_is_promoted_and_the_decision_repeats(loop: Loop) -> None:
    bench, incumbent, candidate = contest(loop, DiscDetector("infected", tint=0.01))
    with loop.database.session() as session:
        run = runs.open_run(session, "infected", "person", {}, {})
    evaluation_id = evaluate_candidate(loop, candidate, bench=bench)
    verdict = decide(loop, candidate, evaluation_id, run.id)
    assert verdict.promote, verdict.reasons
    assert (status(loop, candidate), status(loop, incumbent)) == (VersionStatus.active, VersionStatus.retired)
    again = settle(loop, candidate, evaluation_id, run.id, [verdict])
    assert (again.promote, again.reasons) == (True, verdict.reasons)
    with loop.database.session(read_only=True) as session:
        [decision] = versions.decisions(session, candidate)
        assert (decision.kind, decision.evaluation_id, decision.replaced_id) == ("gate", evaluation_id, incumbent)


def test_a_blind_candidate_is_refused_with_reasons_in_the_record(loop: Loop) -> None:
    bench, incumbent, candidate = contest(loop, Blind("infected"))
    evaluation_id = evaluate_candidate(loop, candidate, bench=bench)
    verdict = decide(loop, candidate, evaluation_id)
    assert not verdict.promote
    assert (status(loop, candidate), status(loop, incumbent)) == (VersionStatus.rejected, VersionStatus.active)
    with loop.database.session(read_only=True) as session:
        [decision] = versions.decisions(session, candidate)
        assert not decision.promote
        assert decision.reasons == verdict.reasons
        assert "infected recall" in decision.reasons[0]


def test_the_first_version_of_a_role_serves_with_nothing_to_compare(loop: Loop) -> None:
    version, _ = add(loop, "all_cells")
    assert evaluate_candidate(loop, version) is None
    verdict = decide(loop, version, None)
    assert verdict.promote
    assert status(loop, version) == VersionStatus.active


def test_the_first_infected_version_is_measured_all_the_same(loop: Loop) -> None:
    (first, first_sha), (second, second_sha) = add(loop, "all_cells"), add(loop, "infected")
    decide(loop, first, None)
    bench = FakeBench(loop.store, {first_sha: DiscDetector("all_cells"), second_sha: DiscDetector("infected")})
    evaluation_id = evaluate_candidate(loop, second, bench=bench)
    assert evaluation_id is not None
    assert decide(loop, second, evaluation_id).promote


def test_an_incumbent_that_was_not_measured_blocks_the_decision(loop: Loop) -> None:
    bench, _, candidate = contest(loop, DiscDetector("infected"))
    evaluation_id = evaluate_candidate(loop, candidate, bench=bench)
    newcomer, _ = add(loop, "infected")
    promote(loop.database, newcomer, reason="for a test")
    with pytest.raises(NotEnoughData, match="evaluate the candidate again"):
        decide(loop, candidate, evaluation_id)
    assert status(loop, candidate) == VersionStatus.candidate


def test_what_was_compared_with_another_than_now_serves_does_not_replace_it(loop: Loop) -> None:
    bench, _, candidate = contest(loop, DiscDetector("infected"))
    evaluation_id = evaluate_candidate(loop, candidate, bench=bench)
    verdict = judge(loop, candidate, evaluation_id)
    newcomer, _ = add(loop, "infected")
    promote(loop.database, newcomer, reason="a person was faster")
    with pytest.raises(NotEnoughData, match=f"got {newcomer}; retrain, or promote it by hand"):
        settle(loop, candidate, evaluation_id, None, [verdict])
    assert status(loop, newcomer) == VersionStatus.active


def test_a_person_overrules_the_gate_and_goes_back(loop: Loop) -> None:
    bench, incumbent, candidate = contest(loop, Blind("infected"))
    decide(loop, candidate, evaluate_candidate(loop, candidate, bench=bench))
    decision: PromotionDecision = promote(loop.database, candidate, reason="I know better")
    assert (decision.kind, decision.reasons) == ("person", ["I know better"])
    assert undo(loop.database, "infected").version_id == incumbent
    assert (status(loop, candidate), status(loop, incumbent)) == (VersionStatus.retired, VersionStatus.active)
    with pytest.raises(NotFound, match="nothing changed"):
        undo(loop.database, "all_cells")


def test_a_stored_image_is_read_as_it_was_imported(loop: Loop) -> None:
    bench = Bench(loop.store, "cpu")
    stored = loop.store.put_bytes("images", png(1), ".png")
    image = LabelledImage(stored.sha256, stored.file, WIDTH, HEIGHT, ())
    assert np.array_equal(bench.read(image), read_image(png(1)))
    assert CLASS_INDEX["ring"] in DiscDetector("infected").detect(bench.read(image)).labels
