"""Labels that only the candidate knows are looked at when it is evaluated."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from al_loop.context import Loop
from al_loop.dataset import truth
from al_loop.evaluate import evaluate_candidate
from al_loop.new_labels import new_images
from al_loop.promote import judge
from db import evaluations
from tests import builders
from tests.al_loop.deciding import decide
from tests.al_loop.test_evaluate import TEST_IMAGES, FakeBench, add, add_labelled_smear, labelled, loop  # noqa: F401
from tests.backend.smears import DiscDetector


@pytest.mark.parametrize("flipped", [False, True])
def test_new_labels_that_contradict_the_serving_pair_are_refused(loop: Loop, flipped: bool) -> None:  # noqa: F811
    (first, first_sha), (incumbent, incumbent_sha) = add(loop, "all_cells"), add(loop, "infected")
    for version_id in (first, incumbent):
        decide(loop, version_id, None)
    ids = [add_labelled_smear(loop, seed, "train").id for seed in range(200, 216)]
    with loop.database.session() as session:
        images = truth(session, ids)
        if flipped:
            images = [replace(image, cells=image.cells[1:]) for image in images]  # the ring is said to be none
        version = builders.add_version(session, manifest={"images": [asdict(image) for image in images]})
        candidate, candidate_sha = version.id, version.weights_sha256
    see = DiscDetector("infected")
    bench = FakeBench(loop.store, {first_sha: DiscDetector("all_cells"), incumbent_sha: see, candidate_sha: see})
    evaluation_id = evaluate_candidate(loop, candidate, bench=bench)
    assert evaluation_id is not None
    with loop.database.session(read_only=True) as session:
        found = evaluations.get_evaluation(session, evaluation_id).report["label_audit"]
    assert (found["asked"], found["test_asked"]) == (16, TEST_IMAGES)
    assert (found["missed"] > 0.9) == flipped
    verdict = judge(loop, candidate, evaluation_id)
    assert verdict.promote != flipped
    assert any("of 16 cells that the serving pair calls infected" in reason for reason in verdict.reasons)


def test_only_images_with_other_labels_than_before_are_new() -> None:
    one, two, three = (labelled(seed) for seed in (1, 2, 3))
    more = replace(two, cells=two.cells[:1])
    assert new_images([one, two], [one, more, three]) == [more, three]
    assert new_images([], [one]) == [one]
