"""What is wrong with a slide is said by every command, goes with its result, and refuses it where that is asked for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from makers import APERIO, saccade, tissue_pixels, write_slide
from models import TINY

from pipeline.cache import CacheSettings, cache_cohort
from pipeline.cohort.target import find_target
from pipeline.model.sampler import AttentionSampler
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.train.looks import Looks

WORDS = "its resolution of 0.25 µm/px contradicts an objective of 10x, about 1 µm/px"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide whose objective contradicts its resolution, and one that says nothing of an objective."""
    folder = tmp_path_factory.mktemp("doubtful")
    told = APERIO.replace("AppMag = 20|MPP = 0.5", "AppMag = 10|MPP = 0.25")
    write_slide(folder / "doubtful.svs", tissue_pixels(2048, 1536), levels=1, mpp=0.25, description=told)
    write_slide(folder / "plain.tif", tissue_pixels(1536, 1024), levels=1)
    return folder


def test_it_goes_with_the_result(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """In the line of progress, in predictions.csv and in run.json; also where the slide was done earlier."""
    for reused in (0, 2):
        lines: list[str] = []

        def progress(done: int, total: int, line: str | None, lines: list[str] = lines) -> None:
            lines.append(str(line))

        summary = run_cohort(find_target(folder), tmp_path, RunSettings(model=checkpoint), progress=progress)
        assert (summary.ok, summary.reused) == (2, reused), summary.rows
        assert [WORDS in line for line in sorted(lines)] == [True, False]
        with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
            warned = {row["slide_id"]: row["warnings"] for row in csv.DictReader(file)}
        assert [WORDS in warned[name] for name in ("doubtful", "plain")] == [True, False]
        assert WORDS in json.loads((tmp_path / "run.json").read_text())["warnings"]["doubtful"][0]


def test_strict_refuses_it_and_the_batch_goes_on(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """In a run, in a cache and in info; the true value settles it."""
    strict = RunSettings(model=checkpoint, strict=True)
    rows = {row["slide_id"]: row for row in run_cohort(find_target(folder), tmp_path / "run", strict).rows}
    assert WORDS in rows["doubtful"]["error"]
    assert rows["plain"]["status"] == "ok"
    summary = cache_cohort(find_target(folder), tmp_path / "cache", CacheSettings(strict=True))
    assert list(summary.errors) == ["doubtful"]
    told = saccade("info", folder / "doubtful.svs", "--strict")
    assert (told.returncode, WORDS in told.stderr) == (2, True)
    assert f"warning     {WORDS}" in saccade("info", folder / "doubtful.svs").stdout
    assert saccade("info", folder / "doubtful.svs", "--strict", "--mpp", 0.25).returncode == 0


@pytest.mark.parametrize("strict", [False, True])
def test_training_tells_of_it_or_leaves_it_out(folder: Path, strict: bool) -> None:
    """At the first look, before anything is learnt."""
    lines: list[str] = []
    looks = Looks(AttentionSampler(TINY), None, lines.append, strict=strict)
    looks.first(find_target(folder).slides)
    assert [line.partition(WORDS)[0] for line in lines if WORDS in line] == [
        "[1/2] left out: doubtful: " if strict else "warning: doubtful: "
    ]
    assert list(looks.excluded) == (["doubtful"] if strict else [])
    assert ("doubtful" in looks.fingerprints) != strict
