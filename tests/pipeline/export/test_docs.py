"""docs/exports.md and docs/dicom.md: what they show runs as it is written, and the former has every format."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from pathlib import Path

import pytest
from dicom_files import write_dicom
from makers import ROOT, saccade, tissue_pixels
from pages import blocks

from pipeline.cohort.target import find_target
from pipeline.export.export import export_run
from pipeline.export.formats import FORMATS
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort

PAGE = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_run(line: str, ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran, tmp_path / "out")
    program, *args = shlex.split(line.replace("slide7", "odd"), comments=True)
    assert program == "saccade"
    done = saccade(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_it_tells_of_every_format() -> None:
    assert [name for name in FORMATS if f"| `{name}` |" not in PAGE] == []


@pytest.fixture(scope="module")
def archive(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a DICOM slide lies, and a run of it in `out`, exported."""
    pytest.importorskip("highdicom", reason="needs highdicom, of the extra `dicom`")
    folder = tmp_path_factory.mktemp("archive")
    first = write_dicom(folder / "slide", tissue_pixels(701, 602))
    for level in range(2):
        first.with_name(f"{level}.dcm").rename(first.with_name(f"level{level}.dcm"))
    (folder / "cohort.csv").write_text("slide_id,path\nslide,slide/level0.dcm\n")
    run_cohort(find_target(folder / "cohort.csv"), folder / "out", RunSettings(model=checkpoint))
    assert export_run(folder / "out", ["dicom"]).written == 1
    return folder


@pytest.mark.parametrize("module", ["highdicom", "wsidicom"])
def test_dicom_is_read_back_as_its_page_shows(module: str, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(module)
    monkeypatch.chdir(archive)
    [shown] = [block.text for block in blocks("docs/dicom.md", "python") if module in block.text.splitlines()[0]]
    exec(shown, {})


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("module", ["torchmil", "spatialdata"])
def test_others_read_back_what_the_page_shows(
    module: str, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are installed: the extra `test` leaves them out, for spatialdata wants an older dask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(module)
    shutil.copytree(ran, tmp_path / "out")
    assert export_run(tmp_path / "out", [module]).written == 3
    monkeypatch.chdir(tmp_path)
    [shown] = [block.text for block in blocks("docs/exports.md", "python") if module in block.text.splitlines()[0]]
    told: dict[str, object] = {}
    exec(shown.replace("slide7", "odd"), told)
    if module == "torchmil":
        assert len(told["bags"]) == 3  # type: ignore[arg-type]
