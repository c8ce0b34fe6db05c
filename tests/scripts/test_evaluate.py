"""`cellloop evaluate`: what it says before there is anything to measure, how it shows the numbers, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from al_loop import evaluate as evaluating
from backend import pairs
from backend.fuse import FusionConfig
from backend.pairs import PairCard
from backend.preannotate import Pair
from db import evaluations, migrate, versions
from db.session import Database
from scripts import cli
from tests.al_loop.test_evaluate import truth_boxes
from tests.backend.smears import HEIGHT, WIDTH, DiscDetector, png


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'cellloop.sqlite'}"
    migrate.upgrade(url)
    return Database(url)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["evaluate", *arguments])
    return int(left.value.code or 0)


def add_version(database: Database, role: str, active: bool = True) -> int:
    with database.session() as session:
        named = {"config": {}, "manifest": {}, "manifest_sha256": "0" * 64, "environment": {}}
        version = versions.add_version(session, role=role, weights_sha256="0" * 64, **named).id
        if active:
            versions.activate(session, version, kind="first", reasons=[])
        return version


def test_each_thing_missing_is_said(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 1
    assert "cellloop train --role infected" in capsys.readouterr().err
    add_version(database, "infected")
    assert run() == 1
    assert "active version of the other role" in capsys.readouterr().err
    assert run("--version", "99") == 1
    assert "99" in capsys.readouterr().err


def test_numbers_are_shown_with_intervals(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    infected, all_cells = add_version(database, "infected"), add_version(database, "all_cells")
    with database.session() as session:
        pair = versions.pair_of(session, all_cells, infected)
        rows = [
            evaluations.MetricRow("ap50", 0.5, 12, "ring", low=0.25, high=0.75),
            evaluations.MetricRow("ap50", None, 0, "leukocyte"),
        ]
        stored = evaluations.add_evaluation(session, pair.id, "test", "0" * 64, {}, rows).id
    monkeypatch.setattr(evaluating, "evaluate_candidate", lambda loop, version_id, on_progress: stored)
    assert run() == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"infected version {infected} on the frozen test split" in shown
    assert "ap50 ring 0.500 [0.250, 0.750] n = 12" in shown
    assert "ap50 leukocyte - [-, -] n = 0" in shown
    assert run("--json", "-") == 0
    assert [m["value"] for m in json.loads(capsys.readouterr().out)["metrics"]] == [0.5, None]


@pytest.fixture
def smears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three labelled smears (BBBC041's format) in a folder, and a stand-in for weights; no home, no database."""
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "no home"))
    (tmp_path / "data" / "images").mkdir(parents=True)
    records = []
    for seed in range(3):
        (tmp_path / "data" / "images" / f"{seed}.png").write_bytes(png(seed))
        boxes = [
            {"bounding_box": {"minimum": {"r": y1, "c": x1}, "maximum": {"r": y2, "c": x2}}, "category": label}
            for label, (x1, y1, x2, y2) in truth_boxes(seed)
        ]
        shape = {"r": HEIGHT, "c": WIDTH, "channels": 3}
        records.append({"image": {"pathname": f"/images/{seed}.png", "shape": shape}, "objects": boxes})
    (tmp_path / "test.json").write_text(json.dumps(records))
    pair = Pair("discs", DiscDetector("all_cells"), DiscDetector("infected"), FusionConfig())  # type: ignore[arg-type]
    monkeypatch.setattr(pairs, "read_card", lambda folder: PairCard("discs", "a" * 64, "b" * 64, FusionConfig()))
    monkeypatch.setattr(pairs, "load_pair", lambda folder, device: pair)
    return tmp_path


def on_files(smears: Path, *extra: str) -> int:
    return run("--images", str(smears / "data"), "--annotations", str(smears / "test.json"), *extra)


def test_images_outside_of_the_record_need_no_home(smears: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert on_files(smears, "--format", "bbbc041", "--json", str(smears / "out.json")) == 0
    report = json.loads((smears / "out.json").read_text())
    assert (report["images"], report["cells"]["ring"], report["problems"]) == (3, 3, 0)
    assert report["weights"] == {"name": "discs", "all_cells_sha256": "a" * 64, "infected_sha256": "b" * 64}
    assert report["fused"]["ap50"]["ring"] == 1
    assert report["fused"]["pooled_infected_ap50"] == 1
    assert report["fused"]["infected_recall_at_0.5fp"] == 1
    assert report["all_cells"]["pooled_infected_ap50"] == 0
    assert report["per_image"][0]["true"] == {"infected": 1, "red blood cell": 1, "parasitaemia": 50.0}
    assert report["per_image"][0]["fused"] == report["per_image"][0]["true"]
    assert report["per_image"][0]["infected"] == {"infected": 1}
    assert not (smears / "no home").exists()
    shown = " ".join(capsys.readouterr().out.split())
    assert "fused on 3 images" in shown
    assert "pooled_infected_ap50 1.000 [1.000, 1.000]" in shown


def test_only_the_views_asked_for_are_judged(smears: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert on_files(smears, "--role", "infected", "--role", "infected", "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert {"fused", "all_cells", "infected"} & set(report) == {"infected"}


def test_a_report_is_written_on_request(smears: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert on_files(smears, "--report", str(smears / "report")) == 0
    assert f"report: {smears / 'report' / 'report.html'}" in capsys.readouterr().err
    assert len(list((smears / "report" / "fields").iterdir())) == 3
    (smears / "file").touch()
    assert on_files(smears, "--report", str(smears / "file")) == 1
    assert "file: File exists" in capsys.readouterr().err


def test_records_left_out_are_told(smears: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (smears / "data" / "images" / "1.png").unlink()
    assert on_files(smears) == 0
    printed = capsys.readouterr()
    assert "1 x missing image (the annotation file names an image that is not there), such as 1.png" in printed.err
    assert "fused on 2 images" in printed.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--images", "{}/nowhere"), "expected a folder of images"),
        (("--images", "{}/data", "--annotations", "{}/none.json"), "expected a readable annotation file"),
        (("--images", "{}/data", "--annotations", "{}/test.json", "--format", "iml"), "in the format of iml"),
        (("--images", "{}", "--annotations", "{}/elsewhere.json"), "none can be used"),
        (("--images", "{}/data", "--version", "3"), "expected one of them, got both"),
        (("--weights", "{}"), "only together with --images"),
        (("--role", "fused"), "--role: only together with --images"),
    ],
)
def test_bad_input_is_one_clear_error(
    smears: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    records = json.loads((smears / "test.json").read_text())
    for record in records:
        record["image"]["pathname"] = "/images/gone.png"
    (smears / "elsewhere.json").write_text(json.dumps(records))
    assert run(*(argument.format(smears) for argument in arguments)) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_weights_that_are_no_pair_are_one_clear_error(
    smears: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    (smears / "pair").mkdir()
    assert on_files(smears, "--weights", str(smears / "pair")) == 1
    assert "found no pair.json" in capsys.readouterr().err
    (smears / "pair" / "pair.json").write_text("{")
    assert on_files(smears, "--weights", str(smears / "pair")) == 1
    assert "expected the card of a pair" in capsys.readouterr().err
    card = PairCard("x", "a" * 64, "b" * 64, FusionConfig())
    (smears / "pair" / "pair.json").write_text(json.dumps(card.to_json()))
    (smears / "pair" / "all_cells.safetensors").write_bytes(b"damaged")
    assert on_files(smears, "--weights", str(smears / "pair")) == 1
    assert "expected sha256" in capsys.readouterr().err
