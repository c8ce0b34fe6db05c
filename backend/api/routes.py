"""What a request asks for, in words that hold no secret and no name: its route's pattern, never its address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def route_of(scope: Mapping[str, Any]) -> str:
    """The pattern of the route that answers, as /crops/{name}; "other" where there is none."""
    return str(getattr(scope.get("route"), "path", "other"))


def method_of(scope: Mapping[str, Any]) -> str:
    """The request's method; "other" for words of somebody's own."""
    return scope["method"] if scope["method"] in METHODS else "other"


def described(scope: Mapping[str, Any]) -> str:
    """Method and route, for a line of the log or an answer."""
    return f"{method_of(scope)} {route_of(scope)}"
