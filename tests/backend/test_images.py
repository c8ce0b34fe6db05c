import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.errors import ImageRefused
from backend.images import CLASS_COLOURS, draw_overlay, probe, read_image
from backend.instances import CLASSES, Instances
from backend.masks import ellipse_to_rle

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def _bytes(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(buffer, kind, **options)
    return buffer.getvalue()


def _huge_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


@pytest.fixture
def _no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_images_come_back_exactly(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "field"
    path.write_bytes(_bytes(kind))
    assert probe(path) == (60, 40, kind)
    np.testing.assert_array_equal(read_image(path), PIXELS)
    np.testing.assert_array_equal(read_image(path.read_bytes()), PIXELS)


def test_other_modes_become_rgb_uint8() -> None:
    grey = read_image(_bytes("PNG", Image.fromarray(PIXELS[:, :, 0])))
    assert grey.shape == (40, 60, 3)
    deep = Image.fromarray(np.full((4, 5), 40_000, dtype=np.uint16))
    assert read_image(_bytes("PNG", deep))[0, 0].tolist() == [40_000 >> 8] * 3
    assert read_image(_bytes("PNG", Image.fromarray(PIXELS).convert("RGBA"))).dtype == np.uint8


def test_exif_orientation_is_applied_like_a_browser_does() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _bytes("JPEG", exif=exif)
    assert probe(data) == (40, 60, "JPEG")
    assert read_image(data).shape == (60, 40, 3)


@pytest.mark.usefixtures("_no_decoding")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_huge_png(20_000, 20_000), "at most 40 megapixels"),
        (_huge_png(9_000, 6_000), "got 9000 x 6000"),
        (_bytes("PNG")[:-200], "ends too early"),
        (_bytes("JPEG")[:-200], "ends too early"),
        (b"patient;age\n7;31\n", "expected an image"),
        (b"", "expected an image"),
        (_bytes("GIF"), "expected an image"),
        (_bytes("PNG", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])]), "2 frames"),
        (_bytes("TIFF", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])]), "2 frames or pages"),
    ],
    ids=["huge", "large", "cut png", "cut jpeg", "text", "empty", "gif", "animated", "paged"],
)
def test_unsafe_files_are_refused_without_decoding(data: bytes, words: str) -> None:
    with pytest.raises(ImageRefused, match=words):
        probe(data)
    with pytest.raises(ImageRefused, match=words):
        read_image(data)


def test_damage_inside_is_refused_while_decoding() -> None:
    data = bytearray(_bytes("PNG"))
    data[200:400] = bytes(200)
    with pytest.raises(ImageRefused, match="damaged"):
        read_image(bytes(data))


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match=r"gone\.png: expected an image file, found no file"):
        read_image(tmp_path / "gone.png")


def test_the_overlay_draws_boxes_and_outlines_in_class_colours() -> None:
    image = np.full((40, 60, 3), 255, dtype=np.uint8)
    boxes = Instances.of((40, 60), np.array([[5, 5, 20, 20]]), np.array([CLASSES.index("ring")]))
    drawn = draw_overlay(image, boxes, thickness=1)
    np.testing.assert_allclose(drawn[5, 12], CLASS_COLOURS[CLASSES.index("ring")], atol=25)  # lines are smoothed
    assert (image == 255).all()
    masked = Instances.of(
        (40, 60), np.array([[5, 5, 25, 25]]), np.array([0]), masks=[ellipse_to_rle((15, 15), (10, 10), (40, 60))]
    )
    outlined = draw_overlay(image, masked)
    assert tuple(outlined[5, 5]) == (255, 255, 255)  # the box's corner stays free
    assert (outlined != 255).any()
    with pytest.raises(ValueError, match=r"\(40, 60\)"):
        draw_overlay(image[:20], masked)
