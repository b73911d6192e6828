"""Commands that need no model, as their users meet them: real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bags import corners_of, features_of, write_bag
from makers import ROOT, saccade, tissue_pixels, write_slide


def test_info_for_people_and_for_programs(slides_folder: Path) -> None:
    told = saccade("info", slides_folder / "odd.tif")
    assert told.returncode == 0
    assert "0.5 x 0.5 µm/px (file)" in told.stdout
    assert "1803 x 2401 px" in told.stdout
    facts = json.loads(saccade("info", slides_folder / "odd.tif", "--json").stdout)
    assert [(level["width"], level["height"]) for level in facts["levels"]] == [(1803, 2401), (450, 600)]
    assert facts["levels"][1]["downsample"] == [4, 4]
    assert facts["warnings"] == []


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_name_that_the_terminal_cannot_show_is_escaped(slides_folder: Path, tmp_path: Path, form: list[str]) -> None:
    """As in a Windows console, or in a file that its output goes to."""
    slide = tmp_path / "組織.tif"
    slide.write_bytes((slides_folder / "plain.tif").read_bytes())
    command = [sys.executable, "-m", "pipeline.cli", "info", str(slide), *form]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="cp1252")
    assert done.returncode == 0, done.stderr
    assert "\\u7d44\\u7e54.tif" in done.stdout


def test_info_warns_of_what_will_bite(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a slide.tif", tissue_pixels(300, 300), mpp=None, levels=1)
    assert "--mpp" in saccade("info", slide).stdout
    assert "0.25 x 0.25 µm/px (override)" in saccade("info", slide, "--mpp", 0.25).stdout


def test_an_output_folder_that_cannot_be_is_refused(slides_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = saccade("cache", slides_folder, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "choose another folder" in done.stderr
    assert (tmp_path / "file").read_text() == "in the way"


def test_cache_then_cache_again(slides_folder: Path, tmp_path: Path) -> None:
    first = saccade("cache", slides_folder, "--out", tmp_path / "cache", "--workers", 0)
    assert first.returncode == 0, first.stderr
    names = sorted(path.name for path in (tmp_path / "cache").glob("*.zarr"))
    assert names == ["even.ome.zarr", "odd.ome.zarr", "plain.ome.zarr"]
    assert "vendor" in saccade("info", tmp_path / "cache" / "odd.ome.zarr").stdout
    assert saccade("cache", slides_folder, "--out", tmp_path / "cache", "--workers", 0).returncode == 0


def test_cache_reports_bad_slides_and_does_the_rest(slides_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "good.tif").write_bytes((slides_folder / "even.tif").read_bytes())
    (folder / "bad.svs").write_text("not a slide")
    done = saccade("cache", folder, "--out", tmp_path / "cache", "--workers", 0)
    assert done.returncode == 1
    assert "bad: failed: not a whole-slide image" in done.stderr
    assert (tmp_path / "cache" / "good.ome.zarr").is_dir()


def test_info_says_what_a_bag_holds(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "b" / "s.h5", corners_of(20), features_of(20, positive=1, seed=0), encoder="uni_v1")
    told = saccade("info", path).stdout
    assert "features and no pixels: length 12, by uni_v1" in told
    assert "20 of 128 px at 1 µm/px (256 x 256 level-0 px), on a grid of 256 x 256 level-0 px" in told
    facts = json.loads(saccade("info", path, "--json").stdout)
    assert (facts["bag"]["tiles"], facts["bag"]["dim"], facts["levels"], facts["warnings"]) == (20, 12, [], [])
    (tmp_path / "s.pt").write_bytes(b"PK")
    assert "give the bags with coordinates" in saccade("info", tmp_path / "s.pt").stderr
