import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.calibrate import View, fit_fusion, fit_platt
from backend.fuse import FusionConfig, Platt, fuse, logit, sigmoid
from backend.instances import CLASS_INDEX, INFECTED_INDEX, Instances
from tests.backend.views import view

RED, RING = CLASS_INDEX["red blood cell"], CLASS_INDEX["ring"]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40))
def test_any_calibration_is_increasing_and_stays_a_probability(rows: list[tuple[float, bool]]) -> None:
    platt = fit_platt(np.array([score for score, _ in rows]), np.array([hit for _, hit in rows], dtype=float))
    p = platt(np.linspace(0, 1, 101))
    assert (np.diff(p) >= 0).all()
    assert (np.diff(p[1:-1]) > 0).all()
    assert (p >= 0).all()
    assert (p <= 1).all()


def test_overconfident_scores_are_brought_down() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.02, 0.98, 4000)
    raw = sigmoid(2 * logit(true) + 1)  # what an overconfident model says
    platt = fit_platt(raw, (rng.random(4000) < true).astype(float))
    np.testing.assert_allclose(platt(raw), true, atol=0.06)


def test_without_evidence_nothing_changes() -> None:
    assert fit_platt(np.zeros(0), np.zeros(0)) == Platt()
    one = fit_platt(np.array([0.7]), np.array([1.0]))
    assert one(np.array([0.7]))[0] == pytest.approx(0.75, abs=0.06)
    with pytest.raises(ValueError, match="as many hits as scores"):
        fit_platt(np.zeros(3), np.zeros(2))


def _views(images: int, seed: int, trust_infected: float) -> list[View]:
    """Images of 20 cells in a grid; `all_cells` guesses infection badly, `infected` well if it is to be trusted."""
    rng = np.random.default_rng(seed)
    views = []
    for _ in range(images):
        boxes = [(x, y, x + 60.0, y + 60.0) for x in range(0, 500, 100) for y in range(0, 400, 100)]
        sick = rng.random(len(boxes)) < 0.3
        noise = rng.normal(0, 1, (len(boxes), 2))
        mine = sigmoid(0.3 * (2 * sick - 1) + noise[:, 0])
        other = sigmoid(trust_infected * (2 * sick - 1) + noise[:, 1])
        first = view(
            *[(box, {"red blood cell": 0.9 * (1 - p), "ring": 0.9 * p}) for box, p in zip(boxes, mine, strict=True)]
        )
        ghosts = [((x, 430.0, x + 50.0, 480.0), {"ring": 0.4}) for x in (0.0, 100.0)]
        second = view(*[(box, {"ring": p}) for box, p in zip(boxes, other, strict=True)], *ghosts)
        truth = Instances.of(first.image_size, np.array(boxes), np.where(sick, RING, RED))
        views.append((first, second, truth))
    return views


def _brier(views: list[View], config: FusionConfig) -> float:
    errors = []
    for first, second, truth in views:
        fused = fuse(first, second, config)
        both = np.flatnonzero(fused.sources == 0)
        infected = fused.cells.probabilities[both][:, INFECTED_INDEX].sum(axis=1)
        sick = {tuple(box): label == RING for box, label in zip(truth.boxes.tolist(), truth.labels, strict=True)}
        known = [sick[tuple(np.rint(box).tolist())] for box in fused.cells.boxes[both]]
        errors.append(np.mean((infected - known) ** 2))
    return float(np.mean(errors))


def test_the_better_model_gets_the_greater_weight_and_unseen_images_gain() -> None:
    config = fit_fusion(_views(20, 0, trust_infected=2.0))
    assert config.weight_infected > config.weight_all_cells
    unseen = _views(20, 1, trust_infected=2.0)
    assert _brier(unseen, config) < _brier(unseen, FusionConfig())


def test_boxes_that_only_infected_saw_must_earn_their_place() -> None:
    assert fit_fusion(_views(20, 0, 2.0)).keep_threshold == FusionConfig().keep_threshold  # never right: no fit
    views = []
    for seed, (first, second, truth) in enumerate(_views(20, 0, 2.0)):
        real = [((300.0, 430.0, 350.0, 480.0), {"ring": 0.9})] if seed % 2 else []
        seen = view(*zip(second.boxes.tolist(), [{"ring": float(s)} for s in second.scores], strict=True), *real)
        boxes = np.concatenate([truth.boxes, np.array([box for box, _ in real], dtype=np.float32).reshape(-1, 4)])
        labels = np.concatenate([truth.labels, np.full(len(real), RING)])
        views.append((first, seen, Instances.of(truth.image_size, boxes, labels)))
    config = fit_fusion(views)
    fused = fuse(*views[1][:2], config)
    lone = fused.cells.boxes[fused.sources == 2]
    assert len(lone) == 1  # the true one stays, the ghosts go
    assert lone[0].tolist() == [300, 430, 350, 480]


def test_too_few_examples_leave_the_fusion_as_it_was() -> None:
    assert fit_fusion([]) == FusionConfig()
    start = FusionConfig(keep_threshold=0.07, healthy=Platt(1.2, 0.1))
    assert fit_fusion(_views(1, 0, 2.0)[:1], start).healthy == start.healthy
    empty = Instances.empty((600, 800))
    assert fit_fusion([(empty, empty, empty)], start) == start


def _fields(images: int, cut_labelled: bool) -> list[View]:
    """Images of a row of certain cells, the first one cut by the left edge and perhaps labelled."""
    boxes = np.array([(x, 100.0, x + 60.0, 160.0) for x in range(0, 700, 100)], dtype=np.float32)
    seen = view(*[(tuple(box), {"red blood cell": 0.97}) for box in boxes.tolist()])
    known = boxes if cut_labelled else boxes[1:]
    truth = Instances.of(seen.image_size, known, np.full(len(known), RED))
    return [(seen, view(), truth)] * images


def test_cut_cells_count_as_much_as_the_laboratory_labels_them() -> None:
    unlabelled = fit_fusion(_fields(40, cut_labelled=False))
    labelled = fit_fusion(_fields(40, cut_labelled=True))
    assert unlabelled.edge_offset < -3 < 0 <= labelled.edge_offset
    seen = _fields(1, True)[0][0]
    cell = fuse(seen, view(), unlabelled).cells
    cut = cell.boxes[:, 0] < 3
    assert cell.scores[cut].max() < 0.2 < 0.9 < cell.scores[~cut].min()
    assert fit_fusion(_fields(5, cut_labelled=False)).edge_offset == 0.0  # five cells say nothing yet
