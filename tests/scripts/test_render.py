"""`cellloop render`: a folder that can be imported, a sheet, and a plain word about a wrong size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from al_loop.labelled_files import read_labelled
from scripts import cli


def test_fields_and_sheet_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "smears"
    with pytest.raises(SystemExit) as left:
        cli.main(["render", str(out), "--fields", "2", "--size", "160x200", "--cells", "9", "--sheet", "--json"])
    assert not left.value.code
    report = json.loads(capsys.readouterr().out)
    assert report["fields"] == 2
    assert Path(report["sheet"]).stat().st_size > 10_000
    files, problems = read_labelled(out)
    assert [(f.labelled.height, f.labelled.width) for f in files] == [(160, 200)] * 2
    assert problems == []


@pytest.mark.parametrize("size", ["big", "1200", "10x10", "-5x100"])
def test_a_wrong_size_is_refused(size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["render", str(tmp_path / "x"), f"--size={size}"])
    assert left.value.code == 1
    assert "HEIGHTxWIDTH" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
