"""What makes an earlier result stale: each thing that it depends on, alone, against one baseline; and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from makers import tissue_pixels, write_slide

import pipeline.run.keys
from pipeline.cohort.target import find_target
from pipeline.model.checkpoint import load_model, save_model
from pipeline.run.keys import RunSettings
from pipeline.run.run import run_cohort


def reused(target: Path, out: Path, model: Path, **settings: Any) -> bool:
    """Run, and say whether the earlier result stood."""
    summary = run_cohort(find_target(target), out, RunSettings(model=model, **settings))
    assert summary.ok == summary.total == 1, summary.rows
    return summary.reused == 1


def drawn(out: Path, name: str = "s") -> list[int]:
    """The cells that were read."""
    with h5py.File(out / "slides" / name / "samples.h5") as bag:
        cells: list[int] = bag["cell"][:].tolist()
    return cells


def result(out: Path) -> dict[str, Any]:
    """What a run says of the slide, but for how long it took and under which key."""
    row = json.loads((out / "slides" / "s" / "prediction.json").read_text())["row"]
    return {name: value for name, value in row.items() if name not in ("seconds", "key")} | {"drawn": drawn(out)}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "s.tif", tissue_pixels(1200, 1000, margin=0.05))


@pytest.fixture(scope="module")
def baseline(slide: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slide's result where nothing is said."""
    out = tmp_path_factory.mktemp("baseline") / "out"
    assert not reused(slide, out, checkpoint)
    return out


@pytest.fixture
def out(baseline: Path, tmp_path: Path) -> Path:
    """A baseline of each test's own."""
    return shutil.copytree(baseline, tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [{"samples": 20}, {"tolerance": 0.5}, {"decide": 0.5}, {"scheme": "iid"}, {"seed": 1}, {"mpp": 0.49}],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_alone_makes_another_result(
    slide: Path, checkpoint: Path, out: Path, change: dict[str, Any]
) -> None:
    before = result(out)
    assert not reused(slide, out, checkpoint, **change)
    assert result(out) != before
    assert reused(slide, out, checkpoint, **change)


def test_another_tolerance_makes_another_result(slide: Path, checkpoint: Path, out: Path) -> None:
    """To have one at all also changes the most that may be read; here nothing else differs."""
    assert not reused(slide, out, checkpoint, tolerance=0.5)
    before = result(out)
    assert not reused(slide, out, checkpoint, tolerance=1e-6)
    assert result(out) != before


@pytest.mark.parametrize("change", [{"decide": 0.6}, {"risk": 0.02}, {"positive": "normal"}], ids=str)
def test_another_decision_makes_another_result(
    slide: Path, checkpoint: Path, out: Path, change: dict[str, Any]
) -> None:
    assert not reused(slide, out, checkpoint, decide=0.5)
    assert not reused(slide, out, checkpoint, **{"decide": 0.5, **change})
    assert reused(slide, out, checkpoint, **{"decide": 0.5, **change})


def test_another_model_at_the_same_path_makes_another_result(
    slide: Path, checkpoint: Path, out: Path, tmp_path: Path
) -> None:
    model = load_model(checkpoint)
    torch.nn.init.ones_(model.head.bias)
    save_model(model, tmp_path / "model.safetensors")
    before = result(out)
    assert not reused(slide, out, tmp_path / "model.safetensors")
    model.head.bias.data[0] = 3.0
    save_model(model, tmp_path / "model.safetensors")
    assert not reused(slide, out, tmp_path / "model.safetensors")
    assert result(out) != before


def test_another_version_of_the_results_makes_one_stale(
    slide: Path, checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.keys, "RESULTS_VERSION", pipeline.run.keys.RESULTS_VERSION + 1)
    assert not reused(slide, out, checkpoint)


def test_a_slide_that_changed_makes_another_result(checkpoint: Path, tmp_path: Path) -> None:
    """At the same path: the key knows what is in the file, not what it is called."""
    pixels = tissue_pixels(1200, 1000, margin=0.05)
    assert not reused(write_slide(tmp_path / "s.tif", pixels), tmp_path / "out", checkpoint)
    before = result(tmp_path / "out")
    assert not reused(write_slide(tmp_path / "s.tif", pixels[::-1]), tmp_path / "out", checkpoint)
    assert result(tmp_path / "out") != before


def test_what_does_not_matter_leaves_a_result_as_it_is(
    slide: Path, checkpoint: Path, out: Path, tmp_path: Path
) -> None:
    """The model's own settings said aloud, where it computes, and where slide and model lie."""
    assert reused(slide, out, checkpoint, samples=16)
    assert reused(slide, out, checkpoint, scheme="systematic")
    assert reused(slide, out, checkpoint, device="cpu")
    assert reused(Path(shutil.copy(slide, tmp_path)), out, checkpoint)
    assert reused(slide, out, Path(shutil.copy(checkpoint, tmp_path / "same.safetensors")))


def test_the_tables_resolution_goes_before_the_options(slide: Path, checkpoint: Path, out: Path) -> None:
    table = out.parent / "cohort.csv"
    table.write_text(f"slide,mpp\n{slide},0.49\n")
    assert not reused(table, out, checkpoint)
    assert reused(slide, out, checkpoint, mpp=0.49)
    assert reused(table, out, checkpoint, mpp=0.25)


def test_draws_follow_from_the_slides_content_not_from_its_name(slide: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A twin is drawn alike; one more byte in the file leaves every pixel, and draws other cells."""
    (tmp_path / "slides").mkdir()
    for name in ("s", "twin", "other"):
        shutil.copy(slide, tmp_path / "slides" / f"{name}.tif")
    with (tmp_path / "slides" / "other.tif").open("ab") as file:
        file.write(b"\0")
    summary = run_cohort(find_target(tmp_path / "slides"), tmp_path / "out", RunSettings(model=checkpoint))
    assert summary.ok == 3
    one, twin, other = (drawn(tmp_path / "out", name) for name in ("s", "twin", "other"))
    assert one == twin != other
