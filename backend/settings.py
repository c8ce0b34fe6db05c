"""Everything the environment may decide. Read at two composition roots only: `create_app` and the command line.

Each field is the environment variable `CELLLOOP_<FIELD>`; the defaults make a single machine work with
everything embedded (SQLite, local files) and nothing listening beyond loopback.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are and who may reach them. Raises pydantic.ValidationError naming the variable at fault."""

    model_config = SettingsConfigDict(env_prefix="CELLLOOP_", frozen=True, extra="forbid")

    home: Path = Field(default=Path(".cellloop"), description="folder of the database, the file store and the secrets")
    database_url: str = Field(default="", description="SQLAlchemy URL; empty: SQLite inside home")
    # Several machines share their files at any fsspec URL: s3://bucket/prefix?endpoint_override=host:9000&scheme=http,
    # file:///mnt/share. <home>/files then holds copies; Label Studio reads those of the machine that pushes.
    # S3 takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. To move there: copy <home>/files, then run cellloop doctor.
    files_url: str = Field(default="", repr=False, description="shared file store; empty: files lie in home only")

    host: str = Field(default="127.0.0.1", description="address the backend listens on; loopback unless told otherwise")
    port: int = Field(default=9090, ge=1, le=65535)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto | cpu | cuda | mps")

    label_studio_url: str = Field(default="http://127.0.0.1:8080", description="Label Studio as we reach it")
    label_studio_token: str | None = Field(
        default=None, pattern=r"^[!-~]*$", repr=False, description="overrides the generated token"
    )
    label_studio_project: str = Field(default="cellloop", description="title of the project we serve")
    label_studio_timeout_s: float = Field(default=60.0, gt=0, description="longest wait for one of its answers")
    backend_url: str = Field(default="", description="this backend as Label Studio reaches it; empty: host and port")

    public_url: str = Field(default="", description="this backend as experts' browsers reach it; empty: backend_url")

    # Folders whose images a task may name by a local-files path, besides the file store.
    image_roots: Annotated[tuple[Path, ...], NoDecode] = ()

    # Label Studio gives a whole /predict call 100 s; an expert who opens a task waits for all of it.
    predict_budget_s: float = Field(default=20.0, ge=0, le=80, description="time one /predict may spend detecting")
    max_body_bytes: int = Field(default=128 * 1024 * 1024, gt=0, description="tasks come with their annotations inside")
    max_image_bytes: int = Field(default=64 * 1024 * 1024, gt=0, description="largest image fetched from Label Studio")

    log_format: Literal["text", "json"] = Field(default="text", description="lines for people, or for programs")
    # Asked to end, the server first says that it is not ready, for a proxy to notice; then it takes no new connection,
    # and then it waits for the requests it has.
    drain_s: float = Field(default=1.0, ge=0, le=60, description="from `not ready` to the closed door")
    stop_within_s: int = Field(default=25, ge=1, le=600, description="time for requests under way when stopping")

    # How versions are trained here; None leaves it to the role's recipe. 300 steps take about four minutes on one core.
    preset: Literal["lite", "resnet50"] = "lite"
    short_side: int = Field(default=640, ge=64, le=2048, description="px of a field's shorter side as detectors see it")
    train_steps: int = Field(default=300, ge=1)
    train_batch: int | None = Field(default=None, ge=1, description="crops in memory at a time")
    train_accumulate: int = Field(default=1, ge=1, description="batches that one step adds up, where memory is small")
    train_processes: int = Field(default=1, ge=1, description="a retraining's processes on one machine: one per GPU")
    train_crop: int | None = Field(default=None, ge=0, description="px of a crop at that size; 0: whole fields")
    # The starter weights, where they fit the preset, or the trunk's ImageNet or COCO weights with new heads.
    train_from: Literal["starter", "scratch"] = "starter"
    # Frozen and taken from the serving all_cells, it runs once per image for both, and retrainings reuse its features.
    infected_trunk: Literal["shared", "own"] = "own"
    trunk_cache_bytes: int = Field(default=4 * 1024**3, ge=0, description="room for a shared trunk's features")

    # When `infected` is retrained, and what a candidate must show.
    retrain_after: float = Field(default=25.0, gt=0, description="weighted new reviewed infected or difficult cells")
    retrain_cooldown_s: float = Field(default=3600.0, ge=0, description="least time between two retrainings")
    gate_delta: float = Field(default=0.02, ge=0, description="how much worse still counts as not worse")
    gate_most_wrong: float = Field(
        default=0.2, ge=0, le=1, description="share of new infected labels that must be shown not to be wrong; 1: any"
    )
    poll_s: float = Field(default=10.0, gt=0, description="the worker asks Label Studio at least this often")

    @field_validator("image_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return value

    @field_validator("files_url")
    @classmethod
    def _no_secret_inside(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and not parts.scheme:
            raise ValueError("expected a URL like s3://bucket/prefix or file:///mnt/share, got one without a scheme")
        if parts.password or {"access_key", "secret_key", "session_token"} & parse_qs(parts.query).keys():
            raise ValueError("expected no secret in the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
        return value

    @field_validator("label_studio_url", "backend_url", "public_url")
    @classmethod
    def _http_origin(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"expected a URL that starts with http:// or https://, got {value!r}")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        # The frozen model is completed once, while it is being built: relative paths must not follow chdir.
        home = self.home.expanduser().resolve()
        roots = tuple(root.expanduser().resolve() for root in self.image_roots)
        backend_url = self.backend_url or f"http://{_bracketed(self.host)}:{self.port}"
        self.__dict__.update(
            home=home,
            image_roots=roots,
            database_url=self.database_url or f"sqlite:///{home / 'cellloop.sqlite'}",
            backend_url=backend_url,
            public_url=self.public_url or backend_url,
        )
        return self

    @property
    def files(self) -> Path:
        """Root of the file store, and Label Studio's local-files document root (images lie in `images/`)."""
        return self.home / "files"

    @property
    def crops(self) -> Path:
        """Where crops are kept that were drawn for experts' pages (`backend/crop_cache.py`)."""
        return self.home / "crops"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
