"""The API does what its own description says: requests made up from it, right and wrong ones, are all answered as told.

No server error, no status, type or shape that is not described, nothing without its secret.
CELLLOOP_CASES is how many of each an operation gets; the test run makes few, always the same:
`CELLLOOP_CASES=200 pytest --timeout=7200 tests/backend/test_api_schema.py` makes some ten thousand.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from backend.instances import ROLES
from backend.label_studio.label_config import default_config
from db import versions
from tests import builders
from tests.backend.server import Bench
from tests.made_history import make_history

CASES = int(os.environ.get("CELLLOOP_CASES", "6"))
LIMITS = settings(
    max_examples=CASES, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)
# What the description cannot say: a cursor is one of ours, a configuration carries our cells; and what a query cannot:
# a parameter given twice is no list, the last one counts.
UNSAID = [positive_data_acceptance, negative_data_rejection]


def test_every_answer_is_described(tmp_path: Path, database_url: str) -> None:
    bench = Bench(tmp_path / "home", database_url)
    with bench.database.session() as session:
        make_history(session)
        for role in ROLES:
            weights = bench.store.put_bytes("weights", role.encode(), ".safetensors")
            version = builders.add_version(session, role, weights_sha256=weights.sha256)
            versions.activate(session, version.id, kind="person", reasons=["its weights are whole: it can be loaded"])
        versions.active_pair(session)
    image = bench.add_image(1)
    bench.predict(image)
    known: dict[str, Any] = {"cell": "thecell", "image": "S2-f1.png", "version": bench.active().infected_id}
    known["data"] = {"image": f"/data/local-files/?d={image.file}"}
    answered: Counter[str] = Counter()
    with bench.client() as client:
        token = bench.bearer(bench.token)["headers"]
        schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", client.app, headers=token)
        for found in schema.get_all_operations():
            operation = found.ok()
            secret = _secret(bench, operation.definition.raw)
            for mode in GenerationMode:
                answered += _ask(operation, mode, secret, known)
        bench.database.dispose()
    paths = {name.rpartition(" ")[0] for name in answered}
    assert len(paths) >= 27
    assert {name for name in paths if not any(answered[f"{name} {code}"] for code in (200, 202, 204, 409))} <= {
        "GET /crops/{name}"  # nobody guesses an address
    }
    assert answered.total() >= 27 * CASES


def _secret(bench: Bench, operation: dict[str, Any]) -> dict[str, str]:
    """The header with what this operation asks for."""
    asked = {name for each in operation.get("security", ()) for name in each}
    if "label_studio" in asked:
        return (
            {"Authorization": f"Bearer {bench.credentials.webhook_secret}"}
            if "webhook" in asked
            else bench.basic_header
        )
    return bench.bearer(bench.token)["headers"] if asked else {}


def _ask(operation: Any, mode: GenerationMode, secret: dict[str, str], known: dict[str, Any]) -> Counter[str]:
    """Requests to this operation, each checked; how often it answered what: "GET /path 200"."""
    answered: Counter[str] = Counter()

    @seed(20261126)
    @LIMITS
    @given(case=operation.as_strategy(generation_mode=mode), sensible=st.sampled_from([True, True, False]))
    def ask(case: Case, sensible: bool) -> None:
        if sensible and mode is GenerationMode.POSITIVE:
            _make_sensible(case, known)
        reply = case.call(headers=secret)
        answered[f"{operation.label} {reply.status_code}"] += 1
        case.validate_response(reply, headers=secret, excluded_checks=UNSAID)

    try:
        ask()
    except Unsatisfiable:  # nothing can be wrong with a request that carries nothing
        assert mode is GenerationMode.NEGATIVE
    return answered


def _make_sensible(case: Case, known: dict[str, Any]) -> None:
    """Values that mean something here, so that more is reached than the first check of a value."""
    if isinstance(case.query, dict):
        case.query.pop("cursor", None)
        for name in ("cell", "image", "slide", "patient", "expert", "pair", "version"):
            case.query.pop(name, None)
            if name in known and any(each.name == name and each.is_required for each in case.operation.query):
                case.query[name] = known[name]
    if isinstance(case.body, dict) and case.path in ("/predict", "/setup"):
        case.body |= {"label_config": default_config(), "schema": default_config()}
        case.body.setdefault("params", {}).pop("context", None)
        for task in case.body.get("tasks", ()):
            task["data"] = known["data"]
