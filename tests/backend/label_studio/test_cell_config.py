"""The configuration of cells one by one: every answer there and back, one key each."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from backend.errors import UnusableLabelConfig
from backend.instances import CLASSES, DIFFICULT
from backend.label_studio.cell_config import (
    ADD_TO_FIELD,
    LETTERS,
    NOT_A_CELL,
    answer_of,
    default_cell_config,
    editor_keymap,
    parse_cells,
    result_of,
)
from backend.label_studio.label_config import default_config

CONFIG = parse_cells(default_cell_config())


def test_every_answer_there_and_back() -> None:
    assert set(CONFIG.answers.values()) == {*CLASSES, DIFFICULT, NOT_A_CELL, ADD_TO_FIELD}
    for answer in CONFIG.answers.values():
        assert answer_of(result_of(answer, CONFIG), CONFIG) == answer


def test_the_numbers_are_those_of_a_field_and_never_submit() -> None:
    def keys(xml: str, tag: str) -> dict[str, str]:
        return {e.get("value", ""): e.get("hotkey", "") for e in ElementTree.fromstring(xml).iter(tag)}

    cells, field = keys(default_cell_config(), "Choice"), keys(default_config(), "Label")
    for name, number in field.items():
        assert cells[name].split(",")[0] == number
    letters = [hotkey.split(",")[1] for hotkey in cells.values()]
    assert letters == list(LETTERS)
    submit = json.loads(editor_keymap())["annotation:submit"]["key"].split(",")
    assert set(letters) <= set(submit)
    assert not set(submit) & set("0123456789")


def test_projects_may_spell_labels_their_way() -> None:
    xml = default_cell_config().replace('value="red blood cell"', 'value="Red_Blood_Cell"')
    config = parse_cells(xml)
    assert result_of("red blood cell", config)[0]["value"] == {"choices": ["Red_Blood_Cell"]}
    assert answer_of(result_of("red blood cell", config), config) == "red blood cell"


@pytest.mark.parametrize("xml", ["<View>", default_config(), "<!DOCTYPE x><View/>", "<View/>"])
def test_an_unusable_configuration_says_what_is_missing(xml: str) -> None:
    with pytest.raises(UnusableLabelConfig, match="expected"):
        parse_cells(xml)


@pytest.mark.parametrize(
    "result",
    [
        [],
        ["x"],
        [{"from_name": "answer"}],
        [{"from_name": "answer", "value": {"choices": []}}],
        [{"from_name": "answer", "value": {"choices": ["ring", "schizont"]}}],
        [{"from_name": "answer", "value": {"choices": ["unheard of"]}}],
        [{"from_name": "other", "value": {"choices": ["ring"]}}],
    ],
)
def test_what_is_no_answer(result: list) -> None:
    assert answer_of(result, CONFIG) is None
