"""The contact sheet: every class has a row, cells lie under their outlines, a source with nothing leaves its place."""

from __future__ import annotations

import numpy as np
import pytest

from al_loop.labelled_files import LabelledFile, read_labelled
from al_loop.render_sheet import CROP, GAP, OUTLINE, ROWS, TITLE, contact_sheet
from al_loop.rendered import write_coco_folder
from backend.errors import NotEnoughData


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledFile]:
    out = write_coco_folder(tmp_path_factory.mktemp("r"), 3, seed=1, size=(240, 320), cells=16, infected=0.4)
    return read_labelled(out)[0]


def outlined(part: np.ndarray) -> int:
    """How many pixels are as green as an outline."""
    return int((np.abs(part.astype(int) - OUTLINE).max(axis=-1) < 25).sum())


def test_every_class_has_a_row_and_rendered_cells_their_outlines(files: list[LabelledFile]) -> None:
    sheet = contact_sheet(files, per_row=4)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == TITLE + 4 * CROP
    assert sheet.shape[0] == len(ROWS) * CROP + round(2 * CROP * 240 / 320)
    healthy = ROWS.index("red blood cell") * CROP
    assert outlined(sheet[healthy : healthy + CROP, TITLE:]) > 300
    assert outlined(sheet[len(ROWS) * CROP :]) == 0


def test_another_source_lies_beside_it_without_outlines(files: list[LabelledFile]) -> None:
    sheet = contact_sheet(files, files[:1], per_row=2)
    assert sheet.shape[1] == TITLE + 2 * CROP + GAP + 2 * CROP
    beside = sheet[:, TITLE + 2 * CROP + GAP :]
    assert beside.std() > 10
    assert outlined(beside) == 0


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(NotEnoughData, match="at least one labelled image"):
        contact_sheet([])
