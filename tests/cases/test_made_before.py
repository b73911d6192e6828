"""What an earlier version wrote is still good: checkpoints, pyramids and output folders made by commit 6ee006e.

The files in made-by-6ee006e.zip were written by that commit from two painted slides, 1 level-0 pixel = 0.5 µm.
"""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.cohort.target import find_target
from pipeline.info import describe
from pipeline.model.checkpoint import load_model
from pipeline.output.attention_map import read_attention_zarr
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from stages.geometry import Box
from stages.pyramid.cache import cache_pyramid, verify_pyramid
from stages.pyramid.open import open_pyramid
from stages.pyramid.record import EARLIER_TISSUE
from stages.slide.files import open_slide


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder as it was left, somewhere else on the disk."""
    with zipfile.ZipFile(Path(__file__).with_name("made-by-6ee006e.zip")) as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old"


def recorded(run: Path) -> dict[str, dict[str, float]]:
    """Probabilities and interval ends of each slide, as the earlier version wrote them into its commit marks."""
    rows = {path.parent.name: json.loads(path.read_text())["row"] for path in run.glob("slides/*/prediction.json")}
    return {name: {key: row[key] for key in row if key.startswith("prob_")} for name, row in rows.items()}


@pytest.mark.parametrize(("model", "run", "samples"), [("one-level", "run", None), ("two-level", "run-two", 8)])
def test_a_checkpoint_predicts_what_it_predicted(
    old: Path, tmp_path: Path, model: str, run: str, samples: int | None
) -> None:
    settings = RunSettings(model=old / f"{model}.safetensors", samples=samples)
    summary = run_cohort(find_target(old / "slides"), tmp_path / "new", settings)
    assert (summary.ok, summary.reused) == (2, 0), summary.rows
    for name, values in recorded(old / run).items():
        (row,) = (row for row in summary.rows if row["slide_id"] == name)
        mean = {key: value for key, value in values.items() if not key.endswith(("_low", "_high"))}
        assert {key: row[key] for key in mean} == pytest.approx(mean, abs=0.05)  # the mask of the tissue is another


def test_a_finished_run_is_done_again_once(old: Path) -> None:
    """Another mask of the tissue sees another slide: what was found by the earlier one is not passed off as today's."""
    settings = RunSettings(model=old / "one-level.safetensors")
    for reused in (0, 2):
        summary = run_cohort(find_target(old / "slides"), old / "run", settings)
        assert (summary.ok, summary.reused) == (2, reused), summary.rows


def test_a_changed_setting_replaces_what_an_earlier_version_wrote(old: Path) -> None:
    settings = RunSettings(model=old / "one-level.safetensors", seed=7)
    assert run_cohort(find_target(old / "slides"), old / "run", settings).reused == 0
    assert {path.name for path in (old / "run" / "slides" / "a").iterdir()} >= {"attention.zarr", "prediction.json"}


def test_an_attention_map_is_read(old: Path) -> None:
    attention, raster = read_attention_zarr(old / "run" / "slides" / "a" / "attention.zarr")
    assert attention.shape == raster.shape
    assert attention.sum() == pytest.approx(1, abs=1e-5)


def test_a_pyramid_of_what_was_tissue_once_says_so_and_is_made_anew(old: Path, tmp_path: Path) -> None:
    """Tissue may lie today where it keeps nothing, and shows white there."""
    folder = Path(shutil.copytree(old / "portable" / "a.ome.zarr", tmp_path / "a.ome.zarr"))
    record = json.loads((folder / "zarr.json").read_text())
    record["attributes"]["saccade"]["kept"] = "tissue"
    (folder / "zarr.json").write_text(json.dumps(record))
    assert open_pyramid(folder).facts.warnings == (EARLIER_TISSUE,)
    cache_pyramid(open_slide(old / "slides" / "a.tif"), folder, profile="portable")
    assert open_pyramid(folder).facts.warnings == ()


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_a_pyramid_is_the_slide_and_is_kept(old: Path, profile: str) -> None:
    slide, folder = open_slide(old / "slides" / "a.tif"), old / profile / "a.ome.zarr"
    pyramid = open_pyramid(folder)
    assert pyramid.facts.fingerprint == slide.facts.fingerprint
    assert verify_pyramid(folder) == []
    whole = Box(0, 0, slide.facts.levels[0].width, slide.facts.levels[0].height)
    np.testing.assert_array_equal(pyramid.read_level(0, whole), slide.read_level(0, whole))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    cache_pyramid(slide, folder, profile=profile)  # type: ignore[arg-type]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert describe(folder)["warnings"] == describe(old / "slides" / "a.tif")["warnings"]


def test_a_trained_model_predicts_as_a_pyramid_and_as_a_slide(old: Path, tmp_path: Path) -> None:
    model = load_model(old / "train" / "model.safetensors")
    assert model.spec.classes == ("x", "y")
    assert model.calibration is not None
    settings = RunSettings(model=old / "train" / "model.safetensors")
    rows = [
        run_cohort(find_target(target), tmp_path / target.name, settings).rows[0]
        for target in (old / "slides" / "a.tif", old / "native", old / "portable")
    ]
    assert len({row["prob_y"] for row in rows}) == 1, rows


def test_tables_are_read_back_with_their_columns(old: Path) -> None:
    with (old / "run" / "predictions.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    run_cohort(find_target(old / "slides"), old / "run", RunSettings(model=old / "one-level.safetensors"))
    with (old / "run" / "predictions.csv").open(newline="") as file:
        assert next(csv.reader(file))[: len(columns)] == columns
