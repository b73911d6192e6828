"""What scripts go by: 0 where all went well, 1 where some slides were left out or failed; real processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from makers import saccade, tissue_pixels, write_config, write_slide

CONFIG = """
view: {attention_mpp: 8, patch_px: 32}
sampling: {samples: 8}
training: {epochs: 7, calibration_slides: 0, device: cpu}
"""


pytest.importorskip("torch", reason="the commands need it")


def test_train_says_where_the_model_is_and_exits_1_when_slides_were_left_out(tmp_path: Path) -> None:
    """The second time the table has one more, a blank slide: the model stands, and the exit code tells."""
    rows = ["slide,patient,label,split"]
    for i in range(4):
        write_slide(tmp_path / f"s{i}.tif", tissue_pixels(300 + 8 * i, 320, margin=0.1), levels=2, factor=4)
        rows.append(f"s{i}.tif,p{i},{'ab'[i % 2]},{'train' if i < 2 else 'test'}")
    write_config(tmp_path, dim=16, more=CONFIG)
    (tmp_path / "cohort.csv").write_text("\n".join(rows))
    command = ("train", tmp_path / "config.yaml", "--out", tmp_path / "out", "--set", "training.epochs=1")
    done = saccade(*command, fresh=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "out" / "model.safetensors") in done.stdout
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert "epoch 1/1" in done.stderr  # --set goes before the file's 7
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]["slides"] == 2

    write_slide(tmp_path / "blank.tif", np.full((400, 400, 3), 244, np.uint8))
    (tmp_path / "cohort.csv").write_text("\n".join([*rows, "blank.tif,p9,a,train"]))
    done = saccade(*command)
    assert done.returncode == 1, done.stderr
    assert "left out: blank: no tissue" in done.stderr
    assert "up to date" in done.stderr


def test_run_exits_1_when_a_slide_failed_and_predicts_the_others(checkpoint: Path, tmp_path: Path) -> None:
    write_slide(tmp_path / "slides" / "good.tif", tissue_pixels(600, 600))
    (tmp_path / "slides" / "bad.svs").write_text("not a slide")
    done = saccade("run", tmp_path / "slides", "--model", checkpoint, "--out", tmp_path / "out", "--workers", 0)
    assert done.returncode == 1, done.stderr
    assert "1 of 2 slides predicted" in done.stdout
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        assert {row["slide_id"]: row["status"] for row in csv.DictReader(file)} == {"good": "ok", "bad": "failed"}
