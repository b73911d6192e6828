"""Megapixel MNIST and the cost curve: every row trains, records are for one setting, nobody reads all pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from makers import ROOT

from benchmarks.paper.config import MegapixelTask, read_task
from benchmarks.paper.cost_curve import prepare
from benchmarks.paper.megapixel import MegapixelViews, focus, main, train
from benchmarks.paper.mnist import BOX, Digits, SparseImages, make_images
from benchmarks.paper.sections import cost_curve_section, megapixel_figures
from benchmarks.paper.views import build_sampler
from benchmarks.paper.whole import build_whole


@pytest.fixture(scope="module")
def digits() -> Digits:
    """Ten squares of full ink for each class, whose grey level names the class."""
    labels = np.repeat(np.arange(10), 10)
    return Digits(np.broadcast_to((100 + labels)[:, None, None], (100, BOX, BOX)).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def tiny() -> MegapixelTask:
    """The reduced setting's networks and rows on a handful of small images."""
    setting = read_task(ROOT / "configs/paper/megapixel-small.yaml", MegapixelTask).model_dump()
    rows = {name: row | {"training": {"epochs": 1}} for name, row in setting["rows"].items()}
    images = {"train": 4, "val": 2, "test": 2}
    return MegapixelTask.model_validate(
        setting | {"side": 160, "sight": setting["sight"] | {"low_px": 20}, "images": images, "rows": rows}
    )


@pytest.mark.parametrize("name", ["megapixel", "megapixel-small"])
def test_every_setting_loads_and_builds_its_rows(name: str) -> None:
    task = read_task(ROOT / f"configs/paper/{name}.yaml", MegapixelTask)
    for row in task.rows.values():
        if row.kind == "ats":
            scale = task.side / task.sight.low_px
            assert build_sampler(row, task.sight, task.networks, scale=scale, seed=0).spec.cell_px == 2
        else:
            build_whole(row, task.networks, seed=0)


def test_every_kind_of_row_trains_and_predicts(tiny: MegapixelTask, digits: Digits) -> None:
    images = {
        split: make_images(digits, split, tiny.images[split], side=160, noise="over", strokes=3)
        for split in ("train", "test")
    }
    of_kind = {(row.kind, row.share == 1, row.attention): (name, row) for name, row in tiny.rows.items()}
    assert len(of_kind) == 5
    for name, row in of_kind.values():
        record = train(tiny, name, 0, images, "test", "cpu")
        assert len(record["correct"]) == 2
        assert np.isfinite(record["training_loss"])
        if row.kind == "ats":
            assert record["reads"] == 10
        if row.kind == "ats" and row.attention == "learned":
            assert 0 <= record["focus"]["mass"] <= 1


def test_a_view_shows_the_pixels_as_ink_on_paper(tiny: MegapixelTask, digits: Digits) -> None:
    """Cells of 16 pixels and patches of 44; white beyond the image."""
    images = make_images(digits, "train", 2, side=160, noise="over", strokes=3)
    view = MegapixelViews(images, tiny.sight)(1, None)
    assert (view.rgb.shape, view.tissue.shape) == ((20, 20, 3), (10, 10))
    framed = np.pad(255 - images.dense()[1].numpy(), ((14, 14), (14, 14), (0, 0)), constant_values=255)
    for patch, (row, column) in zip(view.patches(np.array([0, 37, 99])), [(0, 0), (3, 7), (9, 9)], strict=True):
        y, x = 16 * row, 16 * column
        np.testing.assert_array_equal(patch, framed[y : y + 44, x : x + 44].repeat(3, -1))


def test_even_attention_is_on_digits_by_chance(tiny: MegapixelTask, digits: Digits) -> None:
    images = make_images(digits, "train", 3, side=160, noise="over", strokes=3)
    model = build_sampler(tiny.rows["ats10"], tiny.sight, tiny.networks, scale=8, seed=0)  # starts even
    mass, chance = focus(model, MegapixelViews(images, tiny.sight))
    assert mass == pytest.approx(chance, rel=1e-5)
    assert 0 < chance < 0.5


def test_a_record_is_for_one_split_and_one_way_of_training(tiny: MegapixelTask) -> None:
    longer = tiny.model_copy(update={"training": tiny.training.model_copy(update={"learning_rate": 0.5})})
    digests = {tiny.digest_on("ats10", "test"), tiny.digest_on("ats10", "val"), longer.digest_on("ats10", "test")}
    assert len(digests) == 3


@pytest.mark.realdata
def test_a_second_run_trains_nothing_again(
    tiny: MegapixelTask, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny.model_dump(mode="json")))
    results = tmp_path / "results.jsonl"
    monkeypatch.setenv("SACCADE_DATA", str(shared_data))
    monkeypatch.setattr("sys.argv", ["megapixel", str(config), "--rows", "ats10", "--results", str(results)])
    for _ in range(2):
        main()
        assert len(results.read_text().splitlines()) == 1


def write_records(path: Path, *records: dict[str, object]) -> None:
    made = {"time": "now", "commit": "abc", "torch": "2", "device": "cpu", "threads": 1}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record | {"made": made}) + "\n" for record in records))


def test_figures_pair_images_and_leave_out_other_configurations(tiny: MegapixelTask) -> None:
    made = {"time": "2026-11-28T12:00:00+00:00"}
    common = {"reads": 10, "training_loss": 1.0, "epochs": 1, "ms_per_sample": 1.0, "made": made}
    right = {"ats10": [1, 1, 0, 0] * 50, "uniform10": [1, 0, 0, 0] * 50}
    records = [
        {"row": name, "digest": tiny.digest_on(name, "test"), "correct": correct} | common
        for name, correct in right.items()
    ]
    stale = {"row": "ats10", "digest": "another", "correct": [0] * 200} | common
    figures = megapixel_figures([stale, *records], tiny)
    assert figures["ats10"]["accuracy"]["value"] == 0.5
    difference = figures["uniform10"]["minus_basis"]
    assert difference["value"] == -0.25
    # of 200 paired differences, a quarter -1 and the others 0
    spread = 2 * 1.96 * np.sqrt(0.25 * 0.75 / 200)
    assert difference["high"] - difference["low"] == pytest.approx(spread, rel=0.1)


def test_a_point_that_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    points = [
        {"row": "cnn", "side": 500, "view": None, "ms": 40.0, "peak_mb": 30.0},
        {"row": "ats-fixed", "side": 500, "view": 180, "ms": 4.0, "peak_mb": 3.0},
        {"row": "ats-fixed", "side": 1000, "view": 180, "ms": 4.5, "peak_mb": 3.5},
    ]
    assert cost_curve_section(tmp_path) == ""
    record = {"what": "curve", "batch": 1, "limit_gb": 8.0, "rounds": 5, "points": points}
    write_records(tmp_path / "benchmarks/results/cost_curve.jsonl", record)
    lines = cost_curve_section(tmp_path).splitlines()
    assert "| 500 | 40.0 | 4.0 | 30.0 | 3.0 |" in lines
    assert "| 1000 | - | 4.5 | - | 3.5 |" in lines


@pytest.mark.realdata
@pytest.mark.parametrize("row", ["ats-fixed", "ats-factor"])
def test_attention_sampling_never_asks_for_all_pixels(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    """The cost curve's step on an image of 64 megapixels, of which nobody may ask for more than patches."""
    monkeypatch.setenv("SACCADE_DATA", str(shared_data))
    monkeypatch.delattr(SparseImages, "dense")
    prepare(row, 8000, 1, read_task(ROOT / "configs/paper/megapixel.yaml", MegapixelTask))()
