"""Lines of the log: one per event, with what it is about, for people and for programs."""

from __future__ import annotations

import io
import json
import logging
import threading
from contextvars import copy_context

from backend.logs import LogFormat, about, current, set_up

log = logging.getLogger("tests.logs")


def lines(form: LogFormat) -> io.StringIO:
    stream = io.StringIO()
    set_up(form, stream=stream)
    return stream


def test_json_lines_carry_ids_fields_and_tracebacks(root_logger: logging.Logger) -> None:
    stream = lines("json")
    with about(run=7, stage="train"):
        with about(image=12):
            log.info("seen %d cells", 3, extra={"reasons": ["better"]})
        try:
            raise ValueError("no\nluck")
        except ValueError:
            log.exception("failed")
    log.warning("outside")
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first.pop("at").endswith("Z")
    assert first == {
        "level": "info", "logger": "tests.logs", "message": "seen 3 cells", "run": 7, "stage": "train", "image": 12,
        "reasons": ["better"],
    }  # fmt: skip
    assert (second["run"], second.get("image")) == (7, None)
    assert "ValueError: no\nluck" in second["error"]
    assert third.keys() == {"at", "level", "logger", "message"}


def test_a_text_line_stays_one_line_whatever_somebody_sends(root_logger: logging.Logger) -> None:
    stream = lines("text")
    with about(request="abc"):
        log.info("webhook %s", "A\n2026-01-01 INFO forged\x1b[31m")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r"INFO tests.logs webhook A\n2026-01-01 INFO forged\x1b[31m [request=abc]")


def test_addresses_that_http_clients_call_are_not_told(root_logger: logging.Logger) -> None:
    stream = lines("text")
    logging.getLogger("httpx").info("HTTP Request: GET http://studio/?token=secret")
    assert stream.getvalue() == ""


def test_threads_started_with_the_context_are_about_the_same() -> None:
    found: list[dict[str, int | str]] = []
    with about(run=7):
        context = copy_context()
    thread = threading.Thread(target=context.run, args=(lambda: found.append(current()),))
    thread.start()
    thread.join()
    assert found == [{"run": 7}]
    assert current() == {}
