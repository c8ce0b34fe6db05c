"""The report: it asks nothing of the network, shows what it should, and says it in words as well."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from al_loop.judge import judge
from al_loop.report import Subject, write_report
from al_loop.report_drawing import crop, ink, outlined
from al_loop.report_fields import choose_fields
from al_loop.report_mistakes import mistakes, said_about
from backend.images import CLASS_COLOURS, read_image
from backend.instances import Instances
from backend.masks import box_to_rle
from tests.al_loop.test_metrics import NOTHING, RED, RING, SIZE, TROPHOZOITE, cells

TRUTHS = [cells((0, RED, 1), (50, RING, 1)), cells((100, TROPHOZOITE, 1), (150, RED, 1)), cells((0, RED, 1))]
SEEN = [
    cells((0, RED, 0.9), (50, TROPHOZOITE, 0.8)),  # another stage
    cells((100, RED, 0.7), (150, RED, 0.9)),  # called healthy
    cells((0, RED, 0.9), (200, RING, 0.6)),  # spurious
]
NAMES = ["a<b>.png", "a<b>.png", "dir/c d.png"]


def subject(views: dict[str, list[Instances]] | None = None) -> Subject:
    views = views or {"all_cells": SEEN, "infected": [s.select(s.labels != RED) for s in SEEN], "fused": SEEN}
    judgement = judge(TRUTHS, [NOTHING] * 3, views, resamples=20)
    picture = np.full((*SIZE, 3), 200, dtype=np.uint8)
    return Subject(
        NAMES, TRUTHS, views, judgement, lambda index: picture, lambda image: {v: s[0] for v, s in views.items()}
    )


class Page(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_report_is_one_page_with_its_pictures_beside_it(tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    file = write_report(tmp_path / "new", subject(), "trial <1>", on_progress=lambda *at: steps.append(at))
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    images = page.named("img")
    # Five plots, three fields of four pictures, three mistakes.
    assert len(images) == 5 + 3 * 4 + 3
    assert all(str(image["src"]).startswith("data:image/") for image in images)
    assert all(image["alt"] for image in images)
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", text) == []
    assert not page.named("script")
    assert "trial &lt;1&gt;" in text
    assert "a&lt;b&gt;.png" in text
    assert len(page.named("caption")) == len(page.named("table")) == 2
    assert {attributes.get("scope") for attributes in page.named("th")} == {"col", "row"}
    assert [len(page.named(tag)) for tag in ("h1", "h2")] == [1, 4]
    assert page.named("html") == [{"lang": "en"}]
    plots = {path.stem for path in file.parent.glob("*.png")}
    assert plots == {"precision-recall", "froc", "calibration", "confusion", "parasitaemia"}
    assert len(list((file.parent / "fields").iterdir())) == 3
    assert sorted(p.name[:9] for p in (file.parent / "mistakes").iterdir()) == ["missed-00", "spurious-", "stage-00-"]
    for path in file.parent.rglob("*.png"):
        assert read_image(path).min() < 250  # something is drawn
    assert steps[-1] == (5, 5, "report.html")


def test_a_report_of_one_detector_leaves_out_what_it_cannot_say(tmp_path: Path) -> None:
    only = {"infected": [Instances.empty(SIZE)] * 3}
    text = write_report(tmp_path, subject(only), "blind").read_text(encoding="utf-8")
    assert not (tmp_path / "parasitaemia.png").exists()
    assert "red blood cell, AP50" not in text
    assert "Infected cells that were missed" in text


def test_mistakes_are_found_and_the_worst_comes_first() -> None:
    verdict = subject().verdict()
    found = mistakes(TRUTHS, SEEN, verdict.assigned, 0.2, most=5)
    assert [(m.image, m.truth, m.called) for m in found["stage"]] == [(0, "ring", "trophozoite")]
    assert [(m.image, m.truth, m.called) for m in found["missed"]] == [(1, "trophozoite", "red blood cell")]
    assert [(m.image, m.truth, m.called) for m in found["spurious"]] == [(2, "nothing", "ring")]
    strict = mistakes(TRUTHS, SEEN, verdict.assigned, 0.75, most=5)
    assert [m.called for m in strict["missed"]] == ["missed"]
    assert strict["spurious"] == []
    many = [cells((0, RING, 0.5), (50, RING, 0.9))]
    worst = mistakes([Instances.empty(SIZE)], many, judge([Instances.empty(SIZE)], [NOTHING], {"fused": many}, resamples=2).verdicts["fused"].assigned, 0.2, most=1)  # fmt: skip  # noqa: E501
    assert [m.weight for m in worst["spurious"]] == [pytest.approx(0.9)]


def test_what_the_views_say_of_a_place() -> None:
    box = TRUTHS[0].boxes[1]
    assert said_about(box, {"fused": SEEN[0], "infected": SEEN[2], "all_cells": Instances.empty(SIZE)}) == {
        "fused": "trophozoite 0.80, P(infected) 0.80",
        "infected": "nothing",
        "all_cells": "nothing",
    }


def test_fields_are_chosen_for_a_reason_and_once() -> None:
    verdict = subject().verdict()
    chosen = choose_fields(TRUTHS, verdict, 8)
    assert sorted(index for index, _ in chosen) == [0, 1, 2]
    assert chosen[0] == (0, "among the most infected cells: 1")
    assert len(choose_fields(TRUTHS, verdict, 2)) == 2
    assert choose_fields(TRUTHS, verdict, 8) == chosen


def test_outlines_have_the_colours_of_the_classes() -> None:
    white = np.full((*SIZE, 3), 255, dtype=np.uint8)
    drawn = outlined(white, TRUTHS[0], SIZE[1] * 2)
    assert drawn.shape == (SIZE[0] * 2, SIZE[1] * 2, 3)
    assert tuple(drawn[40, 100]) == CLASS_COLOURS[RING]  # left edge of the ring, doubled
    assert tuple(drawn[40, 0]) != (255, 255, 255)
    assert (white == 255).all()
    masked = replace(TRUTHS[0], masks=[box_to_rle(np.array([200, 100, 240, 140]), SIZE)] * 2)
    assert tuple(outlined(white, masked, SIZE[1])[120, 200]) == CLASS_COLOURS[RING]  # the mask, not the box


def test_a_crop_is_square_whatever_the_border() -> None:
    image = np.zeros((*SIZE, 3), dtype=np.uint8)
    cut = crop(image, np.array([0, 0, 20, 10], dtype=np.float32), (255, 0, 0))
    assert cut.shape == (200, 200, 3)
    assert (cut[0, 0] == 235).all()  # beyond the image
    assert ((cut == (255, 0, 0)).all(axis=2)).any()


def test_labels_can_be_read_on_every_colour() -> None:
    for colour in CLASS_COLOURS:
        light, dark = (
            sum(int(a) * w for a, w in zip(c, (0.2126, 0.7152, 0.0722), strict=True)) for c in ((255,) * 3, (0,) * 3)
        )
        level = sum(a * w for a, w in zip(colour, (0.2126, 0.7152, 0.0722), strict=True))
        chosen = light if ink(colour) == (255, 255, 255) else dark
        assert abs(chosen - level) > 90
