"""What a task may name to make us open or fetch what is not its image: every trick ends as one refused task."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.api.task_images import LocalFile, Upload, locate
from backend.errors import CellloopError, ImageOutsideRoots
from tests.backend.server import LABEL_STUDIO, Bench

OWN = LABEL_STUDIO.removeprefix("http://")
HOSTS = (
    "127.0.0.1", "127.0.0.1:22", "2130706433:8999", "0x7f000001:8999", "017700000001:8999", "127.1:8999", "0:8999",
    "[::1]:8999", "[::ffff:127.0.0.1]:8999", "localhost:8999", "localtest.me:8999", "169.254.169.254",
    f"{OWN}@evil.example", f"evil.example#@{OWN}", f"evil.example\\@{OWN}", f"{OWN}.evil.example",
    f"{OWN}%2eevil.example",
    f"user:secret@{OWN}", f"{OWN}:80", f" {OWN}", "①②⑦.⓪.⓪.①:8999",
)  # fmt: skip
PATHS = (
    "../credentials.json", "images/../../credentials.json", "/etc/passwd", "images//../../credentials.json",
    "images/%2e%2e/%2e%2e/credentials.json", "images/..%2f..%2fcredentials.json", "..%252fcredentials.json",
    "images\\..\\..\\credentials.json", "images/link/passwd", "images/\0/../../credentials.json", "~/x", "file:///etc/passwd",
    "images/" + "a" * 300, "images/" + "a/" * 900, "images/loop/x", ".", "images", "images/..", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "gopher", "file", ""])
def test_only_label_studio_itself_is_ever_asked(scheme: str, host: str) -> None:
    with pytest.raises(ImageOutsideRoots):
        locate(f"{scheme}{':' if scheme else ''}//{host}/data/upload/1/a.png", [Path("/files")], LABEL_STUDIO)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leaves_the_allowed_folders(tmp_path: Path, path: str) -> None:
    home = tmp_path / "home"
    images = home / "files" / "images"
    images.mkdir(parents=True)
    (home / "credentials.json").write_text("secret")
    (images / "link").symlink_to("/etc")
    (images / "loop").symlink_to(images / "loop")
    try:
        place = locate(f"/data/local-files/?d={path}", [home / "files"], LABEL_STUDIO)
    except CellloopError:
        place = None
    if isinstance(place, LocalFile):
        assert place.path.resolve().is_relative_to(images)
        assert not place.path.is_file()
    assert not isinstance(place, Upload)


def test_every_trick_is_one_refused_task(client: TestClient, bench: Bench) -> None:
    good = bench.add_image(1)
    bench.activate_pair()
    tricks = [f"/data/local-files/?d={path}" for path in PATHS] + [
        f"http://{host}/data/upload/1/a.png" for host in HOSTS
    ]
    tricks += ["/data/upload/" + "a" * 100_000, "/data/upload/a\x01b.png", "/data/upload/%2e%2e/api/users", "{{7*7}}"]
    tricks += [
        "'; DROP TABLE images; --",
        "/data/local-files/?d=' OR '1'='1",
        "/data/local-files/?d=%27%20UNION%20SELECT",
    ]
    body = bench.body(*[trick for trick in tricks if trick.isascii()], good)
    results = client.post("/predict", json=body).json()["results"]
    assert [("result" in item) for item in results] == [False] * (len(results) - 1) + [True]
    assert "49" not in results[-5]["reason"]
    secret = bench.credentials.basic_password
    assert all(secret not in item["reason"] and "root:" not in item["reason"] for item in results[:-1])
    assert client.post("/predict", json=bench.body(good)).json()["results"][0]["result"], "the record is whole"
