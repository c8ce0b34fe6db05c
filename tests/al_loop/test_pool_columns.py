"""Packed predictions as the columns that are ranked, with what reviews have taught."""

from __future__ import annotations

from typing import Any

import numpy as np

from al_loop.pool_columns import KINDS, Known, columns, novelty
from backend.instances import CLASSES
from db.packed import PackedCells, cell_dtype


def packed(n: int, first: int = 1, code: int = 5, torn: float = 0.0) -> PackedCells:
    """Red cells with these ids on; torn: how much of each may be a ring."""
    cells: Any = np.zeros(n, dtype=cell_dtype(len(CLASSES)))
    cells["cell_id"] = cells["predicted_cell_id"] = np.arange(first, first + n)
    cells["probabilities"][:, 0], cells["probabilities"][:, 2] = 0.98 - torn, torn
    cells["score_all_cells"], cells["score_infected"], cells["pair_iou"] = 0.98 - torn, np.nan, np.nan
    cells["code"] = code
    return PackedCells(np.repeat(np.arange((n + 9) // 10), 10)[:n], cells)


def joined(*parts: PackedCells) -> PackedCells:
    return PackedCells(np.concatenate([p.image for p in parts]), np.concatenate([p.cells for p in parts]))


def known(reviewed: Any = (), difficult: Any = (), answered: PackedCells | None = None) -> Known:
    ids = [np.array(sorted(each), dtype=np.int64) for each in (reviewed, difficult)]
    return Known(ids[0], ids[1], answered or PackedCells(np.zeros(0, dtype=np.int64), np.zeros(0, cell_dtype(0))))


def test_answered_cells_leave_and_the_rows_of_the_others_are_told() -> None:
    cells, rows = columns(packed(10), known(reviewed=[2, 3, 99]))
    assert rows.tolist() == [0, 3, 4, 5, 6, 7, 8, 9]
    assert len(cells) == 8
    assert cells.difficult.tolist() == [0] * 8


def test_what_an_expert_called_difficult_is_and_what_looks_like_it_may_be() -> None:
    taught = joined(packed(40, 1000, torn=0.45), packed(400, 2000))
    hard = [*range(1000, 1040), 3]
    cells, _ = columns(joined(packed(5, torn=0.45), packed(5, 6)), known(difficult=hard, answered=taught))
    assert cells.difficult[2] == 1
    assert cells.difficult[[0, 1, 3, 4]].min() > 0.5
    assert cells.difficult[5:].max() < 0.05
    few, _ = columns(packed(5, torn=0.45), known(difficult=hard[:5], answered=taught))
    assert few.difficult.max() == 0, "five difficult cells teach nothing"


def test_new_kinds_stand_out_once_the_others_are_known() -> None:
    pool = joined(packed(90, code=5), packed(10, 200, code=9))
    early, _ = columns(pool, known())
    assert early.novelty.max() == 0
    later, _ = columns(pool, known(answered=packed(20, 500, code=5)))
    assert later.novelty[:90].max() < 0.01
    assert later.novelty[90:].min() > 0.85


def test_no_kind_is_not_new_and_an_empty_pool_has_none() -> None:
    reviewed = np.zeros(KINDS, dtype=np.int64)
    reviewed[3] = 2
    found = novelty(np.array([0, 3, 4], dtype=np.uint16), reviewed)
    assert found[0] == 0
    assert 0 < found[1] < found[2]
    assert len(novelty(np.zeros(0, dtype=np.uint16), reviewed)) == 0
    assert len(columns(packed(0), known())[0]) == 0
