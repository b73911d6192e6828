"""Whatever is written gets the permissions that the user's umask gives: a model came out as its owner's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from makers import tissue_pixels, write_config, write_slide

from pipeline.cache import CacheSettings, cache_cohort
from pipeline.cohort.target import find_target
from pipeline.config import load_config
from pipeline.demo.cohort import make_cohort
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort
from pipeline.train.train import train_cohort

pytestmark = pytest.mark.skipif(os.name == "nt", reason="it has no umask")


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(*folders: Path) -> dict[str, str]:
    """Of everything below and of the folders themselves."""
    found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {str(path): oct(stat.S_IMODE(path.stat().st_mode)) for path in found}


def expected(found: dict[str, str], umask: int) -> dict[str, str]:
    return {path: oct((0o777 if Path(path).is_dir() else 0o666) & ~umask) for path in found}


def test_results_and_pyramids(slides_folder: Path, checkpoint: Path, tmp_path: Path, umask: int) -> None:
    target = find_target(slides_folder / "odd.tif")
    assert run_cohort(target, tmp_path / "run", RunSettings(model=checkpoint)).ok == 1
    assert cache_cohort(target, tmp_path / "native", CacheSettings(profile="native")).failed == 0
    assert cache_cohort(target, tmp_path / "portable", CacheSettings(profile="portable")).failed == 0
    assert cache_cohort(target, tmp_path / "export", CacheSettings(ngff="0.4")).failed == 0
    found = modes(*(tmp_path / name for name in ("run", "native", "portable", "export")))
    names = {Path(path).name for path in found}
    for name in ("run.json", "report.html", "prediction.json", "samples.h5", "overlay.jpg", ".zattrs", "zarr.json"):
        assert name in names
    assert found == expected(found, umask)


def test_models_and_what_training_keeps(slides_folder: Path, tmp_path: Path, umask: int) -> None:
    slow = write_slide(tmp_path / "slow.tif", tissue_pixels(900, 800), compression="packbits")  # worth keeping
    table = f"slide,label,split\n{slides_folder / 'plain.tif'},a,train\n{slow},b,train\n"
    (tmp_path / "cohort.csv").write_text(table)
    write_config(tmp_path)
    small = ("view.attention_mpp=16", "view.patch_px=32", "encoder.dim=4", "sampling.samples=4")
    short = ("training.epochs=2", "training.batch_size=2", "training.device=cpu", "training.calibration_slides=0")
    config = load_config(tmp_path / "config.yaml", [*small, *short, f"reading.cache={tmp_path / 'kept'}"])
    seen: dict[str, str] = {}

    def say(line: str) -> None:
        seen.update(modes(tmp_path / "out"))

    train_cohort(config, tmp_path / "out", say=say)
    found = modes(tmp_path / "out", tmp_path / "kept")
    assert any(path.endswith("model.safetensors") for path in found)
    assert any("saccade-chunks" in path for path in found)
    assert found == expected(found, umask)
    for path, mode in seen.items():  # checkpoints that the end removes
        assert mode in (oct(0o777 & ~umask), oct(0o666 & ~umask)), path
    assert any(path.endswith(".ckpt") for path in seen)


@pytest.mark.slow
def test_the_demos_cohort(tmp_path: Path, umask: int) -> None:
    make_cohort(tmp_path / "cohort", slides=16, size=512, workers=1)
    found = modes(tmp_path / "cohort")
    assert {".tif", ".geojson", ".csv", ".json"} <= {Path(path).suffix for path in found}
    assert found == expected(found, umask)
