"""Answers that a client has already cost it nothing: an ETag over the content, 304 when it is the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fastapi import Request, Response


def json_response(request: Request, content: Any) -> Response:
    """This content as JSON, or 304 without it when the request names its ETag."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag}
    known = [given.strip().removeprefix("W/") for given in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
