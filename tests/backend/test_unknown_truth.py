import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.detect import DetectorConfig, build_detector
from backend.unknown_truth import TruthRules, unknown_truth

SIZE = (200, 300)
NOWHERE = TruthRules(border=-1)
TRUTH = {"boxes": torch.tensor([[40.0, 40, 100, 100]]), "labels": torch.tensor([1])}
UNSURE = torch.tensor([[150.0, 50, 210, 110]])


def _unknown(box: list[float], target: dict[str, torch.Tensor], rules: TruthRules = NOWHERE) -> bool:
    return bool(unknown_truth(torch.tensor([box]), target, SIZE, rules)[0])


def test_boxes_on_an_ignore_region_are_unknown() -> None:
    target = TRUTH | {"ignore_boxes": UNSURE}
    assert _unknown([150, 50, 210, 110], target)  # the region itself
    assert _unknown([160, 60, 190, 90], target)  # inside
    assert _unknown([120, 50, 240, 110], target)  # IoA one half
    assert _unknown([140, 40, 230, 130], target)  # larger, IoU .44
    assert not _unknown([205, 50, 265, 110], target)  # beside
    assert not _unknown([60, 20, 280, 180], target)  # much larger
    assert not _unknown([160, 60, 190, 90], TRUTH)  # no region
    assert not _unknown([160, 60, 190, 90], TRUTH | {"ignore_boxes": torch.zeros(0, 4)})


def test_cells_cut_by_the_edge_are_unknown() -> None:
    rules = TruthRules(border=2)
    for box in ([0, 90, 40, 150], [258, 90, 298.5, 150], [150, 0, 210, 30], [150, 170, 210, 200]):
        assert _unknown(box, TRUTH, rules)
        assert not _unknown(box, TRUTH, NOWHERE)
    assert not _unknown([5, 110, 45, 170], TRUTH, rules)  # not at the edge
    assert not _unknown([150, 20, 290, 200], TRUTH, rules)  # too large to be a cell
    assert not _unknown([0, 30, 90, 110], TRUTH, rules)  # a labelled cell, badly cut out


@given(st.lists(st.tuples(st.floats(0, 250), st.floats(0, 150), st.floats(5, 120), st.floats(5, 120)), max_size=20))
def test_the_rpn_never_learns_a_negative_from_the_unknown(rows: list[tuple[float, ...]]) -> None:
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows]).reshape(-1, 4)
    unknown = unknown_truth(boxes, TRUTH | {"ignore_boxes": UNSURE}, SIZE, TruthRules())
    inside = (boxes[:, 0] >= 150) & (boxes[:, 1] >= 50) & (boxes[:, 2] <= 210) & (boxes[:, 3] <= 110)
    assert unknown[inside].all()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_detector(DetectorConfig(), pretrained=False).train()


def test_no_anchor_on_an_ignore_region_is_a_negative(model: torch.nn.Module) -> None:
    grid = torch.tensor([[x, y, x + 56.0, y + 56] for x in range(5, 235, 5) for y in range(5, 135, 5)])
    for target in (TRUTH, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}):
        with_size = target | {"size": torch.tensor(SIZE), "ignore_boxes": UNSURE}
        plain = {name: value for name, value in with_size.items() if name != "ignore_boxes"}
        ignoring = model.rpn.assign_targets_to_anchors([grid], [with_size])[0][0]
        naive = model.rpn.assign_targets_to_anchors([grid], [plain])[0][0]
        unknown = unknown_truth(grid, with_size, SIZE, TruthRules())
        assert (naive[unknown] == 0).sum() > 20  # without the region they would have been negatives
        assert (ignoring[unknown] != 0).all()
        assert torch.equal(ignoring[~unknown], naive[~unknown])  # and nothing else changes
        assert torch.equal(ignoring == 1, naive == 1)


def test_no_proposal_on_an_ignore_region_is_a_negative(model: torch.nn.Module) -> None:
    on_region = UNSURE + torch.randn(300, 4, generator=torch.Generator().manual_seed(1)) * 3
    elsewhere = torch.tensor([[20.0, 120, 70, 170]]).repeat(20, 1)
    proposals = torch.cat([on_region, elsewhere])
    boxes, _, labels = model.roi_heads._sample([proposals], [SIZE], [TRUTH | {"ignore_boxes": UNSURE}])
    negatives = boxes[0][labels[0] == 0]
    assert len(negatives) == 20
    assert (negatives == elsewhere[0]).all()
    assert (labels[0] == 1).sum() == 1  # the true box itself was added
    naive_boxes, _, naive = model.roi_heads._sample([proposals], [SIZE], [TRUTH])
    taught = naive_boxes[0][naive[0] == 0]
    assert (taught[:, 0] > 100).sum() > 0.9 * len(taught) > 50
