"""A model answers for slides of another stain, or of another microscope, as surely as for its own: but it says so."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from makers import tissue_pixels, write_slide

from pipeline.cohort.target import find_target
from pipeline.model.checkpoint import load_model, save_model
from pipeline.model.look import look
from pipeline.predict import predict_slide
from pipeline.run.keys import RunSettings
from pipeline.run.run import in_words, run_cohort
from pipeline.task.classes import Classes
from stages.appearance import FARTHEST, cohort_appearance
from stages.pyramid.open import open_pyramid

GLOWS = "it is bright on dark, as fluorescence is, while all 6 slides that the model was trained on are dark on bright"


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide as the model knows them, one with the colours of another stain, and one that glows."""
    folder = tmp_path_factory.mktemp("slides")
    image = tissue_pixels(1200, 1000)
    write_slide(folder / "own.tif", image)
    write_slide(folder / "stained.tif", np.ascontiguousarray(image[..., ::-1]))
    light = np.zeros_like(image)
    light[..., 2] = (244 - image.mean(2)).clip(0) / 2
    write_slide(folder / "glowing.tif", light)
    return folder


@pytest.fixture(scope="module")
def knowing(checkpoint: Path, slides_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, and how six slides look that it was trained on, as it may remember them."""
    model = load_model(checkpoint)
    looks = [look(path, model).appearance for path in sorted(slides_folder.iterdir())]
    model.appearance = cohort_appearance(looks * 2)
    path = tmp_path_factory.mktemp("knowing") / "model.safetensors"
    save_model(model, path)
    return path


def test_a_run_says_which_slides_are_unlike_those_of_the_training(
    strangers: Path, knowing: Path, tmp_path: Path
) -> None:
    """In the line, the table, the record, the slide's record and the report; and again when nothing is to be done."""
    for reused in (0, 3):
        summary = run_cohort(find_target(strangers), tmp_path / "out", RunSettings(model=knowing))
        assert (summary.ok, summary.reused) == (3, reused)
        found = {row["slide_id"]: row for row in summary.rows}
        assert found["own"]["out_of_distribution"] < 1
        assert not any("trained on" in warning for warning in found["own"]["warnings"])
        assert f"warning: {GLOWS}" in in_words(found["glowing"], Classes(("normal", "tumour")))
        with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
            table = {row["slide_id"]: row for row in csv.DictReader(file)}
        assert float(table["stained"]["out_of_distribution"]) > 1
        assert "of another colour" in table["stained"]["warnings"]
        assert float(table["glowing"]["out_of_distribution"]) == FARTHEST
        told = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
        unlike = [name for name, lines in told.items() if any("overlay" not in line for line in lines)]
        assert unlike == ["glowing", "stained"]
    kept = json.loads((tmp_path / "out" / "slides" / "glowing" / "prediction.json").read_text())
    assert kept["row"]["warnings"] == told["glowing"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<small>warning:") == sum(map(len, told.values()))
    assert ">100.00</td>" in page


def test_the_score_changes_no_prediction(strangers: Path, knowing: Path, checkpoint: Path) -> None:
    """To the bit; and a model that does not know its cohort's looks has no score and warns of nothing."""
    slide = open_pyramid(strangers / "stained.tif")
    knows, simple = (predict_slide(slide, load_model(path)) for path in (knowing, checkpoint))
    (unlike,) = set(knows.warnings) - set(simple.warnings)
    assert f"; warning: {unlike}" in repr(knows)
    assert unlike in knows._repr_html_()
    assert simple.out_of_distribution is None
    assert (knows.probabilities, knows.intervals) == (simple.probabilities, simple.intervals)
    for part in ("attention", "patch_cells", "patch_weights", "patch_features"):
        assert np.array_equal(getattr(knows, part), getattr(simple, part))
