"""A run to export: a slide of odd sizes, one within bounds, one of an awkward name, and a file that is none."""

from __future__ import annotations

import csv
import shutil
import zipfile
from pathlib import Path

import pytest
from makers import AWKWARD, ROOT, tissue_pixels, write_slide
from scn import write_scn


@pytest.fixture(scope="session")
def ran(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; nobody may change it."""
    from pipeline.cohort.target import find_target
    from pipeline.run.run import run_cohort
    from pipeline.run.slide import RunSettings

    folder = tmp_path_factory.mktemp("ran")
    write_scn(folder / "bounded.scn", tissue_pixels(1203, 1101), corner=(901, 757), slide=(3200, 2560))
    write_slide(folder / "odd.tif", tissue_pixels(1803, 2401), tile=240, factor=3, levels=3)
    write_slide(folder / f"{AWKWARD}.tif", tissue_pixels(700, 600))
    (folder / "text.svs").write_text("not a slide")
    rows = [("bounded.scn", "p1", "tumour"), ("odd.tif", "p2", ""), (f"{AWKWARD}.tif", "p2", "normal")]
    rows += [("text.svs", "p3", "normal")]
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("slide", "patient", "label"), *rows])
    run_cohort(find_target(folder / "cohort.csv"), folder / "run", RunSettings(model=checkpoint, count_seen=True))
    return folder / "run"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run of version 6ee006e."""
    with zipfile.ZipFile(ROOT / "tests" / "cases" / "made-by-6ee006e.zip") as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old" / "run"


@pytest.fixture
def run(ran: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt; its slides stay where they are."""
    return Path(shutil.copytree(ran, tmp_path / "run"))
