"""Sources as folders and archives: hostile names reach nothing, bombs are not unpacked, annotations find images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from al_loop.formats.documents import read_documents
from al_loop.formats.opener import (
    MAX_ANNOTATION_BYTES,
    MAX_IMAGE_BYTES,
    FolderOpener,
    ImageIndex,
    ZipOpener,
    open_source,
)
from backend.errors import ImageRefused, UnusableAnnotations
from tests.al_loop.sources import zip_folder


def write(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_folder_and_archive_show_the_same_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", a_dot_json="[1]", images__b_dot_png="b", _dot_hidden="x", _dot_git__c="x")
    archive = zip_folder(folder, tmp_path / "set.zip")
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("__MACOSX/images/._b.png", "resource fork")
    for opener in (open_source(folder), open_source(archive)):
        assert [name for name in opener.names() if not name.startswith(".git")] == ["a.json", "images/b.png"]
        with opener.open("images/b.png") as handle:
            assert handle.read() == b"b"
        assert read_documents(opener) == ({"a.json": [1]}, {})


def test_an_archive_can_name_nothing_outside(tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for name in ("../escaped.png", "/absolute.png", "ok/../../up.png", "..\\windows.png", "fine.png"):
            out.writestr(name, b"x")
    opener = ZipOpener(archive)
    assert opener.names() == ["fine.png"]
    index = ImageIndex(opener)
    for wanted in ("../escaped.png", "/images/../../escaped.png", "absolute.png"):
        assert index.find("training.json", wanted) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.zip"]


def test_an_annotation_can_name_nothing_outside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    root = write(tmp_path / "set", images__a_dot_png="a")
    index = ImageIndex(FolderOpener(root))
    assert index.find("training.json", "../secret.png") is None
    assert index.find("training.json", str(tmp_path / "secret.png")) is None
    assert index.find("training.json", "/images/a.png") == "images/a.png"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("bomb.png", bytes(40 * 2**20))
        out.writestr("small.png", bytes(2**20))
    opener = ZipOpener(archive)
    with pytest.raises(ImageRefused, match=r"bomb\.png: expected a member of at most"):
        opener.open("bomb.png")
    with pytest.raises(ImageRefused, match="at most 0 MiB"):
        opener.open("small.png", limit=1000)
    assert len(opener.open("small.png").read()) == 2**20
    assert MAX_IMAGE_BYTES < MAX_ANNOTATION_BYTES


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    archive = tmp_path / "liar.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a.png", bytes(30 * 2**20))
    raw = archive.read_bytes()
    size = (30 * 2**20).to_bytes(4, "little")
    assert raw.count(size) == 2  # in the member's own header and in the directory
    archive.write_bytes(raw.replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(ImageRefused, match="unpacks"):
        ZipOpener(archive).open("a.png")


def test_a_damaged_member_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    archive = tmp_path / "damaged.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("bad.png", b"0123456789" * 50)
        out.writestr("good.png", b"good")
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"0123456789")] ^= 255
    archive.write_bytes(raw)
    opener = ZipOpener(archive)
    with pytest.raises(ImageRefused, match="CRC"):
        opener.open("bad.png")
    assert opener.open("good.png").read() == b"good"


def test_a_folder_bounds_file_sizes_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bytes(2000))
    with pytest.raises(ImageRefused, match="expected at most"):
        FolderOpener(tmp_path).open("a.png", limit=1000)


def test_what_is_no_source_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnusableAnnotations, match="found nothing there"):
        open_source(tmp_path / "missing")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(UnusableAnnotations, match="expected a zip archive"):
        open_source(tmp_path / "text.zip")


def test_one_annotation_file_uses_the_images_beside_it(tmp_path: Path) -> None:
    write(tmp_path, a_dot_json="[1]", b_dot_json="[2]", c_dot_png="c")
    opener = open_source(tmp_path / "b.json")
    assert opener.names() == ["b.json", "c.png"]
    assert read_documents(opener)[0] == {"b.json": [2]}


def test_broken_json_is_reported_beside_the_good(tmp_path: Path) -> None:
    write(tmp_path, a_dot_json="[1]", b_dot_json="{broken")
    documents, broken = read_documents(FolderOpener(tmp_path))
    assert documents == {"a.json": [1]}
    assert "no JSON" in broken["b.json"]


def test_images_are_found_beside_below_and_by_their_unique_name(tmp_path: Path) -> None:
    root = write(
        tmp_path, top__images__a_dot_png="", top__b_dot_png="", x__c_dot_png="", y__c_dot_png="", x__d_dot_png=""
    )
    index = ImageIndex(FolderOpener(root))
    assert index.find("top/t.json", "a.png") == "top/images/a.png"
    assert index.find("top/t.json", "\\images\\a.png") == "top/images/a.png"
    assert index.find("top/t.json", "b.png") == "top/b.png"
    assert index.find("top/t.json", "elsewhere/d.png") == "x/d.png"
    assert index.find("top/t.json", "c.png") is None  # two of that name: guessing would mix up labels
