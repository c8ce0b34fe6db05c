"""Option values that several commands offer, spelled out here so that `--help` needs no model and no database."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The two detectors; a test compares them with `backend.instances.ROLES`."""

    all_cells = "all_cells"
    infected = "infected"


class Preset(StrEnum):
    """Backbones: `lite` for machines without a GPU, `resnet50` for those with one."""

    lite = "lite"
    resnet50 = "resnet50"


class View(StrEnum):
    """What can be judged: each detector alone, or both fused; a test compares them with `al_loop.judge.VIEWS`."""

    all_cells = "all_cells"
    infected = "infected"
    fused = "fused"


class Format(StrEnum):
    """Annotation formats; a test compares them with `al_loop.formats.detect.FORMATS`."""

    bbbc041 = "bbbc041"
    iml = "iml"
    coco = "coco"
    label_studio = "label-studio"
    csv = "csv"
    parquet = "parquet"


class ExportFormat(StrEnum):
    """What labels are exported as; a test compares them with `al_loop.export.WRITERS`."""

    coco = "coco"
    csv = "csv"
    parquet = "parquet"
    label_studio = "label-studio"
    bbbc041 = "bbbc041"


class Split(StrEnum):
    """Parts of the images; a test compares them with `db.models.Split`."""

    train = "train"
    validation = "validation"
    test = "test"


class Period(StrEnum):
    """Spans of time to compare; a test compares them with `backend.history.periods.PERIODS`."""

    day = "day"
    week = "week"
    month = "month"
    all = "all"


class Doubt(StrEnum):
    """Where a difficult cell stands; a test compares it with `db.difficult.Doubt`."""

    open = "open"
    confirmed = "confirmed"
    resolved = "resolved"


class Engine(StrEnum):
    """Database engines; a test compares them with `al_loop.benchmark_history.ENGINES`."""

    sqlite = "sqlite"
    postgres = "postgres"


class Scope(StrEnum):
    """What a token is good for; a test compares it with `db.tokens.Scope`."""

    read = "read"
    review = "review"
    operate = "operate"
