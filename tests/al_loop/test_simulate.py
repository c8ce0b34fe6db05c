"""The simulation on a pool of invented features: rare clusters in a crowd, one of which looks like something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from al_loop.acquisition import PoolCells
from al_loop.dataset import LabelledCell, LabelledImage
from al_loop.metrics import POOLED
from al_loop.simulate import FIELDS, NAMES, Simulation, measure, replay
from al_loop.simulate_errors import errors_found
from al_loop.simulate_expert import Expert
from al_loop.simulate_features import Proposals, relative
from al_loop.simulate_heads import NO_CELL, UNDECIDED, fit_heads, inputs_of, prior
from al_loop.simulate_numbers import Needed, at_share, by_seed, mean_of, needed, ratio_of, smoothed
from al_loop.simulate_pool import Round, Scene, answers_to, deal
from al_loop.simulate_report import write_report
from al_loop.simulate_study import Study, run, source_folders, to_json
from al_loop.strategies import Pool, ours
from backend.errors import SettingRefused, UnusableAnnotations
from backend.instances import CLASS_INDEX, CLASSES, INFECTED_INDEX, Instances

WIDTH, PER_IMAGE = 12, 40
SHARES = {"red blood cell": 0.8, "trophozoite": 0.02, "ring": 0.015, "schizont": 0.01, "gametocyte": 0.015}


def invented_scene(images: int = 40, seed: int = 0) -> Scene:
    """Cells in rows that never touch. A class is a direction among the features; the detector hardly knows any."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(0, 1, (NO_CELL + 1, WIDTH)) * 1.6
    kinds = np.array([*(CLASS_INDEX[name] for name in SHARES), NO_CELL])
    shares = np.array([*SHARES.values(), 1 - sum(SHARES.values())])
    proposals, truths, answers = [], [], []
    for _ in range(images):
        kind = rng.choice(kinds, PER_IMAGE, p=shares)
        kind[0] = rng.choice(INFECTED_INDEX)
        x = np.arange(PER_IMAGE, dtype=np.float32) * 50
        boxes = np.stack([x, np.zeros_like(x), x + 40, np.full_like(x, 40)], axis=1)
        features = (middles[kind] + rng.normal(0, 1, (PER_IMAGE, WIDTH))).astype(np.float32)
        said = rng.dirichlet(np.full(len(CLASSES) + 1, 0.8), PER_IMAGE)[:, :-1].astype(np.float32)
        proposals.append(Proposals(boxes, said, features))
        cells = kind != NO_CELL
        truths.append(Instances.of((60, 50 * PER_IMAGE), boxes[cells], kind[cells].astype(np.int64)))
        answers.append(kind.astype(np.int64))
    nothing = np.zeros((0, 4), dtype=np.float32)
    groups = tuple(f"slide-{index // 2}" for index in range(images))
    return Scene(groups, tuple(proposals), tuple(truths), (nothing,) * images, tuple(answers))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return invented_scene()


@pytest.fixture(scope="module")
def dealt(scene: Scene) -> Round:
    return deal(scene, 0)


