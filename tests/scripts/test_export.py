"""`cellloop export` as people type it: a summary, JSON, a moment, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import cli
from tests.al_loop.sources import write_bbbc041


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


def test_labels_go_out_and_come_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELLLOOP_HOME", str(tmp_path / "home"))
    source = write_bbbc041(tmp_path / "set", 6)
    run(capsys, "migrate")
    status, out, _ = run(capsys, "import", source, "--name-pattern", "(?P<slide>[0-9]{4})")
    assert (status, out.splitlines()[0]) == (0, f"6 images listed in {source} (bbbc041)")
    status, out, err = run(capsys, "export", "csv", tmp_path / "out", "--no-images")
    assert (status, err) == (0, "")
    assert f"6 images (2 test, 3 train, 1 validation) in {tmp_path / 'out'} (csv; names and sha256 only" in out
    assert "6 labels as of now: 6 ring" in out
    status, out, _ = run(capsys, "export", "label-studio", tmp_path / "test", "--split", "test", "--json")
    assert json.loads(out)["images"] == {"test": 2}
    for arguments, what in (
        (("coco", tmp_path / "out"), "expected a new or an empty folder"),
        (("coco", tmp_path / "none", "--as-of", "2001-01-01"), "found none (0 labelled in part, 0 not at all)"),
        (("coco", tmp_path / "none", "--as-of", "yesterday"), "expected a moment in ISO 8601"),
    ):
        status, out, err = run(capsys, "export", *arguments)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert what in err
    assert not (tmp_path / "none").exists()
