"""csv and parquet: tables from anywhere come in, and whatever is wrong with a row costs that row only."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from al_loop.formats import csv_table, parquet_table
from al_loop.formats.detect import detect_format, read_source
from al_loop.formats.records import SourceImage
from backend.errors import UnusableAnnotations
from backend.masks import encode
from tests.al_loop.formats.test_coco import mask_of
from tests.al_loop.sources import SIZE, bbbc041_record, write_bbbc041, write_image, zip_folder

HEAD = "image,label,x1,y1,x2,y2"


def read_csv(folder: Path, text: str, name: str = "labels.csv") -> list[SourceImage]:
    (folder / name).write_text(text, encoding="utf-8")
    return read_source(folder)


def kinds(image: SourceImage) -> list[str]:
    return [problem.kind for problem in image.problems]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path, separator: str) -> None:
    write_image(tmp_path / "images" / "a.png", 1)
    lines = ["﻿" + HEAD + ",notes", 'a.png,RBC,1,2.5,30,"40",fine', "b.png,,,,,,", "a.png,rings,5,5,9,9,"]
    one, other = read_csv(tmp_path, "\r\n".join(lines).replace(",", separator), "test.csv")
    assert detect_format(tmp_path) == "csv"
    assert [(thing.label, thing.box) for thing in one.objects] == [
        ("red blood cell", (1, 2.5, 30, 40)),
        ("ring", (5, 5, 9, 9)),
    ]
    assert (one.file, one.official_split, one.problems) == ("images/a.png", "test", ())
    assert (other.name, other.file, other.objects, other.labelled) == ("b.png", None, (), True)


def test_every_bad_row_is_a_problem_of_its_own(tmp_path: Path) -> None:
    rows = [
        "a.png,ring,1,1,9,9,60,80,S1,,",
        "a.png,platelet,1,1,9,9,60,80,S1,,",
        "a.png,ring,1,1,9,wide,60,80,S1,,",
        "a.png,ring,1,1,9,9,60,80,S2,,",
        "a.png,ring,1,1,9,9,60,80,S1,nonsense,",
        "a.png,ring,1,1,9,9,60,80,S1,,,and,more",
        "a.png,ring,1,1",
        ",ring,1,1,9,9,60,80,S1,,",
        "b.png,,,,,,tall,0,,,the day before",
    ]
    a, unnamed, b = read_csv(tmp_path, "\n".join([HEAD + ",height,width,group,mask,taken_at", *rows]))
    assert kinds(a) == [
        "unknown category",
        "unreadable box",
        "contradicting row",
        "unreadable mask",
        "unreadable row",
        "contradicting row",
        "unreadable box",
    ]
    assert len(a.objects) == 3
    assert (a.height, a.width, a.group) == (60, 80, "S1")
    assert kinds(unnamed) == ["unnamed image"]
    assert kinds(b) == ["unreadable moment"]
    assert (b.height, b.width, b.taken_at) == (None, None, None)


def test_an_outline_needs_the_images_size(tmp_path: Path) -> None:
    mask = encode(mask_of(3))
    rows = [f"a.png,ring,20,10,70,50,{SIZE[0]},{SIZE[1]},{mask['counts'].decode()}", "b.png,ring,20,10,70,50,,,abc"]
    a, b = read_csv(tmp_path, "\n".join([HEAD + ",height,width,mask", *rows]))
    assert a.objects[0].mask == mask
    assert kinds(b) == ["unreadable mask"]
    assert b.objects[0].mask is None


def test_a_table_of_something_else_is_passed_over(tmp_path: Path) -> None:
    write_bbbc041(tmp_path, 1)
    (tmp_path / "people.csv").write_text("name,age\nada,36\n")
    assert detect_format(tmp_path) == "bbbc041"
    (tmp_path / "training.json").unlink()
    with pytest.raises(UnusableAnnotations, match=r"bbbc041, iml, coco.*got people\.csv and 1 other"):
        detect_format(tmp_path)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00binary")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UnusableAnnotations, match=r"a\.csv is no CSV.*b\.parquet is no PARQUET"):
        read_source(tmp_path)


def parquet(**columns: Any) -> io.BytesIO:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    out.seek(0)
    return out


def test_a_parquet_table_from_pandas_is_read(tmp_path: Path) -> None:
    table = parquet(
        image=["a.png", "a.png"],
        label=["ring", "schizont"],
        x1=[1, 2],
        y1=[1.0, float("nan")],
        x2=[9, 9],
        y2=["9", "9"],
        patient=[17.0, float("nan")],
        extra=[[1], [2]],
    )
    (tmp_path / "labels.parquet").write_bytes(table.read())
    for source in (tmp_path, tmp_path / "labels.parquet", zip_folder(tmp_path, tmp_path.with_suffix(".zip"))):
        (image,) = read_source(source, "parquet")
        assert [(thing.label, thing.box) for thing in image.objects] == [("ring", (1, 1, 9, 9))]
        assert image.patient == "17"
        assert kinds(image) == ["contradicting row", "unreadable box"]


def test_a_small_file_cannot_unpack_to_a_huge_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("al_loop.formats.parquet_table.MAX_ANNOTATION_BYTES", 2**20)
    column = pa.array(["x" * 4000] * 2000)
    bomb = parquet(image=column, label=column, x1=column, y1=column, x2=column, y2=column)
    assert len(bomb.getvalue()) < 2**20
    with pytest.raises(ValueError, match="at most 1 MiB unpacked"):
        parquet_table.parse(bomb)


def test_rows_are_read_only_where_they_are_labels() -> None:
    assert csv_table.parse(io.BytesIO(b"a,b\n1,2\n")).rows == ()
    assert parquet_table.parse(parquet(a=[1])).rows == ()
    assert not csv_table.matches(parquet_table.parse(parquet(a=[1])))
    assert not parquet_table.matches([bbbc041_record("a.png")])
