"""Labelling configurations (XML): which controls can carry our cells, and the configuration of our own projects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Literal, get_args
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from backend.errors import UnusableLabelConfig
from backend.instances import CLASSES, DIFFICULT
from backend.label_studio.plain_xml import read_plain_xml

Kind = Literal["rectangle", "ellipse", "polygon", "brush"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# What a person asked for by adding the control goes first. Brush never goes by itself: 100 brush masks take the
# editor 15.6 s to load and 2.6 s per zoom step, 100 polygons 1.8 s and 0.1 s.
PREFERENCE: tuple[Kind, ...] = ("polygon", "ellipse", "rectangle")
TAGS: dict[str, Kind] = {
    "rectanglelabels": "rectangle",
    "ellipselabels": "ellipse",
    "polygonlabels": "polygon",
    "brushlabels": "brush",
}

# Okabe and Ito's palette: told apart with every common colour blindness, and on pink smears. Hotkeys by frequency.
COLOURS: dict[str, str] = {
    "red blood cell": "#56B4E9",
    "trophozoite": "#D55E00",
    "ring": "#E69F00",
    "schizont": "#CC79A7",
    "gametocyte": "#009E73",
    "leukocyte": "#0072B2",
    DIFFICULT: "#000000",
}

TOLD = 5  # controls that a complaint names


def _plain(label: str) -> str:
    return " ".join(label.replace("_", " ").replace("-", " ").split()).casefold()


_CANONICAL: dict[str, str] = {_plain(name): name for name in (*CLASSES, DIFFICULT)}


def canonical_label(label: str) -> str:
    """Our name of a label as a project spells it ("Red_Blood_Cell" is "red blood cell"); unknown ones unchanged."""
    return _CANONICAL.get(_plain(label), label)


@dataclass(frozen=True)
class LabelControl:
    """One control that draws labelled regions. labels: as the project spells them (an alias where it has one)."""

    kind: Kind
    from_name: str
    labels: tuple[str, ...]

    @cached_property
    def _spellings(self) -> dict[str, str]:
        # Asked for every cell of thousands of tasks: worked out once per control.
        return {canonical_label(own): own for own in reversed(self.labels)}

    def spelling(self, label: str) -> str | None:
        """How this control spells our `label` (its first such label), None when it has none."""
        return self._spellings.get(label)


@dataclass(frozen=True)
class LabelConfig:
    """A usable configuration: the image it shows and the controls on it.

    to_name: name of the image tag. value_key: key of the image in a task's data. controls: at least one of kind
    rectangle, ellipse or polygon has a label for every class.
    """

    to_name: str
    value_key: str
    controls: tuple[LabelControl, ...]

    def control(self, kind: Kind) -> LabelControl | None:
        """The control of this kind that carries all classes, None when there is none."""
        return self._carriers.get(kind)

    @cached_property
    def _carriers(self) -> dict[Kind, LabelControl]:
        return {c.kind: c for c in reversed(self.controls) if not missing_classes(c)}

    @property
    def wants_masks(self) -> bool:
        """Whether cells with an outline are drawn by it, so that detecting masks is worth its time."""
        return self.best(has_mask=True).kind == "polygon"

    def control_named(self, from_name: str) -> LabelControl | None:
        """The control of this name, whatever labels it has."""
        return next((c for c in self.controls if c.from_name == from_name), None)

    def best(self, has_mask: bool) -> LabelControl:
        """The control to draw a cell with: polygons only for cells with an outline, unless there is nothing else."""
        kinds = [kind for kind in PREFERENCE if self.control(kind) is not None]
        if not has_mask and "polygon" in kinds:
            kinds.append(kinds.pop(kinds.index("polygon")))
        control = self.control(kinds[0])
        assert control is not None  # parse() let no configuration pass without one
        return control


def missing_classes(control: LabelControl) -> list[str]:
    """Our classes that the control has no label for."""
    return [name for name in CLASSES if control.spelling(name) is None]


def _attribute(tag: ElementTree.Element, name: str) -> str:
    wanted = name.casefold()
    return next((value for key, value in tag.attrib.items() if key.casefold() == wanted), "")


def _labels(tag: ElementTree.Element) -> tuple[str, ...]:
    children = [child for child in tag.iter() if child.tag.casefold() == "label"]
    return tuple(_attribute(child, "alias") or _attribute(child, "value") for child in children)


def parse(xml: str) -> LabelConfig:
    """The first image of a configuration and the region controls on it.

    Raises UnusableLabelConfig when it is no XML, shows no image, or has no rectangle, ellipse or polygon control
    with a label for each of our classes.
    """
    root = read_plain_xml(xml)
    images = {
        _attribute(tag, "name"): _attribute(tag, "value").removeprefix("$")
        for tag in root.iter()
        if tag.tag.casefold() == "image" and _attribute(tag, "value").startswith("$")
    }
    if not images:
        raise UnusableLabelConfig('labelling configuration: expected an <Image name="image" value="$image"/>, got none')
    controls: dict[str, list[LabelControl]] = {}
    for tag in root.iter():
        if tag.tag.casefold() in TAGS:
            control = LabelControl(TAGS[tag.tag.casefold()], _attribute(tag, "name"), _labels(tag))
            controls.setdefault(_attribute(tag, "toName"), []).append(control)
    for to_name, value_key in images.items():
        config = LabelConfig(to_name, value_key, tuple(controls.get(to_name, ())))
        if any(config.control(kind) is not None for kind in PREFERENCE):
            return config
    raise UnusableLabelConfig(_complaint(chain.from_iterable(controls.values())))


def _complaint(controls: Iterable[LabelControl]) -> str:
    found = [
        f"{each.kind} control {each.from_name[:80]!r} without {', '.join(missing_classes(each)) or 'nothing'}"
        for each in islice(controls, TOLD)
    ]
    return (
        "labelling configuration: expected RectangleLabels, EllipseLabels or PolygonLabels on the image "
        f"with the labels {', '.join(CLASSES)}; got {'; '.join(found) or 'no such control'}; "
        "add them, or let `cellloop label-studio connect` create a project with the default configuration"
    )


def default_config(outlines: bool = False) -> str:
    """The configuration of projects we create: one rectangle per cell, one hotkey per label, wheel zoom.

    outlines: with a brush of the same labels beside it, for outlines pixel by pixel.
    """
    labels, brush = [], []
    for number, (name, colour) in enumerate(COLOURS.items(), start=1):
        label = f"    <Label value={quoteattr(name)} background={quoteattr(colour)}"
        labels.append(f"{label} hotkey={quoteattr(str(number))}/>\n")
        brush.append(f"{label}/>\n")
    second = f"""  <BrushLabels name="outline" toName="image" showInline="true">
{"".join(brush)}  </BrushLabels>
"""
    return f"""<View>
  <RectangleLabels name="cell" toName="image" canRotate="false" strokeWidth="2" opacity="0.1" showInline="true">
{"".join(labels)}  </RectangleLabels>
{second if outlines else ""}  <Image name="image" value="$image" zoom="true" zoomControl="true" rotateControl="false"/>
</View>
"""
