"""What reads, tiles, caches and writes slides does so without torch, the last to come to a new Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from makers import ROOT

import saccade
from stages.pyramid.open import open_pyramid

NEEDS_TORCH = (
    *("stages.sampling.designs", "stages.sampling.blocks", "stages.sampling.draw", "stages.sampling.estimate"),
    *("stages.sampling.looks", "stages.sampling.strata", "stages.prior"),
    *("stages.attention", "stages.augmentation", "stages.encoder", "stages.context", "stages.evidence", "stages.mil"),
    "stages.prediction",
    *(
        "pipeline.model",
        "pipeline.predict",
        "pipeline.predict_patient",
        "pipeline.read_more",
        "pipeline.refer.scores",
        "pipeline.refer.calibrate",
        "pipeline.conformalize",
        "pipeline.train",
        "pipeline.distil",
        "pipeline.dry_run.cost",
        "pipeline.bench",
        "pipeline.demo.demo",
        "pipeline.check.need",
    ),
)
"""Rooms and files that compute with a model. Everything else in the house does without, or imports it when called."""

HIDDEN = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchmetrics", "lightning")))
"""


def without_torch(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDDEN + code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_only_what_computes_with_a_model_imports_torch() -> None:
    found = [path.relative_to(ROOT) for floor in ("stages", "pipeline") for path in (ROOT / floor).rglob("*.py")]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in found]
    code = """
import importlib
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except ImportError:
        print(module)
"""
    done = without_torch(code, *modules)
    assert done.returncode == 0, done.stderr
    needing = done.stdout.split()
    allowed = {room: [m for m in needing if m == room or m.startswith(f"{room}.")] for room in NEEDS_TORCH}
    assert set(needing) == {module for room in allowed.values() for module in room}
    assert all(allowed.values()), "a room that does without has no place in the list"


def command(*args: object) -> subprocess.CompletedProcess[str]:
    return without_torch("from pipeline.cli import main; main()", *args)


def test_info_tells_of_a_slide(slides_folder: Path) -> None:
    done = command("info", slides_folder / "odd.tif", "--json")
    assert json.loads(done.stdout)["levels"][0]["width"] == 1803, done.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_a_command_that_computes_says_what_it_needs(
    slides_folder: Path, checkpoint: Path, tmp_path: Path, workers: int
) -> None:
    done = command("run", slides_folder, "--model", checkpoint, "--out", tmp_path / "out", "--workers", workers)
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()
    assert (
        "computes with torch; it comes with Saccade: in Saccade's folder, pip install -e ."
        in done.stderr.splitlines()[-1]
    )


def test_what_is_done_is_known_without_torch(slides_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A rerun over finished slides imports nothing that computes, and little else: 596 modules, where it was 2344."""
    saccade.run(slides_folder, checkpoint, out=tmp_path / "out", workers=0)
    code = """
try:
    command("run", sys.argv[1], "--model", sys.argv[2], "--out", sys.argv[3])
finally:
    heavy = ("torch", "lightning", "scipy", "skimage", "dask", "distributed", "zarr", "h5py", "pandas", "matplotlib")
    print(len(sys.modules), *(name for name in heavy if sys.modules.get(name)))
"""
    code = f"def command(*args):\n    sys.argv[1:] = args\n    from pipeline.cli import main; main()\n{code}"
    done = without_torch(code, slides_folder, checkpoint, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 slides predicted (3 already done), 0 failed" in done.stdout
    count, *heavy = done.stdout.splitlines()[-1].split()
    assert heavy == []
    assert int(count) <= 625  # Python's own differ from version to version


@pytest.mark.parametrize("profile", ["native", "portable"])
def test_cache_writes_a_pyramid_and_verifies_it(slides_folder: Path, tmp_path: Path, profile: str) -> None:
    slide = slides_folder / "even.tif"
    args = ("cache", slide, "--out", tmp_path, "--profile", profile)
    for done in (command(*args), command(*args, "--verify")):
        assert done.returncode == 0, done.stderr
    assert open_pyramid(tmp_path / "even.ome.zarr").facts.fingerprint == open_pyramid(slide).facts.fingerprint


@pytest.mark.parametrize(
    "call", ["load_model('m')", "predict('s', 'm')", "run('s', 'm', out='o')", "train('c.yaml', out='o')"]
)
def test_what_computes_from_python_says_what_it_needs(
    call: str, slides_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """One line and the remedy, where the caller's own code would show a chain of imports."""
    (tmp_path / "c.yaml").write_text("cohort: {table: t.csv}\n")
    code = f"""
import os, saccade
os.chdir(sys.argv[1])
os.symlink(sys.argv[2], "s")
os.symlink(sys.argv[3], "m")
try:
    saccade.{call}
except saccade.UsageError as exc:
    print(exc)
"""
    done = without_torch(code, tmp_path, slides_folder / "plain.tif", checkpoint)
    assert done.stdout == "this computes with torch; it comes with Saccade: in Saccade's folder, pip install -e .\n", (
        done.stderr
    )
