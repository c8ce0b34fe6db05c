"""Settings: defaults that keep to loopback and one folder, and errors that name the variable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from backend.settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CELLLOOP_"):
            monkeypatch.delenv(name)


def test_defaults_stay_on_loopback_and_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert settings.host == "127.0.0.1"
    assert settings.home == tmp_path / ".cellloop"
    assert settings.files == tmp_path / ".cellloop" / "files"
    assert settings.database_url == f"sqlite:///{tmp_path}/.cellloop/cellloop.sqlite"
    assert settings.backend_url == "http://127.0.0.1:9090"


def test_paths_do_not_follow_a_later_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=Path("here"))
    monkeypatch.chdir("/")
    assert settings.home == tmp_path / "here"


def test_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLLOOP_IMAGE_ROOTS", f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    monkeypatch.setenv("CELLLOOP_DATABASE_URL", "postgresql+psycopg://loop@db/loop")
    monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", "http://label-studio:8080/")
    settings = Settings()
    assert settings.image_roots == (tmp_path / "a", tmp_path / "b")
    assert settings.database_url == "postgresql+psycopg://loop@db/loop"
    assert settings.label_studio_url == "http://label-studio:8080"


def test_a_wrong_value_names_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLLOOP_PORT", "ninety")
    with pytest.raises(ValidationError, match="port"):
        Settings()
    monkeypatch.delenv("CELLLOOP_PORT")
    monkeypatch.setenv("CELLLOOP_LABEL_STUDIO_URL", "label-studio:8080")
    with pytest.raises(ValidationError, match="http://"):
        Settings()


def test_the_token_is_not_in_the_repr() -> None:
    assert "s3cret" not in repr(Settings(label_studio_token="s3cret"))


@pytest.mark.parametrize("url", ["s3://key:s3cret@bucket/x", "s3://bucket/x?secret_key=s3cret", "bucket/s3cret"])
def test_the_address_of_the_files_holds_no_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CELLLOOP_FILES_URL", url)
    with pytest.raises(ValidationError, match="files_url") as refused:
        Settings()
    assert "s3cret" not in refused.value.errors()[0]["msg"]
    assert Settings(files_url="s3://bucket/x?scheme=http").files_url == "s3://bucket/x?scheme=http"


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]
