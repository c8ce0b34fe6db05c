"""What Label Studio, or whoever has its secret, may send: made-up events, and configurations that are meant to hurt."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import UnusableLabelConfig
from backend.label_studio.cell_config import default_cell_config, parse_cells
from backend.label_studio.label_config import default_config, parse
from backend.label_studio.plain_xml import DEEPEST, LARGEST, MOST
from backend.label_studio.protocol import wake_up
from db import inbox
from tests.backend.server import Bench

LIMITS = settings(
    max_examples=60, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
Parser = Callable[[str], Any]
PARSERS = pytest.mark.parametrize("parser", [parse, parse_cells])

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
ids = st.fixed_dictionaries({"id": scalars})
documents = st.recursive(
    scalars | ids, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
events = st.fixed_dictionaries(
    {}, optional={name: documents for name in ("action", "project", "task", "annotation", "annotations", "x")}
)


@LIMITS
@given(event=events, action=st.sampled_from(["ANNOTATION_CREATED", "ANNOTATIONS_DELETED", None]))
def test_any_event_is_stored_or_refused(
    event: dict[str, Any], action: str | None, client_of: tuple[TestClient, Bench]
) -> None:
    client, bench = client_of
    if action is not None:
        event = event | {"action": action}
    with bench.database.session(read_only=True) as session:
        before = len(inbox.unhandled(session))
    content = json.dumps(event).encode("utf-8", "surrogatepass")
    answer = client.post("/webhook", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (202, 400, 422), answer.text
    with bench.database.session(read_only=True) as session:
        kept = inbox.unhandled(session)[before:]
    assert len(kept) == (answer.status_code == 202)
    if action is not None:
        assert answer.status_code in (202, 400), answer.text
    for row in kept:
        assert set(row.payload) == {"project", "tasks", "annotations"}
        assert all(isinstance(number, int) for number in row.payload["tasks"] + row.payload["annotations"])


@pytest.fixture(scope="module")
def client_of(tmp_path_factory: pytest.TempPathFactory, _migrated_sqlite: Path) -> Any:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "cellloop.db").write_bytes(_migrated_sqlite.read_bytes())
    bench = Bench(folder / "home", f"sqlite:///{folder / 'cellloop.db'}")
    with bench.client() as client:
        yield client, bench
    bench.database.dispose()


@LIMITS
@given(event=st.dictionaries(st.sampled_from(["project", "task", "annotation", "annotations"]), documents))
def test_what_is_kept_of_an_event_is_ids(event: dict[str, Any]) -> None:
    kept = wake_up(event)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept


def laughs(levels: int = 10) -> str:
    """Ten entities of ten of the one before: 10 GB of text, from less than a kilobyte."""
    declared = ['<!ENTITY e0 "ha">'] + [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, levels + 1)]
    return f"<!DOCTYPE View [{''.join(declared)}]><View>&e{levels};</View>"


ATTACKS = {
    "billion laughs": laughs(),
    "quadratic blow-up": f'<!DOCTYPE v [<!ENTITY a "{"a" * 50_000}">]><v>{"&a;" * 10_000}</v>',
    "a file": '<!DOCTYPE v [<!ENTITY f SYSTEM "file:///etc/passwd">]><View>&f;</View>',
    "an address": '<!DOCTYPE v [<!ENTITY f SYSTEM "http://127.0.0.1:1/x">]><View>&f;</View>',
    "a parameter entity": '<!DOCTYPE v [<!ENTITY % p SYSTEM "http://127.0.0.1:1/x.dtd"> %p;]><View/>',
    "an external type": '<!DOCTYPE View SYSTEM "http://127.0.0.1:1/x.dtd"><View/>',
    "an unknown entity": "<View>&nowhere;</View>",
    "deep": "<a>" * 5_000 + "</a>" * 5_000,
    "deep and never closed": "<a>" * 80_000,
    "wide": f"<View>{'<a/>' * 50_000}</View>",
    "controls inside controls": f"<View>{'<RectangleLabels>' * 4000}{'</RectangleLabels>' * 4000}</View>",
    "an endless attribute": f'<View a="{"a" * 1_000_000}"/>',
    "attributes": "<View " + " ".join(f'a{n}="x"' for n in range(100_000)) + "/>",
    "half a sign": "<View>\ud800</View>",
    "a null": "<View>\0</View>",
    "another encoding": '<?xml version="1.0" encoding="utf-16"?><View/>',
    "an encoding nobody has": '<?xml version="1.0" encoding="x-none"?><View/>',
    "nothing": "",
}


@PARSERS
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_configuration_meant_to_hurt_is_refused_cheaply(parser: Parser, attack: str) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(UnusableLabelConfig) as refused:
        parser(ATTACKS[attack])
    seconds, (_, most) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2
    assert most < 20 * 2**20
    assert len(str(refused.value)) < 1000
    assert "root:" not in str(refused.value)


@PARSERS
@LIMITS
@given(
    pieces=st.lists(
        st.sampled_from(
            ["<View>", "</View>", "<Image name='image' value='$image'/>", "<RectangleLabels name='r' toName='image'>",
             "</RectangleLabels>", "<Label value='ring'/>", "<Choices name='c' toName='x'>", "</Choices>",
             "<Choice value='ring'/>", "<!-- x -->", "<?pi x?>", "<![CDATA[ x ]]>", "&amp;", "&#0;", "{http://x}", "$"]
        )
        | st.text(max_size=10),
        max_size=20,
    )
)  # fmt: skip
def test_any_text_is_a_configuration_or_refused(parser: Parser, pieces: list[str]) -> None:
    said = ""
    try:
        parser("".join(pieces))
    except UnusableLabelConfig as error:
        said = str(error)
    assert said == "" or said.startswith("labelling configuration: expected")


def test_the_limits_are_far_from_what_people_write() -> None:
    for own in (default_config(outlines=True), default_cell_config()):
        assert len(own) * 20 < LARGEST
        assert own.count("<") * 20 < MOST
    assert parse(default_config()) is not None
    wrapped = "<View>" * (DEEPEST - 3) + default_config() + "</View>" * (DEEPEST - 3)
    assert parse(wrapped) == parse(default_config())
