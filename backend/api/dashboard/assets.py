"""The dashboard's stylesheet, scripts and charting library, all from our own process.

Their address holds a hash of them all, so that browsers may keep them for good and a new version is a new address.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

FOLDER = Path(__file__).parent / "static"
PLOTLY = "plotly.js"
FOR_GOOD = "public, max-age=31536000, immutable"

router = APIRouter()


@dataclass(frozen=True)
class Asset:
    """One file, as it is and compressed."""

    media_type: str
    data: bytes
    etag: str

    @functools.cached_property
    def compressed(self) -> bytes:
        """Gzip of the data, made when the first browser asks: 0.2 s for the charting library."""
        return gzip.compress(self.data, 6, mtime=0)


def _plotly() -> Path:
    # The module itself stays unimported: it would cost a second, and all we need is the file it brings.
    found = importlib.util.find_spec("plotly")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "package_data" / "plotly.min.js"


@functools.cache
def assets() -> dict[str, Asset]:
    """Every file by its name."""
    found = {}
    for name, path in {PLOTLY: _plotly(), **{path.name: path for path in sorted(FOLDER.iterdir())}}.items():
        data = path.read_bytes()
        media_type = mimetypes.types_map[Path(name).suffix]
        found[name] = Asset(media_type, data, hashlib.sha256(data).hexdigest()[:32])
    return found


@functools.cache
def fingerprint() -> str:
    """A hash of all files together."""
    return hashlib.sha256("".join(asset.etag for asset in assets().values()).encode()).hexdigest()[:16]


def address(name: str) -> str:
    """Where browsers find the file with this name. Raises KeyError for a name we do not have."""
    if name not in assets():
        raise KeyError(f"expected one of {', '.join(assets())}, got {name!r}")
    return f"/dashboard/static/{fingerprint()}/{name}"


@router.get("/static/{version}/{name}")
def static(version: str, name: str, request: Request) -> Response:
    """One file; 404 for any other name or version. Needs no session: the sign-in page is styled, too."""
    asset = assets().get(name) if version == fingerprint() else None
    if asset is None:
        return Response(status_code=404)
    small = "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{asset.etag}{"-gzip" if small else ""}"'
    headers = {"ETag": etag, "Cache-Control": FOR_GOOD, "Vary": "Accept-Encoding"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if small:
        headers["Content-Encoding"] = "gzip"
    return Response(asset.compressed if small else asset.data, media_type=asset.media_type, headers=headers)
