"""Every format, written and read again without a record: any floats, outlines, names and moments come back exactly."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_loop.export import WRITERS
from al_loop.export_report import FACTS, ExportedCell, ExportedImage
from al_loop.formats.detect import read_source
from al_loop.formats.records import SourceImage, SourceObject
from al_loop.formats.table import COLUMNS
from backend.instances import CLASSES, DIFFICULT
from backend.label_studio.label_config import KINDS
from backend.masks import encode
from tests.al_loop.sources import SIZE

HEIGHT, WIDTH = SIZE
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x1, y1 = draw(st.floats(0, WIDTH - 3)), draw(st.floats(0, HEIGHT - 3))
    return x1, y1, draw(st.floats(x1 + 2, WIDTH)), draw(st.floats(y1 + 2, HEIGHT))


@st.composite
def outlines(draw: st.DrawFn) -> str:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = rng.random(SIZE) < draw(st.sampled_from((0.001, 0.5, 1.0)))
    mask[draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))] = True
    return str(encode(mask)["counts"].decode("ascii"))


cells = st.builds(
    ExportedCell,
    key=TEXT,
    label=st.sampled_from((*CLASSES, DIFFICULT)),
    box=boxes(),
    shape=st.sampled_from(KINDS),
    mask=st.none() | outlines(),
    expert=TEXT,
    decided_at=MOMENTS,
)
images = st.builds(
    ExportedImage,
    file=st.just("field.png"),
    checksum=st.just("0123456789abcdef" * 4),
    width=st.just(WIDTH),
    height=st.just(HEIGHT),
    dataset=st.just("iml"),
    group=TEXT,
    patient=st.none() | TEXT,
    taken_at=st.none() | MOMENTS,
    split=st.sampled_from(("train", "validation", "test")),
    cells=st.lists(cells, max_size=4, unique_by=lambda cell: cell.key).map(tuple),
)


def written_and_read(format: str, exported: list[ExportedImage]) -> list[SourceImage]:
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[format].write(Path(folder), exported)
        return read_source(Path(folder), format)


def expected(cell: ExportedCell, lacks: set[str]) -> SourceObject:
    mask = cell.mask and {"size": [HEIGHT, WIDTH], "counts": cell.mask.encode()}
    said: dict[str, Any] = {}
    if "outlines that experts drew" not in lacks:
        said |= {"mask": mask or None, "shape": cell.shape}
    if "keys of cells" not in lacks:
        said |= {"key": cell.key, "expert": cell.expert, "decided_at": cell.decided_at}
    return SourceObject(cell.label, cell.box, **said)


@pytest.mark.parametrize("format", WRITERS)
@settings(max_examples=25, deadline=None)
@given(image=images)
def test_what_is_written_is_read(format: str, image: ExportedImage) -> None:
    lacks = set(WRITERS[format].lacks)
    (read,) = written_and_read(format, [image])
    assert read.problems == ()
    assert read.labelled
    assert read.objects == tuple(expected(cell, lacks) for cell in image.cells)
    assert (read.name, read.width, read.height, read.checksum) == ("field.png", WIDTH, HEIGHT, image.checksum)
    assert read.official_split == image.split
    told = (read.dataset, read.group, read.patient, read.taken_at)
    if "groups of images" in lacks:
        assert told == (None, None, None, None)
    else:
        assert told == (image.dataset, image.group, image.patient, image.taken_at)


def test_what_formats_lack_has_a_name() -> None:
    assert {fact for writer in WRITERS.values() for fact in writer.lacks} == set(FACTS)


def test_every_column_is_documented() -> None:
    documented = (Path(__file__).resolve().parents[2] / "docs" / "exports.md").read_text(encoding="utf-8")
    assert [column for column in COLUMNS if f"| `{column}` |" not in documented] == []