def test_slides_are_never_divided_and_all_cells_are_there(scene: Scene, dealt: Round):
    assert len(dealt) + sum(len(each) for each in dealt.exam.proposals) == 40 * PER_IMAGE
    assert len({scene.groups[index] for index in dealt.image}) == len(set(dealt.slide.tolist()))
    assert np.linalg.norm(dealt.embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    assert scene.infected_recall() == 1


def test_heads_say_what_the_detector_says_until_they_learn(dealt: Round):
    before = prior(dealt.inputs).look(dealt.inputs)
    assert before.probabilities == pytest.approx(dealt.detector, abs=0.02)
    untaught = fit_heads(dealt.inputs[:3], np.full(3, UNDECIDED), 1.0)
    assert untaught.look(dealt.inputs).probabilities == pytest.approx(before.probabilities)
    after = fit_heads(dealt.inputs, dealt.answers, 1.0).look(dealt.inputs)
    assert (after.probabilities.sum(axis=1) <= 1 + 1e-9).all()
    assert (after.all_cells.argmax(axis=1) == dealt.answers).mean() > 0.95


def test_ours_needs_fewer_reviews_than_random(dealt: Round):
    plan = Simulation(decay=1.0)
    full = measure(dealt, fit_heads(dealt.inputs, dealt.answers, plan.decay))[POOLED]
    curves = {name: replay(dealt, name, 0, plan) for name in ("ours", "random")}
    for curve in curves.values():
        assert sorted(curve.order.tolist()) == list(range(len(dealt)))
        assert curve.infected_ap50[-1] == pytest.approx(full, abs=0.02)
        assert (np.diff(curve.seconds) > 0).all()
    few, many = (needed(c.reviews, c.infected_ap50, 0.95 * full).reviews for c in curves.values())
    assert few < 0.5 * many
    shown = [at_share(curve.reviews, curve.rare_shown, len(dealt), 0.2) for curve in curves.values()]
    assert shown[0] > 2 * shown[1]
    short = replay(dealt, "ours", 0, plan, target=0.95 * full)
    assert len(short.order) < len(dealt)
    assert (short.order == curves["ours"].order[: len(short.order)]).all()
    assert needed(short.reviews, short.infected_ap50, 0.95 * full).reviews == few


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_replays_and_repeats_itself(dealt: Round, name: str):
    plan = Simulation(first=100, growth=2.5, fine=1.0)
    first, again = replay(dealt, name, 3, plan), replay(dealt, name, 3, plan)
    assert (first.order == again.order).all()
    assert len(set(first.order.tolist())) == len(dealt)


def test_whole_fields_are_read_one_after_another(dealt: Round):
    curve = replay(dealt, FIELDS, 0, Simulation(first=15))
    images = dealt.image[curve.order]
    assert (np.diff(images) != 0).sum() == len(set(images.tolist())) - 1
    assert curve.seconds[-1] == pytest.approx(len(set(images.tolist())) * 10 + len(dealt) * 0.5)


def test_unseen_answers_teach_and_steer_nothing(dealt: Round):
    plan = Simulation(first=30, growth=2.0)
    first = replay(dealt, "ours", 0, plan).order[:30]
    other = dealt.answers.copy()
    other[np.setdiff1d(np.arange(len(dealt)), first)] = CLASS_INDEX["ring"]
    changed = replay(replace(dealt, answers=other), "ours", 0, plan).order
    assert (changed[:60] == replay(dealt, "ours", 0, plan).order[:60]).all()


def test_the_expert_errs_as_often_as_told():
    truth = np.array([0] * 9000 + [UNDECIDED] * 1000)
    given = Expert(error_rate=0.1).answers(truth, np.random.default_rng(0))
    assert (given[:9000] != 0).mean() == pytest.approx(0.1, abs=0.01)
    assert set(given[:9000].tolist()) == set(range(NO_CELL + 1))
    assert (given[9000:] == UNDECIDED).all()
    assert (Expert().answers(truth, np.random.default_rng(0)) == truth).all()


def test_wrong_answers_are_read_again_first(dealt: Round):
    given = Expert(error_rate=0.1).answers(dealt.answers, np.random.default_rng(0))
    found = errors_found(dealt.inputs, given, dealt.answers, dealt.slide, 1.0)
    assert found is not None
    assert found > 0.8
    assert errors_found(dealt.inputs, dealt.answers, dealt.answers, dealt.slide, 1.0) is None


def test_reviews_needed_are_read_off_between_two_stops():
    at = np.array([0, 9, 99, 999])
    line = np.array([0.0, 1.0, 2.0, 3.0])
    assert smoothed(line).tolist() == [0.5, 1.0, 2.0, 2.5]
    assert needed(at, line, 1.5).reviews == pytest.approx(10**1.5 - 1)
    assert needed(at, line, 0.4).reviews == 0
    never = needed(at, line, 2.9)
    assert never.censored
    assert never.reviews == 999


def test_ratios_are_geometric_and_intervals_hold_them():
    each = by_seed([0, 0, 1], [Needed(10, False), Needed(1000, True), Needed(5, False)])
    assert [need.reviews for need in each] == pytest.approx([100, 5])
    assert [need.censored for need in each] == [True, False]
    ratio = ratio_of([200, 800], [100, 200])
    assert ratio.value == pytest.approx(8**0.5)
    assert ratio.low is not None
    assert ratio.low < ratio.value < ratio.high
    assert mean_of([3.0]).interval() == [None, None]


def test_the_truth_answers_for_boxes():
    def cell(label: str, x: float) -> LabelledCell:
        return LabelledCell(label, (x, 0.0, x + 10, 10.0), None)

    image = LabelledImage("0" * 64, "", 100, 20, (cell("ring", 0), cell("difficult", 30)))
    boxes = np.array([[1, 0, 11, 10], [0, 0, 10, 10], [31, 0, 41, 10], [60, 0, 70, 10]], dtype=np.float32)
    assert answers_to(boxes, image).tolist() == [NO_CELL, CLASS_INDEX["ring"], UNDECIDED, NO_CELL]


def test_features_are_told_against_the_median_cell():
    features = np.array([[1.0], [2.0], [9.0]], dtype=np.float32)
    assert relative(features).ravel().tolist() == [-1.0, 0.0, 7.0]
    inputs = inputs_of(features, np.zeros((3, len(CLASSES)), dtype=np.float32))
    assert np.isfinite(inputs).all()


def test_the_answer_is_json_and_its_report_has_pictures(scene: Scene, tmp_path: Path):
    plan = Simulation(first=100, growth=2.0, expert=Expert(error_rate=0.1))
    study = Study(tmp_path, ("ours", "entropy", "random"), 2, 2, plan)
    settings = {"sources": {"invented": 40}, "seeds": 2, "deals": 2, "plan": {"expert": {"error_rate": 0.1}}}
    answer = json.loads(json.dumps(to_json(scene, study, run(scene, study, lambda *_: None), settings)))
    assert answer["summary"]["random_over_ours"] > 0
    assert len(answer["summary"]["entropy_over_ours_interval"]) == 2
    assert 0 <= answer["summary"]["errors_found_in_first_fifth"]["value"] <= 1
    assert set(answer["summary"]["rare_shown_at_10_percent"]) == {"ours", "entropy", "random"}
    assert answer["summary"]["target_ap50"] == pytest.approx(0.95 * answer["summary"]["full_ap50"])
    page = write_report(tmp_path / "report", answer)
    assert "| ours |" in page.read_text()
    assert {file.name for file in page.parent.glob("*.png")} == {
        "ap50_by_reviews.png",
        "ap50_by_seconds.png",
        "reviews_needed.png",
        "rare_shown.png",
    }


def test_what_cannot_be_simulated_is_refused(tmp_path: Path):
    with pytest.raises(SettingRefused, match="entropy"):
        Study(tmp_path, ("luck",))
    with pytest.raises(SettingRefused, match="different"):
        Study(tmp_path, ("ours", "ours"))
    with pytest.raises(SettingRefused, match="error-rate"):
        Study(tmp_path, ("ours",), plan=Simulation(expert=Expert(error_rate=1.0)))
    with pytest.raises(UnusableAnnotations, match="--data"):
        source_folders(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    assert source_folders(tmp_path) == [tmp_path]
    (tmp_path / "a" / "labels.json").write_text("[]")
    assert source_folders(tmp_path) == [tmp_path / "a"]


def test_parasites_nobody_doubts_come_behind_those_in_doubt_and_before_red_cells():
    names = ("red blood cell", "gametocyte", "ring")
    probabilities = np.zeros((3, len(CLASSES)))
    probabilities[[0, 1], [CLASS_INDEX[name] for name in names[:2]]] = 0.999
    probabilities[2, [CLASS_INDEX["ring"], CLASS_INDEX["red blood cell"]]] = 0.5
    said = probabilities.max(axis=1)
    silent = np.array([np.nan, 0.999, 0.5])
    cells = PoolCells(np.arange(3), probabilities, said, silent, np.full(3, np.nan), np.zeros(3, dtype=bool))
    none = np.zeros((3, 0), dtype=np.float32)
    pool = Pool(cells, np.ones(len(CLASSES)), none, none[:0])
    utilities = ours(pool, 3, np.random.default_rng(0))
    assert utilities.argsort().tolist() == [0, 1, 2]
