"""`saccade bench` on small slides: what it writes, what it leaves out, what it does again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from backbones import tiny
from makers import saccade, tissue_pixels, write_slide
from models import TINY, exhaustive_model
from PIL import Image

from pipeline.bench.bench import BenchSummary, bench_cohort
from pipeline.cohort.target import find_target
from pipeline.errors import UsageError
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.sampler import AttentionSampler
from pipeline.predict import predict_slide
from stages.slide.files import open_slide

__all__ = ["tiny"]  # a fixture

SLIDES = ("s0", "s1", "s2", "s3")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides; one more that training saw, one that is to train, one that is none."""
    folder = tmp_path_factory.mktemp("cohort")
    for i, name in enumerate((*SLIDES, "known", "other")):
        write_slide(folder / f"{name}.tif", tissue_pixels(500 + 40 * i, 560), levels=2, factor=4)
    (folder / "bad.tif").write_text("no slide")
    lines = [f"{name}.tif,p{i},{('normal', 'tumour')[i % 2]}," for i, name in enumerate((*SLIDES, "known", "bad"))]
    (folder / "cohort.csv").write_text(
        "\n".join(("slide,patient,label,split", *lines, "other.tif,p9,normal,train", ""))
    )
    (folder / "table.csv").write_text((folder / "cohort.csv").read_text().replace(",\n", ",test\n"))
    return folder


