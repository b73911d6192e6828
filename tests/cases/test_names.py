"""Folders and slides may be called anything a file system allows: some libraries take such a path for an address."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers import tissue_pixels, write_config, write_slide

from pipeline.cache import CacheSettings, cache_cohort
from pipeline.cohort.target import find_target
from pipeline.config import load_config
from pipeline.output.attention_map import read_attention_zarr, write_attention_zarr
from stages.geometry import Mpp, Raster
from stages.pyramid.chunk_cache import ChunkCache
from stages.pyramid.open import open_pyramid

NAMES = ("hb#1", "hb?x=1", "hb\nnext", "hb::there", "hb%201", "[hb]", "hb*", "{epoch}", "s3:hb", "~hb", "hb; ls", "hb ")
"""What each cuts off or expands would be the folder ``hb`` or something beside it."""


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of a trying name, with the user's own work beside it."""
    for name in ("hb", "there", "hb 1"):
        (tmp_path / name / "out").mkdir(parents=True)
        (tmp_path / name / "thesis.txt").write_text("years of work")
        (tmp_path / name / "out" / "thesis.txt").write_text("years of work")
    folder = tmp_path / request.param
    folder.mkdir()
    return folder


def beside(folder: Path) -> dict[str, str]:
    """Everything there is beside a folder."""
    found = (path for path in folder.parent.rglob("*") if folder not in (path, *path.parents))
    return {str(path): path.read_text() if path.is_file() else "" for path in found}


def test_an_attention_map_stays_where_it_was_put(folder: Path) -> None:
    before = beside(folder)
    path, raster = folder / "out" / "attention.zarr", Raster(1, 2, 3, 4, 5, 6)
    path.parent.mkdir()
    attention = np.arange(30, dtype=np.float32).reshape(6, 5)
    for _ in range(2):
        write_attention_zarr(path, attention, raster, mpp=Mpp(0.5, 0.5))
    found, place = read_attention_zarr(path)
    np.testing.assert_array_equal(found, attention)
    assert place == raster
    assert beside(folder) == before


def test_a_cache_writes_only_where_it_was_told(folder: Path) -> None:
    slide = write_slide(folder / f"{folder.name}.tif", tissue_pixels(700, 600))
    before = beside(folder)
    for profile in ("native", "portable"):
        out = folder / profile
        assert cache_cohort(find_target(slide), out, CacheSettings(profile=profile)).failed == 0
        (pyramid,) = out.glob("*.ome.zarr")
        assert open_pyramid(pyramid).facts.fingerprint == open_pyramid(slide).facts.fingerprint
    assert cache_cohort(find_target(slide), folder / "export", CacheSettings(ngff="0.4")).failed == 0
    assert beside(folder) == before


def test_a_run_writes_only_where_it_was_told(folder: Path, checkpoint: Path) -> None:
    from pipeline.run.keys import RunSettings
    from pipeline.run.run import run_cohort

    slide = write_slide(folder / f"{folder.name}.tif", tissue_pixels(700, 600))
    assert cache_cohort(find_target(slide), folder / "cache", CacheSettings(profile="portable")).failed == 0
    before = beside(folder)
    for target in (slide, folder / "cache"):
        summary = run_cohort(find_target(target), folder / "out" / target.name, RunSettings(model=checkpoint))
        assert (summary.ok, summary.failed) == (1, 0), summary.rows
        (written,) = (folder / "out" / target.name / "slides").iterdir()
        assert read_attention_zarr(written / "attention.zarr")[0].sum() == pytest.approx(1, abs=1e-5)
    assert beside(folder) == before


def test_slides_that_differ_behind_such_a_sign_are_two(checkpoint: Path, tmp_path: Path) -> None:
    """The second run destroyed the first's results where a path was cut at the sign."""
    from pipeline.run.keys import RunSettings
    from pipeline.run.run import run_cohort

    for name in ("B.tif", "B#1.tif", "B?1.tif"):
        write_slide(tmp_path / name, tissue_pixels(600, 600))
    for name in ("B.tif", "B#1.tif", "B?1.tif"):
        target = find_target(tmp_path / name)
        assert run_cohort(target, tmp_path / "out", RunSettings(model=checkpoint)).ok == 1
    maps = [read_attention_zarr(path)[0] for path in (tmp_path / "out").glob("slides/*/attention.zarr")]
    assert len(maps) == 3


def test_training_writes_only_where_it_was_told(folder: Path, slides_folder: Path) -> None:
    from pipeline.train.train import train_cohort

    for i in range(4):
        content = (slides_folder / "plain.tif").read_bytes()
        (folder / f"s{i}.tif").write_bytes(content + bytes([i]))  # a slide of its own
    table = "slide,patient,label,split\n" + "".join(f"s{i}.tif,p{i},{'ab'[i % 2]},train\n" for i in range(4))
    (folder / "cohort.csv").write_text(table)
    write_config(folder)
    config = load_config(
        folder / "config.yaml",
        [
            *("view.attention_mpp=16", "view.patch_px=32", "encoder.dim=4", "sampling.samples=4"),
            *("training.epochs=2", "training.batch_size=4", "training.device=cpu", "training.calibration_slides=0"),
            f"reading.cache={folder / 'kept'}",
        ],
    )
    before = beside(folder)
    lines: list[str] = []

    class KilledError(Exception):
        pass

    def dies(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KilledError

    with pytest.raises(KilledError):
        train_cohort(config, folder / "out", say=dies)
    assert len(list((folder / "out").glob("*.ckpt"))) == 1
    train_cohort(config, folder / "out", say=lines.append)
    assert not any(line.startswith("epoch 1/") for line in lines)
    assert (folder / "out" / "model.safetensors").exists()
    assert beside(folder) == before


def test_what_training_read_is_kept_where_it_was_told(folder: Path) -> None:
    before = beside(folder)
    ChunkCache(folder / "kept", 10**6)
    assert beside(folder) == before
