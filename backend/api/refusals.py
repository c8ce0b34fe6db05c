"""What routes may answer beside success, for their OpenAPI description: a program must be able to rely on it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Refusal(BaseModel):
    """What was expected, what came, and what to do."""

    error: str
    request: str = Field(description="id under which the backend's log tells more")


_MEANINGS = {
    400: "the body or a value in it cannot be used",
    401: "no secret, or a wrong one",
    403: "this token is good for less",
    404: "what is asked about does not exist",
    409: "it is not so, or not any more",
    413: "the body is larger than anybody needs",
    422: "a value is not what it must be",
    503: "the database, or what else is needed, does not answer",
}
ANYWHERE = (400, 413, 503)  # a body that is too deep, or too large; a database that is away


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of routes that refuse with these status codes, beside those that any route may answer."""
    return {code: {"model": Refusal, "description": _MEANINGS[code]} for code in sorted({*codes, *ANYWHERE})}