@pytest.fixture(scope="module")
def model(cohort: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, which was trained on one of the slides."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    loaded = load_model(checkpoint)
    loaded.trained_on = frozenset({open_slide(cohort / "known.tif").facts.fingerprint})
    save_model(loaded, path)
    return path


def bench(cohort: Path, model: Path, out: Path, **options: Any) -> BenchSummary:
    chosen = {"samples": [4, 16], "draws": 3, "tolerances": [0.05], **options}
    return bench_cohort(find_target(cohort / "table.csv"), model, out, **chosen)


@pytest.fixture(scope="module")
def out(cohort: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of it."""
    folder = tmp_path_factory.mktemp("bench")
    options = ("--samples", "4,16", "--draws", 3, "--tolerance", "0.05")
    done = saccade("bench", model, cohort / "table.csv", "--out", folder, *options)
    assert done.returncode == 1, done.stderr  # one slide failed
    assert "bad: failed: " in done.stderr
    assert "left out: 1 train, 1 trained on" in done.stdout
    (folder / "stdout").write_text(done.stdout)
    return folder


def test_the_table_has_a_row_for_each_way_and_number_and_the_picture_is_there(out: Path) -> None:
    with (out / "bench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    named = [(row["way"], row["setting"]) for row in rows]
    drawn = [(way, n) for way in ("attention", "uniform", "top-k") for n in ("4", "16")]
    assert named == [("everything", ""), *drawn, ("tolerance", "0.05"), ("decide", "0.5")]
    whole, four, sixteen, *_ = rows
    assert all(row["slides"] == "4" and float(row["cpu_seconds"]) > 0 and row["auroc"] for row in rows)
    assert 4 == float(four["patches"]) < float(sixteen["patches"]) < float(whole["patches"])
    assert float(four["bytes"]) < float(sixteen["bytes"]) < float(whole["bytes"])
    assert float(whole["difference"]) == 0 < float(sixteen["difference"])
    told = json.loads((out / "bench.json").read_text())
    assert told["recommendation"] in (out / "stdout").read_text()
    assert set(told["slides"]) == set(SLIDES)
    assert set(told["failed"]) == {"bad"}
    with Image.open(out / "bench.png") as picture:
        assert min(picture.size) > 800


def test_a_rerun_reads_no_slide_whole_again_and_says_the_same(
    cohort: Path, model: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (out / "bench.csv").read_bytes()
    monkeypatch.setattr(AttentionSampler, "encode", None)
    summary = bench(cohort, model, out)
    assert (out / "bench.csv").read_bytes() == before
    assert summary.slides == 4
    assert summary.words == json.loads((out / "bench.json").read_text())["recommendation"]


def test_a_few_slides_are_of_every_class_alike(cohort: Path, model: Path, tmp_path: Path) -> None:
    summary = bench(cohort, model, tmp_path, slides=2, samples=[4], draws=1)
    assert summary.slides == 2
    assert summary.rows[0]["auroc"] is not None  # so both classes are there


def test_a_split_may_be_named_and_the_others_are_left_out(cohort: Path, model: Path, tmp_path: Path) -> None:
    done = saccade(
        *("bench", model, cohort / "table.csv", "--out", tmp_path / "out", "--split", "train"),
        *("--samples", 4, "--draws", 1, "--tolerance", 0.05),
    )
    assert done.returncode == 0, done.stderr
    assert "1 slide, " in done.stdout
    assert "left out: 6 test" in done.stdout


def test_a_model_that_reads_every_cell_has_no_number_to_choose(cohort: Path, tmp_path: Path, tiny: Any) -> None:
    save_model(exhaustive_model("mean"), tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="reads every cell"):
        bench(cohort, tmp_path / "model.safetensors", tmp_path / "out")


def test_what_cannot_be_compared_is_refused_in_one_line(cohort: Path, model: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"samples": [1]}, "too few"),
        ({"draws": 0}, "draws must be from 1"),
        ({"tolerances": [2.0]}, "tolerance must lie"),
        ({"slides": 0}, "slides must be"),
    ):
        with pytest.raises(UsageError, match=words):
            bench(cohort, model, tmp_path / "none", **options)
    (cohort / "train.csv").write_text("slide,label,split\ns0.tif,normal,train\n")
    with pytest.raises(UsageError, match="slides of neither"):
        bench_cohort(find_target(cohort / "train.csv"), model, tmp_path / "none")
    with pytest.raises(UsageError, match="no slides of split val, found only test, train"):
        bench(cohort, model, tmp_path / "none", split="val")
    (cohort / "known.csv").write_text("slide,label\nknown.tif,normal\n")
    with pytest.raises(UsageError, match="trained on every slide"):
        bench_cohort(find_target(cohort / "known.csv"), model, tmp_path / "known")
    (cohort / "other.csv").write_text("slide,label\ns0.tif,cyst\n")
    with pytest.raises(UsageError, match="'cyst'"):
        bench_cohort(find_target(cohort / "other.csv"), model, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_number_is_benched_in_its_unit_and_by_its_correlation(cohort: Path, tmp_path: Path) -> None:
    """With labels of a column of its own, a read-out that was fitted, and numbers that have no decision."""
    torch.manual_seed(0)
    spec = replace(TINY, classes=("value",), task="regression", labels=("amount",), samples=4)
    made = AttentionSampler(spec).eval()
    torch.nn.init.normal_(made.head.weight, std=0.2)
    made.readout.fit(torch.tensor([100.0, 140.0], dtype=torch.float64))
    save_model(made, tmp_path / "model.safetensors")
    rows = "".join(f"{cohort / name}.tif,p{i},{100 + 7 * i}.5\n" for i, name in enumerate(SLIDES))
    (tmp_path / "table.csv").write_text(f"slide,patient,amount\n{rows}")
    summary = bench_cohort(
        find_target(tmp_path / "table.csv"),
        tmp_path / "model.safetensors",
        tmp_path / "out",
        samples=[4, 16],
        draws=2,
        tolerances=[0.5],
    )
    assert summary.slides == 4
    whole, *others = summary.rows
    assert whole["difference"] == 0
    assert -1 <= whole["pearson"] <= 1
    assert any(row["difference"] > 0 for row in others)
    assert "decide" not in [row["way"] for row in summary.rows]
    assert any("decide: a threshold of a value is the user's to say" in note for note in summary.notes)
    assert "predictions within 0.2 standard deviations" in summary.words
    assert (tmp_path / "out" / "bench.png").stat().st_size > 0
    exact = json.loads((tmp_path / "out" / "slides" / "s0.json").read_text())["ways"][0]["values"][0]
    every = predict_slide(open_slide(cohort / "s0.tif"), load_model(tmp_path / "model.safetensors"), samples=10_000)
    assert exact == pytest.approx([every.values["value"]], rel=1e-5)  # in the label's unit
    (tmp_path / "table.csv").write_text(f"slide,patient,amount\n{rows.replace('100.5', 'many')}")
    with pytest.raises(UsageError, match="the label must be a number, found 'many'"):
        bench_cohort(find_target(tmp_path / "table.csv"), tmp_path / "model.safetensors", tmp_path / "none")
