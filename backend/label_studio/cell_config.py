"""The labelling configuration of cells one by one: a crop, a question, and one key per answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from backend.errors import UnusableLabelConfig
from backend.instances import CLASSES
from backend.label_studio.label_config import COLOURS, canonical_label
from backend.label_studio.plain_xml import read_plain_xml

NOT_A_CELL = "not a cell"
ADD_TO_FIELD = "add to field"
OTHER_COLOURS = {NOT_A_CELL: "#999999", ADD_TO_FIELD: "#F0E442"}
CROP_PX = 480  # side of a crop as it is served and shown

ORDER = "order"  # model_version of the predictions that carry nothing but the order; the same for every pair
# The letters of the answers also submit, so that one key answers and brings the next cell. Label Studio's keys hold in
# every project: letters for a hand that is on the mouse while a field is reviewed. The numbers, which choose labels
# there, never submit. (docs/decisions/0022-cells-one-by-one.md)
LETTERS = "iopjklbnm"
SUBMIT_KEYS = ",".join(["ctrl+enter", "space", *LETTERS])

_STYLE = """
    .cellloop { display: flex; flex-direction: column; align-items: center; gap: 10px }
    .cellloop .lsf-choices { display: grid; grid-template-columns: repeat(3, 200px); gap: 8px }
    .cellloop .lsf-choice { margin: 0 }
    .cellloop .keys * { color: #777; font-size: 14px; font-weight: normal; margin: 0 }
"""


@dataclass(frozen=True)
class CellConfig:
    """A usable configuration of cells. answers: ours by the project's own spelling."""

    from_name: str
    to_name: str
    answers: Mapping[str, str]

    def spelling(self, answer: str) -> str | None:
        """How the project spells one of our answers, None when it has none."""
        return next((own for own, ours in self.answers.items() if ours == answer), None)


def default_cell_config() -> str:
    """The configuration of cell projects we create: the labels with the numbers and colours they have in a field.

    No answer is required: Label Studio checks that before it lets the key choose one.
    """
    answers = {**COLOURS, **OTHER_COLOURS}
    choices = "\n".join(
        f"      <Choice value={quoteattr(name)} hotkey={quoteattr(f'{number},{letter}')} "
        f"style={quoteattr(f'border-left: 10px solid {colour}; padding: 6px 12px 6px 10px; background: #f6f6f6')}/>"
        for number, (letter, (name, colour)) in enumerate(zip(LETTERS, answers.items(), strict=True), start=1)
    )
    return f"""<View>
  <Style>{_STYLE}  </Style>
  <View className="cellloop">
    <Header value="$question" size="4"/>
    <View style="width: {CROP_PX}px">
      <Image name="crop" value="$crop" width="{CROP_PX}px" maxWidth="{CROP_PX}px" zoom="false" zoomControl="false"
             rotateControl="false" brightnessControl="false" contrastControl="false"/>
    </View>
    <Choices name="answer" toName="crop" choice="single" showInline="true">
{choices}
    </Choices>
    <View className="keys">
      <Header value="A letter answers and brings the next cell. A number answers, and space submits it." size="6"/>
    </View>
  </View>
</View>
"""


def editor_keymap() -> str:
    """Label Studio's EDITOR_KEYMAP: the keys that submit, for everybody who has not chosen some of their own."""
    mac = SUBMIT_KEYS.replace("ctrl+", "command+")
    return json.dumps({"annotation:submit": {"key": SUBMIT_KEYS, "mac": mac, "description": "Submit annotation"}})


def parse_cells(xml: str) -> CellConfig:
    """The first single-choice control that has all our classes. Raises UnusableLabelConfig when there is none."""
    root = read_plain_xml(xml)
    for tag in root.iter():
        if tag.tag.casefold() != "choices":
            continue
        own = [
            child.get("alias") or child.get("value") or "" for child in tag.iter() if child.tag.casefold() == "choice"
        ]
        answers = {spelling: canonical_label(spelling) for spelling in own}
        if set(CLASSES) <= set(answers.values()):
            return CellConfig(tag.get("name", ""), tag.get("toName", ""), answers)
    raise UnusableLabelConfig(
        f"labelling configuration: expected <Choices> with {', '.join(CLASSES)}, got none; add it, or give the project "
        "another title and let `cellloop label-studio connect` create one"
    )


def answer_of(result: Sequence[Any], config: CellConfig) -> str | None:
    """The one answer an annotation holds (a label, NOT_A_CELL or ADD_TO_FIELD); None without a usable one."""
    for item in result:
        if isinstance(item, Mapping) and item.get("from_name") == config.from_name:
            value = item.get("value")
            chosen = value.get("choices") if isinstance(value, Mapping) else None
            if isinstance(chosen, list) and len(chosen) == 1:
                return config.answers.get(str(chosen[0]))
    return None


def result_of(answer: str, config: CellConfig) -> list[dict[str, Any]]:
    """The result of an annotation that gives this answer; empty when the project has no such choice."""
    own = config.spelling(answer)
    if own is None:
        return []
    return [
        {
            "id": "answer",
            "type": "choices",
            "from_name": config.from_name,
            "to_name": config.to_name,
            "value": {"choices": [own]},
        }
    ]
