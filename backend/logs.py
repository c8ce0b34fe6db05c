"""Log lines for people or programs, each with the run, the image and the request it is about.

Whoever begins to work on one of them says so once, `with about(run=7):`; every line logged inside, by whatever module,
carries it. Set up once per process, by the command line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["text", "json"]

# They say at INFO, for each of their own calls, what we say better; httpx with the whole address and its query.
CHATTY = ("httpx", "httpcore", "alembic", "uvicorn.error", "dbos")

_about: ContextVar[dict[str, int | str]] = ContextVar("about", default={})  # noqa: B039 - replaced, never changed
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@contextmanager
def about(
    *, run: int | None = None, image: int | None = None, request: str | None = None, stage: str | None = None
) -> Iterator[None]:
    """Lines logged inside the block, also on threads started with its context, are about these.

    run: id of a training run. image: id of an image. request: id of a request to the server. stage: of a run.
    What is not given stays as it is outside.
    """
    given = {"run": run, "image": image, "request": request, "stage": stage}
    before = _about.set(_about.get() | {name: value for name, value in given.items() if value is not None})
    try:
        yield
    finally:
        _about.reset(before)


def current() -> dict[str, int | str]:
    """What the work at hand is about: any of run, image, request and stage."""
    return dict(_about.get())


class JsonLines(logging.Formatter):
    """One JSON object per line: at (UTC), level, logger, message, ids, extra fields, and a traceback as `error`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **current(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """`moment LEVEL logger message [run=7 image=12]`. Control signs of a message are spelled out: it stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        message = _CONTROL.sub(lambda sign: repr(sign[0])[1:-1], record.getMessage())
        ids = " ".join(f"{name}={value}" for name, value in current().items())
        line = f"{_moment(record)} {record.levelname} {record.name} {message}" + (f" [{ids}]" if ids else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what is stderr at that moment: whoever replaces it, and closes it later, takes no line away."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up(form: LogFormat, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every line of this process to `stream` (stderr) in this format. Replaces what was set up before."""
    handler = _ToStderr() if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
