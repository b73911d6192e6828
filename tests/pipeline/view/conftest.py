"""A run to look at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def viewed(slides_folder: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three slides, of which two are labelled, and of one file that is no slide; nobody may change it."""
    from pipeline.cohort.target import find_target
    from pipeline.run.run import run_cohort
    from pipeline.run.slide import RunSettings

    folder = tmp_path_factory.mktemp("viewed")
    for slide in slides_folder.iterdir():
        shutil.copy(slide, folder)
    (folder / "text.svs").write_text("not a slide")
    (folder / "cohort.csv").write_text("slide,label\neven.tif,tumour\nodd.tif,normal\nplain.tif,\ntext.svs,normal\n")
    run_cohort(find_target(folder / "cohort.csv"), folder / "run", RunSettings(model=checkpoint, count_seen=True))
    return folder / "run"


@pytest.fixture(scope="session")
def second(viewed: Path, checkpoint: Path) -> Path:
    """Another run of the same slides, which read fewer patches; nobody may change it."""
    from pipeline.cohort.target import find_target
    from pipeline.run.run import run_cohort
    from pipeline.run.slide import RunSettings

    settings = RunSettings(model=checkpoint, samples=8, seed=1, count_seen=True)
    run_cohort(find_target(viewed.parent / "cohort.csv"), viewed.parent / "second", settings)
    return viewed.parent / "second"


@pytest.fixture
def run(viewed: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt; its slides stay where they are."""
    return Path(shutil.copytree(viewed, tmp_path / "run"))
