"""Labelling configurations: which control carries our cells, and what is refused."""

from __future__ import annotations

import pytest

from backend.errors import UnusableLabelConfig
from backend.instances import CLASSES, DIFFICULT
from backend.label_studio.label_config import COLOURS, canonical_label, default_config, parse


def config(*tags: str, labels: tuple[str, ...] = CLASSES) -> str:
    """A configuration with these label controls, each with these labels."""
    inside = "".join(f'<Label value="{label}"/>' for label in labels)
    controls = "".join(f'<{tag} name="{tag[:4].lower()}" toName="image">{inside}</{tag}>' for tag in tags)
    return f'<View><Image name="image" value="$image"/>{controls}</View>'


def test_default_config_carries_every_label_in_distinct_colours() -> None:
    parsed = parse(default_config())
    assert (parsed.to_name, parsed.value_key) == ("image", "image")
    assert [control.kind for control in parsed.controls] == ["rectangle"]
    assert set(parsed.controls[0].labels) == {*CLASSES, DIFFICULT}
    assert len(set(COLOURS.values())) == len(CLASSES) + 1
    assert len({f'hotkey="{n}"' for n in range(1, 8) if f'hotkey="{n}"' in default_config()}) == 7
    assert not parsed.wants_masks


@pytest.mark.parametrize(
    ("tags", "with_mask", "without_mask"),
    [
        (["RectangleLabels"], "rectangle", "rectangle"),
        (["EllipseLabels", "RectangleLabels"], "ellipse", "ellipse"),
        (["RectangleLabels", "PolygonLabels"], "polygon", "rectangle"),
        (["PolygonLabels"], "polygon", "polygon"),
        (["BrushLabels", "RectangleLabels"], "rectangle", "rectangle"),
        (["rectanglelabels"], "rectangle", "rectangle"),
    ],
)
def test_the_best_control(tags: list[str], with_mask: str, without_mask: str) -> None:
    parsed = parse(config(*tags))
    assert parsed.best(has_mask=True).kind == with_mask
    assert parsed.best(has_mask=False).kind == without_mask
    assert parsed.wants_masks == (with_mask == "polygon")


def test_labels_may_be_spelled_the_projects_way() -> None:
    parsed = parse(config("RectangleLabels", labels=tuple(name.replace(" ", "_").title() for name in CLASSES)))
    assert parsed.best(has_mask=False).spelling("red blood cell") == "Red_Blood_Cell"
    assert parsed.best(has_mask=False).spelling(DIFFICULT) is None
    assert canonical_label("Red-Blood  cell") == "red blood cell"
    assert canonical_label("Platelet") == "Platelet"


def test_an_alias_is_what_results_hold() -> None:
    xml = config("RectangleLabels").replace('value="ring"', 'value="Ring stage" alias="ring"')
    assert "ring" in parse(xml).controls[0].labels


def test_the_image_that_has_the_controls_is_chosen() -> None:
    xml = config("RectangleLabels").replace("<View>", '<View><Image name="map" value="$overview"/>')
    assert parse(xml).value_key == "image"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("no xml at all", "expected XML"),
        ("", "expected XML"),
        ('<View><Text name="t" value="$text"/></View>', "got none"),
        (config("BrushLabels"), "RectangleLabels, EllipseLabels or PolygonLabels"),
        (config("RectangleLabels", labels=("ring",)), "without red blood cell, trophozoite, schizont"),
        (config().replace("</View>", '<Choices name="c" toName="image"/></View>'), "no such control"),
        (config("RectangleLabels").replace('toName="image"', 'toName="elsewhere"'), "got rectangle control"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "declares a document type"),
    ],
)
def test_unusable_configurations_say_what_is_missing(xml: str, message: str) -> None:
    with pytest.raises(UnusableLabelConfig, match=message):
        parse(xml)
